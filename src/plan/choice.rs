//! Which backends can serve a request on this host, and why the others cannot.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::request::{AddressChoice, Backend, Request, Transport};
use super::{Family, bridge, passt_args, view};
use crate::facts::{Facts, Problem};

/// A backend, whether it can serve, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The backend.
    pub backend: Backend,
    /// Whether it can serve the request.
    pub usable: bool,
    /// Why, or why not.
    pub why: String,
    /// What would make it usable; absent when it is.
    pub fix: Option<String>,
}

/// The largest MTU that slirp's frames have.
const SLIRP_MTU: u16 = 1500;

/// Judges every backend for `request`, the preferred one first; the bridge is last, and only chosen
/// where it is named. A request that names no bridge is judged for any.
pub fn candidates(request: &Request, facts: &Facts) -> Vec<Candidate> {
    let judged = [
        (Backend::Passt, passt(request, facts)),
        (Backend::Slirp, slirp(request, facts)),
        (Backend::Bridge, bridge::judge(request, facts)),
    ];
    judged
        .into_iter()
        .map(|(backend, judged)| match judged {
            Ok(why) => Candidate { backend, usable: true, why, fix: None },
            Err(Problem { why, fix }) => Candidate { backend, usable: false, why, fix: Some(fix) },
        })
        .collect()
}

fn passt(request: &Request, facts: &Facts) -> Result<String, Problem> {
    let passt = &facts.passt;
    let no = |why: &str, fix: &str| Err(Problem::new(why, fix));
    if let Some(problem) = passt.problem.as_ref().or(facts.qemu.problem.as_ref()) {
        return Err(problem.clone());
    }
    let vhost_user = request.transport == Some(Transport::VhostUser);
    let (netdev, option) = match request.transport {
        Some(Transport::VhostUser) => ("vhost-user", Some("vhost-user")),
        Some(Transport::Fd) => ("stream", Some("fd")),
        _ => ("stream", None),
    };
    if !facts.qemu.netdevs.contains(netdev) {
        return no(
            &format!("this QEMU has no {netdev} netdev"),
            if vhost_user { "use --transport unix" } else { "use QEMU 7.2 or later, or slirp" },
        );
    }
    for needed in ["foreground", "socket", "pid", "address", "netmask", "gateway"] {
        if !passt.has(needed) {
            return no(&format!("this passt has no --{needed}"), "install a newer passt");
        }
    }
    if facts.host.root && !passt.has("runas") {
        return no(
            "this passt has no --runas, so root's would run as a user that other programs share",
            "install a newer passt, or run netlaunch as an ordinary user",
        );
    }
    if let Some(option) = option.filter(|o| !passt.has(o)) {
        return no(
            &format!("this passt has no --{option}"),
            "install a newer passt, or use --transport unix",
        );
    }
    let view = view(request, facts, &mut Vec::new()).ok().flatten();
    let forwards = request.dns.is_some() && request.dns == view.map(|view| IpAddr::V4(view.dns));
    if forwards && passt_args::forwarded_to(facts).is_none() {
        return no(
            "this passt, on this host, cannot forward queries from an address of the guest's subnet",
            "drop --dns, or name a server outside of the guest's subnet",
        );
    }
    if request.hostname.is_some() && !passt.has("hostname") {
        return no("this passt has no --hostname", "install a newer passt, or drop --hostname");
    }
    let closes = passt.has("map-host-loopback") || passt.has("no-map-gw");
    if !request.host_loopback && !closes {
        return no(
            "this passt cannot keep the guest from the host's loopback services",
            "install a newer passt, or drop --no-host-loopback",
        );
    }
    let host = &facts.host;
    if let (Some(why), None) = (&host.unknown, &request.interface)
        && !passt.has("map-guest-addr")
    {
        let why = format!("the host's routes are not known: {why}");
        return no(&why, "mount /proc, name an interface with --interface, or use slirp");
    }
    let routed = host.default_v4.is_some() || host.default_v6.is_some();
    // A passt that knows --map-guest-addr has a local mode for hosts without a route.
    if request.interface.is_none() && !routed && !passt.has("map-guest-addr") {
        return no(
            "the host has no default route, from which passt takes its addresses",
            "set one, name an interface with --interface, or use slirp",
        );
    }
    let path = passt.path.as_deref().unwrap_or("passt".as_ref()).display();
    Ok(format!("{path} and QEMU's {netdev} netdev"))
}

fn slirp(request: &Request, facts: &Facts) -> Result<String, Problem> {
    let no = |why: &str, fix: &str| Err(Problem::new(why, fix));
    if let Some(problem) = &facts.qemu.problem {
        return Err(problem.clone());
    }
    if !facts.qemu.netdevs.contains("user") {
        return no(
            "this QEMU is built without slirp (it has no user netdev)",
            "install a QEMU built with libslirp, or passt",
        );
    }
    if request.address == AddressChoice::Host {
        return no("slirp cannot give the guest the host's addresses", "drop --address host");
    }
    let view = view(request, facts, &mut Vec::new()).ok().flatten();
    if view.is_some_and(|view| view.dns == view.gateway) {
        return no(
            "slirp needs a DNS server's address beside the gateway's",
            "use --address with a prefix length of 29 or less, or another --dns",
        );
    }
    let forwarder = view.map(|view| IpAddr::V4(view.dns));
    if request.dns.is_some() && request.dns != forwarder {
        return no(
            "slirp can only announce a DNS server of the guest's own subnet",
            "drop --dns: the guest then uses the host's resolver",
        );
    }
    if request.interface.is_some() {
        return no("slirp cannot be bound to an interface", "drop --interface");
    }
    if !request.host_loopback {
        return no(
            "slirp in QEMU cannot keep the guest from the host's loopback services",
            "drop --no-host-loopback",
        );
    }
    if let Some(publish) = request.publish.iter().find(|p| p.address.is_ipv6()) {
        return no(
            &format!("slirp cannot publish on an IPv6 address ({publish})"),
            "publish on an IPv4 address",
        );
    }
    if request.family == Family::V6 && !request.publish.is_empty() {
        return no("slirp cannot publish a port of a guest without IPv4", "drop --ipv6-only");
    }
    match request.mtu {
        Some(mtu) if mtu > SLIRP_MTU => {
            return no(&format!("slirp has no frames of {mtu} bytes"), "use --mtu 1500 or less");
        }
        Some(_) if !request.device.is_virtio() => {
            return no(
                "slirp can set the MTU of virtio cards only",
                "drop --mtu, or use --device virtio-net-pci",
            );
        }
        _ => {}
    }
    Ok("QEMU's user netdev".to_owned())
}
