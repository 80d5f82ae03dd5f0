//! The state machine that learns an address: frames in, changes out. The head of [`super`] says
//! what it believes.

use std::net::Ipv4Addr;

use super::bpf::Interest;
use super::clock::BootTime;
use super::lease::{Lease, Teacher};
use super::packet::{self, Content, Dhcp, Frame, Message};
use super::taken::{Reason, Refused, Taken};
use super::{Direction, Method};
use crate::types::{EthernetAddress, Mac};

/// Something that was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The guest has this address, in place of the one it may have had.
    Learnt(Lease),
    /// It keeps its address, for another time or by a better teacher.
    Renewed(Lease),
    /// It has this address no more, and none.
    Forgotten(Ipv4Addr),
}

/// What is known about one guest's address.
#[derive(Debug, Clone)]
pub struct Learner {
    method: Method,
    guest: EthernetAddress,
    /// What was taken at the last check, other ports' addresses left out.
    taken: Taken,
    /// The lease that is in force.
    lease: Option<Lease>,
    taught: Taught,
    /// The transaction of the guest's last request that has no answer yet.
    transaction: Option<u32>,
    /// What a server offered in that transaction.
    offered: Option<Ipv4Addr>,
    /// The address that was refused last, until another is learnt.
    refused: Option<Refused>,
    /// A frame was refused since the last [`Learner::check`].
    is_refusal_new: bool,
}

/// Whether something was learnt before. Then packets that are not DHCP teach nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taught {
    /// Nothing that counts.
    Never,
    /// Yes, and nothing of it was checked ([`Learner::check`]).
    Unchecked,
    /// Yes, or in an earlier run.
    Before,
}

impl Learner {
    /// A learner for the guest with this MAC address that knows nothing yet, and never learns what
    /// is taken. Other ports' addresses count in [`check`](Self::check) alone.
    pub fn new(method: Method, guest: Mac, taken: impl Into<Taken>) -> Self {
        Learner {
            method,
            guest: guest.into(),
            taken: taken.into().without_ports(),
            lease: None,
            taught: Taught::Never,
            transaction: None,
            offered: None,
            refused: None,
            is_refusal_new: false,
        }
    }

    /// The same, for a port about which something was learnt in an earlier run: a lease, or that it
    /// had one ([`super::Kept`]). A lease that could not be learnt now is not taken over.
    pub fn resumed(mut self, lease: Option<Lease>, now: BootTime) -> Self {
        self.taught = Taught::Before;
        let holds = |lease: &Lease| {
            !lease.is_over(now) && self.method.believes(lease) && self.is_possible(lease.address)
        };
        self.lease = lease.filter(holds);
        self
    }

    /// The lease that is in force.
    pub fn lease(&self) -> Option<Lease> {
        self.lease
    }

    /// The address that a server offered and has not yet acknowledged.
    pub fn offered(&self) -> Option<Ipv4Addr> {
        self.offered
    }

    /// Whether anything was learnt that stood its check, in this run or in an earlier one.
    pub fn is_taught(&self) -> bool {
        self.taught == Taught::Before
    }

    /// The frames that can teach something from now on. After each [`check`](Self::check) the
    /// capture can be narrowed to it.
    pub fn interest(&self) -> Interest {
        match self.method.by_traffic && !self.is_taught() {
            true => Interest::All,
            false => Interest::Dhcp,
        }
    }

    /// The address that was refused last, until another is learnt.
    pub fn refused(&self) -> Option<&Refused> {
        self.refused.as_ref()
    }

    /// Whether an address was refused since the last [`check`](Self::check), which may find that it
    /// is free by now.
    pub fn is_refusal_new(&self) -> bool {
        self.is_refusal_new
    }

    /// Checks the lease once more against what is taken, before its rules are set: that may have
    /// changed. A lease that could not be learnt now is forgotten, and where none has stood its
    /// check before, it is as if nothing had ever been learnt.
    pub fn check(&mut self, taken: impl Into<Taken>) -> Option<Change> {
        let taken = taken.into();
        self.is_refusal_new = false;
        let reason = self.lease.and_then(|lease| taken.reason(lease.address));
        if let (Some(lease), Some(reason)) = (self.lease, reason) {
            self.refused = Some(Refused { address: lease.address, reason });
        }
        let gone = self
            .lease
            .filter(|lease| is_special(lease.address) || taken.reason(lease.address).is_some());
        self.taken = taken.without_ports();
        self.offered = self.offered.filter(|address| self.is_possible(*address));
        self.taught = match self.taught {
            Taught::Unchecked if gone.is_some() => Taught::Never,
            Taught::Unchecked => Taught::Before,
            taught => taught,
        };
        if gone.is_some() { self.forget() } else { None }
    }

    /// Takes in a frame, from its destination address on.
    pub fn see(&mut self, direction: Direction, frame: &[u8], now: BootTime) -> Option<Change> {
        let frame = packet::read(frame)?;
        match direction {
            Direction::FromGuest => self.sent(frame),
            Direction::ToGuest => self.received(frame, now),
        }
    }

    /// Forgets a lease whose time is over.
    pub fn expire(&mut self, now: BootTime) -> Option<Change> {
        if self.lease?.is_over(now) { self.forget() } else { None }
    }

    /// The guest sent it, or so it says.
    fn sent(&mut self, frame: Frame) -> Option<Change> {
        if frame.source != self.guest {
            return None;
        }
        match frame.content {
            Content::Arp(arp) if arp.sender_mac == self.guest => self.heard(arp.sender),
            Content::Arp(_) => None,
            Content::Ip(packet) => match packet.dhcp {
                Some(dhcp) if dhcp.client == self.guest => self.asked(&dhcp),
                Some(_) => None,
                None => self.heard(packet.source),
            },
        }
    }

    /// A DHCP message of the guest.
    fn asked(&mut self, dhcp: &Dhcp) -> Option<Change> {
        match dhcp.message {
            Message::Discover | Message::Request => {
                if self.transaction != Some(dhcp.transaction) {
                    self.offered = None;
                }
                self.transaction = Some(dhcp.transaction);
                None
            }
            Message::Release if self.has_leased(dhcp.current) => self.forget(),
            Message::Decline if self.has_leased(dhcp.requested?) => self.forget(),
            _ => None,
        }
    }

    /// The guest speaks with an address.
    fn heard(&mut self, address: Ipv4Addr) -> Option<Change> {
        let is_first = self.method.by_traffic && self.taught == Taught::Never;
        if !is_first || self.refuses(address, None) {
            return None;
        }
        self.learn(Lease { address, teacher: Teacher::Traffic, until: None })
    }

    /// It is on its way to the guest.
    fn received(&mut self, frame: Frame, now: BootTime) -> Option<Change> {
        let Content::Ip(packet) = frame.content else { return None };
        let dhcp = packet.dhcp?;
        let is_for_guest = frame.destination == self.guest || frame.destination == BROADCAST;
        if !is_for_guest || dhcp.client != self.guest || !self.method.hears(packet.source) {
            return None;
        }
        if self.transaction != Some(dhcp.transaction) {
            return None;
        }
        match dhcp.message {
            Message::Offer => {
                self.offered = Some(dhcp.given).filter(|address| self.is_possible(*address));
                None
            }
            Message::Ack => {
                // RFC 2131 table 3: it must be there, except in the answer to an INFORM, which
                // gives no address.
                let lease_time = dhcp.lease_time.filter(|time| *time > 0)?;
                if self.refuses(dhcp.given, Some(packet.source)) {
                    return None;
                }
                self.end_transaction();
                self.learn(Lease {
                    address: dhcp.given,
                    teacher: Teacher::Dhcp { server: packet.source },
                    until: now.after_lease_time(lease_time),
                })
            }
            Message::Nak => {
                self.end_transaction();
                let leased = self.lease?.teacher.is_dhcp();
                if leased { self.forget() } else { None }
            }
            _ => None,
        }
    }

    /// The client takes the first answer, too.
    fn end_transaction(&mut self) {
        self.transaction = None;
        self.offered = None;
    }

    fn learn(&mut self, lease: Lease) -> Option<Change> {
        if self.taught == Taught::Never {
            self.taught = Taught::Unchecked;
        }
        self.refused = None;
        let old = self.lease.replace(lease);
        Some(match old {
            Some(old) if old.address == lease.address => Change::Renewed(lease),
            _ => Change::Learnt(lease),
        })
    }

    fn forget(&mut self) -> Option<Change> {
        self.lease.take().map(|lease| Change::Forgotten(lease.address))
    }

    fn has_leased(&self, address: Ipv4Addr) -> bool {
        self.lease.is_some_and(|l| l.address == address && l.teacher.is_dhcp())
    }

    /// Whether it can be a guest's address at all.
    fn is_possible(&self, address: Ipv4Addr) -> bool {
        let is_named = self.method.servers.contains(&address);
        !is_special(address) && !is_named && self.taken.reason(address).is_none()
    }

    /// Whether an address that the guest uses, or that this server gives it, cannot be its own. An
    /// address that is taken is remembered; one that no guest can have is a step of every guest's
    /// start.
    fn refuses(&mut self, address: Ipv4Addr, server: Option<Ipv4Addr>) -> bool {
        if is_special(address) {
            return true;
        }
        let is_servers = server == Some(address) || self.method.servers.contains(&address);
        let reason = is_servers.then_some(Reason::Server).or_else(|| self.taken.reason(address));
        let Some(reason) = reason else { return false };
        self.refused = Some(Refused { address, reason });
        self.is_refusal_new = true;
        true
    }
}

/// The Ethernet broadcast address.
const BROADCAST: EthernetAddress = EthernetAddress::new([0xff; 6]);

/// Whether an address is of a block that gives no guest its address (RFC 6890): "this network",
/// loopback, link-local, class D (multicast), class E with the broadcast address.
///
/// Link-local (RFC 3927) is what a guest takes while it waits for DHCP or before its own setting
/// takes hold; learnt from its first ARP packet, it would stay. No DHCP server may give it. A
/// network that really uses it says `IP=`.
fn is_special(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first == 0 || first == 127 || first >= 224 || address.is_link_local()
}
