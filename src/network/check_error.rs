//! What [`super::check`] finds.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::places::Part;
use super::values::NetworkName;
use crate::types::{AddressError, InterfaceName, Mac, Uuid};

/// What is wrong with a network, and with which part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Problem {
    /// The part.
    pub part: Part,
    /// What is wrong, and what to do.
    pub what: CheckError,
}

/// What does not go together, and what to do, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The MTU is too small for the protocols used.
    #[error("an mtu of {mtu} is too small for {protocol}: use {least} to 65535")]
    Mtu {
        /// The MTU.
        mtu: u16,
        /// `IPv4` or `IPv6`.
        protocol: &'static str,
        /// The least that works.
        least: u16,
    },
    /// The bridge would wait longer than the kernel lets it.
    #[error("a delay of {0} seconds is too long: use 0 to 30")]
    Delay(u32),
    /// Forwarding without an address to forward from.
    #[error("mode='{0}' needs an address of the host: add an <ip>, or remove <forward>")]
    NoAddress(&'static str),
    /// A source address that cannot be one.
    #[error("{0} cannot be a source address: use addresses of the host that others route to it")]
    NatAddress(IpAddr),
    /// Source addresses that are the guests'.
    #[error("the addresses {range} are of the guests' own subnet {subnet}: use others")]
    NatOwn {
        /// The addresses.
        range: String,
        /// The subnet.
        subnet: IpNet,
    },
    /// An IPv4 address that no host can have.
    #[error("{0}")]
    Address(#[from] AddressError),
    /// An IPv6 address that no bridge can have.
    #[error("{address} is {what}: use one such as fd00:1:2:3::1")]
    Address6 {
        /// The address.
        address: Ipv6Addr,
        /// What it is.
        what: &'static str,
    },
    /// No room for guests.
    #[error("a subnet of /{0} has no room for guests: use a prefix length from 8 to 126")]
    Prefix6(u8),
    /// Two addresses of the bridge with one subnet, or parts of it.
    #[error("the subnet {subnet} overlaps {other}, which this network has already: use another")]
    OwnOverlap {
        /// The subnet.
        subnet: IpNet,
        /// The other.
        other: IpNet,
    },
    /// Names of addresses in DNS cannot end at such a prefix.
    #[error(
        "localPtr works with prefix lengths that {step} divides, and not with {prefix}: change it, or remove localPtr"
    )]
    LocalPtr {
        /// The prefix length.
        prefix: u8,
        /// 8 for IPv4, 4 for IPv6.
        step: u8,
    },
    /// More than one of a kind.
    #[error("a network has one {0}: remove this one, or the other")]
    Second(&'static str),
    /// IPv4 only.
    #[error("{0} is for IPv4: move it to an <ip> with an IPv4 address")]
    NotV6(&'static str),
    /// dnsmasq serves no larger IPv6 subnets (measured: "prefix length must be at least 64").
    #[error("DHCP needs an IPv6 prefix length of 64 or more, and this is {0}: use prefix='64'")]
    DhcpPrefix(u8),
    /// An address of another subnet.
    #[error("{address} is outside the subnet {subnet}: use an address of it")]
    Outside {
        /// The address.
        address: IpAddr,
        /// The subnet.
        subnet: IpNet,
    },
    /// An address that is the subnet's or for all hosts.
    #[error("{address} is the {what} address of {subnet}: no guest can have it")]
    NoHost {
        /// The address.
        address: IpAddr,
        /// `network` or `broadcast`.
        what: &'static str,
        /// The subnet.
        subnet: IpNet,
    },
    /// The bridge's own address for a guest.
    #[error("{0} is the bridge's own address: no guest can have it")]
    Own(IpAddr),
    /// A range that has the bridge's own address only.
    #[error(
        "the range has {own} only, the bridge's own address, and no guest can have that: add other addresses"
    )]
    RangeOwn {
        /// The bridge's.
        own: IpAddr,
    },
    /// A range with its ends exchanged.
    #[error("the range {first} to {last} runs backwards: exchange start and end")]
    Backwards {
        /// Its start.
        first: IpAddr,
        /// Its end.
        last: IpAddr,
    },
    /// Two ranges that share addresses.
    #[error(
        "the range {first} to {last} overlaps {other_first} to {other_last}: use other addresses"
    )]
    Ranges {
        /// Its lowest address.
        first: IpAddr,
        /// Its highest.
        last: IpAddr,
        /// The other's lowest.
        other_first: IpAddr,
        /// The other's highest.
        other_last: IpAddr,
    },
    /// A way to recognise guests that the protocol does not have.
    #[error("{has} says nothing in {protocol}: use {instead} or name")]
    Client {
        /// The attribute.
        has: &'static str,
        /// `DHCP for IPv4` or `DHCP for IPv6`.
        protocol: &'static str,
        /// The attribute to use.
        instead: &'static str,
    },
    /// Two hosts that are the same.
    #[error("{0} is another <host>'s already: remove one of them")]
    HostTwice(String),
    /// Two MAC addresses for one IP address, with different names or lease times.
    #[error(
        "another <host> has {0} with another name or lease: an address has one of each, so give both hosts the same"
    )]
    Shared(IpAddr),
    /// A guest with the bridge's hardware address.
    #[error("{0} is the bridge's own MAC address: no guest can have it")]
    OwnMac(Mac),
    /// A route to an address instead of a network.
    #[error("{net} has host bits: write address='{}'", net.network())]
    RouteBits {
        /// The route's network.
        net: IpNet,
    },
    /// A route to the network's own subnet.
    #[error("{net} is in this network's own subnet {subnet}: remove the route")]
    RouteOwn {
        /// The route's network.
        net: IpNet,
        /// The subnet.
        subnet: IpNet,
    },
    /// A gateway that is in none of the network's subnets.
    #[error(
        "the gateway {0} is in no subnet of this network, so nothing reaches it: use a guest's address"
    )]
    Gateway(IpAddr),
    /// A gateway of the other protocol version.
    #[error("the gateway {gateway} cannot lead to {net}: both are IPv4, or both IPv6")]
    GatewayFamily {
        /// The gateway.
        gateway: IpAddr,
        /// The route's network.
        net: IpNet,
    },
    /// Two routes that are the same.
    #[error("another <route> leads to {0} with the same metric: remove one of them")]
    RouteTwice(IpNet),

    /// Another network has the name and another UUID.
    #[error(
        "the network {name} is there already, with the UUID {uuid}: remove <uuid> to keep it, or use another name"
    )]
    NameTaken {
        /// The name.
        name: NetworkName,
        /// The other's UUID.
        uuid: Uuid,
    },
    /// Another network has the UUID.
    #[error("the network {name} has the UUID {uuid} already: remove <uuid> and get another")]
    UuidTaken {
        /// The other's name.
        name: NetworkName,
        /// The UUID.
        uuid: Uuid,
    },
    /// Another network has the bridge.
    #[error("the network {name} has the bridge {bridge} already: use another name for the bridge")]
    BridgeTaken {
        /// The other's name.
        name: NetworkName,
        /// The bridge.
        bridge: InterfaceName,
    },
    /// Another network has the hardware address.
    #[error("the network {name} has the MAC address {mac} already: remove <mac> and get another")]
    MacTaken {
        /// The other's name.
        name: NetworkName,
        /// The address.
        mac: Mac,
    },
    /// Another network has addresses of the subnet.
    #[error("the subnet {subnet} overlaps {other} of the network {name}: use another subnet")]
    SubnetTaken {
        /// The other's name.
        name: NetworkName,
        /// The subnet.
        subnet: IpNet,
        /// The other's subnet.
        other: IpNet,
    },
}
