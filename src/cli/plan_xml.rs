//! A plan as `<interface>` elements of a libvirt domain, one for each NIC, for guests that libvirt
//! starts.
//!
//! An element has the settings of the plan that libvirt's format has (its formatdomain page,
//! "Network interfaces"). libvirt forwards ports and names an interface with the passt backend
//! only, and chooses gateway and DNS server itself. [`missing_in_xml`] names the settings that
//! the elements leave out.

use crate::launcher::plan::{Backend, Family, GuestFilter, NicPlan, Origin, Plan, Transport};
use crate::types::{Bandwidth, Device, GuestAddresses, Parameter, Publish, Rate};
use crate::xml::Tag;

/// The guest's cards as libvirt's XML, with a newline at the end of each.
pub fn xml(plan: &Plan) -> String {
    plan.nics.iter().map(interface).collect()
}

fn interface(nic: &NicPlan) -> String {
    let mac = nic.mac.map(|mac| Tag::new("mac").attribute("address", mac));
    let model = model(nic).map(|model| Tag::new("model").attribute("type", model));
    let mtu = nic.request.mtu.map(|mtu| Tag::new("mtu").attribute("size", mtu));
    let (kind, children) = match &nic.bridge {
        Some(bridge) => match &bridge.network {
            Some(name) => ("network", {
                let group = nic.request.port_group.as_ref();
                let source = Tag::new("source").attribute("network", name);
                vec![source.optional("portgroup", group)]
            }),
            None => ("bridge", vec![Tag::new("source").attribute("bridge", &bridge.bridge)]),
        },
        // libvirt 12 starts passt with --vhost-user for this type and backend.
        None if nic.transport == Some(Transport::VhostUser) => ("vhostuser", user(nic)),
        None => ("user", user(nic)),
    };
    Tag::new("interface")
        .attribute("type", kind)
        .children(mac)
        .children(children)
        .children(model)
        .children(mtu)
        .children(nic.request.filter.as_ref().map(filter))
        .children(nic.request.bandwidth.as_ref().map(bandwidth))
        .to_string()
}

fn filter(filter: &GuestFilter) -> Tag {
    let parameter = |(name, value): &Parameter| {
        Tag::new("parameter").attribute("name", name).attribute("value", value)
    };
    Tag::new("filterref")
        .attribute("filter", &filter.name)
        .children(filter.parameters.iter().map(parameter))
}

fn bandwidth(bandwidth: &Bandwidth) -> Tag {
    let limit = |name, rate: Rate| {
        Tag::new(name)
            .attribute("average", rate.average)
            .optional("peak", rate.peak)
            .optional("burst", rate.burst)
    };
    Tag::new("bandwidth")
        .children(bandwidth.inbound.map(|rate| limit("inbound", rate)))
        .children(bandwidth.outbound.map(|rate| limit("outbound", rate)))
}

/// Returns a line for each part of the plan that the XML lacks.
///
/// The element of an adopted network has no model, because the card is the caller's. The element of
/// a network that stays on slirp has none of the network's parameters.
pub fn missing_in_xml(plan: &Plan) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let nothing =
        |option| format!("{option} is not in this XML: libvirt's format has nothing for it");
    for nic in &plan.nics {
        let own = match &nic.origin {
            Origin::Adopted { written, .. } => vec![format!(
                "no card model is in this XML for {written}: add libvirt's element model"
            )],
            Origin::Left { written, .. } => vec![format!(
                "{written} is in this XML without its parameters: compare libvirt's user network with it"
            )],
            _ => Vec::new(),
        };
        let is_left = matches!(nic.origin, Origin::Left { .. });
        let options = unsupported_of_nic(nic).into_iter().filter(|_| !is_left).map(nothing);
        for line in options.chain(own) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines.extend(plan.user.as_ref().map(|_| nothing("--user")));
    lines
}

fn unsupported_of_nic(nic: &NicPlan) -> Vec<&'static str> {
    let (passt, request) = (nic.backend == Backend::Passt, &nic.request);
    let options = [
        (!passt && !request.publish.is_empty(), "--publish"),
        (!request.host_loopback, "--no-host-loopback"),
        (has_own_gateway(nic), "--gateway"),
        (request.dns.is_some(), "--dns"),
        (!request.search.is_empty(), "--search"),
        (!passt && request.hostname.is_some(), "--hostname"),
        (request.family == Family::V4, "--ipv4-only"),
        (request.family == Family::V6, "--ipv6-only"),
        (matches!(request.device, Device::Model(_)) && model(nic).is_none(), "--device"),
        (request.pcap.is_some(), "--pcap"),
    ];
    options.into_iter().filter(|(given, _)| *given).map(|(_, option)| option).collect()
}

/// Returns whether the guest's gateway is another one than that of its subnet by default.
fn has_own_gateway(nic: &NicPlan) -> bool {
    let usual = |addresses: &GuestAddresses| GuestAddresses::new(addresses.address, None, None);
    nic.addresses.is_some_and(|own| usual(&own).is_ok_and(|usual| usual.gateway != own.gateway))
}

/// libvirt's word for a card that netlaunch adds; it makes a virtio card of the machine's own bus.
fn model(nic: &NicPlan) -> Option<&str> {
    let device = &nic.request.device;
    match device {
        _ if nic.origin != Origin::Added => None,
        Device::Model(_) if device.is_virtio() => Some("virtio"),
        Device::Model(name) => Some(name.as_str()).filter(|name| !name.contains('.')),
        Device::None => None,
    }
}

/// The elements of a user-mode network.
fn user(nic: &NicPlan) -> Vec<Tag> {
    let mut tags = Vec::new();
    if nic.backend == Backend::Passt {
        // passt's --hostname; libvirt has this attribute since version 12.
        let hostname = nic.request.hostname.as_ref();
        tags.push(Tag::new("backend").attribute("type", "passt").optional("hostname", hostname));
    }
    let interface = nic.request.interface.as_ref();
    tags.extend(interface.map(|name| Tag::new("source").attribute("dev", name)));
    tags.extend(nic.addresses.map(|addresses| {
        Tag::new("ip")
            .attribute("family", "ipv4")
            .attribute("address", addresses.address.address())
            .attribute("prefix", addresses.address.subnet().prefix_len())
    }));
    if nic.backend == Backend::Passt {
        tags.extend(nic.publish.iter().map(forward));
    }
    tags
}

fn forward(publish: &Publish) -> Tag {
    let (mut host, mut guest) = (publish.host.ports(), publish.guest.ports());
    let first = host.next().unwrap_or_default();
    let range = Tag::new("range")
        .attribute("start", first)
        .optional("end", host.last())
        .optional("to", guest.next().filter(|to| *to != first));
    Tag::new("portForward")
        .attribute("proto", publish.protocol)
        .attribute("address", publish.address)
        .children([range])
}
