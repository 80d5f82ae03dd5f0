//! Why a port's filter was not changed, and in what state that left the ports.

use super::commit::Uncommitted;
use super::port_iptables::Unexpressible;
use super::port_nft::NoIpset;
use super::tool_error::ToolError;
use crate::types::InterfaceName;

/// Why a backend cannot carry a filter out.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// nftables has no words for it.
    #[error(transparent)]
    NoIpset(#[from] NoIpset),
    /// ebtables has no words for it.
    #[error(transparent)]
    Unexpressible(#[from] Unexpressible),
    /// The kernel does not track connections of bridges.
    #[error(
        "the kernel cannot track connections in the bridge family (nf_conntrack_bridge), which the filter's stateful rules need; use firewall_backend = \"iptables\" in nwfilter.conf, or another kernel"
    )]
    NoConntrack,
    /// A tool failed; everything is as it was, which the kernel was asked about.
    #[error("the filter was not changed: {0}")]
    Tool(#[from] ToolError),
    /// nft failed, and whether its transaction was committed could not be found out.
    #[error(
        "whether the filter was changed is not known: {error}, and the kernel did not answer: {asked}; run `netlaunch firewall reload`"
    )]
    Unknown {
        /// How nft failed.
        error: ToolError,
        /// Why the kernel did not answer.
        asked: std::io::Error,
    },
    /// A tool failed, and the state of before was not brought back.
    #[error(
        "the filter is half changed and its ports may drop what they should not: {error}{}; run `netlaunch firewall reload` once that works",
        undone(.undo)
    )]
    HalfDone {
        /// The failure.
        error: ToolError,
        /// The errors of undoing it.
        undo: Vec<ToolError>,
    },
}

impl PortError {
    /// Whether a tool was to carry it out, as opposed to what a backend is known not to do.
    pub fn was_tried(&self) -> bool {
        match self {
            PortError::NoIpset(_) | PortError::Unexpressible(_) | PortError::NoConntrack => false,
            PortError::Tool(_) | PortError::Unknown { .. } | PortError::HalfDone { .. } => true,
        }
    }

    /// Whether another backend may do what this one cannot.
    pub fn is_backends(&self) -> bool {
        match self {
            PortError::NoIpset(_) | PortError::Unexpressible(_) | PortError::NoConntrack => true,
            PortError::Tool(error) => error.selects_another(),
            PortError::Unknown { .. } | PortError::HalfDone { .. } => false,
        }
    }

    /// Whether every port has the rules of before.
    pub fn left_as_before(&self) -> bool {
        match self {
            PortError::NoIpset(_)
            | PortError::Unexpressible(_)
            | PortError::NoConntrack
            | PortError::Tool(_) => true,
            PortError::Unknown { .. } | PortError::HalfDone { .. } => false,
        }
    }

    /// This error of a part, where another part was changed before it and stays so.
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

/// Why a port's filter cannot be written for its backend.
#[derive(Debug, thiserror::Error)]
#[error("the port {port}: {error}")]
pub struct Unwritable {
    /// The port.
    pub port: InterfaceName,
    /// Why.
    pub error: PortError,
}

fn undone(undo: &[ToolError]) -> String {
    let said: Vec<_> = undo.iter().map(ToString::to_string).collect();
    match said.is_empty() {
        true => String::new(),
        false => format!("; undoing it failed, too: {}", said.join("; ")),
    }
}
