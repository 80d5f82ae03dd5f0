//! Finds the ports in the table from nft's listing.
//!
//! The table is shared by all state directories. Before the last port of one directory removes
//! the table, this listing shows whether ports of another directory need it.

use std::collections::BTreeSet;
use std::io;

use serde_json::Value;

use super::{PortHook, entry};
use crate::firewall::nft_dump::table_shape;

/// Returns the numbers of the ports in a listing of [`PortHook::From`]'s map whose interfaces
/// exist. nft prints an interface's name, or a bare number if the interface no longer exists.
pub fn listed_ports(listing: &str) -> BTreeSet<u32> {
    let listing: Value = serde_json::from_str(listing).unwrap_or_default();
    let parts = listing["nftables"].as_array().into_iter().flatten();
    let elements = parts.filter_map(|part| part["map"]["elem"].as_array()).flatten();
    elements.filter_map(port).collect()
}

fn port(element: &Value) -> Option<u32> {
    // Earlier versions of netlaunch wrote goto.
    let target = ["jump", "goto"].iter().find_map(|verdict| element[1][verdict]["target"].as_str());
    let chain = target?;
    let index = chain.strip_prefix('p')?.split_once('-')?.0.parse().ok()?;
    let is_there = element[0].as_str() != Some(&format!("{index}"));
    (chain == entry(index, PortHook::From) && is_there).then_some(index)
}

/// Returns the numbers of the ports without a bridge that have rules in the kernel.
///
/// # Errors
/// Returns the kernel's error.
pub fn ports_without_bridge() -> io::Result<BTreeSet<u32>> {
    let family = u8::try_from(libc::NFPROTO_NETDEV).unwrap_or_default();
    let shape = table_shape(family, super::TABLE, &[])?.unwrap_or_default();
    let index = |chain: &String| chain.strip_prefix('p')?.strip_suffix("-egress")?.parse().ok();
    Ok(shape.chains.keys().filter_map(index).collect())
}

/// Returns nft's arguments for that listing.
pub fn question() -> [String; 6] {
    ["-j", "list", "map", "bridge", super::TABLE, PortHook::From.map()].map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_there_are_held() {
        let listing = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"map": {"family": "bridge",
            "name": "from_guest", "elem": [["vnet0", {"jump": {"target": "p2-from"}}],
            ["vnet3", {"goto": {"target": "p3-from"}}],
            ["7", {"jump": {"target": "p7-from"}}], ["vnet1", {"jump": {"target": "other"}}]]}}]}"#;
        assert_eq!(listed_ports(listing), BTreeSet::from([2, 3]));
        for nothing in ["", "{", r#"{"nftables": [{"map": {"name": "from_guest"}}]}"#] {
            assert_eq!(listed_ports(nothing), BTreeSet::new(), "{nothing}");
        }
    }
}
