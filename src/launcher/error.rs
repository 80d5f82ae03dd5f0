//! The errors of planning and starting a launch.

use std::error::Error;
use std::io;

#[cfg(feature = "cli")]
use super::attach::PlugError;
use super::guest_port::GuestPortError;
use super::launch_dir::LaunchDirError;
use super::passt::{PasstEndCause, PasstError};
use super::plan::{Plan, PlanError, RequestError};
use super::ports::PublishError;
use crate::sys::privileges::AccountError;
use crate::sys::process::SpawnError;
use crate::types::error_text;
use crate::types::facts::Problem;

/// Why a launch failed. Nothing of it is left.
///
/// [`LaunchError::kind`] is for programs, [`error_text`](crate::types::error_text) for people:
///
/// ```
/// use netlaunch::launcher::{LaunchErrorKind, Launcher};
/// use netlaunch::types::error_text;
///
/// let error = Launcher::builder().publish("2222:ssh").build().unwrap_err();
/// assert_eq!(error.kind(), LaunchErrorKind::InvalidRequest);
/// assert!(error_text(&error).starts_with("the published port is not valid: "));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// A value of the request cannot be used.
    #[error("the {what} is not valid")]
    Value {
        /// The value, in words.
        what: &'static str,
        /// The mistake in it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no plan for the request on this host.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan could not be carried out.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The thread that drives the launch cannot be started or has no event loop.
    #[error("cannot start the thread that drives the launch")]
    Thread(#[source] io::Error),
}

impl From<RequestError> for LaunchError {
    fn from(error: RequestError) -> Self {
        PlanError::from(error).into()
    }
}

/// The kind of a [`LaunchError`], for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LaunchErrorKind {
    /// The request contradicts itself, or a value of it cannot be used.
    InvalidRequest,
    /// QEMU was not found.
    QemuNotFound,
    /// QEMU cannot be executed.
    QemuUnusable,
    /// No backend that the request allows can serve on this host.
    NoBackend,
    /// Another program has a published port.
    PortInUse,
    /// A published port cannot be listened on for another reason.
    PortUnusable,
    /// Another launch has the name.
    NameInUse,
    /// The launch directory cannot be made, or a file in it.
    LaunchDir,
    /// passt does not serve.
    Passt,
    /// The guest's port on its bridge cannot be made.
    Bridge,
    /// The rules of the guest's filter cannot be set.
    Filter,
    /// There is no such user to run QEMU as, or QEMU cannot become that user.
    User,
    /// The system lacks memory, processes, threads or descriptors.
    System,
}

impl LaunchErrorKind {
    /// Returns the name of the kind in JSON, such as `port-in-use`.
    pub fn name(self) -> &'static str {
        match self {
            LaunchErrorKind::InvalidRequest => "invalid-request",
            LaunchErrorKind::QemuNotFound => "qemu-not-found",
            LaunchErrorKind::QemuUnusable => "qemu-unusable",
            LaunchErrorKind::NoBackend => "no-backend",
            LaunchErrorKind::PortInUse => "port-in-use",
            LaunchErrorKind::PortUnusable => "port-unusable",
            LaunchErrorKind::NameInUse => "name-in-use",
            LaunchErrorKind::LaunchDir => "launch-dir",
            LaunchErrorKind::Passt => "passt",
            LaunchErrorKind::Bridge => "bridge",
            LaunchErrorKind::Filter => "filter",
            LaunchErrorKind::User => "user",
            LaunchErrorKind::System => "system",
        }
    }
}

impl LaunchError {
    /// Returns the kind of the error.
    pub fn kind(&self) -> LaunchErrorKind {
        match self {
            LaunchError::Value { .. } => LaunchErrorKind::InvalidRequest,
            LaunchError::Plan(error) if error.is_usage() => LaunchErrorKind::InvalidRequest,
            LaunchError::Plan(PlanError::QemuMissing(_)) => LaunchErrorKind::QemuNotFound,
            LaunchError::Plan(PlanError::QemuUnusable(_)) => LaunchErrorKind::QemuUnusable,
            LaunchError::Plan(PlanError::SocketPath { .. }) => LaunchErrorKind::LaunchDir,
            LaunchError::Plan(_) => LaunchErrorKind::NoBackend,
            LaunchError::Start(error) => error.kind(),
            LaunchError::Thread(_) => LaunchErrorKind::System,
        }
    }
}

/// Why a plan could not be carried out. Everything that was started has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A published port cannot be listened on.
    #[error(transparent)]
    Port(#[from] PublishError),
    /// The launch directory cannot be made.
    #[error(transparent)]
    LaunchDir(#[from] LaunchDirError),
    /// A file in the launch directory cannot be written, or there are no descriptors left.
    #[error("cannot prepare the launch")]
    Prepare(#[source] io::Error),
    /// passt does not serve.
    #[error(transparent)]
    Passt(#[from] PasstError),
    /// The guest's port on its bridge cannot be made.
    #[error(transparent)]
    Bridge(GuestPortError),
    /// The ports of the guest on its bridge cannot be published.
    #[error(transparent)]
    Publishing(GuestPortError),
    /// The plan needs a port on a bridge, and the caller makes none.
    #[error("the guest joins a bridge, and this launcher makes no port for it")]
    NoPorts,
    /// There is no such user to run QEMU as.
    #[error(transparent)]
    User(#[from] AccountError),
    /// The rules of the guest's filter cannot be set.
    #[error(transparent)]
    Filter(GuestPortError),
    /// QEMU cannot be executed.
    #[error(transparent)]
    Qemu(SpawnError),
    /// The QEMU that runs does not take the NIC.
    #[cfg(feature = "cli")]
    #[error(transparent)]
    Plug(#[from] PlugError),
}

/// The advice about a passt that fails to start: its own words say what is wrong.
pub(crate) const PASST_FIX: &str = "see its message and correct the cause";
/// The advice about files that cannot be made and descriptors that ran out.
pub(crate) const SHORTAGE_FIX: &str =
    "see the space on the disk and the limits that 'ulimit -a' shows";

impl StartError {
    /// Names the forward of the QEMU arguments that asks for a port that cannot be published.
    pub(super) fn with_forward(mut self, plan: &Plan) -> Self {
        let port = match &mut self {
            StartError::Port(port) => Some(port),
            StartError::Passt(PasstError::PortNotListening { cause, .. }) => cause.as_deref_mut(),
            StartError::Passt(PasstError::Ended { cause: Some(cause), .. }) => match &mut **cause {
                PasstEndCause::Port(port) => Some(port),
                _ => None,
            },
            _ => None,
        };
        if let Some(port) = port {
            port.name_forward(plan);
        }
        self
    }

    /// Returns the error as the reason why passt cannot be used.
    pub(super) fn as_passt_problem(&self) -> Problem {
        match self {
            StartError::Passt(error) => {
                Problem::new(format!("it fails to start: {}", error_text(error)), PASST_FIX)
            }
            StartError::Prepare(_) => {
                Problem::new(format!("{}; {SHORTAGE_FIX}", error_text(self)), PASST_FIX)
            }
            other => Problem::new(error_text(other), PASST_FIX),
        }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> LaunchErrorKind {
        match self {
            StartError::Port(PublishError::Busy { .. }) => LaunchErrorKind::PortInUse,
            StartError::Port(_) | StartError::Publishing(_) => LaunchErrorKind::PortUnusable,
            StartError::LaunchDir(LaunchDirError::NameInUse { .. }) => LaunchErrorKind::NameInUse,
            StartError::LaunchDir(_) | StartError::Prepare(_) => LaunchErrorKind::LaunchDir,
            StartError::Passt(PasstError::PortNotListening { .. }) => LaunchErrorKind::PortUnusable,
            StartError::Passt(_) => LaunchErrorKind::Passt,
            StartError::Bridge(_) | StartError::NoPorts => LaunchErrorKind::Bridge,
            StartError::Filter(_) => LaunchErrorKind::Filter,
            StartError::User(_) | StartError::Qemu(SpawnError::User { .. }) => {
                LaunchErrorKind::User
            }
            StartError::Qemu(SpawnError::Exec { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                LaunchErrorKind::QemuNotFound
            }
            StartError::Qemu(SpawnError::Exec { .. }) => LaunchErrorKind::QemuUnusable,
            StartError::Qemu(SpawnError::Nul { .. }) => LaunchErrorKind::InvalidRequest,
            StartError::Qemu(_) => LaunchErrorKind::System,
            #[cfg(feature = "cli")]
            StartError::Plug(_) => LaunchErrorKind::QemuUnusable,
        }
    }
}
