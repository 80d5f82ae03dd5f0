//! Starting passt and knowing when it serves.
//!
//! "Ready" is: the socket is listened on, as /proc/net/unix tells. A socket file alone is no sign
//! (newer passt makes it 10 to 20 ms before it listens), a test connection would use up
//! `--one-off`, and Debian 12's passt goes on even after its bind() has failed.
//!
//! What passt prints goes to a file: a pipe that nobody reads would block it, one whose reader is
//! gone would kill it.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

use super::signal_name;
use crate::plan::PasstPlan;
use crate::process::{Child, Isolation, Reveal, Spawn, SpawnError, Stdio};
use crate::state::{Readers, replace};

/// How long passt may take until it serves; measured: about 30 ms on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long its pid file may come after its socket.
const PID_LIMIT: Duration = Duration::from_secs(1);

/// Why passt does not serve. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
pub enum PasstError {
    /// It could not be executed.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Its files could not be prepared.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
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
    let mut child = spawn(setting, peer)?;
    let begun = Instant::now();
    while !serves(plan) {
        let pause = if begun.elapsed() < Duration::from_millis(100) { 1 } else { 10 };
        tokio::select! {
            biased;
            status = child.wait() => {
                return Err(PasstError::Ended { status, words: last_words(&plan.log) });
            }
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
        }
        if begun.elapsed() > START_LIMIT {
            let path = plan.socket.clone().unwrap_or_else(|| plan.pid.clone());
            return Err(PasstError::Silent { path, words: last_words(&plan.log) });
        }
    }
    wait_for_pid_file(plan).await;
    // passt writes its number in its own PID namespace; the file is for the host.
    let number = format!("{}\n", child.pid());
    replace(&plan.pid, number.as_bytes(), Readers::Owner)
        .map_err(|e| PasstError::File { path: plan.pid.clone(), source: e })?;
    Ok(child)
}

fn spawn(setting: &Setting, peer: Option<OwnedFd>) -> Result<Child, PasstError> {
    let plan = &setting.plan;
    let file = |source| PasstError::File { path: plan.log.clone(), source };
    let log =
        OpenOptions::new().append(true).create(true).mode(0o600).open(&plan.log).map_err(file)?;
    let describe = |isolation| -> Result<Spawn, PasstError> {
        let log: OwnedFd = log.try_clone().map_err(file)?.into();
        let mut spawn = Spawn::new(&plan.program, &plan.argv)
            .env(&setting.env)
            .stdio(Stdio::Null, Stdio::Null, Stdio::Fd(log))
            .own_group()
            .isolation(isolation);
        if let Some(mask) = setting.mask {
            spawn = spawn.mask(mask);
        }
        if let (Some(peer), Some(number)) = (&peer, plan.fd) {
            spawn = spawn.fd(peer.try_clone().map_err(file)?, number);
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

/// Whether passt is there for QEMU: listening, or with the fd transport past its set-up, at the end
/// of which it writes its pid file.
fn serves(plan: &PasstPlan) -> bool {
    match &plan.socket {
        Some(socket) => fs::read("/proc/net/unix").is_ok_and(|table| listened_on(&table, socket)),
        None => !names_pid_file(plan) || pid_file_written(plan),
    }
}

/// Whether `table` (proc_net(5), /proc/net/unix) has a listening socket with this path.
///
/// Columns: number, reference count, protocol, flags, type, state, inode, path. The flag 0x10000
/// (__SO_ACCEPTCON in the kernel) marks a listening socket.
fn listened_on(table: &[u8], socket: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let path = socket.as_os_str().as_bytes();
    table.split(|byte| *byte == b'\n').any(|line| {
        let Some(before) = line.strip_suffix(path).and_then(|l| l.strip_suffix(b" ")) else {
            return false;
        };
        let flags = before.split(|b| *b == b' ').filter(|f| !f.is_empty()).nth(3);
        let flags = flags.and_then(|f| std::str::from_utf8(f).ok());
        flags.and_then(|f| u32::from_str_radix(f, 16).ok()).is_some_and(|f| f & 0x10000 != 0)
    })
}

fn names_pid_file(plan: &PasstPlan) -> bool {
    plan.argv.iter().any(|arg| arg == plan.pid.as_os_str())
}

fn pid_file_written(plan: &PasstPlan) -> bool {
    fs::metadata(&plan.pid).is_ok_and(|m| m.len() > 0)
}

/// Waits until passt has written its pid file, so that it cannot overwrite ours.
async fn wait_for_pid_file(plan: &PasstPlan) {
    let begun = Instant::now();
    while names_pid_file(plan) && !pid_file_written(plan) && begun.elapsed() < PID_LIMIT {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// passt's own last words from its log.
pub(super) fn last_words(log: &Path) -> String {
    meaning(&fs::read_to_string(log).unwrap_or_default())
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
        Some(line) => format!("\"{line}\""),
        None => "it said nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_is_told_from_being_there() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 23456 /run/l/passt.sock\n\
            0000000000000000: 00000002 00000000 00000000 0001 01 23457 /run/m/passt.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 23458\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 23459 /run/with space/passt.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 23460 /x/run/n/passt.sock\n";
        for (path, listening) in [
            ("/run/l/passt.sock", true),
            ("/run/m/passt.sock", false),
            ("/run/with space/passt.sock", true),
            ("/run/n/passt.sock", false),
            ("/l/passt.sock", false),
        ] {
            assert_eq!(listened_on(table, Path::new(path)), listening, "{path}");
        }
    }

    #[test]
    fn the_kernel_shows_a_real_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let table = || fs::read("/proc/net/unix").unwrap();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(listened_on(&table(), &path));
        drop(listener);
        assert!(path.exists() && !listened_on(&table(), &path));
    }

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
    }
}
