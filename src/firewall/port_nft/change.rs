//! Renders the transaction between two states of the tables.
//!
//! The text declares every object before it changes or deletes that object, so that it can be
//! applied to any state of the tables. It removes the old objects of ports, and adds the new
//! ones; a chain that stays is flushed and filled again. The order matters: an element of a map
//! is added after the chain that it leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::further::{self, FurtherTables};
use super::ingress::{BaseChain, IngressObjects};
use super::{EMPTY, EQUAL_BYTES, PortHook, PortObjects, PortTable, PortText, by_number, entry};
use crate::firewall::rules::Version;

/// The families of tables that a transaction may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// Bridge and netdev.
    All,
    /// Only bridge, since this kernel has no tables of the family netdev.
    Bridge,
}

impl Families {
    /// The line that a kernel without the family netdev refuses, for the first table; the lines for
    /// other tables begin with it.
    pub const NETDEV: &'static str = concat!("add table netdev ", "netlaunch_nwfilter");

    /// Returns whether a kernel without the family netdev refuses this line.
    pub fn is_netdev(line: &str) -> bool {
        line.strip_prefix("add table netdev ").is_some_and(|name| PortTable::named(name).is_some())
    }
}

/// Returns the transaction that removes the objects in `remove` and adds those in `add`. A port may
/// be in both lists, with the same table. `emptied` are the tables of the family bridge whose last
/// ports are in `remove`; they are deleted. A table of the family netdev stays without a port.
pub fn change(
    remove: &[&PortObjects],
    add: &[&PortText],
    families: Families,
    emptied: &BTreeSet<PortTable>,
) -> String {
    // The lines that declare and empty chains are about as long as the rules.
    let long = add.iter().map(|port| 2 * port.len()).sum();
    let mut text = String::with_capacity(long);
    for (table, PortsOfTable { old, new }) in by_table(remove, add, |port| Some(port.table)) {
        if emptied.contains(&table) {
            remove_table(&mut text, "bridge", table);
        } else {
            change_bridge(&mut text, table, &old, &new);
        }
    }
    further::change_first_maps(&mut text, remove, add);
    if families == Families::Bridge {
        return text;
    }
    for (table, PortsOfTable { old, new }) in by_table(remove, add, PortObjects::netdev_table) {
        change_netdev(&mut text, table, &old, &new);
    }
    text
}

/// The ports of a change with old or new objects in one table.
#[derive(Default)]
struct PortsOfTable<'a> {
    old: Vec<&'a PortObjects>,
    new: Vec<&'a PortText>,
}

/// Returns the ports of each table that `table` names, in the order of the tables.
fn by_table<'a>(
    remove: &[&'a PortObjects],
    add: &[&'a PortText],
    table: impl Fn(&PortObjects) -> Option<PortTable>,
) -> BTreeMap<PortTable, PortsOfTable<'a>> {
    let mut tables: BTreeMap<PortTable, PortsOfTable<'_>> = BTreeMap::new();
    for old in remove {
        if let Some(table) = table(old) {
            tables.entry(table).or_default().old.push(old);
        }
    }
    for new in add {
        if let Some(table) = table(&new.objects) {
            tables.entry(table).or_default().new.push(new);
        }
    }
    tables
}

/// Returns commands for the end of nft's input, which make nft fetch less.
///
/// nft 1.0.6 fetches all chains of the host if the input adds a rule, because it could need them
/// for a list. If the last commands list one chain and one set, nft fetches no other chain, and no
/// elements of other sets and maps. A [`change`] declares every object that it names, so nft needs
/// no other. With 1,000 ports of clean-traffic, nft then needs 23 ms of processor time instead of
/// 60 ms. Later releases fetch no chain for a rule. The chain is one that the table always has, and
/// that has few rules: that of the guard, or a base chain. Every table has the set, too; it has no
/// elements.
pub fn fetch_less(table: PortTable) -> String {
    let hook = PortHook::From;
    let chain = hook.guard().filter(|_| table.is_first()).unwrap_or_else(|| hook.base());
    format!("list chain bridge {table} {chain}\nlist set bridge {table} {EMPTY}\n")
}

/// Changes a table of the family bridge if a port on a bridge has old or new objects.
fn change_bridge(text: &mut String, table: PortTable, remove: &[&PortObjects], add: &[&PortText]) {
    let remove: Vec<_> = remove.iter().copied().filter(|old| old.is_on_bridge()).collect();
    let add: Vec<_> = add.iter().copied().filter(|new| new.objects.is_on_bridge()).collect();
    let all: Vec<_> = remove.iter().copied().chain(add.iter().map(|port| &*port.objects)).collect();
    if all.is_empty() {
        return;
    }
    declare(text, table, PortHook::of(all.into_iter().any(|objects| objects.limited)));
    let new: BTreeMap<u32, &PortObjects> =
        add.iter().map(|port| (port.objects.index, &*port.objects)).collect();
    let old: BTreeMap<u32, &PortObjects> =
        remove.iter().rev().map(|objects| (objects.index, *objects)).collect();
    for objects in remove {
        forget(text, objects, new.get(&objects.index).copied());
    }
    for port in &add {
        port.declare(text, old.get(&port.objects.index).copied());
    }
    if add.iter().any(|port| port.objects.equal_bytes) {
        declare_equal_bytes(text, "bridge", table);
    }
    if !add.is_empty() {
        let _ = writeln!(text, "table bridge {table} {{");
        for port in &add {
            text.push_str(&port.body);
        }
        text.push_str("}\n");
        for hook in PortHook::BOTH {
            elements(text, table, "add", hook, add.iter().map(|port| port.objects.index));
        }
        let limited: Vec<_> =
            add.iter().filter(|port| port.objects.limited).map(|p| p.objects.index).collect();
        for hook in PortHook::LIMITED.into_iter().filter(|_| !limited.is_empty()) {
            elements(text, table, "add", hook, limited.iter().copied());
        }
    }
}

/// Returns the transaction that removes the first table in these families and all further ones,
/// whether they exist or not.
pub fn remove_tables(families: &[&str], further: &FurtherTables) -> String {
    let mut text = String::new();
    for family in families {
        remove_table(&mut text, family, PortTable::FIRST);
    }
    for (family, tables) in [("bridge", &further.bridge), ("netdev", &further.netdev)] {
        for table in tables.iter().filter(|_| families.contains(&family)) {
            remove_table(&mut text, family, *table);
        }
    }
    text
}

fn remove_table(text: &mut String, family: &str, table: PortTable) {
    let _ = writeln!(text, "add table {family} {table}\ndelete table {family} {table}");
}

/// Changes a table of the family netdev if a port has old or new objects in it.
fn change_netdev(text: &mut String, table: PortTable, remove: &[&PortObjects], add: &[&PortText]) {
    let old: Vec<(u32, &IngressObjects)> = remove
        .iter()
        .filter_map(|objects| Some((objects.index, objects.ingress.as_ref()?)))
        .collect();
    let new: Vec<_> = add
        .iter()
        .filter_map(|port| Some((port.objects.index, port.ingress.as_ref()?, port)))
        .collect();
    if old.is_empty() && new.is_empty() {
        return;
    }
    let _ = writeln!(text, "add table netdev {table}");
    // A base chain is always deleted and added again: it may exist without its hook, or the
    // interface may have a new name.
    let old_bases = old.iter().flat_map(|(index, own)| own.bases(*index));
    let none = IngressObjects::default();
    let kept: BTreeMap<u32, &IngressObjects> = new
        .iter()
        .map(|(index, _, port)| (*index, port.objects.ingress.as_ref().unwrap_or(&none)))
        .collect();
    let new_bases = kept.iter().flat_map(|(index, objects)| objects.bases(*index));
    let bases: BTreeSet<String> = old_bases.chain(new_bases).collect();
    for chain in &bases {
        let _ = writeln!(text, "add chain netdev {table} {chain}");
        let _ = writeln!(text, "flush chain netdev {table} {chain}");
        let _ = writeln!(text, "delete chain netdev {table} {chain}");
    }
    let old_chains = old.iter().flat_map(|(_, objects)| &objects.chains);
    let chains: BTreeSet<&String> =
        old_chains.chain(kept.values().flat_map(|objects| &objects.chains)).collect();
    for chain in chains {
        let _ = writeln!(text, "add chain netdev {table} {chain}");
        let _ = writeln!(text, "flush chain netdev {table} {chain}");
    }
    // After an interrupted change, a port has two records, which can name one chain.
    let stays = |index: &u32| kept.get(index).copied().unwrap_or(&none);
    let chains: BTreeSet<&String> =
        old.iter().flat_map(|(index, own)| own.chains.difference(&stays(index).chains)).collect();
    for chain in chains {
        let _ = writeln!(text, "delete chain netdev {table} {chain}");
    }
    let counters: BTreeSet<&String> = old
        .iter()
        .flat_map(|(index, own)| own.counters.difference(&stays(index).counters))
        .collect();
    for counter in counters {
        let _ = writeln!(text, "add counter netdev {table} {counter}");
        let _ = writeln!(text, "delete counter netdev {table} {counter}");
    }
    for counter in kept.values().flat_map(|objects| &objects.counters) {
        let _ = writeln!(text, "add counter netdev {table} {counter}");
    }
    if kept.values().any(|objects| objects.equal_bytes) {
        declare_equal_bytes(text, "netdev", table);
    }
    for base in new.iter().flat_map(|(_, ingress, _)| &ingress.bases) {
        let _ = writeln!(text, "{}", base.declaration(table));
    }
    if !new.is_empty() {
        let _ = writeln!(text, "table netdev {table} {{");
        new.iter().for_each(|(_, ingress, _)| text.push_str(&ingress.body));
        text.push_str("}\n");
    }
    for BaseChain { chain, rules, .. } in new.iter().flat_map(|(_, own, _)| &own.bases) {
        for rule in rules {
            let _ = writeln!(text, "add rule netdev {table} {chain} {rule}");
        }
    }
}

fn declare_equal_bytes(text: &mut String, family: &str, table: PortTable) {
    let pairs: Vec<_> = (0..=255).map(|byte| format!("{byte} . {byte}")).collect();
    let _ = writeln!(
        text,
        "add set {family} {table} {EQUAL_BYTES} {{ typeof ip ttl . ip ttl; }}\n\
         add element {family} {table} {EQUAL_BYTES} {{ {} }}",
        pairs.join(", ")
    );
}

/// Declares a table of the family bridge and what all its ports share.
pub(super) fn declare(text: &mut String, table: PortTable, hooks: &[PortHook]) {
    let _ = writeln!(text, "add table bridge {table}");
    let _ = writeln!(text, "add set bridge {table} {EMPTY} {{ type mark; }}");
    for hook in hooks {
        let (chain, priority) = (hook.base(), hook.priority(table));
        declare_map(text, table, *hook);
        let _ = writeln!(
            text,
            "add chain bridge {table} {chain} {{ type filter hook {chain} priority {priority}; policy accept; }}\n\
             flush chain bridge {table} {chain}\n\
             add rule bridge {table} {chain} {}",
            hook.look_up()
        );
        // The frames of a port in the map never return to this chain. The guard is in the first
        // table only.
        if let Some(guard) = hook.guard().filter(|_| table.is_first()) {
            let _ = writeln!(text, "add chain bridge {table} {guard}");
            let _ = writeln!(text, "add rule bridge {table} {chain} jump {guard}");
        }
    }
}

pub(super) fn declare_map(text: &mut String, table: PortTable, hook: PortHook) {
    let map = hook.map();
    let _ = writeln!(text, "add map bridge {table} {map} {{ type iface_index : verdict; }}");
}

/// Removes a port's objects except those that the new state keeps. The objects need not exist.
fn forget(text: &mut String, objects: &PortObjects, stays: Option<&PortObjects>) {
    let none = PortObjects::default();
    let (kept, table) = (stays.unwrap_or(&none), objects.table);
    for chain in &objects.chains {
        let _ = writeln!(text, "add chain bridge {table} {chain}");
    }
    for hook in PortHook::of(objects.limited) {
        let stays = stays.is_some_and(|stays| PortHook::of(stays.limited).contains(hook));
        for verb in ["add", "delete"].into_iter().filter(|_| !stays) {
            elements(text, objects.table, verb, *hook, std::iter::once(objects.index));
        }
    }
    for chain in &objects.chains {
        let _ = writeln!(text, "flush chain bridge {table} {chain}");
    }
    for chain in objects.chains.difference(&kept.chains) {
        let _ = writeln!(text, "delete chain bridge {table} {chain}");
    }
    for (set, version) in objects.sets.difference(&kept.sets) {
        declare_set(text, table, set, *version);
        let _ = writeln!(text, "delete set bridge {table} {set}");
    }
    for counter in objects.counters.difference(&kept.counters) {
        let _ = writeln!(text, "add counter bridge {table} {counter}");
        let _ = writeln!(text, "delete counter bridge {table} {counter}");
    }
}

fn declare_set(text: &mut String, table: PortTable, set: &str, version: Version) {
    let kind = match version {
        Version::V4 => "ipv4_addr",
        Version::V6 => "ipv6_addr",
    };
    let _ = writeln!(
        text,
        "add set bridge {table} {set} {{ type {kind}; size 65535; flags dynamic; }}"
    );
}

/// Adds or deletes the elements that lead to these ports' chains.
///
/// The verdict is `jump` and not `goto`, because of frames that are on their way during the change
/// that binds a port. The kernel reads a frame's rules as they were when it entered the base chain,
/// but looks it up in the map as the map is at that time. So such a frame can reach the port's
/// chain while the chain is empty for it. After a `goto` the frame would pass; after a `jump` it
/// comes back to the base chain, whose next rule leads it to the guard. A port's chain that is not
/// empty ends with a verdict, so no other frame comes back.
fn elements(
    text: &mut String,
    table: PortTable,
    verb: &str,
    hook: PortHook,
    ports: impl Iterator<Item = u32>,
) {
    let all: Vec<_> =
        ports.map(|index| format!("{} : jump {}", by_number(index), entry(index, hook))).collect();
    let _ = writeln!(text, "{verb} element bridge {table} {} {{ {} }}", hook.map(), all.join(", "));
}

impl PortText {
    /// Returns the length of the chains with their rules, in bytes.
    fn len(&self) -> usize {
        self.body.len() + self.ingress.as_ref().map_or(0, |own| own.body.len())
    }

    /// Declares the port's objects; all its chains are empty afterwards.
    fn declare(&self, text: &mut String, old: Option<&PortObjects>) {
        let (none, table) = (BTreeSet::new(), self.objects.table);
        let emptied = old.map_or(&none, |old| &old.chains);
        for chain in self.objects.chains.difference(emptied) {
            let _ = writeln!(text, "add chain bridge {table} {chain}");
            let _ = writeln!(text, "flush chain bridge {table} {chain}");
        }
        for (set, version) in &self.objects.sets {
            declare_set(text, table, set, *version);
        }
        for counter in &self.objects.counters {
            let _ = writeln!(text, "add counter bridge {table} {counter}");
        }
    }
}
