//! How large a document can be: far more than any definition needs, and little enough that nothing
//! a stranger hands over can use up memory or stack.

/// The largest document, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// How deep elements can be nested.
pub const MAX_DEPTH: usize = 32;
/// How many elements and attributes a document can have.
pub const MAX_NODES: usize = 1 << 16;
