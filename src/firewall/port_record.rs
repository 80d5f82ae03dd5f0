//! The record of a port's rules, which its status file contains and removal uses.
//!
//! In the file, the member `backend` selects the form of a record. The derived reader of such a
//! form first copies the whole record, because the member could come last. So [`RecordFile`], which
//! has the members of both forms, reads a record: a command on one of 1,000 ports reads the files
//! of all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::backend::FirewallBackend;
use super::iptables_shape::Shape;
use super::port_iptables::Part;
use super::port_nft::{IngressObjects, PortObjects, PortTable};
use crate::firewall::rules::Version;
use crate::types::InterfaceName;

/// The record of a port's rules in its status file, which removal uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "backend", rename_all = "lowercase", try_from = "RecordFile")]
pub enum PortRecord {
    /// The rules were added by nft.
    Nftables(Arc<PortObjects>),
    /// The rules were added by ebtables, iptables and ip6tables; removal removes all chains of this
    /// number.
    Iptables {
        /// The interface's number.
        index: u32,
        /// The interface's name.
        port: InterfaceName,
        /// The tools that have chains of the port.
        parts: Vec<Part>,
        /// The chains and jumps in the tables of each tool. Empty in the records of earlier
        /// versions.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        shapes: Vec<(Part, Shape)>,
        /// The digest of the rules; `None` in the records of earlier versions.
        #[serde(skip_serializing_if = "Option::is_none")]
        digest: Option<u64>,
    },
}

impl PortRecord {
    /// Returns the interface's number.
    pub fn index(&self) -> u32 {
        match self {
            PortRecord::Nftables(objects) => objects.index,
            PortRecord::Iptables { index, .. } => *index,
        }
    }

    /// Returns the port's objects in the tables of nftables; `None` for rules of iptables.
    pub fn objects(&self) -> Option<&PortObjects> {
        match self {
            PortRecord::Nftables(objects) => Some(objects),
            PortRecord::Iptables { .. } => None,
        }
    }

    /// Returns the table of the family bridge with the port's rules; `None` for rules of iptables,
    /// and for a port without a bridge.
    pub fn table(&self) -> Option<PortTable> {
        self.objects().filter(|objects| objects.is_on_bridge()).map(|objects| objects.table)
    }

    /// Returns the record of the same rules in another table of nftables.
    pub fn in_table(&self, table: PortTable) -> Self {
        let mut moved = self.clone();
        if let PortRecord::Nftables(objects) = &mut moved {
            Arc::make_mut(objects).table = table;
        }
        moved
    }

    /// Returns the digest of the rules; `None` in the records of earlier versions.
    pub fn digest(&self) -> Option<u64> {
        match self {
            PortRecord::Nftables(objects) => objects.digest,
            PortRecord::Iptables { digest, .. } => *digest,
        }
    }

    /// Returns whether both records name the same objects. The rules may differ.
    pub fn has_objects_of(&self, other: &PortRecord) -> bool {
        match (self, other) {
            (PortRecord::Nftables(one), PortRecord::Nftables(two)) => one.names() == two.names(),
            (
                PortRecord::Iptables { index, port, parts, shapes: _, digest: _ },
                PortRecord::Iptables { index: index2, port: port2, parts: parts2, .. },
            ) => (index, port, parts) == (index2, port2, parts2),
            (PortRecord::Nftables(_), PortRecord::Iptables { .. })
            | (PortRecord::Iptables { .. }, PortRecord::Nftables(_)) => false,
        }
    }

    /// Returns whether iptables or ip6tables has chains of the port.
    pub fn has_packet_rules(&self) -> bool {
        match self {
            PortRecord::Nftables(_) => false,
            PortRecord::Iptables { parts, .. } => {
                parts.iter().any(|part| matches!(part, Part::Ip(_)))
            }
        }
    }

    /// Returns whether a rule refers to the port by its name, and so does not see the frames of a
    /// port that was renamed. The rules of nftables' bridge table use the interface's number. The
    /// hooks of the interface itself, for link-local frames or for all frames of a port without a
    /// bridge, use the name, and Linux 6.16 and later remove them from a renamed interface.
    pub fn knows_the_name(&self) -> bool {
        match self {
            PortRecord::Nftables(objects) => objects.ingress.is_some(),
            PortRecord::Iptables { .. } => true,
        }
    }

    /// Returns the backend that added the rules and that removes them.
    pub fn backend(&self) -> FirewallBackend {
        match self {
            PortRecord::Nftables(_) => FirewallBackend::Nftables,
            PortRecord::Iptables { .. } => FirewallBackend::Iptables,
        }
    }
}

/// The members of both forms of a record.
#[derive(Deserialize)]
struct RecordFile {
    backend: FirewallBackend,
    index: u32,
    #[serde(default)]
    digest: Option<u64>,
    // The members of nftables.
    #[serde(default)]
    table: PortTable,
    chains: Option<BTreeSet<String>>,
    #[serde(default)]
    rules: BTreeMap<String, u32>,
    #[serde(default)]
    sets: BTreeSet<(String, Version)>,
    #[serde(default)]
    counters: BTreeSet<String>,
    #[serde(default)]
    limited: bool,
    #[serde(default)]
    equal_bytes: bool,
    #[serde(default)]
    ingress: Option<IngressObjects>,
    // The members of iptables.
    port: Option<InterfaceName>,
    parts: Option<Vec<Part>>,
    #[serde(default)]
    shapes: Vec<(Part, Shape)>,
}

impl TryFrom<RecordFile> for PortRecord {
    type Error = &'static str;

    fn try_from(file: RecordFile) -> Result<Self, Self::Error> {
        let RecordFile { index, digest, .. } = file;
        match file.backend {
            FirewallBackend::Nftables => Ok(PortRecord::Nftables(Arc::new(PortObjects {
                index,
                table: file.table,
                chains: file.chains.ok_or("missing field `chains`")?,
                rules: file.rules,
                sets: file.sets,
                counters: file.counters,
                limited: file.limited,
                equal_bytes: file.equal_bytes,
                ingress: file.ingress,
                digest,
            }))),
            FirewallBackend::Iptables => Ok(PortRecord::Iptables {
                index,
                port: file.port.ok_or("missing field `port`")?,
                parts: file.parts.ok_or("missing field `parts`")?,
                shapes: file.shapes,
                digest,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for record in [
            json!({ "backend": "nftables", "index": 7, "chains": ["p7-from"],
                "rules": { "p7-from": 2 }, "sets": [["c", "v4"]], "counters": ["n"],
                "limited": true, "equal_bytes": true, "digest": 5,
                "ingress": { "chains": ["p7-from"], "rules": { "p7-from": 2 }, "counters": [],
                    "equal_bytes": false } }),
            json!({ "backend": "iptables", "index": 7, "port": "tap0", "parts": ["ethernet"],
                "shapes": [["ethernet", { "jumps": [], "leads": [], "rules": {} }]],
                "digest": 5 }),
        ] {
            let read: PortRecord = from_value(record.clone()).unwrap();
            assert_eq!(to_value(&read).unwrap(), record);
        }
    }

    #[test]
    fn a_record_without_the_names_of_its_objects_is_damaged() {
        for (backend, names) in [("nftables", "chains"), ("iptables", "port")] {
            let record = json!({ "backend": backend, "index": 7 });
            let error = from_value::<PortRecord>(record).unwrap_err().to_string();
            assert!(error.contains(&format!("missing field `{names}`")), "{error}");
        }
        assert!(from_value::<PortRecord>(json!({ "index": 7, "chains": [] })).is_err());
    }
}
