//! A launch for programs without a tokio runtime.
//!
//! The thread of the launch ([`super::launch_thread`]) puts events and the outcome into a state
//! that all callers share; they wait for it with a condition variable, or with poll(2) on a
//! descriptor.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::Outcome;
use super::entry::Launcher;
use super::error::LaunchError;
use super::event::LaunchEvent;
use super::info::LaunchInfo;
use super::launch::{EVENTS, LaunchControl, killed};
use super::launch_thread::{self, LaunchThread, Observer, Reply, Started};
use super::plan::Plan;
use super::record::Record;
use super::wake_socket::WakeSocket;

/// A launch that runs, from [`Launcher::launch_blocking`].
///
/// All its methods can be called from any thread, also at the same time. Dropping it kills QEMU and
/// passt, removes the launch directory, and waits for that. If the whole process ends without that,
/// QEMU and passt end as well, and the next launch removes the directory.
///
/// ```no_run
/// use std::time::Duration;
///
/// use netlaunch::launcher::Launcher;
///
/// let launch = Launcher::builder()
///     .qemu("qemu-system-x86_64", ["-m", "512", "disk.img"])
///     .publish("2222:22")
///     .from_env()
///     .launch_blocking()?;
/// println!("QEMU is process {:?}", launch.info().qemu_pid);
/// let outcome = match launch.wait_timeout(Duration::from_secs(3600)) {
///     Some(outcome) => outcome,
///     None => launch.stop(),
/// };
/// println!("exit status {}", outcome.code());
/// # Ok::<(), netlaunch::launcher::LaunchError>(())
/// ```
#[derive(Debug)]
pub struct BlockingLaunch {
    info: LaunchInfo,
    plan: Plan,
    #[cfg_attr(not(feature = "capi"), expect(dead_code, reason = "the C interface shows it"))]
    record: Record,
    control: LaunchControl,
    shared: Arc<Shared>,
    event_socket: UnixStream,
    thread: Option<LaunchThread>,
}

/// The state that the thread shares with the callers.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    events: VecDeque<LaunchEvent>,
    outcome: Option<Outcome>,
    /// Readable while there is an event or an outcome.
    wake: WakeSocket,
}

impl State {
    fn update_wake(&mut self) {
        self.wake.set(!self.events.is_empty() || self.outcome.is_some());
    }
}

impl Shared {
    fn new(wake: WakeSocket) -> Self {
        let state = State { events: VecDeque::new(), outcome: None, wake };
        Shared { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The state. A thread that panicked while it held the lock has left it whole: each change is
    /// one call.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Shared {
    fn event(&self, event: LaunchEvent) {
        let mut state = self.state();
        if state.events.len() == EVENTS {
            state.events.pop_front();
        }
        state.events.push_back(event);
        state.update_wake();
        self.changed.notify_all();
    }

    fn ended(&self, outcome: Outcome) {
        let mut state = self.state();
        state.outcome = Some(outcome);
        state.update_wake();
        self.changed.notify_all();
    }
}

impl Shared {
    /// Waits until `found` finds something, at most until `deadline`.
    fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut found: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(found) = found(&mut state) {
                return Some(found);
            }
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.checked_duration_since(Instant::now())?;
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl BlockingLaunch {
    pub(super) fn start(launcher: Launcher) -> Result<Self, LaunchError> {
        let wake = WakeSocket::new().map_err(LaunchError::Thread)?;
        let event_socket = wake.reader().map_err(LaunchError::Thread)?;
        let shared = Arc::new(Shared::new(wake));
        let (control, commands) = LaunchControl::new();
        let (reply, started) = mpsc::channel();
        let observer = Arc::clone(&shared) as Arc<dyn Observer>;
        let thread = launch_thread::start(launcher, commands, observer, Reply::Blocking(reply))?;
        match started.recv() {
            Ok(Ok(Started { info, plan, record })) => Ok(BlockingLaunch {
                info,
                plan,
                record,
                control,
                shared,
                event_socket,
                thread: Some(thread),
            }),
            Ok(Err(error)) => {
                thread.join();
                Err(error)
            }
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

    /// Returns what `netlaunch ps` showed of the launch at its start.
    #[cfg(feature = "capi")]
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Returns a descriptor for poll(2), readable while [`next_event`](Self::next_event) would
    /// return at once. Callers must not read from it.
    ///
    /// ```no_run
    /// # fn watch(launch: &netlaunch::launcher::BlockingLaunch) {
    /// use std::os::fd::AsRawFd;
    ///
    /// println!("add descriptor {} to the event loop", launch.event_fd().as_raw_fd());
    /// # }
    /// ```
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.event_socket.as_fd()
    }

    /// Returns a handle that signals and ends the launch and does not keep it alive.
    pub fn control(&self) -> LaunchControl {
        self.control.clone()
    }

    /// Waits for the next event; `None` after the last one, which is [`LaunchEvent::Ended`]. If the
    /// callers fall more than 64 events behind, the oldest ones are dropped.
    pub fn next_event(&self) -> Option<LaunchEvent> {
        self.shared.wait(None, next_event).flatten()
    }

    /// Waits for the next event for at most `limit`; the outer `None` is that time is up.
    pub fn next_event_timeout(&self, limit: Duration) -> Option<Option<LaunchEvent>> {
        self.shared.wait(Instant::now().checked_add(limit), next_event)
    }

    /// Waits until QEMU has ended and everything of the launch was removed; in serve mode, until
    /// the caller's QEMU has come and gone.
    pub fn wait(&self) -> Outcome {
        let outcome = self.shared.wait(None, |state| state.outcome.clone());
        outcome.unwrap_or_else(|| killed(&self.info))
    }

    /// Waits as [`wait`](Self::wait) for at most `limit`; `None` if the launch still runs then.
    pub fn wait_timeout(&self, limit: Duration) -> Option<Outcome> {
        self.shared.wait(Instant::now().checked_add(limit), |state| state.outcome.clone())
    }

    /// Ends the launch as [`LaunchControl::stop`], and waits as [`wait`](Self::wait).
    pub fn stop(&self) -> Outcome {
        self.control.stop();
        self.wait()
    }

    /// Kills QEMU, and waits as [`wait`](Self::wait).
    pub fn kill(&self) -> Outcome {
        self.control.kill();
        self.wait()
    }
}

impl Drop for BlockingLaunch {
    fn drop(&mut self) {
        self.control.kill();
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

/// The next event, or `None` after the end of the launch.
fn next_event(state: &mut State) -> Option<Option<LaunchEvent>> {
    let event = state.events.pop_front();
    state.update_wake();
    match (event, &state.outcome) {
        (Some(event), _) => Some(Some(event)),
        (None, Some(_)) => Some(None),
        (None, None) => None,
    }
}
