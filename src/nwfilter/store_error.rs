//! Why the store of filters cannot do what it is asked for.

use std::path::PathBuf;

use super::value::FilterName;
use crate::definitions::FileError;
use crate::types::Uuid;
use crate::xml::XmlError;

/// Why definitions of filters cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A mistake in a document.
    #[error("{}:{error}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// Where and what.
        error: XmlError,
    },
    /// A file that defines a filter of another name.
    #[error("{} defines the filter {found}: rename the file, or the filter", path.display())]
    Misnamed {
        /// The file.
        path: PathBuf,
        /// The filter in it.
        found: FilterName,
    },
    /// No filter has that name.
    #[error("no filter is called {0}; 'netlaunch nwfilter list' shows those that are there")]
    Unknown(FilterName),
    /// A stock filter cannot be removed.
    #[error(
        "the filter {0} is netlaunch's own and has no definition to remove; define one of that name to replace it"
    )]
    BuiltIn(FilterName),
    /// It was changed while it was edited.
    #[error(
        "the filter {0} was changed or removed by somebody else meanwhile; nothing was written, edit it again"
    )]
    Changed(FilterName),
    /// An edited definition has another name.
    #[error("the filter {old} cannot be renamed to {new}; define {new}, then undefine {old}")]
    Renamed {
        /// Its name.
        old: FilterName,
        /// The name in the document.
        new: FilterName,
    },
    /// It is there with another UUID.
    #[error(
        "the filter {name} is there already, with the UUID {uuid}: use that one, or none, or undefine it first"
    )]
    OtherUuid {
        /// The filter.
        name: FilterName,
        /// Its UUID.
        uuid: Uuid,
    },
    /// Another filter has its UUID.
    #[error("the filter {name} has the UUID {uuid} already: use another, or none")]
    UuidTaken {
        /// The other filter.
        name: FilterName,
        /// The UUID.
        uuid: Uuid,
    },
    /// It would refer to itself.
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
    /// Whether the mistake is in a document or a name, not in the system.
    pub fn is_callers(&self) -> bool {
        !matches!(self, StoreError::File(_))
    }
}
