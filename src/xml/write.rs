//! Writes an element as text, in the style of libvirt's own programs.
//!
//! Each level is indented by two spaces, values have single quotes, and an element without content
//! is one tag.

use std::fmt::{self, Write};

use super::foreign::Foreign;

/// An element for writing. Names are literals of the program, so the writer escapes only values.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Tag {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Children(Vec<Tag>),
    Text(String),
    Foreign(Foreign),
}

impl Tag {
    /// Makes an element without content.
    pub fn new(name: &'static str) -> Self {
        Tag { name, attributes: Vec::new(), content: Content::Children(Vec::new()) }
    }

    /// Makes an element that contains only text.
    pub fn text(name: &'static str, text: impl fmt::Display) -> Self {
        Tag { name, attributes: Vec::new(), content: Content::Text(text.to_string()) }
    }

    /// Makes an element that contains only kept content.
    pub fn foreign(name: &'static str, content: Foreign) -> Self {
        Tag { name, attributes: Vec::new(), content: Content::Foreign(content) }
    }

    /// Adds an attribute after the others.
    pub fn attribute(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    /// Adds an attribute if there is a value.
    pub fn optional(self, name: &'static str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.attribute(name, value),
            None => self,
        }
    }

    /// Adds child elements after the others; they replace a text or kept content.
    pub fn children(mut self, tags: impl IntoIterator<Item = Tag>) -> Self {
        match &mut self.content {
            Content::Children(children) => children.extend(tags),
            _ => self.content = Content::Children(tags.into_iter().collect()),
        }
        self
    }

    /// Returns whether the element has no attribute, no child element and no text.
    pub fn is_empty(&self) -> bool {
        let content = match &self.content {
            Content::Children(children) => children.is_empty(),
            Content::Text(text) => text.is_empty(),
            Content::Foreign(content) => content.is_blank(),
        };
        content && self.attributes.is_empty()
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let indent = 2 * depth;
        write!(f, "{:indent$}<{}", "", self.name)?;
        for (name, value) in &self.attributes {
            write!(f, " {name}='")?;
            escape(f, value, true)?;
            f.write_char('\'')?;
        }
        match &self.content {
            Content::Children(children) if children.is_empty() => f.write_str("/>\n"),
            Content::Children(children) => {
                f.write_str(">\n")?;
                for child in children {
                    child.write(f, depth + 1)?;
                }
                writeln!(f, "{:indent$}</{}>", "", self.name)
            }
            Content::Text(text) => {
                f.write_char('>')?;
                escape(f, text, false)?;
                writeln!(f, "</{}>", self.name)
            }
            Content::Foreign(content) => writeln!(f, ">{content}</{}>", self.name),
        }
    }
}

/// Writes the element as a document, with a newline at the end.
impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

/// Writes a text or the value of an attribute, with references for the characters that XML would
/// change.
///
/// A reader turns tabs and newlines in a value into spaces, and carriage returns in a text into
/// newlines. So these characters are written as numbers.
pub(super) fn escape(f: &mut fmt::Formatter<'_>, text: &str, value: bool) -> fmt::Result {
    for character in text.chars() {
        match character {
            '&' => f.write_str("&amp;")?,
            '<' => f.write_str("&lt;")?,
            '>' => f.write_str("&gt;")?,
            '\'' if value => f.write_str("&apos;")?,
            // libvirt escapes double quotes too, although a value is in single quotes.
            '"' if value => f.write_str("&quot;")?,
            '\t' | '\n' if value => write!(f, "&#{};", u32::from(character))?,
            '\r' => f.write_str("&#13;")?,
            // XML allows these control characters, but a terminal would act on them.
            '\u{7f}'..='\u{9f}' => write!(f, "&#{};", u32::from(character))?,
            other => f.write_char(other)?,
        }
    }
    Ok(())
}
