//! Whether the parts of a network go together, and networks with each other.
//!
//! Everything here would fail, or silently not work, when the network is started: in the kernel, in
//! dnsmasq, or for its guests. So it is refused when it is defined, and again before a start.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::model::{Client, Dhcp, DhcpHost, Forward, Ip, Network};
use super::places::Part;
use super::problem::{CheckError, Problem};
use crate::types::HostAddress;

type Result = std::result::Result<(), Problem>;

fn problem(part: Part, what: CheckError) -> Result {
    Err(Problem { part, what })
}

/// Checks that the parts of a network go together.
///
/// # Errors
/// The first [`Problem`].
pub fn check(network: &Network) -> Result {
    if let Some(mtu) = network.mtu {
        let (protocol, least) = if network.has_ipv6() { ("IPv6", 1280) } else { ("IPv4", 68) };
        if mtu < least {
            return problem(Part::Mtu, CheckError::Mtu { mtu, protocol, least });
        }
    }
    if network.bridge.delay > 30 {
        return problem(Part::Bridge, CheckError::Delay(network.bridge.delay));
    }
    for (index, ip) in network.ips.iter().enumerate() {
        check_ip(network, index, ip)?;
    }
    check_forward(network)?;
    check_routes(network)
}

fn check_forward(network: &Network) -> Result {
    let forward = &network.forward;
    if matches!(forward, Forward::Nat(_) | Forward::Route { .. }) && network.ips.is_empty() {
        return problem(Part::Forward, CheckError::NoAddress(forward.name()));
    }
    let Forward::Nat(nat) = forward else { return Ok(()) };
    let Some(range) = nat.addresses else { return Ok(()) };
    for address in [range.first(), range.last()] {
        if matches!(address.octets()[0], 0 | 127 | 224..) {
            return problem(Part::NatAddresses, CheckError::NatAddress(address.into()));
        }
    }
    for subnet in network.subnets() {
        if let IpNet::V4(v4) = subnet
            && range.first() <= v4.broadcast()
            && v4.network() <= range.last()
        {
            let range = range.to_string();
            return problem(Part::NatAddresses, CheckError::NatOwn { range, subnet });
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
                return problem(part, error.into());
            }
            8
        }
        IpAddr::V6(address) => {
            check_v6(part, address, prefix)?;
            4
        }
    };
    if ip.local_ptr && !prefix.is_multiple_of(step) {
        return problem(part, CheckError::LocalPtr { prefix, step });
    }
    let before = &network.ips[..index];
    for other in before.iter().map(|ip| ip.net.trunc()) {
        let subnet = ip.net.trunc();
        if overlap(&subnet, &other) {
            return problem(part, CheckError::OwnOverlap { subnet, other });
        }
    }
    let v6 = ip.net.addr().is_ipv6();
    if ip.tftp.is_some() {
        if v6 {
            return problem(Part::Tftp(index), CheckError::NotV6("<tftp>"));
        }
        if before.iter().any(|ip| ip.tftp.is_some()) {
            return problem(Part::Tftp(index), CheckError::Second("<tftp>"));
        }
    }
    let Some(dhcp) = &ip.dhcp else { return Ok(()) };
    if before.iter().any(|ip| ip.dhcp.is_some() && ip.net.addr().is_ipv6() == v6) {
        let kind = if v6 { "<dhcp> for IPv6" } else { "<dhcp> for IPv4" };
        return problem(Part::Dhcp(index), CheckError::Second(kind));
    }
    if v6 && prefix < 64 {
        return problem(Part::Dhcp(index), CheckError::DhcpPrefix(prefix));
    }
    if v6 && dhcp.bootp.is_some() {
        return problem(Part::Bootp(index), CheckError::NotV6("<bootp>"));
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
        _ if !(8..=126).contains(&prefix) => return problem(part, CheckError::Prefix6(prefix)),
        _ => return Ok(()),
    };
    problem(part, CheckError::Address6 { address, what })
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Checks that a guest of the subnet can have the address. IPv6 has no broadcast address, and its
/// network address is the routers' (RFC 4291, 2.6.1).
fn guest_address(part: Part, ip: &Ip, address: IpAddr) -> Result {
    let subnet = ip.net.trunc();
    if !subnet.contains(&address) {
        return problem(part, CheckError::Outside { address, subnet });
    }
    if address == ip.net.addr() {
        return problem(part, CheckError::Own(address));
    }
    let what = match address {
        a if a == subnet.network() => "network",
        a if a.is_ipv4() && a == subnet.broadcast() => "broadcast",
        _ => return Ok(()),
    };
    problem(part, CheckError::NoHost { address, what, subnet })
}

fn check_ranges(index: usize, ip: &Ip, dhcp: &Dhcp) -> Result {
    for (number, range) in dhcp.ranges.iter().enumerate() {
        let part = Part::Range(index, number);
        let (first, last, own) = (range.first, range.last, ip.net.addr());
        if first == own && last == own {
            return problem(part, CheckError::RangeOwn { own });
        }
        // A range may hold the bridge's own address: DhcpRange::without leaves the address out.
        for end in [first, last].into_iter().filter(|end| *end != own) {
            guest_address(part, ip, end)?;
        }
        if first > last {
            return problem(part, CheckError::Backwards { first, last });
        }
        for other in &dhcp.ranges[..number] {
            if first <= other.last && other.first <= last {
                let (other_first, other_last) = (other.first, other.last);
                return problem(part, CheckError::Ranges { first, last, other_first, other_last });
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
            |has, protocol, instead| problem(part, CheckError::Client { has, protocol, instead });
        match (&host.client, ip.net.addr().is_ipv6()) {
            (Client::Mac(..), true) => return client("mac", "DHCP for IPv6", "id"),
            (Client::Duid(..), false) => return client("id", "DHCP for IPv4", "mac"),
            (Client::Mac(mac, _), false) if *mac == network.mac => {
                return problem(part, CheckError::OwnMac(*mac));
            }
            _ => {}
        }
        guest_address(part, ip, host.ip)?;
        if let Some(other) = dhcp.hosts[..number].iter().find(|other| other.ip == host.ip) {
            check_shared(part, host, other)?;
        }
        let twice = client_text(host);
        if !seen.insert(twice.clone()) {
            return problem(part, CheckError::HostTwice(twice));
        }
    }
    Ok(())
}

/// Checks two hosts with one address: the network cards of one guest, known by their MAC addresses.
/// dnsmasq gives the address to one card at a time, with one name and one lease time.
fn check_shared(part: Part, host: &DhcpHost, other: &DhcpHost) -> Result {
    let (Client::Mac(..), Client::Mac(..)) = (&host.client, &other.client) else {
        return problem(part, CheckError::HostTwice(host.ip.to_string()));
    };
    let lower = |host: &DhcpHost| host.client.name().map(|n| n.as_str().to_ascii_lowercase());
    if lower(host) != lower(other) || host.lease != other.lease {
        return problem(part, CheckError::Shared(host.ip));
    }
    Ok(())
}

/// What a host is recognised by; names are compared as DNS does.
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
            return problem(part, CheckError::RouteBits { net });
        }
        if net.addr().is_ipv4() != gateway.is_ipv4() {
            return problem(part, CheckError::GatewayFamily { gateway, net });
        }
        if let Some(subnet) = network.subnets().find(|subnet| subnet.contains(&net)) {
            return problem(part, CheckError::RouteOwn { net, subnet });
        }
        let Some(ip) = network.ips.iter().find(|ip| ip.net.contains(&gateway)) else {
            return problem(part, CheckError::Gateway(gateway));
        };
        guest_address(part, ip, gateway)?;
        if !seen.insert((net, route.metric.map_or(1, std::num::NonZeroU32::get))) {
            return problem(part, CheckError::RouteTwice(net));
        }
    }
    Ok(())
}

/// Checks a network against others; one with the same name and UUID is the network itself.
///
/// # Errors
/// The first [`Problem`]; its part is one of `network`.
pub fn check_against<'a>(
    network: &Network,
    others: impl IntoIterator<Item = &'a Network>,
) -> Result {
    for other in others {
        let name = other.name.clone();
        match (network.name == other.name, network.uuid == other.uuid) {
            (true, true) => continue,
            (true, false) => {
                return problem(Part::Name, CheckError::NameTaken { name, uuid: other.uuid });
            }
            (false, true) => {
                return problem(Part::Uuid, CheckError::UuidTaken { name, uuid: other.uuid });
            }
            (false, false) => {}
        }
        if network.bridge.name == other.bridge.name {
            let bridge = other.bridge.name.clone();
            return problem(Part::Bridge, CheckError::BridgeTaken { name, bridge });
        }
        for (index, ip) in network.ips.iter().enumerate() {
            let subnet = ip.net.trunc();
            if let Some(other) = other.subnets().find(|other| overlap(&subnet, other)) {
                return problem(Part::Ip(index), CheckError::SubnetTaken { name, subnet, other });
            }
        }
        if network.mac == other.mac {
            return problem(Part::Mac, CheckError::MacTaken { name, mac: other.mac });
        }
    }
    Ok(())
}
