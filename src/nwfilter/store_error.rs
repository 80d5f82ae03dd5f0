//! The errors of the store of filters.

use std::path::PathBuf;

use super::value::FilterName;
use crate::types::Uuid;
use crate::xml::XmlError;
use crate::xml::store::FileError;

/// The reason why definitions of filters cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A document has an error.
    #[error("{}:{error}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// The position and the error.
        error: XmlError,
    },
    /// The file defines a filter with a name other than the file's.
    #[error("{} defines the filter {found}: rename the file, or the filter", path.display())]
    Misnamed {
        /// The file.
        path: PathBuf,
        /// The filter in it.
        found: FilterName,
    },
    /// No filter has that name.
    #[error("no filter is called {0}")]
    Unknown(FilterName),
    /// The filter is a stock filter, which cannot be removed.
    #[error(
        "the filter {0} is compiled into netlaunch and has no definition to remove; define a filter of that name to replace it"
    )]
    BuiltIn(FilterName),
    /// The definition changed while the user edited it.
    #[error(
        "another process changed or removed the filter {0} while you edited it; nothing was written, edit it again"
    )]
    Changed(FilterName),
    /// The edited definition has another name.
    #[error("the filter {old} cannot be renamed to {new}; define {new}, then undefine {old}")]
    Renamed {
        /// The old name.
        old: FilterName,
        /// The name in the document.
        new: FilterName,
    },
    /// A filter of that name exists with another UUID.
    #[error(
        "the filter {name} exists already, with the UUID {uuid}: use that UUID, or none, or undefine the filter first"
    )]
    OtherUuid {
        /// The filter.
        name: FilterName,
        /// Its UUID.
        uuid: Uuid,
    },
    /// Another filter has the UUID.
    #[error("the filter {name} has the UUID {uuid} already: use another, or none")]
    UuidTaken {
        /// The other filter.
        name: FilterName,
        /// The UUID.
        uuid: Uuid,
    },
    /// The filter would refer to itself.
    #[error("the filters would refer to each other in a circle, {}: remove one of the references", circle(.0))]
    Loop(Vec<FilterName>),
    /// A file or directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

fn circle(names: &[FilterName]) -> String {
    let names: Vec<&str> = names.iter().map(FilterName::as_str).collect();
    names.join(" -> ")
}

impl StoreError {
    /// Returns whether the error is in a document or a name, and not in the system.
    pub fn is_callers(&self) -> bool {
        !matches!(self, StoreError::File(_))
    }
}
