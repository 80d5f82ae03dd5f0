//! Checks that the parts of a network fit together, and that networks fit beside each other.
//!
//! Each mistake found here would make the start of the network fail, or would silently not work, in
//! the kernel, in dnsmasq or in the guests. So a definition with such a mistake is refused, and a
//! start runs the checks again.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::check_error::{CheckError, CheckFailure};
use super::model::{Client, Dhcp, DhcpHost, Dns, Forward, Ip, Network};
use super::places::Part;
use super::values::PortGroupName;
use crate::types::{Bandwidth, HostAddress};

type Result = std::result::Result<(), CheckFailure>;

fn fail(part: Part, what: CheckError) -> Result {
    Err(CheckFailure { part, what })
}

/// Checks that the parts of a network fit together.
///
/// # Errors
/// The first [`CheckFailure`].
pub fn check(network: &Network) -> Result {
    check_limits(Part::Bandwidth, &network.port.bandwidth)?;
    check_port_groups(network)?;
    if network.forward == Forward::Bridge {
        return check_existing(network);
    }
    check_options(network)?;
    if let Some(mtu) = network.mtu {
        let (protocol, least) = if network.has_ipv6() { ("IPv6", 1280) } else { ("IPv4", 68) };
        if mtu < least {
            return fail(Part::Mtu, CheckError::Mtu { mtu, protocol, least });
        }
    }
    if network.bridge.delay > 30 {
        return fail(Part::Bridge, CheckError::Delay(network.bridge.delay));
    }
    for (index, ip) in network.ips.iter().enumerate() {
        check_ip(network, index, ip)?;
    }
    check_forward(network)?;
    check_routes(network)
}

/// Checks that a network on an existing bridge has nothing that would change the host. The host's
/// administrator makes the bridge and its addresses, and libvirt refuses the same parts.
fn check_existing(network: &Network) -> Result {
    let bridge = &network.bridge;
    let default = |dns: &Dns| *dns == Dns::default();
    let parts = [
        (Part::Mac, network.mac.is_some(), "<mac>"),
        (Part::Mtu, network.mtu.is_some(), "<mtu>"),
        (Part::Bridge, bridge.stp, "stp='on' of <bridge>"),
        (Part::Bridge, bridge.delay > 0, "delay of <bridge>"),
        (Part::Bridge, bridge.zone.is_some(), "zone of <bridge>"),
        (Part::Domain, network.domain.is_some(), "<domain>"),
        (Part::Dns, !default(&network.dns), "<dns>"),
        (Part::Ip(0), !network.ips.is_empty(), "<ip>"),
        (Part::Route(0), !network.routes.is_empty(), "<route>"),
        (Part::Bandwidth, !network.port.bandwidth.is_unlimited(), "<bandwidth> of the network"),
        (Part::DnsmasqOption(0), !network.dnsmasq_options.is_empty(), "<dnsmasq:options>"),
    ];
    match parts.into_iter().find(|(_, there, _)| *there) {
        Some((part, _, what)) => fail(part, CheckError::Existing { what }),
        None => Ok(()),
    }
}

/// Checks that the kernel can apply these limits exactly.
fn check_limits(part: Part, bandwidth: &Bandwidth) -> Result {
    bandwidth.check().or_else(|error| fail(part, CheckError::Bandwidth(error)))
}

fn check_port_groups(network: &Network) -> Result {
    let (mut names, mut default) = (BTreeSet::new(), None);
    for (index, group) in network.port_groups.iter().enumerate() {
        let part = Part::PortGroup(index);
        check_limits(part, &group.port.bandwidth)?;
        if !names.insert(&group.name) {
            return fail(part, CheckError::PortGroupTwice(group.name.clone()));
        }
        if let Some(other) = default.filter(|_| group.default) {
            return fail(part, CheckError::DefaultTwice(PortGroupName::clone(other)));
        }
        default = default.or(group.default.then_some(&group.name));
    }
    Ok(())
}

/// Checks that the network has a dnsmasq that can get the options. The option `dhcp-range` needs a
/// dnsmasq with a lease file, so the network must have DHCP.
fn check_options(network: &Network) -> Result {
    let leases = |dhcp: &Dhcp| !dhcp.ranges.is_empty() || !dhcp.hosts.is_empty();
    let dhcp = network.ips.iter().any(|ip| ip.dhcp.as_ref().is_some_and(leases));
    let served = dhcp
        || network.dns.enable && !network.ips.is_empty()
        || network.ips.iter().any(|ip| ip.tftp.is_some());
    match network.dnsmasq_options.iter().position(|option| option.name() == "dhcp-range") {
        Some(index) if !dhcp => fail(Part::DnsmasqOption(index), CheckError::RangeOption),
        _ if !served && !network.dnsmasq_options.is_empty() => {
            fail(Part::DnsmasqOption(0), CheckError::NoServer)
        }
        _ => Ok(()),
    }
}

fn check_forward(network: &Network) -> Result {
    let forward = &network.forward;
    if matches!(forward, Forward::Nat(_) | Forward::Route { .. }) && network.ips.is_empty() {
        return fail(Part::Forward, CheckError::NoAddress(forward.name()));
    }
    let Forward::Nat(nat) = forward else { return Ok(()) };
    let Some(range) = nat.addresses else { return Ok(()) };
    for address in [range.first(), range.last()] {
        if matches!(address.octets()[0], 0 | 127 | 224..) {
            return fail(Part::NatAddresses, CheckError::NatAddress(address.into()));
        }
    }
    for subnet in network.subnets() {
        if let IpNet::V4(v4) = subnet
            && range.first() <= v4.broadcast()
            && v4.network() <= range.last()
        {
            let range = range.to_string();
            return fail(Part::NatAddresses, CheckError::NatOwn { range, subnet });
        }
    }
    Ok(())
}

fn check_ip(network: &Network, index: usize, ip: &Ip) -> Result {
    let part = Part::Ip(index);
    let prefix = ip.net.prefix_len();
    let step = match ip.net.addr() {
        IpAddr::V4(address) => {
            if let Err(error) = HostAddress::new(address, prefix) {
                return fail(part, error.into());
            }
            8
        }
        IpAddr::V6(address) => {
            check_v6(part, address, prefix)?;
            4
        }
    };
    if ip.local_ptr && !prefix.is_multiple_of(step) {
        return fail(part, CheckError::LocalPtr { prefix, step });
    }
    let before = &network.ips[..index];
    for other in before.iter().map(|ip| ip.net.trunc()) {
        let subnet = ip.net.trunc();
        if overlap(&subnet, &other) {
            return fail(part, CheckError::OwnOverlap { subnet, other });
        }
    }
    let v6 = ip.net.addr().is_ipv6();
    if ip.tftp.is_some() {
        if v6 {
            return fail(Part::Tftp(index), CheckError::NotV6("<tftp>"));
        }
        if before.iter().any(|ip| ip.tftp.is_some()) {
            return fail(Part::Tftp(index), CheckError::Second("<tftp>"));
        }
    }
    let Some(dhcp) = &ip.dhcp else { return Ok(()) };
    if before.iter().any(|ip| ip.dhcp.is_some() && ip.net.addr().is_ipv6() == v6) {
        let kind = if v6 { "<dhcp> for IPv6" } else { "<dhcp> for IPv4" };
        return fail(Part::Dhcp(index), CheckError::Second(kind));
    }
    if v6 && prefix < 64 {
        return fail(Part::Dhcp(index), CheckError::DhcpPrefix(prefix));
    }
    if v6 && dhcp.bootp.is_some() {
        return fail(Part::Bootp(index), CheckError::NotV6("<bootp>"));
    }
    check_ranges(index, ip, dhcp)?;
    check_hosts(network, index, ip, dhcp)
}

fn check_v6(part: Part, address: Ipv6Addr, prefix: u8) -> Result {
    let what = match address {
        a if a.is_unspecified() => "the unspecified address",
        a if a.is_loopback() => "the loopback address",
        a if a.is_multicast() => "a multicast address",
        a if a.is_unicast_link_local() => "a link-local address, which every interface has anyway",
        a if a.to_ipv4_mapped().is_some() => "an IPv4 address in IPv6 form",
        _ if !(8..=126).contains(&prefix) => return fail(part, CheckError::Prefix6(prefix)),
        _ => return Ok(()),
    };
    fail(part, CheckError::Address6 { address, what })
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Checks that a guest in the subnet of `ip` can have the address.
///
/// IPv6 has no broadcast address. Its network address is the anycast address of the routers (RFC
/// 4291, 2.6.1), so a guest cannot have it.
fn guest_address(part: Part, ip: &Ip, address: IpAddr) -> Result {
    let subnet = ip.net.trunc();
    if !subnet.contains(&address) {
        return fail(part, CheckError::Outside { address, subnet });
    }
    if address == ip.net.addr() {
        return fail(part, CheckError::Own(address));
    }
    let what = match address {
        a if a == subnet.network() => "network",
        a if a.is_ipv4() && a == subnet.broadcast() => "broadcast",
        _ => return Ok(()),
    };
    fail(part, CheckError::NoHost { address, what, subnet })
}

fn check_ranges(index: usize, ip: &Ip, dhcp: &Dhcp) -> Result {
    for (number, range) in dhcp.ranges.iter().enumerate() {
        let part = Part::Range(index, number);
        let (first, last, own) = (range.first, range.last, ip.net.addr());
        if first == own && last == own {
            return fail(part, CheckError::RangeOwn { own });
        }
        // A range may contain the bridge's own address, because `DhcpRange::without` leaves it out.
        for end in [first, last].into_iter().filter(|end| *end != own) {
            guest_address(part, ip, end)?;
        }
        if first > last {
            return fail(part, CheckError::Backwards { first, last });
        }
        for other in &dhcp.ranges[..number] {
            if first <= other.last && other.first <= last {
                let (other_first, other_last) = (other.first, other.last);
                return fail(part, CheckError::Ranges { first, last, other_first, other_last });
            }
        }
    }
    Ok(())
}

fn check_hosts(network: &Network, index: usize, ip: &Ip, dhcp: &Dhcp) -> Result {
    let mut seen = BTreeSet::new();
    for (number, host) in dhcp.hosts.iter().enumerate() {
        let part = Part::Host(index, number);
        let client =
            |has, protocol, instead| fail(part, CheckError::Client { has, protocol, instead });
        match (&host.client, ip.net.addr().is_ipv6()) {
            (Client::Mac(..), true) => return client("mac", "DHCP for IPv6", "id"),
            (Client::Duid(..), false) => return client("id", "DHCP for IPv4", "mac"),
            (Client::Mac(mac, _), false) if Some(*mac) == network.mac => {
                return fail(part, CheckError::OwnMac(*mac));
            }
            _ => {}
        }
        guest_address(part, ip, host.ip)?;
        for other in dhcp.hosts[..number].iter().filter(|other| other.ip == host.ip) {
            check_shared(part, host, other)?;
        }
        let twice = client_text(host);
        if !seen.insert(twice.clone()) {
            return fail(part, CheckError::HostTwice(twice));
        }
    }
    Ok(())
}

/// Checks two hosts with the same IP address: both must be network cards of one guest, with MAC
/// addresses.
///
/// dnsmasq gives the address to one card at a time, with one name and one lease time. A host
/// without a name or a lease time shares that of the other host.
fn check_shared(part: Part, host: &DhcpHost, other: &DhcpHost) -> Result {
    let (Client::Mac(..), Client::Mac(..)) = (&host.client, &other.client) else {
        return fail(part, CheckError::HostTwice(host.ip.to_string()));
    };
    let lower = |host: &DhcpHost| host.client.name().map(|n| n.as_str().to_ascii_lowercase());
    if differ(&lower(host), &lower(other)) || differ(&host.lease, &other.lease) {
        return fail(part, CheckError::Shared(host.ip));
    }
    Ok(())
}

/// Returns whether both values are set and differ.
fn differ<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

/// Returns the attribute that identifies a host; a name is in lower case, because DNS ignores case.
fn client_text(host: &DhcpHost) -> String {
    match &host.client {
        Client::Mac(mac, _) => format!("mac='{mac}'"),
        Client::Duid(duid, _) => format!("id='{duid}'"),
        Client::Name(name) => format!("name='{}'", name.as_str().to_ascii_lowercase()),
    }
}

fn check_routes(network: &Network) -> Result {
    let mut seen = BTreeSet::new();
    for (index, route) in network.routes.iter().enumerate() {
        let part = Part::Route(index);
        let (net, gateway) = (route.net, route.gateway);
        if net != net.trunc() {
            return fail(part, CheckError::RouteBits { net });
        }
        if net.addr().is_ipv4() != gateway.is_ipv4() {
            return fail(part, CheckError::GatewayFamily { gateway, net });
        }
        if let Some(subnet) = network.subnets().find(|subnet| subnet.contains(&net)) {
            return fail(part, CheckError::RouteOwn { net, subnet });
        }
        let Some(ip) = network.ips.iter().find(|ip| ip.net.contains(&gateway)) else {
            return fail(part, CheckError::Gateway(gateway));
        };
        guest_address(part, ip, gateway)?;
        if !seen.insert((net, route.metric.map_or(1, std::num::NonZeroU32::get))) {
            return fail(part, CheckError::RouteTwice(net));
        }
    }
    Ok(())
}

/// Checks a network against other networks. One with the same name and UUID is the network itself
/// and is skipped.
///
/// # Errors
/// The first [`CheckFailure`]; its part is a part of `network`.
pub fn check_against<'a>(
    network: &Network,
    others: impl IntoIterator<Item = &'a Network>,
) -> Result {
    for other in others {
        let name = other.name.clone();
        match (network.name == other.name, network.uuid == other.uuid) {
            (true, true) => continue,
            (true, false) => {
                return fail(Part::Name, CheckError::NameTaken { name, uuid: other.uuid });
            }
            (false, true) => {
                return fail(Part::Uuid, CheckError::UuidTaken { name, uuid: other.uuid });
            }
            (false, false) => {}
        }
        if network.bridge.name == other.bridge.name {
            let bridge = other.bridge.name.clone();
            return fail(Part::Bridge, CheckError::BridgeTaken { name, bridge });
        }
        for (index, ip) in network.ips.iter().enumerate() {
            let subnet = ip.net.trunc();
            if let Some(other) = other.subnets().find(|other| overlap(&subnet, other)) {
                return fail(Part::Ip(index), CheckError::SubnetTaken { name, subnet, other });
            }
        }
        if let Some(mac) = network.mac.filter(|_| network.mac == other.mac) {
            return fail(Part::Mac, CheckError::MacTaken { name, mac });
        }
    }
    Ok(())
}
