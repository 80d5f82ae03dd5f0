//! Converts a network's definition to firewall rules, a dnsmasq configuration and kernel
//! settings.
//!
//! These are pure functions. The definition is in libvirt's terms, and the three results are in
//! the terms of the module that carries them out; a default that libvirt's format leaves open
//! is filled in here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;

use ipnet::IpNet;

use super::published::{self, PublishedGuest};
use crate::firewall::rules::{AddressRange, Mode, NetworkRules};
use crate::network::dnsmasq::{self as served, Boot, DhcpDns, Files, Range};
use crate::network::{self, Client, Forward, Forwarder, Ip, Network};
use crate::sys::netlink::sysctl::Key;

/// Why a definition cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The boot server is a name and not an address.
    #[error("the boot server {0} is a name, and guests need an address; write its IPv4 address")]
    BootServer(String),
}

/// Returns the network as the firewall needs it.
pub(super) fn rules(network: &Network) -> NetworkRules {
    let mode = match &network.forward {
        Forward::Isolated => Mode::Isolated,
        Forward::Route { devs } => Mode::Route { devs: devs.clone() },
        // The rules of an existing bridge belong to the host.
        Forward::Open | Forward::Bridge => Mode::Open,
        Forward::Nat(nat) => Mode::Nat {
            devs: nat.devs.clone(),
            addresses: nat.addresses.map(|range| AddressRange::V4(range.first(), range.last())),
            ports: nat.ports.map(|ports| ports.first()..=ports.last()),
            ipv6: nat.ipv6,
        },
    };
    NetworkRules {
        bridge: network.bridge.name.clone(),
        mode,
        subnets: network.ips.iter().map(|ip| ip.net).collect(),
        ipv6_between_guests: network.ipv6,
        dhcp: network.ips.iter().any(|ip| ip.dhcp.is_some()),
        dns: network.dns.enable && !network.ips.is_empty(),
        tftp: network.ips.iter().any(|ip| ip.tftp.is_some()),
    }
}

/// Returns the kernel settings that must be 1 for the network and for the ports that are published
/// to its guests.
pub(super) fn settings(network: &Network, published: &[PublishedGuest]) -> Vec<Key> {
    let forwards = matches!(network.forward, Forward::Nat(_) | Forward::Route { .. });
    let of_version = |v6: bool| network.ips.iter().any(|ip| ip.net.addr().is_ipv6() == v6);
    let has = |v6| forwards && of_version(v6) || published::needs_forwarding(published, v6);
    let wanted = [(has(false), Key::Ipv4Forwarding), (has(true), Key::Ipv6Forwarding)];
    wanted.into_iter().filter(|(wanted, _)| *wanted).map(|(_, key)| key).collect()
}

/// Returns the network as dnsmasq needs it; `None` if it has no DNS, no DHCP and no TFTP.
///
/// # Errors
/// [`ConfigError`] if the boot server is a name.
pub(super) fn served(network: &Network, files: Files) -> Result<Option<DhcpDns>, ConfigError> {
    let dhcp = || network.ips.iter().filter_map(|ip| ip.dhcp.as_ref());
    let isolated = network.forward == Forward::Isolated;
    let dns = (network.dns.enable && !network.ips.is_empty()).then(|| names(network, isolated));
    let mut ranges: Vec<Range> = network.ips.iter().flat_map(ranges).collect();
    // As in libvirt: without DNS and DHCP nothing is announced either. With
    // both off, the network has a router of its own, whose advertisements these would contradict.
    if dns.is_none() && ranges.iter().all(|range| matches!(range, Range::V6Announced { .. })) {
        ranges.clear();
    }
    let tftp_root = network.ips.iter().find_map(|ip| ip.tftp.as_ref());
    if dns.is_none() && ranges.is_empty() && tftp_root.is_none() {
        return Ok(None);
    }
    let boot = dhcp().find_map(|dhcp| dhcp.bootp.as_ref());
    let boot = boot.map(|bootp| {
        let server = bootp.server.as_ref().map(|server| {
            let address: Result<Ipv4Addr, _> = server.as_str().parse();
            address.map_err(|_| ConfigError::BootServer(server.to_string()))
        });
        Ok::<_, ConfigError>(Boot {
            file: bootp.file.as_str().to_owned(),
            server: server.transpose()?,
        })
    });
    Ok(Some(DhcpDns {
        interface: network.bridge.name.clone(),
        files,
        ranges,
        hosts: dhcp().flat_map(|dhcp| &dhcp.hosts).map(host).collect(),
        default_route: !isolated,
        mtu: network.mtu,
        domain: network.domain.as_ref().map(|domain| served::Domain {
            name: domain.name.clone(),
            local_only: domain.local_only,
        }),
        dns,
        tftp_root: tftp_root.map(|root| root.as_str().into()),
        boot: boot.transpose()?,
        options: network.dnsmasq_options.iter().map(ToString::to_string).collect(),
    }))
}

fn lease(lease: Option<network::Lease>) -> Option<served::Lease> {
    lease.map(|lease| match lease {
        network::Lease::Infinite => served::Lease::Infinite,
        network::Lease::Seconds(seconds) => served::Lease::Seconds(seconds),
    })
}

/// Returns the ranges that DHCP leases or router advertisements cover in one subnet.
fn ranges(ip: &Ip) -> Vec<Range> {
    let dhcp = ip.dhcp.as_ref();
    let listed = dhcp.map(|dhcp| dhcp.ranges.as_slice()).unwrap_or_default();
    let listed: Vec<_> = listed.iter().flat_map(|range| range.without(ip.net.addr())).collect();
    match ip.net {
        IpNet::V4(net) => {
            let netmask = net.netmask();
            let mut ranges: Vec<Range> = Vec::new();
            for range in &listed {
                if let (IpAddr::V4(start), IpAddr::V4(end)) = (range.first, range.last) {
                    ranges.push(Range::V4 { start, end, netmask, lease: lease(range.lease) });
                }
            }
            if dhcp.is_some_and(|dhcp| ranges.is_empty() && !dhcp.hosts.is_empty()) {
                ranges.push(Range::V4Hosts { subnet: net.network(), netmask });
            }
            ranges
        }
        IpNet::V6(net) => {
            let (subnet, prefix) = (net.network(), net.prefix_len());
            let mut ranges: Vec<Range> = Vec::new();
            for range in &listed {
                if let (IpAddr::V6(start), IpAddr::V6(end)) = (range.first, range.last) {
                    ranges.push(Range::V6 { start, end, prefix, lease: lease(range.lease) });
                }
            }
            match dhcp {
                _ if !ranges.is_empty() => {}
                Some(dhcp) if !dhcp.hosts.is_empty() => {
                    ranges.push(Range::V6Hosts { subnet, prefix })
                }
                // Guests create their own addresses only in a /64; in other subnets they are set by
                // hand.
                _ if prefix == 64 => ranges.push(Range::V6Announced { subnet, prefix }),
                _ => {}
            }
            ranges
        }
    }
}

fn host(host: &network::DhcpHost) -> served::DhcpHost {
    let (client, name) = match &host.client {
        Client::Mac(mac, name) => (served::Client::Mac(*mac), name.clone()),
        Client::Duid(duid, name) => {
            let pairs: Vec<String> = duid.octets().iter().map(|b| format!("{b:02x}")).collect();
            (served::Client::Duid(pairs.join(":")), name.clone())
        }
        Client::Name(name) => (served::Client::Name(name.clone()), None),
    };
    served::DhcpHost { client, address: Some(host.ip), name, lease: lease(host.lease) }
}

fn names(network: &Network, isolated: bool) -> served::Dns {
    let dns = &network.dns;
    let forwarder = |forwarder: &Forwarder| {
        let (domain, server) = match forwarder {
            Forwarder::All(server) => (None, Some(server)),
            Forwarder::Domain(domain, server) => (Some(domain.clone()), Some(server)),
            Forwarder::Host(domain) => (Some(domain.clone()), None),
        };
        let address = |server: &network::DnsServer| {
            SocketAddr::new(server.address, server.port.map_or(served::DNS_PORT, NonZeroU16::get))
        };
        served::Forwarder { domain, server: server.map(address) }
    };
    let service = |srv: &network::Srv| {
        let target = srv.target.as_ref();
        served::Srv {
            service: srv.service.as_str().to_owned(),
            protocol: srv.protocol.to_string(),
            domain: srv.domain.clone(),
            target: target.and_then(|t| t.host.clone()),
            port: target.and_then(|t| t.port).unwrap_or(1),
            priority: target.and_then(|t| t.priority).unwrap_or(0),
            weight: target.and_then(|t| t.weight).unwrap_or(0),
        }
    };
    let text = |txt: &network::Txt| served::Txt {
        name: txt.name.without_dot().to_owned(),
        value: txt.value.as_str().to_owned(),
    };
    let host =
        |host: &network::DnsHost| served::DnsHost { address: host.ip, names: host.names.clone() };
    served::Dns {
        hosts: dns.hosts.iter().map(host).collect(),
        srv: dns.services.iter().map(service).collect(),
        txt: dns.texts.iter().map(text).collect(),
        forwarders: dns.forwarders.iter().map(forwarder).collect(),
        host_servers: !isolated,
        forward_plain_names: dns.forward_plain_names,
    }
}
