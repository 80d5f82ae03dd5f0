//! A launch in the background: two processes of netlaunch, and the report of QEMU's readiness.
//!
//! If QEMU daemonizes, the caller sees what QEMU alone would show: the command ends when QEMU's
//! first process ends, and with its status. The steps ([`crate::sys::process`] has the two
//! processes):
//!
//! 1. [`fork`] makes the supervisor before this process has a tokio runtime or a thread. The
//!    foreground process waits there.
//! 2. The supervisor starts the launch as usual.
//! 3. When QEMU is ready, the function of [`report_readiness`] reports that, directs the standard
//!    descriptors to /dev/null, and lets the foreground process end with status 0.
//!
//! Until step 3 every end of the foreground process ends the launch. Afterwards the supervisor's
//! messages go to /dev/null.
//!
//! With `--detach`, QEMU does not daemonize: it is a child of the supervisor with /dev/null as its
//! standard input, and its output goes to a log in the launch directory. QEMU is ready when its QMP
//! socket answers a command ([`supervise_detached`]). If QEMU ends before that, its output goes to
//! the caller.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, raise};

use super::failure::FAILED;
use super::{Failure, events, ready};
use crate::launcher::{
    CommandSource, EventSink, LaunchEvent, Outcome, Running, daemonizes, main_loop_runs,
};
use crate::sys::file_pages;
use crate::sys::process::{ForegroundLink, Side, WatchedForeground, fork_supervisor};
use crate::types::error_text;

/// How long the report of QEMU's end may take after its QMP socket was closed.
const END_LIMIT: Duration = Duration::from_secs(5);

/// This process after [`fork`].
pub(super) enum Process {
    /// The foreground process, which has waited for QEMU's first process.
    Foreground(Outcome),
    /// The process that carries the launch out; with a link if it is the supervisor of a daemon.
    Launching(Option<ForegroundLink>),
}

/// Makes the supervisor with `detach`, or if QEMU's arguments say that QEMU daemonizes. The
/// foreground process waits here.
///
/// # Errors
/// The process cannot be forked.
pub(super) fn fork(qemu_args: &[OsString], detach: bool) -> Result<Process, Failure> {
    if !detach && !daemonizes(qemu_args) {
        return Ok(Process::Launching(None));
    }
    let side =
        fork_supervisor().map_err(Failure::system("start a supervisor in the background"))?;
    Ok(match side {
        Side::Foreground(foreground) => {
            let qemu = Some(foreground.wait());
            Process::Foreground(Outcome { qemu, ..Outcome::default() })
        }
        Side::Supervisor(link) => Process::Launching(Some(link)),
    })
}

/// Makes `running` report readiness once QEMU has daemonized: to `ready`, to the service manager's
/// socket `notify`, as an event, and to the foreground process.
///
/// If the report to `ready` fails, the launch ends, as it does without a daemon.
pub(super) fn report_readiness(
    running: &mut Running,
    foreground: Arc<WatchedForeground>,
    ready: Option<OwnedFd>,
    notify: Option<&OsStr>,
) {
    let (plan, record) = (running.plan().clone(), running.record().clone());
    let notify = notify.map(OsStr::to_owned);
    let ready = Mutex::new(Some(ready));
    running.set_events(EventSink::new(move |event| {
        let LaunchEvent::Daemonized { pid } = event else { return };
        let ready = ready.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut record = record.clone();
        if let Some(qemu) = &mut record.qemu {
            qemu.pid = pid.cast_signed();
        }
        let status = match ready::signal(&plan, ready.flatten(), notify.as_deref()) {
            Ok(()) => {
                events::ready(&plan, Some(&record));
                0
            }
            Err(failure) => {
                tracing::error!("{failure}");
                // The supervisor takes the signal from its queue and ends QEMU.
                let _ = raise(Signal::SIGTERM);
                FAILED
            }
        };
        if let Err(error) = foreground.release(status) {
            tracing::debug!("cannot release the foreground process: {error}");
        }
    }));
}

/// Supervises a detached launch to its end. Once QEMU is ready, `report` reports readiness, and the
/// foreground process ends.
///
/// # Errors
/// The error of `report`; the launch has ended then.
pub(super) async fn supervise_detached(
    running: Running,
    commands: &mut dyn CommandSource,
    foreground: &WatchedForeground,
    report: impl FnOnce() -> Result<(), Failure>,
) -> Result<Outcome, Failure> {
    let socket = running.record().qmp.clone();
    let mut output = running.qemu_log();
    let mut supervised = Box::pin(running.supervise(commands));
    let ready = async {
        // In serve mode there is no QEMU, and a QEMU behind a script has no socket.
        if let Some(socket) = socket
            && let Err(error) = main_loop_runs(&socket).await
        {
            tracing::debug!("QEMU does not answer on its QMP socket: {}", error_text(&error));
            // QEMU has ended, and its guard is about to report that.
            tokio::time::sleep(END_LIMIT).await;
        }
    };
    tokio::select! {
        biased;
        outcome = &mut supervised => {
            if let Some(output) = &mut output {
                // The reader of the messages may have ended.
                let _ = io::copy(output, &mut io::stderr());
            }
            return Ok(outcome);
        }
        () = ready => {}
    }
    if let Err(failure) = report() {
        // The supervisor takes the signal from its queue and ends QEMU.
        let _ = raise(Signal::SIGTERM);
        supervised.await;
        return Err(failure);
    }
    if let Err(error) = foreground.release(0) {
        tracing::debug!("cannot release the foreground process: {error}");
    }
    if let Err(error) = file_pages::release() {
        tracing::debug!("the pages of the program stay in memory: {error}");
    }
    Ok(supervised.await)
}
