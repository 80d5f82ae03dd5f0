//! An IPv4 address that a guest can have.
//!
//! [`HostAddress::new`] checks an address before any program gets it, because passt accepts any 32
//! bits. Measured: passt gives a network address to the guest unchanged, and Debian 12's passt
//! derives a mask of one bit if the netmask is missing.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::checked_text::string_conversions;

/// An IPv4 address that a host can have, with the prefix length of its subnet (`10.0.2.15/24`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostAddress(pub(super) Ipv4Net);

/// The reason why a guest cannot have an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The text does not have the form `A.B.C.D/PREFIX`.
    #[error("{0:?} is not an IPv4 address with a prefix length: write one such as 10.0.2.15/24")]
    Form(String),
    /// The text is an IPv6 address.
    #[error(
        "{0:?} is an IPv6 address, and only the guest's IPv4 address can be set: write one such as 10.0.2.15/24, or 'host'"
    )]
    V6(String),
    /// The address belongs to a block that no host may use.
    #[error("{address} is {what}, which no guest can have: use a private one such as 10.0.2.15/24")]
    Block {
        /// The address.
        address: Ipv4Addr,
        /// The kind of block, in words.
        what: &'static str,
    },
    /// The subnet is too small for a guest and a gateway, or larger than a /8.
    #[error(
        "a subnet of /{prefix} has no room for a guest and its gateway: use a prefix length from 8 to 30"
    )]
    Prefix {
        /// The prefix length.
        prefix: u8,
    },
    /// The address is the network address of its subnet.
    #[error("{address} is the network address of {subnet}, not a host's: use {first} to {last}")]
    Network {
        /// The address.
        address: Ipv4Addr,
        /// Its subnet.
        subnet: Ipv4Net,
        /// The lowest address that a host can have in the subnet.
        first: Ipv4Addr,
        /// The highest address that a host can have in the subnet.
        last: Ipv4Addr,
    },
    /// The address is the broadcast address of its subnet.
    #[error("{address} is the broadcast address of {subnet}, not a host's: use {first} to {last}")]
    Broadcast {
        /// The address.
        address: Ipv4Addr,
        /// Its subnet.
        subnet: Ipv4Net,
        /// The lowest address that a host can have in the subnet.
        first: Ipv4Addr,
        /// The highest address that a host can have in the subnet.
        last: Ipv4Addr,
    },
}

impl HostAddress {
    /// Checks that a host can have `address` in its subnet of `prefix` bits.
    ///
    /// # Errors
    /// [`AddressError`] if the address is the network or broadcast address of its subnet, if it
    /// belongs to a special block (RFC 6890: 0/8 and 127/8; class D and class E), or if the prefix
    /// length is not 8 to 30.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, AddressError> {
        let block = |what| Err(AddressError::Block { address, what });
        match address.octets()[0] {
            0 => return block("of 0.0.0.0/8 (\"this network\")"),
            127 => return block("a loopback address"),
            224..=239 => return block("a multicast address"),
            240.. => return block("of the reserved block 240.0.0.0/4"),
            _ => {}
        }
        if !(8..=30).contains(&prefix) {
            return Err(AddressError::Prefix { prefix });
        }
        let net = Ipv4Net::new(address, prefix).map_err(|_| AddressError::Prefix { prefix })?;
        let subnet = net.trunc();
        let (first, last) = edges(subnet);
        if address == subnet.network() {
            return Err(AddressError::Network { address, subnet, first, last });
        }
        if address == subnet.broadcast() {
            return Err(AddressError::Broadcast { address, subnet, first, last });
        }
        Ok(HostAddress(net))
    }

    /// Returns the address without the prefix length.
    pub fn address(self) -> Ipv4Addr {
        self.0.addr()
    }

    /// Returns the subnet, with all host bits zero.
    pub fn subnet(self) -> Ipv4Net {
        self.0.trunc()
    }
}

/// Returns the lowest and the highest host address of a subnet with a prefix of at most 30 bits.
pub(super) fn edges(subnet: Ipv4Net) -> (Ipv4Addr, Ipv4Addr) {
    let first = u32::from(subnet.network()) + 1;
    let last = u32::from(subnet.broadcast()) - 1;
    (first.into(), last.into())
}

impl FromStr for HostAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let form = || AddressError::Form(text.to_owned());
        if text.contains(':') {
            return Err(AddressError::V6(text.to_owned()));
        }
        let (address, prefix) = text.split_once('/').ok_or_else(form)?;
        if !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(form());
        }
        let prefix: u8 = prefix.parse().map_err(|_| form())?;
        HostAddress::new(address.parse().map_err(|_| form())?, prefix)
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

string_conversions!(HostAddress, AddressError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_prefix_length_is_printed_as_it_was_read() {
        for good in ["10.0.2.15/24", "169.254.2.15/16", "192.0.2.1/30", "10.255.255.254/8"] {
            assert_eq!(good.parse::<HostAddress>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn an_error_names_the_reason_why_an_address_is_refused() {
        for (text, words) in [
            ("10.0.2.15", "prefix length"),
            ("10.0.2/24", "prefix length"),
            ("10.0.2.15/+24", "prefix length"),
            ("10.0.2.15/", "prefix length"),
            ("10.0.2.15/999", "prefix length"),
            ("2001:db8::1/64", "IPv6"),
            (
                "169.254.0.0/16",
                "network address of 169.254.0.0/16, not a host's: use 169.254.0.1 to 169.254.255.254",
            ),
            ("10.0.2.255/24", "broadcast address of 10.0.2.0/24"),
            ("0.0.0.0/8", "this network"),
            ("127.0.0.1/8", "loopback"),
            ("224.0.0.1/24", "multicast"),
            ("255.255.255.255/24", "reserved"),
            ("10.0.0.1/31", "no room"),
            ("10.0.0.1/32", "no room"),
            ("10.0.0.1/7", "no room"),
        ] {
            let error = text.parse::<HostAddress>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
