//! A plan as the `<interface>` of a libvirt domain, for guests that libvirt starts.
//!
//! The element says what the plan says as far as libvirt's format can (its formatdomain page,
//! "Network interfaces"). libvirt forwards ports with the passt backend only, and chooses gateway
//! and DNS server itself; what cannot be said is left out, and [`unsaid`] names it.

use super::{Backend, Plan};
use crate::types::{Device, Publish};
use crate::xml::Tag;

/// The guest's card as libvirt's XML, with a newline at its end.
pub fn xml(plan: &Plan) -> String {
    let mac = Tag::new("mac").attribute("address", plan.mac);
    let model = model(&plan.device).map(|model| Tag::new("model").attribute("type", model));
    let mtu = plan.mtu.map(|mtu| Tag::new("mtu").attribute("size", mtu));
    let (kind, children) = match &plan.bridge {
        Some(bridge) => match &bridge.network {
            Some(name) => ("network", vec![Tag::new("source").attribute("network", name)]),
            None => ("bridge", vec![Tag::new("source").attribute("bridge", &bridge.bridge)]),
        },
        None => ("user", user(plan)),
    };
    Tag::new("interface")
        .attribute("type", kind)
        .children([mac])
        .children(children)
        .children(model)
        .children(mtu)
        .to_string()
}

/// What the plan has and the XML has not, a clause each.
pub fn unsaid(plan: &Plan) -> Vec<String> {
    let mut unsaid = Vec::new();
    if plan.backend == Backend::Slirp && !plan.publish.is_empty() {
        unsaid.push("published ports, which libvirt has for passt alone".to_owned());
    }
    if let (None, Device::Model(model)) = (model(&plan.device), &plan.device) {
        unsaid.push(format!("the card {model}, whose name libvirt does not take"));
    }
    if let Some(user) = &plan.user {
        unsaid.push(format!("the user {user}, which libvirt sets in its qemu.conf"));
    }
    unsaid
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
fn user(plan: &Plan) -> Vec<Tag> {
    let mut tags = Vec::new();
    if plan.backend == Backend::Passt {
        tags.push(Tag::new("backend").attribute("type", "passt"));
    }
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
