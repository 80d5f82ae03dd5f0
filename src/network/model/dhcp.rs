//! The DHCP server of a subnet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::network::values::{BootFile, Duid};
use crate::types::{DnsName, HostName, Mac};

/// The settings of a DHCP server for one subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dhcp {
    /// The addresses for any guest.
    pub ranges: Vec<DhcpRange>,
    /// The fixed addresses of particular guests.
    pub hosts: Vec<DhcpHost>,
    /// The file that guests boot from.
    pub bootp: Option<Bootp>,
}

/// A range of addresses for any guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpRange {
    /// The lowest address.
    pub first: IpAddr,
    /// The highest address.
    pub last: IpAddr,
    /// The lease time; `None` leaves it to the DHCP server.
    pub lease: Option<Lease>,
}

impl DhcpRange {
    /// Returns the range without the bridge's own address `own`, as at most two ranges, lowest
    /// first.
    pub fn without(&self, own: IpAddr) -> Vec<DhcpRange> {
        if own < self.first || self.last < own {
            return vec![self.clone()];
        }
        let next = |by: i8| -> Option<IpAddr> {
            Some(match own {
                IpAddr::V4(own) => {
                    Ipv4Addr::from(u32::from(own).checked_add_signed(by.into())?).into()
                }
                IpAddr::V6(own) => {
                    Ipv6Addr::from(u128::from(own).checked_add_signed(by.into())?).into()
                }
            })
        };
        let below = next(-1).map(|last| DhcpRange { last, ..self.clone() });
        let above = next(1).map(|first| DhcpRange { first, ..self.clone() });
        below.into_iter().chain(above).filter(|part| part.first <= part.last).collect()
    }
}

/// The fixed address of a particular guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpHost {
    /// The attribute by which DHCP identifies the guest.
    pub client: Client,
    /// The guest's address.
    pub ip: IpAddr,
    /// The lease time; `None` leaves it to the DHCP server.
    pub lease: Option<Lease>,
}

/// The attribute by which DHCP identifies a guest. Exhaustive, because a DHCP server needs one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Client {
    /// Its hardware address (IPv4), and the name that DHCP gives it.
    Mac(Mac, Option<HostName>),
    /// Its DHCP unique identifier (IPv6), and the name that DHCP gives it.
    Duid(Duid, Option<HostName>),
    /// The name that the guest sends.
    Name(HostName),
}

impl Client {
    /// Returns the name that DHCP gives the guest, or that the guest sends.
    pub fn name(&self) -> Option<&HostName> {
        match self {
            Client::Mac(_, name) | Client::Duid(_, name) => name.as_ref(),
            Client::Name(name) => Some(name),
        }
    }
}

/// The duration of a lease. Exhaustive, because a lease ends or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// The lease never expires.
    Infinite,
    /// The lease lasts this many seconds, at least 120.
    Seconds(u32),
}

/// The file that guests boot from (IPv4), and its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootp {
    /// The name of the file.
    pub file: BootFile,
    /// The server that has the file, as a name or an IPv4 address; `None` means the bridge's own
    /// address.
    pub server: Option<DnsName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_without_the_bridges_own_address_is_at_most_two_ranges() {
        let range = |first: &str, last: &str| DhcpRange {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
            lease: None,
        };
        for (first, last, own, parts) in [
            ("10.0.0.1", "10.0.0.9", "10.0.0.1", &[("10.0.0.2", "10.0.0.9")][..]),
            ("10.0.0.2", "10.0.0.9", "10.0.0.9", &[("10.0.0.2", "10.0.0.8")]),
            (
                "10.0.0.2",
                "10.0.0.9",
                "10.0.0.5",
                &[("10.0.0.2", "10.0.0.4"), ("10.0.0.6", "10.0.0.9")],
            ),
            ("10.0.0.2", "10.0.0.9", "10.0.0.1", &[("10.0.0.2", "10.0.0.9")]),
            ("10.0.0.1", "10.0.0.1", "10.0.0.1", &[]),
            ("fd00::1", "fd00::9", "fd00::1", &[("fd00::2", "fd00::9")]),
        ] {
            let parts: Vec<_> = parts.iter().map(|(first, last)| range(first, last)).collect();
            assert_eq!(range(first, last).without(own.parse().unwrap()), parts, "{own}");
        }
    }
}
