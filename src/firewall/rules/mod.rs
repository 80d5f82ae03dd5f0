//! The rules of a firewall as values, independent of the tools: which packets match, and what
//! happens to them.
//!
//! # The model
//!
//! A [`Ruleset`] contains the rules that one owner (a network) adds for one IP version. It has
//! *chains*, which are lists of rules that are tried in order, and *entries*, which send one kind
//! of packet through a chain. A rule of a chain accepts, rejects or rewrites the packet, or returns
//! it to the calling chain, where the next entry decides.
//!
//! A packet that the host forwards from one network to another passes the chains of two owners. The
//! first is the chain of the interface that the packet arrives on ([`Packets::ForwardedFrom`]),
//! which refuses packets that must not leave the network and returns the others. The second is the
//! chain of the interface that the packet leaves by ([`Packets::ForwardedTo`]). A packet that
//! neither chain decides is accepted if it arrives on or leaves by a network's interface. So both
//! owners must allow a packet, and an isolated network stays isolated whatever the other network
//! allows.
//!
//! `for_network` makes a network's rulesets. Only the renderers in [`crate::firewall`] turn them
//! into commands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::types::{InterfaceName, PortRange};

mod for_network;
pub mod port;
mod published;

pub use for_network::{Mode, NetworkRules, NetworkRulesError, for_network};
pub use published::{PublishedPort, add_published};

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
    /// Returns the version of a subnet's addresses.
    pub fn of(subnet: &IpNet) -> Self {
        match subnet {
            IpNet::V4(_) => Version::V4,
            IpNet::V6(_) => Version::V6,
        }
    }
}

/// The interface of a packet that a match tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The interface on which the packet arrived.
    In,
    /// The interface by which the packet leaves.
    Out,
}

/// The rules that one owner adds for one IP version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// The IP version.
    pub version: Version,
    /// The packets that go through the chains.
    pub entries: Vec<Entry>,
    /// The chains.
    pub chains: Vec<Chain>,
}

/// An instruction to send certain packets through a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The packets.
    pub packets: Packets,
    /// The chain's name.
    pub chain: ChainName,
}

/// The packets that an entry sends through its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packets {
    /// Packets that the host forwards and that arrived on this interface.
    ForwardedFrom(InterfaceName),
    /// Packets that the host forwards and that leave by this interface.
    ForwardedTo(InterfaceName),
    /// Packets to the host itself that arrived on this interface.
    ToHost(InterfaceName),
    /// Packets that the host itself sends and that leave by this interface.
    FromHost(InterfaceName),
    /// Outgoing packets whose source is in this subnet. This is the hook of source address
    /// translation, where the interface that a packet arrived on is no longer known.
    LeavingWithSource(IpNet),
    /// The first packet of each connection that arrives on any interface. This is a hook of
    /// destination address translation.
    Incoming,
    /// The first packet of each connection of the host itself. This is a hook of destination
    /// address translation.
    Outgoing,
    /// The first packet of each connection that leaves by any interface. This is the hook of source
    /// address translation.
    Leaving,
    /// Packets like [`Packets::ForwardedFrom`]. The host's own rules decide about the packets that
    /// the chain returns.
    PublishedFrom(InterfaceName),
    /// Packets like [`Packets::ForwardedTo`]. The host's own rules decide about the packets that
    /// the chain returns.
    PublishedTo(InterfaceName),
}

/// A list of rules, tried in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The name, which is unique among all owners.
    pub name: ChainName,
    /// The rules; a packet that no rule decides continues at the next entry.
    pub rules: Vec<Rule>,
}

/// A chain's name: letters, digits, `-`, `.` and `_`, at most 24 characters, so that the name and a
/// prefix fit the 28 characters of iptables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainName(String);

/// The text cannot name a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot name a chain: 1 to 24 letters, digits, '-', '.' or '_'")]
pub struct ChainNameError(pub String);

impl ChainName {
    /// Checks a name.
    ///
    /// # Errors
    /// Returns [`ChainNameError`] if the name is not valid.
    pub fn new(name: impl Into<String>) -> Result<Self, ChainNameError> {
        let name = name.into();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if (1..=24).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(ChainName(name))
        } else {
            Err(ChainNameError(name))
        }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A rule, which applies if all its matches hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The conditions for the packet; an empty list matches all packets.
    pub matches: Vec<Match>,
    /// The effect of the rule.
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
    /// The packet has this transport protocol.
    Protocol(Transport),
    /// The packet has this transport protocol and this source port.
    SourcePort(Transport, u16),
    /// The packet has this transport protocol and this destination port.
    DestinationPort(Transport, u16),
    /// The packet has this transport protocol and one of these destination ports.
    DestinationPorts(Transport, PortRange),
    /// The packet belongs to an established connection, or is related to one.
    Established,
    /// The destination of the packet's connection was translated.
    Translated,
    /// The source address is an address of the host.
    FromHostAddress,
    /// The destination address is an address of the host.
    ToHostAddress,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The effect of a rule on a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The packet passes.
    Accept,
    /// The packet is dropped, and the sender gets an ICMP error.
    Reject,
    /// The packet is dropped without a reply.
    Drop,
    /// The packet returns to the calling chain, to the next entry.
    Return,
    /// The packet's destination becomes this address. The rule matches the ports `from`, and each
    /// of them becomes the port at the same place of `to`, which is as long.
    DestinationNat {
        /// The address.
        address: IpAddr,
        /// The transport protocol of the ports.
        transport: Transport,
        /// The ports before the translation.
        from: PortRange,
        /// The ports after the translation.
        to: PortRange,
    },
    /// The packet's source becomes the address of the interface by which it leaves.
    Masquerade {
        /// The ports to use; `None` keeps the port where possible.
        ports: Option<RangeInclusive<u16>>,
    },
    /// The packet's source becomes one of these addresses.
    SourceNat {
        /// The addresses.
        addresses: AddressRange,
        /// The ports to use; `None` keeps the port where possible.
        ports: Option<RangeInclusive<u16>>,
    },
}

/// A range of addresses: the first and the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressRange {
    /// IPv4.
    V4(Ipv4Addr, Ipv4Addr),
    /// IPv6.
    V6(Ipv6Addr, Ipv6Addr),
}

impl AddressRange {
    /// Returns the IP version of the addresses.
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
