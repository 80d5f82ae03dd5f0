//! Lists the roles of the rules that [`super::port`] renders, chain by chain.
//!
//! The order of the chains and rules is that of [`super::port`]; a test compares both.

use std::collections::BTreeMap;

use super::ebtables::link_rule;
use super::packets::packet_rule;
use super::{Unexpressible, entry, host_sent_rules};
use crate::firewall::port_roles::{ChainRoles, PathRoles, ROOT, RuleRole, RuleTable};
use crate::firewall::rules::Version;
use crate::firewall::rules::port::{Path, PortRule, PortRules, Step};

/// Returns the roles of the rules of a port's chains in the three tools.
///
/// # Errors
/// Returns [`Unexpressible`] if ebtables cannot express a rule.
pub fn roles(
    index: u32,
    rules: &PortRules,
) -> Result<BTreeMap<(RuleTable, String), ChainRoles>, Unexpressible> {
    let mut chains = BTreeMap::new();
    for (to_guest, path) in [(false, &rules.from_guest), (true, &rules.to_guest)] {
        let name = entry(index, if to_guest { "to" } else { "from" });
        let table = RuleTable::Ethernet;
        link_roles(PathRoles { table, to_guest, chains: &mut chains }, &name, path)?;
        for version in [Version::V4, Version::V6] {
            let table = RuleTable::Filter(version);
            let mut all = PathRoles { table, to_guest, chains: &mut chains };
            let own = |rule: &&PortRule| rule.is_of(version) && packet_rule(rule).is_some();
            let own = path.packets.iter().filter(own);
            let roles: Vec<_> = own.flat_map(|rule| all.rule(None, rule, 1)).collect();
            if roles.is_empty() {
                continue;
            }
            if !to_guest && path.is_limited() {
                all.chain(entry(index, "host"), true, false, roles.clone());
            }
            all.chain(name.clone(), true, false, roles);
        }
    }
    let sent = host_sent_rules(&rules.to_guest.packets).rules;
    if !sent.is_empty() {
        let table = RuleTable::Ethernet;
        let mut all = PathRoles { table, to_guest: true, chains: &mut chains };
        let roles = sent.into_iter().flat_map(|rule| all.rule(None, rule, 1)).collect();
        all.chain(entry(index, "sent"), true, false, roles);
    }
    Ok(chains)
}

fn link_roles(mut all: PathRoles<'_>, name: &str, path: &Path) -> Result<(), Unexpressible> {
    let mut root = Vec::new();
    for step in &path.frames {
        match step {
            Step::Rule(rule) => root.extend(all.rule(Some(ROOT), rule, link_rule(rule)?.len())),
            Step::Chain(number) if *number < path.chains.len() => root.push(RuleRole::Other),
            Step::Chain(_) => {}
        }
    }
    if root.is_empty() {
        return Ok(());
    }
    all.chain(name.to_owned(), false, false, root);
    for chain in &path.chains {
        let mut roles = Vec::new();
        for rule in &chain.rules {
            roles.extend(all.rule(Some(&chain.name), rule, link_rule(rule)?.len()));
        }
        all.chain(format!("{name}-{}", chain.name), false, true, roles);
    }
    Ok(())
}
