//! Addresses and VLANs that rules name: a guest may have them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::rules::AddressRange;
use crate::rules::port::{Address, Addresses, Number, PortRules, Test};

/// The first ones of each kind, each once.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) v4: Vec<Ipv4Addr>,
    pub(super) v6: Vec<Ipv6Addr>,
    /// VLANs, with 0, which is the tag without a VLAN.
    pub(super) vlans: Vec<u16>,
}

/// Each value costs a walk through all rules. One address that a filter lets through is enough.
const MOST: usize = 8;

impl Named {
    /// What rules for frames of the guest name as a source.
    pub(super) fn of(rules: &PortRules) -> Self {
        let mut named = Named { vlans: vec![0], ..Named::default() };
        for test in rules.from_guest.rules().flat_map(|rule| &rule.tests) {
            match test {
                Test::Address { field: Address::Source | Address::ArpSender, among, .. } => {
                    named.address(among);
                }
                Test::Number { field: Number::VlanId, first, .. } => {
                    add(&mut named.vlans, (*first & 0xfff) as u16);
                }
                _ => {}
            }
        }
        named
    }

    fn address(&mut self, among: &Addresses) {
        let address = match among {
            Addresses::Net(net) if net.prefix_len() == 0 => None,
            Addresses::Net(net) => net.hosts().next(),
            Addresses::Range(AddressRange::V4(first, _)) => Some(IpAddr::V4(*first)),
            Addresses::Range(AddressRange::V6(first, _)) => Some(IpAddr::V6(*first)),
        };
        // A guest has neither kind.
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
