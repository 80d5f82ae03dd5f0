//! The errors that a document can have, found while it is read or while a format's parser takes it
//! apart.

use super::limits::{MAX_BYTES, MAX_DEPTH, MAX_NODES};
use super::position::Position;

/// A mistake in a document and its place; the text is `LINE:COLUMN: mistake; fix`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
#[non_exhaustive]
pub struct XmlError {
    /// The line and column of the mistake.
    pub place: Position,
    /// The mistake and its fix.
    pub what: XmlErrorKind,
}

/// A mistake in a document and its fix, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XmlErrorKind {
    /// The document has more than [`MAX_BYTES`] bytes.
    #[error("the document has at least {0} bytes, and {MAX_BYTES} are allowed: make it smaller")]
    TooLarge(usize),
    /// Elements are nested deeper than [`MAX_DEPTH`].
    #[error("elements are nested deeper than {MAX_DEPTH}: nest them less")]
    TooDeep,
    /// The document has more than [`MAX_NODES`] elements and attributes.
    #[error("the document has more than {MAX_NODES} elements and attributes: make it smaller")]
    TooMany,
    /// The document has a byte that is not UTF-8.
    #[error("a byte here is not UTF-8: save the document as UTF-8")]
    NotUtf8,
    /// The declaration names an encoding other than UTF-8.
    #[error("the encoding '{0}' is declared, and only UTF-8 is read: save the document as UTF-8")]
    Encoding(String),
    /// The declaration names a version of XML other than 1.0.
    #[error("XML of version '{0}' is declared, and only 1.0 is read: write version='1.0'")]
    Version(String),
    /// XML 1.0 forbids the character (its production \[2\], Char).
    #[error("the character U+{0:04X} is not allowed in XML: remove it")]
    Character(u32),
    /// The document has a `<!DOCTYPE`.
    #[error("a document type definition is not read: remove the <!DOCTYPE>")]
    Doctype,
    /// The document has a processing instruction, `<?name ...?>`.
    #[error("the processing instruction <?{0}?> is not read: remove it")]
    Instruction(String),
    /// `<?xml?>` is not at the start of the document.
    #[error("<?xml?> can only be the first thing in a document: remove it")]
    LateDeclaration,
    /// `&name;` is not one of XML's own five entities and not the number of an allowed character.
    #[error(
        "&{0}; stands for nothing: XML knows &amp; &lt; &gt; &quot; &apos; and characters by number, such as &#65;"
    )]
    Entity(String),
    /// A name has a prefix or is `xmlns`.
    #[error("'{0}' uses a namespace, and netlaunch knows none here: remove it")]
    Namespace(String),
    /// A name has a prefix that no element around it declares.
    #[error("'{0}' has a prefix that is not declared: add xmlns:PREFIX='URI'")]
    Undeclared(String),
    /// A name does not have the form of a name.
    #[error("'{0}' is not a name: names are letters, digits, '-', '_' and '.', a letter first")]
    Name(String),
    /// An element has the same attribute twice.
    #[error("the attribute {name} is there already, at {first}: remove one of them")]
    Duplicate {
        /// The attribute.
        name: String,
        /// The place of the first one.
        first: Position,
    },
    /// The text is not well-formed XML.
    #[error("{0}")]
    Syntax(String),
    /// The document has nothing but white space and comments.
    #[error("the document is empty: write an element")]
    Empty,
    /// An element has no end tag.
    #[error("<{0}> is never closed: add </{0}>")]
    Unclosed(String),
    /// The document has text or another element before or after its element.
    #[error("a document is one element: remove what is before or after it")]
    Outside,

    /// The document's element is not the one of the expected format.
    #[error("the document is a <{found}>, and a <{expected}> is wanted")]
    Root {
        /// The name of the document's element.
        found: String,
        /// The name of the format's element.
        expected: &'static str,
    },
    /// An element is not known in its parent.
    #[error("<{name}> is not known in <{parent}>{}", offer(.known, "elements"))]
    UnknownElement {
        /// The element's name.
        name: String,
        /// The parent's name.
        parent: String,
        /// The names of the elements that the parser asked for.
        known: Vec<&'static str>,
    },
    /// An attribute is not known in its element.
    #[error("the attribute {name} is not known in <{element}>{}", offer(.known, "attributes"))]
    UnknownAttribute {
        /// The attribute's name.
        name: String,
        /// The element's name.
        element: String,
        /// The names of the attributes that the parser asked for.
        known: Vec<&'static str>,
    },
    /// An element has text although its format has none there.
    #[error("<{0}> has no text: remove it")]
    Text(String),
    /// A required element is missing.
    #[error("<{parent}> needs a <{name}>: add one")]
    MissingElement {
        /// The missing element's name.
        name: &'static str,
        /// The name of the element that must contain it.
        parent: String,
    },
    /// A required attribute is missing.
    #[error("<{element}> needs the attribute {name}: add it")]
    MissingAttribute {
        /// The missing attribute's name.
        name: &'static str,
        /// The name of the element that must have it.
        element: String,
    },
    /// An element that may appear once appears again.
    #[error("<{parent}> has a <{name}> already, at {first}: remove one of them")]
    Repeated {
        /// The element's name.
        name: String,
        /// The parent's name.
        parent: String,
        /// The place of the first one.
        first: Position,
    },
    /// The value of an attribute, or the text of an element, is invalid.
    #[error("{name}: {why}")]
    Value {
        /// The name of the value: `address of <ip>`, or `<name>` for an element's text.
        name: String,
        /// The reason why the value is invalid.
        why: String,
    },
    /// The format has this element or attribute, and netlaunch does not support it.
    #[error("{what} is not supported by netlaunch; {fix}")]
    Unsupported {
        /// Its name, such as `<bandwidth>`.
        what: String,
        /// The advice for the user.
        fix: &'static str,
    },
}

/// Formats the end of an error about an unknown name: the known names, or the advice to remove it.
fn offer(names: &[&'static str], kind: &str) -> String {
    match names {
        [] => format!(", which has no {kind}: remove it"),
        _ => format!(": use {}, or remove it", names.join(", ")),
    }
}
