//! The part of the guard that keeps the packets of interfaces without a bridge from the host, by
//! iptables and ip6tables.
//!
//! ```text
//! ip(6)tables mangle  PREROUTING  ─▶ NETLAUNCH_GUARD_FROM ─ -i vnet+ DROP
//!                     POSTROUTING ─▶ NETLAUNCH_GUARD_TO   ─ -o vnet+ DROP
//! ```
//!
//! A packet of a bridge's port has the name of the bridge here, so a bind changes none of these
//! rules ([`crate::firewall::port_nft`] has the same part for nft). These tools see no ARP, so the
//! host answers the ARP requests of such an interface. They do not know the kind of an interface,
//! so a bridge with the name of a rule is closed, too.

use crate::firewall::iptables_state::{Jump, TableState};
use crate::firewall::port_guard::GuardRule;

/// The table of the guard's rules. Of the tables that can drop packets, only this one has both
/// PREROUTING and POSTROUTING.
const TABLE: &str = "mangle";

/// The chains of the guard: the host's chain, the guard's, and the option of a rule.
const CHAINS: [(&str, &str, &str); 2] =
    [("PREROUTING", "NETLAUNCH_GUARD_FROM", "-i"), ("POSTROUTING", "NETLAUNCH_GUARD_TO", "-o")];

/// Returns the state with these rules of the guard. A rule that names a bridge has no part here,
/// since the interface is on no bridge yet; without another rule, the part is removed.
pub fn with_host_guard(present: TableState, rules: &[GuardRule]) -> TableState {
    let mut wanted = present;
    let ports: Vec<String> = rules
        .iter()
        .filter(|rule| rule.bridge.is_none())
        // iptables writes the asterisk of a pattern as a plus sign.
        .map(|rule| rule.port.as_str().replace('*', "+"))
        .collect();
    let table = wanted.tables.entry(TABLE.to_owned()).or_default();
    for (host, own, option) in CHAINS {
        let jump = (host.to_owned(), own.to_owned());
        if ports.is_empty() {
            table.chains.remove(own);
            table.jumps.remove(&jump);
        } else {
            let drops = ports.iter().map(|port| format!("{option} {port} -j DROP")).collect();
            table.chains.insert(own.to_owned(), drops);
            table.jumps.insert(jump, Jump::HEAD);
        }
    }
    if table.chains.is_empty() && table.jumps.is_empty() {
        wanted.tables.remove(TABLE);
    }
    wanted
}

/// Returns a clause about the first part of the guard that the tables of `tool` lack; `None` if the
/// guard is complete there.
pub fn missing_host_guard(now: &TableState, rules: &[GuardRule], tool: &str) -> Option<String> {
    let wanted = with_host_guard(TableState::default(), rules);
    let (wanted, now) = (wanted.tables.get(TABLE)?, now.tables.get(TABLE));
    CHAINS.iter().find_map(|(host, own, _)| {
        let jump = ((*host).to_owned(), (*own).to_owned());
        if !now.is_some_and(|now| now.jumps.contains_key(&jump)) {
            return Some(format!(
                "the chain {host} of {tool}'s table {TABLE} does not jump to {own}"
            ));
        }
        let has = now.and_then(|now| now.chains.get(*own));
        let is_there = |line: &&String| has.is_some_and(|has| has.contains(line));
        let line = wanted.chains.get(*own)?.iter().find(|line| !is_there(line))?;
        Some(format!("the chain {own} of {tool}'s table {TABLE} lacks the rule {line}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_without_a_bridge_closes_the_interface_to_the_host() {
        let rule = |port: &str, bridge: Option<&str>| GuardRule {
            port: port.parse().unwrap(),
            bridge: bridge.map(|bridge| bridge.parse().unwrap()),
        };
        let rules = [rule("vnet*", None), rule("tap0", Some("br0")), rule("tap1", None)];
        let state = with_host_guard(TableState::default(), &rules);
        let chains = &state.tables["mangle"].chains;
        assert_eq!(chains["NETLAUNCH_GUARD_FROM"], ["-i vnet+ -j DROP", "-i tap1 -j DROP"]);
        assert_eq!(chains["NETLAUNCH_GUARD_TO"], ["-o vnet+ -j DROP", "-o tap1 -j DROP"]);
        assert_eq!(missing_host_guard(&state, &rules, "iptables"), None);
        let missing = |rules: &[GuardRule], state: &TableState| {
            missing_host_guard(state, rules, "ip6tables").unwrap_or_default()
        };
        let more = [rule("vnet*", None), rule("tap2", None)];
        assert!(missing(&more, &state).contains("ip6tables's table mangle lacks the rule -i tap2"));
        assert!(missing(&rules, &TableState::default()).contains("PREROUTING"));
        assert_eq!(missing(&rules[1..2], &TableState::default()), "");
        assert_eq!(with_host_guard(state.clone(), &[]), TableState::default());
        assert_eq!(with_host_guard(state, &rules[1..2]), TableState::default());
    }
}
