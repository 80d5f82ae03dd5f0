//! Writes a [`Network`] as libvirt's network XML.
//!
//! An attribute or element is left out if it has its default value, except for the values that
//! netlaunch chose itself (UUID, MAC address, bridge), which a later read must find. IPv4 subnets
//! are written with a netmask, IPv6 subnets with a prefix length, and lease times in seconds.
//!
//! `stp` is always written, because libvirt's default for it differs from netlaunch's.

use std::net::IpAddr;

use ipnet::IpNet;

use super::dnsmasq_option::DnsmasqOption;
use super::model::{
    Bridge, Client, Dhcp, DhcpHost, DhcpRange, Dns, DnsHost, Forward, Forwarder, Ip, Lease, Nat,
    Network, PortGroup, PortProperties, Route, Srv, Txt,
};
use super::xml::DNSMASQ;
use crate::types::{Bandwidth, InterfaceName, Rate, Vlan};
use crate::xml::Tag;

/// Returns the network as a document, with a newline at the end.
pub fn to_xml(network: &Network) -> String {
    let mut tags = vec![Tag::text("name", &network.name), Tag::text("uuid", network.uuid)];
    tags.extend(network.title.as_ref().map(|title| Tag::text("title", title)));
    tags.extend(network.description.as_ref().map(|text| Tag::text("description", text)));
    tags.extend(network.metadata.clone().map(|content| Tag::foreign("metadata", content)));
    tags.extend(forward(&network.forward));
    tags.push(bridge(&network.bridge, &network.forward));
    tags.extend(network.mtu.map(|mtu| Tag::new("mtu").attribute("size", mtu)));
    tags.extend(network.mac.map(|mac| Tag::new("mac").attribute("address", mac)));
    tags.extend(network.domain.as_ref().map(|domain| {
        let tag = Tag::new("domain").attribute("name", &domain.name);
        tag.optional("localOnly", yes(domain.local_only))
    }));
    tags.extend(Some(dns(&network.dns)).filter(|dns| !dns.is_empty()));
    tags.extend(port(&network.port));
    tags.extend(network.ips.iter().map(ip));
    tags.extend(network.routes.iter().map(route));
    tags.extend(network.port_groups.iter().map(port_group));
    let options = &network.dnsmasq_options;
    tags.extend((!options.is_empty()).then(|| dnsmasq_options(options)));
    Tag::new("network")
        .optional("xmlns:dnsmasq", (!options.is_empty()).then_some(DNSMASQ))
        .optional("ipv6", yes(network.ipv6))
        .optional("trustGuestRxFilters", trust(&network.port))
        .children(tags)
        .to_string()
}

/// Returns the value for an attribute whose default is `no`.
fn yes(value: bool) -> Option<&'static str> {
    value.then_some("yes")
}

/// Returns the value for an attribute whose default is `yes`.
fn no(value: bool) -> Option<&'static str> {
    (!value).then_some("no")
}

fn forward(forward: &Forward) -> Option<Tag> {
    let nat = match forward {
        Forward::Isolated => return None,
        Forward::Nat(nat) => Some(self::nat(nat)).filter(|nat| !nat.is_empty()),
        Forward::Route { .. } | Forward::Open | Forward::Bridge => None,
    };
    let tag = Tag::new("forward").optional("dev", forward.devs().first());
    let interfaces = forward.devs().iter().map(interface);
    Some(tag.attribute("mode", forward.name()).children(nat).children(interfaces))
}

/// Writes one `<interface>` of `<forward>`.
pub(super) fn interface(dev: &InterfaceName) -> Tag {
    Tag::new("interface").attribute("dev", dev)
}

fn nat(nat: &Nat) -> Tag {
    let addresses = nat.addresses.map(|range| {
        Tag::new("address").attribute("start", range.first()).attribute("end", range.last())
    });
    let ports = nat.ports.map(|range| {
        Tag::new("port").attribute("start", range.first()).attribute("end", range.last())
    });
    Tag::new("nat").optional("ipv6", yes(nat.ipv6)).children(addresses).children(ports)
}

fn bridge(bridge: &Bridge, forward: &Forward) -> Tag {
    let tag = Tag::new("bridge").attribute("name", &bridge.name);
    let manager = bridge.kernel_mac_table.then_some("kernel");
    if *forward == Forward::Bridge {
        // These are the host's; a check refuses a network that sets them.
        return tag
            .optional("zone", bridge.zone.as_ref())
            .optional("stp", bridge.stp.then_some("on"))
            .optional("delay", Some(bridge.delay).filter(|delay| *delay > 0))
            .optional("macTableManager", manager);
    }
    tag.optional("zone", bridge.zone.as_ref())
        .attribute("stp", if bridge.stp { "on" } else { "off" })
        .attribute("delay", bridge.delay)
        .optional("macTableManager", manager)
}

fn dns(dns: &Dns) -> Tag {
    let forwarders = dns.forwarders.iter().map(|forwarder| {
        let (domain, server) = match forwarder {
            Forwarder::All(server) => (None, Some(server)),
            Forwarder::Domain(domain, server) => (Some(domain), Some(server)),
            Forwarder::Host(domain) => (Some(domain), None),
        };
        Tag::new("forwarder")
            .optional("domain", domain)
            .optional("addr", server.map(|server| server.address))
            .optional("port", server.and_then(|server| server.port))
    });
    Tag::new("dns")
        .optional("enable", no(dns.enable))
        .optional("forwardPlainNames", no(dns.forward_plain_names))
        .children(forwarders)
        .children(dns.texts.iter().map(txt))
        .children(dns.services.iter().map(srv))
        .children(dns.hosts.iter().map(dns_host))
}

/// Writes one `<txt>` of `<dns>`.
pub(super) fn txt(txt: &Txt) -> Tag {
    Tag::new("txt").attribute("name", &txt.name).attribute("value", &txt.value)
}

/// Writes one `<host>` of `<dns>`.
pub(super) fn dns_host(host: &DnsHost) -> Tag {
    let names = host.names.iter().map(|name| Tag::text("hostname", name));
    Tag::new("host").attribute("ip", host.ip).children(names)
}

/// Writes one `<srv>` of `<dns>`.
pub(super) fn srv(srv: &Srv) -> Tag {
    let tag = Tag::new("srv")
        .attribute("service", &srv.service)
        .attribute("protocol", srv.protocol)
        .optional("domain", srv.domain.as_ref());
    let Some(target) = &srv.target else { return tag };
    let host = target.host.as_ref().map_or(".", |host| host.as_str());
    tag.attribute("target", host)
        .optional("port", target.port)
        .optional("priority", target.priority)
        .optional("weight", target.weight)
}

/// Makes an element with the attributes of a subnet; the address keeps its host bits.
fn subnet(name: &'static str, net: &IpNet) -> Tag {
    let tag = Tag::new(name);
    match net {
        IpNet::V4(net) => tag.attribute("address", net.addr()).attribute("netmask", net.netmask()),
        IpNet::V6(net) => tag
            .attribute("family", "ipv6")
            .attribute("address", net.addr())
            .attribute("prefix", net.prefix_len()),
    }
}

fn ip(ip: &Ip) -> Tag {
    let tftp = ip.tftp.as_ref().map(|root| Tag::new("tftp").attribute("root", root));
    subnet("ip", &ip.net)
        .optional("localPtr", yes(ip.local_ptr))
        .children(tftp)
        .children(ip.dhcp.as_ref().map(dhcp))
}

fn dhcp(dhcp: &Dhcp) -> Tag {
    let bootp = dhcp.bootp.as_ref().map(|bootp| {
        let tag = Tag::new("bootp").attribute("file", &bootp.file);
        tag.optional("server", bootp.server.as_ref())
    });
    Tag::new("dhcp")
        .children(dhcp.ranges.iter().map(dhcp_range))
        .children(dhcp.hosts.iter().map(dhcp_host))
        .children(bootp)
}

/// Writes one `<range>` of `<dhcp>`.
pub(super) fn dhcp_range(range: &DhcpRange) -> Tag {
    let tag = Tag::new("range").attribute("start", range.first).attribute("end", range.last);
    tag.children(lease(range.lease))
}

/// Writes one `<host>` of `<dhcp>`.
pub(super) fn dhcp_host(host: &DhcpHost) -> Tag {
    let tag = Tag::new("host");
    let tag = match &host.client {
        Client::Mac(mac, _) => tag.attribute("mac", mac),
        Client::Duid(duid, _) => tag.attribute("id", duid),
        Client::Name(_) => tag,
    };
    let tag = tag.optional("name", host.client.name()).attribute("ip", host.ip);
    tag.children(lease(host.lease))
}

fn lease(lease: Option<Lease>) -> Option<Tag> {
    let expiry = match lease? {
        Lease::Infinite => 0,
        Lease::Seconds(seconds) => seconds,
    };
    Some(Tag::new("lease").attribute("expiry", expiry).attribute("unit", "seconds"))
}

fn route(route: &Route) -> Tag {
    let gateway: IpAddr = route.gateway;
    subnet("route", &route.net).attribute("gateway", gateway).optional("metric", route.metric)
}

/// Returns the value of `trustGuestRxFilters`.
fn trust(port: &PortProperties) -> Option<&'static str> {
    port.trust_guest_rx_filters.map(|trust| if trust { "yes" } else { "no" })
}

/// Writes the elements that a network and a port group have alike, in libvirt's order.
fn port(port: &PortProperties) -> Vec<Tag> {
    let vlan = port.vlan.as_ref().map(vlan);
    let bandwidth = Some(bandwidth(&port.bandwidth)).filter(|tag| !tag.is_empty());
    let isolated = port.isolated.map(|isolated| {
        Tag::new("port").attribute("isolated", if isolated { "yes" } else { "no" })
    });
    vlan.into_iter().chain(bandwidth).chain(isolated).collect()
}

/// Writes one `<portgroup>`.
pub(super) fn port_group(group: &PortGroup) -> Tag {
    Tag::new("portgroup")
        .attribute("name", &group.name)
        .optional("default", yes(group.default))
        .optional("trustGuestRxFilters", trust(&group.port))
        .children(port(&group.port))
}

fn bandwidth(bandwidth: &Bandwidth) -> Tag {
    let rate = |name, rate: Rate| {
        Tag::new(name)
            .attribute("average", rate.average)
            .optional("peak", rate.peak)
            .optional("burst", rate.burst)
    };
    Tag::new("bandwidth")
        .children(bandwidth.inbound.map(|inbound| rate("inbound", inbound)))
        .children(bandwidth.outbound.map(|outbound| rate("outbound", outbound)))
}

fn vlan(vlan: &Vlan) -> Tag {
    let tag = |id| Tag::new("tag").attribute("id", id);
    match vlan {
        Vlan::Access(id) => Tag::new("vlan").children([tag(id)]),
        Vlan::Trunk { tags, native } => {
            let tags = tags.iter().map(|id| {
                let native = native.filter(|native| native.id == *id);
                let mode = native.map(|native| if native.tagged { "tagged" } else { "untagged" });
                tag(id).optional("nativeMode", mode)
            });
            Tag::new("vlan").attribute("trunk", "yes").children(tags)
        }
    }
}

fn dnsmasq_options(options: &[DnsmasqOption]) -> Tag {
    let option = |option| Tag::new("dnsmasq:option").attribute("value", option);
    Tag::new("dnsmasq:options").children(options.iter().map(option))
}
