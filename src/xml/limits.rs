//! The limits on the size of a document.
//!
//! They are far above the size of any real definition. They are low enough that an untrusted
//! document cannot exhaust memory or the stack.

/// The size of the largest document, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// The deepest nesting of elements.
pub const MAX_DEPTH: usize = 32;
/// The largest number of elements and attributes in a document.
pub const MAX_NODES: usize = 1 << 16;
