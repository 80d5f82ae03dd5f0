//! The errors of `netlaunch network` and `netlaunch firewall`, and their exit statuses.

use std::path::PathBuf;

use super::config::ConfigError;
use super::editor::{DocumentError, EditError};
use super::failure::usage_if;
use super::hint;
use crate::firewall::FirewalldError;
use crate::network::manager::{ConflictsError, ManagerError, WatchError};
use crate::network::update::UpdateError;
use crate::network::{NetworkName, StoreError};
use crate::sys::state_file::LockTimeout;
use crate::types::error_text;

/// Why a command about networks failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// There is no directory for definitions.
    #[error("there is no directory for networks: HOME is not set; set it, or NETLAUNCH_CONFIG_DIR")]
    NoDirectory,
    /// network.conf has a mistake.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The definitions cannot be read, or a definition cannot be changed.
    #[error("{error}{hint}", error = error_text(.0), hint = hint::network_store(.0))]
    Store(#[from] StoreError),
    /// The manager of the networks reports an error.
    #[error("{error}{hint}", error = error_text(.0), hint = hint::manager(.0))]
    Manager(ManagerError),
    /// Another command holds the lock for too long.
    #[error("{error}{hint}", error = error_text(.0), hint = hint::LOCK)]
    Locked(LockTimeout),
    /// The host's firewall cannot be read.
    #[error("{}", error_text(.0))]
    Conflicts(ConflictsError),
    /// The signals of firewalld cannot be received.
    #[error("{}", error_text(.0))]
    Follow(#[from] FirewalldError),
    /// The events of networks cannot be received.
    #[error("{}", error_text(.0))]
    Watch(#[from] WatchError),
    /// The definition of an active network has changed, and the network itself could not.
    #[error(
        "the network {name} is defined, and runs as before: {error}{hint}",
        error = error_text(error), hint = hint::manager(error)
    )]
    NotApplied { name: NetworkName, error: Box<ManagerError> },
    /// An element of a network cannot be changed.
    #[error("{source_name}{separator}{error}", separator = if matches!(error, UpdateError::Xml(_)) { ":" } else { ": " })]
    Update { source_name: String, error: UpdateError },
    /// The document cannot be read or edited.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The network is active, and its definition must stay.
    #[error("the network {0} is active; destroy it first: netlaunch network destroy {0}")]
    Active(NetworkName),
    /// The end of a network left parts behind. A warning has named each of them.
    #[error(
        "the network {0} is not removed completely: the warnings above name the remaining parts; mend the causes, then repeat netlaunch network destroy {0}"
    )]
    Incomplete(NetworkName),
    /// The network to destroy is not active.
    #[error("the network {0} is not active; there is nothing to destroy")]
    Inactive(NetworkName),
    /// The file to edit defines no network.
    #[error("{}; correct that file, or define the network anew", error_text(.0))]
    Uneditable(StoreError),
    /// The edited text cannot be used, and a copy of it is kept.
    #[error("{error}; nothing was changed, and the text is kept in {}", path.display())]
    EditKept { error: Box<NetworkError>, path: PathBuf },
}

impl NetworkError {
    /// Returns the exit status: 2 for a mistake of the caller, else 125.
    pub(super) fn status(&self) -> u8 {
        usage_if(match self {
            NetworkError::Config(error) => return error.status(),
            NetworkError::EditKept { error, .. } => return error.status(),
            NetworkError::Store(error) => error.is_callers(),
            NetworkError::Manager(error)
            | NetworkError::Conflicts(ConflictsError::Manager(error)) => error.is_callers(),
            NetworkError::Document(error) => error.is_callers(),
            NetworkError::Conflicts(ConflictsError::NoBridge(_))
            | NetworkError::Active(_)
            | NetworkError::Update { .. }
            | NetworkError::Inactive(_)
            | NetworkError::Uneditable(_) => true,
            NetworkError::NoDirectory
            | NetworkError::Locked(_)
            | NetworkError::Conflicts(ConflictsError::Tool(_) | ConflictsError::Listing(_))
            | NetworkError::Follow(_)
            | NetworkError::Watch(_)
            | NetworkError::NotApplied { .. }
            | NetworkError::Incomplete(_) => false,
        })
    }
}

impl From<ManagerError> for NetworkError {
    fn from(error: ManagerError) -> Self {
        match error {
            ManagerError::Locked(timeout) => NetworkError::Locked(timeout),
            other => NetworkError::Manager(other),
        }
    }
}

impl From<ConflictsError> for NetworkError {
    fn from(error: ConflictsError) -> Self {
        match error {
            ConflictsError::Manager(error) => error.into(),
            other => NetworkError::Conflicts(other),
        }
    }
}

impl From<EditError<NetworkError>> for NetworkError {
    fn from(EditError { error, kept }: EditError<NetworkError>) -> Self {
        match kept {
            Some(path) => NetworkError::EditKept { error: Box::new(error), path },
            None => error,
        }
    }
}
