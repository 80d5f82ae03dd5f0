//! The record of a network's rules in its status file.
//!
//! A removal uses the record and not the present code, so that each version of netlaunch
//! removes exactly the rules that were added. The names in the file therefore never change.

use serde::{Deserialize, Serialize};

use super::backend::FirewallBackend;
use super::iptables_state::TableRemoval;
use super::{render_iptables, render_nft};
use crate::firewall::rules::Ruleset;

/// The instructions for removing the rules that were added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "backend", rename_all = "lowercase")]
pub enum RemovalRecord {
    /// The rules were added by nft.
    Nftables {
        /// The input of `nft -f -` that removes this owner's rules.
        own: String,
        /// The input that removes the tables, for use when no other owner needs them.
        tables: String,
    },
    /// The rules were added by iptables-restore and ip6tables-restore.
    Iptables {
        /// The rules and chains to remove from each table.
        removals: Vec<TableRemoval>,
    },
}

impl RemovalRecord {
    /// Returns the record for these rulesets.
    pub fn new(backend: FirewallBackend, rulesets: &[Ruleset]) -> Self {
        match backend {
            FirewallBackend::Nftables => RemovalRecord::Nftables {
                own: render_nft::removal(rulesets),
                tables: render_nft::remove_tables(),
            },
            FirewallBackend::Iptables => {
                RemovalRecord::Iptables { removals: render_iptables::removals(rulesets) }
            }
        }
    }

    /// Returns the backend that added the rules and that removes them.
    pub fn backend(&self) -> FirewallBackend {
        match self {
            RemovalRecord::Nftables { .. } => FirewallBackend::Nftables,
            RemovalRecord::Iptables { .. } => FirewallBackend::Iptables,
        }
    }
}
