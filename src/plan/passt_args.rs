//! passt's command line.
//!
//! Options are spelt long and each in its own argument, so that a log line can be read and pasted.
//! `--mac-addr` is never given: it sets the gateway's address, not the guest's (libvirt once gave
//! both the same). `--one-off` is left out with `--fd`, which ends with its peer anyway and which
//! Debian 12's passt refuses together with it (measured).

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::Path;

use super::{AddressChoice, Draft, Family, Transport};
use crate::facts::Facts;
use crate::types::{GuestView, Protocol, Publish};

/// The whole argument vector.
pub(super) fn argv(
    draft: &Draft,
    program: &Path,
    socket: Option<&Path>,
    fd: Option<RawFd>,
    pid: &Path,
    transport: Transport,
) -> Vec<OsString> {
    let (request, passt) = (draft.request, &draft.facts.passt);
    let mut argv = Argv(vec![program.into()]);
    argv.flag("foreground");
    // Without the option root's passt becomes nobody, which other programs share.
    if let Some(user) = draft.particulars.passt_user {
        argv.option("runas", user.to_string());
    }
    if transport == Transport::VhostUser {
        argv.flag("vhost-user");
    }
    if let Some(fd) = fd {
        argv.option("fd", fd.to_string());
    } else if passt.has("one-off") {
        argv.flag("one-off");
    }
    if let Some(socket) = socket {
        argv.option("socket", socket);
    }
    // Where a security profile forbids passt the file, netlaunch alone writes it.
    if passt.confinement.as_ref().is_none_or(|profile| profile.allows(pid)) {
        argv.option("pid", pid);
    }
    if let Some(view) = draft.view {
        argv.option("address", view.address.address().to_string());
        argv.option("netmask", view.address.subnet().prefix_len().to_string());
        argv.option("gateway", view.gateway.to_string());
    }
    dns(draft, &mut argv);
    for domain in &request.search {
        argv.option("search", domain.as_str());
    }
    // passt would copy the host's search domains, which slirp does not.
    if request.search.is_empty() && request.address != AddressChoice::Host && passt.has("search") {
        argv.option("search", "none");
    }
    if let Some(hostname) = &request.hostname {
        argv.option("hostname", hostname.as_str());
    }
    if let Some(mtu) = request.mtu {
        argv.option("mtu", mtu.to_string());
    }
    if let Some(interface) = &request.interface {
        argv.option("interface", interface.as_str());
    }
    match request.family {
        Family::Both => {}
        Family::V4 => argv.flag("ipv4-only"),
        Family::V6 => argv.flag("ipv6-only"),
    }
    if !request.host_loopback {
        if passt.has("map-host-loopback") {
            argv.option("map-host-loopback", "none");
        } else {
            argv.flag("no-map-gw");
        }
    }
    // With the other transports QEMU writes it, with the caller's rights.
    if let Some(pcap) = request.pcap.as_ref().filter(|_| transport == Transport::VhostUser) {
        argv.option("pcap", pcap);
    }
    for publish in &request.publish {
        let option = match publish.protocol {
            Protocol::Tcp => "tcp-ports",
            Protocol::Udp => "udp-ports",
        };
        argv.option(option, ports(publish));
    }
    argv.0
}

/// An argument vector in the making.
struct Argv(Vec<OsString>);

impl Argv {
    fn flag(&mut self, name: &str) {
        self.0.push(format!("--{name}").into());
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.flag(name);
        self.0.push(value.into());
    }
}

/// The DNS options: the guest's server is an address of its subnet, forwarded to the host's
/// resolver.
///
/// Newer passt (which has `--dns-host`) announces and forwards it as told, and then has to be told
/// the resolver, too. Older passt cannot do both (measured): with `--dns` it forgets the resolver,
/// and with `--dns-forward` alone it announces the resolver but gives its answers a wrong sender.
/// Left alone it announces the host's resolver, or the gateway for one on the loopback address,
/// and both work.
fn dns(draft: &Draft, argv: &mut Argv) {
    if let Some(server) = draft.foreign_dns() {
        argv.option("dns", server.to_string());
        return;
    }
    if let (Some(GuestView { dns, .. }), Some(resolver)) = (draft.view, forwarded_to(draft.facts)) {
        argv.option("dns-forward", dns.to_string());
        argv.option("dns", dns.to_string());
        argv.option("dns-host", resolver.to_string());
    }
}

/// The host's resolver that this passt can forward queries to; none where it cannot.
pub(super) fn forwarded_to(facts: &Facts) -> Option<IpAddr> {
    let resolver = facts.host.resolvers.iter().find(|server| server.is_ipv4());
    resolver.copied().filter(|_| facts.passt.has("dns-host"))
}

/// A published port in passt's form: `ADDRESS/HOST[-END][:GUEST[-END]]`.
fn ports(publish: &Publish) -> String {
    format!("{}/{}:{}", publish.address, publish.host, publish.guest)
}
