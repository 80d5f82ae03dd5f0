//! Chooses the tables of nftables for the rules of each port: a port keeps its tables, and a new
//! port gets the first table of the family bridge with fewer than 500 ports. The number of its
//! interface says which table of the family netdev it gets.
//!
//! A record can be older than the kernel's rules, so the kernel is asked as soon as there can be a
//! second table.

use std::borrow::Cow;

use super::PortStatus;
use super::desired_port::DesiredPort;
use crate::firewall::port_nft::{
    FurtherTables, MOST_PORTS, PortObjects, PortTable, PortTables, TableUse, TablesInKernel,
};
use crate::firewall::rules::port::{PortRules, Test};
use crate::firewall::{FirewallBackend, PortRecord};

impl PortStatus {
    /// Returns the table of the family bridge with the port's rules; `None` if there is none.
    pub(super) fn table(&self) -> Option<PortTable> {
        self.recorded.iter().find_map(PortRecord::table)
    }
}

/// Asks the kernel for the table of each port. Asks nothing while one table is enough for all
/// ports.
///
/// A record can be older than the rules, and a port without a record can have rules, if status
/// files were lost or came from a backup. If the kernel does not answer, the records count, and nft
/// reports the error.
pub(super) fn tables_in_kernel(wanted: usize, others: &TableUse) -> TablesInKernel {
    let further = FurtherTables::read().unwrap_or_default();
    if further.bridge.is_empty() && others.count(PortTable::FIRST) + wanted <= MOST_PORTS {
        return TablesInKernel::default();
    }
    TablesInKernel::read(&further).unwrap_or_default()
}

/// Returns a record with the table that has the port's rules.
pub(super) fn corrected<'a>(
    record: &'a PortRecord,
    kernel: &TablesInKernel,
) -> Cow<'a, PortRecord> {
    match (record.table(), kernel.table_of(record.index())) {
        (Some(recorded), Some(table)) if recorded != table => {
            tracing::debug!("the rules of the port {} are in the table {table}", record.index());
            Cow::Owned(record.in_table(table))
        }
        _ => Cow::Borrowed(record),
    }
}

/// Returns the tables for the rules of these ports, which get these backends. A port with rules of
/// nftables stays in its tables. `others` counts the ports that do not change.
pub(super) fn choose_tables(
    wanted: &[DesiredPort],
    backends: &[FirewallBackend],
    others: &TableUse,
    kernel: &TablesInKernel,
) -> Vec<PortTables> {
    let bridge = |DesiredPort { status, .. }: &DesiredPort| {
        kernel.table_of(status.index).or_else(|| status.table())
    };
    let needs = |(DesiredPort { status, .. }, backend): (&DesiredPort, &FirewallBackend)| {
        status.hooks.is_bridge() && *backend == FirewallBackend::Nftables
    };
    let needs: Vec<bool> = wanted.iter().zip(backends).map(needs).collect();
    let recorded: Vec<_> = wanted.iter().map(bridge).collect();
    let netdev = |DesiredPort { status, .. }: &DesiredPort| {
        let recorded = status.recorded.iter().filter_map(PortRecord::objects);
        let kept = recorded.filter_map(PortObjects::netdev_table).next();
        kept.unwrap_or_else(|| PortTable::of_interface(status.index))
    };
    in_tables(&recorded, &needs, others)
        .into_iter()
        .zip(wanted)
        .map(|(bridge, wanted)| PortTables { bridge, netdev: netdev(wanted) })
        .collect()
}

/// Returns the tables of the family bridge for ports that have these tables now. `needs` says for
/// each port whether it needs one.
fn in_tables(recorded: &[Option<PortTable>], needs: &[bool], others: &TableUse) -> Vec<PortTable> {
    let mut counted = others.clone();
    recorded.iter().flatten().for_each(|table| counted.add(*table));
    let table = |(recorded, needs): (&Option<PortTable>, &bool)| match (recorded, needs) {
        (Some(table), _) => *table,
        (None, true) => counted.place(),
        (None, false) => PortTable::FIRST,
    };
    recorded.iter().zip(needs).map(table).collect()
}

/// Returns whether some kernels or backends cannot set these rules: they track connections or use
/// address sets.
pub(super) fn is_special(rules: &PortRules) -> bool {
    let set = |test: &Test| matches!(test, Test::Set { .. });
    rules.is_stateful() || rules.rules().any(|rule| rule.tests.iter().any(set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_keeps_its_table_and_a_new_one_gets_the_first_with_room() {
        let second = PortTable::named("netlaunch_nwfilter_2").unwrap();
        let full =
            |number: usize| -> TableUse { vec![PortTable::FIRST; number].into_iter().collect() };
        for (recorded, others, expected) in [
            (vec![None, None], MOST_PORTS - 1, vec![PortTable::FIRST, second]),
            (vec![Some(second), None], 0, vec![second, PortTable::FIRST]),
            // The ports of the transaction that have a table count before the new ones.
            (vec![None, Some(PortTable::FIRST)], MOST_PORTS - 1, vec![second, PortTable::FIRST]),
            (vec![Some(PortTable::FIRST), None], MOST_PORTS + 500, vec![PortTable::FIRST, second]),
        ] {
            let needs = vec![true; recorded.len()];
            assert_eq!(in_tables(&recorded, &needs, &full(others)), expected, "{recorded:?}");
        }
        let tables = in_tables(&[None, None], &[false, true], &full(MOST_PORTS - 1));
        assert_eq!(tables, [PortTable::FIRST; 2]);
    }
}
