//! Why a filter could not be put on a port, changed there, or taken away.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::firewall::{Backend, PortError};
use crate::learn::CaptureError;
use crate::link::LinkError;
use crate::nwfilter::{CompileError, FilterName, StoreError, TreeError};
use crate::state::{LockTimeout, StatusError};
use crate::types::InterfaceName;

/// Nothing has changed, unless [`PortError::left_as_before`] is false.
#[derive(Debug, thiserror::Error)]
pub enum BindingError {
    /// Definitions.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state directory cannot be used.
    #[error("cannot use {} for ports' filters: {source}; run netlaunch as root, or set NETLAUNCH_STATE_DIR", dir.display())]
    State {
        /// The directory.
        dir: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Another command holds the lock for too long.
    #[error(transparent)]
    Locked(LockTimeout),
    /// The status of a port that is to be looked at or changed cannot be used.
    #[error("{0}")]
    Damaged(Arc<StatusError>),
    /// A status, or what was learnt.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// There is no such interface.
    #[error("there is no interface {0}; make it first, a filter is for a port that exists")]
    NoPort(InterfaceName),
    /// It is another name of an interface.
    #[error(
        "{port} is another name of the interface {name}; write {name}, which filters know it by"
    )]
    AnotherName {
        /// What was asked for.
        port: InterfaceName,
        /// The interface's own name.
        name: InterfaceName,
    },
    /// The firewall tools take the name for many.
    #[error(
        "to iptables the name {0} means every interface that begins like it; give the interface a name that does not end in +, or use firewall_backend = \"nftables\" in nwfilter.conf"
    )]
    Pattern(InterfaceName),
    /// The state directory is that of another network namespace.
    #[error(
        "{} is about the ports of another network namespace; set NETLAUNCH_STATE_DIR to a directory of this one's own, or remove it if that namespace is gone", .0.display()
    )]
    Elsewhere(PathBuf),
    /// It has a filter.
    #[error(
        "the port {0} has a filter already; end that first with netlaunch nwfilter binding-delete {0}"
    )]
    Bound(InterfaceName),
    /// It has none.
    #[error("the port {0} has no filter; netlaunch nwfilter binding-list shows those that have")]
    Unbound(InterfaceName),
    /// The filter cannot be put on the port.
    #[error("the port {port}: {error}")]
    Tree {
        /// The port.
        port: InterfaceName,
        /// Why.
        error: Box<TreeError>,
    },
    /// The filter makes no sense on a port.
    #[error("the port {port}: {error}")]
    Compile {
        /// The port.
        port: InterfaceName,
        /// Why.
        error: CompileError,
    },
    /// A way of learning addresses that there is not.
    #[error("CTRL_IP_LEARNING cannot be {0:?}: use any, dhcp or none")]
    Learning(String),
    /// What is no DHCP server's address.
    #[error("DHCPSERVER cannot be {0:?}: write the IPv4 address of a DHCP server")]
    Server(String),
    /// The port cannot be listened to.
    #[error("the port {port}: {error}")]
    Capture {
        /// The port.
        port: InterfaceName,
        /// Why.
        error: CaptureError,
    },
    /// The host's own addresses, which no guest has, cannot be found out, or a port cannot be
    /// turned off or on.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Who learns a port's address cannot be settled.
    #[error("cannot settle in {} who learns the address of the port {port}: {source}; check the directory's permissions and free space", dir.display())]
    Seat {
        /// The port.
        port: InterfaceName,
        /// The directory.
        dir: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Somebody else learns the address of this port.
    #[error("the address of the port {0} is being learnt by another process already")]
    Seated(InterfaceName),
    /// The rules that a port was to have could not be set, and it was turned off.
    #[error(
        "{error}; the port {port} was turned off: netlaunch firewall reload turns it on again with its rules, once that is mended"
    )]
    TurnedOff {
        /// The port.
        port: InterfaceName,
        /// Why its rules could not be set.
        error: Box<BindingError>,
    },
    /// A filter is in use.
    #[error(
        "the filter {filter} is in use by the port {port}; end that first with netlaunch nwfilter binding-delete {port}"
    )]
    InUse {
        /// The filter.
        filter: FilterName,
        /// A port that needs it.
        port: InterfaceName,
    },
    /// The definition was not written, and the rules that were made of it stay.
    #[error(
        "{error}; the rules of the ports that use the filter are newer than its definition: netlaunch firewall reload makes them anew, once that is mended"
    )]
    Apart {
        /// Why the old rules could not be put back.
        error: Box<BindingError>,
    },
    /// The rules were set, and their record could not be written.
    #[error(
        "the rules are set, and their record is not: {0}; netlaunch firewall reload completes that"
    )]
    Unrecorded(StatusError),
    /// An address that a binding names was learnt by another port.
    #[error(
        "the port {port} cannot have the address {address}: the port {holder} of the same bridge learnt it; end that first with netlaunch nwfilter binding-delete {holder}"
    )]
    Holder {
        /// The port to be bound.
        port: InterfaceName,
        /// The address.
        address: Ipv4Addr,
        /// The port that learnt it.
        holder: InterfaceName,
    },
    /// iptables would not see the packets.
    #[error(
        "iptables does not see the packets of the port {0}, and so cannot filter them; switch that on: sysctl net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1"
    )]
    NotCalled(InterfaceName),
    /// The firewall.
    #[error("{}{error}", named(.ports))]
    Firewall {
        /// The ports that were to change, or the one whose rules cannot be written.
        ports: Vec<InterfaceName>,
        /// Why they could not.
        error: PortError,
    },
    /// No backend carries it out.
    #[error("{}", reasons(.0))]
    NoBackend(Vec<Tried>),
}

/// A backend that was tried.
#[derive(Debug)]
pub struct Tried {
    /// The backend.
    pub backend: Backend,
    /// The ports that were to change, or the one whose rules cannot be written.
    pub ports: Vec<InterfaceName>,
    /// Why it cannot do it.
    pub error: PortError,
}

/// The first port by name, and how many more there are.
fn named(ports: &[InterfaceName]) -> String {
    match ports {
        [] => String::new(),
        [port] => format!("the port {port}: "),
        [port, others @ ..] => format!("the port {port} and {} more: ", others.len()),
    }
}

fn reasons(tried: &[Tried]) -> String {
    let same = tried.windows(2).all(|two| two[0].ports == two[1].ports);
    let all = tried.first().filter(|_| same).map(|tried| named(&tried.ports)).unwrap_or_default();
    let each = |Tried { backend, ports, error }: &Tried| {
        let ports = if same { String::new() } else { named(ports) };
        format!("{backend}: {ports}{error}")
    };
    let each: Vec<_> = tried.iter().map(each).collect();
    format!("{all}no firewall backend can do it: {}", each.join("; "))
}

impl BindingError {
    /// Whether a tool of the firewall was to carry it out and did not.
    pub(super) fn was_tried(&self) -> bool {
        match self {
            BindingError::Firewall { error, .. } => error.was_tried(),
            BindingError::NoBackend(tried) => tried.iter().any(|tried| tried.error.was_tried()),
            _ => false,
        }
    }

    /// Whether rules may be neither those of before nor the new ones.
    pub(super) fn is_half_done(&self) -> bool {
        match self {
            BindingError::Apart { .. } | BindingError::Unrecorded(_) => true,
            BindingError::Firewall { error, .. } => !error.left_as_before(),
            _ => false,
        }
    }

    /// Whether the caller's words are at fault and not the host.
    pub fn is_callers(&self) -> bool {
        match self {
            BindingError::Store(error) => error.is_callers(),
            BindingError::State { .. }
            | BindingError::Locked(_)
            | BindingError::Damaged(_)
            | BindingError::Unrecorded(_)
            | BindingError::Holder { .. }
            | BindingError::Status(_)
            | BindingError::Capture { .. }
            | BindingError::Link(_)
            | BindingError::Seat { .. }
            | BindingError::Seated(_)
            | BindingError::TurnedOff { .. }
            | BindingError::Apart { .. }
            | BindingError::Elsewhere(_)
            | BindingError::NotCalled(_)
            | BindingError::Firewall { .. }
            | BindingError::NoBackend(_) => false,
            _ => true,
        }
    }
}
