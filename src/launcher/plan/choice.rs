//! Chooses the backend of a launch.
//!
//! Each backend is checked against the request and the facts; the result is a list of candidates
//! with their reasons. A named backend is used or refused. Otherwise the first usable one of passt
//! and slirp is used, and the reason against passt becomes the plan's fallback note.
//!
//! The bridge is never chosen automatically, because it connects the guest to another network.

use std::net::{IpAddr, Ipv4Addr};

use super::bridge;
use super::candidate::Candidate;
use super::dns::DnsPlan;
use super::error::PlanError;
use super::guest_addresses::guest_addresses;
use super::passt_options;
use super::request::{AddressChoice, Backend, Family, NicRequest, Request, Transport};
use super::vmm::Vmm;
use crate::types::facts::{Facts, Problem};
use crate::types::{Device, GuestAddresses, Setting};

/// The largest MTU of slirp's frames.
const SLIRP_MTU: u16 = 1500;

/// Decides for each backend whether it can serve a NIC, the preferred one first.
///
/// If the request names no bridge, the answer for the bridge backend holds for some bridge of the
/// host.
pub fn candidates(request: &Request, nic: &NicRequest, facts: &Facts) -> Vec<Candidate> {
    vec![
        Candidate::new(Backend::Passt, passt(request.vmm, nic, facts)),
        Candidate::new(Backend::Slirp, slirp(nic, facts)),
        Candidate::new(Backend::Bridge, bridge::check(request, nic, facts)),
    ]
}

/// Returns the backend, and the reason against the preferred one if another one is chosen.
///
/// # Errors
/// The named backend cannot serve, or no automatic backend can.
pub(super) fn choose(
    request: &Request,
    nic: &NicRequest,
    facts: &Facts,
) -> Result<(Backend, Option<String>), PlanError> {
    let mut candidates = candidates(request, nic, facts);
    if let Some(named) = nic.backend {
        candidates.retain(|candidate| candidate.backend == named && !candidate.usable);
        return match candidates.pop() {
            Some(candidate) => Err(unusable(candidate, request, nic, facts)),
            None => Ok((named, None)),
        };
    }
    candidates.retain(|candidate| candidate.backend.is_automatic());
    match candidates.iter().position(|candidate| candidate.usable) {
        Some(0) => Ok((candidates[0].backend, None)),
        Some(n) => Ok((candidates[n].backend, Some(candidates[0].why.clone()))),
        None => Err(PlanError::NoBackend(candidates)),
    }
}

/// Returns the error of a named backend that cannot serve.
///
/// A newer passt may have the option that this one lacks, so passt's version is at fault. slirp and
/// the bridge have the same options in all versions: if such a backend can serve without the
/// request's options, the options are at fault.
fn unusable(candidate: Candidate, request: &Request, nic: &NicRequest, facts: &Facts) -> PlanError {
    let without_options = NicRequest {
        backend: nic.backend,
        attachment: nic.attachment.clone(),
        ..NicRequest::default()
    };
    let serves = |other: &Candidate| other.usable && other.backend == candidate.backend;
    match candidate.backend {
        Backend::Passt => PlanError::Unusable(candidate),
        _ if candidates(request, &without_options, facts).iter().any(serves) => {
            PlanError::Options(candidate)
        }
        _ => PlanError::Unusable(candidate),
    }
}

/// Returns the guest's addresses without the notes about them.
fn addresses(nic: &NicRequest, facts: &Facts) -> Option<GuestAddresses> {
    guest_addresses(nic, facts, &mut Vec::new()).ok().flatten()
}

/// Returns whether the guest's DNS server is requested to be this forwarder.
fn is_forwarder(nic: &NicRequest, forwarder: Option<Ipv4Addr>) -> bool {
    nic.dns.is_some() && nic.dns == forwarder.map(IpAddr::V4)
}

/// Decides whether passt can serve.
fn passt(vmm: Vmm, nic: &NicRequest, facts: &Facts) -> Result<String, Problem> {
    let passt = &facts.passt;
    let no = |why: &str, fix: &str| Err(Problem::new(why, fix));
    if let Some(problem) = passt.problem.as_ref().or(facts.qemu.problem.as_ref()) {
        return Err(problem.clone());
    }
    let vhost_user = nic.transport == Some(Transport::VhostUser);
    let (netdev, option) = match nic.transport {
        Some(Transport::VhostUser) => ("vhost-user", Some("vhost-user")),
        Some(Transport::Fd) => ("stream", Some("fd")),
        _ => ("stream", None),
    };
    if !facts.qemu.netdevs.contains(netdev) {
        return Err(Problem::new(
            format!("this QEMU has no {netdev} netdev"),
            if vhost_user { "use the transport unix" } else { "use QEMU 7.2 or later, or slirp" },
        )
        .about(&[Setting::Transport]));
    }
    for needed in ["foreground", "socket", "pid", "address", "netmask", "gateway"] {
        if !passt.has(needed) {
            return no(&format!("this passt has no --{needed}"), "install a newer passt");
        }
    }
    if facts.host.root && !passt.has("runas") {
        return no(
            "this passt has no --runas, so root's would run as a user that other programs share",
            "install a newer passt, or run as an ordinary user",
        );
    }
    if let Some(option) = option.filter(|o| !passt.has(o)) {
        let why = format!("this passt has no --{option}");
        // Another VMM has one transport only.
        return Err(match vmm {
            Vmm::Qemu => Problem::new(why, "install a newer passt, or use the transport unix")
                .about(&[Setting::Transport]),
            _ => Problem::new(why, "install a newer passt"),
        });
    }
    if let (None, Some(problem)) = (nic.backend, padded_frames(nic, facts)) {
        return Err(problem);
    }
    match &nic.device {
        Device::Model(model) if vhost_user && !nic.device.is_virtio() => {
            return Err(vhost_user_needs_virtio(&format!("the card {model}")));
        }
        _ => {}
    }
    passt_options::known(nic, passt)?;
    passt_settings(nic, facts)?;
    passt_routes(nic, facts)?;
    let path = passt.path.as_deref().unwrap_or("passt".as_ref()).display();
    Ok(format!("{path} and QEMU's {netdev} netdev"))
}

/// Returns why passt serves a card that pads short frames badly. A card of the caller's arguments
/// was checked when its NIC was adopted.
pub(super) fn padded_frames(nic: &NicRequest, facts: &Facts) -> Option<Problem> {
    match &nic.device {
        Device::Model(model) if !nic.device.is_virtio() && !facts.passt.takes_padded_frames() => {
            Some(ignores_padded_frames(&format!("the card {model}")))
        }
        _ => None,
    }
}

/// Makes the problem of a passt that ignores the padded frames of a card, which `card` names in
/// words.
pub(super) fn ignores_padded_frames(card: &str) -> Problem {
    let why =
        format!("this passt ignores the padded frames of {card}, so downloads stall at 64 kB");
    Problem::new(why, "use a virtio-net card, or install a newer passt").about(&[Setting::Device])
}

/// Makes the problem of a card, which `card` names in words, that QEMU's vhost-user does not take.
/// QEMU 10.0 aborts on such a card of `-nic` (measured).
pub(super) fn vhost_user_needs_virtio(card: &str) -> Problem {
    let why = format!("vhost-user needs a virtio-net card, and {card} is none");
    Problem::new(why, "use a virtio-net card, or the transport unix")
        .about(&[Setting::Device, Setting::Transport])
}

/// Makes the problem of a network, `written` by the caller, that reaches its card through a hub.
/// passt shares memory with the guest's driver, so no frame passes the hub.
pub(super) fn vhost_user_needs_card(written: &str) -> Problem {
    let why =
        format!("vhost-user faces the card itself, and a hub is between {written} and its card");
    Problem::new(why, "attach the card to the network itself, or use the transport unix")
        .about(&[Setting::Transport])
}

/// Checks that this passt has the options for the request's settings.
fn passt_settings(nic: &NicRequest, facts: &Facts) -> Result<(), Problem> {
    let passt = &facts.passt;
    let forwarder = addresses(nic, facts).map(|addresses| addresses.dns);
    if is_forwarder(nic, forwarder) && DnsPlan::forwarded_to(facts).is_none() {
        return Err(Problem::new(
            "this passt, on this host, cannot forward queries from an address of the guest's subnet",
            "drop the DNS server, or name one outside of the guest's subnet",
        ).about(&[Setting::Dns]));
    }
    if nic.hostname.is_some() && !passt.has("hostname") {
        return Err(Problem::new(
            "this passt has no --hostname",
            "install a newer passt, or drop the host name",
        )
        .about(&[Setting::Hostname]));
    }
    let closes = passt.has("map-host-loopback") || passt.has("no-map-gw");
    if !nic.host_loopback && !closes {
        return Err(Problem::new(
            "this passt cannot keep the guest from the host's loopback services",
            "install a newer passt, or let the guest reach these services",
        )
        .about(&[Setting::HostLoopback]));
    }
    Ok(())
}

/// Checks that passt can give the guest addresses on this host.
fn passt_routes(nic: &NicRequest, facts: &Facts) -> Result<(), Problem> {
    let (host, passt) = (&facts.host, &facts.passt);
    if let (Some(why), None) = (&host.unknown, &nic.interface)
        && !passt.has("map-guest-addr")
    {
        let why = format!("the host's routes are not known: {why}");
        return Err(Problem::new(why, "mount /proc, name a host interface, or use slirp")
            .about(&[Setting::Interface]));
    }
    let routed = host.default_v4.is_some() || host.default_v6.is_some();
    // A passt that has --map-guest-addr has a local mode for hosts without a route.
    if nic.interface.is_none() && !routed && !passt.has("map-guest-addr") {
        return Err(Problem::new(
            "the host has no default route, from which passt takes its addresses",
            "set one, name a host interface, or use slirp",
        )
        .about(&[Setting::Interface]));
    }
    // If the request names passt, it is used over IPv6 alone, with a warning.
    match no_ipv4_address(nic, facts).filter(|_| nic.backend.is_none()) {
        Some(problem) => Err(problem),
        None => Ok(()),
    }
}

/// Returns the reason why an older passt gives the guest no IPv4 address on a host with IPv6 alone.
pub(super) fn no_ipv4_address(nic: &NicRequest, facts: &Facts) -> Option<Problem> {
    let (host, local_mode) = (&facts.host, facts.passt.has("map-guest-addr"));
    let v6_alone = host.default_v4.is_none() && host.default_v6.is_some();
    let wanted =
        nic.family != Family::V6 && nic.address != AddressChoice::Host && nic.interface.is_none();
    (v6_alone && wanted && !local_mode).then(|| {
        Problem::new(
            "the host has no IPv4 default route, without which this passt gives the guest no IPv4 address",
            "set one, install a newer passt, use slirp, or give the guest only IPv6",
        ).about(&[Setting::Ipv6Only])
    })
}

/// Decides whether slirp can serve.
fn slirp(nic: &NicRequest, facts: &Facts) -> Result<String, Problem> {
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
    if nic.backend == Some(Backend::Slirp) && nic.transport.is_some() {
        return Err(Problem::new(
            "slirp is a part of QEMU and has no transport",
            "drop the transport",
        )
        .about(&[Setting::Transport]));
    }
    if nic.address == AddressChoice::Host {
        return Err(Problem::new(
            "slirp cannot give the guest the host's addresses",
            "give the guest an address of its own",
        )
        .about(&[Setting::Address]));
    }
    let addresses = addresses(nic, facts);
    if addresses.is_some_and(|addresses| addresses.dns == addresses.gateway) {
        return Err(Problem::new(
            "slirp needs a DNS server's address beside the gateway's",
            "use an address with a prefix length of 29 or less, or another DNS server",
        )
        .about(&[Setting::Address, Setting::Dns]));
    }
    let forwarder = addresses.map(|addresses| addresses.dns);
    if nic.dns.is_some() && !is_forwarder(nic, forwarder) {
        return Err(Problem::new(
            "slirp can only announce a DNS server of the guest's own subnet",
            "drop the DNS server: the guest then uses the host's resolver",
        )
        .about(&[Setting::Dns]));
    }
    if nic.interface.is_some() {
        return Err(Problem::new(
            "slirp cannot be bound to an interface",
            "drop the host interface",
        )
        .about(&[Setting::Interface]));
    }
    if !nic.host_loopback {
        return Err(Problem::new(
            "slirp in QEMU cannot keep the guest from the host's loopback services",
            "let the guest reach these services",
        )
        .about(&[Setting::HostLoopback]));
    }
    if let Some(publish) = nic.publish.iter().find(|p| p.address.is_ipv6()) {
        return no(
            &format!("slirp cannot publish on an IPv6 address ({publish})"),
            "publish on an IPv4 address",
        );
    }
    if nic.family == Family::V6 && !nic.publish.is_empty() {
        return Err(Problem::new(
            "slirp cannot publish a port of a guest without IPv4",
            "give the guest IPv4",
        )
        .about(&[Setting::Ipv6Only]));
    }
    if !nic.passt_options.is_empty() {
        return Err(Problem::new("slirp has none of passt's options", "drop the passt options")
            .about(&[Setting::PasstOption]));
    }
    slirp_mtu(nic)?;
    Ok("QEMU's user netdev".to_owned())
}

/// Decides whether slirp can announce the requested MTU.
fn slirp_mtu(nic: &NicRequest) -> Result<(), Problem> {
    let Some(mtu) = nic.mtu else { return Ok(()) };
    if mtu > SLIRP_MTU {
        let why = format!("slirp has no frames of {mtu} bytes");
        return Err(Problem::new(why, "use an MTU of 1500 or less").about(&[Setting::Mtu]));
    }
    if !nic.device.is_virtio() {
        let why = "slirp can set the MTU of virtio cards only";
        let fix = "drop the MTU, or use the card virtio-net-pci";
        return Err(Problem::new(why, fix).about(&[Setting::Mtu, Setting::Device]));
    }
    Ok(())
}
