//! Each rule in the kernel has a role, and the roles are in the order of the rendered rules.

use std::collections::BTreeMap;

use super::accepted::{documents, filter_of};
use super::*;
use netlaunch::firewall::{PortRecord, PortRoles, RuleRole, RuleTable};
use netlaunch::types::InterfaceName;

/// The number of rules in each chain that a record names.
fn recorded(record: &PortRecord) -> BTreeMap<(RuleTable, String), usize> {
    let mut chains = BTreeMap::new();
    match record {
        PortRecord::Nftables(objects) => {
            let ingress = objects.ingress.iter().flat_map(|ingress| &ingress.rules);
            let ingress =
                ingress.map(|chain| (RuleTable::Netdev(objects.netdev_table().unwrap()), chain));
            let bridge =
                objects.rules.iter().map(|chain| (RuleTable::Bridge(objects.table), chain));
            for (table, (chain, rules)) in bridge.chain(ingress) {
                chains.insert((table, chain.clone()), *rules as usize);
            }
        }
        PortRecord::Iptables { shapes, .. } => {
            for (part, shape) in shapes {
                let table = match part.tool() {
                    "ebtables" => RuleTable::Ethernet,
                    "iptables" => RuleTable::Filter(Version::V4),
                    _ => RuleTable::Filter(Version::V6),
                };
                for (chain, rules) in shape.rules.values().flatten() {
                    chains.insert((table, chain.clone()), *rules as usize);
                }
            }
        }
    }
    chains
}

/// Compares the roles with the records of both backends; returns how many roles are rules.
fn compare(rules: &PortRules) -> usize {
    let port: InterfaceName = "vnet0".parse().unwrap();
    let mut compared = 0;
    for (backend, hooks, trace, counters) in [
        (FirewallBackend::Nftables, PortHooks::Bridge, false, false),
        (FirewallBackend::Nftables, PortHooks::Bridge, true, true),
        (FirewallBackend::Nftables, PortHooks::Interface, true, true),
        (FirewallBackend::Iptables, PortHooks::Bridge, false, false),
    ] {
        if hooks.check(rules).is_err() {
            continue;
        }
        let extras = Extras { trace, counters, reject: true };
        let (rules_of, port) = (rules.clone().into(), port.clone());
        let tables = PortTables::default();
        let filter =
            PortFilter { index: 7, port: port.clone(), rules: rules_of, backend, hooks, tables };
        // ebtables cannot express each of these filters.
        let Ok(plan) = PortPlan::new(&[filter], extras) else { return compared };
        let [record] = plan.recorded() else { panic!("one port has one record") };
        assert_eq!(record.digest(), Some(rules.digest()));
        let roles = PortRoles::of(record, &port, rules, (trace, counters));
        let counts = roles.chains.iter().map(|(chain, roles)| (chain.clone(), roles.roles.len()));
        let mut recorded = recorded(record);
        // The base chains of a port without a bridge are its own, and have no rules of the filter.
        recorded.retain(|(_, chain), _| {
            !["p7-ingress", "p7-egress", "p7-sent"].contains(&chain.as_str())
        });
        assert_eq!(counts.collect::<BTreeMap<_, _>>(), recorded, "{backend} {rules:#?}");
        for chain in roles.chains.values() {
            for role in &chain.roles {
                let RuleRole::Rule(name) = role else { continue };
                let (place, rule) = PortRoles::rule(rules, name).unwrap();
                assert_eq!((place.is_none(), name.to_guest), (chain.packets, chain.to_guest));
                assert_eq!((&rule.origin, rule.verdict), (&name.origin, name.verdict()));
                assert!(roles.rules.contains(name));
                compared += 1;
            }
        }
    }
    compared
}

#[test]
fn every_rule_in_the_kernel_has_a_role() {
    const CASES: u32 = 300;
    let mut runner =
        TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let compared = Cell::new(0);
    let done = runner.run(&documents(), |document| {
        compared.set(compared.get() + compare(&filter_of(&document).unwrap()));
        Ok(())
    });
    if let Err(error) = done {
        panic!("{error}");
    }
    println!("{} rules in the kernel have a role", compared.get());
    assert!(compared.get() > 1000);
}
