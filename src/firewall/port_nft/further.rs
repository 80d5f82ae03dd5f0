//! The ports of further tables in the maps of the first table.
//!
//! A frame of such a port must pass the guard of the first table, and another state directory must
//! see that the port exists. So the first table's maps have an element `INDEX : accept` for the
//! port. `accept` ends only the base chain of the first table; the frame then meets the base chains
//! of the further tables on the same hook. The kernel validates no rule for such an element.
//!
//! The base chains of the further tables come after those of the first table
//! ([`PortHook::priority`]), because a frame can be on its way while a transaction is committed.
//! The first table then leaves the frame to the guard, as before the bind, or the frame meets the
//! filter in the further table. The other order would let through a frame that looked for its
//! filter before the commit and met the guard afterwards.
//!
//! For a removal that order is the wrong one: the frame would pass the first table before the
//! commit, and find no filter afterwards. So where the guard is set, a transaction before the
//! removal takes the ports out of the first table's maps ([`close_ports`]).

use std::collections::BTreeSet;
use std::fmt::Write;

use super::change::declare_map;
use super::{PortHook, PortObjects, PortTable, PortText, by_number};
use crate::firewall::nft_dump::ACCEPT;

/// All tables of the kernel but the first, by their family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FurtherTables {
    /// The tables of the family bridge.
    pub bridge: BTreeSet<PortTable>,
    /// The tables of the family netdev.
    pub netdev: BTreeSet<PortTable>,
}

/// Returns the transaction that takes these ports out of the first table's maps, so that the guard
/// sees their frames; empty if no port is in them because of another table.
pub fn close_ports(ports: &[&PortObjects]) -> String {
    let mut text = String::new();
    change_first_maps(&mut text, ports, &[]);
    text
}

/// Returns the transaction that undoes [`close_ports`].
pub fn open_ports(ports: &[&PortObjects]) -> String {
    let mut text = String::new();
    first_map_lines(&mut text, &["add"], &in_first_maps(ports.iter().copied()));
    text
}

/// Changes the first table's maps for the ports of further tables.
pub(super) fn change_first_maps(text: &mut String, remove: &[&PortObjects], add: &[&PortText]) {
    let added = in_first_maps(add.iter().map(|new| &*new.objects));
    let mut removed = in_first_maps(remove.iter().copied());
    removed.retain(|index| !added.contains(index));
    first_map_lines(text, &["add", "delete"], &removed);
    first_map_lines(text, &["add"], &added);
}

/// Returns the numbers of the ports that the first table's maps have because of another table.
fn in_first_maps<'a>(ports: impl Iterator<Item = &'a PortObjects>) -> BTreeSet<u32> {
    let has_element = |port: &&PortObjects| port.is_on_bridge() && !port.table.is_first();
    ports.filter(has_element).map(|port| port.index).collect()
}

fn first_map_lines(text: &mut String, verbs: &[&str], ports: &BTreeSet<u32>) {
    if ports.is_empty() {
        return;
    }
    let table = PortTable::FIRST;
    let all: Vec<_> =
        ports.iter().map(|index| format!("{} : {ACCEPT}", by_number(*index))).collect();
    let _ = writeln!(text, "add table bridge {table}");
    for hook in PortHook::BOTH {
        declare_map(text, table, hook);
        for verb in verbs {
            let map = hook.map();
            let _ = writeln!(text, "{verb} element bridge {table} {map} {{ {} }}", all.join(", "));
        }
    }
}

#[cfg(test)]
mod tests;
