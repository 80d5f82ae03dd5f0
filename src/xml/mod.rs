//! Reading and writing of the XML documents that netlaunch uses, with line and column for each
//! error.
//!
//! Users write networks and filters by hand, and other programs generate them. So `read` first
//! turns a document into a small tree, in which each element and each attribute knows its line and
//! column. Then the parser of one format takes the known elements and attributes out of the tree
//! ([`ElementReader`]), and [`ElementReader::finish`] returns an error that names the first one
//! that the parser did not take. The parser never skips anything silently. [`Tag`] is the opposite
//! direction: it writes a document.
//!
//! `read` refuses everything that makes XML dangerous or ambiguous: document type definitions,
//! entities, processing instructions, namespaces, and documents above the limits ([`MAX_BYTES`] and
//! the others). It accepts comments and drops them. `read_format` also accepts the namespaces that
//! a [`Format`] knows, and it keeps the content of the elements that the format keeps
//! ([`Foreign`]).
//!
//! This module knows no format and no program. Its functions are pure, except those of [`store`],
//! which reads and writes files of definitions under a lock.

mod element_reader;
mod error;
mod foreign;
mod grammar;
mod limits;
mod namespace;
mod position;
mod read;
#[cfg(test)]
pub(crate) mod schema;
pub mod store;
#[cfg(test)]
mod tests;
mod write;

pub use element_reader::ElementReader;
pub use error::{XmlError, XmlErrorKind};
pub use foreign::Foreign;
pub use limits::{MAX_BYTES, MAX_DEPTH, MAX_NODES};
pub use namespace::Format;
pub use position::Position;
pub use read::{Attribute, Element, read, read_format};
pub use write::Tag;
