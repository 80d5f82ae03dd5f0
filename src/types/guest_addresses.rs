//! The IPv4 network that a guest sees: its address, its gateway and its DNS server.
//!
//! [`GuestAddresses::new`] checks that the three addresses fit together.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::address::{HostAddress, edges};

/// The addresses that DHCP gives to the guest; they are the same for passt and slirp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestAddresses {
    /// The guest's address and subnet.
    pub address: HostAddress,
    /// The router, a host address of the same subnet. Connections to the router reach the host
    /// itself.
    pub gateway: Ipv4Addr,
    /// The DNS server. If its address is in the subnet, the backend forwards the queries to the
    /// host's resolver.
    pub dns: Ipv4Addr,
}

/// The subnets to try, in order, for a guest without a requested address.
///
/// The first one is the usual subnet of QEMU's user network. Then comes one rarely used subnet of
/// each private block (RFC 1918), and the last one is a link-local subnet.
pub const DEFAULT_SUBNETS: [Ipv4Net; 5] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 2, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 203, 2, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 29, 2, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 202, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 2, 0), 24),
];

/// The reason why an address, a gateway and a DNS server do not form one network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuestAddressesError {
    /// The gateway is outside the guest's subnet.
    #[error(
        "the gateway {gateway} is outside the guest's subnet {subnet}: use an address of it, or leave the gateway out"
    )]
    GatewayOutside {
        /// The gateway.
        gateway: Ipv4Addr,
        /// The guest's subnet.
        subnet: Ipv4Net,
    },
    /// The gateway has the guest's own address.
    #[error(
        "the gateway {0} is the guest's own address: use another of its subnet, or leave the gateway out"
    )]
    GatewayIsGuest(Ipv4Addr),
    /// The gateway is the network or broadcast address of the subnet.
    #[error(
        "the gateway {gateway} is the {what} address of {subnet}, not a host's: use another, or leave the gateway out"
    )]
    GatewayNoHost {
        /// The gateway.
        gateway: Ipv4Addr,
        /// `network` or `broadcast`.
        what: &'static str,
        /// The guest's subnet.
        subnet: Ipv4Net,
    },
    /// The DNS server has the guest's own address.
    #[error("the DNS server {0} is the guest's own address: use another, or leave the server out")]
    DnsIsGuest(Ipv4Addr),
    /// The DNS server is the network or broadcast address of the guest's subnet.
    #[error(
        "the DNS server {0} is the network or broadcast address of the guest's subnet: use another, or leave the server out"
    )]
    DnsNoHost(Ipv4Addr),
}

impl GuestAddresses {
    /// Makes the addresses of a guest at `address`.
    ///
    /// The default gateway is the second address of the subnet, or the first one if the guest has
    /// the second. The default DNS server is the next free address after the gateway, else the
    /// nearest free address before it; a subnet without a third address uses the gateway. So
    /// 10.0.2.15/24 gives 10.0.2.2 and 10.0.2.3, as in QEMU's user network.
    ///
    /// # Errors
    /// [`GuestAddressesError`] if the gateway or the DNS server cannot have the requested address.
    pub fn new(
        address: HostAddress,
        gateway: Option<Ipv4Addr>,
        dns: Option<Ipv4Addr>,
    ) -> Result<Self, GuestAddressesError> {
        let (guest, subnet) = (address.address(), address.subnet());
        let (first, last) = edges(subnet);
        let gateway = match gateway {
            None => {
                let second = Ipv4Addr::from(u32::from(first) + 1);
                if second == guest { first } else { second }
            }
            Some(gateway) if !subnet.contains(&gateway) => {
                return Err(GuestAddressesError::GatewayOutside { gateway, subnet });
            }
            Some(gateway) if gateway == guest => {
                return Err(GuestAddressesError::GatewayIsGuest(gateway));
            }
            Some(gateway) if gateway == subnet.network() => {
                return Err(GuestAddressesError::GatewayNoHost {
                    gateway,
                    what: "network",
                    subnet,
                });
            }
            Some(gateway) if gateway == subnet.broadcast() => {
                return Err(GuestAddressesError::GatewayNoHost {
                    gateway,
                    what: "broadcast",
                    subnet,
                });
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
            Some(dns) if dns == guest => return Err(GuestAddressesError::DnsIsGuest(dns)),
            Some(dns) if dns == subnet.network() || dns == subnet.broadcast() => {
                return Err(GuestAddressesError::DnsNoHost(dns));
            }
            Some(dns) => dns,
        };
        Ok(GuestAddresses { address, gateway, dns })
    }

    /// Makes the default addresses in `subnet` (a /24): guest .15, gateway .2, DNS server .3.
    pub fn in_subnet(subnet: Ipv4Net) -> Result<Self, GuestAddressesError> {
        let guest = Ipv4Addr::from(u32::from(subnet.network()) + 15);
        // With a prefix of 27 bits or less, the host bits 15 are neither all zeros nor all ones.
        let net = Ipv4Net::new(guest, subnet.prefix_len()).unwrap_or(subnet);
        GuestAddresses::new(HostAddress(net), None, None)
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
    fn a_missing_gateway_or_dns_server_gets_a_free_address() {
        for (address, gateway, dns, expected) in [
            ("10.0.2.15/24", None, None, ("10.0.2.2", "10.0.2.3")),
            ("10.0.2.2/24", None, None, ("10.0.2.1", "10.0.2.3")),
            ("192.0.2.1/30", None, None, ("192.0.2.2", "192.0.2.2")),
            ("169.254.2.15/16", Some("169.254.2.2"), None, ("169.254.2.2", "169.254.2.3")),
            ("10.0.2.15/24", Some("10.0.2.254"), None, ("10.0.2.254", "10.0.2.253")),
            ("10.0.2.15/24", None, Some("9.9.9.9"), ("10.0.2.2", "9.9.9.9")),
        ] {
            let addresses =
                GuestAddresses::new(address.parse().unwrap(), gateway.map(ip), dns.map(ip))
                    .unwrap();
            assert_eq!(
                (addresses.gateway, addresses.dns),
                (ip(expected.0), ip(expected.1)),
                "{address}"
            );
        }
    }

    #[test]
    fn a_gateway_or_dns_server_that_cannot_have_its_address_is_refused() {
        let subnet = "10.0.2.0/24".parse().unwrap();
        for (gateway, dns, error) in [
            (
                Some("10.0.3.2"),
                None,
                GuestAddressesError::GatewayOutside { gateway: ip("10.0.3.2"), subnet },
            ),
            (Some("10.0.2.15"), None, GuestAddressesError::GatewayIsGuest(ip("10.0.2.15"))),
            (
                Some("10.0.2.0"),
                None,
                GuestAddressesError::GatewayNoHost {
                    gateway: ip("10.0.2.0"),
                    what: "network",
                    subnet,
                },
            ),
            (
                Some("10.0.2.255"),
                None,
                GuestAddressesError::GatewayNoHost {
                    gateway: ip("10.0.2.255"),
                    what: "broadcast",
                    subnet,
                },
            ),
            (None, Some("10.0.2.15"), GuestAddressesError::DnsIsGuest(ip("10.0.2.15"))),
            (None, Some("10.0.2.255"), GuestAddressesError::DnsNoHost(ip("10.0.2.255"))),
        ] {
            let address = "10.0.2.15/24".parse().unwrap();
            assert_eq!(GuestAddresses::new(address, gateway.map(ip), dns.map(ip)), Err(error));
        }
    }

    #[test]
    fn every_default_subnet_ends_in_15_for_the_guest_2_for_the_gateway_3_for_dns() {
        for subnet in DEFAULT_SUBNETS {
            let addresses = GuestAddresses::in_subnet(subnet).unwrap();
            let last = [addresses.address.address(), addresses.gateway, addresses.dns]
                .map(|a| a.octets()[3]);
            assert_eq!(last, [15, 2, 3]);
            assert_eq!(HostAddress::new(addresses.address.address(), 24), Ok(addresses.address));
        }
    }

    proptest! {
        #[test]
        fn default_addresses_are_host_addresses_of_the_subnet(a: u32, prefix in 0u8..=33) {
            if let Ok(address) = HostAddress::new(a.into(), prefix) {
                let addresses = GuestAddresses::new(address, None, None).unwrap();
                let subnet = address.subnet();
                for one in [address.address(), addresses.gateway, addresses.dns] {
                    prop_assert!(subnet.contains(&one));
                    prop_assert!(one != subnet.network() && one != subnet.broadcast());
                }
                prop_assert!(addresses.gateway != address.address() && addresses.dns != address.address());
            }
        }
    }
}
