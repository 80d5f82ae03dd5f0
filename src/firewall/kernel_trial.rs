//! Tries a firewall backend in an empty network namespace: its tools set a network's rules, and the
//! kernel then has them.
//!
//! `nft -c` and `iptables-restore --test` show that a tool accepts the rules. This trial also shows
//! that the kernel keeps them. It needs a namespace of its own, because it changes rules.

use super::backend::{FirewallBackend, problem, sample};
use super::tool_error::ToolError;
use super::tools::{Tool, Tools};
use super::{TableState, render_iptables, render_nft};
use crate::firewall::rules::Version;
use crate::types::facts::Problem;

/// The table of bridged frames, which filters of ports use, with one rule in it.
const BRIDGE_TABLE: &str = "add table bridge netlaunch_try\n\
    add chain bridge netlaunch_try forward { type filter hook forward priority 0; }\n\
    add rule bridge netlaunch_try forward ether type arp drop\n";

/// Sets the rules of a network, in the network namespace of this thread, and looks for them there.
/// The caller has entered an empty namespace, which ends with the rules.
///
/// # Errors
/// Returns the reason why the backend cannot be used.
pub(crate) async fn try_in_own_network(
    tools: &Tools,
    backend: FirewallBackend,
) -> Result<(), Problem> {
    let kept = match backend {
        FirewallBackend::Nftables => nftables(tools).await,
        FirewallBackend::Iptables => iptables(tools).await,
    };
    match kept {
        Ok(true) => Ok(()),
        Ok(false) => Err(Problem::new(
            format!("the tools of {backend} report success, but the kernel has no rules"),
            "look for a wrapper of these tools in PATH, or use a kernel with nf_tables",
        )),
        Err(error) => Err(problem(error)),
    }
}

async fn nftables(tools: &Tools) -> Result<bool, ToolError> {
    let text = render_nft::apply(&sample()) + BRIDGE_TABLE;
    tools.run(Tool::Nft, &[], &text).await?;
    let tables = tools.run(Tool::NftAsk, &["list", "tables"], "").await?;
    let wanted = ["table ip netlaunch", "table ip6 netlaunch", "table bridge netlaunch_try"];
    Ok(wanted.iter().all(|table| tables.contains(table)))
}

async fn iptables(tools: &Tools) -> Result<bool, ToolError> {
    for version in [Version::V4, Version::V6] {
        tools.run(Tool::Save(version), &[], "").await?;
        let nothing = TableState::default();
        let text = nothing.change_to(&render_iptables::with(&nothing, version, &sample()));
        tools.run(Tool::Restore(version), &[], &text).await?;
        if !tools.run(Tool::Save(version), &[], "").await?.contains("NETLAUNCH_") {
            return Ok(false);
        }
    }
    Ok(true)
}
