//! Why a network could not be started, ended or put back.

use std::io;
use std::path::PathBuf;

use super::config::ConfigError;
use super::rules::Untaken;
use super::zone::ZoneError;
use crate::dnsmasq::DnsmasqError;
use crate::facts::Problem;
use crate::firewall::ApplyError;
use crate::link::sysctl::SysctlError;
use crate::link::{Conflict, LinkError};
use crate::network::{CheckError, NetworkName, StoreError};
use crate::process::tap::TapError;
use crate::rules::NetworkRulesError;
use crate::state::{LockTimeout, StatusError};
use crate::types::InterfaceName;

/// Why a network could not be started, ended or put back. After a failed start the host is as it
/// was before.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Its definition cannot be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state directory cannot be used.
    #[error("cannot use {} for running networks: {source}; run netlaunch as root, or set NETLAUNCH_STATE_DIR", dir.display())]
    State {
        /// The directory.
        dir: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Another command holds the lock for too long.
    #[error(transparent)]
    Locked(LockTimeout),
    /// This network namespace cannot be told from others.
    #[error("cannot tell in which network namespace this is: {0}; mount /proc")]
    Place(#[source] io::Error),
    /// A status cannot be read or written.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// It runs.
    #[error("the network {0} runs already; end it first with netlaunch network destroy {0}")]
    Active(NetworkName),
    /// Its bridge cannot be told, as where its state is closed to an ordinary user.
    #[error(
        "cannot tell the bridge of the network {name}: {source}, or name the bridge with --bridge"
    )]
    BridgeUnknown {
        /// The network.
        name: NetworkName,
        /// Its status cannot be read.
        source: StatusError,
    },
    /// It does not run.
    #[error("the network {0} does not run; start it with netlaunch network start {0}")]
    Inactive(NetworkName),
    /// It was started in another network namespace.
    #[error(
        "the network {name} was started in another network namespace, to which its bridge and rules belong; enter that one with {entry}, or remove the network's state directory if that namespace is gone"
    )]
    Elsewhere {
        /// The network.
        name: NetworkName,
        /// The command that enters it.
        entry: String,
    },
    /// Its dnsmasq may run where no process of this PID namespace can see it.
    #[error(
        "the network {0} has a dnsmasq of another PID namespace, which a command in this one cannot end; run the command in that PID namespace, or in the host's, which has all processes"
    )]
    OutOfReach(NetworkName),
    /// Parts of it are left from before.
    #[error("the network {name} has parts of an earlier start that cannot be removed: {}", failed.join("; "))]
    Left {
        /// The network.
        name: NetworkName,
        /// The failures, a sentence each.
        failed: Vec<String>,
    },
    /// It cannot run beside another one.
    #[error("the network {name} cannot run beside those that do: {what}")]
    Beside {
        /// The network.
        name: NetworkName,
        /// What stands in the way.
        what: CheckError,
    },
    /// Its bridge's name is taken.
    #[error(
        "the network {name} needs an interface {bridge}, and the host has one already; remove that, or give the network another bridge name"
    )]
    Bridge {
        /// The network.
        name: NetworkName,
        /// The bridge.
        bridge: InterfaceName,
    },
    /// Its subnet is in use.
    #[error("the network {name} needs {subnet}, but {conflict}; give the network another subnet")]
    Subnet {
        /// The network.
        name: NetworkName,
        /// The subnet.
        subnet: ipnet::IpNet,
        /// What is in the way.
        conflict: Conflict,
    },
    /// Its bridge cannot be put into a zone of firewalld.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// dnsmasq is missing.
    #[error("the network needs dnsmasq: {}; {}", .0.why, .0.fix)]
    NoDnsmasq(Problem),
    /// The definition has something that cannot be carried out.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It has IPv6, and the host has not.
    #[error(
        "the network {name} needs {subnet}, and the host has no IPv6 (net.ipv6.conf.all.disable_ipv6 is not 0); turn it on, or give the network IPv4 only"
    )]
    NoIpv6 {
        /// The network.
        name: NetworkName,
        /// Its subnet.
        subnet: ipnet::IpNet,
    },
    /// No firewall.
    #[error(transparent)]
    NoBackend(#[from] Untaken),
    /// An interface's name cannot stand in a rule.
    #[error(transparent)]
    Rules(#[from] NetworkRulesError),
    /// The firewall refused.
    #[error(transparent)]
    Firewall(#[from] ApplyError),
    /// A link, address or route.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A kernel setting.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The bridge's checksums.
    #[error(transparent)]
    Checksums(#[from] TapError),
    /// dnsmasq refused.
    #[error(transparent)]
    Dnsmasq(#[from] DnsmasqError),
}

impl DriverError {
    /// Whether the caller's words are at fault and not the host.
    pub fn is_callers(&self) -> bool {
        match self {
            DriverError::Store(error) => error.is_callers(),
            DriverError::Active(_)
            | DriverError::Inactive(_)
            | DriverError::Elsewhere { .. }
            | DriverError::OutOfReach(_) => true,
            _ => false,
        }
    }

    /// Whether the firewall's tools failed and the rules are known to be those of before.
    pub(super) fn left_as_before(&self) -> bool {
        match self {
            DriverError::NoBackend(_) => true,
            DriverError::Firewall(error) => matches!(error, ApplyError::Tool(_)),
            _ => false,
        }
    }
}
