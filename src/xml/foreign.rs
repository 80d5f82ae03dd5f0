//! The content of an element that netlaunch keeps and never interprets, such as `<metadata>`.
//!
//! The reader builds a [`Foreign`] from the content of the element, with the text, the comments and
//! the white space in between, and the writer writes the same content again. A namespace prefix
//! that a child uses and an element around the content declares is declared on that child, so the
//! content means the same in every document. The writer escapes the same characters as for other
//! text; so a CDATA section becomes escaped text, which XML reads alike.

use std::fmt::{self, Write};

use super::write::escape;

/// The content of an element, with its text, its comments and its child elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreign(pub(super) Vec<Node>);

/// A piece of the content of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// Text with the references resolved; two texts are never neighbours.
    Text(String),
    /// The text between `<!--` and `-->`.
    Comment(String),
    /// A child element.
    Element(ForeignElement),
}

/// An element of a foreign format, with its names as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForeignElement {
    pub(super) name: String,
    /// The names and values, with the declarations of namespaces.
    pub(super) attributes: Vec<(String, String)>,
    pub(super) content: Foreign,
}

impl Foreign {
    /// Returns whether the content is only white space.
    pub fn is_blank(&self) -> bool {
        let blank = |node: &Node| match node {
            Node::Text(text) => text.trim().is_empty(),
            Node::Comment(_) | Node::Element(_) => false,
        };
        self.0.iter().all(blank)
    }

    /// Adds a comment. A comment has no references, so a control character that a terminal would
    /// act on becomes U+FFFD.
    pub(super) fn comment(&mut self, text: &str) {
        let safe = |c| if matches!(c, '\u{7f}'..='\u{9f}') { '\u{fffd}' } else { c };
        self.0.push(Node::Comment(text.chars().map(safe).collect()));
    }

    /// Adds a text, which becomes one with a text before it.
    pub(super) fn text(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Node::Text(before)) => before.push_str(text),
            _ if text.is_empty() => {}
            _ => self.0.push(Node::Text(text.to_owned())),
        }
    }
}

/// Writes the content without the element around it. Nothing is indented, because white space may
/// have a meaning in a foreign format.
impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.0 {
            match node {
                Node::Text(text) => escape(f, text, false)?,
                Node::Comment(text) => write!(f, "<!--{text}-->")?,
                Node::Element(element) => element.fmt(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for ForeignElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.name)?;
        for (name, value) in &self.attributes {
            write!(f, " {name}='")?;
            escape(f, value, true)?;
            f.write_char('\'')?;
        }
        if self.content.0.is_empty() {
            return f.write_str("/>");
        }
        write!(f, ">{}</{}>", self.content, self.name)
    }
}
