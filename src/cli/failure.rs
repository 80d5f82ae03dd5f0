//! The errors of netlaunch as a program: the text of each and its exit status.
//!
//! Every function of the command line returns [`Failure`], or an error that becomes one with `?`.
//! Only [`super::main`] writes the text and returns the status. The errors of the library become
//! the errors of a wing first ([`NetworkError`], [`NwfilterError`]), which add the command-line
//! words of [`super::hint`].
//!
//! The matches in this file have no catch-all arm: the compiler asks for the status of a new
//! variant.

use std::io;
use std::os::fd::RawFd;

use super::args_file::ArgsFileError;
use super::attach_error::AttachError;
use super::caller_socket::SocketError;
use super::config::ConfigError;
use super::editor::{DocumentError, EditError};
use super::hint;
use super::launch_error;
use super::network_error::NetworkError;
use super::nwfilter_error::{ExplainError, NwfilterError};
use super::request::JobError;
use super::running_launch::LaunchNameError;
use super::stop::StopError;
use super::usage_error::UsageError;
use super::wrap::InstallError;
use crate::firewall::FirewalldError;
use crate::launcher::plan::PlanError;
use crate::launcher::{LaunchDirError, LaunchError, StartError};
use crate::network::manager::{ConflictsError, ManagerError, WatchError};
use crate::nwfilter::port::BindingError;
use crate::nwfilter::{CompileError, TreeError};
use crate::sys::netlink::LinkError;
use crate::sys::privileges::AccountError;
use crate::sys::process::SpawnError;
use crate::types::error_text;
use crate::{network, nwfilter};

/// Exit status of a usage error.
const USAGE: u8 = 2;
/// Exit status when netlaunch itself failed.
pub(super) const FAILED: u8 = 125;
/// Exit status when a program cannot be run.
const CANNOT_RUN: u8 = 126;
/// Exit status when a program is not found.
const NOT_FOUND: u8 = 127;

/// The reason why netlaunch ends without an exit status of QEMU.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Usage(UsageError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Job(#[from] JobError),
    #[error("--ready-fd {number}: {error}; name a descriptor that is open for writing")]
    ReadyFd { number: RawFd, error: io::Error },
    #[error("--listen-fd {number}: {error}; name the descriptor of an open socket")]
    ListenFd { number: RawFd, error: io::Error },
    #[error("{}", error_text(.0))]
    CallerSocket(#[from] SocketError),
    #[error("{}", hint::launch(.0))]
    Launch(#[from] LaunchError),
    #[error("{}", launch_error::dir_text(.0))]
    LaunchDir(#[from] LaunchDirError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Network(Box<NetworkError>),
    #[error("{}", error_text(.0))]
    Link(#[from] LinkError),
    #[error(transparent)]
    Nwfilter(Box<NwfilterError>),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(transparent)]
    Attach(Box<AttachError>),
    #[error(transparent)]
    ArgsFile(#[from] ArgsFileError),
    #[error(transparent)]
    LaunchName(#[from] LaunchNameError),
    #[error(transparent)]
    Stop(#[from] StopError),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("{} closed; redirect it, for example to or from /dev/null", closed(.0))]
    Closed(Vec<&'static str>),
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: io::Error },
}

impl From<NetworkError> for Failure {
    fn from(error: NetworkError) -> Self {
        Failure::Network(Box::new(error))
    }
}

impl From<NwfilterError> for Failure {
    fn from(error: NwfilterError) -> Self {
        Failure::Nwfilter(Box::new(error))
    }
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        Failure::Attach(Box::new(error))
    }
}

/// Lets `?` turn errors of the library into a [`Failure`], by way of the error of their wing.
macro_rules! failure_from {
    ($($wing:ident: $($error:ty),+;)+) => {
        $($(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                $wing::from(error).into()
            }
        })+)+
    };
}

failure_from! {
    LaunchError: PlanError, StartError;
    NetworkError: network::StoreError, ManagerError, ConflictsError, FirewalldError, WatchError,
        EditError<NetworkError>;
    NwfilterError: nwfilter::StoreError, BindingError, TreeError, CompileError, ExplainError,
        EditError<NwfilterError>;
}

fn closed(names: &[&str]) -> String {
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(" and "))
}

impl Failure {
    /// Makes the error of a system call that netlaunch cannot do without.
    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Failure::System { what, source }
    }

    /// Returns the exit status: 2 for a mistake of the caller, 126 for a program that cannot be
    /// run, 127 for one that is not found, else 125.
    pub(super) fn status(&self) -> u8 {
        match self {
            Failure::Usage(_)
            | Failure::Job(_)
            | Failure::ReadyFd { .. }
            | Failure::LaunchName(_)
            | Failure::ListenFd { .. } => USAGE,
            Failure::CallerSocket(error) => usage_if(error.is_callers()),
            Failure::Config(error) => error.status(),
            Failure::Document(error) => usage_if(error.is_callers()),
            Failure::Link(error) => of_link(error),
            Failure::Network(error) => error.status(),
            Failure::Nwfilter(error) => error.status(),
            Failure::Install(error) => usage_if(error.is_callers()),
            Failure::Attach(error) => error.status(),
            Failure::ArgsFile(error) => error.status(),
            Failure::Stop(error) => error.status(),
            Failure::Launch(LaunchError::Plan(error)) => of_plan(error),
            Failure::Launch(LaunchError::Start(error)) => of_start(error),
            Failure::Launch(LaunchError::Value { .. }) => USAGE,
            Failure::Launch(LaunchError::Thread(_)) => FAILED,
            Failure::LaunchDir(_)
            | Failure::Output(_)
            | Failure::Closed(_)
            | Failure::System { .. } => FAILED,
        }
    }
}

/// Returns the status of an error: of a mistake of the caller, or of a failure of netlaunch.
pub(super) fn usage_if(is_callers: bool) -> u8 {
    if is_callers { USAGE } else { FAILED }
}

fn of_link(error: &LinkError) -> u8 {
    match error {
        LinkError::Missing(_) | LinkError::NotBridge(_) => USAGE,
        LinkError::Connect(_)
        | LinkError::InUse(_)
        | LinkError::Pattern(_)
        | LinkError::Attached { .. }
        | LinkError::VlansIgnored { .. }
        | LinkError::NoVlans(_)
        | LinkError::LongRecord(_)
        | LinkError::NoIfb
        | LinkError::Refused { .. }
        | LinkError::Lost { .. }
        | LinkError::NotDone { .. } => FAILED,
    }
}

fn of_plan(error: &PlanError) -> u8 {
    match error {
        PlanError::Request(_)
        | PlanError::GuestAddresses(_)
        | PlanError::Options(_)
        | PlanError::Memory(_)
        | PlanError::UserNotRoot(_) => USAGE,
        PlanError::QemuMissing(_) => NOT_FOUND,
        PlanError::QemuUnusable(_) => CANNOT_RUN,
        PlanError::Unusable(_)
        | PlanError::NoBackend(_)
        | PlanError::NoFreePort(_)
        | PlanError::SocketPath { .. }
        | PlanError::NoDescriptor
        | PlanError::NoSubnet => FAILED,
    }
}

fn of_start(error: &StartError) -> u8 {
    match error {
        StartError::User(AccountError::Unknown(_)) => USAGE,
        StartError::Filter(error) => {
            usage_if(error.downcast_ref().is_some_and(BindingError::is_callers))
        }
        StartError::Qemu(SpawnError::Exec { source, .. }) => {
            if source.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN }
        }
        StartError::Publishing(error) => {
            usage_if(error.downcast_ref().is_some_and(ManagerError::is_callers))
        }
        StartError::Port(_)
        | StartError::LaunchDir(_)
        | StartError::Prepare(_)
        | StartError::Passt(_)
        | StartError::Bridge(_)
        | StartError::NoPorts
        | StartError::Plug(_)
        | StartError::User(AccountError::Lookup { .. })
        | StartError::Qemu(
            SpawnError::Nul { .. }
            | SpawnError::Namespace { .. }
            | SpawnError::Daemon { .. }
            | SpawnError::User { .. }
            | SpawnError::System { .. }
            | SpawnError::Lost { .. },
        ) => FAILED,
    }
}
