//! Readers of the attributes that several elements of a network share: numbers, addresses and
//! subnets.
//!
//! [`number`] refuses texts that Rust's own parser accepts and libvirt's schema does not, such as a
//! sign before the digits.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, ipv4_mask_to_prefix};

use crate::xml::{ElementReader, XmlError};

type Result<T> = std::result::Result<T, XmlError>;

/// Reads a number that is written in decimal digits only.
pub(super) fn number<T: FromStr>(text: &str) -> std::result::Result<T, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let value = if digits { text.parse().ok() } else { None };
    value.ok_or_else(|| format!("{text:?} is not a number that fits here: write decimal digits"))
}

/// Reads an IP address.
pub(super) fn address(text: &str) -> std::result::Result<IpAddr, String> {
    let error =
        || format!("{text:?} is not an IP address: write one such as 192.168.122.1 or fd00::1");
    text.parse().map_err(|_| error())
}

/// Reads an IPv4 address.
pub(super) fn address_v4(text: &str) -> std::result::Result<Ipv4Addr, String> {
    let error = || format!("{text:?} is not an IPv4 address: write one such as 192.0.2.1");
    text.parse().map_err(|_| error())
}

/// Reads a required attribute with `read`.
pub(super) fn need<T, E: Display>(
    reader: &mut ElementReader<'_>,
    name: &'static str,
    read: impl FnOnce(&str) -> std::result::Result<T, E>,
) -> Result<T> {
    reader.value_with(name, read)?.ok_or_else(|| reader.missing(name))
}

/// Returns the prefix length for an address without a written one.
///
/// For IPv4 it is that of the address's class (RFC 791, 3.2), or `None` for the classes D and E.
/// For IPv6 it is 64.
pub(super) fn class_prefix(address: IpAddr) -> Option<u8> {
    match address {
        IpAddr::V6(_) => Some(64),
        IpAddr::V4(address) => match address.octets()[0] {
            0..=127 => Some(8),
            128..=191 => Some(16),
            192..=223 => Some(24),
            224.. => None,
        },
    }
}

/// Reads the attributes `family`, `address`, and `netmask` or `prefix`.
///
/// If the document has neither `netmask` nor `prefix`, `default` gives the prefix length.
pub(super) fn subnet(
    reader: &mut ElementReader<'_>,
    default: impl FnOnce(IpAddr) -> Option<u8>,
) -> Result<IpNet> {
    let v6 = reader.choice("family", &[("ipv4", false), ("ipv6", true)])?.unwrap_or(false);
    let ip = need(reader, "address", |text| match address(text)? {
        ip if ip.is_ipv6() == v6 => Ok(ip),
        ip if v6 => Err(format!("{ip} is an IPv4 address: remove family='ipv6'")),
        ip => Err(format!("{ip} is an IPv6 address: add family='ipv6'")),
    })?;
    let prefix = reader.value_with("prefix", |text| match number::<u8>(text)? {
        prefix if IpNet::new(ip, prefix).is_ok() => Ok(prefix),
        prefix => Err(format!("{prefix} is too long: use at most {}", if v6 { 128 } else { 32 })),
    })?;
    let netmask = reader.value_with("netmask", |text| match address_v4(text) {
        _ if v6 => Err("IPv6 has no netmasks: use prefix".to_owned()),
        Err(why) => Err(why),
        Ok(mask) => ipv4_mask_to_prefix(mask)
            .map_err(|_| format!("{mask} has gaps: write one such as 255.255.255.0")),
    })?;
    let prefix = match (prefix, netmask) {
        (Some(prefix), None) | (None, Some(prefix)) => prefix,
        (Some(_), Some(_)) => {
            return Err(reader.bad("prefix and netmask both set the subnet: remove one"));
        }
        (None, None) => match default(ip) {
            Some(prefix) => prefix,
            None if v6 => return Err(reader.missing("prefix")),
            None => return Err(reader.bad("its subnet is missing: add prefix or netmask")),
        },
    };
    IpNet::new(ip, prefix).map_err(|why| reader.bad(why))
}
