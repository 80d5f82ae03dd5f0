//! Addresses as lists of subnets, which ebtables can test.
//!
//! A line of ebtables has at most one test of a field. ebtables 1.8.7 takes an option twice, and a
//! frame must pass both tests; newer ones refuse such a line (1.8.11: "can only be used once"). So
//! the tests of one field are joined to the subnets of the addresses that pass all of them.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

use crate::firewall::rules::AddressRange;
use crate::firewall::rules::port::{Address, Addresses, Test};

/// The fields with more than one test, each with the addresses that pass all of them.
#[derive(Debug, Default)]
pub(super) struct JoinedTests(BTreeMap<Address, Vec<IpNet>>);

impl JoinedTests {
    /// Returns whether a test is one of the joined ones.
    pub(super) fn has(&self, test: &Test) -> bool {
        matches!(test, Test::Address { field, .. } if self.0.contains_key(field))
    }

    /// Returns the fields with the addresses that pass their tests.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Address, &Vec<IpNet>)> {
        self.0.iter()
    }
}

/// Joins the tests of each field that has several.
pub(super) fn tested_twice(tests: &[Test]) -> JoinedTests {
    let mut fields: BTreeMap<Address, Vec<(&Addresses, bool)>> = BTreeMap::new();
    for test in tests {
        if let Test::Address { field, addresses, negated } = test {
            fields.entry(*field).or_default().push((addresses, *negated));
        }
    }
    let several = fields.into_iter().filter(|(_, tests)| tests.len() > 1);
    let joined = |(field, tests): (Address, Vec<(&Addresses, bool)>)| {
        let lists = tests.into_iter().map(|(addresses, negated)| passing(addresses, negated));
        Some((field, lists.reduce(|one, two| in_both(&one, &two))?))
    };
    JoinedTests(several.filter_map(joined).collect())
}

/// Returns the addresses that pass a test.
fn passing(addresses: &Addresses, negated: bool) -> Vec<IpNet> {
    match addresses {
        Addresses::Net(net) if !negated => vec![net.trunc()],
        Addresses::Net(net @ IpNet::V4(_)) => without(Ipv4Net::default().into(), net),
        Addresses::Net(net @ IpNet::V6(_)) => without(Ipv6Net::default().into(), net),
        Addresses::Range(range) => subnets(range, negated),
    }
}

/// Returns the addresses that are in both lists.
fn in_both(one: &[IpNet], two: &[IpNet]) -> Vec<IpNet> {
    let common = |a: &IpNet, b: &IpNet| match (a.contains(b), b.contains(a)) {
        (true, _) => Some(*b),
        (false, true) => Some(*a),
        (false, false) => None,
    };
    one.iter().flat_map(|a| two.iter().filter_map(move |b| common(a, b))).collect()
}

/// Returns the subnets that are `outer` without `inner`, which is in it.
fn without(outer: IpNet, inner: &IpNet) -> Vec<IpNet> {
    let (mut left, mut rest) = (Vec::new(), outer);
    while rest.prefix_len() < inner.prefix_len() {
        let halves = rest.subnets(rest.prefix_len() + 1);
        for half in halves.into_iter().flatten() {
            if half.contains(inner) {
                rest = half;
            } else {
                left.push(half);
            }
        }
    }
    left
}

/// Returns the subnets that make up a range of addresses, or all addresses outside the range.
pub(super) fn subnets(range: &AddressRange, outside: bool) -> Vec<IpNet> {
    match range {
        AddressRange::V4(first, last) => {
            let nets = |first: u32, last: u32| {
                Ipv4Subnets::new(first.into(), last.into(), 0).map(IpNet::V4)
            };
            let (first, last) = (u32::from(*first), u32::from(*last));
            if !outside {
                return nets(first, last).collect();
            }
            let below = first.checked_sub(1).map(|end| nets(0, end));
            let above = last.checked_add(1).map(|start| nets(start, u32::MAX));
            below.into_iter().chain(above).flatten().collect()
        }
        AddressRange::V6(first, last) => {
            let nets = |first: u128, last: u128| {
                Ipv6Subnets::new(first.into(), last.into(), 0).map(IpNet::V6)
            };
            let (first, last) = (u128::from(*first), u128::from(*last));
            if !outside {
                return nets(first, last).collect();
            }
            let below = first.checked_sub(1).map(|end| nets(0, end));
            let above = last.checked_add(1).map(|start| nets(start, u128::MAX));
            below.into_iter().chain(above).flatten().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn test(text: &str) -> Test {
        let (negated, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let addresses = match text.split_once('-') {
            Some((first, last)) => {
                let range = AddressRange::V4(first.parse().unwrap(), last.parse().unwrap());
                Addresses::Range(range)
            }
            None => Addresses::Net(text.parse().unwrap()),
        };
        Test::Address { field: Address::Source, addresses, negated }
    }

    #[test]
    fn the_addresses_of_several_tests_are_those_that_pass_all_of_them() {
        for (tests, expected) in [
            (&["10.0.0.0/8"][..], None),
            (&["10.0.0.0/8", "10.1.0.0/16"], Some(vec!["10.1.0.0/16"])),
            (&["10.1.0.0/16", "10.0.0.0/8"], Some(vec!["10.1.0.0/16"])),
            (&["10.2.3.6/32", "10.2.3.4/32"], Some(vec![])),
            (&["10.2.3.4/32", "!10.2.3.4/32"], Some(vec![])),
            (&["10.2.3.4/32", "!10.2.3.5/32"], Some(vec!["10.2.3.4/32"])),
            (&["!10.2.3.5/32", "10.2.3.4/31"], Some(vec!["10.2.3.4/32"])),
            (&["!0.0.0.0/1", "!192.0.0.0/2"], Some(vec!["128.0.0.0/2"])),
            (&["::/3", "!1000::/4"], Some(vec!["::/4"])),
            (&["10.0.0.1-10.0.0.4", "10.0.0.0/30"], Some(vec!["10.0.0.1/32", "10.0.0.2/31"])),
            (&["!10.0.0.1-10.0.0.4", "10.0.0.0/30"], Some(vec!["10.0.0.0/32"])),
            (&["0.0.0.0/0", "!10.0.0.0/7"], {
                Some(vec![
                    "128.0.0.0/1",
                    "64.0.0.0/2",
                    "32.0.0.0/3",
                    "16.0.0.0/4",
                    "0.0.0.0/5",
                    "12.0.0.0/6",
                    "8.0.0.0/7",
                ])
            }),
        ] {
            let tests: Vec<Test> = tests.iter().map(|text| test(text)).collect();
            let nets = |nets: Vec<&str>| nets.iter().map(|net| net.parse().unwrap()).collect();
            let expected: Option<Vec<IpNet>> = expected.map(nets);
            let found = tested_twice(&tests).0.remove(&Address::Source);
            assert_eq!(found, expected, "{tests:?}");
        }
    }

    #[test]
    fn each_address_is_in_the_result_exactly_if_it_passes_all_tests() {
        let texts = [
            "10.0.0.0/29",
            "10.0.0.3-10.0.0.9",
            "!10.0.0.3-10.0.0.9",
            "!10.0.0.2/31",
            "!10.0.0.4/32",
            "10.0.0.0/30",
            "!10.0.0.0/31",
        ];
        for first in texts {
            for second in texts {
                let tests = [test(first), test(second)];
                let found = tested_twice(&tests).0.remove(&Address::Source).unwrap();
                for byte in 0..16u8 {
                    let address = Ipv4Addr::new(10, 0, 0, byte);
                    let passes = |test: &Test| match test {
                        Test::Address { addresses: Addresses::Net(net), negated, .. } => {
                            net.contains(&IpAddr::V4(address)) != *negated
                        }
                        Test::Address {
                            addresses: Addresses::Range(AddressRange::V4(first, last)),
                            negated,
                            ..
                        } => (*first..=*last).contains(&address) != *negated,
                        _ => unreachable!(),
                    };
                    let is_in = found.iter().filter(|net| net.contains(&IpAddr::V4(address)));
                    let expected = usize::from(tests.iter().all(passes));
                    assert_eq!(is_in.count(), expected, "{first} {second} {address}");
                }
            }
        }
    }
}
