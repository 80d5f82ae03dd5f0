//! The errors of the store of network definitions.
//!
//! All but [`StoreError::File`] are mistakes in a document or a name, and leave every
//! definition unchanged.

use std::path::PathBuf;

use super::DocumentError;
use super::values::NetworkName;
use crate::xml::store::FileError;

/// The reason why definitions cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The document has a mistake.
    #[error("{}:{error}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// The mistake and its place.
        error: DocumentError,
    },
    /// The file defines a network with a name other than the file's.
    #[error("{} defines the network {found}: rename the file, or the network", path.display())]
    Misnamed {
        /// The file.
        path: PathBuf,
        /// The name in the document.
        found: NetworkName,
    },
    /// No network has that name.
    #[error("no network is called {0}")]
    Unknown(NetworkName),
    /// The compiled-in network has no file that could be removed.
    #[error(
        "the network {0} is compiled in and has no definition to remove; define a network of that name to replace it"
    )]
    BuiltIn(NetworkName),
    /// Another process changed or removed the definition while the user edited it.
    #[error(
        "another process changed or removed the network {0} during the edit; nothing was written, edit the network again"
    )]
    Changed(NetworkName),
    /// The edited definition has a different name.
    #[error("the network {old} cannot be renamed to {new}; define {new}, then undefine {old}")]
    Renamed {
        /// The name before the edit.
        old: NetworkName,
        /// The name in the document.
        new: NetworkName,
    },
    /// A file or directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

impl StoreError {
    /// Returns whether the mistake is in a document or a name, and not in the file system.
    pub fn is_callers(&self) -> bool {
        !matches!(self, StoreError::File(_))
    }
}
