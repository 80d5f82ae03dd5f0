//! Collects the addresses and VLANs that rules name, since a guest may have them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::firewall::rules::AddressRange;
use crate::firewall::rules::port::{Address, Addresses, Number, PortRules, Test};

/// The addresses and VLANs that rules name: the first ones of each kind, without duplicates.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) v4: Vec<Ipv4Addr>,
    pub(super) v6: Vec<Ipv6Addr>,
    /// VLAN numbers, including 0, which means a tag without a VLAN.
    pub(super) vlans: Vec<u16>,
}

/// The maximum number of values. Each value costs an evaluation of all rules, and one accepted
/// address is enough.
const MOST: usize = 8;

impl Named {
    /// Returns the source addresses and VLANs that the rules for frames from the guest name.
    pub(super) fn of(rules: &PortRules) -> Self {
        let mut named = Named { vlans: vec![0], ..Named::default() };
        for test in rules.from_guest.rules().flat_map(|rule| &rule.tests) {
            match test {
                Test::Address {
                    field: Address::Source | Address::ArpSender, addresses, ..
                } => {
                    named.address(addresses);
                }
                Test::Number { field: Number::VlanId, first, .. } => {
                    add(&mut named.vlans, (*first & 0xfff) as u16);
                }
                _ => {}
            }
        }
        named
    }

    fn address(&mut self, addresses: &Addresses) {
        let address = match addresses {
            Addresses::Net(net) if net.prefix_len() == 0 => None,
            Addresses::Net(net) => net.hosts().next(),
            Addresses::Range(AddressRange::V4(first, _)) => Some(IpAddr::V4(*first)),
            Addresses::Range(AddressRange::V6(first, _)) => Some(IpAddr::V6(*first)),
        };
        // A guest has neither an unspecified nor a multicast address.
        match address.filter(|address| !address.is_unspecified() && !address.is_multicast()) {
            Some(IpAddr::V4(address)) => add(&mut self.v4, address),
            Some(IpAddr::V6(address)) => add(&mut self.v6, address),
            None => {}
        }
    }
}

fn add<T: PartialEq>(values: &mut Vec<T>, value: T) {
    if values.len() < MOST && !values.contains(&value) {
        values.push(value);
    }
}
