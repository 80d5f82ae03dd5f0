//! A virtual network as a value: the part of libvirt's network format that netlaunch supports.
//!
//! Each part has a type that holds only valid values, and [`super::check`] checks that the parts
//! fit together. A [`Network`] is complete: it also has the values that a document may leave out
//! and that netlaunch then chooses (UUID, MAC address, bridge name).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use ipnet::IpNet;

use super::values::{BootFile, Duid, NetworkName, ServiceName, TftpRoot, TxtValue, ZoneName};
use crate::types::{DomainName, HostName, InterfaceName, Mac, PortRange, Protocol, Uuid};

/// A virtual network: a bridge of the host, its addresses, and the services of the host for its
/// guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: NetworkName,
    /// Its identifier, which stays the same when the name changes.
    pub uuid: Uuid,
    /// Whether guests may use IPv6 among themselves although the network has no IPv6 address.
    pub ipv6: bool,
    /// The connection between the guests and other networks. Exhaustive, because each mode needs
    /// other rules.
    pub forward: Forward,
    /// The bridge that the guests are attached to.
    pub bridge: Bridge,
    /// The bridge's hardware address.
    pub mac: Mac,
    /// The largest packet of the bridge and its guests, in bytes; `None` means the kernel's 1500.
    pub mtu: Option<u16>,
    /// The guests' DNS domain.
    pub domain: Option<Domain>,
    /// The DNS server for the guests.
    pub dns: Dns,
    /// The bridge's addresses, each with the services on it.
    pub ips: Vec<Ip>,
    /// The networks that the host reaches through a guest.
    pub routes: Vec<Route>,
}

/// The connection between the guests and other networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// Guests and other networks do not reach each other.
    Isolated,
    /// Guests reach other networks with an address of the host as the source address. Other
    /// networks do not reach the guests.
    Nat(Nat),
    /// Guests and other networks reach each other, with the guests' own addresses.
    Route {
        /// The only interface for forwarding, in both directions; `None` means every interface.
        dev: Option<InterfaceName>,
    },
    /// The host's own firewall decides; netlaunch makes no rules.
    Open,
}

impl Forward {
    /// Returns the mode's name in XML. An isolated network has no `<forward>`, so its name is only
    /// for people.
    pub fn name(&self) -> &'static str {
        match self {
            Forward::Isolated => "isolated",
            Forward::Nat(_) => "nat",
            Forward::Route { .. } => "route",
            Forward::Open => "open",
        }
    }

    /// Returns the only interface for forwarding, if one is set.
    pub fn dev(&self) -> Option<&InterfaceName> {
        match self {
            Forward::Nat(nat) => nat.dev.as_ref(),
            Forward::Route { dev } => dev.as_ref(),
            Forward::Isolated | Forward::Open => None,
        }
    }
}

/// The settings of network address translation.
///
/// [`Nat::default`] translates IPv4 only, to the address of the interface that a packet leaves by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nat {
    /// The only interface for forwarding; `None` means every interface.
    pub dev: Option<InterfaceName>,
    /// Whether IPv6 is translated too; otherwise it is routed.
    pub ipv6: bool,
    /// The IPv4 source addresses; `None` means the address of the interface.
    pub addresses: Option<AddressRange>,
    /// The TCP and UDP source ports; `None` lets the kernel choose.
    pub ports: Option<PortRange>,
}

/// The IPv4 addresses `first..=last`; the range is never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

impl AddressRange {
    /// Makes the range `first..=last`, or `None` if `first` is greater than `last`.
    pub fn new(first: Ipv4Addr, last: Ipv4Addr) -> Option<Self> {
        (first <= last).then_some(AddressRange { first, last })
    }

    /// Returns the lowest address.
    pub fn first(self) -> Ipv4Addr {
        self.first
    }

    /// Returns the highest address.
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
    /// The name of its interface.
    pub name: InterfaceName,
    /// Whether the bridge runs the spanning tree protocol; off by default.
    pub stp: bool,
    /// The time in seconds for which a new port waits before it forwards; 0 by default.
    pub delay: u32,
    /// The zone of firewalld for the bridge; if `None`, the start of the network chooses one.
    pub zone: Option<ZoneName>,
}

/// The guests' DNS domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// The domain's name.
    pub name: DomainName,
    /// Whether the network's DNS server never forwards queries about this domain.
    pub local_only: bool,
}

/// The network's DNS server. [`Dns::default`] forwards all queries to the host's resolvers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Whether the network has a DNS server; if not, the other fields have no effect.
    pub enable: bool,
    /// Whether queries for names without a dot are forwarded too.
    pub forward_plain_names: bool,
    /// The servers that get the queries in place of the host's resolvers.
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

/// The destination of forwarded DNS queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forwarder {
    /// All queries go to this server.
    All(IpAddr),
    /// Queries about this domain go to this server.
    Domain(DomainName, IpAddr),
    /// Queries about this domain go to the network's own records, then to the host's resolvers,
    /// even if [`Forwarder::All`] sends the other queries to another server.
    Host(DomainName),
}

/// An address and its names in DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsHost {
    /// The address.
    pub ip: IpAddr,
    /// Its names; there is at least one.
    pub names: Vec<HostName>,
}

/// An SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// The service, such as `ldap`.
    pub service: ServiceName,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The domain in which clients look for the service; `None` means the network's own domain.
    pub domain: Option<DomainName>,
    /// The server; `None` means that the service is not available.
    pub target: Option<SrvTarget>,
}

/// The server of an SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvTarget {
    /// The server's name; `None` means the root, `.`, which says that the service is not available
    /// (RFC 2782).
    pub host: Option<DomainName>,
    /// The server's port.
    pub port: Option<u16>,
    /// The priority; clients try the server with the lowest number first.
    pub priority: Option<u16>,
    /// The weight, which is the server's share of the clients among servers with the same priority.
    pub weight: Option<u16>,
}

/// A TXT record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txt {
    /// Its name.
    pub name: DomainName,
    /// The strings of the record.
    pub value: TxtValue,
}

/// An address of the bridge, and the services in its subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip {
    /// The address with the prefix length of its subnet; its host bits are kept.
    pub net: IpNet,
    /// Whether the network's DNS server never forwards queries for the names of the subnet's
    /// addresses.
    pub local_ptr: bool,
    /// The directory that the TFTP server serves.
    pub tftp: Option<TftpRoot>,
    /// The DHCP server for the subnet.
    pub dhcp: Option<Dhcp>,
}

/// The settings of a DHCP server for one subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dhcp {
    /// The addresses for any guest.
    pub ranges: Vec<DhcpRange>,
    /// The fixed addresses of particular guests.
    pub hosts: Vec<DhcpHost>,
    /// The file that guests boot from.
    pub bootp: Option<Bootp>,
}

/// A range of addresses for any guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpRange {
    /// The lowest address.
    pub first: IpAddr,
    /// The highest address.
    pub last: IpAddr,
    /// The lease time; `None` leaves it to the DHCP server.
    pub lease: Option<Lease>,
}

impl DhcpRange {
    /// Returns the range without the bridge's own address `own`, as at most two ranges, lowest
    /// first.
    pub fn without(&self, own: IpAddr) -> Vec<DhcpRange> {
        if own < self.first || self.last < own {
            return vec![self.clone()];
        }
        let next = |by: i8| -> Option<IpAddr> {
            Some(match own {
                IpAddr::V4(own) => {
                    Ipv4Addr::from(u32::from(own).checked_add_signed(by.into())?).into()
                }
                IpAddr::V6(own) => {
                    Ipv6Addr::from(u128::from(own).checked_add_signed(by.into())?).into()
                }
            })
        };
        let below = next(-1).map(|last| DhcpRange { last, ..self.clone() });
        let above = next(1).map(|first| DhcpRange { first, ..self.clone() });
        below.into_iter().chain(above).filter(|part| part.first <= part.last).collect()
    }
}

/// The fixed address of a particular guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpHost {
    /// The attribute by which DHCP identifies the guest.
    pub client: Client,
    /// The guest's address.
    pub ip: IpAddr,
    /// The lease time; `None` leaves it to the DHCP server.
    pub lease: Option<Lease>,
}

/// The attribute by which DHCP identifies a guest. Exhaustive, because a DHCP server needs one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Client {
    /// Its hardware address (IPv4), and the name that DHCP gives it.
    Mac(Mac, Option<HostName>),
    /// Its DHCP unique identifier (IPv6), and the name that DHCP gives it.
    Duid(Duid, Option<HostName>),
    /// The name that the guest sends.
    Name(HostName),
}

impl Client {
    /// Returns the name that DHCP gives the guest, or that the guest sends.
    pub fn name(&self) -> Option<&HostName> {
        match self {
            Client::Mac(_, name) | Client::Duid(_, name) => name.as_ref(),
            Client::Name(name) => Some(name),
        }
    }
}

/// The duration of a lease. Exhaustive, because a lease ends or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// The lease never expires.
    Infinite,
    /// The lease lasts this many seconds, at least 120.
    Seconds(u32),
}

/// The file that guests boot from (IPv4), and its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootp {
    /// The name of the file.
    pub file: BootFile,
    /// The server that has the file, as a name or an IPv4 address; `None` means the bridge's own
    /// address.
    pub server: Option<DomainName>,
}

/// A network that the host reaches through a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The destination network.
    pub net: IpNet,
    /// The guest's address.
    pub gateway: IpAddr,
    /// The metric; the route with the lowest metric is used. `None` means 1.
    pub metric: Option<NonZeroU32>,
}

impl Network {
    /// Returns the subnets of the bridge's addresses, with all host bits zero.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.ips.iter().map(|ip| ip.net.trunc())
    }

    /// Returns whether the bridge has an IPv6 address, or guests may use IPv6 without one.
    pub fn has_ipv6(&self) -> bool {
        self.ipv6 || self.ips.iter().any(|ip| ip.net.addr().is_ipv6())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_without_the_bridges_own_address_is_at_most_two_ranges() {
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
