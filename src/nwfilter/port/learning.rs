//! Learns the address of a port's guest for as long as the port exists, and sets the rules with it.
//!
//! ```text
//! create ──▶ Learning ──next──▶ event, Learning ──next──▶ … ──▶ Ended
//!               │  ▲
//!      hand_over▼  │adopt              resume (the earlier learner was killed)
//!          another process ◀──────────────┘
//! ```
//!
//! [`Learning::next`] waits for a frame that changes the lease, saves the lease, and sets the rules
//! with the new address. A [`Learning`] ends when its interface or its binding is removed, and when
//! another process asks it to leave. Dropping it ends it at any time; the rules stay as they are.
//!
//! # Limits against floods
//!
//! Rules change at most four times a second, however often a guest releases its lease and gets
//! another. After 64 frames there is a pause of 10 ms, so that a flood of them
//! costs little. During a pause the socket may drop frames, and among them one that would have
//! taught an address. A guest that floods delays only itself. But a neighbor can also flood the
//! guest with DHCP answers; the guest's address is then learned late, when one exchange gets
//! through. If `DHCPSERVER` names servers, the learning rules drop the answers of other servers
//! before the capture sees them.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::compile_port::{AddressState, method};
use super::learned_rules::{RulesUpdate, UpdateError};
use super::learner_lock::LearnerLock;
use super::saved_lease::learner;
use super::{BindingError, Bindings, PortStatus};
use crate::nwfilter::Binding;
use crate::nwfilter::learn::{
    BootTime, Capture, CaptureError, Learner, Method, SavedLease, UsedAddresses,
};
use crate::types::{InterfaceName, error_text};

/// The shortest time between two changes of rules.
const PACE: Duration = Duration::from_millis(250);
/// The number of consecutive refusals that gives the longest pause, 8 s.
const MOST_REFUSALS: u32 = 6;
/// The wait before a retry when rules could not be set, for example because the disk is full.
const RETRY: Duration = Duration::from_secs(10);
/// The number of frames between two pauses.
const FRAMES: u32 = 64;
/// The length of a pause.
const PAUSE: Duration = Duration::from_millis(10);
/// The longest time between two checks of the clock: the host may suspend, and timers do not count
/// that time.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// The result of one call of [`Learning::next`].
#[derive(Debug)]
#[non_exhaustive]
pub enum LearningEvent {
    /// The rules are set with this address; with `None`, they are the learning rules again.
    RulesSet(Option<Ipv4Addr>),
    /// The rules could not be set with the learned address. After [`BindingError::TurnedOff`] the
    /// port is off until a reload; after other errors the learner tries again.
    RulesNotSet(BindingError),
    /// Learning has ended: the port or its filter is gone, another process asked the learner to
    /// leave, or this error occurred.
    Ended(Option<BindingError>),
}

/// The learner of one port's address. Dropping it ends the learning.
#[derive(Debug)]
pub struct Learning {
    bindings: Bindings,
    port: InterfaceName,
    pub(super) index: u32,
    // Fields drop in order: the capture closes before the learner lock is released.
    pub(super) capture: Capture,
    lock: LearnerLock,
    pub(super) learner: Learner,
    /// Whether the learned address may differ from that in the rules.
    due: bool,
    /// Why the port was turned off, if its status file could not be written then.
    pub(super) off: Option<String>,
    /// The earliest time of the next change of rules.
    not_before: Instant,
    /// The number of frames since the last pause.
    frames: u32,
    /// The number of consecutive refusals.
    refusals: u32,
}

/// The reason why [`Learning::wait`] returned.
enum Wake {
    Change,
    NoChange,
    Gone,
}

impl Learning {
    /// Returns the port.
    pub fn port(&self) -> &InterfaceName {
        &self.port
    }

    /// Returns the learner after rules with this address were set.
    pub(super) fn with_rules(self, address: AddressState) -> Self {
        let learned = self.learner.lease().map(|lease| lease.address);
        let due = learned != address.known();
        Learning { due, ..self }
    }

    /// Returns whether this learner still holds the learner lock of its port: no process has asked
    /// it to leave.
    pub(super) fn holds_lock(&self) -> bool {
        self.lock.is_current()
    }

    /// Waits until the rules are set with a new address, or fail to be. Cancelling the future drops
    /// the learner and ends the learning.
    pub async fn next(mut self) -> (LearningEvent, Option<Learning>) {
        loop {
            match self.wait().await {
                Ok(Wake::NoChange) => {}
                Ok(Wake::Change) => self.due = true,
                Ok(Wake::Gone) => return (LearningEvent::Ended(None), None),
                Err(error) => return (LearningEvent::Ended(Some(error)), None),
            }
            if !self.due || self.not_before > Instant::now() {
                continue;
            }
            self.due = false;
            let result = self.set_learned_rules().await;
            let lease = self.learner.lease();
            self.not_before = Instant::now() + self.pace();
            match result {
                Ok(RulesUpdate::Changed) => {
                    self.off = None;
                    return (LearningEvent::RulesSet(lease.map(|lease| lease.address)), Some(self));
                }
                Ok(RulesUpdate::Unchanged) => {}
                Ok(RulesUpdate::PortGone) => return (LearningEvent::Ended(None), None),
                Err(UpdateError { error, is_recorded }) => {
                    // A failure that the status file records is repaired by a reload, without a
                    // retry here.
                    if !is_recorded {
                        if matches!(error, BindingError::TurnedOff { .. }) {
                            self.off = Some(error_text(&error));
                        }
                        self.due = true;
                        self.not_before += RETRY;
                    }
                    return (LearningEvent::RulesNotSet(error), Some(self));
                }
            }
        }
    }

    /// Returns the pause before the next change of rules. It doubles with each refusal, so a guest
    /// that keeps claiming other guests' addresses costs the host less and less.
    fn pace(&mut self) -> Duration {
        self.refusals = match self.learner.refused() {
            Some(_) => (self.refusals + 1).min(MOST_REFUSALS),
            None => 0,
        };
        PACE * 2_u32.pow(self.refusals.saturating_sub(1))
    }

    /// Sets the port's rules with the learned address.
    async fn set_learned_rules(&mut self) -> Result<RulesUpdate, UpdateError> {
        let bindings = self.bindings.clone();
        bindings.set_learned_rules(self).await
    }

    /// Checks the learned address against the addresses that are taken now. Then narrows the
    /// capture to the frames that can still teach an address. The caller holds the lock.
    pub(super) fn check(&mut self, taken: UsedAddresses) -> Result<(), BindingError> {
        let before = self.learner.frames();
        self.learner.check(taken);
        let frames = self.learner.frames();
        if frames == before {
            return Ok(());
        }
        self.capture.narrow(frames).map_err(capture_error(&self.port))
    }

    /// Waits for one event: a request to leave, the end of the pause, a frame, or a check of the
    /// clock.
    async fn wait(&mut self) -> Result<Wake, BindingError> {
        if self.frames >= FRAMES {
            self.frames = 0;
            sleep(PAUSE).await;
        }
        let until = self.learner.lease().and_then(|lease| lease.until);
        let left =
            until.map(|until| Duration::from_secs(until.0.saturating_sub(BootTime::now().0)));
        let look_again = Instant::now() + left.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
        tokio::select! {
            biased;
            dismissed = self.lock.dismissed() => {
                let lock_error = |source| self.bindings.lock_error(&self.port, source);
                dismissed.map_err(lock_error)?;
                Ok(Wake::Gone)
            }
            () = sleep_until(self.not_before), if self.due => Ok(Wake::NoChange),
            frame = self.capture.next() => {
                let Some((sender, frame)) = frame.map_err(capture_error(&self.port))? else {
                    return Ok(Wake::Gone);
                };
                self.frames += 1;
                let change = self.learner.process_frame(sender, frame, BootTime::now());
                // A new refusal also needs a check and an entry in the status file.
                let is_due = change.is_some() || self.learner.is_refusal_new();
                Ok(if is_due { Wake::Change } else { Wake::NoChange })
            }
            () = sleep_until(look_again) => {
                let expired = self.learner.expire(BootTime::now());
                Ok(if expired.is_some() { Wake::Change } else { Wake::NoChange })
            }
        }
    }

    /// Returns the descriptors that another process needs for [`Bindings::adopt`]: the capture,
    /// which keeps all frames not yet received, and the learner lock.
    ///
    /// # Errors
    /// [`BindingError::LearnerLock`] if the descriptor of the lock cannot be duplicated.
    pub fn hand_over(self) -> Result<[OwnedFd; 2], BindingError> {
        let Learning { bindings, port, capture, lock, .. } = self;
        let lock = lock.hand_over().map_err(|source| bindings.lock_error(&port, source))?;
        Ok([capture.into_fd(), lock])
    }
}

fn capture_error(port: &InterfaceName) -> impl Fn(CaptureError) -> BindingError {
    |error| BindingError::Capture { port: port.clone(), error }
}

impl Bindings {
    /// Takes the learner lock of a port and opens its capture.
    pub(super) async fn listen(
        &self,
        status: &PortStatus,
        binding: &Binding,
        method: Method,
        saved: Option<SavedLease>,
    ) -> Result<Learning, BindingError> {
        let port = &status.port;
        let lock = self.locks.take(status.index).map_err(|error| self.lock_error(port, error))?;
        let lock = lock.ok_or_else(|| BindingError::LearnerRunning(port.clone()))?;
        let learner = learner(binding, method, saved).await?;
        let capture = Capture::open(status.index, binding.mac, learner.frames())
            .map_err(capture_error(port))?;
        Ok(self.learning(status, learner, capture, lock))
    }

    /// Continues the learning that another process handed over; returns `None` if the port or its
    /// filter is gone, or if a process has asked the learner to leave.
    ///
    /// # Errors
    /// [`BindingError`] if the status, the lock or the capture cannot be used.
    pub async fn adopt(
        &self,
        port: &InterfaceName,
        [capture, lock]: [OwnedFd; 2],
    ) -> Result<Option<Learning>, BindingError> {
        let Some((status, binding, method)) = self.learning_port(port)? else { return Ok(None) };
        let lock = self.locks.adopt(status.index, lock);
        let Some(lock) = lock.map_err(|error| self.lock_error(port, error))? else {
            return Ok(None);
        };
        let saved = self.saved_lease(&status, &binding)?;
        let learner = learner(&binding, method, saved).await?;
        let capture =
            Capture::adopt(capture, status.index, binding.mac).map_err(capture_error(port))?;
        Ok(Some(self.learning(&status, learner, capture, lock)))
    }

    /// Starts a new learner after the earlier one was killed; returns `None` if a process learns
    /// already, or if the port or its filter is gone.
    ///
    /// # Errors
    /// [`BindingError`] if the status, the lock or the capture cannot be used.
    pub async fn resume(&self, port: &InterfaceName) -> Result<Option<Learning>, BindingError> {
        let Some((status, binding, method)) = self.learning_port(port)? else { return Ok(None) };
        let saved = self.saved_lease(&status, &binding)?;
        match self.listen(&status, &binding, method, saved).await {
            Ok(learning) => {
                // The port may have another binding since before the learner lock was taken.
                let now = self.learning_port(port)?;
                Ok(now.is_some_and(|(_, now, _)| now == binding).then_some(learning))
            }
            Err(BindingError::LearnerRunning(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the status, the binding and the method of a port that learns.
    fn learning_port(
        &self,
        port: &InterfaceName,
    ) -> Result<Option<(PortStatus, Binding, Method)>, BindingError> {
        let mut live = self.list()?.into_iter();
        let Some(status) = live.find(|status| status.port == *port && status.learns) else {
            return Ok(None);
        };
        let binding = self.binding(&status)?;
        // The current filter may not need the address, but a redefinition may need it again.
        let method = method(&binding.variables())?;
        Ok(method.map(|method| (status, binding, method)))
    }

    fn learning(
        &self,
        status: &PortStatus,
        learner: Learner,
        capture: Capture,
        lock: LearnerLock,
    ) -> Learning {
        Learning {
            // A learner waits for the lock as long as it takes, so it has no limit.
            bindings: self.clone().lock_limit(Duration::MAX),
            port: status.port.clone(),
            index: status.index,
            capture,
            lock,
            // The rules may not have the address of the saved lease.
            due: learner.lease().map(|lease| lease.address) != status.address,
            learner,
            off: None,
            not_before: Instant::now(),
            frames: 0,
            refusals: 0,
        }
    }
}
