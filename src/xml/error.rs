//! What can be wrong with a document, before and while a format's parser looks at it.

use super::limits::{MAX_BYTES, MAX_DEPTH, MAX_NODES};
use super::place::Place;

/// A mistake in a document and where it is. Its text is `LINE:COLUMN: what; fix`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct XmlError {
    /// Where.
    pub place: Place,
    /// What, and what to write instead.
    pub what: Mistake,
}

/// What is wrong, and what to write instead, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// Larger than [`MAX_BYTES`].
    #[error("the document has {0} bytes, and {MAX_BYTES} are allowed: make it smaller")]
    TooLarge(usize),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("elements are nested deeper than {MAX_DEPTH}: nest them less")]
    TooDeep,
    /// More than [`MAX_NODES`].
    #[error("the document has more than {MAX_NODES} elements and attributes: make it smaller")]
    TooMany,
    /// Bytes that are not UTF-8.
    #[error("a byte here is not UTF-8: save the document as UTF-8")]
    NotUtf8,
    /// Another encoding is declared.
    #[error("the encoding '{0}' is declared, and only UTF-8 is read: save the document as UTF-8")]
    Encoding(String),
    /// A version of XML other than 1.0.
    #[error("XML of version '{0}' is declared, and only 1.0 is read: write version='1.0'")]
    Version(String),
    /// A character that XML 1.0 forbids (its production \[2\], Char).
    #[error("the character U+{0:04X} is not allowed in XML: remove it")]
    Character(u32),
    /// `<!DOCTYPE`.
    #[error("a document type definition is not read: remove the <!DOCTYPE>")]
    Doctype,
    /// `<?name ...?>`.
    #[error("the processing instruction <?{0}?> is not read: remove it")]
    Instruction(String),
    /// `<?xml?>` anywhere but at the start.
    #[error("<?xml?> can only be the first thing in a document: remove it")]
    LateDeclaration,
    /// `&name;` of another entity than the five of XML itself, or a number that is no character.
    #[error(
        "&{0}; stands for nothing: XML knows &amp; &lt; &gt; &quot; &apos; and characters by number, such as &#65;"
    )]
    Entity(String),
    /// A prefix in a name, or `xmlns`.
    #[error("'{0}' uses a namespace, and netlaunch knows none: remove it")]
    Namespace(String),
    /// A name that is none.
    #[error("'{0}' is not a name: names are letters, digits, '-', '_' and '.', a letter first")]
    Name(String),
    /// One attribute twice.
    #[error("the attribute {name} is there already, at {first}: remove one of them")]
    Duplicate {
        /// The attribute.
        name: String,
        /// Where the other one is.
        first: Place,
    },
    /// Not XML.
    #[error("{0}")]
    Syntax(String),
    /// Nothing but white space and comments.
    #[error("the document is empty: write an element")]
    Empty,
    /// An element that is still open at the end.
    #[error("<{0}> is never closed: add </{0}>")]
    Unclosed(String),
    /// Something after the document's element, or text before it.
    #[error("a document is one element: remove what is before or after it")]
    Outside,

    /// Another element than the format's.
    #[error("the document is a <{found}>, and a <{expected}> is wanted")]
    Root {
        /// The document's element.
        found: String,
        /// The format's.
        expected: &'static str,
    },
    /// An element that the format does not have there.
    #[error("<{name}> is not known in <{parent}>{}", offer(.known, "elements"))]
    UnknownElement {
        /// The element.
        name: String,
        /// Where it is.
        parent: String,
        /// What can be there.
        known: Vec<&'static str>,
    },
    /// An attribute that the format does not have there.
    #[error("the attribute {name} is not known in <{element}>{}", offer(.known, "attributes"))]
    UnknownAttribute {
        /// The attribute.
        name: String,
        /// Its element.
        element: String,
        /// What can be there.
        known: Vec<&'static str>,
    },
    /// Text where only elements are.
    #[error("<{0}> has no text: remove it")]
    Text(String),
    /// An element that must be there.
    #[error("<{parent}> needs a <{name}>: add one")]
    MissingElement {
        /// The element.
        name: &'static str,
        /// Where it belongs.
        parent: String,
    },
    /// An attribute that must be there.
    #[error("<{element}> needs the attribute {name}: add it")]
    MissingAttribute {
        /// The attribute.
        name: &'static str,
        /// Its element.
        element: String,
    },
    /// An element of which there can be one.
    #[error("<{parent}> has a <{name}> already, at {first}: remove one of them")]
    Repeated {
        /// The element.
        name: String,
        /// Where it is.
        parent: String,
        /// Where the other one is.
        first: Place,
    },
    /// An attribute's value, or an element's text, that means nothing.
    #[error("{name}: {why}")]
    Value {
        /// `address of <ip>`, or `<name>`.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something that the format has and netlaunch does not.
    #[error("{what} is not supported by netlaunch; {fix}")]
    Unsupported {
        /// Its name, such as `<bandwidth>`.
        what: String,
        /// What to do.
        fix: &'static str,
    },
}

/// What could be there instead.
fn offer(names: &[&'static str], kind: &str) -> String {
    match names {
        [] => format!(", which has no {kind}: remove it"),
        _ => format!(": use {}, or remove it", names.join(", ")),
    }
}
