//! The part of the guard that keeps the frames of interfaces without a bridge from the host.
//!
//! An interface that is turned on before it joins a bridge gives its frames to the host's own
//! protocols, and no hook of the bridge family sees them. So the guard has a table in each family
//! of these protocols:
//!
//! ```text
//! ip, ip6  prerouting ─ iifname "vnet*" drop    postrouting ─ oifname "vnet*" drop
//! arp      input      ─ iifname "vnet*" drop    output      ─ oifname "vnet*" drop
//! ```
//!
//! On these hooks a frame of a bridge's port has the name of the bridge, also where br_netfilter is
//! active (setup_pre_routing() in net/bridge/br_netfilter_hooks.c). So the rules apply only until
//! the interface joins a bridge, and a bind changes none of them. The first rule of each chain lets
//! two kinds of interfaces through: a bridge can have the name of a rule by accident, and a macvlan
//! can have a filter although it is on no bridge.
//!
//! A rule of the guard that names a bridge has no rule here: the interface is on no bridge yet.

use std::fmt::Write;

use super::PortTable;
use super::missing::present;
use crate::firewall::nft_dump::TableShape;
use crate::firewall::port_guard::GuardRule;

/// The name of the guard's tables.
const TABLE: PortTable = PortTable::FIRST;

/// The families that hand frames of an interface without a bridge to the host.
pub const HOST_FAMILIES: [&str; 3] = ["ip", "ip6", "arp"];

/// The chain of one direction: its name, its hook and the key of the interface's name and kind.
type GuardChain = (&'static str, &'static str, &'static str);

/// Returns the chains of a family. Frames from an interface meet the guard before the host tracks
/// their connections.
fn chains(family: &str) -> [GuardChain; 2] {
    match family {
        "arp" => [
            ("guard-from", "input priority -300;", "iif"),
            ("guard-to", "output priority -300;", "oif"),
        ],
        _ => [
            ("guard-from", "prerouting priority -300;", "iif"),
            ("guard-to", "postrouting priority -300;", "oif"),
        ],
    }
}

/// Returns the rules that apply to interfaces without a bridge.
fn for_host(rules: &[GuardRule]) -> Vec<&GuardRule> {
    rules.iter().filter(|rule| rule.bridge.is_none()).collect()
}

/// Returns the line that a kernel without this family refuses.
pub fn add_table(family: &str) -> String {
    format!("add table {family} {TABLE}")
}

/// Returns the lines that make these the rules of the guard in these families. Without a rule, the
/// tables are removed.
pub fn set_host_guard(rules: &[GuardRule], families: &[&str]) -> String {
    let rules = for_host(rules);
    let mut text = String::new();
    for family in families.iter().filter(|family| HOST_FAMILIES.contains(family)) {
        let _ = writeln!(text, "{}", add_table(family));
        if rules.is_empty() {
            let _ = writeln!(text, "delete table {family} {TABLE}");
            continue;
        }
        for (chain, hook, side) in chains(family) {
            let _ = writeln!(
                text,
                "add chain {family} {TABLE} {chain} {{ type filter hook {hook} policy accept; }}\n\
                 flush chain {family} {TABLE} {chain}\n\
                 add rule {family} {TABLE} {chain} meta {side}kind {{ \"macvlan\", \"bridge\" }} accept"
            );
            for GuardRule { port, .. } in &rules {
                let _ =
                    writeln!(text, "add rule {family} {TABLE} {chain} {side}name \"{port}\" drop");
            }
        }
    }
    text
}

/// Returns a clause about the first part of the guard that the table of a family lacks; `None` if
/// the guard is complete there.
pub fn missing_host_guard(
    rules: &[GuardRule],
    family: &str,
    table: Option<&TableShape>,
) -> Option<String> {
    let rules = for_host(rules);
    if rules.is_empty() {
        return None;
    }
    let table = match present(family, TABLE, table) {
        Ok(table) => table,
        Err(what) => return Some(what),
    };
    let count = u32::try_from(rules.len() + 1).unwrap_or(u32::MAX);
    chains(family).into_iter().find_map(|(chain, ..)| table.wrong(chain, count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::nft_dump::ChainShape;

    fn rules() -> [GuardRule; 2] {
        let rule = |port: &str, bridge: Option<&str>| GuardRule {
            port: port.parse().unwrap(),
            bridge: bridge.map(|bridge| bridge.parse().unwrap()),
        };
        [rule("vnet*", None), rule("tap0", Some("br0"))]
    }

    #[test]
    fn a_rule_without_a_bridge_closes_the_interface_to_the_host() {
        let text = set_host_guard(&rules(), &HOST_FAMILIES);
        for line in [
            "add chain ip netlaunch_nwfilter guard-from { type filter hook prerouting priority -300; policy accept; }",
            "add rule ip netlaunch_nwfilter guard-from meta iifkind { \"macvlan\", \"bridge\" } accept",
            "add rule ip6 netlaunch_nwfilter guard-from iifname \"vnet*\" drop",
            "add rule ip6 netlaunch_nwfilter guard-to oifname \"vnet*\" drop",
            "add chain arp netlaunch_nwfilter guard-to { type filter hook output priority -300; policy accept; }",
            "add rule arp netlaunch_nwfilter guard-to oifname \"vnet*\" drop",
        ] {
            assert!(text.lines().any(|is| is == line), "{line}\n{text}");
        }
        assert!(!text.contains("tap0"), "{text}");
        let with_bridge = &rules()[1..];
        for rules in [&[], with_bridge] {
            assert_eq!(
                set_host_guard(rules, &["bridge", "ip"]),
                "add table ip netlaunch_nwfilter\ndelete table ip netlaunch_nwfilter\n"
            );
        }
    }

    #[test]
    fn each_part_of_the_guard_of_the_host_that_is_gone_is_missed() {
        let whole = || {
            let chain =
                |name: &str| (name.to_owned(), ChainShape { rules: 2, ..ChainShape::default() });
            let chains = ["guard-from", "guard-to"].map(chain).into();
            TableShape { chains, ..TableShape::default() }
        };
        assert_eq!(missing_host_guard(&rules(), "ip", Some(&whole())), None);
        assert_eq!(missing_host_guard(&rules()[1..], "ip", None), None);
        assert!(missing_host_guard(&rules(), "ip6", None).unwrap().contains("ip6"));
        for chain in ["guard-from", "guard-to"] {
            let mut table = whole();
            table.chains.remove(chain);
            assert!(missing_host_guard(&rules(), "arp", Some(&table)).unwrap().contains(chain));
        }
        let dormant = TableShape { dormant: true, ..whole() };
        assert!(missing_host_guard(&rules(), "ip", Some(&dormant)).unwrap().contains("dormant"));
    }
}
