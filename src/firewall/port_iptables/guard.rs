//! The guard: closes the ports with certain names until they have a filter, by ebtables.
//!
//! ```text
//! ebtables nat  PREROUTING  ─▶ NETLAUNCH_GUARD_FROM ─ -i vnet0 RETURN, -i vnet+ DROP
//!               POSTROUTING ─▶ NETLAUNCH_GUARD_TO   ─ -o vnet0 RETURN, -o vnet+ DROP
//! ```
//!
//! Each port with a filter has a rule that returns, before the rules that drop. ebtables-restore
//! changes these rules and the chains of the filter in one step. A rule knows the port's name only,
//! so an interface with the name of an earlier one has the rules of the earlier one until these are
//! removed, as for all rules of ebtables.

use std::collections::BTreeSet;

use super::Part;
use crate::firewall::iptables_state::{Jump, TableState};
use crate::firewall::port_guard::GuardRule;
use crate::types::InterfaceName;

/// The chains of the guard: the host's chain, the guard's, and the options of a rule for the port
/// and for the bridge.
const CHAINS: [(&str, &str, &str, &str); 2] = [
    ("PREROUTING", "NETLAUNCH_GUARD_FROM", "-i", "--logical-in"),
    ("POSTROUTING", "NETLAUNCH_GUARD_TO", "-o", "--logical-out"),
];

fn returns(option: &str, port: &InterfaceName) -> String {
    format!("{option} {port} -j RETURN")
}

/// Returns whether the state has a guard.
pub fn has_guard(present: &TableState) -> bool {
    let table = present.tables.get(Part::Ethernet.table());
    table.is_some_and(|table| CHAINS.iter().any(|(_, own, ..)| table.chains.contains_key(*own)))
}

/// Returns the state with a guard of these rules, which lets the ports `bound` through; no rules
/// remove the guard.
pub fn with_guard(present: TableState, rules: &[GuardRule], bound: &[InterfaceName]) -> TableState {
    let mut wanted = present;
    let table = wanted.tables.entry(Part::Ethernet.table().to_owned()).or_default();
    for (host, own, option, logical) in CHAINS {
        let jump = (host.to_owned(), own.to_owned());
        if rules.is_empty() {
            table.chains.remove(own);
            table.jumps.remove(&jump);
            continue;
        }
        let drops = rules.iter().map(|GuardRule { port, bridge }| {
            // ebtables writes the asterisk of a pattern as a plus sign.
            let port = port.as_str().replace('*', "+");
            let bridge = bridge.as_ref().map_or_else(String::new, |b| format!("{logical} {b} "));
            format!("{option} {port} {bridge}-j DROP")
        });
        let lines = bound.iter().map(|port| returns(option, port)).chain(drops).collect();
        table.chains.insert(own.to_owned(), lines);
        table.jumps.insert(jump, Jump::HEAD);
    }
    if table.chains.is_empty() && table.jumps.is_empty() {
        wanted.tables.remove(Part::Ethernet.table());
    }
    wanted
}

/// Returns the state whose guard lets the ports `add` through, and the ports `remove` no more.
/// A state without a guard stays as it is.
pub fn with_bound(
    present: TableState,
    remove: &BTreeSet<&InterfaceName>,
    add: &[&InterfaceName],
) -> TableState {
    let mut wanted = present;
    let Some(table) = wanted.tables.get_mut(Part::Ethernet.table()) else { return wanted };
    for (_, own, option, _) in CHAINS {
        let Some(lines) = table.chains.get_mut(own) else { continue };
        let new: Vec<String> = add.iter().map(|port| returns(option, port)).collect();
        let old: BTreeSet<String> = remove.iter().map(|port| returns(option, port)).collect();
        lines.retain(|line| !old.contains(line) && !new.contains(line));
        lines.splice(0..0, new);
    }
    wanted
}

/// Returns a clause about the first part of the guard that the tables lack; `None` if the guard is
/// complete.
pub fn missing_guard(
    now: &TableState,
    rules: &[GuardRule],
    bound: &[InterfaceName],
) -> Option<String> {
    let wanted = with_guard(TableState::default(), rules, bound);
    let (wanted, now) = (
        wanted.tables.get(Part::Ethernet.table())?,
        now.tables.get(Part::Ethernet.table()).cloned().unwrap_or_default(),
    );
    CHAINS.iter().find_map(|(host, own, ..)| {
        let (lines, has) = (wanted.chains.get(*own)?, now.chains.get(*own));
        if !now.jumps.contains_key(&((*host).to_owned(), (*own).to_owned())) {
            return Some(format!("the chain {host} of ebtables' table nat does not jump to {own}"));
        }
        let is_there = |line: &String| has.is_some_and(|has| has.contains(line));
        let line = lines.iter().find(|line| !is_there(line))?;
        Some(format!("the chain {own} of ebtables' table nat lacks the rule {line}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Vec<GuardRule> {
        let rule = |port: &str, bridge: Option<&str>| GuardRule {
            port: port.parse().unwrap(),
            bridge: bridge.map(|bridge| bridge.parse().unwrap()),
        };
        vec![rule("vnet*", None), rule("tap0", Some("br0"))]
    }

    fn lines(state: &TableState, chain: &str) -> Vec<String> {
        state.tables["nat"].chains[chain].clone()
    }

    #[test]
    fn a_bound_port_returns_before_the_rules_that_drop() {
        let [one, two]: [InterfaceName; 2] = ["vnet1", "vnet2"].map(|name| name.parse().unwrap());
        let state = with_guard(TableState::default(), &rules(), std::slice::from_ref(&one));
        let drops = ["-i vnet+ -j DROP", "-i tap0 --logical-in br0 -j DROP"];
        let from = lines(&state, "NETLAUNCH_GUARD_FROM");
        assert_eq!(from, ["-i vnet1 -j RETURN", drops[0], drops[1]]);
        let state = with_bound(state, &BTreeSet::from([&one]), &[&two]);
        let from = lines(&state, "NETLAUNCH_GUARD_FROM");
        assert_eq!(from, ["-i vnet2 -j RETURN", drops[0], drops[1]]);
        // The same port again is there once.
        let state = with_bound(state, &BTreeSet::new(), &[&two]);
        let to = lines(&state, "NETLAUNCH_GUARD_TO");
        let expected =
            ["-o vnet2 -j RETURN", "-o vnet+ -j DROP", "-o tap0 --logical-out br0 -j DROP"];
        assert_eq!(to, expected);
        assert!(has_guard(&state));
        assert_eq!(missing_guard(&state, &rules(), &[two]), None);
        assert!(missing_guard(&state, &rules(), &[one]).unwrap().contains("-i vnet1 -j RETURN"));
        let state = with_guard(state, &[], &[]);
        assert_eq!(state, TableState::default());
        assert!(missing_guard(&state, &rules(), &[]).unwrap().contains("does not jump"));
        assert_eq!(with_bound(state.clone(), &BTreeSet::new(), &[]), state);
    }
}
