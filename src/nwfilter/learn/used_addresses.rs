//! Decides which addresses a guest on a port may not have, and states the reason.
//!
//! [`UsedAddresses`] is a snapshot that the caller collects from the host and from the other ports.
//! It can be incomplete: it holds only the addresses that the host knows.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::types::InterfaceName;

/// A subnet of one IP version.
pub trait Subnet: Copy + fmt::Debug {
    /// The addresses of the version.
    type Address: Copy + Eq + fmt::Debug;

    /// Returns the address of the host in the subnet.
    fn host(&self) -> Self::Address;

    /// Returns whether the address is in the subnet.
    fn has(&self, address: Self::Address) -> bool;

    /// Returns the subnet if the address is its network or broadcast address.
    fn with_edge(&self, address: Self::Address) -> Option<Ipv4Net>;
}

impl Subnet for Ipv4Net {
    type Address = Ipv4Addr;

    fn host(&self) -> Ipv4Addr {
        self.addr()
    }

    fn has(&self, address: Ipv4Addr) -> bool {
        self.contains(&address)
    }

    fn with_edge(&self, address: Ipv4Addr) -> Option<Ipv4Net> {
        let has_edges = self.prefix_len() < 31; // RFC 3021
        let is_edge = has_edges && (address == self.network() || address == self.broadcast());
        is_edge.then(|| self.trunc())
    }
}

/// IPv6 has no broadcast address, and the network address belongs to routers (RFC 4291, 2.6.1).
impl Subnet for Ipv6Net {
    type Address = Ipv6Addr;

    fn host(&self) -> Ipv6Addr {
        self.addr()
    }

    fn has(&self, address: Ipv6Addr) -> bool {
        self.contains(&address)
    }

    fn with_edge(&self, _: Ipv6Addr) -> Option<Ipv4Net> {
        None
    }
}

/// The addresses that are in use, as far as the host knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedAddresses<N: Subnet = Ipv4Net> {
    /// The host's own addresses, with the prefixes of their subnets.
    pub hosts: Vec<N>,
    /// The routers in the host's routes.
    pub next_hops: Vec<N::Address>,
    /// The DHCP servers that bindings name. It does not hold the servers of other guests' leases:
    /// otherwise two guests could block any address by a forged answer.
    pub servers: Vec<N::Address>,
    /// The addresses that other ports on the same bridge have learned or have in their bindings,
    /// and the subnets in these bindings. A single address has the longest prefix.
    pub ports: Vec<(N, InterfaceName)>,
}

/// The IPv6 addresses that are in use, as far as the host knows.
pub type UsedAddresses6 = UsedAddresses<Ipv6Net>;

impl<N: Subnet> Default for UsedAddresses<N> {
    fn default() -> Self {
        UsedAddresses { hosts: vec![], next_hops: vec![], servers: vec![], ports: vec![] }
    }
}

impl From<Vec<Ipv4Net>> for UsedAddresses {
    fn from(hosts: Vec<Ipv4Net>) -> Self {
        UsedAddresses { hosts, ..UsedAddresses::default() }
    }
}

impl<N: Subnet> UsedAddresses<N> {
    /// Returns why no guest may have this address, or `None` if a guest may have it.
    pub fn reason(&self, address: N::Address) -> Option<RefusalReason> {
        for net in &self.hosts {
            if address == net.host() {
                return Some(RefusalReason::Host);
            }
            if let Some(net) = net.with_edge(address) {
                return Some(RefusalReason::Edge(net));
            }
        }
        if self.next_hops.contains(&address) {
            return Some(RefusalReason::NextHop);
        }
        if self.servers.contains(&address) {
            return Some(RefusalReason::Server);
        }
        let port = self.ports.iter().find(|(theirs, _)| theirs.has(address));
        port.map(|(_, port)| RefusalReason::Port(port.clone()))
    }

    /// Removes the ports' addresses, which are valid only under the lock of the ports.
    pub(super) fn without_ports(self) -> Self {
        UsedAddresses { ports: Vec::new(), ..self }
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
    /// The bridge did not forward frames of the port while the guest tested the address, so no
    /// other machine could answer.
    NotForwarded,
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
            RefusalReason::NotForwarded => {
                f.write_str("the bridge did not forward the guest's test of it to other machines")
            }
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

/// An address that a guest used or tested, or got from a server, and may not have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Refusal<A = Ipv4Addr> {
    /// The address.
    pub address: A,
    /// The reason.
    pub reason: RefusalReason,
}

/// An IPv6 address that a guest may not have.
pub type Refusal6 = Refusal<Ipv6Addr>;

impl<A: fmt::Display> fmt::Display for Refusal<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is refused: {}", self.address, self.reason)
    }
}
