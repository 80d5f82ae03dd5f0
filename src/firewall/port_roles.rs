//! Says which rule of a filter each rule in the kernel stands for.
//!
//! A rule of a filter becomes one rule of a tool, several, or none, and the tools' chains have more
//! rules, such as jumps. The kernel names a rule by its chain and its place there. So
//! [`PortRoles`] lists, for each chain of a port, the role of each of its rules in order. The
//! renderers make the list ([`super::port_nft::roles`], [`super::port_iptables::roles`]). It is
//! valid only for the rules from which it was made: a caller compares their digest with the record
//! ([`super::PortRecord::digest`]).

use std::collections::BTreeMap;

use super::PortRecord;
use super::port_iptables::{self, Unexpressible};
use super::port_nft::{self, Extras, NoIpset, PortTable};
use crate::firewall::rules::Version;
use crate::firewall::rules::port::{Origin, Path, PortRule, PortRules, PortVerdict, Step};
use crate::types::InterfaceName;

/// A table in the kernel that contains chains of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleTable {
    /// A table of netlaunch, of the family bridge.
    Bridge(PortTable),
    /// A table of netlaunch, of the family netdev.
    Netdev(PortTable),
    /// The table nat of ebtables.
    Ethernet,
    /// The table filter of iptables or ip6tables.
    Filter(Version),
}

impl RuleTable {
    /// Returns whether it is a table of the family netdev.
    pub fn is_netdev(self) -> bool {
        matches!(self, RuleTable::Netdev(_))
    }
}

/// A rule of a port's filter, as a user knows it. Equal rules, such as those of a variable with
/// several values, are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName {
    /// Whether the rule is for frames to the guest.
    pub to_guest: bool,
    /// The chain; `None` means the list of rules for IP protocols.
    pub chain: Option<String>,
    /// The place in a filter.
    pub origin: Origin,
    /// The verdict, as its number in the order of [`PortVerdict`].
    verdict: u8,
}

/// The verdicts in the order of their numbers.
const VERDICTS: [PortVerdict; 5] = [
    PortVerdict::Accept,
    PortVerdict::Drop,
    PortVerdict::Reject,
    PortVerdict::Return,
    PortVerdict::Continue,
];

impl RuleName {
    fn new(to_guest: bool, chain: Option<&str>, rule: &PortRule) -> Self {
        let number = VERDICTS.iter().position(|verdict| *verdict == rule.verdict);
        RuleName {
            to_guest,
            chain: chain.map(str::to_owned),
            origin: rule.origin.clone(),
            verdict: number.and_then(|number| u8::try_from(number).ok()).unwrap_or_default(),
        }
    }

    /// Returns the effect of the rule.
    pub fn verdict(&self) -> PortVerdict {
        VERDICTS.get(usize::from(self.verdict)).copied().unwrap_or(PortVerdict::Drop)
    }
}

/// The role of a rule in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleRole {
    /// It carries out a rule of the filter.
    Rule(RuleName),
    /// It drops packets to link-local addresses, to which no connections are tracked.
    Untracked,
    /// It is the end of a stage, which accepts.
    End,
    /// It decides nothing: a jump to a sub chain, or the rule that turns the trace on.
    Other,
}

/// A chain of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainRoles {
    /// Whether its frames go to the guest.
    pub to_guest: bool,
    /// Whether it has the rules for IP protocols.
    pub packets: bool,
    /// Whether it is a sub chain of the link layer.
    pub sub: bool,
    /// The roles of its rules, in order.
    pub roles: Vec<RuleRole>,
}

/// The chains of a port, and its rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortRoles {
    /// The chains in the kernel.
    pub chains: BTreeMap<(RuleTable, String), ChainRoles>,
    /// The rules of the filter, each once, in the order in which they are tried.
    pub rules: Vec<RuleName>,
    /// Whether the stages of a frame are on different hooks, so that each stage decides alone.
    pub split: bool,
}

impl PortRoles {
    /// Returns the roles of the rules of this record. `trace` and `counters` are the settings with
    /// which they were made.
    pub fn of(
        record: &PortRecord,
        port: &InterfaceName,
        rules: &PortRules,
        (trace, counters): (bool, bool),
    ) -> Self {
        let (split, chains) = match record {
            PortRecord::Nftables(objects) => {
                let extras = Extras { trace, counters, reject: true };
                let roles = port_nft::roles(objects, port, rules, extras);
                (objects.limited, roles.map_err(|_: NoIpset| ()))
            }
            PortRecord::Iptables { index, .. } => {
                (true, port_iptables::roles(*index, rules).map_err(|_: Unexpressible| ()))
            }
        };
        // A recorded rule was rendered before, so both renderers succeed.
        let mut roles = PortRoles { chains: chains.unwrap_or_default(), split, rules: Vec::new() };
        for (to_guest, path) in [(false, &rules.from_guest), (true, &rules.to_guest)] {
            for (chain, rule) in in_order(path) {
                let name = RuleName::new(to_guest, chain, rule);
                if !roles.rules.contains(&name) {
                    roles.rules.push(name);
                }
            }
        }
        roles
    }

    /// Returns whether the port is on a bridge. Otherwise all its chains are in the table of the
    /// family netdev.
    pub fn is_on_bridge(&self) -> bool {
        self.chains.is_empty() || !self.chains.keys().all(|(table, _)| table.is_netdev())
    }

    /// Returns the rule in `rules` that has this name, and its chain.
    pub fn rule<'a>(
        rules: &'a PortRules,
        name: &RuleName,
    ) -> Option<(Option<&'a str>, &'a PortRule)> {
        let path = if name.to_guest { &rules.to_guest } else { &rules.from_guest };
        let is_it = |(chain, rule): &(Option<&str>, &PortRule)| {
            RuleName::new(name.to_guest, *chain, rule) == *name
        };
        in_order(path).into_iter().find(is_it)
    }
}

/// The name of the root chain.
pub(super) const ROOT: &str = "root";

/// Returns the rules of a path and their chains, in the order in which they are tried.
fn in_order(path: &Path) -> Vec<(Option<&str>, &PortRule)> {
    let mut all = Vec::new();
    for step in &path.frames {
        match step {
            Step::Rule(rule) => all.push((Some(ROOT), rule)),
            Step::Chain(number) => {
                let sub = path.chains.get(*number).into_iter();
                all.extend(sub.flat_map(|sub| sub.rules.iter().map(|r| (Some(&*sub.name), r))));
            }
        }
    }
    all.extend(path.packets.iter().map(|rule| (None, rule)));
    all
}

/// Collects the roles of one path's chains.
pub(super) struct PathRoles<'a> {
    pub(super) table: RuleTable,
    pub(super) to_guest: bool,
    pub(super) chains: &'a mut BTreeMap<(RuleTable, String), ChainRoles>,
}

impl PathRoles<'_> {
    /// Returns the roles of the tool's rules for one rule.
    pub(super) fn rule(&self, chain: Option<&str>, rule: &PortRule, lines: usize) -> Vec<RuleRole> {
        let role = if rule.origin == Origin::default() {
            RuleRole::Untracked
        } else {
            RuleRole::Rule(RuleName::new(self.to_guest, chain, rule))
        };
        vec![role; lines]
    }

    /// Adds a chain.
    pub(super) fn chain(&mut self, name: String, packets: bool, sub: bool, roles: Vec<RuleRole>) {
        let chain = ChainRoles { to_guest: self.to_guest, packets, sub, roles };
        self.chains.insert((self.table, name), chain);
    }
}
