//! The reasons why a port's filter was not changed, and the state of the ports after the
//! failure.
//!
//! [`PortError::left_as_before`] says whether the old rules are in place, and
//! [`PortError::is_backends`] whether another backend may succeed. Both list every variant, so
//! that a new variant must be classified.

use super::commit::Uncommitted;
use super::port_hooks::NotOnInterface;
use super::port_iptables::Unexpressible;
use super::port_nft::{EGRESS, INTERFACES, MissingKernelFeature, NoIpset, missing_feature};
use super::tool_error::{ToolError, texts};
use crate::types::{InterfaceName, error_text};

/// The reason why a backend cannot carry out a filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// nftables cannot express a rule.
    #[error(transparent)]
    NoIpset(#[from] NoIpset),
    /// ebtables cannot express a rule.
    #[error(transparent)]
    Unexpressible(#[from] Unexpressible),
    /// A rule cannot be carried out on a port without a bridge.
    #[error(transparent)]
    NotOnInterface(#[from] NotOnInterface),
    /// iptables cannot filter a port without a bridge.
    #[error(
        "iptables and ebtables see the frames of bridges only, and the port is on none; remove firewall_backend = \"iptables\", or put the guest on a bridge"
    )]
    OnlyBridges,
    /// The kernel does not track connections in the bridge family.
    #[error(
        "the kernel cannot track connections in the bridge family (nf_conntrack_bridge), which the filter's stateful rules need; use firewall_backend = \"iptables\", or another kernel"
    )]
    NoConntrack,
    /// The kernel does not know the names of bridges in rules.
    #[error(
        "the kernel cannot name the bridge of a frame (CONFIG_NFT_BRIDGE_META); leave the bridge out of the rule, or use a kernel that has this"
    )]
    NoBridgeNames,
    /// The kernel lacks another feature that a rule needs.
    #[error(
        "the kernel cannot {what} with nftables ({option}), which the filter needs; {}",
        without_feature(option)
    )]
    MissingFeature {
        /// The missing feature, as a verb phrase.
        what: &'static str,
        /// The name of the kernel's configuration option.
        option: &'static str,
    },
    /// The kernel does not show its rules.
    #[error("cannot read the rules of ports from the kernel")]
    Unread {
        /// The kernel's error.
        source: std::io::Error,
    },
    /// A tool failed, and the rules are as before.
    #[error("the filter was not changed")]
    Tool(#[from] ToolError),
    /// nft failed, and the kernel did not say whether it committed the transaction.
    #[error(
        "whether the filter was changed is not known: {}, and the kernel did not answer: {asked}; reload the firewall rules",
        error_text(error)
    )]
    Unknown {
        /// The error of nft.
        error: ToolError,
        /// The reason why the kernel did not answer.
        asked: std::io::Error,
    },
    /// A tool failed, and the earlier state was not restored.
    #[error(
        "the filter is partly changed and its ports may drop frames that it accepts: {}{}; reload the firewall rules once that works",
        error_text(error),
        undone(.undo)
    )]
    HalfDone {
        /// The error of the transaction.
        error: ToolError,
        /// The errors of the rollback.
        undo: Vec<ToolError>,
    },
}

impl PortError {
    /// Names the missing kernel feature if that is why nft refused a text.
    pub(super) fn named(self) -> PortError {
        let PortError::Tool(ToolError::Refused { line: Some(line), said, .. }) = &self else {
            return self;
        };
        match missing_feature(line, said) {
            Some(MissingKernelFeature::BridgeConntrack) => PortError::NoConntrack,
            Some(MissingKernelFeature::BridgeNames) => PortError::NoBridgeNames,
            Some(MissingKernelFeature::Other(what, option)) => {
                PortError::MissingFeature { what, option }
            }
            None => self,
        }
    }

    /// Returns whether a tool was run. If not, netlaunch knew already that the backend or the
    /// kernel cannot carry out the filter.
    pub fn was_tried(&self) -> bool {
        match self {
            PortError::NoIpset(_)
            | PortError::Unexpressible(_)
            | PortError::NotOnInterface(_)
            | PortError::OnlyBridges
            | PortError::NoConntrack
            | PortError::NoBridgeNames
            | PortError::MissingFeature { .. } => false,
            PortError::Unread { .. }
            | PortError::Tool(_)
            | PortError::Unknown { .. }
            | PortError::HalfDone { .. } => true,
        }
    }

    /// Returns whether the filter, the settings or the kind of the port forbid the change, and not
    /// the host.
    pub fn is_callers(&self) -> bool {
        match self {
            PortError::NoIpset(_)
            | PortError::Unexpressible(_)
            | PortError::NotOnInterface(_)
            | PortError::OnlyBridges => true,
            PortError::NoConntrack
            | PortError::NoBridgeNames
            | PortError::MissingFeature { .. }
            | PortError::Unread { .. }
            | PortError::Tool(_)
            | PortError::Unknown { .. }
            | PortError::HalfDone { .. } => false,
        }
    }

    /// Returns whether the cause is in this backend, so that another backend may succeed.
    pub fn is_backends(&self) -> bool {
        match self {
            PortError::NoIpset(_)
            | PortError::Unexpressible(_)
            | PortError::NotOnInterface(_)
            | PortError::OnlyBridges
            | PortError::NoConntrack
            | PortError::NoBridgeNames
            | PortError::MissingFeature { .. } => true,
            PortError::Tool(error) => error.selects_another(),
            PortError::Unread { .. } | PortError::Unknown { .. } | PortError::HalfDone { .. } => {
                false
            }
        }
    }

    /// Returns whether every port has the same rules as before.
    pub fn left_as_before(&self) -> bool {
        match self {
            PortError::NoIpset(_)
            | PortError::Unexpressible(_)
            | PortError::NotOnInterface(_)
            | PortError::OnlyBridges
            | PortError::NoConntrack
            | PortError::NoBridgeNames
            | PortError::MissingFeature { .. }
            | PortError::Unread { .. }
            | PortError::Tool(_) => true,
            PortError::Unknown { .. } | PortError::HalfDone { .. } => false,
        }
    }

    /// Returns this error for the case that an earlier part was changed and stays changed.
    pub(super) fn after_another(self) -> Self {
        match self {
            PortError::Tool(error) => PortError::HalfDone { error, undo: Vec::new() },
            other => other,
        }
    }
}

impl From<Uncommitted> for PortError {
    fn from(error: Uncommitted) -> Self {
        match error {
            Uncommitted::Nothing(error) => PortError::Tool(error),
            Uncommitted::Unknown { error, asked } => PortError::Unknown { error, asked },
        }
    }
}

/// The reason why a port's filter cannot be written for its backend.
#[derive(Debug, thiserror::Error)]
#[error("the port {port}: {}", error_text(error))]
#[non_exhaustive]
pub struct Unwritable {
    /// The port.
    pub port: InterfaceName,
    /// The backend's error.
    pub error: PortError,
}

/// Returns what a user can do about a kernel that lacks this option.
fn without_feature(option: &str) -> &'static str {
    if [EGRESS, INTERFACES].contains(&option) {
        return "use a kernel that has this, or put the guest on a bridge";
    }
    "use firewall_backend = \"iptables\", or a kernel that has this"
}

fn undone(undo: &[ToolError]) -> String {
    if undo.is_empty() {
        return String::new();
    }
    format!("; undoing it failed, too: {}", texts(undo))
}
