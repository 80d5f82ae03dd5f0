//! The steps by which a launch ends its QEMU.
//!
//! ```text
//! Stop ──────────────────────────────────────────────▶ signal ─ 5 s ─▶ SIGKILL
//! PowerDown ─ power button ─ stop timeout, or an error ─▶ SIGTERM ─ 5 s ─▶ SIGKILL
//! ```
//!
//! [`Stopping`] has the step that is in flight, and says when the next one is due; the supervisor
//! carries it out. QEMU may end at any moment between.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::guest_port::BoxFuture;
use super::power_down::{PowerDownError, power_down};
use super::running::QEMU_END_LIMIT;

/// A step that is due.
#[derive(Debug)]
pub(super) enum StopStep {
    /// QEMU has pressed the power button, or could not.
    Asked(Result<(), PowerDownError>),
    /// The guest did not power down within this time: SIGTERM is due.
    GuestOverdue(Duration),
    /// QEMU did not end in time: SIGKILL is due.
    QemuOverdue,
}

/// The end of QEMU that has begun.
#[derive(Default)]
pub(super) enum Stopping {
    /// No end has begun, or the last step was taken.
    #[default]
    Idle,
    /// The guest is asked to power down.
    PoweringDown {
        /// The request to QEMU; `None` once QEMU has answered.
        request: Option<BoxFuture<'static, Result<(), PowerDownError>>>,
        /// The time for the guest.
        limit: Duration,
        /// The end of that time.
        until: Instant,
    },
    /// QEMU has got a signal that ends it.
    Ending {
        /// When it gets SIGKILL.
        kill_at: Instant,
    },
}

impl Stopping {
    /// Begins to ask the guest to power down, by the QMP socket at `socket`.
    pub(super) fn power_down(socket: PathBuf, limit: Duration) -> Self {
        let until = far_or(limit);
        Stopping::PoweringDown { request: Some(Box::pin(power_down(socket))), limit, until }
    }

    /// Returns whether no end has begun.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Stopping::Idle)
    }

    /// Notes that QEMU has got a signal that ends it. An earlier such signal keeps its time.
    pub(super) fn signalled(&mut self) {
        if !matches!(self, Stopping::Ending { .. }) {
            *self = Stopping::Ending { kill_at: far_or(QEMU_END_LIMIT) };
        }
    }

    /// Waits for the next step; without an end that has begun, the wait has no end. The future may
    /// be dropped, and the call repeated.
    pub(super) async fn next(&mut self) -> StopStep {
        match self {
            Stopping::Idle => std::future::pending().await,
            Stopping::PoweringDown { request, limit, until } => {
                tokio::select! {
                    asked = answer(request) => StopStep::Asked(asked),
                    () = sleep_until(*until) => StopStep::GuestOverdue(*limit),
                }
            }
            Stopping::Ending { kill_at } => {
                sleep_until(*kill_at).await;
                *self = Stopping::Idle;
                StopStep::QemuOverdue
            }
        }
    }
}

/// Waits for the answer to the request; once it has come, the wait has no end.
async fn answer(
    request: &mut Option<BoxFuture<'static, Result<(), PowerDownError>>>,
) -> Result<(), PowerDownError> {
    let Some(asked) = request else { return std::future::pending().await };
    let answer = asked.await;
    *request = None;
    answer
}

/// Returns the time after `limit`, or in a year if the clock has no such time.
fn far_or(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or_else(|| now + Duration::from_secs(86_400 * 365))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_guest_whose_qemu_does_not_answer_is_overdue_after_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("q");
        // A listener that never greets, as that of a stopped QEMU.
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let limit = Duration::from_millis(50);
        let mut stopping = Stopping::power_down(socket, limit);
        assert!(!stopping.is_idle());
        assert!(matches!(stopping.next().await, StopStep::GuestOverdue(passed) if passed == limit));
        stopping.signalled();
        assert!(matches!(stopping, Stopping::Ending { .. }));
    }

    #[tokio::test]
    async fn a_second_signal_gives_qemu_no_more_time() {
        let kill_at = |stopping: &Stopping| match stopping {
            Stopping::Ending { kill_at } => Some(*kill_at),
            _ => None,
        };
        let mut stopping = Stopping::Idle;
        stopping.signalled();
        let first = kill_at(&stopping);
        tokio::time::sleep(Duration::from_millis(5)).await;
        stopping.signalled();
        assert!(first.is_some() && kill_at(&stopping) == first);
    }
}
