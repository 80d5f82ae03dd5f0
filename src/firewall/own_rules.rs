//! Checks whether the rules of networks are still in the kernel, without changing them.
//!
//! The present state is read once for all networks: netlaunch's nftables tables from the kernel, or
//! the output of the iptables tools. The comparison uses the shape: the chains, the number of rules
//! in each chain, and the map elements and jumps that lead to them. The text of a rule is not
//! compared, since it differs between versions of the tools.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::backend::FirewallBackend;
use super::iptables_change::TableTools;
use super::iptables_state::TableState;
use super::nft_dump::{TableShape, table_shape};
use super::port_iptables::Part;
use super::tool_error::ToolError;
use super::tools::Tools;
use super::{render_iptables, render_nft};
use crate::firewall::rules::{Ruleset, Version};

/// The reason why the present rules cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnRulesError {
    /// A tool failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The kernel did not answer.
    #[error("the kernel does not show its nftables; run as root")]
    Kernel(#[from] std::io::Error),
}

/// The present rules of all networks in the kernel.
#[derive(Debug, Default)]
pub struct OwnRules {
    /// The shape of netlaunch's table for each IP version; `None` where the table does not exist.
    nft: BTreeMap<Version, Option<TableShape>>,
    pub(super) iptables: BTreeMap<Version, TableState>,
}

impl OwnRules {
    /// Reads the tables that these networks may use; each entry is a network's backend and its
    /// rulesets. nftables needs no process; iptables needs one `-save` for each IP version.
    ///
    /// # Errors
    /// Returns the error of the kernel or of a tool, usually because the process is not root.
    pub async fn read(
        tools: &Tools,
        wanted: &[(FirewallBackend, Vec<Ruleset>)],
    ) -> Result<Self, OwnRulesError> {
        let mut own = OwnRules::read_nft(wanted)?;
        let iptables = wanted.iter().filter(|(backend, _)| *backend == FirewallBackend::Iptables);
        for version in iptables.flat_map(|(_, rulesets)| rulesets).map(|ruleset| ruleset.version) {
            if let Entry::Vacant(place) = own.iptables.entry(version) {
                place.insert(TableTools::ip(version).present(tools).await?);
            }
        }
        Ok(own)
    }

    /// Reads the nftables tables that these networks may use.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub fn read_nft(wanted: &[(FirewallBackend, Vec<Ruleset>)]) -> Result<Self, OwnRulesError> {
        let mut own = OwnRules::default();
        let nft = wanted.iter().filter(|(backend, _)| *backend == FirewallBackend::Nftables);
        for version in nft.flat_map(|(_, rulesets)| rulesets).map(|ruleset| ruleset.version) {
            if let Entry::Vacant(place) = own.nft.entry(version) {
                let family = match version {
                    Version::V4 => libc::NFPROTO_IPV4,
                    Version::V6 => libc::NFPROTO_IPV6,
                };
                let family = u8::try_from(family).unwrap_or_default();
                let shape = table_shape(family, render_nft::TABLE, &render_nft::MAPS)?;
                place.insert(shape);
            }
        }
        Ok(own)
    }

    /// Returns descriptions of the missing parts of these rulesets. A table that was not read does
    /// not count as missing.
    pub fn missing(&self, backend: FirewallBackend, rulesets: &[Ruleset]) -> Vec<String> {
        let of = |ruleset: &Ruleset| match backend {
            FirewallBackend::Nftables => self
                .nft
                .get(&ruleset.version)
                .map(|table| render_nft::missing(table.as_ref(), ruleset)),
            FirewallBackend::Iptables => self.iptables.get(&ruleset.version).map(|present| {
                let one = std::slice::from_ref(ruleset);
                let wanted = render_iptables::with(&TableState::default(), ruleset.version, one);
                present.missing_parts(&wanted, Part::Ip(ruleset.version).tool())
            }),
        };
        rulesets.iter().filter_map(of).flatten().collect()
    }
}
