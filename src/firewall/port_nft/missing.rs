//! Names the parts of a port's filter that the kernel's tables lack.
//!
//! The record of the port names its chains and the number of rules in each, and the kernel
//! gives the shape of its tables. Only the first missing part is named: one is enough for a
//! reload to set all rules again.

use std::collections::BTreeMap;
use std::fmt;

use super::ingress::{IngressObjects, base};
use super::{PortHook, PortObjects, PortTable, entry};
use crate::firewall::nft_dump::{ACCEPT, TableShape};

/// The shapes of the kernel's tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableShapes {
    /// The tables of the family bridge.
    pub bridge: BTreeMap<PortTable, TableShape>,
    /// The tables of the family netdev.
    pub netdev: BTreeMap<PortTable, TableShape>,
}

/// Returns the names of the maps that lead to ports' chains.
pub fn maps() -> [&'static str; 4] {
    [PortHook::From, PortHook::To, PortHook::Through, PortHook::Host].map(PortHook::map)
}

/// Returns a clause about the first part of a port's filter that the port's tables lack; `None` if
/// the filter is complete. `has_netdev` says whether the kernel has tables of the family netdev.
pub fn missing(objects: &PortObjects, now: &TableShapes, has_netdev: bool) -> Option<String> {
    if let Some(own) = objects.ingress.as_ref().filter(|_| !objects.is_on_bridge()) {
        return missing_ingress(objects, own, now);
    }
    let table = match present("bridge", objects.table, now.bridge.get(&objects.table)) {
        Ok(table) => table,
        Err(what) => return Some(what),
    };
    for hook in PortHook::of(objects.limited) {
        let chain = hook.base();
        // One rule leads frames to all ports' chains, and one to the guard in the first table,
        // which the rules of earlier versions lack.
        let guarded = hook.guard().is_some() && objects.table.is_first();
        let expected = if guarded && table.shape.rules(chain) != 1 { 2 } else { 1 };
        let found = table
            .wrong(chain, expected)
            .or_else(|| table.leads_elsewhere(*hook, objects.index, &entry(objects.index, *hook)));
        if found.is_some() {
            return found;
        }
    }
    if objects.rules.is_empty() {
        // Earlier versions recorded no numbers of rules. The entry chains of a port are never
        // empty.
        let entries = PortHook::of(objects.limited).iter().map(|hook| entry(objects.index, *hook));
        let is_empty = |chain: &String| table.shape.rules(chain) == 0;
        return entries.filter(is_empty).find_map(|chain| table.wrong(&chain, 1));
    }
    let chain = |(chain, count): (&String, &u32)| table.wrong(chain, *count);
    objects.rules.iter().find_map(chain).or_else(|| {
        let ingress = objects.ingress.as_ref().filter(|_| has_netdev)?;
        missing_ingress(objects, ingress, now)
    })
}

/// Returns a clause if the first table's maps lack a port of another table: the guard could then
/// close the port.
pub fn missing_in_first_maps(objects: &PortObjects, now: &TableShapes) -> Option<String> {
    if objects.table.is_first() || !objects.is_on_bridge() {
        return None;
    }
    match present("bridge", PortTable::FIRST, now.bridge.get(&PortTable::FIRST)) {
        Ok(table) => PortHook::BOTH
            .into_iter()
            .find_map(|hook| table.leads_elsewhere(hook, objects.index, ACCEPT)),
        Err(what) => Some(what),
    }
}

/// Returns the same for the port's rules in the table of the family netdev.
fn missing_ingress(
    port: &PortObjects,
    objects: &IngressObjects,
    now: &TableShapes,
) -> Option<String> {
    let name = port.netdev_table().unwrap_or_default();
    let table = match present("netdev", name, now.netdev.get(&name)) {
        Ok(table) => table,
        Err(what) => return Some(what),
    };
    let chain = |(chain, count): (&String, &u32)| table.wrong(chain, *count);
    table
        .wrong(&base(port.index), 1)
        .or_else(|| {
            let unhooked = |base: &String| table.shape.unhooked.contains(base);
            let base = objects.bases(port.index).into_iter().find(unhooked)?;
            Some(format!("the chain {base} of {table} is on no interface"))
        })
        .or_else(|| objects.rules.iter().find_map(chain))
}

/// A table that exists and sees frames. It is displayed as `the table FAMILY NAME`.
pub(super) struct Present<'a> {
    family: &'a str,
    name: PortTable,
    shape: &'a TableShape,
}

/// Returns a table that exists and sees frames.
///
/// # Errors
/// Returns a clause that says why it does not.
pub(super) fn present<'a>(
    family: &'a str,
    name: PortTable,
    shape: Option<&'a TableShape>,
) -> Result<Present<'a>, String> {
    let Some(shape) = shape else { return Err(format!("the table {family} {name} is gone")) };
    let table = Present { family, name, shape };
    if shape.dormant { Err(format!("{table} is dormant, and sees no frames")) } else { Ok(table) }
}

impl Present<'_> {
    /// Returns a clause if a chain does not have `count` rules.
    pub(super) fn wrong(&self, chain: &str, count: u32) -> Option<String> {
        let now = self.shape.rules(chain);
        let chain = format!("the chain {chain} of {self}");
        match now {
            now if now == count as usize => None,
            0 => Some(format!("{chain} is gone or empty")),
            _ => Some(format!("{chain} has {now} rules instead of {count}")),
        }
    }

    /// Returns a clause if the map of a hook does not lead the port with this number to `target`: a
    /// chain, or [`ACCEPT`].
    fn leads_elsewhere(&self, hook: PortHook, index: u32, target: &str) -> Option<String> {
        let map = hook.map();
        if self.shape.chain_of_interface(map, index) == Some(target) {
            return None;
        }
        Some(if target == ACCEPT {
            format!("the map {map} of {self} does not have the port")
        } else {
            format!("the map {map} of {self} does not lead to the chain {target}")
        })
    }
}

impl fmt::Display for Present<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the table {} {}", self.family, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::nft_dump::ChainShape;
    use std::collections::BTreeSet;

    fn objects() -> PortObjects {
        let rules = BTreeMap::from([("p7-from".to_owned(), 2), ("p7-to".to_owned(), 1)]);
        let own = BTreeMap::from([("p7-from".to_owned(), 2)]);
        let ingress = Some(IngressObjects { rules: own, ..IngressObjects::default() });
        PortObjects { index: 7, rules, ingress, ..PortObjects::default() }
    }

    fn table(rules: &[(&str, usize)], maps: &[(&str, &str)]) -> TableShape {
        let chain = |(name, rules): &(&str, usize)| {
            ((*name).to_owned(), ChainShape { rules: *rules, drops: false })
        };
        let map = |(name, target): &(&str, &str)| {
            ((*name).to_owned(), vec![(7u32.to_ne_bytes().to_vec(), (*target).to_owned())])
        };
        TableShape {
            dormant: false,
            chains: rules.iter().map(chain).collect(),
            unhooked: BTreeSet::new(),
            maps: maps.iter().map(map).collect(),
        }
    }

    fn first(shape: TableShape) -> BTreeMap<PortTable, TableShape> {
        BTreeMap::from([(PortTable::FIRST, shape)])
    }

    fn whole() -> TableShapes {
        TableShapes {
            bridge: first(table(
                &[("prerouting", 1), ("postrouting", 1), ("p7-from", 2), ("p7-to", 1)],
                &[("from_guest", "p7-from"), ("to_guest", "p7-to")],
            )),
            netdev: first(table(&[("p7-ingress", 1), ("p7-from", 2)], &[])),
        }
    }

    fn set(table: &mut TableShape, chain: &str, rules: usize) {
        table.chains.insert(chain.to_owned(), ChainShape { rules, drops: false });
    }

    #[test]
    fn each_part_that_is_gone_is_missed() {
        assert_eq!(missing(&objects(), &whole(), true), None);
        assert_eq!(missing(&PortObjects { ingress: None, ..objects() }, &whole(), true), None);
        type Edit = fn(&mut TableShape);
        let changes: [(Edit, &str); 7] = [
            (|table| table.dormant = true, "dormant"),
            (|table| table.chains.clear(), "the chain prerouting"),
            (|table| _ = table.chains.remove("postrouting"), "the chain postrouting"),
            (|table| set(table, "prerouting", 3), "has 3 rules instead of 2"),
            (|table| set(table, "p7-from", 1), "has 1 rules instead of 2"),
            (|table| _ = table.maps.remove("to_guest"), "the map to_guest"),
            (|table| _ = table.chains.remove("p7-to"), "the chain p7-to"),
        ];
        for (change, words) in changes {
            let mut now = whole();
            now.bridge.values_mut().for_each(change);
            let what = missing(&objects(), &now, true).unwrap();
            assert!(what.contains(words), "{words}: {what}");
        }
        for netdev in [BTreeMap::new(), first(TableShape::default())] {
            let now = TableShapes { netdev, ..whole() };
            assert!(missing(&objects(), &now, true).unwrap().contains("netdev"));
            assert_eq!(missing(&objects(), &now, false), None, "a kernel without the family");
        }
        let mut now = whole();
        let table = now.netdev.get_mut(&PortTable::FIRST).unwrap();
        table.unhooked.insert("p7-ingress".to_owned());
        assert!(missing(&objects(), &now, true).unwrap().contains("is on no interface"));
        let old = PortObjects { rules: BTreeMap::new(), ..objects() };
        assert_eq!(missing(&old, &whole(), true), None);
        let mut emptied = whole();
        emptied.bridge.get_mut(&PortTable::FIRST).unwrap().chains.remove("p7-to");
        assert!(missing(&old, &emptied, true).unwrap().contains("p7-to"));
        let none = TableShapes::default();
        assert!(missing(&objects(), &none, true).unwrap().contains("is gone"));
    }
}
