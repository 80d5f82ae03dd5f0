//! What a network's status keeps, so that exactly what was added can be removed, also by a netlaunch
//! that would add something else.

use serde::{Deserialize, Serialize};

use super::backend::Backend;
use super::iptables_state::TableRemoval;
use super::{render_iptables, render_nft};
use crate::rules::Ruleset;

/// How to remove what was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "backend", rename_all = "lowercase")]
pub enum Recorded {
    /// By nft.
    Nftables {
        /// The input of `nft -f -` that removes this owner's part.
        own: String,
        /// The input that removes the tables, when nobody else needs them.
        tables: String,
    },
    /// By iptables-restore and ip6tables-restore.
    Iptables {
        /// What to remove from which table.
        removals: Vec<TableRemoval>,
    },
}

impl Recorded {
    /// What is to be recorded for these rulesets.
    pub fn new(backend: Backend, rulesets: &[Ruleset]) -> Self {
        match backend {
            Backend::Nftables => Recorded::Nftables {
                own: render_nft::removal(rulesets),
                tables: render_nft::remove_tables(),
            },
            Backend::Iptables => {
                Recorded::Iptables { removals: render_iptables::removals(rulesets) }
            }
        }
    }

    /// The backend that added it and removes it.
    pub fn backend(&self) -> Backend {
        match self {
            Recorded::Nftables { .. } => Backend::Nftables,
            Recorded::Iptables { .. } => Backend::Iptables,
        }
    }
}
