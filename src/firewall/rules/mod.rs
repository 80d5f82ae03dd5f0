//! A firewall as a value: what packets are matched and what happens to them, in no tool's words.
//!
//! # The model
//!
//! A [`Ruleset`] is what one owner (a network) adds for one IP version. It has *chains*, lists of
//! rules that are tried in order, and *entries*: packets of this kind go through that chain. A
//! chain's rule accepts, rejects or rewrites the packet, or returns it to where it came from, where
//! the next entry has its say.
//!
//! A packet that the host forwards from one network to another passes two owners. First comes the
//! chain of the interface it arrives on ([`Packets::ForwardedFrom`]), which refuses what may not
//! leave or returns the rest, then the chain of the interface it leaves by
//! ([`Packets::ForwardedTo`]), then what is left of an interface of ours is accepted. So a packet
//! needs the consent of both, and an isolated network stays so whatever the other one allows.
//!
//! [`for_network`] makes a network's rulesets. Only the renderers in [`crate::firewall`] turn them
//! into commands.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::types::InterfaceName;

mod for_network;
pub mod port;

pub use for_network::{Mode, NetworkRules, NetworkRulesError, for_network};

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Version {
    /// The version of a subnet's addresses.
    pub fn of(subnet: &IpNet) -> Self {
        match subnet {
            IpNet::V4(_) => Version::V4,
            IpNet::V6(_) => Version::V6,
        }
    }
}

/// Which of a packet's interfaces a match looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The one it arrived on.
    In,
    /// The one it leaves by.
    Out,
}

/// What one owner adds for one IP version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// The IP version.
    pub version: Version,
    /// Which packets its chains are asked about.
    pub entries: Vec<Entry>,
    /// Its chains.
    pub chains: Vec<Chain>,
}

/// "These packets go through that chain."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The packets.
    pub packets: Packets,
    /// The chain's name.
    pub chain: ChainName,
}

/// The packets an entry is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packets {
    /// Packets the host forwards that arrived on this interface.
    ForwardedFrom(InterfaceName),
    /// Packets the host forwards that leave by this interface.
    ForwardedTo(InterfaceName),
    /// Packets for the host itself that arrived on this interface.
    ToHost(InterfaceName),
    /// Packets of the host's own that leave by this interface.
    FromHost(InterfaceName),
    /// Packets on their way out whose source lies in this subnet: the place of source address
    /// translation, where the interface a packet arrived on is no longer known.
    LeavingWithSource(IpNet),
}

/// A list of rules, tried in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name, unique among all owners.
    pub name: ChainName,
    /// The rules; a packet that none decides goes on to the next entry.
    pub rules: Vec<Rule>,
}

/// A chain's name: letters, digits, `-`, `.` and `_`, at most 24 characters, so that it fits
/// iptables' 28 behind a prefix of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainName(String);

/// Not a chain's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot name a chain: 1 to 24 letters, digits, '-', '.' or '_'")]
pub struct ChainNameError(pub String);

impl ChainName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`ChainNameError`].
    pub fn new(name: impl Into<String>) -> Result<Self, ChainNameError> {
        let name = name.into();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if (1..=24).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(ChainName(name))
        } else {
            Err(ChainNameError(name))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One rule: all its matches must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What packets it is for; none is all of them.
    pub matches: Vec<Match>,
    /// What happens to them.
    pub verdict: Verdict,
}

/// A property of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The interface on one side has this name.
    Interface(Side, InterfaceName),
    /// The source address lies in this subnet.
    Source(IpNet),
    /// The destination address lies in this subnet.
    Destination(IpNet),
    /// It is of this transport protocol.
    Protocol(Transport),
    /// It is of this transport protocol and comes from this port.
    SourcePort(Transport, u16),
    /// It is of this transport protocol and goes to this port.
    DestinationPort(Transport, u16),
    /// It belongs to a connection that is established, or is related to one.
    Established,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on.
    Accept,
    /// It is refused, and the sender is told by ICMP.
    Reject,
    /// Back to where it came from, to the next entry.
    Return,
    /// Its source becomes the address of the interface it leaves by.
    Masquerade {
        /// The ports to use; `None` keeps the port where possible.
        ports: Option<RangeInclusive<u16>>,
    },
    /// Its source becomes one of these addresses.
    SourceNat {
        /// The addresses.
        addresses: AddressRange,
        /// The ports to use; `None` keeps the port where possible.
        ports: Option<RangeInclusive<u16>>,
    },
}

/// Addresses from a first to a last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressRange {
    /// IPv4.
    V4(Ipv4Addr, Ipv4Addr),
    /// IPv6.
    V6(Ipv6Addr, Ipv6Addr),
}

impl AddressRange {
    /// The IP version of the addresses.
    pub fn version(&self) -> Version {
        match self {
            AddressRange::V4(..) => Version::V4,
            AddressRange::V6(..) => Version::V6,
        }
    }
}

impl std::fmt::Display for AddressRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AddressRange::V4(first, last) if first == last => write!(f, "{first}"),
            AddressRange::V4(first, last) => write!(f, "{first}-{last}"),
            AddressRange::V6(first, last) if first == last => write!(f, "{first}"),
            AddressRange::V6(first, last) => write!(f, "{first}-{last}"),
        }
    }
}
