//! The tables with the filters of ports, and the choice of the table for a port.
//!
//! When a transaction adds a rule with a verdict, the kernel walks all rules that the base chains
//! of the same table lead to (nft_table_validate()), and all chains of all tables. With 1,000 ports
//! of clean-traffic, the commit of a bind takes (Linux 6.18, sendmsg() of nft, medians of 9 runs):
//!
//! | Tables | ms |
//! |---|---|
//! | one of each family | 13.5 |
//! | one of the family bridge, 16 of the family netdev | 9.5 |
//! | of each family one for 500 ports | 7.8 |
//! | beside no other port | 0.5 |
//!
//! The family netdev has hooks of single interfaces, so its tables cost a frame nothing, and one
//! has the ports of 64 neighbouring numbers: 16 tables for 1,000 ports leave little to win. Each
//! further table of the family bridge takes 0.11 µs of each frame of every port, whose way from tap
//! to tap takes 1.8 µs (medians of 25 rounds). So a table of the family bridge has many ports, but
//! no more than [`MOST_PORTS`]. With two tables of 500 ports, the whole bind of port 1,000 takes
//! 1.22 to 1.25 times that of the first port, and with one table 1.42 times.
//!
//! A port stays in its tables, also with other rules. Its record has their numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

/// The most ports that one table of the family bridge gets. A table of an earlier version can have
/// more.
pub const MOST_PORTS: usize = 500;

/// The number of interfaces with neighbouring numbers whose ports share a table of the family
/// netdev.
const NETDEV_BLOCK: u32 = 64;

/// The most tables of the family netdev.
const NETDEV_TABLES: u32 = 64;

/// The name of the first table.
const FIRST_NAME: &str = "netlaunch_nwfilter";

/// The number of a table in the family bridge or netdev. It is displayed as the table's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortTable(NonZeroU16);

impl PortTable {
    /// The table of the family bridge that every host with ports on bridges has. Its maps have an
    /// element for each such port of all tables, and it has the guard.
    pub const FIRST: PortTable = PortTable(NonZeroU16::MIN);

    /// Returns whether it is the first table.
    pub fn is_first(&self) -> bool {
        *self == PortTable::FIRST
    }

    /// Returns the table of this name; `None` if a table of ports never has the name.
    pub fn named(name: &str) -> Option<Self> {
        let table = match name.strip_prefix(FIRST_NAME)? {
            "" => PortTable::FIRST,
            end => PortTable(end.strip_prefix('_')?.parse().ok()?),
        };
        (table.to_string() == name).then_some(table)
    }

    /// Returns the table of the family netdev for the port with this number.
    pub fn of_interface(index: u32) -> Self {
        let block = index / NETDEV_BLOCK % NETDEV_TABLES;
        PortTable(NonZeroU16::MIN.saturating_add(u16::try_from(block).unwrap_or_default()))
    }

    /// Returns the next table; the last one has no limit.
    fn next(self) -> Self {
        PortTable(self.0.saturating_add(1))
    }
}

impl Default for PortTable {
    fn default() -> Self {
        PortTable::FIRST
    }
}

impl fmt::Display for PortTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get() {
            1 => f.write_str(FIRST_NAME),
            number => write!(f, "{FIRST_NAME}_{number}"),
        }
    }
}

/// The tables for the rules of a port; by default the first ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortTables {
    /// The table of the family bridge. A port without a bridge has no rules in it.
    pub bridge: PortTable,
    /// The table of the family netdev.
    pub netdev: PortTable,
}

/// The number of ports in each table of the family bridge, as the ports' records have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableUse(BTreeMap<PortTable, usize>);

impl TableUse {
    /// Counts a port in this table.
    pub fn add(&mut self, table: PortTable) {
        *self.0.entry(table).or_default() += 1;
    }

    /// Chooses the table for a port without a record: the first one with room. Counts the port
    /// there.
    pub fn place(&mut self) -> PortTable {
        let mut table = PortTable::FIRST;
        while self.count(table) >= MOST_PORTS && table.next() != table {
            table = table.next();
        }
        self.add(table);
        table
    }

    /// Returns whether no table has a port.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of ports in this table.
    pub fn count(&self, table: PortTable) -> usize {
        self.0.get(&table).copied().unwrap_or_default()
    }
}

impl FromIterator<PortTable> for TableUse {
    fn from_iter<I: IntoIterator<Item = PortTable>>(tables: I) -> Self {
        let mut counted = TableUse::default();
        tables.into_iter().for_each(|table| counted.add(table));
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(number: u16) -> PortTable {
        PortTable(NonZeroU16::new(number).unwrap())
    }

    #[test]
    fn a_table_has_one_name() {
        for (number, name) in [
            (1, "netlaunch_nwfilter"),
            (2, "netlaunch_nwfilter_2"),
            (65535, "netlaunch_nwfilter_65535"),
        ] {
            assert_eq!(table(number).to_string(), name);
            assert_eq!(PortTable::named(name), Some(table(number)));
        }
        for name in ["", "_0", "_1", "_02", "_+2", "_65536", "_", "2", "_x", "_2_3"] {
            let name = match name {
                "" => "netlaunch_network".to_owned(),
                end => format!("netlaunch_nwfilter{end}"),
            };
            assert_eq!(PortTable::named(&name), None, "{name}");
        }
    }

    #[test]
    fn neighbouring_interfaces_share_a_table_of_the_family_netdev() {
        for (index, number) in
            [(0, 1), (1, 1), (63, 1), (64, 2), (127, 2), (4095, 64), (4096, 1), (u32::MAX, 64)]
        {
            assert_eq!(PortTable::of_interface(index), table(number), "{index}");
        }
    }

    #[test]
    fn a_record_has_no_table_0() {
        assert_eq!(serde_json::to_string(&table(2)).unwrap(), "2");
        assert_eq!(serde_json::from_str::<PortTable>("2").unwrap(), table(2));
        assert!(serde_json::from_str::<PortTable>("0").is_err());
    }

    #[test]
    fn a_new_port_gets_the_first_table_with_room() {
        let mut counted = TableUse::default();
        let tables: Vec<_> = (0..=2 * MOST_PORTS).map(|_| counted.place()).collect();
        let (first, others) = tables.split_at(MOST_PORTS);
        assert_eq!(first, vec![table(1); MOST_PORTS]);
        assert_eq!(others[..MOST_PORTS], vec![table(2); MOST_PORTS]);
        assert_eq!(others[MOST_PORTS..], [table(3)]);
        let full = |tables: &[u16]| -> TableUse {
            tables.iter().flat_map(|number| vec![table(*number); MOST_PORTS]).collect()
        };
        assert_eq!(full(&[2]).place(), table(1));
        assert_eq!(full(&[1, 3]).place(), table(2));
        // The ports of an earlier version are all in the first table.
        let ports = MOST_PORTS + 1;
        let mut earlier: TableUse = vec![table(1); ports].into_iter().collect();
        assert_eq!(earlier.place(), table(2));
        assert_eq!((earlier.count(table(1)), earlier.count(table(2))), (ports, 1));
    }
}
