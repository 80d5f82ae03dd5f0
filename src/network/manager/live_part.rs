//! Decides which parts of a changed definition a running network can have at once.
//!
//! Rules and the files of dnsmasq can change while guests send. The bridge with its addresses and
//! routes cannot: a guest would lose its connections, or its router. These parts wait for the next
//! start.

use std::mem::discriminant;

use super::port::bridge_vlan;
use crate::network::{Network, PortGroup, check};

/// Returns the running network `old` with those parts of `new` that can change at once, and the
/// names of the parts that wait for the next start.
pub(super) fn live_part(old: &Network, new: &Network) -> (Network, Vec<&'static str>) {
    let mut live = new.clone();
    let mut waiting = Vec::new();
    let nets = |network: &Network| network.ips.iter().map(|ip| ip.net).collect::<Vec<_>>();
    if live.uuid != old.uuid {
        live.uuid = old.uuid;
        waiting.push("the UUID");
    }
    if discriminant(&live.forward) != discriminant(&old.forward) {
        live.forward = old.forward.clone();
        waiting.push("the forward mode");
    }
    if live.bridge != old.bridge {
        live.bridge = old.bridge.clone();
        waiting.push("the bridge");
    }
    if live.mac != old.mac {
        live.mac = old.mac;
        waiting.push("the MAC address");
    }
    if live.mtu != old.mtu {
        live.mtu = old.mtu;
        waiting.push("the MTU");
    }
    if nets(&live) != nets(old) {
        live.ips = old.ips.clone();
        waiting.push("the addresses with their DHCP servers");
    }
    if live.routes != old.routes {
        live.routes = old.routes.clone();
        waiting.push("the routes");
    }
    if live.port != old.port {
        live.port = old.port.clone();
        waiting.push("the properties of all ports");
    }
    if needs_vlans(old, &live) {
        live.port_groups = without_vlans(old, live.port_groups);
        waiting.push("the port groups with a VLAN");
    }
    // Parts of both networks need not fit together.
    match check(&live) {
        Ok(()) => (live, waiting),
        Err(_) => (old.clone(), vec!["the whole definition"]),
    }
}

/// Returns whether the change needs a bridge that separates VLANs, and the running bridge does not.
/// A bridge that begins to do so cuts off the guests that are on it.
pub(super) fn needs_vlans(old: &Network, new: &Network) -> bool {
    bridge_vlan(old).is_none() && bridge_vlan(new).is_some()
}

/// Returns the port groups of a network without VLANs: a group with a VLAN stays as it was in
/// `old`, or is left out, because guests of its VLAN must not be among the others.
fn without_vlans(old: &Network, groups: Vec<PortGroup>) -> Vec<PortGroup> {
    let running = |group: PortGroup| match group.port.vlan {
        None => Some(group),
        Some(_) => old.port_group(Some(&group.name)).cloned(),
    };
    groups.into_iter().filter_map(running).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: &str = "<network><name>lab</name>\
        <uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000076</uuid><forward mode='nat'/>\
        <bridge name='nlt0' stp='on' delay='0'/><mac address='52:54:00:00:00:76'/>\
        <ip address='10.76.0.1' netmask='255.255.255.0'><dhcp><range start='10.76.0.100' \
        end='10.76.0.200'/></dhcp></ip></network>";

    #[test]
    fn a_port_group_with_a_vlan_waits_if_the_bridge_has_no_vlans() {
        let network = |groups: &str| {
            let text = NETWORK.replace("</network>", &format!("{groups}</network>"));
            crate::network::parse(text.as_bytes(), None).unwrap().network
        };
        let (plain, vlan) =
            ("<portgroup name='a'/>", "<portgroup name='a'><vlan><tag id='5'/></vlan></portgroup>");
        let other = "<portgroup name='b'/>";
        let both = format!("{vlan}{other}");
        let both = both.as_str();
        let waits = &["the port groups with a VLAN"][..];
        for (old, new, lives, waiting) in [
            ("", vlan, "", waits),
            (plain, vlan, plain, waits),
            ("", both, other, waits),
            (vlan, both, both, &[]),
            (vlan, other, other, &[]),
        ] {
            let live = live_part(&network(old), &network(new));
            assert_eq!(live, (network(lives), waiting.to_vec()), "{old} {new}");
        }
    }

    #[test]
    fn the_bridge_and_its_addresses_wait_and_everything_else_changes_at_once() {
        let network = |xml: &str| crate::network::parse(xml.as_bytes(), None).unwrap().network;
        let old = network(NETWORK);
        for (from, to, waiting, changes) in [
            ("0.200'", "0.201'", &[][..], true),
            (
                "<forward mode='nat'/>",
                "<forward mode='nat'><interface dev='a'/></forward>",
                &[],
                true,
            ),
            ("<ip ", "<domain name='x'/><dns><txt name='a' value='b'/></dns><ip ", &[], true),
            ("</network>", "<portgroup name='x'/></network>", &[], true),
            ("<forward mode='nat'/>", "<forward mode='route'/>", &["the forward mode"], false),
            ("nlt0", "nlt1", &["the bridge"], false),
            ("stp='on'", "stp='off'", &["the bridge"], false),
            ("00:76'", "00:77'", &["the MAC address"], false),
            ("<ip ", "<mtu size='1400'/><ip ", &["the MTU"], false),
            ("10.76.0.1'", "10.76.0.2'", &["the addresses with their DHCP servers"], false),
            ("000076<", "000077<", &["the UUID"], false),
            (
                "</network>",
                "<route address='10.9.0.0' prefix='24' gateway='10.76.0.9'/></network>",
                &["the routes"],
                false,
            ),
        ] {
            let new = network(&NETWORK.replace(from, to));
            let (live, waits) = live_part(&old, &new);
            assert_eq!(waits, waiting, "{to}");
            assert_eq!(live == new, changes, "{to}");
            assert_eq!(live == old, !changes, "{to}");
        }
    }
}
