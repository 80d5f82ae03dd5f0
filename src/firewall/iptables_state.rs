//! netlaunch's part of the iptables tables, and the text that turns one such state into another.
//!
//! iptables has no private tables: netlaunch's chains are in the host's tables, and the host's own
//! chains jump to them. So netlaunch reads the present state (`iptables-save`), computes the wanted
//! state from it as a value, and writes the difference as one `iptables-restore --noflush`. The
//! reverse difference undoes the change.
//!
//! The names of netlaunch's chains start with `NETLAUNCH_` (base chains, which the host's chains
//! jump to) or `nl-` (an owner's chains). netlaunch never changes another chain; of other rules it
//! uses only their position relative to its own jumps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::firewall::rules::Version;

/// netlaunch's part of the tables of one tool (iptables, ip6tables or ebtables).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableState {
    pub(super) tables: BTreeMap<String, Table>,
}

/// The rules and chains to remove from one table of iptables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRemoval {
    /// The IP version, which selects iptables or ip6tables.
    pub version: Version,
    /// The name of the table.
    pub table: String,
    /// Rules of base chains, each in the form that follows `-A `.
    pub rules: Vec<String>,
    /// The names of the chains to remove.
    pub chains: Vec<String>,
}

/// Returns whether two rules are the same. iptables-save prints the common protocols by name, and
/// netlaunch writes their numbers.
fn is_same_rule(one: &str, other: &str) -> bool {
    one == other || parts(one).is_some_and(|one| Some(one) == parts(other))
}

/// Returns the words before the protocol of a rule, the number of the protocol, and the words after
/// it; `None` if the rule names none.
fn parts(rule: &str) -> Option<[&str; 3]> {
    const NAMES: [(&str, &str); 5] =
        [("icmp", "1"), ("tcp", "6"), ("udp", "17"), ("ipv6-icmp", "58"), ("sctp", "132")];
    let (before, rest) = rule.split_once("-p ")?;
    let (protocol, after) = rest.split_once(' ')?;
    let number = NAMES.iter().find(|(name, _)| *name == protocol);
    Some([before, number.map_or(protocol, |(_, number)| number), after])
}

/// netlaunch's part of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// netlaunch's chains and their rules, each in the form that follows `-A CHAIN `.
    pub(super) chains: BTreeMap<String, Vec<String>>,
    /// The jumps to netlaunch's chains, by the host's chain and netlaunch's chain.
    pub(super) jumps: BTreeMap<(String, String), Jump>,
}

/// The jump of a chain of the host to a chain of netlaunch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Jump {
    /// The number of times that the jump occurs.
    count: usize,
    /// Whether no earlier rule can accept a packet that netlaunch's chain refuses.
    first: bool,
}

impl Jump {
    /// The wanted jump: it occurs once, at the head of the chain.
    pub(super) const HEAD: Jump = Jump { count: 1, first: true };

    /// Returns whether no earlier rule can accept a packet that netlaunch's chain refuses.
    pub(super) fn is_first(self) -> bool {
        self.first
    }
}

/// Returns whether a chain is a base chain, which the host's chains jump to.
pub(super) fn is_base(chain: &str) -> bool {
    chain.starts_with("NETLAUNCH_")
}

/// Returns whether a base chain belongs to the ports' filters. These only refuse packets, so they
/// must come before the base chains of networks, which accept packets.
fn is_port_base(chain: &str) -> bool {
    chain.starts_with("NETLAUNCH_PORT_")
}

/// The form in which `*-restore` declares a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// iptables-restore and ip6tables-restore.
    Iptables,
    /// The form of ebtables-restore. A packet at the end of the chain must return to the calling
    /// chain, which is not the default of ebtables.
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

fn is_own_chain(chain: &str) -> bool {
    is_base(chain) || chain.starts_with("nl-")
}

impl TableState {
    /// Reads the output of `iptables-save` or `ip6tables-save`. Ignores lines that do not concern
    /// netlaunch's chains, except to find out whether they come before a jump.
    pub fn parse(saved: &str) -> Self {
        let mut present = TableState::default();
        let mut table = None;
        // The host's chains in which a rule of another program came earlier in the listing.
        let mut others = BTreeSet::new();
        // The host's chains in which a jump to a network's base chain came earlier in the listing.
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
                if is_own_chain(chain) {
                    let table = present.tables.entry(name.clone()).or_default();
                    table.chains.entry(chain.to_owned()).or_default();
                }
                continue;
            }
            let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|l| l.split_once(' '))
            else {
                continue;
            };
            // A rule with more words has conditions of its own, so it is another program's.
            let jump =
                rule.strip_prefix("-j ").filter(|to| is_base(to) && !to.trim_end().contains(' '));
            if is_own_chain(chain) {
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

    /// Returns the input of `iptables-restore --noflush` that makes this state `wanted`; the text
    /// is empty if the states are equal. Rules of other programs stay in their order.
    pub fn change_to(&self, wanted: &TableState) -> String {
        self.change_in(wanted, Dialect::Iptables)
    }

    /// Returns the same text in the form of this dialect.
    pub(super) fn change_in(&self, wanted: &TableState, dialect: Dialect) -> String {
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

impl TableState {
    /// Returns descriptions of the parts of `wanted` that this state lacks. The rules of a base
    /// chain, which all networks share, are compared word for word; other chains are compared by
    /// their number of rules.
    pub(super) fn missing_parts(&self, wanted: &TableState, tool: &str) -> Vec<String> {
        let mut lacking = Vec::new();
        for (name, to) in &wanted.tables {
            let now = self.tables.get(name).cloned().unwrap_or_default();
            let place = format!("{tool} {name}");
            for (chain, rules) in &to.chains {
                let Some(there) = now.chains.get(chain) else {
                    lacking.push(format!("chain {chain} of {place}"));
                    continue;
                };
                let gone = if is_base(chain) {
                    rules.iter().filter(|rule| !there.contains(rule)).count()
                } else {
                    rules.len().saturating_sub(there.len())
                };
                if gone > 0 {
                    let all = rules.len();
                    lacking.push(format!("{gone} of {all} rules of chain {chain} of {place}"));
                }
            }
            let jumps = to.jumps.keys().filter(|at| !now.jumps.contains_key(at));
            lacking.extend(
                jumps.map(|(host, base_chain)| {
                    format!("jump from {host} to {base_chain} of {place}")
                }),
            );
        }
        lacking
    }

    /// Returns whether this state is the result of a complete change from `before` to `wanted`. The
    /// tools print some rules in another form than netlaunch writes them, so a chain matches if it
    /// has the wanted number of rules. A table that should change but is still equal to `before`
    /// does not match.
    pub(super) fn is_result(
        &self,
        before: &TableState,
        wanted: &TableState,
        dialect: Dialect,
    ) -> bool {
        let names: BTreeSet<_> = before.tables.keys().chain(wanted.tables.keys()).collect();
        names.into_iter().all(|name| {
            let table = |of: &TableState| of.tables.get(name).cloned().unwrap_or_default();
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

    /// Returns whether a chain exists, has rules, and only gets more of them.
    ///
    /// Such a chain is not emptied and filled again. The kernel frees removed rules after a wait
    /// for all processors, and the tools of nf_tables end only after that: 16 to 20 ms for a
    /// restore that removes a rule, 4 ms for one that adds rules (iptables 1.8.9, Linux 6.18).
    fn only_gains_rules(&self, chain: &str, wanted: &[String]) -> bool {
        let Some(now) = self.chains.get(chain).filter(|now| !now.is_empty()) else { return false };
        let mut wanted = wanted.iter();
        now.iter().all(|rule| wanted.any(|other| is_same_rule(rule, other)))
    }

    /// Writes the rules that a chain gets. A rule is inserted before a rule that the chain has
    /// already, because iptables-restore of nf_tables finds no place before a rule of the same
    /// input.
    fn add_rules(&self, text: &mut String, chain: &str, wanted: &[String]) {
        let mut present = self.chains.get(chain).into_iter().flatten().peekable();
        for (at, rule) in wanted.iter().enumerate() {
            if present.next_if(|now| is_same_rule(now, rule)).is_some() {
                continue;
            }
            let _ = match present.peek() {
                Some(_) => writeln!(text, "-I {chain} {} {rule}", at + 1),
                None => writeln!(text, "-A {chain} {rule}"),
            };
        }
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
        // A jump that is inserted at the head comes before the ports' filters, so their jumps are
        // inserted again after it.
        let moved =
            |(host, base_chain): &(String, String)| is_port_base(base_chain) && changed_host(host);
        let old_jumps =
            self.jumps.iter().filter(|(at, jump)| wanted.jumps.get(*at) != Some(jump) || moved(at));
        let mut new_jumps: Vec<_> =
            wanted.jumps.iter().filter(|(at, jump)| new(at, jump) || moved(at)).collect();
        // Each jump is inserted at the head, so the last insertion is the first rule.
        new_jumps.sort_by_key(|((_, base_chain), _)| is_port_base(base_chain));
        let mut text = String::new();
        let (added, changed): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|(name, rules)| self.only_gains_rules(name, rules));
        // The declaration of a chain creates it, or removes its rules if it exists.
        for name in changed.iter().map(|(name, _)| *name).chain(gone.iter().copied()) {
            let _ = writeln!(text, "{}", dialect.declare(name));
        }
        for ((host, base_chain), jump) in old_jumps {
            for _ in 0..jump.count {
                let _ = writeln!(text, "-D {host} -j {base_chain}");
            }
        }
        for (name, rules) in &changed {
            for rule in *rules {
                let _ = writeln!(text, "-A {name} {rule}");
            }
        }
        for (name, rules) in added {
            self.add_rules(&mut text, name, rules);
        }
        for ((host, base_chain), jump) in new_jumps {
            for _ in 0..jump.count {
                let _ = writeln!(text, "-I {host} 1 -j {base_chain}");
            }
        }
        for name in gone {
            let _ = writeln!(text, "-X {name}");
        }
        text
    }
}

#[cfg(test)]
mod tests;
