//! The addresses of slirp's IPv4 network, as net_slirp_init() of QEMU (net/slirp.c) derives them
//! from `net`, `ip`, `host`, `dhcpstart` and `dns`.

use std::net::Ipv4Addr;

use super::super::qemu_options::Parameters;
use super::left::{Left, given, option};

/// The options that the addresses come from.
pub(super) const KEYS: [&str; 5] = ["net", "ip", "host", "dhcpstart", "dns"];

/// The IPv4 addresses that slirp gives to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) prefix: u8,
    pub(super) guest: Ipv4Addr,
    pub(super) gateway: Ipv4Addr,
    pub(super) dns: Ipv4Addr,
}

/// Returns the addresses; an error for texts that QEMU refuses, or that are not read here.
///
/// Without a mask the class of the address decides, which for the addresses from 192.0.0.0 on,
/// except 192.168.0.0/16 and 198.18.0.0/15, is a prefix of 28 bits (measured with QEMU 10.0).
pub(super) fn addresses(options: &Parameters) -> Result<Addresses, Left> {
    let (network, prefix) = match (options.get("net"), options.get("ip")) {
        (Some(net), _) => network(net)?,
        (None, Some(ip)) => (own_address("ip", ip)?, 24),
        (None, None) => (Ipv4Addr::new(10, 0, 2, 0), 24),
    };
    let mask = u32::MAX << (32 - u32::from(prefix));
    let network = u32::from(network) & mask;
    let host = |bits: u32| Ipv4Addr::from(network | (bits & !mask));
    let or = |key: &str, default: u32| {
        options.get(key).map_or(Ok(host(default)), |text| own_address(key, text))
    };
    let found = Addresses {
        prefix,
        gateway: or("host", 0x0202)?,
        dns: or("dns", 0x0203)?,
        guest: or("dhcpstart", 0x020f)?,
    };
    let inside = |address: Ipv4Addr| u32::from(address) & mask == network;
    let Addresses { guest, gateway, dns, .. } = found;
    let refused = |what| Left::Refused { what, option: given(options, &KEYS) };
    if !inside(gateway) || !inside(guest) {
        return Err(refused("addresses outside of the guest's subnet"));
    }
    if gateway == dns || guest == gateway || guest == dns {
        return Err(refused("equal addresses of the guest, its gateway and its DNS server"));
    }
    if !inside(dns) {
        return Err(Left::ForeignDns(dns));
    }
    Ok(found)
}

/// Reads `ADDRESS[/PREFIX|/MASK]`.
fn network(text: &[u8]) -> Result<(Ipv4Addr, u8), Left> {
    let read = |part: &[u8]| address(part).ok_or_else(|| no_address("net", text));
    let Some(at) = text.iter().position(|byte| *byte == b'/') else {
        let network = read(text)?;
        return Ok((network, class(network)));
    };
    let network = read(&text[..at])?;
    let mask = std::str::from_utf8(&text[at + 1..]).unwrap_or_default();
    let prefix = match mask.parse::<u8>() {
        Ok(prefix) => Some(prefix),
        Err(_) => mask.parse().ok().and_then(|mask| ipnet::ipv4_mask_to_prefix(mask).ok()),
    };
    match prefix {
        Some(prefix @ 4..=32) => Ok((network, prefix)),
        _ => Err(Left::Unread { what: "this netmask", option: option("net", text) }),
    }
}

/// Returns the prefix of a network without a mask.
fn class(network: Ipv4Addr) -> u8 {
    match network.octets() {
        [0..=127, ..] => 8,
        [172, 16..=31, ..] => 12,
        [128..=191, ..] => 16,
        [192, 168, ..] => 16,
        [198, 18 | 19, ..] => 15,
        [224..=255, ..] => 24,
        _ => 28,
    }
}

/// Reads an address. QEMU also reads addresses of fewer than four parts; they stay on slirp.
pub(super) fn address(text: &[u8]) -> Option<Ipv4Addr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads the address that is the value of an option.
fn own_address(key: &str, text: &[u8]) -> Result<Ipv4Addr, Left> {
    address(text).ok_or_else(|| no_address(key, text))
}

fn no_address(key: &str, text: &[u8]) -> Left {
    let what = "an address that is not four decimal numbers";
    Left::Unread { what, option: option(key, text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &str) -> String {
        match addresses(&Parameters::read(options.as_bytes(), Some("type"))) {
            Ok(Addresses { prefix, guest, gateway, dns }) => {
                format!("{guest}/{prefix} {gateway} {dns}")
            }
            Err(left) => left.to_string(),
        }
    }

    #[test]
    fn the_addresses_are_those_of_slirp() {
        for (options, expected) in [
            ("user", "10.0.2.15/24 10.0.2.2 10.0.2.3"),
            ("user,net=169.254.0.0/16", "169.254.2.15/16 169.254.2.2 169.254.2.3"),
            ("user,net=192.168.76.9/24", "192.168.76.15/24 192.168.76.2 192.168.76.3"),
            ("user,net=192.168.76.0/255.255.255.0", "192.168.76.15/24 192.168.76.2 192.168.76.3"),
            ("user,net=10.1.2.3", "10.0.2.15/8 10.0.2.2 10.0.2.3"),
            ("user,net=172.20.0.0", "172.16.2.15/12 172.16.2.2 172.16.2.3"),
            ("user,net=172.40.0.0", "172.40.2.15/16 172.40.2.2 172.40.2.3"),
            ("user,net=192.168.9.0", "192.168.2.15/16 192.168.2.2 192.168.2.3"),
            ("user,net=198.19.0.0", "198.18.2.15/15 198.18.2.2 198.18.2.3"),
            ("user,net=200.1.2.3", "200.1.2.15/28 200.1.2.2 200.1.2.3"),
            ("user,net=240.1.2.3", "240.1.2.15/24 240.1.2.2 240.1.2.3"),
            ("user,ip=10.5.6.7", "10.5.6.15/24 10.5.6.2 10.5.6.3"),
            ("user,net=10.1.0.0/16,ip=10.5.6.7", "10.1.2.15/16 10.1.2.2 10.1.2.3"),
            ("user,dhcpstart=10.0.2.9,host=10.0.2.1", "10.0.2.9/24 10.0.2.1 10.0.2.3"),
            ("user,dns=10.0.2.53", "10.0.2.15/24 10.0.2.2 10.0.2.53"),
            ("user,net=10.0.2.0/28", "10.0.2.15/28 10.0.2.2 10.0.2.3"),
        ] {
            assert_eq!(read(options), expected, "{options}");
        }
    }

    #[test]
    fn addresses_that_qemu_refuses_or_that_passt_cannot_use_stay() {
        for (options, part) in [
            ("user,net=10.0.2.0/33", "this netmask"),
            ("user,net=10.0.2.0/3", "this netmask"),
            ("user,net=10.0.2.0/255.0.255.0", "this netmask"),
            ("user,net=10.0.2", "four decimal numbers"),
            ("user,ip=10.0.2", "four decimal numbers"),
            ("user,dhcpstart=10.0.2", "four decimal numbers"),
            ("user,host=10.0.3.2", "outside"),
            ("user,net=10.0.2.0/24,dhcpstart=10.0.3.2", "outside"),
            ("user,dhcpstart=10.0.2.2", "equal"),
            ("user,dns=10.0.2.2", "equal"),
            ("user,dns=10.0.2.15", "equal"),
            ("user,dns=1.1.1.1", "queries for 1.1.1.1"),
        ] {
            let (_, own) = options.split_once(',').unwrap();
            let reason = read(options);
            assert!(reason.contains(part), "{options}: {reason}");
            assert!(reason.ends_with(&format!("({own})")), "{options}: {reason}");
        }
    }
}
