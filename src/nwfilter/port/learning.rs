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
//! another. After a quiet time, three more changes of IPv6 addresses need not wait. After 64 frames
//! there is a pause of 10 ms, so that a flood of them costs little. During a pause the socket may
//! drop frames, and among them one that would have taught an address. A guest that floods delays
//! only itself. But a neighbor can also flood the guest with DHCP answers; the guest's address is
//! then learned late, when one exchange gets through. If `DHCPSERVER` names servers, the learning
//! rules drop the answers of other servers before the capture sees them.

mod forwarding;
mod start;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::compile_port::LearnedAddresses;
use super::learned_rules::{RulesUpdate, UpdateError};
use super::learner_lock::LearnerLock;
use super::{BindingError, Bindings, PortStatus};
use crate::firewall::PortHooks;
use crate::nwfilter::learn::{
    BootTime, Capture, CaptureError, FrameSet6, Frames, GuestFrames, Learner, Sender, Table6,
    UsedAddresses, UsedAddresses6, since_boot,
};
use crate::sys::netlink::Netlink;
use crate::types::{EthernetAddress, InterfaceName, error_text};

/// The shortest time between two changes of rules.
const PACE: Duration = Duration::from_millis(250);
/// The number of changes of IPv6 addresses that need not wait for [`PACE`]: a guest tests its
/// stable and its private address of each prefix at nearly the same time.
const BURST: u32 = 3;
/// The number of consecutive refusals that gives the longest pause, 8 s.
const MOST_REFUSALS: u32 = 6;
/// The wait before a retry when rules could not be set, for example because the disk is full.
const RETRY: Duration = Duration::from_secs(10);
/// The number of frames between two pauses.
const FRAMES: u32 = 64;
/// The number of queued frames that are processed before a test ends; more than the queue holds.
const MOST_QUEUED: usize = 1024;
/// How long after a flood the kernel is asked whether frames were lost.
const AFTER_FLOOD: Duration = Duration::from_secs(1);
/// The length of a pause.
const PAUSE: Duration = Duration::from_millis(10);
/// The longest time between two checks of the clock: the host may suspend, and timers do not count
/// that time.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// The result of one call of [`Learning::next`].
#[derive(Debug)]
#[non_exhaustive]
pub enum LearningEvent {
    /// The rules are set with these addresses.
    RulesSet {
        /// The IPv4 address; with `None`, the rules wait for it, or the port does not learn it.
        address: Option<Ipv4Addr>,
        /// The IPv6 addresses, the oldest first.
        addresses6: Vec<Ipv6Addr>,
    },
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
    /// The IPv6 addresses, if the port learns them.
    pub(super) table: Option<Table6>,
    /// Whether the port learns the IPv4 address.
    learns4: bool,
    /// Whether the learned addresses may differ from those in the rules.
    due: Due,
    /// Why the port was turned off, if its status file could not be written then.
    pub(super) off: Option<String>,
    /// The earliest time of the next change of rules.
    not_before: Instant,
    /// The number of frames since the last pause.
    frames: u32,
    /// Whether frames may have been lost or have waited since the queue was last empty.
    had_flood: bool,
    /// Whether the bridge forwarded frames of the port at the last look.
    forwarded: bool,
    /// The number of consecutive refusals.
    refusals: u32,
}

/// The reason why [`Learning::wait`] returned.
enum Wake {
    Change,
    /// IPv6 addresses changed.
    Change6,
    NoChange,
    Gone,
}

/// Whether the rules have to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    No,
    /// IPv6 addresses changed. A guest gets several at a time, so a few changes need not wait.
    Soon,
    Yes,
}

impl Learning {
    /// Returns the port.
    pub fn port(&self) -> &InterfaceName {
        &self.port
    }

    /// Returns the learner after rules with these addresses were set.
    pub(super) fn with_rules(self, addresses: &LearnedAddresses) -> Self {
        let set6 = addresses.v6.as_deref().unwrap_or_default();
        let differs = self.address() != addresses.v4.known() || self.addresses6() != set6;
        let due = if differs { Due::Yes } else { Due::No };
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
                Ok(Wake::Change) => self.due = Due::Yes,
                Ok(Wake::Change6) => self.due = self.due.max(Due::Soon),
                Ok(Wake::Gone) => return (LearningEvent::Ended(None), None),
                Err(error) => return (LearningEvent::Ended(Some(error)), None),
            }
            if self.due == Due::No || self.ready_at() > Instant::now() {
                continue;
            }
            self.due = Due::No;
            self.look_at_bridge().await;
            let result = self.set_learned_rules().await;
            self.had_flood |= self.table.is_some();
            self.not_before = self.not_before.max(Instant::now()) + self.pace();
            match result {
                Ok(RulesUpdate::Changed) => {
                    self.off = None;
                    let (address, addresses6) = (self.address(), self.addresses6());
                    return (LearningEvent::RulesSet { address, addresses6 }, Some(self));
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
                        self.due = Due::Yes;
                        self.not_before += RETRY;
                    }
                    return (LearningEvent::RulesNotSet(error), Some(self));
                }
            }
        }
    }

    /// Returns the learned IPv4 address.
    pub(super) fn address(&self) -> Option<Ipv4Addr> {
        self.learner.lease().map(|lease| lease.address)
    }

    /// Returns the learned IPv6 addresses, the oldest first.
    pub(super) fn addresses6(&self) -> Vec<Ipv6Addr> {
        let leases = self.table.as_ref().map(Table6::leases).unwrap_or_default();
        leases.iter().map(|lease| lease.address).collect()
    }

    /// Returns the frames that can change an address from now on.
    fn frames(&self) -> Frames {
        let v6 = self.table.is_some().then_some(FrameSet6::All);
        Frames { v4: self.learns4.then(|| self.learner.frames()), v6 }
    }

    /// Returns the time at which the rules may change. Changes of IPv6 addresses may use up the
    /// pauses of the next changes, and then wait for them.
    fn ready_at(&self) -> Instant {
        let ahead = PACE * if self.due == Due::Soon && self.refusals == 0 { BURST } else { 0 };
        self.not_before.checked_sub(ahead).unwrap_or(self.not_before)
    }

    /// Returns the pause before the next change of rules. It doubles with each refusal, so a guest
    /// that keeps claiming other guests' addresses costs the host less and less.
    fn pace(&mut self) -> Duration {
        let is_refused = self.learner.refused().is_some()
            || self.table.as_ref().is_some_and(|table| table.refused().is_some());
        self.refusals = if is_refused { (self.refusals + 1).min(MOST_REFUSALS) } else { 0 };
        PACE * 2_u32.pow(self.refusals.saturating_sub(1))
    }

    /// Sets the port's rules with the learned address.
    async fn set_learned_rules(&mut self) -> Result<RulesUpdate, UpdateError> {
        let bindings = self.bindings.clone();
        bindings.set_learned_rules(self).await
    }

    /// Checks the learned addresses against the addresses that are taken now. Then narrows the
    /// capture to the frames that can still teach an address. The caller holds the lock.
    pub(super) fn check(
        &mut self,
        taken: UsedAddresses,
        taken6: UsedAddresses6,
    ) -> Result<(), BindingError> {
        let before = self.frames();
        self.learner.check(taken);
        if let Some(table) = &mut self.table {
            table.check(taken6);
        }
        let frames = self.frames();
        if frames == before {
            return Ok(());
        }
        self.capture.select(frames).map_err(capture_error(&self.port))
    }

    /// Waits for one event: a request to leave, the end of the pause, a frame, or a check of the
    /// clock.
    async fn wait(&mut self) -> Result<Wake, BindingError> {
        if self.frames >= FRAMES {
            self.frames = 0;
            if !self.had_flood {
                self.look_at_bridge().await;
            }
            self.had_flood = self.table.is_some();
            sleep(PAUSE).await;
        }
        let now = since_boot();
        let until = self.learner.lease().and_then(|lease| lease.until);
        let until = until.map(|until| Duration::from_secs(until.0));
        let wake = self.table.as_ref().and_then(Table6::wake);
        // A loss counts for the tests that run until it is known, so it is asked for soon.
        let soon = self.had_flood.then_some(now + AFTER_FLOOD);
        let next = until.into_iter().chain(wake).chain(soon).min();
        let next = next.map(|next| next.saturating_sub(now));
        let look_again = Instant::now() + next.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
        tokio::select! {
            biased;
            dismissed = self.lock.dismissed() => {
                let lock_error = |source| self.bindings.lock_error(&self.port, source);
                dismissed.map_err(lock_error)?;
                Ok(Wake::Gone)
            }
            () = sleep_until(self.ready_at()), if self.due != Due::No => Ok(Wake::NoChange),
            // Before the frames: a guest that floods does not delay the end of a test.
            () = sleep_until(look_again) => self.look_again().await,
            frame = self.capture.next() => {
                let Some((sender, frame)) = frame.map_err(capture_error(&self.port))? else {
                    return Ok(Wake::Gone);
                };
                self.frames += 1;
                let learner = self.learns4.then_some(&mut self.learner);
                let wake = process(learner, self.table.as_mut(), sender, frame);
                if self.check_tests(self.had_flood).await && matches!(wake, Wake::NoChange) {
                    return Ok(Wake::Change6);
                }
                Ok(wake)
            }
        }
    }

    /// Processes all queued frames, before a test of an address ends: one of them may be the answer
    /// of another machine. Gives up the tests if frames were lost.
    fn process_queue(&mut self) -> Result<Due, BindingError> {
        let mut due = Due::No;
        let error = capture_error(&self.port);
        for _ in 0..MOST_QUEUED {
            let Some((sender, frame)) = self.capture.queued().map_err(&error)? else {
                if self.capture.has_lost_frames().map_err(&error)?
                    && let Some(table) = &mut self.table
                {
                    table.distrust();
                }
                self.had_flood = false;
                return Ok(due);
            };
            let learner = self.learns4.then_some(&mut self.learner);
            due = due.max(match process(learner, self.table.as_mut(), sender, frame) {
                Wake::Change => Due::Yes,
                Wake::Change6 => Due::Soon,
                Wake::NoChange | Wake::Gone => Due::No,
            });
        }
        if let Some(table) = &mut self.table {
            table.distrust();
        }
        Ok(due)
    }

    /// Ends the leases whose time is over, and asks the guest for the idle addresses that the table
    /// names.
    async fn look_again(&mut self) -> Result<Wake, BindingError> {
        if self.table.is_some() {
            let is_late = self.had_flood;
            self.due = self.due.max(self.process_queue()?);
            self.check_tests(is_late).await;
        }
        let expired = self.learner.expire(BootTime::now()).is_some();
        let tick = self.table.as_mut().map(|table| table.tick(since_boot())).unwrap_or_default();
        let is_refusal_new = self.table.as_ref().is_some_and(Table6::is_refusal_new);
        if !tick.probes.is_empty() {
            let link = Netlink::open()?.link(&self.port).await?;
            if let Some(mac) = link.mac.filter(|_| link.index == self.index) {
                let asked = self.capture.ask(EthernetAddress::new(mac), &tick.probes);
                asked.map_err(capture_error(&self.port))?;
            }
        }
        Ok(match (expired, tick.changed || is_refusal_new) {
            (true, _) => Wake::Change,
            (false, true) => Wake::Change6,
            (false, false) => Wake::NoChange,
        })
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

/// Gives a frame to the learners.
fn process(
    learner: Option<&mut Learner>,
    table: Option<&mut Table6>,
    sender: Sender,
    frame: &[u8],
) -> Wake {
    if let Some(table) = table {
        let was_new = table.is_refusal_new();
        let changed = table.process_frame(sender, frame, since_boot());
        if changed || (table.is_refusal_new() && !was_new) {
            return Wake::Change6;
        }
    }
    let Some(learner) = learner else { return Wake::NoChange };
    let change = learner.process_frame(sender, frame, BootTime::now());
    // A new refusal also needs a check and an entry in the status file.
    let is_due = change.is_some() || learner.is_refusal_new();
    if is_due { Wake::Change } else { Wake::NoChange }
}

fn capture_error(port: &InterfaceName) -> impl Fn(CaptureError) -> BindingError {
    |error| BindingError::Capture { port: port.clone(), error }
}

/// Returns the direction of the frames of a port's guest.
fn guest_frames(status: &PortStatus) -> GuestFrames {
    match status.hooks {
        PortHooks::Bridge => GuestFrames::Received,
        PortHooks::Interface => GuestFrames::Sent,
    }
}
