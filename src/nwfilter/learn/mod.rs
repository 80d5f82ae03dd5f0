//! Learns the IPv4 address and the IPv6 addresses of a guest from the frames on its port.
//!
//! This is needed if a filter uses `$IP` or `$IPV6` and the binding does not set it. The parts for
//! IPv6 are [`packet6`] and [`table6`], whose head lists the frames that give an IPv6 address.
//!
//! # How it works
//!
//! ```text
//! port ──BPF──▶ Capture ──frame──▶ Learner ──AddressChange──▶ rules of the binding
//!       (bpf)                        │ packet: reads the frame
//!                                    └ lease: the result, saved across restarts
//! ```
//!
//! 1. Before the guest runs, the caller gives the port the [`learning_rules`]. They pass only the
//!    frames that a guest needs to get an address.
//! 2. A [`Capture`] sees the frames of the guest *before* any rule can drop them, and the frames
//!    *for* the guest after all rules have passed them. So the learner works while the learning
//!    rules are in force. On a macvtap it is the other way round ([`GuestFrames::Sent`]).
//! 3. A BPF program ([`program`]) drops all other frames in the kernel. So a flood of other frames
//!    costs the learner no time.
//! 4. The [`Learner`] turns frames into [`AddressChange`]s. The caller checks each lease again
//!    ([`Learner::check`]), saves it ([`LeaseDir`]) and compiles the rules with the address.
//!
//! # What the learner accepts
//!
//! - It accepts a frame from the guest only if the source is the guest's own MAC address. It
//!   ignores frames with a forged source.
//! - It accepts a DHCP server's answer only if the answer is for the guest's MAC address, belongs
//!   to the guest's last request (same transaction, RFC 2131 section 4.4.1) and comes from a
//!   permitted server. So another guest cannot give this guest an address, or take its address
//!   away, by sending unrequested answers. If another guest could answer real requests faster than
//!   the server, name the servers (`DHCPSERVER`).
//! - Option 53 gives the message type. The `op` field of BOOTP selects nothing: a message whose
//!   `op` contradicts its type is malformed.
//! - An offer is not an address: a guest can collect many offers and accept none. The learner shows
//!   an offer ([`Learner::offered`]) until the acknowledgement arrives.
//! - It never learns an address of a block in which no guest gets its address, nor an address that
//!   the host knows to be in use ([`UsedAddresses`]): the host's own, a router's, a DHCP server's,
//!   another port's. An address can come into use between the frame and the rules. So the caller
//!   checks a lease once more before it sets the rules ([`Learner::check`]), under the lock of all
//!   ports' filters: if two guests claim one address at the same time, one of them gets it. If the
//!   host gets the address later, the guest keeps it until a renewal or another learner learns it
//!   again.
//! - With [`Method::by_traffic`] it also learns from the first ARP or IPv4 packet, but only once in
//!   the life of the port: otherwise a guest that released its lease could choose a new address by
//!   sending a packet. Only DHCP replaces an address.
//!
//! # Layout
//!
//! [`packet`], [`packet6`], [`bpf`], the learner, the table and the rules compute values from
//! values. Only the capture and the saved leases have side effects. Imports: [`crate::types`],
//! [`crate::sys::state_file`], [`crate::firewall::rules`] and [`crate::sys::process`] ← `learn` ←
//! [`crate::nwfilter::port`].

pub mod bpf;
mod capture;
mod clock;
mod learner;
pub(crate) mod lease;
pub mod packet;
pub mod packet6;
mod rules;
pub mod table6;
mod used_addresses;

use std::net::{Ipv4Addr, Ipv6Addr};

pub use bpf::{FrameSet, FrameSet6, Frames, program};
pub use capture::{Capture, CaptureError};
pub use clock::{BootTime, Clock, UnixTime, since_boot};
pub use learner::{AddressChange, Learner};
pub use lease::{Lease, Lease6, LeaseDir, LeaseSource, SavedLease, Source6};
pub use rules::{Pending, learning_rules};
pub use table6::{MOST_ADDRESSES, Table6, Tick};
pub use used_addresses::{Refusal, Refusal6, RefusalReason, Subnet, UsedAddresses, UsedAddresses6};

/// The way to learn an address (`CTRL_IP_LEARNING`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// Whether the first ARP or IPv4 packet of the guest gives an address, too, if it comes before
    /// DHCP (`any`). Otherwise only DHCP gives an address (`dhcp`).
    pub by_traffic: bool,
    /// The permitted servers (`DHCPSERVER`), by the source address of their packets. Behind a relay
    /// agent this is the address of the agent. An empty list permits every server.
    pub servers: Vec<Ipv4Addr>,
}

impl Method {
    /// Learns from DHCP of these servers, from ARP and from IPv4, from the first of them.
    pub fn any(servers: Vec<Ipv4Addr>) -> Self {
        Method { by_traffic: true, servers }
    }

    /// Learns only from DHCP of these servers.
    pub fn dhcp(servers: Vec<Ipv4Addr>) -> Self {
        Method { by_traffic: false, servers }
    }

    /// Returns whether the learner accepts the answers of this server.
    pub fn accepts_server(&self, server: Ipv4Addr) -> bool {
        self.servers.is_empty() || self.servers.contains(&server)
    }

    /// Returns whether this method can learn this lease. A saved lease may come from an earlier
    /// binding that used another method.
    pub fn accepts(&self, lease: &Lease) -> bool {
        match lease.source {
            LeaseSource::Dhcp { server } => self.accepts_server(server),
            LeaseSource::Traffic => self.by_traffic,
        }
    }
}

/// The way to learn IPv6 addresses (`CTRL_IP_LEARNING`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Method6 {
    /// Whether the guest's own test of an address gives every address (`any`). Otherwise it gives
    /// link-local addresses only (`dhcp`).
    pub by_test: bool,
    /// The permitted servers (`DHCPV6SERVER`), by the source address of their packets. Behind a
    /// relay agent this is the address of the agent. An empty list permits every server.
    pub servers: Vec<Ipv6Addr>,
}

impl Method6 {
    /// Returns whether the learner accepts the answers of this server.
    pub fn accepts_server(&self, server: Ipv6Addr) -> bool {
        self.servers.is_empty() || self.servers.contains(&server)
    }

    /// Returns whether this method can learn this address. A saved address may come from an earlier
    /// binding that used another method.
    pub fn accepts(&self, lease: &Lease6) -> bool {
        match lease.source {
            Source6::Dhcp { server } => self.accepts_server(server),
            Source6::Test => self.by_test || lease.address.is_unicast_link_local(),
        }
    }
}

/// The direction of the frames of a guest on the interface of its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GuestFrames {
    /// The host receives them, as on a tap: the capture sees them before the rules, and the frames
    /// for the guest after the rules.
    Received,
    /// The host sends them, as on a macvtap: the capture sees them after the rules, and the frames
    /// for the guest before the rules. So only frames that the learning rules pass can teach an
    /// address ([`Method::dhcp`]).
    Sent,
}

/// The sender of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The guest sent the frame.
    Guest,
    /// The network sent the frame to the guest.
    Network,
}
