//! Writes the netdev of slirp, QEMU's user network (libslirp).
//!
//! The guest gets the same addresses and the same published ports as with passt, so a fallback to
//! slirp does not change the guest's configuration.

use super::draft::Draft;
use super::request::Family;
use crate::types::Publish;

/// Returns the value of `-netdev`.
pub(super) fn netdev(draft: &Draft) -> String {
    let nic = draft.nic;
    let mut netdev = format!("user,id={}", nic.id);
    let mut add = |part: String| {
        netdev.push(',');
        netdev.push_str(&part);
    };
    if let Some(addresses) = draft.addresses {
        add(format!("net={}", addresses.address.subnet()));
        add(format!("dhcpstart={}", addresses.address.address()));
        add(format!("host={}", addresses.gateway));
        add(format!("dns={}", addresses.dns));
    }
    match nic.family {
        // passt gives the guest no IPv6 if the host has none; slirp would announce a prefix.
        Family::Both if draft.context.facts.host.default_v6.is_none() => add("ipv6=off".into()),
        Family::Both => {}
        Family::V4 => add("ipv6=off".into()),
        Family::V6 => add("ipv4=off".into()),
    }
    for domain in &nic.search {
        add(format!("dnssearch={domain}"));
    }
    if let Some(hostname) = &nic.hostname {
        add(format!("hostname={hostname}"));
    }
    for publish in &nic.publish {
        forwards(publish).for_each(&mut add);
    }
    netdev
}

/// Returns a `hostfwd` for each port of a range, because the option takes one port only.
pub(super) fn forwards(publish: &Publish) -> impl Iterator<Item = String> + '_ {
    publish.host.ports().zip(publish.guest.ports()).map(|(host, guest)| {
        format!("hostfwd={}:{}:{host}-:{guest}", publish.protocol, publish.address)
    })
}
