//! Translates slirp's options (NetdevUserOptions of QEMU's qapi/net.json) to a [`NicRequest`].
//!
//! ```text
//! ipv4, ipv6                   family; one that is on alone switches the other off
//! net, ip, host, dhcpstart     address and gateway, with slirp's defaults
//! dns                          forwarder; nothing if netlaunch would choose the same address
//! dnssearch, domainname        search domains
//! hostname                     host name
//! hostfwd                      published ports
//! restrict=on, guestfwd, tftp, bootfile, tftp-server-name, smb, smbserver, ipv6-*, unknown ones
//!                              the NIC stays on slirp
//! ```
//!
//! The guest must see the same addresses as before, also one that does not use DHCP. So the address
//! and the gateway are always named, also where they are slirp's defaults.

use std::net::{IpAddr, Ipv4Addr};

use super::super::plan::{AddressChoice, Family, NicRequest};
use super::super::qemu_options::{Parameters, boolean};
use super::host_forward;
use super::left::{Left, given, option};
use super::subnet::{self, Addresses, addresses};
use crate::types::facts::Facts;
use crate::types::{DomainName, GuestAddresses, HostAddress, Protocol, Publish, overlap};

/// The options that only slirp has.
const SLIRP_ONLY: [&str; 11] = [
    "bootfile",
    "guestfwd",
    "ipv6-dns",
    "ipv6-host",
    "ipv6-net",
    "ipv6-prefix",
    "ipv6-prefixlen",
    "smb",
    "smbserver",
    "tftp",
    "tftp-server-name",
];
/// The options that are translated.
const TRANSLATED: [&str; 12] = [
    "dhcpstart",
    "dns",
    "dnssearch",
    "domainname",
    "host",
    "hostfwd",
    "hostname",
    "ip",
    "ipv4",
    "ipv6",
    "net",
    "restrict",
];
/// The options that choose the IP version.
const FAMILY: [&str; 2] = ["ipv4", "ipv6"];
/// The options that are lists of strings, which JSON writes as objects with the member `str`.
pub(super) const LISTS: [&str; 3] = ["dnssearch", "guestfwd", "hostfwd"];

/// Returns the options with the keys that the other form has: `hostfwd` instead of `hostfwd.0.str`.
pub(super) fn unlisted(options: &Parameters) -> Parameters {
    let mut unlisted = Parameters::default();
    for (key, value) in options.iter() {
        let list = LISTS.iter().find(|list| {
            let index = key.strip_prefix(list.as_bytes()).and_then(|key| key.strip_prefix(b"."));
            let index = index.and_then(|key| key.strip_suffix(b".str"));
            index.is_some_and(|index| !index.is_empty() && index.iter().all(u8::is_ascii_digit))
        });
        unlisted.push(list.map_or(key, |list| list.as_bytes()), value);
    }
    unlisted
}

/// Translates the options of a user-mode network.
///
/// `others` are keys that do not belong to the network, such as the MAC address of `-nic`.
pub(in crate::launcher) fn translate(
    options: &Parameters,
    others: &[&str],
) -> Result<NicRequest, Left> {
    for (key, _) in options.iter() {
        let name = String::from_utf8_lossy(key).into_owned();
        let is = |list: &[&str]| list.contains(&name.as_str());
        if is(&SLIRP_ONLY) {
            return Err(Left::NoEquivalent(name));
        }
        if !is(&TRANSLATED) && !is(others) {
            return Err(Left::UnknownOption(name));
        }
    }
    if switch(options, "restrict")? == Some(true) {
        return Err(Left::Restricted(given(options, &["restrict"])));
    }
    let mut request = NicRequest { family: family(options)?, ..NicRequest::default() };
    let forwards = || options.all("hostfwd");
    if request.family == Family::V6 {
        let option = given(options, &subnet::KEYS);
        if !option.is_empty() {
            let what = "IPv4 addresses of a network without IPv4";
            return Err(Left::Refused { what, option });
        }
        if let Some(forward) = forwards().next() {
            return Err(Left::forward(forward, "the network has no IPv4, which forwards need"));
        }
    } else {
        let found = addresses(options)?;
        set_addresses(&mut request, found, options)?;
        request.publish = published(forwards(), found.guest)?;
    }
    request.search = search(options)?;
    request.hostname = options.get("hostname").map(|text| domain("hostname", text)).transpose()?;
    Ok(request)
}

/// Returns the reason why passt on this host would serve the guest worse than slirp; `None` if it
/// serves as well. `request` is the translation of `own`.
pub(super) fn passt_differs(request: &NicRequest, own: &Parameters, facts: &Facts) -> Option<Left> {
    if request.family == Family::V6 && facts.host.default_v6.is_none() {
        return Some(Left::NoIpv6Route(given(own, &FAMILY)));
    }
    let delays = facts.passt.problem.is_none() && !facts.passt.delivers_first_bytes();
    // A translation has one published port for each forward.
    request.publish.iter().zip(own.all("hostfwd")).find_map(|(publish, forward)| {
        if publish.host.first() < facts.host.first_port {
            return Some(Left::forward(forward, "this user cannot listen on the port"));
        }
        let is_delayed = delays && publish.protocol == Protocol::Tcp;
        is_delayed.then(|| Left::ServerFirst(option("hostfwd", forward)))
    })
}

/// Adds the options of the launch to a request, the translation of `own`. `first` is whether they
/// name this NIC's ports, address, host name and capture file.
pub(super) fn with_options(
    request: NicRequest,
    own: &Parameters,
    options: &NicRequest,
    first: bool,
) -> Result<NicRequest, Left> {
    let own_family = request.family;
    let mut merged = NicRequest {
        backend: options.backend,
        transport: options.transport,
        host_loopback: options.host_loopback,
        mtu: options.mtu,
        interface: options.interface.clone(),
        passt_options: options.passt_options.clone(),
        dns: options.dns.or(request.dns),
        ..request
    };
    merged.family = match (merged.family, options.family) {
        (family, Family::Both) | (Family::Both, family) => family,
        (family, other) if family == other => family,
        (Family::V6, _) => return Err(other_family("IPv6", own)),
        _ => return Err(other_family("IPv4", own)),
    };
    if !options.search.is_empty() {
        merged.search.clone_from(&options.search);
    }
    if first {
        let is_new = |publish: &&Publish| !merged.publish.contains(publish);
        let new: Vec<Publish> = options.publish.iter().filter(is_new).cloned().collect();
        merged.publish.extend(new);
        merged.pcap.clone_from(&options.pcap);
        if options.hostname.is_some() {
            merged.hostname.clone_from(&options.hostname);
        }
        if options.address != AddressChoice::Default && options.address != merged.address {
            (merged.address, merged.gateway) = (options.address, None);
            merged.dns = options.dns;
        }
        merged.gateway = options.gateway.or(merged.gateway);
    }
    if merged.family == Family::V6 {
        let why = "this launch switches off IPv4, which the forward needs";
        if let Some(forward) = own.all("hostfwd").next() {
            return Err(Left::forward(forward, why));
        }
        if let Some(publish) = merged.publish.iter().find(|publish| publish.address.is_ipv4()) {
            let publish = publish.to_string();
            return Err(match own_family {
                Family::V6 => Left::NoIpv4 { option: given(own, &FAMILY), publish },
                _ => Left::Forward { forward: publish, why },
            });
        }
        (merged.address, merged.gateway) = (AddressChoice::Default, None);
        merged.dns = merged.dns.filter(IpAddr::is_ipv6);
    }
    Ok(merged)
}

fn other_family(has: &'static str, own: &Parameters) -> Left {
    Left::OtherFamily { has, option: given(own, &FAMILY) }
}

/// Returns whether the options of the launch ask for something on this NIC that its own arguments
/// do not have. A transport is no such thing, because slirp has none.
pub(super) fn adds_something(options: &NicRequest, first: bool) -> bool {
    let every = options.dns.is_some()
        || !options.search.is_empty()
        || options.mtu.is_some()
        || options.interface.is_some()
        || options.family != Family::Both
        || !options.host_loopback
        || !options.passt_options.is_empty();
    let single = !options.publish.is_empty()
        || options.address != AddressChoice::Default
        || options.gateway.is_some()
        || options.hostname.is_some()
        || options.pcap.is_some();
    every || (first && single)
}

/// Returns a boolean option.
fn switch(options: &Parameters, key: &str) -> Result<Option<bool>, Left> {
    let Some(word) = options.get(key) else { return Ok(None) };
    let what = "a boolean that is neither on nor off";
    boolean(word).map(Some).ok_or_else(|| Left::Refused { what, option: option(key, word) })
}

/// Returns the IP versions, as net_init_slirp() of QEMU does: one that is on alone switches the
/// other off.
fn family(options: &Parameters) -> Result<Family, Left> {
    match (switch(options, "ipv4")?, switch(options, "ipv6")?) {
        (None, None) | (Some(true), Some(true)) => Ok(Family::Both),
        (Some(true), _) | (None, Some(false)) => Ok(Family::V4),
        (_, Some(true)) | (Some(false), None) => Ok(Family::V6),
        (Some(false), Some(false)) => {
            let what = "a network without IPv4 and IPv6";
            Err(Left::Refused { what, option: given(options, &FAMILY) })
        }
    }
}

/// Sets the guest's address, its gateway, and its DNS server if netlaunch would choose another one.
fn set_addresses(
    request: &mut NicRequest,
    found: Addresses,
    options: &Parameters,
) -> Result<(), Left> {
    let option = || given(options, &subnet::KEYS);
    let address = HostAddress::new(found.guest, found.prefix)
        .map_err(|source| Left::Address { option: option(), source })?;
    let new = |dns: Option<Ipv4Addr>| {
        GuestAddresses::new(address, Some(found.gateway), dns)
            .map_err(|source| Left::Addresses { option: option(), source })
    };
    let usual = new(None)?;
    if usual.dns != found.dns {
        new(Some(found.dns))?;
        request.dns = Some(found.dns.into());
    }
    request.address = AddressChoice::Fixed(address);
    request.gateway = Some(found.gateway);
    Ok(())
}

/// Returns the published ports of the forwards.
fn published<'a>(
    forwards: impl Iterator<Item = &'a [u8]>,
    guest: Ipv4Addr,
) -> Result<Vec<Publish>, Left> {
    let mut all = Vec::new();
    for forward in forwards {
        all.push(host_forward::publish(forward, guest)?);
        if overlap(&all).is_some() {
            return Err(Left::forward(forward, "QEMU refuses a second forward of the port"));
        }
    }
    Ok(all)
}

/// Returns the search domains: those of `dnssearch`, then the guest's own domain.
fn search(options: &Parameters) -> Result<Vec<DomainName>, Left> {
    let mut search: Vec<DomainName> = Vec::new();
    let domains = options.all("dnssearch").map(|text| ("dnssearch", text));
    let own = options.get("domainname").map(|text| ("domainname", text));
    for (key, text) in domains.chain(own) {
        let name = domain(key, text)?;
        if !search.contains(&name) {
            search.push(name);
        }
    }
    Ok(search)
}

fn domain(key: &str, text: &[u8]) -> Result<DomainName, Left> {
    let name = String::from_utf8_lossy(text).parse();
    name.map_err(|source| Left::Name { option: option(key, text), source })
}
