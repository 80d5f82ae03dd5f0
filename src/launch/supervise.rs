//! Supervising what runs: passing signals on, restarting passt, ending everything.

use std::future::Future;
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::time::sleep_until;

use super::passt::{self, PasstError, describe, last_words};
use super::start::Running;
use crate::process::Child;

/// How long QEMU may take to end after SIGTERM.
const QEMU_PATIENCE: Duration = Duration::from_secs(5);
/// How long passt may take to end after SIGTERM; measured: 4 to 23 ms.
const PASST_PATIENCE: Duration = Duration::from_secs(1);
/// The pause before the first restart of passt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How many restarts in a row are tried.
const RESTARTS: u32 = 6;
/// A passt that served this long has nothing to do with those before it.
const STABLE: Duration = Duration::from_secs(30);

/// What the supervisor is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Pass a signal on to QEMU; in serve mode, one that would end a program ends the launch.
    Signal(Signal),
    /// End everything: QEMU by SIGTERM, and by SIGKILL when that does not help.
    Stop(Signal),
}

/// How a launch ended.
#[derive(Debug)]
pub struct Outcome {
    /// QEMU's status; `None` in serve mode.
    pub qemu: Option<ExitStatus>,
    /// The signal that ended a launch in serve mode.
    pub signal: Option<Signal>,
    /// Whether the backend was lost for good, which in serve mode is a failure.
    pub backend_lost: bool,
    /// What could not be removed, a line each.
    pub left: Vec<String>,
}

impl Outcome {
    /// The exit status for this outcome: QEMU's own, 128+N for signal N, 125 for a lost backend.
    pub fn code(&self) -> u8 {
        match (self.qemu, self.signal) {
            (Some(status), _) => match (status.code(), status.signal()) {
                (Some(code), _) => code as u8,
                (None, Some(signal)) => 128u8.wrapping_add(signal as u8),
                (None, None) => 125,
            },
            (None, Some(signal)) => 128u8.wrapping_add(signal as i32 as u8),
            (None, None) if self.backend_lost => 125,
            (None, None) => 0,
        }
    }
}

type Restart = Pin<Box<dyn Future<Output = Result<Child, PasstError>>>>;

/// What is known of passt's past.
struct History {
    since: Instant,
    failures: u32,
}

impl Running {
    /// Waits for QEMU's end (in serve mode for passt's) and removes everything.
    pub async fn wait(self) -> Outcome {
        self.supervise(async || std::future::pending().await).await
    }

    /// Ends QEMU and passt and removes everything.
    pub async fn stop(self) -> Outcome {
        let mut told = false;
        self.supervise(async || {
            if !std::mem::replace(&mut told, true) {
                return Order::Stop(Signal::SIGTERM);
            }
            std::future::pending().await
        })
        .await
    }

    /// Supervises until QEMU ends (in serve mode: until passt has served, or an order ends it),
    /// restarting passt where QEMU can connect to it again. `orders` gives the next order; its
    /// futures may be dropped before they are done.
    pub async fn supervise(mut self, mut orders: impl AsyncFnMut() -> Order) -> Outcome {
        let serving = self.qemu.is_none();
        let mut history = History { since: Instant::now(), failures: 0 };
        let mut restart: Option<Restart> = None;
        let mut kill_at: Option<tokio::time::Instant> = None;
        let mut outcome =
            Outcome { qemu: None, signal: None, backend_lost: false, left: Vec::new() };
        loop {
            let far = tokio::time::Instant::now() + Duration::from_secs(86400);
            tokio::select! {
                biased;
                status = ended(&mut self.qemu) => {
                    outcome.qemu = Some(status);
                    break;
                }
                order = orders() => {
                    let (signal, stop) = match order {
                        Order::Signal(signal) => (signal, false),
                        Order::Stop(signal) => (signal, true),
                    };
                    tracing::debug!(signal = signal.as_str(), stop, "told");
                    if serving {
                        outcome.signal = Some(signal);
                        break;
                    }
                    if let Some(qemu) = &self.qemu {
                        qemu.signal(signal);
                    }
                    if stop && kill_at.is_none() {
                        kill_at = Some(tokio::time::Instant::now() + QEMU_PATIENCE);
                    }
                }
                status = ended(&mut self.passt) => {
                    self.passt = None;
                    if serving && status.success() {
                        break; // QEMU came and has left
                    }
                    restart = self.restart_after(&mut history, &describe(&status));
                    outcome.backend_lost = restart.is_none();
                    if serving && outcome.backend_lost {
                        break;
                    }
                }
                started = pending(&mut restart) => {
                    restart = None;
                    match started {
                        Ok(child) => {
                            self.passt_started(child);
                            let _ = self.record.write();
                            history.since = Instant::now();
                            tracing::debug!("passt serves again");
                        }
                        Err(error) => {
                            restart = self.restart_after(&mut history, &error.to_string());
                            outcome.backend_lost = restart.is_none();
                            if serving && outcome.backend_lost {
                                break;
                            }
                        }
                    }
                }
                () = sleep_until(kill_at.unwrap_or(far)), if kill_at.is_some() => {
                    tracing::warn!("QEMU does not end on SIGTERM and is killed");
                    if let Some(qemu) = &self.qemu {
                        qemu.signal(Signal::SIGKILL);
                    }
                    kill_at = None;
                }
            }
        }
        drop(restart);
        self.clear(&mut outcome).await;
        outcome
    }

    /// The restart of a passt that is gone, after a pause; `None` when it is of no use.
    fn restart_after(&self, history: &mut History, how: &str) -> Option<Restart> {
        let words = self.plan.passt.as_ref().map(|p| last_words(&p.log)).unwrap_or_default();
        let serving = self.qemu.is_none();
        let setting = self.setting.clone().filter(|s| s.plan.socket.is_some());
        let useful = self.plan.qemu.reconnects || serving;
        let Some(setting) = setting.filter(|_| useful) else {
            tracing::warn!(
                "passt {how} ({words}); the guest has no network any more, because QEMU cannot connect to a new one: use --transport unix with QEMU 8.0 or later"
            );
            return None;
        };
        if history.since.elapsed() > STABLE {
            history.failures = 0;
        }
        if history.failures == RESTARTS {
            tracing::error!(
                "passt {how} ({words}); it ended {} times in a row and is not started again: the guest has no network any more",
                RESTARTS + 1
            );
            return None;
        }
        let pause = FIRST_PAUSE * 2u32.pow(history.failures);
        history.failures += 1;
        tracing::warn!("passt {how} ({words}); it is started again");
        Some(Box::pin(async move {
            tokio::time::sleep(pause).await;
            passt::start(&setting, None).await
        }))
    }

    /// Ends what still runs, last started first, and removes the directory; goes on over errors.
    async fn clear(&mut self, outcome: &mut Outcome) {
        if let Some(mut qemu) = self.qemu.take() {
            qemu.stop(Signal::SIGTERM, QEMU_PATIENCE).await;
        }
        if let Some(mut passt) = self.passt.take() {
            passt.stop(Signal::SIGTERM, PASST_PATIENCE).await;
        }
        if let Some(Err(error)) = self.dir.take().map(|dir| dir.remove()) {
            outcome.left.push(error.to_string());
        }
    }
}

/// The end of a child; never, where there is none.
async fn ended(child: &mut Option<Child>) -> ExitStatus {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

/// The end of a restart; never, where there is none.
async fn pending(restart: &mut Option<Restart>) -> Result<Child, PasstError> {
    match restart {
        Some(restart) => restart.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        let outcome = |qemu: Option<i32>, signal, backend_lost| Outcome {
            qemu: qemu.map(ExitStatus::from_raw),
            signal,
            backend_lost,
            left: Vec::new(),
        };
        for (outcome, code) in [
            (outcome(Some(0), None, false), 0),
            (outcome(Some(33 << 8), None, false), 33),
            (outcome(Some(9), None, false), 137),
            (outcome(Some(0), None, true), 0),
            (outcome(None, Some(Signal::SIGTERM), false), 143),
            (outcome(None, None, true), 125),
            (outcome(None, None, false), 0),
        ] {
            assert_eq!(outcome.code(), code, "{outcome:?}");
        }
    }
}
