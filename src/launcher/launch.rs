//! A launch for asynchronous programs.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

use nix::sys::signal::Signal;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};

use super::Outcome;
use super::command::{Channel, SupervisorCommand};
use super::entry::Launcher;
use super::error::LaunchError;
use super::event::LaunchEvent;
use super::info::LaunchInfo;
use super::launch_thread::{self, LaunchThread, Observer, Reply, Started};
use super::plan::Plan;
use crate::sys::process::signals::SignalNumber;

/// The events that are kept for a caller that does not read them; older ones are dropped.
pub(super) const EVENTS: usize = 64;

/// A launch that runs, from [`Launcher::launch`](super::Launcher::launch).
///
/// A thread of its own supervises it: passt is started again after a crash, also while the caller
/// does something else. Dropping a `Launch` kills QEMU and passt and removes the launch directory.
/// In a tokio runtime the drop returns at once, and the runtime ends after the launch; elsewhere
/// the drop waits for the end of the launch. When the whole process ends, however it does, QEMU and
/// passt end as well; the next launch then removes the directory.
///
/// The methods work in every asynchronous runtime. After fork(2) the child process has the handle
/// but not the thread: its `wait` never returns.
#[derive(Debug)]
pub struct Launch {
    info: LaunchInfo,
    plan: Plan,
    control: LaunchControl,
    events: broadcast::Receiver<LaunchEvent>,
    outcome: watch::Receiver<Option<Outcome>>,
    /// Waits for the end of the launch when it is dropped, after the command to end it.
    _thread: LaunchThread,
}

/// Hands events and the outcome to the handle.
struct Channels {
    events: broadcast::Sender<LaunchEvent>,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Observer for Channels {
    fn event(&self, event: LaunchEvent) {
        // There is no receiver after the handle was dropped.
        let _ = self.events.send(event);
    }

    fn ended(&self, outcome: Outcome) {
        let _ = self.outcome.send(Some(outcome));
    }
}

impl Launch {
    /// Starts a launch in a thread of its own and waits until it runs.
    pub(super) async fn start(launcher: Launcher) -> Result<Self, LaunchError> {
        let (control, commands) = LaunchControl::new();
        let (events_sender, events) = broadcast::channel(EVENTS);
        let (outcome_sender, outcome) = watch::channel(None);
        let observer = Channels { events: events_sender, outcome: outcome_sender };
        let (reply, started) = oneshot::channel();
        let observer = Arc::new(observer);
        let thread = launch_thread::start(launcher, commands, observer, Reply::Async(reply))?;
        match started.await {
            Ok(Ok(Started { info, plan, .. })) => {
                Ok(Launch { info, plan, control, events, outcome, _thread: thread })
            }
            Ok(Err(error)) => Err(error),
            // The thread has panicked.
            Err(gone) => Err(LaunchError::Thread(io::Error::other(gone))),
        }
    }

    /// Returns what the launch is: backend, addresses, ports, processes.
    pub fn info(&self) -> &LaunchInfo {
        &self.info
    }

    /// Returns the plan that was carried out; [`json`](super::plan::json) shows it as JSON.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns a handle with which another task or thread can signal and end the launch.
    pub fn control(&self) -> LaunchControl {
        self.control.clone()
    }

    /// Waits for the next event; `None` after the last one, which is [`LaunchEvent::Ended`].
    ///
    /// The future can be dropped and made again without losing an event. If the caller falls more
    /// than 64 events behind, the oldest ones are dropped.
    pub async fn next_event(&mut self) -> Option<LaunchEvent> {
        loop {
            match self.events.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Waits until QEMU has ended and everything of the launch was removed; in serve mode, until
    /// the caller's QEMU has come and gone. The future can be dropped and made again.
    pub async fn wait(&mut self) -> Outcome {
        match self.outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome,
            Ok(None) | Err(_) => killed(&self.info),
        }
    }

    /// Ends the launch as [`LaunchControl::stop`], and waits as [`wait`](Self::wait).
    pub async fn stop(&mut self) -> Outcome {
        self.control.stop();
        self.wait().await
    }

    /// Kills QEMU, and waits as [`wait`](Self::wait).
    pub async fn kill(&mut self) -> Outcome {
        self.control.kill();
        self.wait().await
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        self.control.kill();
    }
}

/// The outcome of a launch whose thread has panicked: the guards have killed QEMU.
pub(super) fn killed(info: &LaunchInfo) -> Outcome {
    let qemu = info.qemu_pid.map(|_| ExitStatus::from_raw(Signal::SIGKILL as i32));
    let signal = qemu.is_none().then_some(Signal::SIGKILL as i32);
    Outcome { qemu, signal, ..Outcome::default() }
}

/// Signals and ends a launch, from any thread. Its calls return at once, and have no effect after
/// the launch has ended.
///
/// ```no_run
/// # fn power_button(launch: &netlaunch::launcher::BlockingLaunch) {
/// // The handle can be cloned, and moved to another thread or task.
/// let control = launch.control();
/// control.stop();
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct LaunchControl(UnboundedSender<SupervisorCommand>);

impl LaunchControl {
    pub(super) fn new() -> (Self, Channel) {
        let (sender, receiver): (_, UnboundedReceiver<_>) = mpsc::unbounded_channel();
        (LaunchControl(sender), Channel(receiver))
    }

    /// Sends the signal of this number (signal(7)) to QEMU; in serve mode it ends the launch.
    ///
    /// # Errors
    /// There is no signal of this number.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        self.send(SupervisorCommand::Signal(SignalNumber::try_from(number)?));
        Ok(())
    }

    /// Ends the launch: QEMU gets SIGTERM, 5 s later SIGKILL. A launch with a
    /// [`stop_timeout`](super::LauncherBuilder::stop_timeout) first asks its guest to power down; a
    /// second call then ends QEMU without a further wait for the guest.
    pub fn stop(&self) {
        self.send(SupervisorCommand::PowerDown);
    }

    /// Ends the launch at once: QEMU gets SIGKILL.
    pub fn kill(&self) {
        self.send(SupervisorCommand::Kill);
    }

    fn send(&self, command: SupervisorCommand) {
        // The receiver is gone after the end of the launch.
        let _ = self.0.send(command);
    }
}
