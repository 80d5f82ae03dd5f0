//! Decides which parts of a changed definition a running network can have at once.
//!
//! Rules and the files of dnsmasq can change while guests send. The bridge with its addresses and
//! routes cannot: a guest would lose its connections, or its router. These parts wait for the next
//! start.

use std::mem::discriminant;

use crate::network::{Network, check};

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
    // Parts of both networks need not fit together.
    match check(&live) {
        Ok(()) => (live, waiting),
        Err(_) => (old.clone(), vec!["the whole definition"]),
    }
}
