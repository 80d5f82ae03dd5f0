//! Names the parts of a port's filter that the kernel's tables lack.
//!
//! The record of the port names its chains and the number of rules in each, and the kernel
//! gives the shape of its tables. Only the first missing part is named: one is enough for a
//! reload to set all rules again.

use super::ingress::{IngressObjects, base};
use super::{PortHook, PortObjects, TABLE, entry};
use crate::firewall::nft_dump::TableShape;

/// The shapes of the kernel's tables of ports' filters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortTables {
    /// The table of the family bridge; `None` if it does not exist.
    pub bridge: Option<TableShape>,
    /// The table of the family netdev; `None` if it does not exist.
    pub netdev: Option<TableShape>,
}

/// Returns the names of the maps that lead to ports' chains.
pub fn maps() -> [&'static str; 4] {
    [PortHook::From, PortHook::To, PortHook::Through, PortHook::Host].map(PortHook::map)
}

/// Returns a clause about the first part of a port's filter that the tables lack; `None` if the
/// filter is complete. `has_netdev` says whether the kernel has tables of the family netdev.
pub fn missing(objects: &PortObjects, now: &PortTables, has_netdev: bool) -> Option<String> {
    if let Some(own) = objects.ingress.as_ref().filter(|_| !objects.is_on_bridge()) {
        return missing_ingress(objects.index, own, now.netdev.as_ref());
    }
    let Some(table) = &now.bridge else { return Some(no_table("bridge")) };
    if table.dormant {
        return Some(format!("the table bridge {TABLE} is dormant, and sees no frames"));
    }
    for hook in PortHook::of(objects.limited) {
        let (chain, ..) = hook.base();
        // One rule leads frames to all ports' chains, and one to the guard, which the rules of
        // earlier versions lack.
        let expected = if hook.guard().is_some() && table.rules(chain) != 1 { 2 } else { 1 };
        if let Some(what) = wrong(table, "bridge", chain, expected) {
            return Some(what);
        }
        let target = entry(objects.index, *hook);
        if table.chain_of_interface(hook.map(), objects.index) != Some(target.as_str()) {
            return Some(format!(
                "the map {} of the table bridge {TABLE} does not lead to the chain {target}",
                hook.map()
            ));
        }
    }
    if objects.rules.is_empty() {
        // Earlier versions recorded no numbers of rules. The entry chains of a port are never
        // empty.
        let entries = PortHook::of(objects.limited).iter().map(|hook| entry(objects.index, *hook));
        let is_empty = |chain: &String| table.rules(chain) == 0;
        return entries.filter(is_empty).find_map(|chain| wrong(table, "bridge", &chain, 1));
    }
    let chain = |(chain, count): (&String, &u32)| wrong(table, "bridge", chain, *count);
    objects.rules.iter().find_map(chain).or_else(|| {
        let ingress = objects.ingress.as_ref().filter(|_| has_netdev)?;
        missing_ingress(objects.index, ingress, now.netdev.as_ref())
    })
}

/// Returns the same for the port's rules in the table of the family netdev.
fn missing_ingress(
    index: u32,
    objects: &IngressObjects,
    table: Option<&TableShape>,
) -> Option<String> {
    let Some(table) = table else { return Some(no_table("netdev")) };
    if table.dormant {
        return Some(format!("the table netdev {TABLE} is dormant, and sees no frames"));
    }
    let chain = |(chain, count): (&String, &u32)| wrong(table, "netdev", chain, *count);
    wrong(table, "netdev", &base(index), 1)
        .or_else(|| {
            let unhooked = |base: &String| table.unhooked.contains(base);
            let base = objects.bases(index).into_iter().find(unhooked)?;
            Some(format!("the chain {base} of the table netdev {TABLE} is on no interface"))
        })
        .or_else(|| objects.rules.iter().find_map(chain))
}

pub(super) fn no_table(family: &str) -> String {
    format!("the table {family} {TABLE} is gone")
}

/// Returns a clause if a chain does not have `count` rules.
pub(super) fn wrong(table: &TableShape, family: &str, chain: &str, count: u32) -> Option<String> {
    let now = table.rules(chain);
    let chain = format!("the chain {chain} of the table {family} {TABLE}");
    match now {
        now if now == count as usize => None,
        0 => Some(format!("{chain} is gone or empty")),
        _ => Some(format!("{chain} has {now} rules instead of {count}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::nft_dump::ChainShape;
    use std::collections::{BTreeMap, BTreeSet};

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

    fn whole() -> PortTables {
        PortTables {
            bridge: Some(table(
                &[("prerouting", 1), ("postrouting", 1), ("p7-from", 2), ("p7-to", 1)],
                &[("from_guest", "p7-from"), ("to_guest", "p7-to")],
            )),
            netdev: Some(table(&[("p7-ingress", 1), ("p7-from", 2)], &[])),
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
            now.bridge.as_mut().map(change).unwrap();
            let what = missing(&objects(), &now, true).unwrap();
            assert!(what.contains(words), "{words}: {what}");
        }
        for netdev in [None, Some(TableShape::default())] {
            let now = PortTables { netdev, ..whole() };
            assert!(missing(&objects(), &now, true).unwrap().contains("netdev"));
            assert_eq!(missing(&objects(), &now, false), None, "a kernel without the family");
        }
        let mut now = whole();
        now.netdev.as_mut().map(|table| table.unhooked.insert("p7-ingress".to_owned())).unwrap();
        assert!(missing(&objects(), &now, true).unwrap().contains("is on no interface"));
        let old = PortObjects { rules: BTreeMap::new(), ..objects() };
        assert_eq!(missing(&old, &whole(), true), None);
        let mut emptied = whole();
        emptied.bridge.as_mut().map(|table| table.chains.remove("p7-to")).unwrap();
        assert!(missing(&old, &emptied, true).unwrap().contains("p7-to"));
        let none = PortTables::default();
        assert!(missing(&objects(), &none, true).unwrap().contains("is gone"));
    }
}
