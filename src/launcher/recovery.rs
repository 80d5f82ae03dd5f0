//! Starts passt again after it has ended.
//!
//! QEMU connects to a new passt only over a UNIX socket, and only if its netdev has a reconnect
//! option. Then a passt that ended is started again after a pause, which doubles with each attempt
//! from 50 ms on. After six restarts in a row the backend counts as lost. A passt that served for
//! longer than 30 s ends the row: its end has another cause than those before.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::{EventSink, LaunchEvent};
use super::passt;
use super::passt_again::start_again;
use super::running::RunningNic;
use crate::sys::process::Child;
use crate::types::error_text;

/// The pause before the first restart of passt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How many restarts in a row are tried.
const RESTARTS: u32 = 6;
/// After this time of service, the end of passt does not belong to the row of ends before.
const STABLE: Duration = Duration::from_secs(30);
/// How long QEMU may take to end after passt has seen it disconnect.
const LEAVING: Duration = Duration::from_secs(1);

/// The result of a restart of passt.
pub(super) enum RestartResult {
    /// A new passt serves.
    Serves(Child),
    /// The new passt does not serve, for this reason.
    Failed(String),
    /// passt is not started again.
    Lost,
}

pub(super) type PasstRestart = Pin<Box<dyn Future<Output = RestartResult> + Send>>;

/// The restarts of passt so far.
#[derive(Debug)]
pub(super) struct RestartHistory {
    /// When the present passt began to serve; `None` while no passt serves.
    serves_since: Option<Instant>,
    /// The restarts in a row.
    row: u32,
}

/// The next restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NextRestart {
    /// The pause before it.
    pause: Duration,
    /// Whether passt is started then; if not, the last restart of the row has failed.
    starts: bool,
}

impl RestartHistory {
    /// The history of a passt that serves.
    pub(super) fn new(now: Instant) -> Self {
        RestartHistory { serves_since: Some(now), row: 0 }
    }

    /// Notes that a new passt serves, and returns the number of its restart.
    pub(super) fn serves(&mut self, now: Instant) -> u32 {
        self.serves_since = Some(now);
        self.row
    }

    /// Returns the next restart after passt has ended, or after a restart has failed.
    pub(super) fn next(&mut self, now: Instant) -> NextRestart {
        let served = self.serves_since.take().map(|since| now.saturating_duration_since(since));
        if served.is_some_and(|served| served > STABLE) {
            self.row = 0;
        }
        let pause = FIRST_PAUSE * 2u32.pow(self.row);
        let starts = self.row < RESTARTS;
        if starts {
            self.row += 1;
        }
        NextRestart { pause, starts }
    }
}

/// An end of a passt.
pub(super) struct PasstEnd {
    /// The index of its NIC.
    pub(super) nic: usize,
    /// How it ended.
    pub(super) reason: String,
    /// Whether it saw QEMU disconnect. QEMU is then most likely about to end, and gets the time for
    /// that before any message or restart.
    pub(super) left: bool,
}

impl RunningNic {
    /// Starts the passt of this NIC again after a pause, if QEMU can connect to it. In serve mode
    /// the caller's QEMU counts as one that connects again.
    pub(super) fn recover(
        &self,
        end: PasstEnd,
        serve_mode: bool,
        events: Arc<EventSink>,
        history: &mut RestartHistory,
    ) -> PasstRestart {
        let PasstEnd { nic, reason, left } = end;
        let useful = self.reconnects || serve_mode;
        let passt_spawn = self.passt_spawn.clone().filter(|s| useful && s.plan.socket.is_some());
        let restart = history.next(Instant::now());
        Box::pin(async move {
            tokio::time::sleep(if left { LEAVING } else { restart.pause }).await;
            events.send(LaunchEvent::PasstEnded { nic, reason: reason.clone() });
            let Some(passt_spawn) = passt_spawn else {
                tracing::warn!(
                    "{reason}; the guest has no network any more, because QEMU cannot connect to another passt: use the unix transport with QEMU 8.0 or later"
                );
                return RestartResult::Lost;
            };
            if !restart.starts {
                tracing::error!(
                    "{reason}; it ended {} times in a row and is not started again: the guest has no network any more",
                    RESTARTS + 1
                );
                return RestartResult::Lost;
            }
            tracing::warn!("{reason}; it is started again");
            // The caller's QEMU in serve mode may be one that does not connect again by itself.
            let started = if serve_mode {
                passt::start(&passt_spawn, None).await
            } else {
                start_again(&passt_spawn).await
            };
            match started {
                Ok(child) => RestartResult::Serves(child),
                Err(error) => RestartResult::Failed(error_text(&error)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for restarts, all of which fail, until there is no further one.
    fn failing(history: &mut RestartHistory, now: Instant) -> Vec<Duration> {
        let mut pauses = Vec::new();
        for _ in 0..100 {
            let NextRestart { pause, starts } = history.next(now);
            if !starts {
                return pauses;
            }
            pauses.push(pause);
        }
        panic!("restarts without an end");
    }

    const PAUSES: [u64; 6] = [50, 100, 200, 400, 800, 1600];

    #[test]
    fn six_restarts_in_a_row_are_tried_with_growing_pauses() {
        let begun = Instant::now();
        let pauses = failing(&mut RestartHistory::new(begun), begun);
        assert_eq!(pauses, PAUSES.map(Duration::from_millis));
    }

    #[test]
    fn failing_restarts_have_an_end_also_after_a_passt_that_served_for_long() {
        let begun = Instant::now();
        let pauses = failing(&mut RestartHistory::new(begun), begun + STABLE * 2);
        assert_eq!(pauses, PAUSES.map(Duration::from_millis));
    }

    #[test]
    fn a_passt_that_served_for_long_begins_a_new_row() {
        let begun = Instant::now();
        let mut history = RestartHistory::new(begun);
        history.next(begun);
        assert_eq!(history.serves(begun), 1);
        assert_eq!(history.next(begun).pause, FIRST_PAUSE * 2, "the same row");
        history.serves(begun);
        assert_eq!(history.next(begun + STABLE * 2).pause, FIRST_PAUSE);
    }
}
