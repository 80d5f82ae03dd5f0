//! The errors of `netlaunch nwfilter`, and their exit statuses.

use std::io;
use std::path::PathBuf;

use super::config::ConfigError;
use super::editor::{DocumentError, EditError};
use super::failure::usage_if;
use super::hint;
use crate::firewall::TraceError;
use crate::nwfilter::explain::{PcapError, TooShort};
use crate::nwfilter::port::{BindingError, NoGuestMac};
use crate::nwfilter::{CompileError, StoreError, TreeError};
use crate::sys::netlink::LinkError;
use crate::sys::state_file::LockTimeout;
use crate::types::{InterfaceName, PortPattern, error_text};
use crate::xml::XmlError;

/// Why a command about filters failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NwfilterError {
    /// There is no directory for definitions.
    #[error("there is no directory for filters: HOME is not set; set it, or NETLAUNCH_CONFIG_DIR")]
    NoDirectory,
    /// The definitions cannot be read, or a definition cannot be changed.
    #[error("{error}{hint}", error = error_text(.0), hint = hint::filter_store(.0))]
    Store(#[from] StoreError),
    /// nwfilter.conf has a mistake.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The filter of a port cannot be changed.
    #[error("{error}{hint}", error = error_text(.0), hint = hint::binding(.0))]
    Binding(BindingError),
    /// Another command holds the lock for too long.
    #[error("{error}{hint}", error = error_text(.0), hint = hint::LOCK)]
    Locked(LockTimeout),
    /// The document of a binding has a mistake.
    #[error("{}:{error}", path.display())]
    BindingDocument { path: PathBuf, error: XmlError },
    /// The document cannot be read or edited.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The argument of `check` is neither a file nor the name of a filter.
    #[error(
        "{0:?} is neither a file nor a filter: write the file with a '/', as in ./{0}, or a name that 'netlaunch nwfilter list' shows"
    )]
    Neither(String),
    /// The filter makes no rules with these variables.
    #[error("{error}{options}", error = .0, options = hint::variables(.0))]
    Tree(Box<TreeError>),
    /// A rule of the filter cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The learner process of a port cannot be started.
    #[error(
        "cannot start the process that learns the address of the port {port}: {source}; the port has no filter"
    )]
    Learner { port: InterfaceName, source: io::Error },
    /// The learner process of a port with a new filter cannot be started.
    #[error(
        "cannot start the process that learns the address of the port {port}: {source}; the port has its new filter and learns no address: netlaunch firewall reload starts another process"
    )]
    NoLearner { port: InterfaceName, source: io::Error },
    /// There are no rules for `watch`.
    #[error("{} has no rule for ports: write a table [[watch]] with port and filter", path.display())]
    NoWatchRules { path: PathBuf },
    /// A rule for `watch` would cut the host off from a network.
    #[error(
        "{}:{}:{}: the rule for {rule} would close {interface}, {why}; narrow the rule to the ports of guests, or add the bridge of these ports", path.display(), place.0, place.1
    )]
    WatchRule {
        path: PathBuf,
        place: (usize, usize),
        rule: PortPattern,
        interface: String,
        why: String,
    },
    /// The kernel no longer reports changes of interfaces.
    #[error("the kernel has ended the reports of changed interfaces; start the command again")]
    NoEvents,
    /// The MAC address of the guest was not found.
    #[error("{}{}", error_text(.0), hint::guest_mac(.0))]
    GuestMac(NoGuestMac),
    /// The port needs no learner.
    #[error(
        "the address of the port {0} is not learned: its binding sets the address, or its filter does not use it; there is nothing to do"
    )]
    NotLearned(InterfaceName),
    /// The descriptors that the caller names are not inherited.
    #[error("FD,FD: {source}; leave this argument out, only binding-create gives it")]
    Inherited { source: io::Error },
    /// The learner process ended before it learned an address.
    #[error(
        "the port {0} or its filter was removed before the guest's address was learned; see netlaunch nwfilter binding-list"
    )]
    Gone(InterfaceName),
    /// The learner process was killed before it reported an address.
    #[error(
        "the process that learns the address of the port {0} was killed; the port still has its filter: netlaunch firewall reload starts another"
    )]
    Killed(InterfaceName),
    /// The rules with the learned address could not be set.
    #[error("the rules of the port {port} with the learned address are not in force: {why}")]
    NotInForce { port: InterfaceName, why: String },
    /// The trace of a port cannot be followed.
    #[error("{error}{hint}", error = error_text(.0), hint = hint::trace(.0))]
    Trace(TraceError),
    /// `explain` cannot decide about the frames.
    #[error(transparent)]
    Explain(#[from] ExplainError),
    /// The edited text cannot be used, and a copy of it is kept.
    #[error("{error}; nothing was changed, and the text is kept in {}", path.display())]
    EditKept { error: Box<NwfilterError>, path: PathBuf },
}

impl NwfilterError {
    /// Returns whether a captured frame is too short to be explained.
    pub(super) fn is_short_frame(&self) -> bool {
        matches!(self, NwfilterError::Explain(ExplainError::Frame { .. }))
    }

    /// Returns the exit status: 2 for a mistake of the caller, else 125.
    pub(super) fn status(&self) -> u8 {
        usage_if(match self {
            NwfilterError::EditKept { error, .. } => return error.status(),
            NwfilterError::Store(error) => error.is_callers(),
            NwfilterError::Config(error) => return error.status(),
            NwfilterError::Binding(error) => error.is_callers(),
            NwfilterError::GuestMac(_) | NwfilterError::NoWatchRules { .. } => true,
            NwfilterError::WatchRule { .. } => true,
            NwfilterError::BindingDocument { .. } => true,
            NwfilterError::Document(error) => error.is_callers(),
            NwfilterError::Neither(_)
            | NwfilterError::NotLearned(_)
            | NwfilterError::Inherited { .. }
            | NwfilterError::Tree(_)
            | NwfilterError::Compile(_)
            | NwfilterError::Explain(_) => true,
            NwfilterError::NoDirectory
            | NwfilterError::Trace(_)
            | NwfilterError::Locked(_)
            | NwfilterError::Learner { .. }
            | NwfilterError::NoLearner { .. }
            | NwfilterError::NoEvents
            | NwfilterError::Gone(_)
            | NwfilterError::Killed(_)
            | NwfilterError::NotInForce { .. } => false,
        })
    }
}

impl From<LinkError> for NwfilterError {
    fn from(error: LinkError) -> Self {
        BindingError::from(error).into()
    }
}

impl From<BindingError> for NwfilterError {
    fn from(error: BindingError) -> Self {
        match error {
            BindingError::Locked(timeout) => NwfilterError::Locked(timeout),
            other => NwfilterError::Binding(other),
        }
    }
}

impl From<NoGuestMac> for NwfilterError {
    fn from(error: NoGuestMac) -> Self {
        match error {
            NoGuestMac::Binding(error) => error.into(),
            other => NwfilterError::GuestMac(other),
        }
    }
}

impl From<TreeError> for NwfilterError {
    fn from(error: TreeError) -> Self {
        NwfilterError::Tree(Box::new(error))
    }
}

impl From<EditError<NwfilterError>> for NwfilterError {
    fn from(EditError { error, kept }: EditError<NwfilterError>) -> Self {
        match kept {
            Some(path) => NwfilterError::EditKept { error: Box::new(error), path },
            None => error,
        }
    }
}

/// Why `explain` cannot decide about frames.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExplainError {
    /// The capture cannot be read.
    #[error("{}: {source}; name a capture that can be read", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The capture is a FIFO, whose opening could wait for a writer for ever.
    #[error(
        "{path} is a FIFO, which is not opened by its name; read it as standard input: --pcap - < {path}",
        path = path.display()
    )]
    Fifo { path: PathBuf },
    /// The file is not a usable capture.
    #[error("{}: {}", path.display(), error_text(error))]
    Pcap { path: PathBuf, error: PcapError },
    /// The bytes are too few for a frame.
    #[error("frame {number}: {error}")]
    Frame { number: usize, error: TooShort },
    /// The direction of the frames is not known.
    #[error(
        "the direction of the frames is not known: give the guest's address with --mac, or --direction in or out"
    )]
    Direction,
}
