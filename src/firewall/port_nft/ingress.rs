//! The filter of link-local frames, which a bridge handles before its own hooks.
//!
//! A bridge consumes frames to 01:80:c2:00:00:00 to 0f (IEEE 802.1Q, 8.6.3) before the chain
//! `prerouting` of the bridge family sees them: it learns their source address, takes part in STP,
//! and hands them to the host's own protocols. Only the ingress hook of the port comes before that
//! (measured on Linux 6.18; the bridge's input hook sees those to 02 to 0d and 0f, and none of the
//! spanning tree's or LLDP's). So a table of the family netdev has, for each port whose filter
//! refuses frames, a chain on that hook. The chain sends link-local frames, and no others, through
//! the same rules as in the bridge's table:
//!
//! ```text
//! ingress of vnet0 ─ to 01:80:c2:00:00:0x, iif 7 ─▶ p7-from ─▶ p7-from-1 … ─▶ p7-from-ip
//! ```
//!
//! A frame that the bridge forwards all the same (STP is off, or group_fwd_mask) passes the
//! bridge's table afterwards, which gives the same verdict.
//!
//! The hook is on an interface's name, and since Linux 6.16 the kernel moves it to a later
//! interface of that name. The rule tests the interface's number, too, so that such an interface
//! stays without a filter.
//!
//! There is no connection tracking on this hook. If a rule for an IP version needs it, packets of
//! that version do not pass (see [`crate::firewall::rules::port`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Extras, NoIpset, PortHook, PortObjects, PortTable, PortText, by_number, entry};
use crate::firewall::rules::port::{LINK_LOCAL, LINK_LOCAL_MASK, Path, PortRules, PortVerdict};
use crate::types::InterfaceName;

use super::interface::egress_base;
use super::words::colons;

/// The names of a port's objects in the table of the family netdev. `chains` includes the entry
/// chain, but not the base chain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressObjects {
    /// The table; `None` in the records of earlier versions, where it is the one with the name of
    /// the port's table of the family bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<PortTable>,
    /// The names of the chains.
    pub chains: BTreeSet<String>,
    /// The number of rules in each chain; empty in the records of earlier versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, u32>,
    /// The names of the counters.
    #[serde(default)]
    pub counters: BTreeSet<String>,
    /// Whether a rule needs the set of equal bytes.
    #[serde(default)]
    pub equal_bytes: bool,
    /// Whether the port is on no bridge, and has a base chain on the egress hook, too
    /// ([`super::interface`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_egress: bool,
}

impl IngressObjects {
    /// Returns the parts that name objects: all but the numbers of rules.
    pub(super) fn names(&self) -> impl PartialEq {
        let IngressObjects { table, chains, rules: _, counters, equal_bytes, has_egress } = self;
        (table, chains, counters, equal_bytes, has_egress)
    }

    /// Returns the names of the base chains of the port with this number.
    pub(super) fn bases(&self, index: u32) -> Vec<String> {
        let egress = self.has_egress.then(|| egress_base(index));
        std::iter::once(base(index)).chain(egress).collect()
    }
}

/// A port's rules in the table of the family netdev.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IngressText {
    /// The base chains.
    pub(super) bases: Vec<BaseChain>,
    /// The other chains and their rules.
    pub(super) body: String,
}

/// A base chain on a hook of the port's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseChain {
    pub(super) chain: String,
    pub(super) hook: &'static str,
    pub(super) port: InterfaceName,
    pub(super) rules: Vec<String>,
}

impl BaseChain {
    /// Returns the line that adds the chain to this table.
    pub(super) fn declaration(&self, table: PortTable) -> String {
        let BaseChain { chain, hook, port, .. } = self;
        format!(
            "add chain netdev {table} {chain} {{ type filter hook {hook} device \"{port}\" priority 0; policy accept; }}"
        )
    }
}

/// Returns the name of a port's base chain.
pub(super) fn base(index: u32) -> String {
    format!("p{index}-ingress")
}

/// Renders a port's rules for link-local frames. Returns `None` if the filter accepts all of them,
/// or if nft cannot name the interface.
///
/// `from` has the chains of the frames from the guest in the bridge's table, and no others. With
/// most filters the chains of link-local frames are the same.
pub(super) fn ingress(
    port: &InterfaceName,
    rules: &PortRules,
    extras: Extras,
    from: &PortText,
) -> Result<Option<(IngressObjects, IngressText)>, NoIpset> {
    let path = rules.for_link_local();
    if !path.refuses() || !has_hook(port) {
        return Ok(None);
    }
    let index = from.objects.index;
    let rejects = |path: &Path| path.packets.iter().any(|rule| rule.verdict == PortVerdict::Reject);
    let text = match &path {
        Cow::Borrowed(path) if !(extras.reject && rejects(path)) => from.clone(),
        _ => {
            let mut text = PortText::new(index);
            // The family netdev cannot reject.
            text.path(PortHook::From, &path, Extras { reject: false, ..extras })?;
            text
        }
    };
    let PortText { objects, body, .. } = text;
    let PortObjects { chains, rules, counters, equal_bytes, .. } = Arc::unwrap_or_clone(objects);
    let base = BaseChain {
        chain: base(index),
        hook: "ingress",
        port: port.clone(),
        rules: vec![format!(
            "ether daddr & {} == {} iif {} goto {}",
            colons(LINK_LOCAL_MASK),
            colons(LINK_LOCAL),
            by_number(index),
            entry(index, PortHook::From)
        )],
    };
    let text = IngressText { bases: vec![base], body };
    let table = Some(PortTable::of_interface(index));
    let objects = IngressObjects { table, chains, rules, counters, equal_bytes, has_egress: false };
    Ok(Some((objects, text)))
}

/// Returns whether nft can name the interface: its strings cannot contain quotation marks, and
/// newer versions use the asterisk as a wildcard.
pub fn has_hook(port: &InterfaceName) -> bool {
    !port.as_str().contains(['"', '*', '\\'])
}
