//! Renders the filters of ports as the text of one `nft -f -`.
//!
//! A table of the bridge family contains up to 500 ports ([`PortTable`]). Each of its base chains
//! begins with a look-up in a map from the interface's number to the port's chain; see [`guard`]
//! for the second rule. So the number of ports in a table adds nothing to the cost of a frame. Each
//! further table adds one look-up on each hook. The rules of a removed port never apply to a later
//! port of the same name, since the kernel does not use a number again.
//!
//! ```text
//! prerouting  ─ iif vmap @from_guest ─▶ p7-from ─▶ p7-from-1 (a sub chain) … ─▶ p7-from-ip
//! postrouting ─ oif vmap @to_guest ───▶ p7-to   ─▶ …
//! ```
//!
//! `accept` would end the whole evaluation, so the first stage ends with a `goto` to the second.
//! The text can be applied to any state of the tables, also if they do not exist: adding an
//! existing object changes no rules, and each object is added before it is deleted (nft 1.0.6 has
//! no `destroy`). Chains that stay are flushed and filled again, which costs half of deleting and
//! adding them (measured with 1,000 ports).
//!
//! nft 1.0.6 joins two neighbouring fields that must differ from a value into one comparison, which
//! then holds when only one of them differs. It does not join masked fields, so such a test has a
//! mask of all ones.
//!
//! Fields of ARP, RARP and STP are read by their offset, since nft has keywords only for ARP's
//! fields.
//!
//! The base chains that see frames from guests have the priority -100: after the bridge's
//! connection tracking (-200), which their rules use, and before br_netfilter (prerouting 0,
//! forward -1). That module takes packets out of the bridge's hooks for iptables and returns them
//! after priority 0: a chain of priority 0 in `forward` then sees none of them (measured on Linux
//! 6.1; br_nf_hook_thresh()), and in `prerouting` some kernels skip a chain that was added before
//! the module.
//!
//! # Further tables of the family bridge
//!
//! The kernel validates the whole table at each change ([`table`]), so the time of a bind grows
//! with the number of ports in the table. The ports beyond 500 are in further tables,
//! `netlaunch_nwfilter_2` and so on. The first table's maps have an element `accept` for each of
//! their ports, and their base chains come after those of the first table ([`further`]). A further
//! table is deleted with its last port; the first one stays as long as a port on a bridge or the
//! guard needs it.
//!
//! # Other families
//!
//! Tables of the same names, of the family netdev, filter link-local frames ([`ingress`]), and all
//! frames of ports without a bridge ([`interface`]). They have no common hook, so many of them cost
//! a frame nothing: the interface's number says which one a new port gets
//! ([`PortTable::of_interface`]). They stay until the last port of all is removed, or the guard if
//! that is later. All tables change in the same transaction. The guard has more tables of the first
//! table's name ([`host_guard`]).

mod adapt;
mod chains;
mod change;
mod further;
mod guard;
mod host_guard;
mod ingress;
mod interface;
mod listed_ports;
mod missing;
mod missing_feature;
mod roles;
mod root;
mod table;
#[cfg(test)]
mod testing;
pub(super) mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::firewall::rules::Version;
use crate::firewall::rules::port::Origin;

pub use adapt::Attempt;
pub use chains::port;
pub use change::{Families, change, fetch_less, remove_tables};
pub use further::{FurtherTables, close_ports, open_ports};
pub use guard::{missing_guard, set_guard};
pub use host_guard::{HOST_FAMILIES, add_table, missing_host_guard, set_host_guard};
use ingress::IngressText;
pub use ingress::{IngressObjects, has_hook};
pub use interface::interface_port;
pub use listed_ports::{TablesInKernel, ports_in_bridge, ports_without_bridge};
pub use missing::{TableShapes, maps, missing, missing_in_first_maps};
pub use missing_feature::{EGRESS, INTERFACES, MissingKernelFeature, missing_feature};
pub use roles::roles;
pub use table::{MOST_PORTS, PortTable, PortTables, TableUse};

/// The name of the set of all pairs of equal bytes, which exists as long as the table.
const EQUAL_BYTES: &str = "equal_bytes";

/// The name of a set without elements, which nft lists so that it fetches no other set.
const EMPTY: &str = "empty";

/// Additional functions of the table's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extras {
    /// Whether `nft monitor trace` shows the frames of bound ports.
    pub trace: bool,
    /// Whether each rule counts its frames, and each port counts the frames that pass or are
    /// dropped.
    pub counters: bool,
    /// Whether the kernel can reject in the bridge family. If not, a rule that rejects drops the
    /// frame.
    pub reject: bool,
}

/// A rule that nft cannot express.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{origin} looks addresses up in the ipset {set}, which nftables cannot do; use firewall_backend = \"iptables\", or name the addresses in the filter"
)]
#[non_exhaustive]
pub struct NoIpset {
    /// The rule.
    pub origin: Origin,
    /// The name of the ipset.
    pub set: String,
}

/// The names of a port's objects in the table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortObjects {
    /// The interface's number.
    pub index: u32,
    /// The table of the family bridge.
    #[serde(default, skip_serializing_if = "PortTable::is_first")]
    pub table: PortTable,
    /// The names of the chains.
    pub chains: BTreeSet<String>,
    /// The number of rules in each chain; empty in the records of earlier versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, u32>,
    /// The sets that count connections, and the IP version of their addresses.
    #[serde(default)]
    pub sets: BTreeSet<(String, Version)>,
    /// The names of the counters.
    #[serde(default)]
    pub counters: BTreeSet<String>,
    /// Whether the port's rules count connections.
    #[serde(default)]
    pub limited: bool,
    /// Whether a rule needs the set of equal bytes.
    #[serde(default)]
    pub equal_bytes: bool,
    /// The port's objects in the table of the family netdev; `None` if there are none.
    #[serde(default)]
    pub ingress: Option<IngressObjects>,
    /// The digest of the rules ([`crate::firewall::rules::port::PortRules::digest`]); `None` in the
    /// records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<u64>,
}

impl PortObjects {
    /// Returns whether the port is on a bridge. Otherwise all its objects are in the table of the
    /// family netdev.
    pub fn is_on_bridge(&self) -> bool {
        self.ingress.as_ref().is_none_or(|own| !own.has_egress)
    }

    /// Returns the table of the family netdev with objects of the port; `None` if there is none.
    pub fn netdev_table(&self) -> Option<PortTable> {
        self.ingress.as_ref().map(|own| own.table.unwrap_or(self.table))
    }

    /// Returns the parts that name objects: all but the numbers and the digest of the rules.
    pub fn names(&self) -> impl PartialEq {
        let PortObjects {
            index,
            table,
            chains,
            rules: _,
            sets,
            counters,
            limited,
            equal_bytes,
            ingress,
            digest: _,
        } = self;
        let ingress = ingress.as_ref().map(IngressObjects::names);
        (index, table, chains, sets, counters, limited, equal_bytes, ingress)
    }

    /// Returns whether the port counts its frames.
    pub fn has_counters(&self) -> bool {
        let own = self.ingress.as_ref().filter(|_| !self.is_on_bridge());
        !own.map_or(&self.counters, |own| &own.counters).is_empty()
    }
}

/// A port's rendered rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortText {
    /// The names of the port's objects, which the port's record has, too.
    pub objects: Arc<PortObjects>,
    /// The chains with their rules.
    body: String,
    /// The rules in the table of the family netdev: for link-local frames, if the filter refuses
    /// some of them, or all rules of a port without a bridge.
    ingress: Option<IngressText>,
}

impl PortText {
    /// Returns the text for these tables.
    pub fn in_tables(mut self, tables: PortTables) -> Self {
        let objects = Arc::make_mut(&mut self.objects);
        objects.table = tables.bridge;
        if let Some(own) = &mut objects.ingress {
            own.table = Some(tables.netdev);
        }
        self
    }
}

/// The direction of frames and the hook that sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortHook {
    /// From the guest.
    From,
    /// To the guest.
    To,
    /// From the guest through the bridge. This hook exists only where connections are counted,
    /// since connections to the host are counted separately.
    Through,
    /// From the guest to the host itself.
    Host,
}

impl PortHook {
    /// The chains of every port.
    const BOTH: [PortHook; 2] = [PortHook::From, PortHook::To];
    /// The additional chains of a port that counts connections.
    const LIMITED: [PortHook; 2] = [PortHook::Through, PortHook::Host];

    fn of(limited: bool) -> &'static [PortHook] {
        const ALL: [PortHook; 4] =
            [PortHook::From, PortHook::To, PortHook::Through, PortHook::Host];
        if limited { &ALL } else { &PortHook::BOTH }
    }

    fn name(self) -> &'static str {
        match self {
            PortHook::From => "from",
            PortHook::To => "to",
            PortHook::Through => "from-ip",
            PortHook::Host => "from-host",
        }
    }

    fn map(self) -> &'static str {
        match self {
            PortHook::From => "from_guest",
            PortHook::To => "to_guest",
            PortHook::Through => "from_guest_through",
            PortHook::Host => "from_guest_to_host",
        }
    }

    /// Returns the name of the chain that closes ports without a filter ([`guard`]); the other
    /// hooks see no frame of such a port.
    fn guard(self) -> Option<&'static str> {
        match self {
            PortHook::From => Some("guard-from"),
            PortHook::To => Some("guard-to"),
            PortHook::Through | PortHook::Host => None,
        }
    }

    /// Returns the name of the hook and of the base chain on it.
    fn base(self) -> &'static str {
        match self {
            PortHook::From => "prerouting",
            PortHook::To => "postrouting",
            PortHook::Through => "forward",
            PortHook::Host => "input",
        }
    }

    /// Returns the priority of the base chain in this table. The first table comes before the
    /// others ([`further`]).
    fn priority(self, table: PortTable) -> i32 {
        let priority = if self == PortHook::To { 0 } else { -100 };
        if table.is_first() { priority } else { priority + 1 }
    }

    /// Returns the first rule of the base chain.
    fn look_up(self) -> String {
        let side = if self == PortHook::To { "oif" } else { "iif" };
        format!("{side} vmap @{}", self.map())
    }
}

/// Returns nft's text for the interface with this number. nft takes a bare number for an interface
/// with that name, if there is one: `7` would be the interface named "7", whatever its number is.
/// No interface has a name with a space, and nft reads a number behind one.
fn by_number(index: u32) -> String {
    format!("\" {index}\"")
}

/// Returns the name of the chain at which a port's frames start.
fn entry(index: u32, hook: PortHook) -> String {
    format!("p{index}-{}", hook.name())
}
