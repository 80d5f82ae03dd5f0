//! Lists the host's firewall rules of all programs, by running each tool's list command.
//!
//! The tables of legacy iptables are listed as well, because both variants can be in use on one
//! host. The commands change no rules; a missing tool has no listing.

use std::io;

use super::conflicts::Listings;
use super::nft_dump::{
    Attributes, NFT_TABLE_F_DORMANT, NFTA_TABLE_FLAGS, NFTA_TABLE_NAME, is_absent,
    list as list_objects,
};
use super::port_iptables::Part;
use super::tool_error::ToolError;
use super::tools::{Tool, Tools};
use crate::firewall::rules::Version;
use crate::types::error_text;

/// The listings of the tools; a listing is `None` where the tool is not installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    nft: Option<String>,
    iptables: Option<String>,
    ip6tables: Option<String>,
    iptables_legacy: Option<String>,
    ip6tables_legacy: Option<String>,
}

impl Listed {
    /// Returns the listings in the form that [`super::conflicts::find`] reads.
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

/// Runs each installed tool once, and nft once for each table if a table is dormant. Runs the IPv6
/// tools only if `ipv6` is set, since a kernel may lack IPv6.
///
/// # Errors
/// Returns an error if a tool refuses, usually because the process is not root, or if no tool is
/// installed.
pub async fn list(tools: &Tools, ipv6: bool) -> Result<Listed, ToolError> {
    let nft = nft(tools).await;
    let mut listed = Listed::default();
    for version in [Version::V4, Version::V6] {
        if version == Version::V6 && !ipv6 {
            continue;
        }
        let saved = present(tools.run(Tool::Save(version), &[], "").await)?;
        // If iptables-save is the legacy program, its output has the legacy tables already.
        let old = saved.as_ref().is_some_and(|s| !s.is_empty() && !s.contains("(nf_tables)"));
        let legacy = if old { None } else { legacy(tools, version).await? };
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

/// Returns the tables of nftables that see IP packets, as one JSON document or as several.
///
/// nft 1.0.6 reads freed memory when it prints the flags of a table as JSON, and the listing of a
/// dormant table is sometimes no JSON. A dormant table stops no packet. So if a table is dormant,
/// nft lists each other table by a command of its own. It parses a table's name as part of the
/// command, so all tables are listed at once if a name has other characters than nft gives it.
async fn nft(tools: &Tools) -> Result<String, ToolError> {
    // If the kernel does not answer, nft says why.
    let tables = ip_tables().unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if tables.iter().all(|table| !table.is_dormant)
        || !tables.iter().all(|table| table.name.bytes().all(is_plain))
    {
        return tools.run(Tool::NftList, &[], "").await;
    }
    let mut documents = "{\"nftables\": []}\n".to_owned();
    for NftTable { family, name, .. } in tables.iter().filter(|table| !table.is_dormant) {
        let command = ["-j", "-s", "list", "table", family, name];
        match tools.run(Tool::NftAsk, &command, "").await {
            Ok(document) if document.trim().is_empty() => {
                return Err(ToolError::Ignored { program: "nft" });
            }
            Ok(document) => documents += &document,
            // Its owner has removed the table in the meantime.
            Err(_) if is_gone(family, name) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(documents)
}

/// Returns whether the kernel says that a table does not exist.
fn is_gone(family: &str, name: &str) -> bool {
    let is_it = |table: &NftTable| table.family == family && table.name == name;
    ip_tables().is_ok_and(|tables| !tables.iter().any(is_it))
}

/// A table of nftables.
struct NftTable {
    family: &'static str,
    name: String,
    is_dormant: bool,
}

/// Asks the kernel for the tables that see IP packets.
fn ip_tables() -> io::Result<Vec<NftTable>> {
    let mut tables = Vec::new();
    for (family, number) in
        [("ip", libc::NFPROTO_IPV4), ("ip6", libc::NFPROTO_IPV6), ("inet", libc::NFPROTO_INET)]
    {
        let listed = match list_objects(libc::NFT_MSG_GETTABLE, number as u8, &[]) {
            Err(error) if is_absent(&error) => continue,
            listed => listed?,
        };
        tables.extend(listed.iter().map(|message| {
            let all = Attributes(message);
            let flags = all.number(NFTA_TABLE_FLAGS).unwrap_or(0);
            let name = all.text(NFTA_TABLE_NAME).unwrap_or_default();
            NftTable { family, name, is_dormant: flags & NFT_TABLE_F_DORMANT != 0 }
        }));
    }
    Ok(tables)
}

/// Returns the tables of legacy iptables; `None` if the tool is not installed or may not read them.
async fn legacy(tools: &Tools, version: Version) -> Result<Option<String>, ToolError> {
    match present(tools.run(Tool::SaveLegacy(version), &[], "").await) {
        Err(error) if hides_legacy_tables(version) => {
            tracing::warn!(
                "the tables of the old {} are not known, and left out: {}",
                Part::Ip(version).tool(),
                error_text(&error)
            );
            Ok(None)
        }
        listed => listed,
    }
}

/// Returns whether the kernel hides the table names of legacy iptables from this process. The file
/// belongs to root of the first user namespace, so root of another user namespace cannot read it.
fn hides_legacy_tables(version: Version) -> bool {
    let file = match version {
        Version::V4 => "/proc/net/ip_tables_names",
        Version::V6 => "/proc/net/ip6_tables_names",
    };
    let opened = std::fs::File::open(file);
    opened.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Returns `None` if the tool is not installed.
fn present(listing: Result<String, ToolError>) -> Result<Option<String>, ToolError> {
    match listing {
        Err(ToolError::Absent(_)) => Ok(None),
        other => other.map(Some),
    }
}
