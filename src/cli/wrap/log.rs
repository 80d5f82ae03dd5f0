//! The log of a stand-in (`$NETLAUNCH_WRAP_LOG`, or the key `log` of `[wrap]`): one line for each
//! call, and one for each warning of a guest that runs.
//!
//! The stand-in says nothing on standard error, because its caller expects QEMU's own messages
//! alone. A log that cannot be written is ignored: it must not change how a guest runs.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::super::log::now;
use crate::types::printable::printable;

/// The log, or none.
#[derive(Debug, Clone)]
pub(super) struct WrapLog {
    path: Option<PathBuf>,
    /// The name of the call.
    name: OsString,
}

impl WrapLog {
    /// The log at `path`, for a call as `name`.
    pub(super) fn new(path: Option<PathBuf>, name: &OsStr) -> Self {
        WrapLog { path, name: name.to_owned() }
    }

    /// Whether there is a log.
    pub(super) fn is_kept(&self) -> bool {
        self.path.is_some()
    }

    /// Appends a line: the time, the process number, the name of the call, and `text`.
    ///
    /// It is one write(2) at the end of the file, so lines of several calls do not mix.
    pub(super) fn line(&self, text: &str) {
        let Some(path) = &self.path else { return };
        let line = format!(
            "{} {} {}: {}\n",
            now(),
            std::process::id(),
            printable(&self.name.to_string_lossy()),
            printable(text)
        );
        let _ = open(path).and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// Opens the log for one line. A pipe that no process reads is an error instead of a wait.
fn open(path: &PathBuf) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Messages of netlaunch become lines of the log, without the `netlaunch: ` before them.
impl Write for WrapLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end();
        self.line(text.strip_prefix("netlaunch: ").unwrap_or(text));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn each_line_has_the_time_the_process_and_the_name_and_only_the_user_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = WrapLog::new(Some(path.clone()), OsStr::new("kvm"));
        log.line("two\nlines");
        log.write_all(b"netlaunch: warning: x\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let middle = format!("Z {} kvm: ", std::process::id());
        assert!(lines[0].ends_with(&format!("{middle}two\\nlines")), "{text}");
        assert!(lines[1].ends_with(&format!("{middle}warning: x")), "{text}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["", "none/log", "fifo"] {
            let path = dir.path().join(name);
            WrapLog::new(Some(path), OsStr::new("kvm")).line("x");
        }
        WrapLog::new(Some("/dev/full".into()), OsStr::new("kvm")).line("x");
    }
}
