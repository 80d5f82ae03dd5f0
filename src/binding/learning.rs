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

use super::learnt::{learner, own_addresses};
use super::meaning::method;
use super::seat::Seat;
use super::{BindingError, BindingSettings, Bindings, Status, now};
use crate::learn::{Capture, Kept, Learner, Method};
use crate::link::Netlink;
use crate::nwfilter::Binding;
use crate::types::{InterfaceName, Mac};

/// The shortest time between two changes of rules.
const PACE: Duration = Duration::from_millis(250);
/// How long to wait before trying again what a full disk or the like stood in the way of.
const RETRY: Duration = Duration::from_secs(10);
/// After so many frames that taught nothing, there is a pause.
const FRAMES: u32 = 64;
/// How long it is.
const PAUSE: Duration = Duration::from_millis(10);
/// How often the clock is looked at, at least: it may be set, or the host may sleep.
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
    index: u32,
    mac: Mac,
    // Closed before the seat is given up.
    capture: Capture,
    seat: Seat,
    learner: Learner,
    /// What was learnt may not be in force.
    due: bool,
    /// The port was turned off, and that could not be written down.
    off: bool,
    /// When rules may be changed again.
    not_before: Instant,
    /// Frames since the last pause.
    frames: u32,
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
            let told = match self.check().await {
                Ok(()) => {
                    let (learner, off) = (&self.learner, self.off);
                    self.bindings.put_in_force(self.index, self.mac, learner, off).await
                }
                Err(error) => Err(error.into()),
            };
            let lease = self.learner.lease();
            self.not_before = Instant::now() + PACE;
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

    /// Checks what was learnt against the host's addresses of now, before it is put in force. From
    /// then on frames come only that can still teach something.
    async fn check(&mut self) -> Result<(), BindingError> {
        let before = self.learner.interest();
        self.learner.check(own_addresses().await?);
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
        let left = until.map(|until| Duration::from_secs(until.0.saturating_sub(now().0)));
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
                let change = self.learner.see(direction, frame, now());
                Ok(if change.is_some() { Woken::Learnt } else { Woken::Nothing })
            }
            () = sleep_until(look_again) => {
                let expired = self.learner.expire(now());
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
            bindings: self.clone(),
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
        }
    }

    /// Keeps what was learnt about a port and checked, and makes its rules with it. `off` says that
    /// it is turned off, where its status does not.
    ///
    /// # Errors
    /// [`BindingError::TurnedOff`] when the rules cannot be set. [`BindingError`] otherwise.
    async fn put_in_force(
        &self,
        index: u32,
        mac: Mac,
        learner: &Learner,
        off: bool,
    ) -> Result<InForce, NotInForce> {
        let tools = self.lock().await?;
        let (mut live, stale) = self.statuses()?;
        let is_ours = |status: &Status| status.index == index;
        let Some(at) = live.iter().position(is_ours) else { return Ok(InForce::Gone) };
        let status = live.remove(at);
        let status = Status { turned_off: status.turned_off || off, ..status };
        let port = &status.port;
        let lease = learner.lease();
        let kept = match learner.is_taught() {
            true => self.leases.write(&Kept { version: 1, port: port.clone(), index, mac, lease }),
            false => self.leases.remove(port),
        };
        kept.map_err(BindingError::from)?;
        let address = lease.map(|lease| lease.address);
        if status.address == address && status.failed.is_none() && !off {
            return Ok(InForce::Was);
        }
        let changed = async {
            let binding = self.binding(&status)?;
            let filters = self.store.tree(&binding.filter)?;
            let wanted = self.wanted(&[(status.clone(), binding)], &filters)?;
            let keeping = self.keeping(&status);
            let change = keeping.change(&tools, wanted, &stale, &live);
            // A change that was cut short is for the next command, which knows the settings.
            match self.is_unsettled() {
                true => change.await,
                false => self.settled(change).await,
            }
        };
        match changed.await {
            Ok(()) => Ok(InForce::Changed),
            Err(error) => {
                let error = self.turn_off(port, index, error).await;
                let turned_off =
                    status.turned_off || matches!(error, BindingError::TurnedOff { .. });
                let failed = Some(error.to_string());
                let written = Status { failed, turned_off, ..status }.write(&self.dir());
                if let Err(error) = &written {
                    tracing::warn!("{error}");
                }
                let is_known = turned_off && written.is_ok();
                Err(NotInForce { error, is_known })
            }
        }
    }

    /// The driver with the settings that a port's rules were made with last. Who learns began before
    /// they were, and does not change them.
    fn keeping(&self, status: &Status) -> Bindings {
        let settings = BindingSettings {
            firewall_backend: Some(status.backend),
            enable_trace: status.trace,
            enable_counters: status.counters,
            ..self.settings.clone()
        };
        Bindings { settings, ..self.clone() }
    }

    /// Turns a port off whose rules could not be set, because of `error`; one that is off stays so.
    pub(super) async fn turn_off(
        &self,
        port: &InterfaceName,
        index: u32,
        error: BindingError,
    ) -> BindingError {
        let off = async {
            let netlink = Netlink::open()?;
            // Not another of its name.
            match netlink.link(port).await {
                Ok(link) if link.index == index && link.up => {
                    netlink.down(port).await.map(|()| true)
                }
                _ => Ok(false),
            }
        };
        match off.await {
            Ok(true) => BindingError::TurnedOff { port: port.clone(), error: Box::new(error) },
            Ok(false) => error,
            Err(off) => {
                tracing::error!("{error}");
                off.into()
            }
        }
    }
}

/// Why the rules could not be made with a learnt address.
struct NotInForce {
    error: BindingError,
    /// The port is off, and its status says so.
    is_known: bool,
}

impl From<BindingError> for NotInForce {
    fn from(error: BindingError) -> Self {
        NotInForce { error, is_known: false }
    }
}

/// What came of a learnt address.
enum InForce {
    /// The rules are made with it now.
    Changed,
    /// They were before.
    Was,
    /// The port, or its filter, is gone.
    Gone,
}
