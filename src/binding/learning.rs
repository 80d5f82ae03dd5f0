//! Learning the address of a port's guest for as long as the port is there, and putting what was
//! learnt in force.
//!
//! ```text
//! create ──▶ Learning ──next──▶ Told, Learning ──next──▶ … ──▶ Ended
//!               │  ▲
//!      hand_over▼  │adopt              resume (whoever learnt was killed)
//!          another process ◀──────────────┘
//! ```
//!
//! A [`Learning`] ends with its interface, with its binding, and when somebody asks its holder to
//! leave. Dropping it ends it at any time; rules stay as they are.
//!
//! # What a flood can make it do
//!
//! Rules change at most four times a second, however often a guest gives its lease back and gets
//! another. Frames that teach nothing are taken with pauses, so that a flood of them costs little;
//! those that wait then may be lost, and with them one that would have taught. A guest that floods
//! delays itself alone. But a neighbour can flood with DHCP answers to the guest, too, and delay
//! what the guest learns until an exchange gets through. Where servers are named, the rules to learn
//! by drop the answers of others before they come here.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::in_force::{InForce, NotInForce};
use super::learnt::learner;
use super::meaning::method;
use super::seat::Seat;
use super::{BindingError, Bindings, Status};
use crate::learn::{BootTime, Capture, Kept, Learner, Method, Taken};
use crate::nwfilter::Binding;
use crate::types::{InterfaceName, Mac};

/// The shortest time between two changes of rules.
const PACE: Duration = Duration::from_millis(250);
/// So many refusals in succession make the pause longest: 8 s.
const MOST_REFUSALS: u32 = 6;
/// How long to wait before trying again what a full disk or the like stood in the way of.
const RETRY: Duration = Duration::from_secs(10);
/// After so many frames that taught nothing, there is a pause.
const FRAMES: u32 = 64;
/// How long it is.
const PAUSE: Duration = Duration::from_millis(10);
/// How often the clock is looked at, at least: the host may sleep, and timers do not count that.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// What happened.
#[derive(Debug)]
pub enum Told {
    /// The rules are made with this address now; with none, they wait for one again.
    InForce(Option<Ipv4Addr>),
    /// What was learnt could not be put in force. With [`BindingError::TurnedOff`] the port is off
    /// until a reload; anything else is tried again.
    Failed(BindingError),
    /// There is nothing to learn any more: the port or its filter is gone, somebody else goes on,
    /// or, where there is one, it is this mistake.
    Ended(Option<BindingError>),
}

/// The learning of one port's address. Dropping it ends it.
#[derive(Debug)]
pub struct Learning {
    bindings: Bindings,
    port: InterfaceName,
    pub(super) index: u32,
    pub(super) mac: Mac,
    // Closed before the seat is given up.
    capture: Capture,
    seat: Seat,
    pub(super) learner: Learner,
    /// What was learnt may not be in force.
    due: bool,
    /// The port was turned off, and that could not be written down.
    pub(super) off: bool,
    /// When rules may be changed again.
    not_before: Instant,
    /// Frames since the last pause.
    frames: u32,
    /// How many times in succession an address was refused.
    refusals: u32,
}

/// What woke it.
enum Woken {
    Learnt,
    Nothing,
    Gone,
}

impl Learning {
    /// The port.
    pub fn port(&self) -> &InterfaceName {
        &self.port
    }

    /// Waits until something was learnt and is in force. Cancelled, it ends; do not cancel it for
    /// less.
    pub async fn next(mut self) -> (Told, Option<Learning>) {
        loop {
            match self.wait().await {
                Ok(Woken::Nothing) => {}
                Ok(Woken::Learnt) => self.due = true,
                Ok(Woken::Gone) => return (Told::Ended(None), None),
                Err(error) => return (Told::Ended(Some(error)), None),
            }
            if !self.due || self.not_before > Instant::now() {
                continue;
            }
            self.due = false;
            let told = self.put_in_force().await;
            let lease = self.learner.lease();
            self.not_before = Instant::now() + self.pace();
            match told {
                Ok(InForce::Changed) => {
                    self.off = false;
                    return (Told::InForce(lease.map(|lease| lease.address)), Some(self));
                }
                Ok(InForce::Was) => {}
                Ok(InForce::Gone) => return (Told::Ended(None), None),
                Err(NotInForce { error, is_known }) => {
                    // What is written down is a reload's to mend.
                    if !is_known {
                        self.off |= matches!(error, BindingError::TurnedOff { .. });
                        self.due = true;
                        self.not_before += RETRY;
                    }
                    return (Told::Failed(error), Some(self));
                }
            }
        }
    }

    /// How long rules stay as they are. A guest that goes on claiming addresses of others costs the
    /// host less and less.
    fn pace(&mut self) -> Duration {
        self.refusals = match self.learner.refused() {
            Some(_) => (self.refusals + 1).min(MOST_REFUSALS),
            None => 0,
        };
        PACE * 2_u32.pow(self.refusals.saturating_sub(1))
    }

    /// Makes the port's rules with what was learnt.
    async fn put_in_force(&mut self) -> Result<InForce, NotInForce> {
        let bindings = self.bindings.clone();
        bindings.put_in_force(self).await
    }

    /// Checks what was learnt against what is taken now. From then on frames come only that can still
    /// teach something. The caller holds the lock.
    pub(super) fn check(&mut self, taken: Taken) -> Result<(), BindingError> {
        let before = self.learner.interest();
        self.learner.check(taken);
        let interest = self.learner.interest();
        if interest == before {
            return Ok(());
        }
        let narrowed = self.capture.narrow(interest);
        narrowed.map_err(|error| BindingError::Capture { port: self.port.clone(), error })
    }

    /// Waits for one thing to happen.
    async fn wait(&mut self) -> Result<Woken, BindingError> {
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
            dismissed = self.seat.dismissed() => {
                let seat_error = |source| self.bindings.seat_error(&self.port, source);
                dismissed.map_err(seat_error)?;
                Ok(Woken::Gone)
            }
            () = sleep_until(self.not_before), if self.due => Ok(Woken::Nothing),
            frame = self.capture.next() => {
                let capture_error =
                    |error| BindingError::Capture { port: self.port.clone(), error };
                let Some((direction, frame)) = frame.map_err(capture_error)? else {
                    return Ok(Woken::Gone);
                };
                self.frames += 1;
                let change = self.learner.see(direction, frame, BootTime::now());
                // A refusal is checked and written down, too.
                let is_due = change.is_some() || self.learner.is_refusal_new();
                Ok(if is_due { Woken::Learnt } else { Woken::Nothing })
            }
            () = sleep_until(look_again) => {
                let expired = self.learner.expire(BootTime::now());
                Ok(if expired.is_some() { Woken::Learnt } else { Woken::Nothing })
            }
        }
    }

    /// What another process needs to go on with it ([`Bindings::adopt`]): the capture, in which
    /// everything stays that was not yet received, and the seat.
    ///
    /// # Errors
    /// [`BindingError::Seat`].
    pub fn hand_over(self) -> Result<[OwnedFd; 2], BindingError> {
        let Learning { bindings, port, capture, seat, .. } = self;
        let seat = seat.hand_over().map_err(|source| bindings.seat_error(&port, source))?;
        Ok([capture.into_fd(), seat])
    }
}

impl Bindings {
    /// Begins to learn the address of a port that is being bound.
    pub(super) async fn listen(
        &self,
        status: &Status,
        binding: &Binding,
        method: Method,
        kept: Option<Kept>,
    ) -> Result<Learning, BindingError> {
        let port = &status.port;
        let seat = self.seats.take(status.index).map_err(|error| self.seat_error(port, error))?;
        let seat = seat.ok_or_else(|| BindingError::Seated(port.clone()))?;
        let learner = learner(binding, method, kept).await?;
        let error = |error| BindingError::Capture { port: port.clone(), error };
        let capture =
            Capture::open(status.index, binding.mac, learner.interest()).map_err(error)?;
        Ok(self.learning(status, binding, learner, capture, seat))
    }

    /// Goes on with what another process handed over; nothing where the port or its filter is gone.
    ///
    /// # Errors
    /// [`BindingError`].
    pub async fn adopt(
        &self,
        port: &InterfaceName,
        [capture, seat]: [OwnedFd; 2],
    ) -> Result<Option<Learning>, BindingError> {
        let Some((status, binding, method)) = self.learnt_port(port)? else { return Ok(None) };
        let seat = self.seats.adopt(status.index, seat);
        let Some(seat) = seat.map_err(|error| self.seat_error(port, error))? else {
            return Ok(None);
        };
        let kept = self.kept(&status, &binding)?;
        let learner = learner(&binding, method, kept).await?;
        let error = |error| BindingError::Capture { port: port.clone(), error };
        let capture = Capture::adopt(capture, status.index, binding.mac).map_err(error)?;
        Ok(Some(self.learning(&status, &binding, learner, capture, seat)))
    }

    /// Learns on where whoever did was killed; nothing where somebody does already, or where the
    /// port or its filter is gone.
    ///
    /// # Errors
    /// [`BindingError`].
    pub async fn resume(&self, port: &InterfaceName) -> Result<Option<Learning>, BindingError> {
        let Some((status, binding, method)) = self.learnt_port(port)? else { return Ok(None) };
        let kept = self.kept(&status, &binding)?;
        match self.listen(&status, &binding, method, kept).await {
            Ok(learning) => Ok(Some(learning)),
            Err(BindingError::Seated(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A port whose address is learnt.
    fn learnt_port(
        &self,
        port: &InterfaceName,
    ) -> Result<Option<(Status, Binding, Method)>, BindingError> {
        let mut live = self.list()?.into_iter();
        let Some(status) = live.find(|status| status.port == *port && status.learns) else {
            return Ok(None);
        };
        let binding = self.binding(&status)?;
        // The filter itself may not need the address at the moment, and may again.
        let method = method(&binding.variables())?;
        Ok(method.map(|method| (status, binding, method)))
    }

    fn learning(
        &self,
        status: &Status,
        binding: &Binding,
        learner: Learner,
        capture: Capture,
        seat: Seat,
    ) -> Learning {
        Learning {
            // A learner has time: it waits for the lock for as long as the port is there.
            bindings: self.clone().lock_limit(Duration::MAX),
            port: status.port.clone(),
            index: status.index,
            mac: binding.mac,
            capture,
            seat,
            // What was kept may not have been put in force.
            due: learner.lease().map(|lease| lease.address) != status.address,
            learner,
            off: false,
            not_before: Instant::now(),
            frames: 0,
            refusals: 0,
        }
    }
}
