//! Supervising what runs: passing signals on, restarting passt, ending everything.

use std::future::Future;
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::time::sleep_until;

use super::passt::{self, describe, last_words};
use super::start::Running;
use crate::binding::{BindingError, Bindings, Learning, Told};
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
#[derive(Debug, Clone)]
pub enum Order {
    /// Pass a signal on to QEMU; in serve mode, one that would end a program ends the launch.
    Signal(Signal),
    /// Make the rules of all ports' filters anew, with these settings.
    Rebuild(Box<Bindings>),
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

/// How long QEMU may take to be gone after passt has seen it disconnect.
const LEAVING: Duration = Duration::from_secs(1);

/// What became of a passt that had ended.
enum Recovered {
    /// A new one serves.
    Serves(Child),
    /// A new one does not, and this is why.
    Failed(String),
    /// There will be no new one.
    Lost,
}

type Recovery = Pin<Box<dyn Future<Output = Recovered>>>;

/// The guest's address being learnt.
type Learns = Pin<Box<dyn Future<Output = (Told, Option<Learning>)>>>;

/// Every port's rules being made anew.
type Rebuild = Pin<Box<dyn Future<Output = Result<Vec<String>, BindingError>>>>;

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
        let mut recovery: Option<Recovery> = None;
        let mut learns: Option<Learns> = self.learning.take().map(learns_on);
        let mut rebuild: Option<Rebuild> = None;
        let mut again: Option<Box<Bindings>> = None;
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
                        Order::Rebuild(bindings) => {
                            match rebuild {
                                Some(_) => again = Some(bindings),
                                None => rebuild = Some(rebuild_with(*bindings)),
                            }
                            continue;
                        }
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
                    let words = self.passt.take().map(|passt| last_words(&passt));
                    if serving && status.success() {
                        break; // QEMU came and has left
                    }
                    let left = status.success();
                    let words = words.unwrap_or_default();
                    let what = format!("passt {} ({words})", describe(&status));
                    recovery = Some(self.recover(&mut history, what, left));
                }
                recovered = pending(&mut recovery) => {
                    recovery = match recovered {
                        Recovered::Serves(child) => {
                            self.passt_started(child);
                            let _ = self.record.write();
                            history.since = Instant::now();
                            tracing::debug!("passt serves again");
                            None
                        }
                        Recovered::Failed(what) => Some(self.recover(&mut history, what, false)),
                        Recovered::Lost => {
                            outcome.backend_lost = true;
                            if serving {
                                break;
                            }
                            None
                        }
                    };
                }
                (told, learning) = pending(&mut learns) => {
                    learns = learning.map(learns_on);
                    self.told(told);
                }
                rebuilt = pending(&mut rebuild) => {
                    match rebuilt {
                        Ok(notes) => notes.iter().for_each(|note| tracing::info!("{note}")),
                        Err(error) => tracing::error!("{error}"),
                    }
                    rebuild = again.take().map(|bindings| rebuild_with(*bindings));
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
        drop((recovery, rebuild));
        // It ends before the filter's rules go.
        drop(learns);
        self.clear(&mut outcome).await;
        outcome
    }

    /// Takes in what was learnt about the guest's address.
    fn told(&mut self, told: Told) {
        match told {
            Told::InForce(address) => {
                match address {
                    Some(address) => tracing::info!("the guest has the address {address}"),
                    None => tracing::info!("the guest has no address any more"),
                }
                self.record.learnt(address);
                let _ = self.record.write();
            }
            Told::Failed(error) => {
                tracing::error!("{error}");
                self.record.learnt(None);
                let _ = self.record.write();
            }
            Told::Ended(Some(error)) => {
                tracing::error!("the guest's address is not learnt any more: {error}");
            }
            Told::Ended(None) => tracing::debug!("the guest's port has no filter any more"),
        }
    }

    /// What to do about a passt that is gone (`what` says how): start it again after a pause, where
    /// QEMU can connect to it. `left` says that passt itself saw QEMU disconnect: then QEMU is most likely on its
    /// way out, and nothing is said or done before it has had the time.
    fn recover(&self, history: &mut History, what: String, left: bool) -> Recovery {
        let useful = self.plan.qemu.reconnects || self.qemu.is_none();
        let setting = self.setting.clone().filter(|s| useful && s.plan.socket.is_some());
        if history.since.elapsed() > STABLE {
            history.failures = 0;
        }
        let tried = history.failures;
        history.failures += 1;
        let backoff = FIRST_PAUSE * 2u32.pow(tried.min(RESTARTS));
        Box::pin(async move {
            tokio::time::sleep(if left { LEAVING } else { backoff }).await;
            let Some(setting) = setting else {
                tracing::warn!(
                    "{what}; the guest has no network any more, because QEMU cannot connect to another passt: use --transport unix with QEMU 8.0 or later"
                );
                return Recovered::Lost;
            };
            if tried == RESTARTS {
                tracing::error!(
                    "{what}; it ended {} times in a row and is not started again: the guest has no network any more",
                    RESTARTS + 1
                );
                return Recovered::Lost;
            }
            tracing::warn!("{what}; it is started again");
            match passt::start(&setting, None).await {
                Ok(child) => Recovered::Serves(child),
                Err(error) => Recovered::Failed(error.to_string()),
            }
        })
    }

    /// Ends what still runs, last started first, and removes the directory; goes on over errors.
    async fn clear(&mut self, outcome: &mut Outcome) {
        if let Some(mut qemu) = self.qemu.take() {
            qemu.stop(Signal::SIGTERM, QEMU_PATIENCE).await;
        }
        if let Some(mut passt) = self.passt.take() {
            passt.stop(Signal::SIGTERM, PASST_PATIENCE).await;
        }
        // The guest is gone, and no other can have the tap's name yet.
        outcome.left.extend(self.remove_port().await);
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

/// The end of what is under way; never, where nothing is.
async fn pending<T>(work: &mut Option<Pin<Box<dyn Future<Output = T>>>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

fn learns_on(learning: Learning) -> Learns {
    Box::pin(learning.next())
}

fn rebuild_with(bindings: Bindings) -> Rebuild {
    Box::pin(async move { bindings.reload().await })
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
