//! The record of a port's rules, which its status file contains and removal uses.

use serde::{Deserialize, Serialize};

use super::backend::FirewallBackend;
use super::iptables_shape::Shape;
use super::port_iptables::Part;
use super::port_nft::PortObjects;
use crate::types::InterfaceName;

/// The record of a port's rules in its status file, which removal uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "backend", rename_all = "lowercase")]
pub enum PortRecord {
    /// The rules were added by nft.
    Nftables(PortObjects),
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
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        shapes: Vec<(Part, Shape)>,
        /// The digest of the rules; `None` in the records of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
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

    /// Returns the digest of the rules; `None` in the records of earlier versions.
    pub fn digest(&self) -> Option<u64> {
        match self {
            PortRecord::Nftables(objects) => objects.digest,
            PortRecord::Iptables { digest, .. } => *digest,
        }
    }

    /// Returns whether both records name the same objects. The rules may differ.
    pub fn has_objects_of(&self, other: &PortRecord) -> bool {
        let bare = |recorded: &PortRecord| {
            let mut bare = recorded.clone();
            match &mut bare {
                PortRecord::Nftables(objects) => {
                    objects.rules.clear();
                    objects.digest = None;
                    objects.ingress.iter_mut().for_each(|ingress| ingress.rules.clear());
                }
                PortRecord::Iptables { shapes, digest, .. } => {
                    shapes.clear();
                    *digest = None;
                }
            }
            bare
        };
        bare(self) == bare(other)
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
