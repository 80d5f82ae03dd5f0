//! Starting passt.
//!
//! Root's passt becomes a user of its own ([`TransientUser`](crate::types::TransientUser)), for whom
//! the launch directory is open while passt starts ([`super::gate`]). In a user namespace that maps
//! no id for it, passt stays the user that it is started as, to whom the directory belongs; it does
//! so by itself outside of the initial user namespace.
//!
//! passt's guard keeps what it prints, in a bounded amount ([`Spawn::keep_output`]).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

use super::gate::Gate;
use super::serving::{names_pid_file, pid_file_written, serves};
use super::signal_name;
use crate::plan::PasstPlan;
use crate::process::{Child, Isolation, Reveal, Spawn, SpawnError, Stdio};
use crate::state::{Readers, replace};

/// How long passt may take until it serves; measured: about 30 ms on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(10);
/// The most bytes of a line that a message repeats; a guest may have a part in what it says.
const WORDS: usize = 300;
/// How long passt's pid file may come after its socket; measured: over 1 s where thirty start at
/// once on two processors.
const PID_LIMIT: Duration = Duration::from_secs(10);

/// Why passt does not serve. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
pub enum PasstError {
    /// It could not be executed.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A file of the passt before it could not be removed.
    #[error("cannot remove {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The launch directory could not be opened to passt's user.
    #[error("cannot open {} to passt's user: {source}", path.display())]
    Directory {
        /// The launch directory.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// There were no descriptors left for it.
    #[error("cannot copy a descriptor for passt: {source}")]
    Copy {
        /// The kernel's error.
        source: io::Error,
    },
    /// It ended instead of serving.
    #[error("passt {} before it could serve: {words}", describe(.status))]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// What it said last.
        words: String,
    },
    /// It neither ended nor served.
    #[error("passt did not listen on {} within {} s: {words}", path.display(), START_LIMIT.as_secs())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// What it said last.
        words: String,
    },
}

/// How a program ended, as a clause.
pub(super) fn describe(status: &ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by {}", signal_name(signal)),
        (None, None) => "ended".to_owned(),
    }
}

/// What starting passt needs besides its plan.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) plan: PasstPlan,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) mask: Option<SigSet>,
    /// Whether we are root, so that passt changes its user and with it loses PR_SET_PDEATHSIG.
    pub(super) root: bool,
}

/// Starts passt and waits until it serves. `peer` is its end of the fd transport.
pub(super) async fn start(setting: &Setting, peer: Option<OwnedFd>) -> Result<Child, PasstError> {
    let plan = &setting.plan;
    for path in [Some(&plan.pid), plan.socket.as_ref()].into_iter().flatten() {
        // A restarted passt would refuse the file that the one before it left.
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(PasstError::File { path: path.clone(), source: e });
            }
            _ => {}
        }
    }
    let log = open_log(&plan.log);
    // Dropped, it closes the directory again, whether passt serves by then or not.
    let _gate = match (plan.pid.parent(), plan.user) {
        (Some(dir), Some(user)) => Some(
            Gate::open(dir, user)
                .map_err(|source| PasstError::Directory { path: dir.to_owned(), source })?,
        ),
        _ => None,
    };
    let mut child = spawn(setting, peer, log)?;
    let begun = Instant::now();
    let mut served = None;
    loop {
        if served.is_none() && serves(plan, child.pid()) {
            served = Some(Instant::now());
        }
        // passt must have written its file before we write ours: it could not open that one.
        if let Some(since) = served
            && (!names_pid_file(plan) || pid_file_written(plan) || since.elapsed() > PID_LIMIT)
        {
            break;
        }
        let pause = if begun.elapsed() < Duration::from_millis(100) { 1 } else { 10 };
        tokio::select! {
            biased;
            status = child.wait() => {
                return Err(PasstError::Ended { status, words: last_words(&child) });
            }
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
        }
        if served.is_none() && begun.elapsed() > START_LIMIT {
            let path = plan.socket.clone().unwrap_or_else(|| plan.pid.clone());
            return Err(PasstError::Silent { path, words: last_words(&child) });
        }
    }
    // passt writes its number in its own PID namespace; the file is for the host.
    let number = format!("{}\n", child.pid());
    if let Err(error) = replace(&plan.pid, number.as_bytes(), Readers::Owner) {
        // On a full disk passt serves all the same; a wrong number would be worse than none.
        let _ = fs::remove_file(&plan.pid);
        tracing::warn!("cannot write {}: {error}", plan.pid.display());
    }
    Ok(child)
}

/// Opens passt's log for its guard; without one, as on a full disk, passt is started all the same.
fn open_log(path: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    match options.mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path) {
        Ok(log) => Some(log),
        Err(error) => {
            tracing::debug!("passt has no log: cannot write {}: {error}", path.display());
            None
        }
    }
}

fn spawn(setting: &Setting, peer: Option<OwnedFd>, log: Option<File>) -> Result<Child, PasstError> {
    let plan = &setting.plan;
    let describe = |isolation| -> Result<Spawn, PasstError> {
        let copied = |source| PasstError::Copy { source };
        let log = log.as_ref().map(File::try_clone).transpose().map_err(copied)?;
        let mut spawn = Spawn::new(&plan.program, &plan.argv)
            .env(&setting.env)
            .stdio(Stdio::Null, Stdio::Null, Stdio::Null)
            .keep_output(log)
            .own_group()
            .isolation(isolation);
        if let Some(mask) = setting.mask {
            spawn = spawn.mask(mask);
        }
        if let (Some(peer), Some(number)) = (&peer, plan.fd) {
            spawn = spawn.fd(peer.try_clone().map_err(copied)?, number);
        }
        Ok(spawn)
    };
    if setting.root {
        let mut spawn = describe(Isolation::PidNamespace)?;
        if let Some(reveal) = plan.pid.parent().and_then(hidden) {
            spawn = spawn.reveal(reveal);
        }
        match spawn.start() {
            Err(SpawnError::Namespace { source, .. }) => {
                tracing::debug!(%source, "no PID namespace for passt, so a guard alone watches it");
            }
            other => return Ok(other?),
        }
    }
    Ok(describe(Isolation::Guard)?.start()?)
}

/// The first directory above `dir` that other users cannot pass through, if there is one: root's
/// passt becomes another user and could then not reach its own files.
fn hidden(dir: &Path) -> Option<Reveal> {
    let mut above: Vec<&Path> = dir.ancestors().skip(1).collect();
    above.reverse();
    let closed = |path: &&Path| fs::metadata(path).is_ok_and(|m| m.mode() & 0o001 == 0);
    let top = above.into_iter().find(closed)?;
    Some(Reveal { top: top.to_owned(), dir: dir.to_owned() })
}

/// passt's own last words.
pub(super) fn last_words(passt: &Child) -> String {
    meaning(&String::from_utf8_lossy(&passt.output()))
}

/// The line that says most: the last one that is neither noise nor part of a usage text.
fn meaning(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"))
        .filter(|line| !line.is_empty() && !line.ends_with("bytes to syslog"))
        .collect();
    match lines.last() {
        Some(line) if line.len() > WORDS => {
            let end = (0..=WORDS).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
            format!("\"{}...\"", &line[..end])
        }
        Some(line) => format!("\"{line}\""),
        None => "it said nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_leave_the_noise_out() {
        for (log, words) in [
            ("", "it said nothing"),
            ("No external routable interface\n", "\"No external routable interface\""),
            (
                "Failed to send 3 bytes to syslog\nPID file open: Permission denied\n\nFailed to send 9 bytes to syslog\n",
                "\"PID file open: Permission denied\"",
            ),
            (
                "passt: unrecognized option '--x'\nUsage: passt [OPTION]...\n -d\n",
                "\"passt: unrecognized option '--x'\"",
            ),
        ] {
            assert_eq!(meaning(log), words);
        }
        let long = meaning(&"\u{e9}".repeat(100_000));
        assert!(long.len() <= WORDS + 5 && long.ends_with("...\""), "{long}");
    }
}
