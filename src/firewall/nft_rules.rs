//! Reads the rules of a chain from the kernel: the handle of each rule, and its counter.
//!
//! A handle names a rule in the kernel's trace. Only the rules of the named chains are read, so the
//! cost does not grow with the number of ports. The messages are those of
//! linux/netfilter/nf_tables.h.

use std::io;

use super::nft_dump::{Attributes, is_absent, list};
use super::nft_kernel::{attribute, text};
use super::port_counters::Count;
use super::port_roles::RuleTable;
use crate::firewall::rules::Version;

// Attributes of linux/netfilter/nf_tables.h.
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_COUNTER_BYTES: u16 = 1;
const NFTA_COUNTER_PACKETS: u16 = 2;

/// A rule in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KernelRule {
    /// The number of the rule, unique in its table.
    pub(super) handle: u64,
    /// The frames that the rule has counted; `None` if it has no counter.
    pub(super) count: Option<Count>,
}

impl RuleTable {
    /// Returns the family and the name of the table.
    pub(super) fn name(self) -> (u8, String) {
        let (family, name) = match self {
            RuleTable::Bridge(table) => (libc::NFPROTO_BRIDGE, table.to_string()),
            RuleTable::Netdev(table) => (libc::NFPROTO_NETDEV, table.to_string()),
            RuleTable::Ethernet => (libc::NFPROTO_BRIDGE, "nat".to_owned()),
            RuleTable::Filter(Version::V4) => (libc::NFPROTO_IPV4, "filter".to_owned()),
            RuleTable::Filter(Version::V6) => (libc::NFPROTO_IPV6, "filter".to_owned()),
        };
        (u8::try_from(family).unwrap_or_default(), name)
    }
}

/// Returns the rules of a chain in order; none if there is no such chain.
///
/// # Errors
/// Returns the kernel's error, usually because the process lacks CAP_NET_ADMIN.
pub(super) fn rules_of(table: RuleTable, chain: &str) -> io::Result<Vec<KernelRule>> {
    let (family, name) = table.name();
    let named =
        [attribute(NFTA_RULE_TABLE, &text(&name)), attribute(NFTA_RULE_CHAIN, &text(chain))];
    let listed = match list(libc::NFT_MSG_GETRULE, family, &named.concat()) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        listed => listed?,
    };
    let rules = listed.iter().map(|message| Attributes(message));
    let own = rules.filter(|all| {
        let is = |kind, name: &str| all.text(kind).as_deref() == Some(name);
        is(NFTA_RULE_TABLE, &name) && is(NFTA_RULE_CHAIN, chain)
    });
    Ok(own.map(|all| rule(&all)).collect())
}

pub(super) fn rule(all: &Attributes<'_>) -> KernelRule {
    let expressions = all.nested(NFTA_RULE_EXPRESSIONS);
    let expressions = expressions.iter().flat_map(|list| list.all(NFTA_LIST_ELEM));
    let count = expressions.map(Attributes).find_map(|expression| {
        let is_counter = expression.text(NFTA_EXPR_NAME).as_deref() == Some("counter");
        let data = expression.nested(NFTA_EXPR_DATA).filter(|_| is_counter)?;
        let (frames, bytes) = (data.long(NFTA_COUNTER_PACKETS)?, data.long(NFTA_COUNTER_BYTES)?);
        Some(Count { frames, bytes })
    });
    KernelRule { handle: all.long(NFTA_RULE_HANDLE).unwrap_or_default(), count }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
        let data = attribute(NFTA_EXPR_DATA, &data.concat());
        let name = attribute(NFTA_EXPR_NAME, &text(name));
        attribute(NFTA_LIST_ELEM, &[name, data].concat())
    }

    #[test]
    fn the_handle_and_the_counter_of_a_rule_are_read() {
        let counter = expression(
            "counter",
            &[
                attribute(NFTA_COUNTER_BYTES, &1000u64.to_be_bytes()),
                attribute(NFTA_COUNTER_PACKETS, &7u64.to_be_bytes()),
            ],
        );
        let meta = expression("meta", &[attribute(1, &[0; 8])]);
        let message = |expressions: &[Vec<u8>]| {
            let handle = attribute(NFTA_RULE_HANDLE, &9u64.to_be_bytes());
            let list = attribute(NFTA_RULE_EXPRESSIONS, &expressions.concat());
            [handle, list].concat()
        };
        let count = Some(Count { frames: 7, bytes: 1000 });
        for (expressions, count) in
            [(vec![meta.clone(), counter], count), (vec![meta], None), (vec![], None)]
        {
            let message = message(&expressions);
            assert_eq!(rule(&Attributes(&message)), KernelRule { handle: 9, count });
        }
        assert_eq!(rule(&Attributes(&[])), KernelRule { handle: 0, count: None });
    }
}
