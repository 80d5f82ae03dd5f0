//! Decides which addresses a guest on a port may not have, and states the reason.
//!
//! [`UsedAddresses`] is a snapshot that the caller collects from the host and from the other ports.
//! It can be incomplete: it holds only the addresses that the host knows.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::types::InterfaceName;

/// The addresses that are in use, as far as the host knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsedAddresses {
    /// The host's own addresses, with the prefixes of their subnets.
    pub hosts: Vec<Ipv4Net>,
    /// The routers in the host's routes.
    pub next_hops: Vec<Ipv4Addr>,
    /// The DHCP servers that bindings name. It does not hold the servers of other guests' leases:
    /// otherwise two guests could block any address by a forged answer.
    pub servers: Vec<Ipv4Addr>,
    /// The addresses that other ports on the same bridge have learned or have in their bindings.
    pub ports: Vec<(Ipv4Addr, InterfaceName)>,
}

impl From<Vec<Ipv4Net>> for UsedAddresses {
    fn from(hosts: Vec<Ipv4Net>) -> Self {
        UsedAddresses { hosts, ..UsedAddresses::default() }
    }
}

impl UsedAddresses {
    /// Returns why no guest may have this address, or `None` if a guest may have it.
    pub fn reason(&self, address: Ipv4Addr) -> Option<RefusalReason> {
        for net in &self.hosts {
            let has_edges = net.prefix_len() < 31; // RFC 3021
            if address == net.addr() {
                return Some(RefusalReason::Host);
            }
            if has_edges && (address == net.network() || address == net.broadcast()) {
                return Some(RefusalReason::Edge(net.trunc()));
            }
        }
        if self.next_hops.contains(&address) {
            return Some(RefusalReason::NextHop);
        }
        if self.servers.contains(&address) {
            return Some(RefusalReason::Server);
        }
        let port = self.ports.iter().find(|(theirs, _)| *theirs == address);
        port.map(|(_, port)| RefusalReason::Port(port.clone()))
    }

    /// Removes the ports' addresses, which are valid only under the lock of the ports.
    pub(super) fn without_ports(self) -> Self {
        UsedAddresses { ports: Vec::new(), ..self }
    }
}

/// The IPv6 addresses that are in use, as far as the host knows. The fields are those of
/// [`UsedAddresses`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "UsedAddresses describes them")]
pub struct UsedAddresses6 {
    pub hosts: Vec<Ipv6Net>,
    pub next_hops: Vec<Ipv6Addr>,
    pub servers: Vec<Ipv6Addr>,
    pub ports: Vec<(Ipv6Addr, InterfaceName)>,
}

impl UsedAddresses6 {
    /// Returns why no guest may have this address, or `None` if a guest may have it.
    pub fn reason(&self, address: Ipv6Addr) -> Option<RefusalReason> {
        if self.hosts.iter().any(|net| net.addr() == address) {
            return Some(RefusalReason::Host);
        }
        if self.next_hops.contains(&address) {
            return Some(RefusalReason::NextHop);
        }
        if self.servers.contains(&address) {
            return Some(RefusalReason::Server);
        }
        let port = self.ports.iter().find(|(theirs, _)| *theirs == address);
        port.map(|(_, port)| RefusalReason::Port(port.clone()))
    }

    /// Removes the ports' addresses, which are valid only under the lock of the ports.
    pub(super) fn without_ports(self) -> Self {
        UsedAddresses6 { ports: Vec::new(), ..self }
    }
}

/// The reason why a guest may not have an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The host has the address.
    Host,
    /// The address is the network or broadcast address of a subnet of the host.
    Edge(Ipv4Net),
    /// A router in the host's routes has the address.
    NextHop,
    /// A DHCP server has the address.
    Server,
    /// Another port of the same bridge has the address.
    Port(InterfaceName),
    /// Another machine answered that it has the address.
    Conflict,
    /// Frames were lost while the guest tested the address, and an answer may be among them.
    Flood,
    /// The port has as many addresses as it can have, and the guest uses them.
    Full,
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefusalReason::Host => f.write_str("it is an address of this host"),
            RefusalReason::Edge(net) => {
                write!(f, "it is the network or broadcast address of {net}")
            }
            RefusalReason::NextHop => {
                f.write_str("it is the address of a router in a route of this host")
            }
            RefusalReason::Server => f.write_str("it is the address of a DHCP server"),
            RefusalReason::Conflict => f.write_str("another machine has it"),
            RefusalReason::Flood => {
                f.write_str("a flood of frames may hide the answer of another machine")
            }
            RefusalReason::Full => {
                f.write_str("the guest uses as many addresses as a port may have")
            }
            RefusalReason::Port(port) => write!(f, "the port {port} of the same bridge has it"),
        }
    }
}

/// An address that a guest used, or got from a server, and may not have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// The address.
    pub address: Ipv4Addr,
    /// The reason.
    pub reason: RefusalReason,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is refused: {}", self.address, self.reason)
    }
}

/// An IPv6 address that a guest tested, or got from a server, and may not have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Refusal6 {
    /// The address.
    pub address: Ipv6Addr,
    /// The reason.
    pub reason: RefusalReason,
}

impl fmt::Display for Refusal6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is refused: {}", self.address, self.reason)
    }
}
