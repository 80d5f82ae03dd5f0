//! The guard of ports: drops the frames of every port whose name one of its rules matches, until
//! the port has a filter.
//!
//! Events about a new interface come too late to filter its first frame. The guard is there before
//! the interface, and an end of any process of netlaunch does not remove it.

use serde::{Deserialize, Serialize};

use super::backend::FirewallBackend;
use super::commit::commit;
use super::iptables_change::TableTools;
use super::nft_dump::table_shape;
use super::port_apply::holds_more;
use super::port_error::PortError;
use super::port_iptables;
use super::port_nft::{self, Families, TABLE};
use super::tool_error::ToolError;
use super::tools::{Tool, Tools};
use crate::types::{InterfaceName, PortPattern, error_text};

/// A rule of the guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardRule {
    /// The names of the ports.
    pub port: PortPattern,
    /// The bridge of the ports; `None` for every bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<InterfaceName>,
}

/// Checks whether nft and the kernel accept the guard, without changing a rule. ebtables has no
/// check.
///
/// # Errors
/// Returns the error with which [`set_guard`] would fail.
pub async fn check_guard(
    tools: &Tools,
    backend: FirewallBackend,
    rules: &[GuardRule],
) -> Result<(), PortError> {
    if backend == FirewallBackend::Iptables {
        return Ok(());
    }
    let checked = tools.run(Tool::Nft, &["--check"], &port_nft::set_guard(rules)).await;
    checked.map(drop).map_err(|error| PortError::from(error).named())
}

/// Replaces the guard of a backend. `bound` are the ports that have their filters in it. No rules
/// remove the guard; `others` says whether ports then still need nft's table.
///
/// # Errors
/// Returns [`PortError`]; [`PortError::left_as_before`] says whether the guard is as before.
pub async fn set_guard(
    tools: &Tools,
    backend: FirewallBackend,
    rules: &[GuardRule],
    bound: &[InterfaceName],
    others: bool,
) -> Result<(), PortError> {
    match backend {
        FirewallBackend::Nftables => {
            let is_last = rules.is_empty() && !others && !holds_more(tools, &[]).await?;
            let committed = if is_last {
                match commit(tools, &port_nft::remove_tables(Families::All)).await {
                    // A kernel without the family netdev refuses the first text.
                    Err(_) => commit(tools, &port_nft::remove_tables(Families::Bridge)).await,
                    done => done,
                }
            } else {
                commit(tools, &port_nft::set_guard(rules)).await
            };
            committed.map_err(|error| PortError::from(error).named())
        }
        FirewallBackend::Iptables => {
            let before = TableTools::ETHERNET.present(tools).await?;
            let wanted = port_iptables::with_guard(before.clone(), rules, bound);
            let changed = TableTools::ETHERNET.change(tools, &before, &wanted).await;
            // ebtables over nf_tables needs the same part of the kernel as nft.
            let names_bridge = |error: &ToolError| error_text(error).contains("--logical-");
            changed.map_err(|error| match error {
                error if names_bridge(&error) => PortError::NoBridgeNames,
                error => error.into(),
            })
        }
    }
}

/// Returns a clause about the first part of the guard that the kernel lacks; `None` if the guard is
/// complete.
///
/// # Errors
/// Returns [`PortError`] if the rules cannot be read.
pub async fn missing_guard(
    tools: &Tools,
    backend: FirewallBackend,
    rules: &[GuardRule],
    bound: &[InterfaceName],
) -> Result<Option<String>, PortError> {
    match backend {
        FirewallBackend::Nftables => {
            let family = u8::try_from(libc::NFPROTO_BRIDGE).unwrap_or_default();
            let table = table_shape(family, TABLE, &port_nft::maps())
                .map_err(|source| PortError::Unread { source })?;
            Ok(port_nft::missing_guard(rules.len(), table.as_ref()))
        }
        FirewallBackend::Iptables => {
            let now = TableTools::ETHERNET.present(tools).await?;
            Ok(port_iptables::missing_guard(&now, rules, bound))
        }
    }
}
