//! nftables: the filters of ports as the text of one `nft -f -`.
//!
//! One table of the bridge family holds all ports. Its two base chains have one rule each: a map
//! from the interface's number to the port's chain. So a frame costs the same with one port bound
//! and with a thousand, and a port that is gone is never mistaken for a later one of its name: the
//! kernel does not use a number again.
//!
//! ```text
//! prerouting  ─ iif vmap @from_guest ─▶ p7-from ─▶ p7-from-1 (a sub chain) … ─▶ p7-from-ip
//! postrouting ─ oif vmap @to_guest ───▶ p7-to   ─▶ …
//! ```
//!
//! `accept` would end the whole evaluation, so the end of the first stage is a `goto` to the
//! second. What is written can be applied to any state of the table, also to none: adding what is
//! there changes nothing, and what is deleted is added before (nft 1.0.6 has no `destroy`). Chains
//! that stay are emptied and filled, which costs half of deleting and adding them (measured with
//! 1,000 ports).
//!
//! nft 1.0.6 joins neighbouring fields that must differ from a value into one comparison, which then
//! holds when one of them differs. It leaves masked fields alone, so such a test has a mask of all
//! ones.
//!
//! Fields of ARP, RARP and STP are read at their places, since nft knows the fields of ARP only.
//!
//! A second table of the same name, of the family netdev, filters link-local frames ([`ingress`]).
//! Both tables change in the same transaction.

mod adapt;
mod chains;
mod change;
mod held;
mod ingress;
pub(super) mod words;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::rules::Version;
use crate::rules::port::Origin;

pub use adapt::Attempt;
pub use chains::port;
pub use change::{Families, change, remove_tables};
pub use held::{held, question};
use ingress::IngressText;
pub use ingress::{IngressObjects, has_hook};

/// The tables' name, of the families bridge and netdev.
pub const TABLE: &str = "netlaunch_nwfilter";

/// The set of all pairs of equal bytes; it stays as long as the table does.
const EQUAL_BYTES: &str = "equal_bytes";

/// What the table's rules do besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extras {
    /// Frames of bound ports are shown by `nft monitor trace`.
    pub trace: bool,
    /// Rules count what they decide, and ports what passes and what is dropped.
    pub counters: bool,
    /// The kernel can refuse in the bridge family; else what is refused is dropped.
    pub reject: bool,
}

/// Something nft has no words for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{origin} looks addresses up in the ipset {set}, which nftables cannot do; use firewall_backend = \"iptables\" in nwfilter.conf, or name the addresses in the filter"
)]
pub struct NoIpset {
    /// The rule.
    pub origin: Origin,
    /// The set.
    pub set: String,
}

/// What a port has in the table, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortObjects {
    /// The interface's number.
    pub index: u32,
    /// The chains.
    pub chains: BTreeSet<String>,
    /// The sets that count connections, and the IP version of their addresses.
    #[serde(default)]
    pub sets: BTreeSet<(String, Version)>,
    /// The counters.
    #[serde(default)]
    pub counters: BTreeSet<String>,
    /// Whether connections are counted.
    #[serde(default)]
    pub limited: bool,
    /// Whether a rule needs the set of equal bytes.
    #[serde(default)]
    pub equal_bytes: bool,
    /// Its objects in the table of the family netdev; `None` is none.
    #[serde(default)]
    pub ingress: Option<IngressObjects>,
}

/// A port's rules, made ready for the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortText {
    /// What it has there.
    pub objects: PortObjects,
    /// The chains' rules.
    body: String,
    /// The rules for link-local frames, where the filter refuses some.
    ingress: Option<IngressText>,
}

/// Which way frames go, and where they are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the guest.
    From,
    /// To the guest.
    To,
    /// From the guest through the bridge: where connections are counted, since those to the host
    /// count apart.
    Through,
    /// From the guest to the host itself.
    Host,
}

impl Way {
    /// What every port has.
    const BOTH: [Way; 2] = [Way::From, Way::To];
    /// What a port has besides where connections are counted.
    const LIMITED: [Way; 2] = [Way::Through, Way::Host];

    fn of(limited: bool) -> &'static [Way] {
        const ALL: [Way; 4] = [Way::From, Way::To, Way::Through, Way::Host];
        if limited { &ALL } else { &Way::BOTH }
    }

    fn name(self) -> &'static str {
        match self {
            Way::From => "from",
            Way::To => "to",
            Way::Through => "from-ip",
            Way::Host => "from-host",
        }
    }

    fn map(self) -> &'static str {
        match self {
            Way::From => "from_guest",
            Way::To => "to_guest",
            Way::Through => "from_guest_through",
            Way::Host => "from_guest_to_host",
        }
    }

    /// The base chain: its name, its declaration, its rule.
    fn base(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Way::From => {
                ("prerouting", "type filter hook prerouting priority 0;", "iif vmap @from_guest")
            }
            Way::To => {
                ("postrouting", "type filter hook postrouting priority 0;", "oif vmap @to_guest")
            }
            Way::Through => {
                ("forward", "type filter hook forward priority 0;", "iif vmap @from_guest_through")
            }
            Way::Host => {
                ("input", "type filter hook input priority 0;", "iif vmap @from_guest_to_host")
            }
        }
    }
}

/// The chain that a port's frames start in.
fn entry(index: u32, way: Way) -> String {
    format!("p{index}-{}", way.name())
}
