//! A virtual network as a value: what libvirt's network format says of networks that netlaunch
//! makes itself, each part in a type that can only hold what makes sense.
//!
//! Whether the parts make sense *together* is for [`super::check`]. A [`Network`] is complete: what
//! a document may leave out and netlaunch then chooses (UUID, MAC address, bridge) is in it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use ipnet::IpNet;

use super::values::{BootFile, Duid, NetworkName, ServiceName, TftpRoot, TxtValue, ZoneName};
use crate::types::{DomainName, HostName, InterfaceName, Mac, PortRange, Protocol, Uuid};

/// A virtual network: a bridge of the host, its addresses, and what the host does for its guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// What it is called.
    pub name: NetworkName,
    /// What it is known by however it is called.
    pub uuid: Uuid,
    /// Whether guests speak IPv6 with each other although the network has no IPv6 address.
    pub ipv6: bool,
    /// How guests reach other networks.
    pub forward: Forward,
    /// The bridge.
    pub bridge: Bridge,
    /// The bridge's hardware address.
    pub mac: Mac,
    /// The largest packet of the bridge and its guests in bytes; `None` is the kernel's 1500.
    pub mtu: Option<u16>,
    /// The guests' DNS domain.
    pub domain: Option<Domain>,
    /// The DNS server for the guests.
    pub dns: Dns,
    /// The bridge's addresses, with what is served on them.
    pub ips: Vec<Ip>,
    /// Networks that the host reaches through a guest.
    pub routes: Vec<Route>,
}

/// How guests reach other networks than their own, and are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// Not at all.
    Isolated,
    /// With an address of the host in place of theirs; nothing reaches them.
    Nat(Nat),
    /// With their own addresses, both ways.
    Route {
        /// The only interface to forward to and from.
        dev: Option<InterfaceName>,
    },
    /// As the host's own firewall says; netlaunch makes no rules.
    Open,
}

impl Forward {
    /// The name in XML; an isolated network has no `<forward>`, so this is for people.
    pub fn name(&self) -> &'static str {
        match self {
            Forward::Isolated => "isolated",
            Forward::Nat(_) => "nat",
            Forward::Route { .. } => "route",
            Forward::Open => "open",
        }
    }

    /// The only interface to forward to and from.
    pub fn dev(&self) -> Option<&InterfaceName> {
        match self {
            Forward::Nat(nat) => nat.dev.as_ref(),
            Forward::Route { dev } => dev.as_ref(),
            Forward::Isolated | Forward::Open => None,
        }
    }
}

/// Settings of address translation. [`Nat::default`] is the address of the interface that packets
/// leave by, IPv4 only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nat {
    /// The only interface to forward to.
    pub dev: Option<InterfaceName>,
    /// Whether IPv6 is translated, too; else it is routed.
    pub ipv6: bool,
    /// The IPv4 source addresses to use; `None` is that of the interface.
    pub addresses: Option<AddressRange>,
    /// The TCP and UDP source ports to use; `None` leaves them to the kernel.
    pub ports: Option<PortRange>,
}

/// IPv4 addresses `first..=last`, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

impl AddressRange {
    /// The addresses from `first` to `last`; `None` for a range that runs backwards.
    pub fn new(first: Ipv4Addr, last: Ipv4Addr) -> Option<Self> {
        (first <= last).then_some(AddressRange { first, last })
    }

    /// The lowest address.
    pub fn first(self) -> Ipv4Addr {
        self.first
    }

    /// The highest address.
    pub fn last(self) -> Ipv4Addr {
        self.last
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The bridge that the guests are attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its interface name.
    pub name: InterfaceName,
    /// Whether it speaks the spanning tree protocol; off unless the document turns it on.
    pub stp: bool,
    /// How long a new port waits before it forwards, in seconds; 0 unless said otherwise.
    pub delay: u32,
    /// The firewalld zone it goes into; `None` leaves that to the driver.
    pub zone: Option<ZoneName>,
}

/// The guests' DNS domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: DomainName,
    /// Whether questions about it never leave the network's own server.
    pub local_only: bool,
}

/// The network's DNS server. [`Dns::default`] forwards everything to the host's resolvers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Whether there is one; if not, the rest has no effect.
    pub enable: bool,
    /// Whether names without a dot are asked of other servers, too.
    pub forward_plain_names: bool,
    /// Other servers to ask in place of the host's.
    pub forwarders: Vec<Forwarder>,
    /// Addresses and their names.
    pub hosts: Vec<DnsHost>,
    /// SRV records.
    pub services: Vec<Srv>,
    /// TXT records.
    pub texts: Vec<Txt>,
}

impl Default for Dns {
    fn default() -> Self {
        Dns {
            enable: true,
            forward_plain_names: true,
            forwarders: Vec::new(),
            hosts: Vec::new(),
            services: Vec::new(),
            texts: Vec::new(),
        }
    }
}

/// Where a DNS question goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forwarder {
    /// Every question to this server.
    All(IpAddr),
    /// Questions about this domain to this server.
    Domain(DomainName, IpAddr),
    /// Questions about this domain to the network's own records, then the host's resolvers, even
    /// where [`Forwarder::All`] sends the others elsewhere.
    Host(DomainName),
}

/// An address and its names in DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsHost {
    /// The address.
    pub ip: IpAddr,
    /// Its names, one at least.
    pub names: Vec<HostName>,
}

/// An SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// The service.
    pub service: ServiceName,
    /// The transport protocol.
    pub protocol: Protocol,
    /// Where the service is looked for; `None` is the network's own domain.
    pub domain: Option<DomainName>,
    /// Who serves; `None` means that nobody does.
    pub target: Option<SrvTarget>,
}

/// Who serves, of an SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvTarget {
    /// The server's name; `None` is the root, `.`, which says that nobody serves.
    pub host: Option<DomainName>,
    /// The server's port.
    pub port: Option<u16>,
    /// The lowest is tried first.
    pub priority: Option<u16>,
    /// How large a share of clients of the same priority.
    pub weight: Option<u16>,
}

/// A TXT record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txt {
    /// Its name.
    pub name: DomainName,
    /// Its strings.
    pub value: TxtValue,
}

/// An address of the bridge, and what is served in its subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip {
    /// The address with the prefix length of its subnet; the host bits are the address's.
    pub net: IpNet,
    /// Whether questions for names of the subnet's addresses never leave the network's own server.
    pub local_ptr: bool,
    /// The directory that is served by TFTP.
    pub tftp: Option<TftpRoot>,
    /// The DHCP server.
    pub dhcp: Option<Dhcp>,
}

/// A DHCP server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dhcp {
    /// Addresses for whoever asks.
    pub ranges: Vec<DhcpRange>,
    /// Addresses for particular guests.
    pub hosts: Vec<DhcpHost>,
    /// What guests boot from.
    pub bootp: Option<Bootp>,
}

/// Addresses that DHCP hands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpRange {
    /// The lowest.
    pub first: IpAddr,
    /// The highest.
    pub last: IpAddr,
    /// For how long; `None` leaves that to the server.
    pub lease: Option<Lease>,
}

impl DhcpRange {
    /// The parts of the range without `own`, the bridge's address: none, one or two, lowest first.
    pub fn without(&self, own: IpAddr) -> Vec<DhcpRange> {
        if own < self.first || self.last < own {
            return vec![self.clone()];
        }
        let step = |by: i8| match own {
            IpAddr::V4(own) => {
                let number = u32::from(own);
                let near = if by < 0 { number.checked_sub(1) } else { number.checked_add(1) };
                near.map(|number| IpAddr::from(Ipv4Addr::from(number)))
            }
            IpAddr::V6(own) => {
                let number = u128::from(own);
                let near = if by < 0 { number.checked_sub(1) } else { number.checked_add(1) };
                near.map(|number| IpAddr::from(Ipv6Addr::from(number)))
            }
        };
        let below = step(-1).map(|last| DhcpRange { last, ..self.clone() });
        let above = step(1).map(|first| DhcpRange { first, ..self.clone() });
        below.into_iter().chain(above).filter(|part| part.first <= part.last).collect()
    }
}

/// The address of a particular guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpHost {
    /// Which guest.
    pub client: Client,
    /// Its address.
    pub ip: IpAddr,
    /// For how long; `None` leaves that to the server.
    pub lease: Option<Lease>,
}

/// How DHCP recognises a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Client {
    /// By its hardware address (IPv4); it is given the name.
    Mac(Mac, Option<HostName>),
    /// By its identifier (IPv6); it is given the name.
    Duid(Duid, Option<HostName>),
    /// By the name it says it has.
    Name(HostName),
}

impl Client {
    /// The name it is given or has.
    pub fn name(&self) -> Option<&HostName> {
        match self {
            Client::Mac(_, name) | Client::Duid(_, name) => name.as_ref(),
            Client::Name(name) => Some(name),
        }
    }
}

/// How long a lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// For ever.
    Infinite,
    /// This many seconds, 120 at least.
    Seconds(u32),
}

/// What guests boot from (IPv4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootp {
    /// The file.
    pub file: BootFile,
    /// The server that has it, a name or an IPv4 address; `None` is the bridge's own address.
    pub server: Option<DomainName>,
}

/// A network that the host reaches through a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The network.
    pub net: IpNet,
    /// The guest.
    pub gateway: IpAddr,
    /// The route's metric, the lowest wins; `None` is 1.
    pub metric: Option<NonZeroU32>,
}

impl Network {
    /// The subnets of the bridge's addresses, host bits zero.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.ips.iter().map(|ip| ip.net.trunc())
    }

    /// Whether the bridge has an IPv6 address, or guests speak IPv6 without one.
    pub fn has_ipv6(&self) -> bool {
        self.ipv6 || self.ips.iter().any(|ip| ip.net.addr().is_ipv6())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_leaves_the_bridge_s_own_address_out() {
        let range = |first: &str, last: &str| DhcpRange {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
            lease: None,
        };
        for (first, last, own, parts) in [
            ("10.0.0.1", "10.0.0.9", "10.0.0.1", &[("10.0.0.2", "10.0.0.9")][..]),
            ("10.0.0.2", "10.0.0.9", "10.0.0.9", &[("10.0.0.2", "10.0.0.8")]),
            (
                "10.0.0.2",
                "10.0.0.9",
                "10.0.0.5",
                &[("10.0.0.2", "10.0.0.4"), ("10.0.0.6", "10.0.0.9")],
            ),
            ("10.0.0.2", "10.0.0.9", "10.0.0.1", &[("10.0.0.2", "10.0.0.9")]),
            ("10.0.0.1", "10.0.0.1", "10.0.0.1", &[]),
            ("fd00::1", "fd00::9", "fd00::1", &[("fd00::2", "fd00::9")]),
        ] {
            let parts: Vec<_> = parts.iter().map(|(first, last)| range(first, last)).collect();
            assert_eq!(range(first, last).without(own.parse().unwrap()), parts, "{own}");
        }
    }
}
