//! The errors that [`super::check`] and [`super::check_against`] find.
//!
//! A [`CheckFailure`] is a [`CheckError`] and the part of the network that has it. Each message
//! is one line: the values that do not fit together, a colon, and the fix. It has no line and
//! column, since a check does not know the document.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::places::Part;
use super::values::{NetworkName, PortGroupName};
use crate::types::{AddressError, BandwidthError, InterfaceName, Mac, Uuid};

/// An error of a network, and the part that has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
#[non_exhaustive]
pub struct CheckFailure {
    /// The part of the network.
    pub part: Part,
    /// The error and its fix.
    pub what: CheckError,
}

/// A conflict within a network or between two networks, and its fix, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The MTU is too small for the protocols of the network.
    #[error("an mtu of {mtu} is too small for {protocol}: use {least} to 65535")]
    Mtu {
        /// The MTU.
        mtu: u16,
        /// `IPv4` or `IPv6`.
        protocol: &'static str,
        /// The smallest MTU that works.
        least: u16,
    },
    /// The forward delay of the bridge is longer than the kernel allows.
    #[error("a delay of {0} seconds is too long: use 0 to 30")]
    Delay(u32),
    /// The mode forwards packets, and the bridge has no address.
    #[error("mode='{0}' needs an address of the host: add an <ip>, or remove <forward>")]
    NoAddress(&'static str),
    /// The address cannot be the source address of a packet.
    #[error("{0} cannot be a source address: use addresses of the host that others route to it")]
    NatAddress(IpAddr),
    /// The source addresses overlap the guests' own subnet.
    #[error("the addresses {range} are of the guests' own subnet {subnet}: use other addresses")]
    NatOwn {
        /// The source addresses.
        range: String,
        /// The guests' subnet.
        subnet: IpNet,
    },
    /// The address is an IPv4 address that no host can have.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The address is an IPv6 address that no bridge can have.
    #[error("{address} is {what}: use one such as fd00:1:2:3::1")]
    Address6 {
        /// The address.
        address: Ipv6Addr,
        /// The kind of address, in words.
        what: &'static str,
    },
    /// The IPv6 prefix leaves no room for guests, or is shorter than 8 bits.
    #[error("a subnet of /{0} has no room for guests: use a prefix length from 8 to 126")]
    Prefix6(u8),
    /// Two addresses of the bridge have overlapping subnets.
    #[error("the subnet {subnet} overlaps {other}, which this network has already: use another")]
    OwnOverlap {
        /// The subnet.
        subnet: IpNet,
        /// The other subnet.
        other: IpNet,
    },
    /// The names of the subnet's addresses in DNS do not form one zone with this prefix length.
    #[error(
        "localPtr works with prefix lengths that {step} divides, and not with {prefix}: change it, or remove localPtr"
    )]
    LocalPtr {
        /// The prefix length.
        prefix: u8,
        /// The number that must divide the prefix length: 8 for IPv4, 4 for IPv6.
        step: u8,
    },
    /// The network has a second element of a kind that it may have once.
    #[error("a network has one {0}: remove this one, or the other")]
    Second(&'static str),
    /// The element works with IPv4 only.
    #[error("{0} is for IPv4: move it to an <ip> with an IPv4 address")]
    NotV6(&'static str),
    /// The prefix is too short for DHCP: dnsmasq serves no IPv6 subnet larger than a /64 (measured:
    /// "prefix length must be at least 64").
    #[error("DHCP needs an IPv6 prefix length of 64 or more, and this is {0}: use prefix='64'")]
    DhcpPrefix(u8),
    /// The address is outside the subnet.
    #[error("{address} is outside the subnet {subnet}: use an address of it")]
    Outside {
        /// The address.
        address: IpAddr,
        /// The subnet.
        subnet: IpNet,
    },
    /// The address is the network or broadcast address of the subnet.
    #[error("{address} is the {what} address of {subnet}: no guest can have it")]
    NoHost {
        /// The address.
        address: IpAddr,
        /// `network` or `broadcast`.
        what: &'static str,
        /// The subnet.
        subnet: IpNet,
    },
    /// A guest has the bridge's own address.
    #[error("{0} is the bridge's own address: no guest can have it")]
    Own(IpAddr),
    /// The range has no address but the bridge's own.
    #[error(
        "the range has {own} only, the bridge's own address, and no guest can have that: add other addresses"
    )]
    RangeOwn {
        /// The bridge's address.
        own: IpAddr,
    },
    /// The first address of the range is higher than the last.
    #[error("the range {first} to {last} runs backwards: exchange start and end")]
    Backwards {
        /// The first address as written.
        first: IpAddr,
        /// The last address as written.
        last: IpAddr,
    },
    /// Two ranges share addresses.
    #[error(
        "the range {first} to {last} overlaps {other_first} to {other_last}: use other addresses"
    )]
    Ranges {
        /// The lowest address of the range.
        first: IpAddr,
        /// The highest address of the range.
        last: IpAddr,
        /// The lowest address of the other range.
        other_first: IpAddr,
        /// The highest address of the other range.
        other_last: IpAddr,
    },
    /// DHCP for this protocol version cannot identify a guest by this attribute.
    #[error("{has} identifies no guest in {protocol}: use {instead} or name")]
    Client {
        /// The attribute.
        has: &'static str,
        /// `DHCP for IPv4` or `DHCP for IPv6`.
        protocol: &'static str,
        /// The attribute that works instead.
        instead: &'static str,
    },
    /// Two hosts have the same address or the same identifying attribute.
    #[error("another <host> has {0} already: remove one of them")]
    HostTwice(String),
    /// Two MAC addresses share an IP address, but have different names or lease times.
    #[error(
        "another <host> has {0} with another name or lease: an address has one name and one lease, so give both hosts the same"
    )]
    Shared(IpAddr),
    /// A guest has the bridge's own hardware address.
    #[error("{0} is the bridge's own MAC address: no guest can have it")]
    OwnMac(Mac),
    /// The destination of the route has host bits, so it is an address and not a network.
    #[error("{net} has host bits: write address='{}'", net.network())]
    RouteBits {
        /// The route's network.
        net: IpNet,
    },
    /// The destination of the route is within a subnet of this network.
    #[error("{net} is in this network's own subnet {subnet}: remove the route")]
    RouteOwn {
        /// The route's network.
        net: IpNet,
        /// The subnet.
        subnet: IpNet,
    },
    /// The gateway is in no subnet of the network.
    #[error(
        "the gateway {0} is in no subnet of this network, so nothing reaches it: use a guest's address"
    )]
    Gateway(IpAddr),
    /// The gateway and the destination have different protocol versions.
    #[error("the gateway {gateway} cannot lead to {net}: use a gateway of the same IP version")]
    GatewayFamily {
        /// The gateway.
        gateway: IpAddr,
        /// The route's network.
        net: IpNet,
    },
    /// Two routes have the same destination and the same metric.
    #[error("another <route> leads to {0} with the same metric: remove one of them")]
    RouteTwice(IpNet),

    /// A network on an existing bridge has a part that would change the host.
    #[error(
        "mode='bridge' leaves the bridge as the host has it, so {what} has no effect: remove it, or use another mode"
    )]
    Existing {
        /// The part.
        what: &'static str,
    },
    /// The limits of traffic are not possible.
    #[error(transparent)]
    Bandwidth(BandwidthError),
    /// Two port groups have one name.
    #[error("another <portgroup> has the name {0} already: use another name")]
    PortGroupTwice(PortGroupName),
    /// Two port groups are the default.
    #[error("the <portgroup> {0} is the default already: remove default from one of them")]
    DefaultTwice(PortGroupName),
    /// An option for dnsmasq makes leases, and the network has no DHCP server.
    #[error("dhcp-range needs a DHCP server on the network: add <dhcp> to an <ip>")]
    RangeOption,
    /// The network has no dnsmasq that could get the options.
    #[error(
        "the network has no DNS, DHCP or TFTP server that could have options: add an <ip>, or remove <dnsmasq:options>"
    )]
    NoServer,

    /// Another network has the same name and a different UUID.
    #[error(
        "the network {name} exists already, with the UUID {uuid}: remove <uuid> to keep that UUID, or use another name"
    )]
    NameTaken {
        /// The name.
        name: NetworkName,
        /// The UUID of the other network.
        uuid: Uuid,
    },
    /// Another network has the same UUID.
    #[error("the network {name} has the UUID {uuid} already: remove <uuid> and get another")]
    UuidTaken {
        /// The name of the other network.
        name: NetworkName,
        /// The UUID.
        uuid: Uuid,
    },
    /// Another network has the same bridge.
    #[error("the network {name} has the bridge {bridge} already: use another name for the bridge")]
    BridgeTaken {
        /// The name of the other network.
        name: NetworkName,
        /// The bridge.
        bridge: InterfaceName,
    },
    /// Another network has the same hardware address.
    #[error("the network {name} has the MAC address {mac} already: remove <mac> and get another")]
    MacTaken {
        /// The name of the other network.
        name: NetworkName,
        /// The address.
        mac: Mac,
    },
    /// Another network has an overlapping subnet.
    #[error("the subnet {subnet} overlaps {other} of the network {name}: use another subnet")]
    SubnetTaken {
        /// The name of the other network.
        name: NetworkName,
        /// The subnet.
        subnet: IpNet,
        /// The subnet of the other network.
        other: IpNet,
    },
}
