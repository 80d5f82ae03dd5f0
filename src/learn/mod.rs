//! Which IPv4 address a guest has, where its filter needs `$IP` and nobody said it: learnt from the
//! frames on its port.
//!
//! # Theory of operation
//!
//! ```text
//! port ──BPF──▶ Capture ──frame──▶ Learner ──Change──▶ the binding's rules
//!       (bpf)                        │ packet: what the frame says
//!                                    └ lease: what was learnt, kept across restarts
//! ```
//!
//! From before the guest runs until its address is known, the port has [`learning_rules`]: what a
//! guest needs to get an address, and nothing else. A [`Capture`] sees what the guest *sends*
//! before any rule drops it, and what is *for* the guest after every rule, so the learner works
//! under them. A BPF program in the kernel ([`program`]) keeps all other frames away: it is how a
//! flood costs nothing.
//!
//! # What is believed
//!
//! - Frames from the guest only with its own MAC address as the source; forged ones teach nothing.
//! - A DHCP server's answer only when it is for the guest's MAC address, answers the guest's last
//!   request (same transaction, RFC 2131 section 4.4.1) and comes from a server that may serve it.
//!   So another guest can neither give this one an address nor take it away by sending answers that
//!   nobody asked for; where it could answer real requests faster, name the servers (`DHCPSERVER`).
//! - The message's type is option 53. BOOTP's `op` field decides nothing: one that contradicts the
//!   type makes the message malformed.
//! - An offer is not an address: a guest can collect many and take none. It is shown
//!   ([`Learner::offered`]) until the acknowledgement decides.
//! - Addresses of blocks that give no guest its address are never learnt, nor are those that the
//!   host knows to be in use ([`Taken`]): its own, its routers', a DHCP server's, another port's.
//!   Each may come into use between the frame and the rules, so a lease is checked once more before
//!   its rules are set ([`Learner::check`]), under the lock of all ports' filters: of two guests
//!   that claim one address at once, one gets it. An address that the host gets later stays the
//!   guest's until it is learnt anew, by a renewal or by another learner.
//! - With [`Method::by_traffic`] also the first ARP or IPv4 packet, once in the port's life: a guest that
//!   gave its lease back cannot speak itself a new address. Only DHCP replaces an address.
//!
//! # Layout
//!
//! [`packet`], [`bpf`], the learner, and the rules are functions of values. Only the capture and
//! the kept leases have effects. Imports: [`crate::types`], [`crate::state`],
//! [`crate::rules`] and [`crate::process`] ← `learn` ← [`crate::binding`].

pub mod bpf;
mod capture;
mod clock;
mod learner;
mod lease;
pub mod packet;
mod rules;
mod taken;

use std::net::Ipv4Addr;

pub use bpf::{Interest, program};
pub use capture::{Capture, CaptureError};
pub use clock::{BootTime, Clock, UnixTime};
pub use learner::{Change, Learner};
pub use lease::{Kept, Lease, LeaseDir, Teacher};
pub use rules::learning_rules;
pub use taken::{Reason, Refused, Taken};

/// How an address is learnt (`CTRL_IP_LEARNING`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// ARP and IPv4 packets of the guest teach, too, if they come first (`any`); else DHCP alone
    /// (`dhcp`).
    pub by_traffic: bool,
    /// Whose answers count (`DHCPSERVER`), by the packets' source address: behind a relay agent
    /// that is the agent. None is everyone's.
    pub servers: Vec<Ipv4Addr>,
}

impl Method {
    /// From DHCP of these servers, ARP and IPv4, whichever comes first.
    pub fn any(servers: Vec<Ipv4Addr>) -> Self {
        Method { by_traffic: true, servers }
    }

    /// From DHCP of these servers alone.
    pub fn dhcp(servers: Vec<Ipv4Addr>) -> Self {
        Method { by_traffic: false, servers }
    }

    /// Whether this server's answers count.
    pub fn hears(&self, server: Ipv4Addr) -> bool {
        self.servers.is_empty() || self.servers.contains(&server)
    }

    /// Whether a lease could have been learnt this way: one that is kept may have been learnt
    /// another way, for another binding.
    pub fn believes(&self, lease: &Lease) -> bool {
        match lease.teacher {
            Teacher::Dhcp { server } => self.hears(server),
            Teacher::Traffic => self.by_traffic,
        }
    }
}

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The guest sent it.
    FromGuest,
    /// It is on its way to the guest.
    ToGuest,
}
