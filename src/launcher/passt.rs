//! Starts passt and waits until it serves.
//!
//! Root's passt changes to a user of its own ([`TransientUser`](crate::types::TransientUser)). The
//! launch directory is open to that user while passt starts ([`super::gate`]). In a user namespace
//! that maps no id for such a user, passt keeps the user that starts it, which owns the directory;
//! outside of the initial user namespace passt does so by itself.
//!
//! passt's guard keeps a bounded part of passt's output ([`Spawn::keep_output`]).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use super::gate::OpenLaunchDir;
use super::launch_dir::LaunchDir;
use super::passt_failure::passt_failure;
use super::passt_ready::ready;
use super::ports::{self, PublishError};
use crate::launcher::plan::PasstPlan;
use crate::sys::process::{Child, Isolation, Reveal, Spawn, SpawnError, Stdio};
use crate::sys::state_file::{Readers, replace};
use crate::types::{Publish, error_text};

/// Why passt does not serve. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasstError {
    /// passt could not be executed.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A file of the passt before could not be removed.
    #[error("cannot remove {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The launch directory could not be opened to passt's user.
    #[error("cannot open {} to passt's user", path.display())]
    Directory {
        /// The launch directory.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// netlaunch could not wait for QEMU, which connects again, on passt's socket.
    #[error("cannot listen on {} for QEMU", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// There was no descriptor left for passt.
    #[error("cannot copy a descriptor for passt")]
    Copy {
        /// The kernel's error.
        source: io::Error,
    },
    /// passt ended instead of serving.
    #[error("passt {} before it could serve: {words}{}", describe(.status), clause(.cause))]
    Ended {
        /// How passt ended.
        status: ExitStatus,
        /// The reason in passt's own words.
        words: String,
        /// The reason as netlaunch found it.
        cause: Option<Box<PasstEndCause>>,
    },
    /// passt serves, but it does not listen on a published port.
    #[error("passt does not listen on port {port} of {publish}: {words}{}", clause(.cause))]
    PortNotListening {
        /// The requested ports.
        publish: Publish,
        /// The port.
        port: u16,
        /// The reason in passt's own words.
        words: String,
        /// Why the port is not free.
        cause: Option<Box<PublishError>>,
    },
    /// passt neither ended nor served in time.
    #[error("passt did not {} within {} s: {words}", awaited.verb(), limit.as_secs())]
    StartTimeout {
        /// The step that passt did not do.
        awaited: PasstReadiness,
        /// How long it had.
        limit: Duration,
        /// The lines of passt's output that name the reason.
        words: String,
    },
}

/// Why passt ended at its start, where netlaunch can tell.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasstEndCause {
    /// A published port is not free.
    #[error(transparent)]
    Port(PublishError),
    /// passt of root gives up root's privileges before it listens on a low port.
    #[error(
        "this passt gives up root's privileges before it listens on port {port}: publish one from {first} on, or lower the sysctl net.ipv4.ip_unprivileged_port_start"
    )]
    LowPort {
        /// The port.
        port: u16,
        /// The first port that needs no privilege.
        first: u16,
    },
    /// passt opens a file for each published port, and has too many.
    #[error(
        "passt opens a file for each published port: publish fewer, or raise the limit of open files (ulimit -n)"
    )]
    OpenFiles,
}

/// The sign that passt serves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PasstReadiness {
    /// It listens on this socket.
    Socket(PathBuf),
    /// It has written this pid file (fd transport).
    PidFile(PathBuf),
}

impl PasstReadiness {
    /// The sign of a passt with this plan.
    pub(super) fn of(plan: &PasstPlan) -> Self {
        match &plan.socket {
            Some(socket) => PasstReadiness::Socket(socket.clone()),
            None => PasstReadiness::PidFile(plan.pid.clone()),
        }
    }

    fn verb(&self) -> String {
        match self {
            PasstReadiness::Socket(path) => format!("listen on {}", path.display()),
            PasstReadiness::PidFile(path) => format!("write {}", path.display()),
        }
    }
}

/// A cause as a clause after a semicolon; empty if it is not known.
fn clause(cause: &Option<Box<impl std::error::Error>>) -> String {
    cause.as_deref().map(|cause| format!("; {}", error_text(cause))).unwrap_or_default()
}

/// Returns how a program ended, as a clause.
pub(super) fn describe(status: &ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by {}", signal_name(signal)),
        (None, None) => "ended".to_owned(),
    }
}

/// Returns the name of a signal, such as SIGTERM.
fn signal_name(number: i32) -> String {
    Signal::try_from(number)
        .map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

/// Everything that the start of passt needs besides its plan.
#[derive(Debug, Clone)]
pub(super) struct PasstSpawn {
    pub(super) plan: PasstPlan,
    /// The launch directory.
    pub(super) dir: Arc<LaunchDir>,
    /// Held while a passt of the launch starts: the launch directory is then open to its user, and
    /// it can be open to one user at a time.
    pub(super) starts: Arc<tokio::sync::Mutex<()>>,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) mask: Option<SigSet>,
    /// Whether netlaunch runs as root. passt then changes its user, at which the kernel clears
    /// PR_SET_PDEATHSIG.
    pub(super) root: bool,
}

/// Starts passt and waits until it serves. `peer` is its end of the fd transport.
pub(super) async fn start(
    passt_spawn: &PasstSpawn,
    peer: Option<OwnedFd>,
) -> Result<Child, PasstError> {
    let plan = &passt_spawn.plan;
    let _alone = passt_spawn.starts.lock().await;
    for path in [Some(&plan.pid), plan.socket.as_ref()].into_iter().flatten() {
        // A new passt refuses a file that the passt before it has left.
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
            OpenLaunchDir::open(dir, user)
                .map_err(|source| PasstError::Directory { path: dir.to_owned(), source })?,
        ),
        _ => None,
    };
    let mut child = spawn(passt_spawn, peer, log)?;
    // However this ends, the directory is removed after passt is gone: passt makes files in it.
    child.hold(passt_spawn.dir.clone());
    if let Err(error) = ready(passt_spawn, &mut child).await {
        // The caller may give its ports to another program.
        child.stop(Signal::SIGKILL, Duration::ZERO).await;
        return Err(error);
    }
    // passt writes its process ID in its own PID namespace; the file is for the host.
    let number = format!("{}\n", child.pid());
    if let Err(error) = replace(&plan.pid, number.as_bytes(), Readers::Owner) {
        // On a full disk passt serves all the same; no file is better than a wrong number.
        let _ = fs::remove_file(&plan.pid);
        tracing::warn!("cannot write {}: {error}", plan.pid.display());
    }
    Ok(child)
}

/// Returns the error of a passt that has ended, with the cause that its words and the ports show.
pub(super) fn ended(passt_spawn: &PasstSpawn, status: ExitStatus, child: &Child) -> PasstError {
    let words = passt_failure(child);
    let cause = match ports::check(&passt_spawn.plan.publish) {
        Err(error) => Some(PasstEndCause::Port(error)),
        Ok(()) if words.contains("Permission denied") => low_port(passt_spawn),
        Ok(()) if words.contains("Too many open files") => Some(PasstEndCause::OpenFiles),
        Ok(()) => None,
    };
    PasstError::Ended { status, words, cause: cause.map(Box::new) }
}

/// Returns the published port on which root's passt cannot listen: newer passt listens only after
/// it has changed to another user in a user namespace of its own.
fn low_port(passt_spawn: &PasstSpawn) -> Option<PasstEndCause> {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok()?;
    let first: u16 = first.trim().parse().ok()?;
    let publish = &passt_spawn.plan.publish;
    let port = publish.iter().map(|p| p.host.first()).find(|port| *port < first)?;
    passt_spawn.root.then_some(PasstEndCause::LowPort { port, first })
}

/// Opens passt's log for its guard. If that fails, as on a full disk, passt is started without a
/// log.
fn open_log(path: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let opened = options.mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path);
    // The umask may have removed a bit that a restart needs to open the file again.
    let opened =
        opened.and_then(|log| log.set_permissions(fs::Permissions::from_mode(0o600)).map(|()| log));
    match opened {
        Ok(log) => Some(log),
        Err(error) => {
            tracing::debug!("passt has no log: cannot write {}: {error}", path.display());
            None
        }
    }
}

fn spawn(
    passt_spawn: &PasstSpawn,
    peer: Option<OwnedFd>,
    log: Option<File>,
) -> Result<Child, PasstError> {
    let plan = &passt_spawn.plan;
    let describe = |isolation| -> Result<Spawn, PasstError> {
        let copied = |source| PasstError::Copy { source };
        let log = log.as_ref().map(File::try_clone).transpose().map_err(copied)?;
        let mut spawn = Spawn::new(&plan.program, &plan.argv)
            .env(&passt_spawn.env)
            .stdio(Stdio::Null, Stdio::Null, Stdio::Null)
            .keep_output(log)
            .own_group()
            .isolation(isolation);
        if let Some(mask) = passt_spawn.mask {
            spawn = spawn.mask(mask);
        }
        if let (Some(peer), Some(number)) = (&peer, plan.fd) {
            spawn = spawn.fd(peer.try_clone().map_err(copied)?, number);
        }
        Ok(spawn)
    };
    if passt_spawn.root {
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

/// Returns the first directory above `dir` that other users cannot pass through: root's passt
/// changes to another user, which could not reach its own files then.
fn hidden(dir: &Path) -> Option<Reveal> {
    let mut above: Vec<&Path> = dir.ancestors().skip(1).collect();
    above.reverse();
    let closed = |path: &&Path| fs::metadata(path).is_ok_and(|m| m.mode() & 0o001 == 0);
    let top = above.into_iter().find(closed)?;
    Some(Reveal { top: top.to_owned(), dir: dir.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_names_the_file_that_passt_did_not_make() {
        let error = |awaited| {
            let (limit, words) = (Duration::from_secs(10), "\"x\"".to_owned());
            PasstError::StartTimeout { awaited, limit, words }.to_string()
        };
        assert_eq!(
            error(PasstReadiness::Socket("/d/passt.sock".into())),
            "passt did not listen on /d/passt.sock within 10 s: \"x\""
        );
        assert_eq!(
            error(PasstReadiness::PidFile("/d/passt.pid".into())),
            "passt did not write /d/passt.pid within 10 s: \"x\""
        );
    }
}
