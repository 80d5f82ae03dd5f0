//! Writes passt's command line.
//!
//! First come the options for the process and its connection to QEMU, then those for the guest's
//! network, then the capture file, the published ports and
//! the caller's own options. Each option has its long name, and its
//! value is an argument of its own, so a reader can understand a log line and paste it.
//!
//! Two options are easy to get wrong. `--mac-addr` is never used: it sets the gateway's address,
//! not the guest's (libvirt once gave both the same). `--one-off` is not used with `--fd`: such a
//! passt ends with its peer anyway, and Debian 12's passt refuses both together (measured).

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;

use super::dns::{DnsPlan, V6_HOST};
use super::draft::Draft;
use super::request::{AddressChoice, Family, Transport};
use crate::types::{PasstOption, Protocol, Publish};

/// passt's program, its connection to QEMU and its process file.
pub(super) struct Endpoint<'a> {
    pub(super) program: &'a Path,
    pub(super) transport: Transport,
    pub(super) socket: Option<&'a Path>,
    pub(super) fd: Option<RawFd>,
    pub(super) pid: &'a Path,
}

/// Returns the whole argument vector, and notes in `dns` the range of the DNS arguments.
pub(super) fn argv(draft: &Draft, endpoint: &Endpoint, dns: &mut DnsPlan) -> Vec<OsString> {
    let nic = draft.nic;
    let mut argv = process(draft, endpoint);
    guest_network(draft, &mut argv, dns);
    // With the other transports QEMU writes the file, with the caller's rights.
    let is_vhost_user = endpoint.transport == Transport::VhostUser;
    if let Some(pcap) = nic.pcap.as_ref().filter(|_| is_vhost_user) {
        argv.option("pcap", pcap);
    }
    for publish in &nic.publish {
        let option = match publish.protocol {
            Protocol::Tcp => "tcp-ports",
            Protocol::Udp => "udp-ports",
        };
        argv.option(option, ports(publish));
    }
    // Last: of these options netlaunch does not know which ones take a value.
    argv.0.extend(nic.passt_options.iter().map(PasstOption::argument));
    argv.0
}

/// Returns the program and the options for the process and its connection to QEMU.
fn process(draft: &Draft, endpoint: &Endpoint) -> Argv {
    let passt = &draft.context.facts.passt;
    let mut argv = Argv(vec![endpoint.program.into()]);
    argv.flag("foreground");
    // Without this option, root's passt runs as the user nobody, which other programs share.
    if let Some(user) = draft.passt_user() {
        argv.option("runas", user.to_string());
    }
    if endpoint.transport == Transport::VhostUser {
        argv.flag("vhost-user");
    }
    if let Some(fd) = endpoint.fd {
        argv.option("fd", fd.to_string());
    } else if passt.has("one-off") {
        argv.flag("one-off");
    }
    if let Some(socket) = endpoint.socket {
        argv.option("socket", socket);
    }
    // If a security profile forbids passt to write this file, only netlaunch writes it.
    if passt.confinement.as_ref().is_none_or(|profile| profile.allows(endpoint.pid)) {
        argv.option("pid", endpoint.pid);
    }
    argv
}

/// Adds the options for the guest's network.
fn guest_network(draft: &Draft, argv: &mut Argv, dns: &mut DnsPlan) {
    let (nic, passt) = (draft.nic, &draft.context.facts.passt);
    if let Some(addresses) = draft.addresses {
        argv.option("address", addresses.address.address().to_string());
        argv.option("netmask", addresses.address.subnet().prefix_len().to_string());
        argv.option("gateway", addresses.gateway.to_string());
    }
    if let Some(server) = draft.foreign_dns() {
        argv.option("dns", server.to_string());
    }
    dns.add_arguments(&mut argv.0);
    for domain in &nic.search {
        argv.option("search", domain.as_str());
    }
    // By default passt copies the host's search domains; slirp does not.
    if nic.search.is_empty() && nic.address != AddressChoice::Host && passt.has("search") {
        argv.option("search", "none");
    }
    if let Some(hostname) = &nic.hostname {
        argv.option("hostname", hostname.as_str());
    }
    if let Some(mtu) = nic.mtu {
        argv.option("mtu", mtu.to_string());
    }
    if let Some(interface) = &nic.interface {
        argv.option("interface", interface.as_str());
    }
    match nic.family {
        Family::Both => {}
        Family::V4 => argv.flag("ipv4-only"),
        Family::V6 => argv.flag("ipv6-only"),
    }
    // Each passt gives the host's own address by DHCPv6 (measured), which a guest cannot use on two
    // links. Without DHCPv6 the guest makes an address of the announced prefix and its card's MAC
    // address.
    let by_caller = nic.passt_options.iter().any(|option| option.name() == "no-dhcpv6");
    if draft.context.has_dhcpv6 && nic.family != Family::V4 && passt.has("no-dhcpv6") && !by_caller
    {
        argv.flag("no-dhcpv6");
    }
    host_loopback(draft, argv);
}

/// Adds the options for the addresses at which the guest reaches the host's loopback addresses.
///
/// By default passt uses the addresses of the guest's gateways, also the global address of an IPv6
/// router, and then the guest cannot reach that router. Newer passt gets the same addresses as
/// slirp uses. Older passt only has one option that switches both addresses off.
fn host_loopback(draft: &Draft, argv: &mut Argv) {
    let (nic, passt) = (draft.nic, &draft.context.facts.passt);
    match (nic.host_loopback, passt.has("map-host-loopback")) {
        (false, true) => argv.option("map-host-loopback", "none"),
        (false, false) => argv.flag("no-map-gw"),
        (true, true) => {
            if let Some(addresses) = draft.addresses {
                argv.option("map-host-loopback", addresses.gateway.to_string());
            }
            if nic.family != Family::V4 {
                argv.option("map-host-loopback", V6_HOST.to_string());
            }
        }
        (true, false) => {}
    }
}

/// An unfinished argument vector.
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

/// Returns a published port in passt's form: `ADDRESS/HOST[-END][:GUEST[-END]]`.
fn ports(publish: &Publish) -> String {
    format!("{}/{}:{}", publish.address, publish.host, publish.guest)
}
