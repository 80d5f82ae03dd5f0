//! Addresses that no guest on a port may have, and why.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::types::InterfaceName;

/// The addresses that are in use, as far as the host knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// The host's own addresses with their subnets.
    pub hosts: Vec<Ipv4Net>,
    /// The routers of the host's routes.
    pub next_hops: Vec<Ipv4Addr>,
    /// The DHCP servers that bindings name. The server of a lease that another guest has is none:
    /// two guests could make any address one by a forged answer.
    pub servers: Vec<Ipv4Addr>,
    /// What other ports on the same bridge learnt or are bound to.
    pub ports: Vec<(Ipv4Addr, InterfaceName)>,
}

impl From<Vec<Ipv4Net>> for Taken {
    fn from(hosts: Vec<Ipv4Net>) -> Self {
        Taken { hosts, ..Taken::default() }
    }
}

impl Taken {
    /// Why no guest may have this address; `None` where one may.
    pub fn reason(&self, address: Ipv4Addr) -> Option<Reason> {
        for net in &self.hosts {
            let has_edges = net.prefix_len() < 31; // RFC 3021
            if address == net.addr() {
                return Some(Reason::Host);
            }
            if has_edges && (address == net.network() || address == net.broadcast()) {
                return Some(Reason::Edge(net.trunc()));
            }
        }
        if self.next_hops.contains(&address) {
            return Some(Reason::NextHop);
        }
        if self.servers.contains(&address) {
            return Some(Reason::Server);
        }
        let port = self.ports.iter().find(|(theirs, _)| *theirs == address);
        port.map(|(_, port)| Reason::Port(port.clone()))
    }

    /// The same without the ports, whose addresses are known under their lock alone.
    pub(super) fn without_ports(self) -> Self {
        Taken { ports: Vec::new(), ..self }
    }
}

/// Why a guest may not have an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It is the host's.
    Host,
    /// It is the network or broadcast address of a subnet of the host's.
    Edge(Ipv4Net),
    /// It is a router's.
    NextHop,
    /// It is a DHCP server's.
    Server,
    /// It is another port's.
    Port(InterfaceName),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Host => f.write_str("it is an address of this host"),
            Reason::Edge(net) => write!(f, "it is the network or broadcast address of {net}"),
            Reason::NextHop => f.write_str("a route of this host has it as its router"),
            Reason::Server => f.write_str("it is the address of a DHCP server"),
            Reason::Port(port) => write!(f, "the port {port} of the same bridge has it"),
        }
    }
}

/// An address that a guest used or was given and may not have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Refused {
    /// The address.
    pub address: Ipv4Addr,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is refused: {}", self.address, self.reason)
    }
}
