//! The netdev of QEMU's user network (libslirp).

use super::{Draft, Family};
use crate::types::Publish;

/// The value of `-netdev`: the same addresses as passt gives, and the same published ports.
pub(super) fn netdev(draft: &Draft) -> String {
    let request = draft.request;
    let mut netdev = format!("user,id={}", request.id);
    let mut add = |part: String| {
        netdev.push(',');
        netdev.push_str(&part);
    };
    if let Some(view) = draft.view {
        add(format!("net={}", view.address.subnet()));
        add(format!("dhcpstart={}", view.address.address()));
        add(format!("host={}", view.gateway));
        add(format!("dns={}", view.dns));
    }
    match request.family {
        // passt gives no IPv6 where the host has none; slirp would announce a prefix all the same.
        Family::Both if draft.facts.host.default_v6.is_none() => add("ipv6=off".into()),
        Family::Both => {}
        Family::V4 => add("ipv6=off".into()),
        Family::V6 => add("ipv4=off".into()),
    }
    for domain in &request.search {
        add(format!("dnssearch={domain}"));
    }
    if let Some(hostname) = &request.hostname {
        add(format!("hostname={hostname}"));
    }
    for publish in &request.publish {
        forwards(publish).for_each(&mut add);
    }
    netdev
}

/// `hostfwd` takes one port, so a range becomes one each.
fn forwards(publish: &Publish) -> impl Iterator<Item = String> + '_ {
    publish.host.ports().zip(publish.guest.ports()).map(|(host, guest)| {
        format!("hostfwd={}:{}:{host}-:{guest}", publish.protocol, publish.address)
    })
}
