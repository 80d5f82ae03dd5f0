//! The guard of ports: drops the frames of every port whose name one of its rules matches, until
//! the port has a filter.
//!
//! Events about a new interface come too late to filter its first frame. The guard is there before
//! the interface, and an end of any process of netlaunch does not remove it.
//!
//! The guard has two parts: one on the hooks of bridges, which each bind changes, and one between
//! the host and interfaces that are on no bridge yet.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::backend::FirewallBackend;
use super::commit::commit;
use super::iptables_change::TableTools;
use super::nft_dump::table_shape;
use super::port_apply::holds_more;
use super::port_change::{table_tools, undo};
use super::port_error::PortError;
use super::port_iptables::{self, Part};
use super::port_nft::{self, FurtherTables, HOST_FAMILIES, PortTable, add_table};
use super::tool_error::ToolError;
use super::tools::{Tool, Tools};
use crate::firewall::rules::Version;
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
    let check = |text: String| async move {
        Ok(tools.run(Tool::Nft, &["--check"], &text).await.map(drop)?)
    };
    in_families(&HOST_FAMILIES, |families| whole_guard(rules, families), check).await.map(drop)
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
            let run = |text: String| async move { Ok(commit(tools, &text).await?) };
            let is_last = rules.is_empty() && !others && !holds_more(&[])?;
            if is_last {
                let all = [&["bridge", "netdev"], HOST_FAMILIES.as_slice()].concat();
                let further = FurtherTables::read();
                let further = further.map_err(|source| PortError::Unread { source })?;
                let text = |families: &[&str]| port_nft::remove_tables(families, &further);
                return in_families(&all, text, run).await.map(drop);
            }
            let left = in_families(&HOST_FAMILIES, |families| whole_guard(rules, families), run);
            for family in left.await?.into_iter().filter(|_| !rules.is_empty()) {
                tracing::warn!(
                    "the kernel has no nftables family {family}: an interface of a watch rule reaches the host by it until the interface joins a bridge"
                );
            }
            Ok(())
        }
        FirewallBackend::Iptables => {
            let mut done = Vec::new();
            for part in parts() {
                let tools_of_part = table_tools(part);
                let changed = async {
                    let before = tools_of_part.present(tools).await?;
                    let wanted = match part {
                        Part::Ethernet => port_iptables::with_guard(before.clone(), rules, bound),
                        Part::Ip(_) => port_iptables::with_host_guard(before.clone(), rules),
                    };
                    done.push((part, before.clone()));
                    tools_of_part.change(tools, &before, &wanted).await
                };
                if let Err(error) = changed.await {
                    // ebtables over nf_tables needs the same part of the kernel as nft.
                    let error = if error_text(&error).contains("--logical-") {
                        PortError::NoBridgeNames
                    } else {
                        error.into()
                    };
                    return Err(undo(tools, &done, error).await);
                }
            }
            Ok(())
        }
    }
}

/// Returns the transaction that sets both parts of nft's guard, the second in these families.
fn whole_guard(rules: &[GuardRule], families: &[&str]) -> String {
    port_nft::set_guard(rules) + &port_nft::set_host_guard(rules, families)
}

/// Runs nft by `run` with the text of these families. If the kernel lacks a family, nft runs again
/// without that family. Returns the families that the kernel lacks.
async fn in_families<R: Future<Output = Result<(), PortError>>>(
    families: &[&'static str],
    text: impl Fn(&[&str]) -> String,
    run: impl Fn(String) -> R,
) -> Result<Vec<&'static str>, PortError> {
    let (mut families, mut left) = (families.to_vec(), Vec::new());
    loop {
        let Err(error) = run(text(&families)).await else { return Ok(left) };
        let refused = match &error {
            PortError::Tool(ToolError::Refused { line: Some(line), .. }) => {
                families.iter().position(|family| *line == add_table(family))
            }
            _ => None,
        };
        let Some(at) = refused else { return Err(error.named()) };
        left.push(families.remove(at));
    }
}

/// Returns the parts of the guard of iptables. A host without IPv6 has no rules of ip6tables.
fn parts() -> Vec<Part> {
    let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    Part::ALL.into_iter().filter(|part| has_ipv6 || *part != Part::Ip(Version::V6)).collect()
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
            let shape = |family: i32, maps: &[&str]| {
                let family = u8::try_from(family).unwrap_or_default();
                table_shape(family, &PortTable::FIRST.to_string(), maps)
                    .map_err(|source| PortError::Unread { source })
            };
            let table = shape(libc::NFPROTO_BRIDGE, &port_nft::maps())?;
            if let Some(what) = port_nft::missing_guard(rules.len(), table.as_ref()) {
                return Ok(Some(what));
            }
            let numbers = [libc::NFPROTO_IPV4, libc::NFPROTO_IPV6, libc::NFPROTO_ARP];
            for (family, number) in HOST_FAMILIES.into_iter().zip(numbers) {
                let table = shape(number, &[])?;
                let missing = port_nft::missing_host_guard(rules, family, table.as_ref());
                if missing.is_some() && (table.is_some() || has_family(tools, family).await) {
                    return Ok(missing);
                }
            }
            Ok(None)
        }
        FirewallBackend::Iptables => {
            let now = TableTools::ETHERNET.present(tools).await?;
            if let Some(what) = port_iptables::missing_guard(&now, rules, bound) {
                return Ok(Some(what));
            }
            for part in parts().into_iter().filter(|part| *part != Part::Ethernet) {
                let now = table_tools(part).present(tools).await?;
                let missing = port_iptables::missing_host_guard(&now, rules, part.tool());
                if missing.is_some() {
                    return Ok(missing);
                }
            }
            Ok(None)
        }
    }
}

/// Returns whether the kernel accepts a table of this family.
async fn has_family(tools: &Tools, family: &str) -> bool {
    let text = format!("{}\n", add_table(family));
    !matches!(
        tools.run(Tool::Nft, &["--check"], &text).await,
        Err(ToolError::Refused { line: Some(_), .. })
    )
}
