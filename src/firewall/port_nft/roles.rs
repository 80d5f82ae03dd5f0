//! Lists the roles of the rules that [`super::port`] renders, chain by chain.
//!
//! The order of the chains and rules is that of `PortText::path`; a test compares both.

use std::collections::BTreeMap;

use super::root::{RootStep, decides, root_steps, sub_chains};
use super::{Extras, NoIpset, PortHook, PortObjects, PortText, entry, has_hook};
use crate::firewall::port_roles::{ChainRoles, PathRoles, ROOT, RuleRole, RuleTable};
use crate::firewall::rules::port::{Path, PortRules};
use crate::types::InterfaceName;

/// Returns the roles of the rules of a port's chains.
///
/// # Errors
/// Returns [`NoIpset`] if a rule uses an ipset.
pub fn roles(
    objects: &PortObjects,
    port: &InterfaceName,
    rules: &PortRules,
    extras: Extras,
) -> Result<BTreeMap<(RuleTable, String), ChainRoles>, NoIpset> {
    let mut chains = BTreeMap::new();
    let link_local = rules.for_link_local();
    let bridge = RuleTable::Bridge(objects.table);
    let netdev = RuleTable::Netdev(objects.netdev_table().unwrap_or_default());
    let table = if objects.is_on_bridge() { bridge } else { netdev };
    let mut paths =
        vec![(table, PortHook::From, &rules.from_guest), (table, PortHook::To, &rules.to_guest)];
    if objects.is_on_bridge() && link_local.refuses() && has_hook(port) {
        paths.push((netdev, PortHook::From, &link_local));
    }
    for (table, hook, path) in paths {
        let to_guest = hook == PortHook::To;
        let roles = PathRoles { table, to_guest, chains: &mut chains };
        path_roles(roles, &entry(objects.index, hook), path, extras)?;
    }
    Ok(chains)
}

fn path_roles(
    mut all: PathRoles<'_>,
    name: &str,
    path: &Path,
    extras: Extras,
) -> Result<(), NoIpset> {
    let mut text = PortText::new(0);
    let mut root = vec![RuleRole::Other; usize::from(extras.trace)];
    let steps = root_steps(path);
    for step in &steps {
        match step {
            RootStep::Rule { rule, chain } => {
                let lines = text.lines_of(rule, extras)?;
                root.extend(all.rule(Some(chain.unwrap_or(ROOT)), rule, lines));
            }
            RootStep::Jump { .. } => root.push(RuleRole::Other),
        }
    }
    root.extend((!decides(&steps)).then_some(RuleRole::End));
    all.chain(name.to_owned(), false, false, root);
    for (number, chain) in sub_chains(path) {
        let mut roles = Vec::new();
        for rule in &chain.rules {
            roles.extend(all.rule(Some(&chain.name), rule, text.lines_of(rule, extras)?));
        }
        all.chain(format!("{name}-{}", number + 1), false, true, roles);
    }
    if path.packets.is_empty() {
        return Ok(());
    }
    let mut roles = Vec::new();
    for rule in &path.packets {
        roles.extend(all.rule(None, rule, text.lines_of(rule, extras)?));
    }
    roles.push(RuleRole::End);
    if !all.to_guest && path.is_limited() {
        all.chain(format!("{name}-host"), true, false, roles.clone());
    }
    all.chain(format!("{name}-ip"), true, false, roles);
    Ok(())
}
