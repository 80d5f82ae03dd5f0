//! Writes a [`Network`] as libvirt's network XML.
//!
//! An attribute or element is left out if it has its default value, except for the values that
//! netlaunch chose itself (UUID, MAC address, bridge), which a later read must find. IPv4 subnets
//! are written with a netmask, IPv6 subnets with a prefix length, and lease times in seconds.
//!
//! `stp` is always written, because libvirt's default for it differs from netlaunch's.

use std::net::IpAddr;

use ipnet::IpNet;

use super::model::{
    Bridge, Client, Dhcp, Dns, Forward, Forwarder, Ip, Lease, Nat, Network, Route, Srv,
};
use crate::xml::Tag;

/// Returns the network as a document, with a newline at the end.
pub fn to_xml(network: &Network) -> String {
    let mut tags = vec![Tag::text("name", &network.name), Tag::text("uuid", network.uuid)];
    tags.extend(forward(&network.forward));
    tags.push(bridge(&network.bridge));
    tags.extend(network.mtu.map(|mtu| Tag::new("mtu").attribute("size", mtu)));
    tags.push(Tag::new("mac").attribute("address", network.mac));
    tags.extend(network.domain.as_ref().map(|domain| {
        let tag = Tag::new("domain").attribute("name", &domain.name);
        tag.optional("localOnly", yes(domain.local_only))
    }));
    tags.extend(Some(dns(&network.dns)).filter(|dns| !dns.is_empty()));
    tags.extend(network.ips.iter().map(ip));
    tags.extend(network.routes.iter().map(route));
    Tag::new("network").optional("ipv6", yes(network.ipv6)).children(tags).to_string()
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
        Forward::Route { .. } | Forward::Open => None,
    };
    let tag = Tag::new("forward").optional("dev", forward.dev());
    Some(tag.attribute("mode", forward.name()).children(nat))
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

fn bridge(bridge: &Bridge) -> Tag {
    Tag::new("bridge")
        .attribute("name", &bridge.name)
        .optional("zone", bridge.zone.as_ref())
        .attribute("stp", if bridge.stp { "on" } else { "off" })
        .attribute("delay", bridge.delay)
}

fn dns(dns: &Dns) -> Tag {
    let forwarders = dns.forwarders.iter().map(|forwarder| {
        let (domain, addr) = match forwarder {
            Forwarder::All(addr) => (None, Some(addr)),
            Forwarder::Domain(domain, addr) => (Some(domain), Some(addr)),
            Forwarder::Host(domain) => (Some(domain), None),
        };
        Tag::new("forwarder").optional("domain", domain).optional("addr", addr)
    });
    let texts = dns
        .texts
        .iter()
        .map(|txt| Tag::new("txt").attribute("name", &txt.name).attribute("value", &txt.value));
    let hosts = dns.hosts.iter().map(|host| {
        let names = host.names.iter().map(|name| Tag::text("hostname", name));
        Tag::new("host").attribute("ip", host.ip).children(names)
    });
    Tag::new("dns")
        .optional("enable", no(dns.enable))
        .optional("forwardPlainNames", no(dns.forward_plain_names))
        .children(forwarders)
        .children(texts)
        .children(dns.services.iter().map(srv))
        .children(hosts)
}

fn srv(srv: &Srv) -> Tag {
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
    let ranges = dhcp.ranges.iter().map(|range| {
        let tag = Tag::new("range").attribute("start", range.first).attribute("end", range.last);
        tag.children(lease(range.lease))
    });
    let hosts = dhcp.hosts.iter().map(|host| {
        let tag = Tag::new("host");
        let tag = match &host.client {
            Client::Mac(mac, _) => tag.attribute("mac", mac),
            Client::Duid(duid, _) => tag.attribute("id", duid),
            Client::Name(_) => tag,
        };
        let tag = tag.optional("name", host.client.name()).attribute("ip", host.ip);
        tag.children(lease(host.lease))
    });
    let bootp = dhcp.bootp.as_ref().map(|bootp| {
        let tag = Tag::new("bootp").attribute("file", &bootp.file);
        tag.optional("server", bootp.server.as_ref())
    });
    Tag::new("dhcp").children(ranges).children(hosts).children(bootp)
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
