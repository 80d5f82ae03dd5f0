//! What rules the host has, of everyone: the tools' listings. Nothing is changed by it.

use super::conflicts::Listings;
use super::tool_error::ToolError;
use super::tools::{Tool, Tools};
use crate::rules::Version;

/// The tools' listings; `None` where a tool is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    nft: Option<String>,
    iptables: Option<String>,
    ip6tables: Option<String>,
    iptables_legacy: Option<String>,
    ip6tables_legacy: Option<String>,
}

impl Listed {
    /// The listings as [`super::conflicts::find`] reads them.
    pub fn listings(&self) -> Listings<'_> {
        Listings {
            nft: self.nft.as_deref(),
            iptables: self.iptables.as_deref(),
            ip6tables: self.ip6tables.as_deref(),
            iptables_legacy: self.iptables_legacy.as_deref(),
            ip6tables_legacy: self.ip6tables_legacy.as_deref(),
        }
    }
}

/// Runs each tool that is there once. Those of IPv6 only with `ipv6`: a kernel may lack it.
///
/// # Errors
/// A tool's refusal, usually for want of root's rights; or that there is no tool at all.
pub async fn list(tools: &Tools, ipv6: bool) -> Result<Listed, ToolError> {
    let nft = tools.run(Tool::NftList, &[], "").await;
    let mut listed = Listed::default();
    for version in [Version::V4, Version::V6] {
        if version == Version::V6 && !ipv6 {
            continue;
        }
        let saved = present(tools.run(Tool::Save(version), &[], "").await)?;
        // Where iptables-save is the old one itself, its tables are known already.
        let old = saved.as_ref().is_some_and(|s| !s.is_empty() && !s.contains("(nf_tables)"));
        let legacy = match old {
            true => None,
            false => present(tools.run(Tool::SaveLegacy(version), &[], "").await)?,
        };
        match version {
            Version::V4 => (listed.iptables, listed.iptables_legacy) = (saved, legacy),
            Version::V6 => (listed.ip6tables, listed.ip6tables_legacy) = (saved, legacy),
        }
    }
    listed.nft = match nft {
        Err(error @ ToolError::Absent(_)) if listed == Listed::default() => return Err(error),
        nft => present(nft)?,
    };
    Ok(listed)
}

/// Nothing where the tool is not there.
fn present(listing: Result<String, ToolError>) -> Result<Option<String>, ToolError> {
    match listing {
        Err(ToolError::Absent(_)) => Ok(None),
        other => other.map(Some),
    }
}
