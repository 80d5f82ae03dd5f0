//! The network as the guest sees it: its own address, the gateway, the DNS server.
//!
//! passt takes any 32 bits as an address (measured: a network address goes to the guest as it is,
//! and without a netmask Debian 12's passt derives a mask of one bit), so what is sane is decided
//! here, before any program sees it.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// An IPv4 address that a host can have, with the prefix length of its subnet (`10.0.2.15/24`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostAddress(Ipv4Net);

/// Why a text is no address for a guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `A.B.C.D/PREFIX`.
    #[error("{0:?} is not an IPv4 address with a prefix length: write one such as 10.0.2.15/24")]
    Form(String),
    /// An IPv6 address.
    #[error(
        "{0:?} is an IPv6 address, and only the guest's IPv4 address can be set: write one such as 10.0.2.15/24, or 'host'"
    )]
    V6(String),
    /// An address of a block that no host may have.
    #[error("{address} is {what}, which no guest can have: use a private one such as 10.0.2.15/24")]
    Block {
        /// The address.
        address: Ipv4Addr,
        /// What the block is.
        what: &'static str,
    },
    /// The prefix leaves no room for a guest and a gateway.
    #[error(
        "a subnet of /{prefix} has no room for a guest and its gateway: use a prefix length from 8 to 30"
    )]
    Prefix {
        /// The prefix length.
        prefix: u8,
    },
    /// The address of the subnet itself.
    #[error("{address} is the network address of {subnet}, not a host's: use {first} to {last}")]
    Network {
        /// The address.
        address: Ipv4Addr,
        /// Its subnet.
        subnet: Ipv4Net,
        /// The lowest address a host can have there.
        first: Ipv4Addr,
        /// The highest.
        last: Ipv4Addr,
    },
    /// The subnet's broadcast address.
    #[error("{address} is the broadcast address of {subnet}, not a host's: use {first} to {last}")]
    Broadcast {
        /// The address.
        address: Ipv4Addr,
        /// Its subnet.
        subnet: Ipv4Net,
        /// The lowest address a host can have there.
        first: Ipv4Addr,
        /// The highest.
        last: Ipv4Addr,
    },
}

impl HostAddress {
    /// Checks that a host in the subnet of `prefix` bits around `address` can have that address.
    ///
    /// # Errors
    /// [`AddressError`] when it is the subnet's own or broadcast address, of a special block (RFC
    /// 6890: 0/8, 127/8, class D and E), or the prefix is not 8 to 30.
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

    /// The address alone.
    pub fn address(self) -> Ipv4Addr {
        self.0.addr()
    }

    /// The subnet, host bits zero.
    pub fn subnet(self) -> Ipv4Net {
        self.0.trunc()
    }
}

/// The lowest and highest host address of a subnet of at most 30 bits.
fn edges(subnet: Ipv4Net) -> (Ipv4Addr, Ipv4Addr) {
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

impl TryFrom<String> for HostAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<HostAddress> for String {
    fn from(address: HostAddress) -> String {
        address.to_string()
    }
}

/// What DHCP tells the guest: the same on passt and slirp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestView {
    /// The guest's address and subnet.
    pub address: HostAddress,
    /// The router, a host address of the same subnet; connections to it reach the host itself.
    pub gateway: Ipv4Addr,
    /// An address of the subnet whose DNS queries the backend forwards to the host's resolver.
    pub dns: Ipv4Addr,
}

/// Subnets to try for the guest, in order, when none was asked for: the usual one of QEMU's user
/// network first, then one of each private block (RFC 1918) that is rarely in use.
pub const DEFAULT_VIEW: [Ipv4Net; 5] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 2, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 203, 2, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 29, 2, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 202, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 2, 0), 24),
];

/// Why an address, a gateway and a DNS server make no network together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestViewError {
    /// The gateway is elsewhere.
    #[error(
        "the gateway {gateway} is outside the guest's subnet {subnet}: use an address of it, or leave --gateway out"
    )]
    GatewayOutside {
        /// The gateway.
        gateway: Ipv4Addr,
        /// The guest's subnet.
        subnet: Ipv4Net,
    },
    /// The gateway is the guest.
    #[error(
        "the gateway {0} is the guest's own address: use another of its subnet, or leave --gateway out"
    )]
    GatewayIsGuest(Ipv4Addr),
    /// The gateway is the subnet's own or broadcast address.
    #[error(
        "the gateway {gateway} is the {what} address of {subnet}, not a host's: use another, or leave --gateway out"
    )]
    GatewayNoHost {
        /// The gateway.
        gateway: Ipv4Addr,
        /// "network" or "broadcast".
        what: &'static str,
        /// The guest's subnet.
        subnet: Ipv4Net,
    },
    /// The DNS server is the guest.
    #[error("the DNS server {0} is the guest's own address: use another, or leave --dns out")]
    DnsIsGuest(Ipv4Addr),
    /// The DNS server is the subnet's own or broadcast address.
    #[error(
        "the DNS server {0} is the network or broadcast address of the guest's subnet: use another, or leave --dns out"
    )]
    DnsNoHost(Ipv4Addr),
}

impl GuestView {
    /// The view for a guest at `address`.
    ///
    /// Without a gateway it is the second address of the subnet (the first where that is the
    /// guest); without a DNS server it is the next free address after the gateway, else before it,
    /// or the gateway in a subnet that has no third address: so 10.0.2.15/24 gives 10.0.2.2 and
    /// 10.0.2.3, as QEMU's user network does.
    ///
    /// # Errors
    /// [`GuestViewError`] when the gateway or the DNS server cannot be where it was asked for.
    pub fn new(
        address: HostAddress,
        gateway: Option<Ipv4Addr>,
        dns: Option<Ipv4Addr>,
    ) -> Result<Self, GuestViewError> {
        let (guest, subnet) = (address.address(), address.subnet());
        let (first, last) = edges(subnet);
        let gateway = match gateway {
            None => {
                let second = Ipv4Addr::from(u32::from(first) + 1);
                if second == guest { first } else { second }
            }
            Some(gateway) if !subnet.contains(&gateway) => {
                return Err(GuestViewError::GatewayOutside { gateway, subnet });
            }
            Some(gateway) if gateway == guest => {
                return Err(GuestViewError::GatewayIsGuest(gateway));
            }
            Some(gateway) if gateway == subnet.network() => {
                return Err(GuestViewError::GatewayNoHost { gateway, what: "network", subnet });
            }
            Some(gateway) if gateway == subnet.broadcast() => {
                return Err(GuestViewError::GatewayNoHost { gateway, what: "broadcast", subnet });
            }
            Some(gateway) => gateway,
        };
        let dns = match dns {
            None => {
                let after = u32::from(gateway) + 1..=u32::from(last);
                let before = (u32::from(first)..u32::from(gateway)).rev();
                let mut free = after.chain(before).map(Ipv4Addr::from).filter(|a| *a != guest);
                free.next().unwrap_or(gateway)
            }
            Some(dns) if dns == guest => return Err(GuestViewError::DnsIsGuest(dns)),
            Some(dns) if dns == subnet.network() || dns == subnet.broadcast() => {
                return Err(GuestViewError::DnsNoHost(dns));
            }
            Some(dns) => dns,
        };
        Ok(GuestView { address, gateway, dns })
    }

    /// The default view in `subnet` (a /24): guest .15, gateway .2, DNS .3.
    pub fn in_subnet(subnet: Ipv4Net) -> Result<Self, GuestViewError> {
        let guest = Ipv4Addr::from(u32::from(subnet.network()) + 15);
        // The host bits 15 are neither all zeros nor all ones in a subnet of 27 bits or less.
        let net = Ipv4Net::new(guest, subnet.prefix_len()).unwrap_or(subnet);
        GuestView::new(HostAddress(net), None, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn host_addresses() {
        for good in ["10.0.2.15/24", "169.254.2.15/16", "192.0.2.1/30", "10.255.255.254/8"] {
            assert_eq!(good.parse::<HostAddress>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn refused_addresses_name_the_reason() {
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

    #[test]
    fn views() {
        for (address, gateway, dns, expected) in [
            ("10.0.2.15/24", None, None, ("10.0.2.2", "10.0.2.3")),
            ("10.0.2.2/24", None, None, ("10.0.2.1", "10.0.2.3")),
            ("192.0.2.1/30", None, None, ("192.0.2.2", "192.0.2.2")),
            ("169.254.2.15/16", Some("169.254.2.2"), None, ("169.254.2.2", "169.254.2.3")),
            ("10.0.2.15/24", Some("10.0.2.254"), None, ("10.0.2.254", "10.0.2.253")),
            ("10.0.2.15/24", None, Some("9.9.9.9"), ("10.0.2.2", "9.9.9.9")),
        ] {
            let view =
                GuestView::new(address.parse().unwrap(), gateway.map(ip), dns.map(ip)).unwrap();
            assert_eq!((view.gateway, view.dns), (ip(expected.0), ip(expected.1)), "{address}");
        }
    }

    #[test]
    fn refused_views() {
        let subnet = "10.0.2.0/24".parse().unwrap();
        for (gateway, dns, error) in [
            (
                Some("10.0.3.2"),
                None,
                GuestViewError::GatewayOutside { gateway: ip("10.0.3.2"), subnet },
            ),
            (Some("10.0.2.15"), None, GuestViewError::GatewayIsGuest(ip("10.0.2.15"))),
            (
                Some("10.0.2.0"),
                None,
                GuestViewError::GatewayNoHost { gateway: ip("10.0.2.0"), what: "network", subnet },
            ),
            (
                Some("10.0.2.255"),
                None,
                GuestViewError::GatewayNoHost {
                    gateway: ip("10.0.2.255"),
                    what: "broadcast",
                    subnet,
                },
            ),
            (None, Some("10.0.2.15"), GuestViewError::DnsIsGuest(ip("10.0.2.15"))),
            (None, Some("10.0.2.255"), GuestViewError::DnsNoHost(ip("10.0.2.255"))),
        ] {
            let address = "10.0.2.15/24".parse().unwrap();
            assert_eq!(GuestView::new(address, gateway.map(ip), dns.map(ip)), Err(error));
        }
    }

    #[test]
    fn every_default_subnet_gives_the_usual_last_bytes() {
        for subnet in DEFAULT_VIEW {
            let view = GuestView::in_subnet(subnet).unwrap();
            let last = [view.address.address(), view.gateway, view.dns].map(|a| a.octets()[3]);
            assert_eq!(last, [15, 2, 3]);
            assert_eq!(HostAddress::new(view.address.address(), 24), Ok(view.address));
        }
    }

    proptest! {
        #[test]
        fn a_view_never_holds_an_impossible_address(a: u32, prefix in 0u8..=33) {
            if let Ok(address) = HostAddress::new(a.into(), prefix) {
                let view = GuestView::new(address, None, None).unwrap();
                let subnet = address.subnet();
                for one in [address.address(), view.gateway, view.dns] {
                    prop_assert!(subnet.contains(&one));
                    prop_assert!(one != subnet.network() && one != subnet.broadcast());
                }
                prop_assert!(view.gateway != address.address() && view.dns != address.address());
            }
        }
    }
}
