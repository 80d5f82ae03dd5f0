//! XML as netlaunch's documents use it: elements, attributes, text, and where each of them stands.
//!
//! Networks and filters come from files that people write by hand and that other programs generate.
//! So a document becomes a small tree first ([`read`]), in which everything knows its line and
//! column; a parser of one format then takes from the tree what it knows ([`Take`]), and whatever
//! is left is an error that names it. Nothing is skipped silently. [`Tag`] is the way back.
//!
//! Everything that can make XML dangerous or ambiguous is refused while reading: document type
//! definitions, entities, processing instructions, namespaces, and documents larger than the
//! limits below. Comments are allowed and not kept.
//!
//! Nothing in this folder knows a format, a file or a program; the functions are pure.

mod error;
mod grammar;
mod limits;
mod place;
mod read;
#[cfg(test)]
pub(crate) mod schema;
mod take;
#[cfg(test)]
mod tests;
mod write;

pub use error::{Mistake, XmlError};
pub use limits::{MAX_BYTES, MAX_DEPTH, MAX_NODES};
pub use place::Place;
pub use read::{Attribute, Element, read};
pub use take::Take;
pub use write::Tag;
