//! A launch whose QEMU daemonizes: two processes of netlaunch, and the report of QEMU's readiness.
//!
//! The caller sees what QEMU alone would show: the command ends when QEMU's first process ends, and
//! with its status. The steps ([`crate::sys::process`] has the two processes):
//!
//! 1. [`fork`] makes the supervisor before this process has a tokio runtime or a thread. The
//!    foreground process waits there.
//! 2. The supervisor starts the launch as usual.
//! 3. When QEMU is ready, the function of [`report_readiness`] reports that, directs the standard
//!    descriptors to /dev/null, and lets the foreground process end with status 0.
//!
//! Until step 3 every end of the foreground process ends the launch. Afterwards the supervisor's
//! messages go to /dev/null.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{Signal, raise};

use super::failure::FAILED;
use super::{Failure, events, ready};
use crate::launcher::{EventSink, LaunchEvent, Outcome, Running, daemonizes};
use crate::sys::process::{ForegroundLink, Side, WatchedForeground, fork_supervisor};

/// This process after [`fork`].
pub(super) enum Process {
    /// The foreground process, which has waited for QEMU's first process.
    Foreground(Outcome),
    /// The process that carries the launch out; with a link if it is the supervisor of a daemon.
    Launching(Option<ForegroundLink>),
}

/// Makes the supervisor if QEMU's arguments say that QEMU daemonizes, and waits in the foreground
/// process.
///
/// # Errors
/// The process cannot be forked.
pub(super) fn fork(qemu_args: &[OsString]) -> Result<Process, Failure> {
    if !daemonizes(qemu_args) {
        return Ok(Process::Launching(None));
    }
    let side =
        fork_supervisor().map_err(Failure::system("start a supervisor for QEMU's daemon"))?;
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
