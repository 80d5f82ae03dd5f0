//! The shape of a port's chains in a tool's tables: the jumps between chains, and the number of
//! rules in each chain.
//!
//! The tools print some rules in another form than netlaunch writes them. So a later check compares
//! the numbers of rules and the targets of jumps, and not the texts.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::iptables_state::{TableState, is_base};

/// The chains and jumps of a port's filter in the tables of one tool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// The jumps to netlaunch's base chains: table, the host's chain, the base chain.
    pub jumps: BTreeSet<(String, String, String)>,
    /// The rules of base chains that lead to the port's chains: table, base chain, the port's
    /// chain.
    pub leads: BTreeSet<(String, String, String)>,
    /// The port's chains and the number of rules in each, by table.
    pub rules: BTreeMap<String, BTreeMap<String, u32>>,
}

/// A difference between a tool's tables and a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ShapeDifference {
    /// A part of the shape is missing.
    Missing(String),
    /// All parts exist, but rules of other programs come before them.
    Overtaken(String),
}

impl Shape {
    /// Returns the shape of a state that has the chains of one port and no others.
    pub(super) fn of(present: &TableState) -> Self {
        let mut shape = Shape::default();
        for (name, table) in &present.tables {
            for (host, base_chain) in table.jumps.keys() {
                shape.jumps.insert((name.clone(), host.clone(), base_chain.clone()));
            }
            for (chain, rules) in &table.chains {
                if is_base(chain) {
                    let targets = rules.iter().map(|rule| target(rule));
                    let lead = |to: &str| (name.clone(), chain.clone(), to.to_owned());
                    shape.leads.extend(targets.map(lead));
                } else {
                    let count = u32::try_from(rules.len()).unwrap_or(u32::MAX);
                    shape.rules.entry(name.clone()).or_default().insert(chain.clone(), count);
                }
            }
        }
        shape
    }

    /// Returns the part of this shape that the tables of `tool` lack.
    pub(super) fn difference(&self, now: &TableState, tool: &str) -> Option<ShapeDifference> {
        let mut overtaken = None;
        for (table, host, base_chain) in &self.jumps {
            let jump = now
                .tables
                .get(table)
                .and_then(|t| t.jumps.get(&(host.clone(), base_chain.clone())));
            match jump {
                None => {
                    return Some(ShapeDifference::Missing(format!(
                        "the chain {host} of {tool}'s table {table} does not jump to {base_chain}"
                    )));
                }
                Some(jump) if !jump.is_first() => {
                    overtaken = overtaken.or(Some(ShapeDifference::Overtaken(format!(
                        "rules of other programs come before the filter in the chain {host} of {tool}'s table {table}, and may let pass what it refuses"
                    ))));
                }
                Some(_) => {}
            }
        }
        for (table, chain, to) in &self.leads {
            let rules = now.tables.get(table).and_then(|table| table.chains.get(chain));
            if !rules.is_some_and(|rules| rules.iter().any(|rule| target(rule) == to)) {
                return Some(ShapeDifference::Missing(format!(
                    "the chain {chain} of {tool}'s table {table} does not lead to {to}"
                )));
            }
        }
        for (table, chains) in &self.rules {
            for (chain, count) in chains {
                let rules = now.tables.get(table).and_then(|table| table.chains.get(chain));
                let found = rules.map_or(0, Vec::len);
                if u32::try_from(found) != Ok(*count) {
                    let chain = format!("the chain {chain} of {tool}'s table {table}");
                    return Some(ShapeDifference::Missing(match found {
                        0 => format!("{chain} is gone or empty"),
                        _ => format!("{chain} has {found} rules instead of {count}"),
                    }));
                }
            }
        }
        overtaken
    }
}

/// Returns the chain that a rule jumps to.
fn target(rule: &str) -> &str {
    rule.trim_end().rsplit(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "*filter
:FORWARD ACCEPT [0:0]
:NETLAUNCH_PORT_FROM - [0:0]
:nl-7:from - [0:0]
-A FORWARD -j NETLAUNCH_PORT_FROM
-A FORWARD -j DOCKER-USER
-A NETLAUNCH_PORT_FROM -m physdev  --physdev-in vnet0 -g nl-7:from
-A nl-7:from -p udp -m udp --dport 53 -j DROP
-A nl-7:from -j RETURN
COMMIT
";

    #[test]
    fn each_part_that_is_gone_is_missed() {
        let shape = Shape::of(&TableState::parse(SAVED));
        let difference = |saved: &str| shape.difference(&TableState::parse(saved), "iptables");
        assert_eq!(difference(SAVED), None);
        for (line, words) in [
            ("-A FORWARD -j NETLAUNCH_PORT_FROM\n", "does not jump to NETLAUNCH_PORT_FROM"),
            (
                "-A NETLAUNCH_PORT_FROM -m physdev  --physdev-in vnet0 -g nl-7:from\n",
                "does not lead to nl-7:from",
            ),
            ("-A nl-7:from -j RETURN\n", "has 1 rules instead of 2"),
        ] {
            let Some(ShapeDifference::Missing(what)) = difference(&SAVED.replace(line, "")) else {
                panic!("{line}")
            };
            assert!(what.contains(words), "{what}");
        }
        assert!(matches!(difference(""), Some(ShapeDifference::Missing(_))));
        let first = SAVED.replace("-A FORWARD -j NET", "-A FORWARD -j ACCEPT\n-A FORWARD -j NET");
        assert!(matches!(difference(&first), Some(ShapeDifference::Overtaken(_))));
    }
}
