//! The thread that drives a launch of a program.
//!
//! The thread is named `netlaunch`. It has a current-thread runtime of tokio, starts QEMU and passt
//! there, and supervises them until the end; it starts no other thread. So a launch depends neither
//! on the caller's runtime nor on its being polled: QEMU ends soon after its handle was dropped,
//! also if the caller's runtime has ended by then or never had I/O or time.
//!
//! Each process that netlaunch starts has its guard between itself and this process, and the guard
//! waits for the end of the process, not of the thread ([`crate::sys::process`]):
//! PR_SET_PDEATHSIG, which belongs to a thread, is only between a guard and its program. So it does
//! not matter which thread made a launch.
//!
//! The thread blocks signals, so that the handlers of the program never run in it. QEMU and passt
//! start with the signal mask of the thread that asked for the launch.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use nix::sys::signal::SigSet;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::Outcome;
use super::blocked_signals::BlockedSignals;
use super::command::Channel;
use super::entry::Launcher;
use super::error::LaunchError;
use super::event::{EventSink, LaunchEvent};
use super::info::LaunchInfo;
use super::launch::killed;
use super::plan::Plan;
use super::record::Record;

/// A launch that runs, as its caller sees it.
pub(super) struct Started {
    pub(super) info: LaunchInfo,
    pub(super) plan: Plan,
    pub(super) record: Record,
}

/// The caller's part that follows a launch. Its methods are called in the thread and must not
/// block.
pub(super) trait Observer: Send + Sync + 'static {
    /// Takes the next event.
    fn event(&self, event: LaunchEvent);
    /// Takes the end of the launch, after the last event.
    fn ended(&self, outcome: Outcome);
}

/// Where the result of the start goes.
pub(super) enum Reply {
    Blocking(mpsc::Sender<Result<Started, LaunchError>>),
    Async(oneshot::Sender<Result<Started, LaunchError>>),
}

impl Reply {
    /// Waits until the caller no longer waits for the result.
    async fn abandoned(&mut self) {
        match self {
            Reply::Blocking(_) => std::future::pending().await,
            Reply::Async(sender) => sender.closed().await,
        }
    }

    /// Returns whether the caller took the result.
    fn send(self, result: Result<Started, LaunchError>) -> bool {
        match self {
            Reply::Blocking(sender) => sender.send(result).is_ok(),
            Reply::Async(sender) => sender.send(result).is_ok(),
        }
    }
}

/// The thread of a launch.
///
/// Dropping it waits for the thread without blocking an executor: a runtime of tokio, if there is
/// one here, does not end before the thread has. Without a runtime this thread waits.
#[derive(Debug)]
pub(super) struct LaunchThread(Option<Joining>);

impl LaunchThread {
    fn new(handle: JoinHandle<()>) -> Self {
        LaunchThread(Some(Joining { handle: Some(handle), pid: std::process::id() }))
    }

    /// Waits for the end of the thread.
    pub(super) fn join(mut self) {
        drop(self.0.take());
    }
}

impl Drop for LaunchThread {
    fn drop(&mut self) {
        let Some(joining) = self.0.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // A runtime that shuts down drops the closure, and so waits here.
            drop(runtime.spawn_blocking(move || drop(joining)));
        }
    }
}

/// A thread that is waited for when this value is dropped.
#[derive(Debug)]
struct Joining {
    handle: Option<JoinHandle<()>>,
    /// The process that has the thread. After fork(2) the child process has the handle alone.
    pid: u32,
}

impl Drop for Joining {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take().filter(|_| std::process::id() == self.pid) {
            // A panic of the thread was reported by its hook.
            let _ = handle.join();
        }
    }
}

/// Starts a thread that does `work` with the caller's signal mask and a runtime of its own.
pub(super) fn run(
    work: impl FnOnce(SigSet, io::Result<Runtime>) + Send + 'static,
) -> Result<JoinHandle<()>, LaunchError> {
    // The new thread inherits the mask, so no signal reaches it before it could block them.
    let blocked = BlockedSignals::block().map_err(LaunchError::Thread)?;
    let mask = blocked.mask_before();
    let driven = move || {
        work(mask, tokio::runtime::Builder::new_current_thread().enable_all().build());
    };
    thread::Builder::new().name("netlaunch".to_owned()).spawn(driven).map_err(LaunchError::Thread)
}

/// Starts the thread of a launch.
pub(super) fn start(
    launcher: Launcher,
    commands: Channel,
    observer: Arc<dyn Observer>,
    reply: Reply,
) -> Result<LaunchThread, LaunchError> {
    let thread = run(move |mask, runtime| match runtime {
        Ok(runtime) => runtime.block_on(drive(&launcher, mask, commands, observer, reply)),
        Err(error) => {
            reply.send(Err(LaunchError::Thread(error)));
        }
    })?;
    Ok(LaunchThread::new(thread))
}

/// Starts the launch, says so, and supervises it.
async fn drive(
    launcher: &Launcher,
    mask: SigSet,
    mut commands: Channel,
    observer: Arc<dyn Observer>,
    mut reply: Reply,
) {
    let started = tokio::select! {
        biased;
        started = launcher.start(Some(mask)) => started,
        // Dropping the start undoes it.
        () = reply.abandoned() => return,
    };
    let mut running = match started {
        Ok(running) => running,
        Err(error) => {
            reply.send(Err(error));
            return;
        }
    };
    let (info, plan) = (LaunchInfo::of(&running), running.plan().clone());
    let record = running.record().clone();
    let mut report = EndReport { observer: Arc::clone(&observer), outcome: Some(killed(&info)) };
    observer.event(LaunchEvent::started(&plan));
    running.set_events(EventSink::new(move |event| observer.event(event)));
    if reply.send(Ok(Started { info, plan, record })) {
        report.outcome = Some(running.supervise(&mut commands).await);
    }
}

/// Reports the end of a launch, also if its thread ends by a panic.
struct EndReport {
    observer: Arc<dyn Observer>,
    /// The outcome; that of a killed launch until the supervisor returns.
    outcome: Option<Outcome>,
}

impl Drop for EndReport {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            self.observer.ended(outcome);
        }
    }
}
