//! The errors of binding, changing and removing filters of ports.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::NotOnBridge;
use crate::firewall::{NoUsableBackend, PortError};
use crate::nwfilter::learn::CaptureError;
use crate::nwfilter::{CompileError, FilterName, StoreError, TreeError};
use crate::sys::netlink::LinkError;
use crate::sys::state_file::{LockTimeout, StateFileError};
use crate::types::facts::Problem;
use crate::types::{InterfaceName, Mac, error_text};

/// Why a filter of a port could not be set, changed or removed. No rule has changed, unless
/// [`PortError::left_as_before`] is false, or the variant documents another result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindingError {
    /// The definitions cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state directory cannot be used.
    #[error("cannot use {} for the filters of ports; run as root, or use another state directory", dir.display())]
    StateDir {
        /// The directory.
        dir: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Another command held the lock for too long.
    #[error(transparent)]
    Locked(LockTimeout),
    /// The status file of the port cannot be used.
    #[error(transparent)]
    Damaged(Arc<StateFileError>),
    /// A status file or a saved lease cannot be read or written.
    #[error(transparent)]
    PortStatus(#[from] StateFileError),
    /// The interface does not exist.
    #[error("there is no interface {0}; create it before you bind a filter to it")]
    NoPort(InterfaceName),
    /// The kernel does not list the interfaces.
    #[error("cannot look up the interfaces of the host")]
    Interfaces {
        /// The kernel's error.
        source: io::Error,
    },
    /// A filter on this interface would see no frame of a guest.
    #[error("the port {port} cannot have a filter: {}", problem(.port, .why))]
    NotOnBridge {
        /// The interface.
        port: InterfaceName,
        /// The reason.
        why: NotOnBridge,
    },
    /// The name is an alternative name of an interface.
    #[error(
        "{port} is another name of the interface {name}; write {name}, the interface's own name"
    )]
    AnotherName {
        /// The name in the command.
        port: InterfaceName,
        /// The interface's own name.
        name: InterfaceName,
    },
    /// iptables reads the name as a pattern for several interfaces.
    #[error(
        "iptables reads the name {0} as a pattern for every name that begins with the part before the +; give the interface a name that does not end in +, or set firewall_backend = \"nftables\""
    )]
    Pattern(InterfaceName),
    /// The restore programs of ebtables and iptables read a quotation mark as the start of a text.
    #[error(
        "ebtables and iptables cannot name the interface {0}; give the interface a name without quotation marks, or set firewall_backend = \"nftables\""
    )]
    Quoted(InterfaceName),
    /// nft cannot name the interface, and a port without a bridge is filtered by its name.
    #[error(
        "nft cannot name the interface {0}, which is on no bridge and so is filtered by its name; give it a name without quotation marks, backslashes and asterisks"
    )]
    Unnameable(InterfaceName),
    /// `<linkdev>` does not name the interface below the port.
    #[error("the port {port} has <linkdev name='{linkdev}'/>, but {why}; {fix}")]
    LinkDevice {
        /// The port.
        port: InterfaceName,
        /// The interface that the binding names.
        linkdev: InterfaceName,
        /// The interface that it should name.
        why: String,
        /// The fix for the user.
        fix: String,
    },
    /// The binding sets the variable `MAC` to another address than the guest's.
    #[error(
        "the port {port}: the variable MAC is {value}, and the MAC address of the guest is {mac}; remove the variable, or bind the filter for the guest with the address {value}"
    )]
    MacParameter {
        /// The port.
        port: InterfaceName,
        /// The value of the variable.
        value: String,
        /// The MAC address of the guest in the binding.
        mac: Mac,
    },
    /// The frames that would teach the address do not come to the capture of a port without a
    /// bridge.
    #[error(
        "the port {0} is on no bridge, where an address is learned from DHCP alone; set CTRL_IP_LEARNING to dhcp, or add the parameter IP"
    )]
    OnlyDhcp(InterfaceName),
    /// IPv6 addresses are not learned on a port without a bridge.
    #[error(
        "the port {0} is on no bridge, where no IPv6 addresses are learned; add the parameter IPV6 with each address of the guest"
    )]
    NoTest6(InterfaceName),
    /// The state directory belongs to another network namespace.
    #[error(
        "{} is about the ports of another network namespace; use another state directory in this namespace, or remove {} if the other namespace is gone", .0.display(), .0.display()
    )]
    OtherNamespace(PathBuf),
    /// The port already has a filter.
    #[error("the port {0} has a filter already; remove that filter first")]
    Bound(InterfaceName),
    /// The port has no filter.
    #[error("the port {0} has no filter")]
    Unbound(InterfaceName),
    /// The rules in the kernel are not those of the present definitions.
    #[error(
        "the rules of the port {0} were not made from the present definition of its filter by this version of netlaunch, so they have no lines in it; reload the firewall rules"
    )]
    OtherRules(InterfaceName),
    /// The filter and its references do not fit together for this port.
    #[error("the port {port}: {}", error_text(error))]
    Tree {
        /// The port.
        port: InterfaceName,
        /// The reason.
        error: Box<TreeError>,
    },
    /// The filter cannot be compiled to rules for the port.
    #[error("the port {port}: {}", error_text(error))]
    Compile {
        /// The port.
        port: InterfaceName,
        /// The reason.
        error: CompileError,
    },
    /// `CTRL_IP_LEARNING` has an unknown value.
    #[error("CTRL_IP_LEARNING cannot be {0:?}: use any, dhcp or none")]
    LearningParameter(String),
    /// `DHCPSERVER` is not an IPv4 address.
    #[error("DHCPSERVER cannot be {0:?}: write the IPv4 address of a DHCP server")]
    ServerParameter(String),
    /// `DHCPV6SERVER` is not an IPv6 address.
    #[error("DHCPV6SERVER cannot be {0:?}: write the IPv6 address of a DHCPv6 server")]
    Server6Parameter(String),
    /// The packet socket of the port cannot be used.
    #[error("the port {port}: {}", error_text(error))]
    Capture {
        /// The port.
        port: InterfaceName,
        /// The reason.
        error: CaptureError,
    },
    /// The host's own addresses cannot be read, or a port cannot be turned off or on.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The learner lock of the port cannot be used.
    #[error("cannot take the learner lock of the port {port} in {}; check the directory's permissions and free space", dir.display())]
    LearnerLock {
        /// The port.
        port: InterfaceName,
        /// The directory.
        dir: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Another process learns the address of this port.
    #[error(
        "another process already learns the address of the port {0}; wait until that process has ended"
    )]
    LearnerRunning(InterfaceName),
    /// The new rules of the port could not be set, and it was turned off.
    #[error(
        "{}; the port {port} was turned off: once this is fixed, turn it on again: reload the firewall rules",
        error_text(error)
    )]
    TurnedOff {
        /// The port.
        port: InterfaceName,
        /// Why its rules could not be set.
        error: Box<BindingError>,
    },
    /// A port uses the filter.
    #[error(
        "the filter {filter} is in use by the port {port}; remove the filter of that port first"
    )]
    InUse {
        /// The filter.
        filter: FilterName,
        /// A port that uses it.
        port: InterfaceName,
    },
    /// The definition was not written, and the new rules of the ports could not be rolled back.
    #[error(
        "{}; the rules of the ports that use the filter are newer than its definition: once this is fixed, reload the firewall rules",
        error_text(error)
    )]
    RollbackFailed {
        /// The error of the rollback.
        error: Box<BindingError>,
    },
    /// The rules were set, but their record could not be written.
    #[error(
        "the rules are set, but their record could not be written; once this is fixed, reload the firewall rules"
    )]
    Unrecorded(#[source] StateFileError),
    /// Another port learned the address that the binding sets.
    #[error(
        "the port {port} cannot have the address {address}: the port {holder} of the same bridge learned it; remove the filter of that port first"
    )]
    AddressInUse {
        /// The port to be bound.
        port: InterfaceName,
        /// The address.
        address: IpAddr,
        /// The port that learned it.
        holder: InterfaceName,
    },
    /// The kernel does not pass the bridged packets of the port to iptables.
    #[error(
        "iptables does not see the packets of the port {0}, so it cannot filter them; let bridges pass them to iptables: sysctl net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1"
    )]
    NotCalled(InterfaceName),
    /// The firewall tool failed.
    #[error("{}{}", named(.ports), error_text(error))]
    Firewall {
        /// The ports of the change, or the port whose rules the backend cannot express.
        ports: Vec<InterfaceName>,
        /// The error of the firewall.
        error: PortError,
    },
    /// The guard of ports cannot be set, removed or checked.
    #[error(
        "the ports of the watch rules cannot be closed before they have a filter: {}",
        error_text(error)
    )]
    Guard {
        /// The error of the firewall.
        error: PortError,
    },
    /// A process watches ports, and the guard must stay as long.
    #[error(
        "a process watches ports and needs the guard: later ports would be open until they have a filter; end that process first"
    )]
    Watched,
    /// The record of the guard of ports is damaged.
    #[error(
        "{} is damaged: {what}; the guard in the firewall is as before: set the guard of ports again, or remove it",
        path.display()
    )]
    GuardRecord {
        /// The record.
        path: PathBuf,
        /// The mistake in it.
        what: String,
    },
    /// No backend can set the rules.
    #[error(transparent)]
    NoBackend(#[from] NoUsableBackend<FailedPorts>),
}

/// The ports of a change that a backend could not make, and its error.
#[derive(Debug, thiserror::Error)]
#[error("{}{}", named(.ports), error_text(error))]
#[non_exhaustive]
pub struct FailedPorts {
    /// The ports of the change, or the port whose rules the backend cannot express.
    pub ports: Vec<InterfaceName>,
    /// The error of this backend.
    pub error: PortError,
}

fn problem(port: &InterfaceName, why: &NotOnBridge) -> String {
    let Problem { why, fix, .. } = why.problem(port);
    format!("{why}; {fix}")
}

/// Returns the first port and the number of the others as the start of a message.
fn named(ports: &[InterfaceName]) -> String {
    match ports {
        [] => String::new(),
        [port] => format!("the port {port}: "),
        [port, others @ ..] => format!("the port {port} and {} more: ", others.len()),
    }
}

impl BindingError {
    /// Returns whether a firewall tool ran and failed.
    pub(super) fn was_tried(&self) -> bool {
        match self {
            BindingError::Firewall { error, .. } => error.was_tried(),
            BindingError::NoBackend(tried) => tried.0.iter().any(|(_, one)| one.error.was_tried()),
            _ => false,
        }
    }

    /// Returns whether the rules may be neither the old nor the new ones.
    pub(super) fn is_half_done(&self) -> bool {
        match self {
            BindingError::RollbackFailed { .. } | BindingError::Unrecorded(_) => true,
            BindingError::Firewall { error, .. } => !error.left_as_before(),
            // The rules of ports are set then, and the guard is not.
            BindingError::Guard { .. } => true,
            _ => false,
        }
    }

    /// Returns whether the caller's input caused the error, and not the host.
    pub fn is_callers(&self) -> bool {
        match self {
            BindingError::Store(error) => error.is_callers(),
            BindingError::StateDir { .. }
            | BindingError::Interfaces { .. }
            | BindingError::Locked(_)
            | BindingError::Damaged(_)
            | BindingError::Unrecorded(_)
            | BindingError::PortStatus(_)
            | BindingError::Capture { .. }
            | BindingError::Link(_)
            | BindingError::LearnerLock { .. }
            | BindingError::LearnerRunning(_)
            | BindingError::TurnedOff { .. }
            | BindingError::RollbackFailed { .. }
            | BindingError::OtherNamespace(_)
            | BindingError::NotCalled(_)
            | BindingError::GuardRecord { .. }
            | BindingError::Guard { .. } => false,
            BindingError::Firewall { error, .. } => error.is_callers(),
            BindingError::NoBackend(tried) => tried.0.iter().all(|(_, one)| one.error.is_callers()),
            BindingError::NoPort(_)
            | BindingError::NotOnBridge { .. }
            | BindingError::AnotherName { .. }
            | BindingError::Pattern(_)
            | BindingError::Unnameable(_)
            | BindingError::LinkDevice { .. }
            | BindingError::MacParameter { .. }
            | BindingError::Watched
            | BindingError::Quoted(_)
            | BindingError::AddressInUse { .. }
            | BindingError::OnlyDhcp(_)
            | BindingError::NoTest6(_)
            | BindingError::Bound(_)
            | BindingError::Unbound(_)
            | BindingError::OtherRules(_)
            | BindingError::Tree { .. }
            | BindingError::Compile { .. }
            | BindingError::LearningParameter(_)
            | BindingError::ServerParameter(_)
            | BindingError::Server6Parameter(_)
            | BindingError::InUse { .. } => true,
        }
    }
}
