//! The guard: closes the ports with certain names until they have a filter.
//!
//! The base chains look a port up in a map and jump to the chains of its filter, from which no
//! frame returns except during the port's bind (see the elements of the map). The second rule of a
//! base chain jumps to the chain of the guard. So the guard sees the frames of ports without a
//! filter only, and a port leaves the guard in the transaction that gives the port its filter. The
//! chains of the guard exist as long as the table, and are empty without a guard.

use std::fmt::Write;

use super::change::declare;
use super::missing::present;
use super::{PortHook, PortTable};
use crate::firewall::nft_dump::TableShape;
use crate::firewall::port_guard::GuardRule;

/// Returns the transaction that makes these the rules of the guard.
pub fn set_guard(rules: &[GuardRule]) -> String {
    let mut text = String::new();
    let table = PortTable::FIRST;
    declare(&mut text, table, &PortHook::BOTH);
    for hook in PortHook::BOTH {
        let Some(chain) = hook.guard() else { continue };
        let _ = writeln!(text, "flush chain bridge {table} {chain}");
        let side = if hook == PortHook::From { "i" } else { "o" };
        for GuardRule { port, bridge } in rules {
            let _ = write!(text, "add rule bridge {table} {chain} {side}ifname \"{port}\" ");
            if let Some(bridge) = bridge {
                let _ = write!(text, "meta {side}brname \"{bridge}\" ");
            }
            text.push_str("drop\n");
        }
    }
    text
}

/// Returns a clause about the first part of a guard of this many rules that the table lacks; `None`
/// if the guard is complete.
pub fn missing_guard(rules: usize, table: Option<&TableShape>) -> Option<String> {
    let table = match present("bridge", PortTable::FIRST, table) {
        Ok(table) => table,
        Err(what) => return Some(what),
    };
    let rules = u32::try_from(rules).unwrap_or(u32::MAX);
    PortHook::BOTH
        .into_iter()
        .find_map(|hook| table.wrong(hook.base(), 2).or_else(|| table.wrong(hook.guard()?, rules)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::nft_dump::ChainShape;

    #[test]
    fn each_rule_drops_the_frames_of_both_directions() {
        let rule = |port: &str, bridge: Option<&str>| GuardRule {
            port: port.parse().unwrap(),
            bridge: bridge.map(|bridge| bridge.parse().unwrap()),
        };
        let text = set_guard(&[rule("vnet*", None), rule("tap0", Some("br0"))]);
        for line in [
            "add rule bridge netlaunch_nwfilter prerouting iif vmap @from_guest",
            "add rule bridge netlaunch_nwfilter prerouting jump guard-from",
            "flush chain bridge netlaunch_nwfilter guard-from",
            "add rule bridge netlaunch_nwfilter guard-from iifname \"vnet*\" drop",
            "add rule bridge netlaunch_nwfilter guard-from iifname \"tap0\" meta ibrname \"br0\" drop",
            "add rule bridge netlaunch_nwfilter guard-to oifname \"vnet*\" drop",
            "add rule bridge netlaunch_nwfilter guard-to oifname \"tap0\" meta obrname \"br0\" drop",
        ] {
            assert!(text.lines().any(|is| is == line), "{line}\n{text}");
        }
        assert!(!set_guard(&[]).contains("drop"));
    }

    #[test]
    fn each_part_of_the_guard_that_is_gone_is_missed() {
        let whole = || {
            let chain = |(name, rules): (&str, usize)| {
                (name.to_owned(), ChainShape { rules, drops: false })
            };
            let chains =
                [("prerouting", 2), ("postrouting", 2), ("guard-from", 1), ("guard-to", 1)];
            TableShape { chains: chains.into_iter().map(chain).collect(), ..TableShape::default() }
        };
        assert_eq!(missing_guard(1, Some(&whole())), None);
        assert!(missing_guard(1, None).unwrap().contains("is gone"));
        assert!(missing_guard(2, Some(&whole())).unwrap().contains("guard-from"));
        for chain in ["prerouting", "postrouting", "guard-from", "guard-to"] {
            let mut table = whole();
            table.chains.remove(chain);
            assert!(missing_guard(1, Some(&table)).unwrap().contains(chain), "{chain}");
        }
    }
}
