//! Learns the address of one guest: a state machine that takes frames and returns changes.
//!
//! The head of [`super`] lists the frames that it accepts. A caller that gets an [`AddressChange`]
//! must call [`Learner::check`] before it sets rules: only a check makes the first address final.

use std::net::Ipv4Addr;

use super::bpf::FrameSet;
use super::clock::BootTime;
use super::lease::{Lease, LeaseSource};
use super::packet::{self, Dhcp, Frame, Message, Payload};
use super::used_addresses::{Refusal, RefusalReason, UsedAddresses};
use super::{Method, Sender};
use crate::types::{EthernetAddress, Mac};

/// A change of the guest's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressChange {
    /// The guest has this address, which replaces any earlier one.
    Learned(Lease),
    /// The guest keeps its address, with another end or from another source.
    Renewed(Lease),
    /// The guest lost this address and has none.
    Forgotten(Ipv4Addr),
}

/// The state of one guest's address.
#[derive(Debug, Clone)]
pub struct Learner {
    method: Method,
    guest: EthernetAddress,
    /// The addresses in use at the last check, without those of other ports.
    taken: UsedAddresses,
    /// The current lease.
    lease: Option<Lease>,
    /// Whether the port had an address before.
    history: AddressHistory,
    /// The transaction of the guest's last request, until an acknowledgement or refusal ends it.
    transaction: Option<u32>,
    /// The address that a server offered in that transaction.
    offered: Option<Ipv4Addr>,
    /// The last refused address, until another address is learned.
    refused: Option<Refusal>,
    /// Whether the learner refused an address after the last [`Learner::check`].
    is_refusal_new: bool,
}

/// Whether the port had an address before. If so, packets other than DHCP give no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AddressHistory {
    /// The port never had a checked address.
    Never,
    /// The port has its first address, and [`Learner::check`] did not run since.
    Unchecked,
    /// The port had a checked address, in this run or in an earlier one.
    Before,
}

impl Learner {
    /// Makes a learner without an address for the guest with this MAC address. It never learns an
    /// address in `taken`, except that other ports' addresses count only in [`check`](Self::check).
    pub fn new(method: Method, guest: Mac, taken: impl Into<UsedAddresses>) -> Self {
        Learner {
            method,
            guest: guest.into(),
            taken: taken.into().without_ports(),
            lease: None,
            history: AddressHistory::Never,
            transaction: None,
            offered: None,
            refused: None,
            is_refusal_new: false,
        }
    }

    /// Resumes the state that an earlier run saved for this port ([`super::SavedLease`]): a lease,
    /// or only the fact that the port had one. Drops a lease that this learner could not learn now.
    pub fn resumed(mut self, lease: Option<Lease>, now: BootTime) -> Self {
        self.history = AddressHistory::Before;
        let holds = |lease: &Lease| {
            !lease.is_over(now) && self.method.accepts(lease) && self.is_possible(lease.address)
        };
        self.lease = lease.filter(holds);
        self
    }

    /// Returns the current lease.
    pub fn lease(&self) -> Option<Lease> {
        self.lease
    }

    /// Returns the address that a server offered and did not acknowledge yet.
    pub fn offered(&self) -> Option<Ipv4Addr> {
        self.offered
    }

    /// Returns whether an address of this port passed its check, in this run or in an earlier one.
    pub fn had_address(&self) -> bool {
        self.history == AddressHistory::Before
    }

    /// Returns the frames that can change the state from now on. After each [`check`](Self::check)
    /// the caller can narrow the capture to them.
    pub fn frames(&self) -> FrameSet {
        if self.method.by_traffic && !self.had_address() { FrameSet::All } else { FrameSet::Dhcp }
    }

    /// Returns the last refused address, until another address is learned.
    pub fn refused(&self) -> Option<&Refusal> {
        self.refused.as_ref()
    }

    /// Returns whether the learner refused an address after the last [`check`](Self::check). The
    /// next check may find that the address is free.
    pub fn is_refusal_new(&self) -> bool {
        self.is_refusal_new
    }

    /// Checks the lease against the addresses that are in use now. The caller does this before it
    /// sets the rules.
    ///
    /// Forgets a lease whose address came into use. If no address of this port has passed a check
    /// before, the learner returns to the state in which it never learned an address.
    pub fn check(&mut self, taken: impl Into<UsedAddresses>) -> Option<AddressChange> {
        let taken = taken.into();
        self.is_refusal_new = false;
        let reason = self.lease.and_then(|lease| taken.reason(lease.address));
        if let (Some(lease), Some(reason)) = (self.lease, reason) {
            self.refused = Some(Refusal { address: lease.address, reason });
        }
        let gone = self
            .lease
            .filter(|lease| is_special(lease.address) || taken.reason(lease.address).is_some());
        self.taken = taken.without_ports();
        self.offered = self.offered.filter(|address| self.is_possible(*address));
        self.history = match self.history {
            AddressHistory::Unchecked if gone.is_some() => AddressHistory::Never,
            AddressHistory::Unchecked => AddressHistory::Before,
            history => history,
        };
        if gone.is_some() { self.forget() } else { None }
    }

    /// Processes a frame, which begins with the destination MAC address.
    pub fn process_frame(
        &mut self,
        sender: Sender,
        frame: &[u8],
        now: BootTime,
    ) -> Option<AddressChange> {
        let frame = packet::read(frame)?;
        match sender {
            Sender::Guest => self.sent(frame),
            Sender::Network => self.received(frame, now),
        }
    }

    /// Forgets the lease if it has ended.
    pub fn expire(&mut self, now: BootTime) -> Option<AddressChange> {
        if self.lease?.is_over(now) { self.forget() } else { None }
    }

    /// Processes a frame from the port of the guest.
    fn sent(&mut self, frame: Frame) -> Option<AddressChange> {
        if frame.source != self.guest {
            return None;
        }
        match frame.content {
            Payload::Arp(arp) if arp.sender_mac == self.guest => self.uses_address(arp.sender),
            Payload::Arp(_) => None,
            Payload::Ip(packet) => match packet.dhcp {
                Some(dhcp) if dhcp.client == self.guest => self.requested(&dhcp),
                Some(_) => None,
                None => self.uses_address(packet.source),
            },
        }
    }

    /// Processes a DHCP message of the guest.
    fn requested(&mut self, dhcp: &Dhcp) -> Option<AddressChange> {
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

    /// Processes an ARP or IPv4 packet in which the guest uses this address.
    fn uses_address(&mut self, address: Ipv4Addr) -> Option<AddressChange> {
        let is_first = self.method.by_traffic && self.history == AddressHistory::Never;
        if !is_first || self.refuses(address, None) {
            return None;
        }
        self.learn(Lease { address, source: LeaseSource::Traffic, until: None })
    }

    /// Processes a frame on its way to the guest.
    fn received(&mut self, frame: Frame, now: BootTime) -> Option<AddressChange> {
        let Payload::Ip(packet) = frame.content else { return None };
        let dhcp = packet.dhcp?;
        let is_for_guest = frame.destination == self.guest || frame.destination == BROADCAST;
        if !is_for_guest || dhcp.client != self.guest || !self.method.accepts_server(packet.source)
        {
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
                // RFC 2131 table 3: an acknowledgement has a lease time, except in the answer to an
                // INFORM, which gives no address.
                let lease_time = dhcp.lease_time.filter(|time| *time > 0)?;
                if self.refuses(dhcp.given, Some(packet.source)) {
                    return None;
                }
                self.end_transaction();
                self.learn(Lease {
                    address: dhcp.given,
                    source: LeaseSource::Dhcp { server: packet.source },
                    until: now.after_lease_time(lease_time),
                })
            }
            Message::Nak => {
                self.end_transaction();
                let leased = self.lease?.source.is_dhcp();
                if leased { self.forget() } else { None }
            }
            _ => None,
        }
    }

    /// Ends the transaction: the client, too, takes only the first answer.
    fn end_transaction(&mut self) {
        self.transaction = None;
        self.offered = None;
    }

    fn learn(&mut self, lease: Lease) -> Option<AddressChange> {
        if self.history == AddressHistory::Never {
            self.history = AddressHistory::Unchecked;
        }
        self.refused = None;
        let old = self.lease.replace(lease);
        Some(match old {
            Some(old) if old.address == lease.address => AddressChange::Renewed(lease),
            _ => AddressChange::Learned(lease),
        })
    }

    fn forget(&mut self) -> Option<AddressChange> {
        self.lease.take().map(|lease| AddressChange::Forgotten(lease.address))
    }

    fn has_leased(&self, address: Ipv4Addr) -> bool {
        self.lease.is_some_and(|l| l.address == address && l.source.is_dhcp())
    }

    /// Returns whether a guest can have this address.
    fn is_possible(&self, address: Ipv4Addr) -> bool {
        let is_named = self.method.servers.contains(&address);
        !is_special(address) && !is_named && self.taken.reason(address).is_none()
    }

    /// Returns whether the guest cannot have an address that it uses or that this server gives it.
    ///
    /// Records a refusal of an address in use. It does not record special addresses, because every
    /// guest uses one of them while it starts.
    fn refuses(&mut self, address: Ipv4Addr, server: Option<Ipv4Addr>) -> bool {
        if is_special(address) {
            return true;
        }
        let is_servers = server == Some(address) || self.method.servers.contains(&address);
        let reason =
            is_servers.then_some(RefusalReason::Server).or_else(|| self.taken.reason(address));
        let Some(reason) = reason else { return false };
        self.refused = Some(Refusal { address, reason });
        self.is_refusal_new = true;
        true
    }
}

/// The Ethernet broadcast address.
const BROADCAST: EthernetAddress = EthernetAddress::new([0xff; 6]);

/// Returns whether an address is in a block in which no guest gets its address (RFC 6890): "this
/// network", loopback, link-local, class D (multicast), and class E with the broadcast address.
///
/// A guest takes a link-local address (RFC 3927) while it waits for DHCP, or before its own
/// configuration applies. If the learner learned that address from its first ARP packet, the
/// address would stay. No DHCP server may give a link-local address. A binding on a network that
/// uses link-local addresses must set the parameter `IP`.
fn is_special(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first == 0 || first == 127 || first >= 224 || address.is_link_local()
}
