//! Finds the ports in the kernel's tables.
//!
//! The tables are shared by all state directories. Before the last port of one directory removes a
//! table, this listing shows whether ports of another directory need it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::{FurtherTables, PortHook, PortTable, entry};
use crate::firewall::nft_dump::{map_elements, table_names, table_shape};
use crate::sys::interfaces::Interfaces;

/// Returns the numbers of the ports without a bridge that have rules in this table.
///
/// # Errors
/// Returns the kernel's error.
pub fn ports_without_bridge(table: PortTable) -> io::Result<BTreeSet<u32>> {
    let shape = table_shape(netdev(), &table.to_string(), &[])?.unwrap_or_default();
    let index = |chain: &String| chain.strip_prefix('p')?.strip_suffix("-egress")?.parse().ok();
    Ok(shape.chains.keys().filter_map(index).collect())
}

/// Returns the numbers of the ports whose chains are in a table of the family bridge and whose
/// interfaces exist.
///
/// # Errors
/// Returns the kernel's error.
pub fn ports_in_bridge(table: PortTable) -> io::Result<BTreeSet<u32>> {
    let mut ports = BTreeSet::new();
    let interfaces = Interfaces::open()?;
    let map = PortHook::From.map();
    for index in map_elements(bridge(), &table.to_string(), map)?.iter().filter_map(port_of) {
        if interfaces.exists(index)? {
            ports.insert(index);
        }
    }
    Ok(ports)
}

/// The tables of the family bridge that have the chains of ports.
#[derive(Debug, Clone, Default)]
pub struct TablesInKernel(BTreeMap<u32, PortTable>);

impl TablesInKernel {
    /// Asks the kernel for the ports in the first table and in these further ones.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub fn read(further: &FurtherTables) -> io::Result<Self> {
        let mut tables = BTreeMap::new();
        for table in std::iter::once(PortTable::FIRST).chain(further.bridge.iter().copied()) {
            let elements = map_elements(bridge(), &table.to_string(), PortHook::From.map())?;
            tables.extend(elements.iter().filter_map(port_of).map(|index| (index, table)));
        }
        Ok(TablesInKernel(tables))
    }

    /// Returns the table that has the chain of the port with this number.
    pub fn table_of(&self, index: u32) -> Option<PortTable> {
        self.0.get(&index).copied()
    }
}

/// Returns the port whose chain an element of [`PortHook::From`]'s map leads to.
fn port_of((key, chain): &(Vec<u8>, String)) -> Option<u32> {
    let index = u32::from_ne_bytes(key.as_slice().try_into().ok()?);
    (*chain == entry(index, PortHook::From)).then_some(index)
}

impl FurtherTables {
    /// Reads the names of the further tables from the kernel.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub fn read() -> io::Result<Self> {
        let further = |family| -> io::Result<BTreeSet<PortTable>> {
            let tables =
                table_names(family)?.into_iter().filter_map(|name| PortTable::named(&name));
            Ok(tables.filter(|table| !table.is_first()).collect())
        };
        Ok(FurtherTables { bridge: further(bridge())?, netdev: further(netdev())? })
    }
}

fn bridge() -> u8 {
    u8::try_from(libc::NFPROTO_BRIDGE).unwrap_or_default()
}

fn netdev() -> u8 {
    u8::try_from(libc::NFPROTO_NETDEV).unwrap_or_default()
}
