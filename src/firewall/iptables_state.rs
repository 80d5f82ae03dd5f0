//! What iptables holds of ours, and the text that turns one such state into another.
//!
//! iptables has no private tables: our chains live in the host's tables, and the host's own chains
//! jump to ours. So the present state is read first (`iptables-save`), the wanted one is made from
//! it as a value, and the difference is one `iptables-restore --noflush`. The same difference, the
//! other way round, undoes it.
//!
//! Chains of ours start with `NETLAUNCH_` (those the host's chains jump to) or `nl-` (an owner's).
//! Nothing else is looked at, let alone changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::rules::Version;

/// What one tool (iptables or ip6tables) holds of ours, by table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    pub(super) tables: BTreeMap<String, Table>,
}

/// What to remove from one table of iptables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRemoval {
    /// The tool: iptables or ip6tables.
    pub version: Version,
    /// The table.
    pub table: String,
    /// Rules of base chains, each as it stands behind `-A `.
    pub rules: Vec<String>,
    /// Chains to remove.
    pub chains: Vec<String>,
}

/// Our part of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// Our chains and their rules, each as it stands behind `-A CHAIN `.
    pub(super) chains: BTreeMap<String, Vec<String>>,
    /// The jumps to our chains, by the host's chain and ours.
    pub(super) jumps: BTreeMap<(String, String), Jump>,
}

/// How the host's chain jumps to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Jump {
    /// How many times.
    count: usize,
    /// Whether no rule comes before that could let pass what ours refuse.
    first: bool,
}

impl Jump {
    /// As we want it: once, at the head.
    pub(super) const HEAD: Jump = Jump { count: 1, first: true };
}

/// Whether a chain is one the host's chains jump to.
pub(super) fn is_base(chain: &str) -> bool {
    chain.starts_with("NETLAUNCH_")
}

/// Whether a base chain is one of the ports' filters. They only refuse, and so stand before those
/// of networks, which accept.
fn is_port_base(chain: &str) -> bool {
    chain.starts_with("NETLAUNCH_PORT_")
}

/// How `*-restore` declares a chain of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// iptables-restore and ip6tables-restore.
    Iptables,
    /// ebtables-restore. A chain's end goes back to where it was called, which is not what ebtables
    /// does by itself.
    Ebtables,
}

impl Dialect {
    fn declare(self, chain: &str) -> String {
        match self {
            Dialect::Iptables => format!(":{chain} - [0:0]"),
            Dialect::Ebtables => format!(":{chain} RETURN"),
        }
    }
}

fn is_ours(chain: &str) -> bool {
    is_base(chain) || chain.starts_with("nl-")
}

impl Present {
    /// Reads the output of `iptables-save` or `ip6tables-save`. Lines that are not about our chains
    /// are passed over.
    pub fn parse(saved: &str) -> Self {
        let mut present = Present::default();
        let mut table = None;
        // Chains of the host that a rule of others was seen in.
        let mut others = BTreeSet::new();
        // And chains in which networks' rules were.
        let mut networks = BTreeSet::new();
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = Some(name.to_owned());
                others.clear();
                networks.clear();
                continue;
            }
            let Some(name) = &table else { continue };
            if let Some(rest) = line.strip_prefix(':') {
                let chain = rest.split(' ').next().unwrap_or_default();
                if is_ours(chain) {
                    let table = present.tables.entry(name.clone()).or_default();
                    table.chains.entry(chain.to_owned()).or_default();
                }
                continue;
            }
            let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|l| l.split_once(' '))
            else {
                continue;
            };
            let jump = rule.strip_prefix("-j ").filter(|to| is_base(to));
            if is_ours(chain) {
                let table = present.tables.entry(name.clone()).or_default();
                table.chains.entry(chain.to_owned()).or_default().push(rule.to_owned());
            } else if let Some(to) = jump {
                let table = present.tables.entry(name.clone()).or_default();
                let first = !others.contains(chain);
                if !is_port_base(to) {
                    networks.insert(chain.to_owned());
                }
                let first = first && !(is_port_base(to) && networks.contains(chain));
                let key = (chain.to_owned(), to.to_owned());
                table.jumps.entry(key).or_insert(Jump { count: 0, first }).count += 1;
            } else {
                others.insert(chain.to_owned());
            }
        }
        present
    }

    /// The input of `iptables-restore --noflush` that makes this state `wanted`; empty where
    /// nothing is to be done. The rules of others stay, and so does their order.
    pub fn change_to(&self, wanted: &Present) -> String {
        self.change_in(wanted, Dialect::Iptables)
    }

    /// The same for the tool that has this dialect.
    pub(super) fn change_in(&self, wanted: &Present, dialect: Dialect) -> String {
        let names: BTreeSet<_> = self.tables.keys().chain(wanted.tables.keys()).collect();
        let none = Table::default();
        let mut text = String::new();
        for name in names {
            let from = self.tables.get(name).unwrap_or(&none);
            let to = wanted.tables.get(name).unwrap_or(&none);
            let change = from.change_to(to, dialect);
            if !change.is_empty() {
                let _ = writeln!(text, "*{name}\n{change}COMMIT");
            }
        }
        text
    }
}

impl Present {
    /// Whether this is what became of `before` by a change to `wanted` that was carried out wholly.
    /// The tools write some rules in other words than ours, so chains count as the wanted ones when
    /// they have as many rules; a table in which nothing happened does not.
    pub(super) fn is_result(&self, before: &Present, wanted: &Present, dialect: Dialect) -> bool {
        let names: BTreeSet<_> = before.tables.keys().chain(wanted.tables.keys()).collect();
        names.into_iter().all(|name| {
            let table = |of: &Present| of.tables.get(name).cloned().unwrap_or_default();
            let (from, to, now) = (table(before), table(wanted), table(self));
            from.change_to(&to, dialect).is_empty() || now != from && now.has_shape_of(&to)
        })
    }
}

impl Table {
    fn has_shape_of(&self, other: &Table) -> bool {
        let shape = |table: &Table| -> Vec<(String, usize)> {
            table.chains.iter().map(|(name, rules)| (name.clone(), rules.len())).collect()
        };
        self.jumps == other.jumps && shape(self) == shape(other)
    }

    fn change_to(&self, wanted: &Table, dialect: Dialect) -> String {
        let changed: Vec<_> = wanted
            .chains
            .iter()
            .filter(|(name, rules)| self.chains.get(*name) != Some(rules))
            .collect();
        let gone: Vec<_> =
            self.chains.keys().filter(|name| !wanted.chains.contains_key(*name)).collect();
        let new = |at: &(String, String), jump: &Jump| self.jumps.get(at) != Some(jump);
        let changed_host = |host: &str| {
            wanted
                .jumps
                .iter()
                .any(|(at, jump)| at.0 == host && !is_port_base(&at.1) && new(at, jump))
        };
        // What comes to stand before the ports' filters puts them behind it: they move up again.
        let moved = |(host, ours): &(String, String)| is_port_base(ours) && changed_host(host);
        let old_jumps =
            self.jumps.iter().filter(|(at, jump)| wanted.jumps.get(*at) != Some(jump) || moved(at));
        let mut new_jumps: Vec<_> =
            wanted.jumps.iter().filter(|(at, jump)| new(at, jump) || moved(at)).collect();
        // Each is put at the head, so the last is the first.
        new_jumps.sort_by_key(|((_, ours), _)| is_port_base(ours));
        let mut text = String::new();
        // Naming a chain makes it, or empties the one that is there.
        for name in changed.iter().map(|(name, _)| *name).chain(gone.iter().copied()) {
            let _ = writeln!(text, "{}", dialect.declare(name));
        }
        for ((host, ours), jump) in old_jumps {
            for _ in 0..jump.count {
                let _ = writeln!(text, "-D {host} -j {ours}");
            }
        }
        for (name, rules) in &changed {
            for rule in *rules {
                let _ = writeln!(text, "-A {name} {rule}");
            }
        }
        for ((host, ours), jump) in new_jumps {
            for _ in 0..jump.count {
                let _ = writeln!(text, "-I {host} 1 -j {ours}");
            }
        }
        for name in gone {
            let _ = writeln!(text, "-X {name}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "# Generated by iptables-save v1.8.9
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [3:252]
:DOCKER-USER - [0:0]
:NETLAUNCH_FWD - [0:0]
:nl-virbr0-from - [0:0]
-A FORWARD -j NETLAUNCH_FWD
-A FORWARD -j DOCKER-USER
-A NETLAUNCH_FWD -i virbr0 -j nl-virbr0-from
-A nl-virbr0-from -j REJECT --reject-with icmp-port-unreachable
COMMIT
";

    #[test]
    fn only_what_is_ours_is_seen() {
        let present = Present::parse(SAVED);
        let table = &present.tables["filter"];
        let names: Vec<_> = table.chains.keys().collect();
        assert_eq!(names, ["NETLAUNCH_FWD", "nl-virbr0-from"]);
        let key = ("FORWARD".to_owned(), "NETLAUNCH_FWD".to_owned());
        assert_eq!(table.jumps[&key], Jump::HEAD);
        assert_eq!(Present::parse("rubbish\n:NETLAUNCH_X - [0:0]\n"), Present::default());
    }

    #[test]
    fn nothing_to_do_is_no_text() {
        let present = Present::parse(SAVED);
        assert_eq!(present.change_to(&present), "");
    }

    #[test]
    fn a_jump_that_others_got_before_moves_to_the_head() {
        let moved = SAVED.replace(
            "-A FORWARD -j NETLAUNCH_FWD\n-A FORWARD -j DOCKER-USER\n",
            "-A FORWARD -j DOCKER-USER\n-A FORWARD -j NETLAUNCH_FWD\n-A FORWARD -j NETLAUNCH_FWD\n",
        );
        assert_eq!(
            Present::parse(&moved).change_to(&Present::parse(SAVED)),
            "*filter\n-D FORWARD -j NETLAUNCH_FWD\n-D FORWARD -j NETLAUNCH_FWD\n\
             -I FORWARD 1 -j NETLAUNCH_FWD\nCOMMIT\n"
        );
    }

    #[test]
    fn a_change_was_carried_out_when_each_table_has_the_wanted_shape() {
        let none = Present::default();
        let nat = "*nat\n:NETLAUNCH_PRT - [0:0]\n-A POSTROUTING -j NETLAUNCH_PRT\n\
                   -A NETLAUNCH_PRT -s 10.0.0.0/24 -p 6 -j MASQUERADE\nCOMMIT\n";
        let saved = |text: &str| Present::parse(text);
        let both = saved(&format!("{SAVED}{nat}"));
        let is = |now: &Present, before: &Present, wanted: &Present| {
            now.is_result(before, wanted, Dialect::Iptables)
        };
        // The tools' own words.
        let shown = saved(&format!("{SAVED}{}", nat.replace("-p 6", "-p tcp")));
        assert!(is(&shown, &none, &both));
        assert!(is(&none, &both, &none));
        assert!(!is(&none, &none, &both));
        assert!(!is(&both, &both, &none));
        // One table of two.
        assert!(!is(&saved(SAVED), &none, &both));
        assert!(!is(&saved(nat), &both, &none));
        // A rule exchanged for another.
        let other = saved(&SAVED.replace("icmp-port", "icmp-net"));
        assert!(is(&other, &saved(SAVED), &other));
        assert!(!is(&saved(SAVED), &saved(SAVED), &other));
    }

    #[test]
    fn everything_goes_with_its_jump() {
        let change = Present::parse(SAVED).change_to(&Present::default());
        assert_eq!(
            change,
            "*filter\n:NETLAUNCH_FWD - [0:0]\n:nl-virbr0-from - [0:0]\n\
             -D FORWARD -j NETLAUNCH_FWD\n-X NETLAUNCH_FWD\n-X nl-virbr0-from\nCOMMIT\n"
        );
    }
}
