//! The log of a launch: the messages of netlaunch, in a file of the launch directory.
//!
//! It has the messages of the level debug also without `-v`, each line with its time, so that
//! `netlaunch logs` shows the command lines and the end of a launch whose standard error was lost.
//! The messages before the launch directory exists wait in memory. [`LaunchLog::open`] makes the
//! file and writes them.
//!
//! The file holds the first messages and the latest ones, and at most [`LIMIT`] bytes. A message
//! that cannot be written is lost, without further effects.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::launcher::SUPERVISOR_LOG;

/// The maximum size of the file in bytes.
const LIMIT: usize = 96 << 10;
/// The number of bytes at the beginning, and at the end, that a cut keeps.
const KEPT: usize = 16 << 10;
/// The text between the two parts of a file that was cut.
const OMISSION: &[u8] = b"[netlaunch: lines are missing here]\n";

/// The log of a launch. Copies are the same log.
#[derive(Debug, Clone, Default)]
pub struct LaunchLog(Option<Arc<Mutex<State>>>);

#[derive(Debug)]
enum State {
    /// The text so far.
    Waiting(Vec<u8>),
    /// The file and its length.
    Open(File, usize),
}

impl LaunchLog {
    /// Returns a log whose launch directory does not exist yet. The default value keeps nothing.
    pub(super) fn waiting() -> Self {
        LaunchLog(Some(Arc::new(Mutex::new(State::Waiting(Vec::new())))))
    }

    /// Returns whether the log keeps messages.
    pub(super) fn keeps(&self) -> bool {
        self.0.is_some()
    }

    /// Makes the file in this launch directory and writes the messages so far. If the file cannot
    /// be made, the launch has no log.
    pub(super) fn open(&self, dir: &Path) {
        let Some(state) = &self.0 else { return };
        let path = dir.join(SUPERVISOR_LOG);
        // passt's user can make files in the directory while root's passt starts.
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = match file {
            Ok(file) => file,
            Err(error) => return tracing::debug!("cannot make {}: {error}", path.display()),
        };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Waiting(text) = &*state {
            let text = text.clone();
            *state = State::Open(file, 0);
            state.append(&text);
        }
    }

    /// Appends a line, with the time before it.
    pub(super) fn append(&self, time: &str, line: &str) {
        if let Some(state) = &self.0 {
            let text = format!("{time} {line}");
            state.lock().unwrap_or_else(PoisonError::into_inner).append(text.as_bytes());
        }
    }
}

impl State {
    fn append(&mut self, text: &[u8]) {
        match self {
            State::Waiting(before) if before.len() + text.len() <= KEPT => {
                before.extend_from_slice(text);
            }
            State::Waiting(_) => {}
            State::Open(file, length) => {
                if *length + text.len() > LIMIT {
                    cut(file, length);
                }
                write(file, length, text);
            }
        }
    }
}

/// Removes the middle of the file.
fn cut(file: &File, length: &mut usize) {
    let mut end = vec![0; KEPT];
    let read = file.read_at(&mut end, length.saturating_sub(KEPT) as u64).unwrap_or_default();
    if file.set_len(KEPT as u64).is_ok() {
        *length = KEPT;
        write(file, length, b"\n");
        write(file, length, OMISSION);
        end.truncate(read);
        write(file, length, &end);
    }
}

/// Writes at the end of the file. Text that does not fit is lost.
fn write(file: &File, length: &mut usize, text: &[u8]) {
    if *length + text.len() <= LIMIT && file.write_all_at(text, *length as u64).is_ok() {
        *length += text.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dir: &Path) -> String {
        std::fs::read_to_string(dir.join(SUPERVISOR_LOG)).unwrap()
    }

    #[test]
    fn the_messages_before_the_directory_come_first() {
        let dir = tempfile::tempdir().unwrap();
        let log = LaunchLog::waiting();
        log.append("1", "one\n");
        log.open(dir.path());
        log.append("2", "two\n");
        assert_eq!(read(dir.path()), "1 one\n2 two\n");
        // A log that is open stays so.
        log.open(dir.path());
        log.append("3", "three\n");
        assert_eq!(read(dir.path()), "1 one\n2 two\n3 three\n");
    }

    #[test]
    fn the_file_holds_the_first_and_the_latest_messages() {
        let dir = tempfile::tempdir().unwrap();
        let log = LaunchLog::waiting();
        log.open(dir.path());
        for number in 0..20_000 {
            log.append("t", &format!("line {number}\n"));
        }
        let text = read(dir.path());
        assert!(text.len() <= LIMIT && text.len() > 2 * KEPT, "{}", text.len());
        assert!(text.starts_with("t line 0\nt line 1\n"), "{}", &text[..40]);
        assert!(text.ends_with("t line 19998\nt line 19999\n"));
        assert_eq!(text.matches("lines are missing here").count(), 1);
    }

    #[test]
    fn a_file_of_another_user_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::os::unix::fs::symlink(&target, dir.path().join(SUPERVISOR_LOG)).unwrap();
        let log = LaunchLog::waiting();
        log.open(dir.path());
        log.append("1", "one\n");
        assert!(!target.exists());
    }

    #[test]
    fn a_log_that_keeps_nothing_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let log = LaunchLog::default();
        log.append("1", "one\n");
        log.open(dir.path());
        assert!(!dir.path().join(SUPERVISOR_LOG).exists());
    }
}
