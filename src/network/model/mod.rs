//! A virtual network as a value: the part of libvirt's network format that netlaunch supports.
//!
//! Each part has a type that holds only valid values, and [`super::check`] checks that the parts
//! fit together. A [`Network`] is complete: it also has the values that a document may leave out
//! and that netlaunch then chooses (UUID, MAC address, bridge name).

mod dhcp;
mod dns;
mod forward;
mod port;

use std::net::IpAddr;
use std::num::NonZeroU32;

use ipnet::IpNet;

pub use dhcp::{Bootp, Client, Dhcp, DhcpHost, DhcpRange, Lease};
pub use dns::{Dns, DnsHost, DnsServer, Domain, Forwarder, Srv, SrvTarget, Txt};
pub use forward::{AddressRange, Forward, Nat};
pub use port::{PortGroup, PortProperties};

use super::dnsmasq_option::DnsmasqOption;
use super::values::{NetworkName, TftpRoot, Title, ZoneName};
use crate::types::{InterfaceName, Mac, Uuid};
use crate::xml::Foreign;

/// A virtual network: a bridge of the host, its addresses, and the services of the host for its
/// guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: NetworkName,
    /// Its identifier, which stays the same when the name changes.
    pub uuid: Uuid,
    /// A short description for people.
    pub title: Option<Title>,
    /// A long description for people; it is not empty.
    pub description: Option<String>,
    /// The elements of other programs, which are kept and never interpreted.
    pub metadata: Option<Foreign>,
    /// Whether guests may use IPv6 among themselves although the network has no IPv6 address.
    pub ipv6: bool,
    /// The connection between the guests and other networks. Exhaustive, because each mode needs
    /// other rules.
    pub forward: Forward,
    /// The bridge that the guests are attached to.
    pub bridge: Bridge,
    /// The bridge's hardware address; `None` with [`Forward::Bridge`], whose bridge has one
    /// already.
    pub mac: Option<Mac>,
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
    /// The properties of all guests' ports.
    pub port: PortProperties,
    /// The port groups; their names differ, and one at most is the default.
    pub port_groups: Vec<PortGroup>,
    /// Further options for the network's dnsmasq.
    pub dnsmasq_options: Vec<DnsmasqOption>,
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
    /// Whether the document says that the kernel learns the guests' MAC addresses (libvirt's
    /// `macTableManager='kernel'`), as it does by default.
    pub kernel_mac_table: bool,
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
