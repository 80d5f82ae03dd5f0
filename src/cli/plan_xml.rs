//! A plan as the `<interface>` of a libvirt domain, for guests that libvirt starts.
//!
//! The element says what the plan says as far as libvirt's format can (its formatdomain page,
//! "Network interfaces"). libvirt forwards ports and names an interface with the passt backend only,
//! and chooses gateway and DNS server itself; what cannot be said is left out, and [`unsaid`] names
//! it.

use super::{Backend, Family, GuestFilter, Plan, Request, Transport};
use crate::nwfilter::Parameter;
use crate::types::{Device, Publish};
use crate::xml::Tag;

/// The guest's card as libvirt's XML, with a newline at its end. `plan` is that of `request`.
pub fn xml(request: &Request, plan: &Plan) -> String {
    let mac = Tag::new("mac").attribute("address", plan.mac);
    let model = model(&request.device).map(|model| Tag::new("model").attribute("type", model));
    let mtu = request.mtu.map(|mtu| Tag::new("mtu").attribute("size", mtu));
    let (kind, children) = match &plan.bridge {
        Some(bridge) => match &bridge.network {
            Some(name) => ("network", vec![Tag::new("source").attribute("network", name)]),
            None => ("bridge", vec![Tag::new("source").attribute("bridge", &bridge.bridge)]),
        },
        // libvirt 12 starts passt with --vhost-user for this type and backend.
        None if plan.transport == Some(Transport::VhostUser) => ("vhostuser", user(request, plan)),
        None => ("user", user(request, plan)),
    };
    Tag::new("interface")
        .attribute("type", kind)
        .children([mac])
        .children(children)
        .children(model)
        .children(mtu)
        .children(request.filter.as_ref().map(filter))
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

/// The options of the request that the XML has nothing for.
pub fn unsaid(request: &Request, plan: &Plan) -> Vec<&'static str> {
    let passt = plan.backend == Backend::Passt;
    let options = [
        (!passt && !request.publish.is_empty(), "--publish"),
        (!request.host_loopback, "--no-host-loopback"),
        (request.gateway.is_some(), "--gateway"),
        (request.dns.is_some(), "--dns"),
        (!request.search.is_empty(), "--search"),
        (!passt && request.hostname.is_some(), "--hostname"),
        (request.family == Family::V4, "--ipv4-only"),
        (request.family == Family::V6, "--ipv6-only"),
        (
            matches!(request.device, Device::Model(_)) && model(&request.device).is_none(),
            "--device",
        ),
        (request.pcap.is_some(), "--pcap"),
        (request.user.is_some(), "--user"),
    ];
    options.into_iter().filter(|(given, _)| *given).map(|(_, option)| option).collect()
}

/// libvirt's word for the card; it makes a virtio card of the machine's own bus.
fn model(device: &Device) -> Option<&str> {
    match device {
        Device::Model(_) if device.is_virtio() => Some("virtio"),
        Device::Model(name) => Some(name.as_str()).filter(|name| !name.contains('.')),
        Device::None => None,
    }
}

/// The elements of a user-mode network.
fn user(request: &Request, plan: &Plan) -> Vec<Tag> {
    let mut tags = Vec::new();
    if plan.backend == Backend::Passt {
        // passt's --hostname; libvirt has this attribute since version 12.
        let hostname = request.hostname.as_ref();
        tags.push(Tag::new("backend").attribute("type", "passt").optional("hostname", hostname));
    }
    let interface = request.interface.as_ref();
    tags.extend(interface.map(|name| Tag::new("source").attribute("dev", name)));
    tags.extend(plan.view.map(|view| {
        Tag::new("ip")
            .attribute("family", "ipv4")
            .attribute("address", view.address.address())
            .attribute("prefix", view.address.subnet().prefix_len())
    }));
    if plan.backend == Backend::Passt {
        tags.extend(plan.publish.iter().map(forward));
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
