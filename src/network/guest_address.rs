//! Finds the address of a guest on a bridge by the MAC address of its card.
//!
//! Three places know an address. They are asked in this order, separately for each IP version:
//!
//! 1. the active lease for the MAC address in the lease file of the network's dnsmasq,
//! 2. the reservation for the MAC address in the definition that the running network has,
//! 3. the kernel's neighbour table of the bridge, for guests with an address of their own choice.
//!
//! A guest keeps its leased address until it asks again, even if the network reserves another one
//! for it in the meantime.
//!
//! [`AddressTable`] has what the three places say at one moment; the search in it is pure. A bridge
//! without a network of netlaunch has only the third place. Neighbours outside the subnets of the
//! network are ignored, because a guest can claim any address.

use std::cmp::Reverse;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;

use super::Network;
use super::dnsmasq::lease_file::{LeaseFile, duid_mac, mac};
use super::dnsmasq::{DhcpLease, Files, LeaseFileError};
use super::manager::NetworkStatus;
use super::model::Client;
use crate::sys::netlink::{LinkError, Neighbor, Netlink};
use crate::types::{InterfaceName, Mac};

/// The place that an address was found in. Exhaustive, because a caller treats each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressSource {
    /// The definition of the network reserves it for the MAC address.
    Reservation,
    /// The network's DHCP server has leased it.
    Lease,
    /// The kernel's neighbour table of the bridge has it.
    Neighbor,
}

impl AddressSource {
    /// Returns its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            AddressSource::Reservation => "reservation",
            AddressSource::Lease => "lease",
            AddressSource::Neighbor => "neighbor",
        }
    }
}

impl fmt::Display for AddressSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An address, and the place that it was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundAddress<A> {
    /// The address.
    pub address: A,
    /// The place.
    pub source: AddressSource,
}

/// The addresses of one guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundAddresses {
    /// The IPv4 address.
    pub v4: Option<FoundAddress<Ipv4Addr>>,
    /// The IPv6 address, never a link-local one.
    pub v6: Option<FoundAddress<Ipv6Addr>>,
}

/// The addresses that are known on one bridge.
#[derive(Debug, Clone, Default)]
pub struct AddressTable {
    reserved: Vec<(Mac, IpAddr)>,
    leases: Vec<DhcpLease>,
    damaged: usize,
    neighbors: Vec<Neighbor>,
    /// The subnets of the network; empty for a bridge without a network.
    subnets: Vec<IpNet>,
}

impl AddressTable {
    /// Reads the reservations, leases and neighbours of a running network. If the lease file or the
    /// bridge cannot be read, the table has the other places and the error.
    pub async fn of_network(status: &NetworkStatus) -> (Self, Vec<AddressTableError>) {
        let mut errors = Vec::new();
        let leases = LeaseFile::read(&Files::in_dir(&status.dir).leases);
        let leases = leases.unwrap_or_else(|error| {
            errors.push(error.into());
            LeaseFile::default()
        });
        let neighbors = neighbors(&status.bridge).await.unwrap_or_else(|error| {
            errors.push(error.into());
            Vec::new()
        });
        let network = status.network();
        let mut table = AddressTable::new(network.as_ref(), leases.leases, neighbors, now());
        table.damaged = leases.damaged;
        (table, errors)
    }

    /// Reads the neighbours of a bridge that belongs to no network of netlaunch.
    ///
    /// # Errors
    /// The bridge does not exist, or the kernel refuses.
    pub async fn of_bridge(bridge: &InterfaceName) -> Result<Self, LinkError> {
        Ok(AddressTable::new(None, Vec::new(), neighbors(bridge).await?, now()))
    }

    /// Makes a table from the values of the three places; leases that have ended at `now`, in
    /// seconds since 1970, are left out.
    fn new(
        network: Option<&Network>,
        mut leases: Vec<DhcpLease>,
        neighbors: Vec<Neighbor>,
        now: u64,
    ) -> Self {
        leases.retain(|lease| lease.is_active(now));
        let hosts = network.into_iter().flat_map(|network| &network.ips);
        let hosts = hosts.filter_map(|ip| ip.dhcp.as_ref()).flat_map(|dhcp| &dhcp.hosts);
        let reserved = hosts.filter_map(|host| {
            let mac = match &host.client {
                Client::Mac(mac, _) => Some(*mac),
                Client::Duid(duid, _) => duid_mac(duid.octets()),
                // The lease of a guest with that name has the MAC address.
                Client::Name(_) => None,
            };
            Some((mac?, host.ip))
        });
        AddressTable {
            reserved: reserved.collect(),
            leases,
            damaged: 0,
            neighbors,
            subnets: network.map(|network| network.subnets().collect()).unwrap_or_default(),
        }
    }

    /// Returns the active leases, in the order of dnsmasq's file.
    pub fn leases(&self) -> &[DhcpLease] {
        &self.leases
    }

    /// Returns the MAC address of the guest that has a lease: the one in the lease, or that of the
    /// neighbour with the address. A lease over IPv6 has none if the guest identifies itself by
    /// a number of its vendor or by a UUID (RFC 8415, 11.3 and 11.5).
    pub fn mac_of(&self, lease: &DhcpLease) -> Option<Mac> {
        let seen = || {
            let neighbor = self.neighbors.iter().find(|one| one.address == lease.address)?;
            mac(&neighbor.mac)
        };
        lease.mac.or_else(seen)
    }

    /// Returns whether a guest with another MAC address has leased or reserved this address.
    pub fn is_of_other(&self, address: IpAddr, mac: Mac) -> bool {
        let leased = self.leases.iter().find(|lease| lease.address == address);
        let reserved = self.reserved.iter().any(|(of, ip)| *ip == address && *of != mac);
        leased.map_or(reserved, |lease| lease.mac != Some(mac))
    }

    /// Returns the number of damaged lines in the lease file.
    pub fn damaged_lines(&self) -> usize {
        self.damaged
    }

    /// Returns the addresses of the guest whose card has this MAC address.
    pub fn find(&self, mac: Mac) -> FoundAddresses {
        let (v4, v6) = (self.find_version(mac, false), self.find_version(mac, true));
        FoundAddresses {
            v4: v4.and_then(|found| match found.address {
                IpAddr::V4(address) => Some(FoundAddress { address, source: found.source }),
                IpAddr::V6(_) => None,
            }),
            v6: v6.and_then(|found| match found.address {
                IpAddr::V6(address) => Some(FoundAddress { address, source: found.source }),
                IpAddr::V4(_) => None,
            }),
        }
    }

    fn find_version(&self, mac: Mac, v6: bool) -> Option<FoundAddress<IpAddr>> {
        let of_version = |address: &IpAddr| address.is_ipv6() == v6;
        let reserved = self.reserved.iter().find(|(of, ip)| *of == mac && of_version(ip));
        let reserved = reserved.map(|(_, address)| *address);
        let leases =
            self.leases.iter().filter(|lease| lease.mac == Some(mac) && of_version(&lease.address));
        let used_by_other = |address: IpAddr| {
            let other = |one: &Neighbor| one.address == address && one.mac != mac.octets();
            self.neighbors.iter().any(other)
        };
        // A guest that has changed its client identifier has an earlier lease, which ends earlier.
        // A guest with two cards has one DUID, so the leases of both have the same MAC address, and
        // the neighbour table tells them apart.
        let lease = leases.max_by_key(|lease| {
            let is_reserved = Some(lease.address) == reserved;
            let until = lease.until.unwrap_or(u64::MAX);
            (is_reserved, !used_by_other(lease.address), until)
        });
        let lease = lease.map(|lease| lease.address);
        match (lease, reserved) {
            (Some(lease), Some(reserved)) if lease == reserved || used_by_other(lease) => {
                return Some(reserved_at(reserved));
            }
            (Some(address), _) => {
                return Some(FoundAddress { address, source: AddressSource::Lease });
            }
            (None, Some(reserved)) => return Some(reserved_at(reserved)),
            (None, None) => {}
        }
        let neighbors = self.neighbors.iter().filter(|neighbor| {
            neighbor.mac == mac.octets()
                && of_version(&neighbor.address)
                && self.is_usable(neighbor)
        });
        let neighbor = neighbors.min_by_key(|neighbor| {
            let stable = is_from_mac(neighbor.address, mac);
            (Reverse(neighbor.reachable), Reverse(stable), neighbor.confirmed, neighbor.address)
        });
        neighbor.map(|neighbor| FoundAddress {
            address: neighbor.address,
            source: AddressSource::Neighbor,
        })
    }

    /// Returns whether the address of a neighbour can be that of a guest of this network.
    fn is_usable(&self, neighbor: &Neighbor) -> bool {
        let special = match neighbor.address {
            IpAddr::V4(address) => address.is_link_local() || address.is_unspecified(),
            IpAddr::V6(address) => address.is_unicast_link_local() || address.is_unspecified(),
        };
        let inside = |subnet: &IpNet| subnet.contains(&neighbor.address);
        !special
            && !neighbor.address.is_multicast()
            && (self.subnets.is_empty() || self.subnets.iter().any(inside))
    }
}

fn reserved_at(address: IpAddr) -> FoundAddress<IpAddr> {
    FoundAddress { address, source: AddressSource::Reservation }
}

/// Returns whether the lower half of an IPv6 address is made from the MAC address (RFC 4291,
/// Appendix A). Such an address stays, and a temporary one does not.
fn is_from_mac(address: IpAddr, mac: Mac) -> bool {
    let [a, b, c, d, e, g] = mac.octets();
    match address {
        IpAddr::V6(address) => address.octets()[8..] == [a ^ 2, b, c, 0xff, 0xfe, d, e, g],
        IpAddr::V4(_) => false,
    }
}

async fn neighbors(bridge: &InterfaceName) -> Result<Vec<Neighbor>, LinkError> {
    let netlink = Netlink::open()?;
    let link = netlink.link(bridge).await?;
    netlink.neighbors(link.index).await
}

/// Returns the seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}

/// A place of addresses cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressTableError {
    /// The lease file of dnsmasq.
    #[error(transparent)]
    Leases(#[from] LeaseFileError),
    /// The neighbour table of the bridge.
    #[error(transparent)]
    Link(#[from] LinkError),
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: &str = "<network><name>lab</name>\
        <uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000094</uuid><bridge name='nlt0'/>\
        <mac address='52:54:00:00:00:94'/><ip address='10.94.0.1' netmask='255.255.255.0'><dhcp>\
        <host mac='52:54:00:00:00:01' ip='10.94.0.9'/></dhcp></ip>\
        <ip family='ipv6' address='fd00:94::1' prefix='64'><dhcp>\
        <host id='00:03:00:01:52:54:00:00:00:01' ip='fd00:94::9'/></dhcp></ip></network>";

    fn mac(last: u8) -> Mac {
        format!("52:54:00:00:00:{last:02x}").parse().unwrap()
    }

    fn lease(last: u8, address: &str, until: Option<u64>) -> DhcpLease {
        let address = address.parse().unwrap();
        DhcpLease {
            address,
            mac: Some(mac(last)),
            name: None,
            client: None,
            association: None,
            until,
        }
    }

    fn neighbor(last: u8, address: &str, reachable: bool) -> Neighbor {
        let address = address.parse().unwrap();
        Neighbor { link: 7, address, mac: mac(last).octets(), reachable, confirmed: 5 }
    }

    fn found(table: &AddressTable, last: u8) -> String {
        let FoundAddresses { v4, v6 } = table.find(mac(last));
        let v4 = v4.map_or("-".to_owned(), |one| format!("{} {}", one.address, one.source));
        let v6 = v6.map_or("-".to_owned(), |one| format!("{} {}", one.address, one.source));
        format!("{v4}, {v6}")
    }

    #[test]
    fn a_lease_comes_before_a_reservation_and_a_reservation_before_a_neighbour() {
        let network = crate::network::parse(NETWORK.as_bytes(), None).unwrap().network;
        let leases = vec![
            lease(1, "10.94.0.50", Some(200)),
            lease(2, "10.94.0.51", Some(100)),
            lease(2, "10.94.0.52", Some(200)),
            lease(2, "fd00:94::52", None),
            lease(3, "10.94.0.53", Some(99)),
        ];
        let neighbors = vec![
            neighbor(1, "10.94.0.60", true),
            neighbor(2, "10.94.0.61", true),
            neighbor(3, "10.94.0.62", false),
            neighbor(3, "10.94.0.63", true),
            neighbor(3, "fe80::3", true),
            neighbor(3, "fd00:94::3", true),
            neighbor(3, "fd00:94::5054:ff:fe00:3", true),
            neighbor(4, "192.0.2.1", true),
        ];
        let table = AddressTable::new(Some(&network), leases, neighbors, 99);
        assert_eq!(found(&table, 1), "10.94.0.50 lease, fd00:94::9 reservation");
        assert_eq!(found(&table, 2), "10.94.0.52 lease, fd00:94::52 lease");
        assert_eq!(found(&table, 3), "10.94.0.63 neighbor, fd00:94::5054:ff:fe00:3 neighbor");
        assert_eq!(found(&table, 4), "-, -", "outside the network");
        assert_eq!(found(&table, 5), "-, -");
    }

    #[test]
    fn an_address_of_another_guest_is_one_that_it_has_leased_or_reserved() {
        let network = crate::network::parse(NETWORK.as_bytes(), None).unwrap().network;
        let leases = vec![lease(2, "10.94.0.51", Some(200)), lease(2, "fd00:94::9", Some(200))];
        let table = AddressTable::new(Some(&network), leases, Vec::new(), 99);
        for (address, last, expected) in [
            ("10.94.0.9", 1, false),
            ("10.94.0.9", 2, true),
            ("10.94.0.51", 1, true),
            ("10.94.0.51", 2, false),
            ("fd00:94::9", 2, false),
            ("10.94.0.60", 1, false),
        ] {
            assert_eq!(
                table.is_of_other(address.parse().unwrap(), mac(last)),
                expected,
                "{address}"
            );
        }
        let leases = vec![lease(1, "10.94.0.9", Some(100)), lease(1, "10.94.0.50", Some(200))];
        let table = AddressTable::new(Some(&network), leases, Vec::new(), 99);
        assert_eq!(found(&table, 1), "10.94.0.9 reservation, fd00:94::9 reservation");
    }

    #[test]
    fn a_bridge_without_a_network_has_its_neighbours_only() {
        let table = AddressTable::new(None, Vec::new(), vec![neighbor(4, "192.0.2.1", false)], 0);
        assert_eq!(found(&table, 4), "192.0.2.1 neighbor, -");
    }

    #[test]
    fn the_neighbour_table_separates_two_cards_with_one_duid() {
        let leases = vec![lease(1, "fd00:94::51", Some(300)), lease(1, "fd00:94::52", Some(200))];
        let neighbors = vec![neighbor(2, "fd00:94::51", true)];
        let table = AddressTable::new(None, leases, neighbors, 0);
        assert_eq!(found(&table, 1), "-, fd00:94::52 lease");
    }
}
