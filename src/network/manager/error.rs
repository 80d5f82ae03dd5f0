//! The errors of starting, ending and reloading networks.
//!
//! A message names the network and the fix, but no command-line option and no environment
//! variable: the command line adds those. [`ManagerError::is_callers`] separates mistakes of
//! the caller from failures of the host.

use std::io;
use std::path::PathBuf;

use super::config::ConfigError;
use super::zone::ZoneError;
use crate::firewall::rules::NetworkRulesError;
use crate::firewall::{ApplyError, FirewalldError, NoUsableBackend, OwnRulesError, ToolError};
use crate::network::dnsmasq::{DnsmasqError, LeaseFileError};
use crate::network::update::UpdateError;
use crate::network::{CheckError, NetworkName, StoreError};
use crate::sys::netlink::sysctl::SysctlError;
use crate::sys::netlink::{Conflict, LinkError};
use crate::sys::state_file::{LockTimeout, StateFileError};
use crate::sys::tap::TapError;
use crate::sys::traffic::TrafficError;
use crate::types::facts::Problem;
use crate::types::{InterfaceName, PortGroupName, Publish};

/// Why a network could not be started, ended or reloaded. After a failed start the host is as
/// before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// The definition of the network cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state directory cannot be used.
    #[error("cannot use {} for running networks; run as root, or use a state directory that this user can write", dir.display())]
    State {
        /// The directory.
        dir: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Another command held the lock for too long.
    #[error(transparent)]
    Locked(LockTimeout),
    /// This network namespace cannot be identified.
    #[error("cannot identify this network namespace; mount /proc")]
    UnknownNamespace(#[source] io::Error),
    /// A status file cannot be read or written.
    #[error(transparent)]
    StatusFile(#[from] StateFileError),
    /// The network runs already.
    #[error("the network {0} runs already; end it first")]
    Active(NetworkName),
    /// The bridge of the network is not known, for example because an ordinary user cannot read the
    /// status file.
    #[error(
        "the bridge of the network {name} is not known; or name the bridge instead of the network"
    )]
    BridgeUnknown {
        /// The network.
        name: NetworkName,
        /// Why its status file cannot be read.
        source: StateFileError,
    },
    /// The transaction with the rules of several networks failed.
    #[error(
        "the network {name} was not started, because the transaction with its rules and those of the network {with} failed; start it again"
    )]
    RulesTogether {
        /// The network.
        name: NetworkName,
        /// The network that has the error of the transaction.
        with: NetworkName,
    },
    /// The network does not run.
    #[error("the network {0} does not run; start it")]
    Inactive(NetworkName),
    /// The network has no port group of this name.
    #[error("the network {name} has no port group {group}; {}", groups_there(groups))]
    NoPortGroup {
        /// The network.
        name: NetworkName,
        /// The requested port group.
        group: PortGroupName,
        /// The names of its port groups.
        groups: Vec<String>,
    },
    /// The traffic of the bridge cannot be limited.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// A port cannot be published, because guests of the network have no address of its IP version.
    #[error(
        "{publish} cannot be published, because the bridge of the network {name} has no {version} address; give it one, or publish on an address of the other version"
    )]
    PublishVersion {
        /// The network.
        name: NetworkName,
        /// The port.
        publish: Publish,
        /// The missing IP version.
        version: &'static str,
    },
    /// Another launch has published the port.
    #[error(
        "port {port} of {publish} is published by the launch {launch}; end that launch, or publish another port"
    )]
    PublishedTwice {
        /// The requested ports.
        publish: Publish,
        /// The port.
        port: u16,
        /// The launch that has it.
        launch: String,
    },
    /// The bridge of the network has ports.
    #[error(
        "the bridge of the network {name} has ports, which would then be on no bridge: {}; end their guests or remove the ports from the bridge first", .ports.join(", ")
    )]
    Attached {
        /// The network.
        name: NetworkName,
        /// The ports, with the names of their launches.
        ports: Vec<String>,
    },
    /// The network was started in another network namespace.
    #[error(
        "the network {name} was started in another network namespace, to which its bridge and rules belong; enter that namespace with {entry}, or remove the network's state directory if the namespace is gone"
    )]
    OtherNamespace {
        /// The network.
        name: NetworkName,
        /// The command that enters it.
        entry: String,
    },
    /// The dnsmasq of the network may run in a PID namespace that this process cannot see.
    #[error(
        "the network {0} has a dnsmasq in another PID namespace, which a command in this one cannot end; run the command in that PID namespace, or in the host's, which has all processes"
    )]
    OutOfReach(NetworkName),
    /// Parts of an earlier start are left.
    #[error("the network {name} has parts of an earlier start that cannot be removed: {}", failed.join("; "))]
    UndoFailures {
        /// The network.
        name: NetworkName,
        /// The failures, one sentence each.
        failed: Vec<String>,
    },
    /// The network conflicts with a running network.
    #[error("the network {name} conflicts with a running network: {what}")]
    Beside {
        /// The network.
        name: NetworkName,
        /// The conflict.
        what: CheckError,
    },
    /// An interface with the name of its bridge exists already.
    #[error(
        "the network {name} needs an interface {bridge}, and the host has one already; remove that interface, or give the network another bridge name"
    )]
    Bridge {
        /// The network.
        name: NetworkName,
        /// The bridge.
        bridge: InterfaceName,
    },
    /// The bridge of the host that the network is on does not exist.
    #[error(
        "the network {name} is on the host's own bridge {bridge}, and {why}; make the bridge with the host's network configuration (or, until the next boot, with 'ip link add {bridge} type bridge' and 'ip link set {bridge} up'), or name another bridge in the network"
    )]
    NoHostBridge {
        /// The network.
        name: NetworkName,
        /// The bridge.
        bridge: InterfaceName,
        /// The reason, in words.
        why: &'static str,
    },
    /// While it runs, another interface got its bridge's name.
    #[error(
        "the network {name} has lost its bridge {bridge}, and another interface has that name; remove that interface with 'ip link delete {bridge}', then reload the firewall rules"
    )]
    Replaced {
        /// The network.
        name: NetworkName,
        /// The bridge.
        bridge: InterfaceName,
    },
    /// While it runs, its bridge got another name.
    #[error(
        "the bridge {bridge} of the network {name} has the name {now} now; turn the bridge off and rename it with 'ip link set {now} down' and 'ip link set {now} name {bridge}', then reload the firewall rules"
    )]
    Renamed {
        /// The network.
        name: NetworkName,
        /// The bridge.
        bridge: InterfaceName,
        /// The current name of the bridge.
        now: String,
    },
    /// The subnet of the network is in use.
    #[error("the network {name} needs {subnet}, but {conflict}; give the network another subnet")]
    Subnet {
        /// The network.
        name: NetworkName,
        /// The subnet.
        subnet: ipnet::IpNet,
        /// The conflict.
        conflict: Conflict,
    },
    /// The bridge of the network cannot be put into a firewalld zone.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// The dnsmasq program is missing.
    #[error("the network needs dnsmasq: {}; {}", .0.why, .0.fix)]
    NoDnsmasq(Problem),
    /// The definition cannot be carried out.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The network has IPv6, and IPv6 is off on the host.
    #[error(
        "the network {name} needs {subnet}, and the host has no IPv6 (net.ipv6.conf.all.disable_ipv6 is not 0); turn it on, or give the network IPv4 only"
    )]
    NoIpv6 {
        /// The network.
        name: NetworkName,
        /// The IPv6 subnet of the network.
        subnet: ipnet::IpNet,
    },
    /// No firewall backend accepted the rules.
    #[error(transparent)]
    NoBackend(#[from] NoUsableBackend<ToolError>),
    /// The name of an interface cannot be written in a rule.
    #[error(transparent)]
    Rules(#[from] NetworkRulesError),
    /// The firewall tool failed.
    #[error(transparent)]
    Firewall(#[from] ApplyError),
    /// The current rules cannot be read.
    #[error(transparent)]
    OwnRules(#[from] OwnRulesError),
    /// A link, an address or a route could not be read or changed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A kernel setting could not be read or written.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The checksum offload of the bridge could not be changed.
    #[error(transparent)]
    Checksums(#[from] TapError),
    /// dnsmasq did not start or did not end.
    #[error(transparent)]
    Dnsmasq(#[from] DnsmasqError),
    /// An element of the network cannot change.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// An earlier change of the network is neither complete nor undone.
    #[error(
        "an earlier change of the network {0} was interrupted, and it cannot be undone; mend the cause that the warning above names, then try again"
    )]
    Unfinished(NetworkName),
    /// The change needs VLANs, and the bridge of the running network does not separate them.
    #[error(
        "the network {0} was started without VLANs, and its bridge cannot separate them while it runs; change the definition alone, then end the network and start it again"
    )]
    NoVlans(NetworkName),
    /// The leases cannot be read.
    #[error(transparent)]
    Leases(#[from] LeaseFileError),
}

/// Returns the advice about the port groups that a network has.
fn groups_there(groups: &[String]) -> String {
    match groups {
        [] => "it has none: leave the port group out, or define the network with one".to_owned(),
        groups => format!("it has {}", groups.join(", ")),
    }
}

impl From<FirewalldError> for ManagerError {
    fn from(error: FirewalldError) -> Self {
        ManagerError::Zone(error.into())
    }
}

impl ManagerError {
    /// Returns whether the caller's input caused the error, and not the host.
    pub fn is_callers(&self) -> bool {
        match self {
            ManagerError::Store(error) => error.is_callers(),
            ManagerError::Active(_)
            | ManagerError::Inactive(_)
            | ManagerError::NoPortGroup { .. }
            | ManagerError::Attached { .. }
            | ManagerError::Update(_)
            | ManagerError::NoVlans(_)
            | ManagerError::OtherNamespace { .. }
            | ManagerError::PublishVersion { .. }
            | ManagerError::OutOfReach(_) => true,
            ManagerError::State { .. }
            | ManagerError::Locked(_)
            | ManagerError::UnknownNamespace(_)
            | ManagerError::PublishedTwice { .. }
            | ManagerError::StatusFile(_)
            | ManagerError::BridgeUnknown { .. }
            | ManagerError::RulesTogether { .. }
            | ManagerError::UndoFailures { .. }
            | ManagerError::Traffic(_)
            | ManagerError::Beside { .. }
            | ManagerError::Bridge { .. }
            | ManagerError::NoHostBridge { .. }
            | ManagerError::Replaced { .. }
            | ManagerError::Renamed { .. }
            | ManagerError::Subnet { .. }
            | ManagerError::Zone(_)
            | ManagerError::NoDnsmasq(_)
            | ManagerError::Config(_)
            | ManagerError::NoIpv6 { .. }
            | ManagerError::NoBackend(_)
            | ManagerError::Rules(_)
            | ManagerError::Firewall(_)
            | ManagerError::OwnRules(_)
            | ManagerError::Link(_)
            | ManagerError::Sysctl(_)
            | ManagerError::Checksums(_)
            | ManagerError::Dnsmasq(_)
            | ManagerError::Leases(_)
            | ManagerError::Unfinished(_) => false,
        }
    }

    /// Returns whether the firewall tools failed and the old rules are known to be in place.
    pub(super) fn left_as_before(&self) -> bool {
        match self {
            ManagerError::NoBackend(_) => true,
            ManagerError::Firewall(error) => matches!(error, ApplyError::Tool(_)),
            _ => false,
        }
    }
}
