//! Why a store cannot do what it is asked for.

use std::path::PathBuf;

use super::DocumentError;
use super::values::NetworkName;
use crate::definitions::FileError;

/// Why definitions cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A mistake in a document.
    #[error("{}:{error}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// Where and what.
        error: DocumentError,
    },
    /// A file that defines a network of another name.
    #[error("{} defines the network {found}: rename the file, or the network", path.display())]
    Misnamed {
        /// The file.
        path: PathBuf,
        /// The network in it.
        found: NetworkName,
    },
    /// No network has that name.
    #[error("no network is called {0}; 'netlaunch network list' shows those that are there")]
    Unknown(NetworkName),
    /// The compiled-in network cannot be removed.
    #[error(
        "the network {0} is netlaunch's own and has no definition to remove; define one of that name to replace it"
    )]
    BuiltIn(NetworkName),
    /// It was changed while it was edited.
    #[error(
        "the network {0} was changed or removed by somebody else meanwhile; nothing was written, edit it again"
    )]
    Changed(NetworkName),
    /// An edited definition has another name.
    #[error("the network {old} cannot be renamed to {new}; define {new}, then undefine {old}")]
    Renamed {
        /// Its name.
        old: NetworkName,
        /// The name in the document.
        new: NetworkName,
    },
    /// A file or directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

impl StoreError {
    /// Whether the mistake is in a document or a name, not in the system.
    pub fn is_callers(&self) -> bool {
        !matches!(self, StoreError::File(_))
    }
}
