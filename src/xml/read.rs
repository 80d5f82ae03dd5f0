//! Reads a document into a tree of elements.
//!
//! quick-xml splits the text into tags and text. The code here checks the rules that quick-xml does
//! not check: names, characters, references, and exactly one root element. So each accepted
//! document is well-formed XML 1.0.
//!
//! This reader is stricter than XML: it refuses every construct that the parent module lists.

use std::collections::BTreeSet;

use quick_xml::Reader;
use quick_xml::errors::Error as ReaderError;
use quick_xml::events::{BytesDecl, BytesStart, Event};

use super::error::{XmlError, XmlErrorKind};
use super::foreign::{Foreign, ForeignElement, Node};
use super::grammar::{
    attribute_error, describe, extends_ascii, is_char, newlines, no_entity, resolve, short,
};
use super::limits::{MAX_BYTES, MAX_DEPTH, MAX_NODES};
use super::namespace::{Format, Scope};
use super::position::{Cursor, Position};

/// An element with its attributes, its children and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Its name. An element of a namespace that the format knows has the format's prefix.
    pub name: String,
    /// The place of its `<`.
    pub place: Position,
    /// Its attributes, in the order of the document.
    pub attributes: Vec<Attribute>,
    /// Its child elements, in the order of the document.
    pub children: Vec<Element>,
    /// All pieces of its own text, joined, with white space.
    pub text: String,
    /// The place of the first character of its text that is not white space.
    pub text_place: Option<Position>,
    /// The whole content of an element that the format keeps, in place of children and text.
    pub kept: Foreign,
}

/// An attribute of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value, with references resolved and each white-space character turned into a space (XML
    /// 1.0, 3.3.3).
    pub value: String,
    /// The place of the first character of its name.
    pub place: Position,
    /// The place of the first character of its value, after the quote.
    pub value_place: Position,
}

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads a document without namespaces and returns its root element.
///
/// # Errors
/// The first [`XmlError`] of the document.
pub fn read(bytes: &[u8]) -> Result<Element, XmlError> {
    read_format(bytes, &Format::default())
}

/// Reads a document of a format and returns its root element.
///
/// # Errors
/// The first [`XmlError`] of the document.
pub fn read_format(bytes: &[u8], format: &Format) -> Result<Element, XmlError> {
    if bytes.len() > MAX_BYTES {
        return Err(XmlError { place: Position::START, what: XmlErrorKind::TooLarge(bytes.len()) });
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let (valid, _) = bytes.split_at(error.valid_up_to());
            let place = Cursor::new(&String::from_utf8_lossy(valid)).place(valid.len());
            return Err(XmlError { place, what: XmlErrorKind::NotUtf8 });
        }
    };
    // A byte order mark is not part of the document (XML 1.0, 4.3.3). A second one would be a
    // character before the root element, and quick-xml would skip it.
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if text.starts_with(BYTE_ORDER_MARK) {
        let what = "a second byte order mark cannot be in front of the document: remove it";
        return Err(XmlError {
            place: Position::START,
            what: XmlErrorKind::Syntax(what.to_owned()),
        });
    }
    let mut tree = Tree {
        text,
        format: *format,
        cursor: Cursor::new(text),
        open: Vec::new(),
        root: None,
        nodes: 0,
        scope: Scope::default(),
        borrowed: BTreeSet::new(),
        borrowed_bytes: 0,
    };
    if let Some((offset, character)) = text.char_indices().find(|(_, c)| !is_char(*c)) {
        return Err(tree.error(offset, XmlErrorKind::Character(character.into())));
    }
    tree.grow()
}

/// The state of the reader: the open elements and, once it is complete, the root.
pub(super) struct Tree<'a> {
    text: &'a str,
    pub(super) format: Format,
    cursor: Cursor<'a>,
    pub(super) open: Vec<Element>,
    root: Option<Element>,
    pub(super) nodes: usize,
    pub(super) scope: Scope,
    /// The prefixes that the open child of a kept element takes from the elements around it.
    pub(super) borrowed: BTreeSet<String>,
    /// The size of all declarations that were added to such children.
    pub(super) borrowed_bytes: usize,
}

impl Tree<'_> {
    fn error(&mut self, offset: usize, what: XmlErrorKind) -> XmlError {
        XmlError { place: self.cursor.place(offset), what }
    }

    fn grow(mut self) -> Result<Element, XmlError> {
        let mut reader = Reader::from_str(self.text);
        reader.config_mut().check_comments = true;
        loop {
            let start = offset(reader.buffer_position());
            match reader.read_event() {
                Ok(Event::Start(tag)) => {
                    let element = self.element(start, &tag)?;
                    self.open.push(element);
                }
                Ok(Event::Empty(tag)) => {
                    let element = self.element(start, &tag)?;
                    self.close(start, element)?;
                }
                Ok(Event::End(_)) => match self.open.pop() {
                    Some(element) => self.close(start, element)?,
                    None => return Err(self.error(start, XmlErrorKind::Outside)),
                },
                Ok(Event::Text(text)) => {
                    if let Some(at) = text.find("]]>") {
                        let what = "']]>' cannot be in text: write ']]&gt;'";
                        return Err(self.error(start + at, XmlErrorKind::Syntax(what.to_owned())));
                    }
                    self.text(start, &newlines(&text))?;
                }
                // 9 is the length of `<![CDATA[`.
                Ok(Event::CData(text)) => {
                    if self.open.is_empty() {
                        return Err(self.error(start, XmlErrorKind::Outside));
                    }
                    self.text(start + 9, &newlines(&text))?;
                }
                Ok(Event::GeneralRef(name)) => {
                    let Some(character) = resolve(&name) else {
                        return Err(self.error(start, no_entity(&name)));
                    };
                    if self.open.is_empty() {
                        return Err(self.error(start, XmlErrorKind::Outside));
                    }
                    self.text(start, character.encode_utf8(&mut [0; 4]))?;
                }
                Ok(Event::Comment(comment)) => {
                    if let Some(element) = self.open_kept() {
                        element.kept.comment(&newlines(&comment));
                    }
                }
                Ok(Event::Decl(_)) if start != 0 => {
                    return Err(self.error(start, XmlErrorKind::LateDeclaration));
                }
                Ok(Event::Decl(declaration)) => self.declaration(&declaration)?,
                Ok(Event::PI(instruction)) => {
                    let what = XmlErrorKind::Instruction(short(instruction.target()));
                    return Err(self.error(start, what));
                }
                Ok(Event::DocType(_)) => return Err(self.error(start, XmlErrorKind::Doctype)),
                Ok(Event::Eof) => break,
                Err(error) => {
                    let at = offset(reader.error_position());
                    let end = self.text.len();
                    // For a bad end tag, quick-xml reports the end of the tag. Its start is easier
                    // to find, so the error gets the start.
                    let at = if matches!(error, ReaderError::IllFormed(_)) { start } else { at };
                    return Err(self.error(at.min(end), XmlErrorKind::Syntax(describe(&error))));
                }
            }
        }
        match (self.open.pop(), self.root.take()) {
            (Some(open), _) => {
                Err(XmlError { place: open.place, what: XmlErrorKind::Unclosed(open.name) })
            }
            (None, Some(root)) => Ok(root),
            (None, None) => Err(self.error(self.text.len(), XmlErrorKind::Empty)),
        }
    }

    fn declaration(&mut self, declaration: &BytesDecl<'_>) -> Result<(), XmlError> {
        match declaration.version() {
            Ok(version) if version == "1.0" => {}
            Ok(version) => {
                let what = XmlErrorKind::Version(short(&version));
                return Err(self.error(0, what));
            }
            Err(error) => return Err(self.error(0, XmlErrorKind::Syntax(describe(&error)))),
        }
        match declaration.encoding() {
            None => Ok(()),
            Some(Ok(encoding)) if encoding.eq_ignore_ascii_case("utf-8") => Ok(()),
            // A document of ASCII characters has the same bytes in UTF-8.
            Some(Ok(encoding)) if self.text.is_ascii() && extends_ascii(&encoding) => Ok(()),
            Some(Ok(encoding)) => {
                let what = XmlErrorKind::Encoding(short(&encoding));
                Err(self.error(0, what))
            }
            Some(Err(error)) => {
                Err(self.error(0, XmlErrorKind::Syntax(attribute_error(&error).1.to_owned())))
            }
        }
    }

    fn count(&mut self, at: usize) -> Result<(), XmlError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES { Err(self.error(at, XmlErrorKind::TooMany)) } else { Ok(()) }
    }

    /// Reads a start tag whose `<` is at `start`.
    fn element(&mut self, start: usize, tag: &BytesStart<'_>) -> Result<Element, XmlError> {
        self.count(start)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(self.error(start, XmlErrorKind::TooDeep));
        }
        if self.open.is_empty() && self.root.is_some() {
            return Err(self.error(start, XmlErrorKind::Outside));
        }
        let place = self.cursor.place(start);
        let mut attributes: Vec<Attribute> = Vec::new();
        // quick-xml counts its positions from the tag's name.
        let inside = start + 1;
        let mut list = tag.attributes();
        // quick-xml compares each attribute with all others. The map below finds a duplicate
        // without that, and it also knows the place of the first one.
        list.with_checks(false);
        let mut names = std::collections::BTreeMap::new();
        for attribute in list {
            let attribute = match attribute {
                Ok(attribute) => attribute,
                Err(error) => {
                    let (at, what) = attribute_error(&error);
                    return Err(self.error(inside + at, XmlErrorKind::Syntax(what.to_owned())));
                }
            };
            let at = inside + within(tag, attribute.key.0);
            let value_at = inside + within(tag, &attribute.value);
            self.count(at)?;
            let name = attribute.key.0.to_owned();
            if !self.text[..at].ends_with(|c: char| c.is_ascii_whitespace()) {
                let what = "attributes are separated by white space: add a space before this one";
                return Err(self.error(at, XmlErrorKind::Syntax(what.to_owned())));
            }
            let place = self.cursor.place(at);
            if let Some(first) = names.insert(name.clone(), place) {
                return Err(XmlError { place, what: XmlErrorKind::Duplicate { name, first } });
            }
            let value_place = self.cursor.place(value_at);
            let value = self.value(value_at, &attribute.value)?;
            let kept = self.attribute(&name, &value);
            if kept.map_err(|what| XmlError { place, what })? {
                attributes.push(Attribute { name, value, place, value_place });
            }
        }
        let name = self.name(tag.name().0).map_err(|what| XmlError { place, what })?;
        let mut element = Element {
            name,
            place,
            attributes,
            children: Vec::new(),
            text: String::new(),
            text_place: None,
            kept: Foreign::default(),
        };
        if self.keeps() {
            self.borrow(&mut element).map_err(|what| XmlError { place, what })?;
        }
        Ok(element)
    }

    /// Resolves the text between the quotes of an attribute, which begins at offset `start`.
    fn value(&mut self, start: usize, raw: &str) -> Result<String, XmlError> {
        let mut value = String::with_capacity(raw.len());
        let raw_lines = newlines(raw);
        let mut rest: &str = &raw_lines;
        while let Some(at) = rest.find(['&', '<', '\t', '\n']) {
            let (before, found) = rest.split_at(at);
            value.push_str(before);
            // If `newlines` dropped carriage returns, this offset is a few bytes too small; it is
            // never too large.
            let offset = start + raw_lines.len() - found.len();
            let (length, character) = match found.as_bytes().first() {
                Some(b'&') => {
                    let Some(end) = found.find(';') else {
                        return Err(self.error(offset, no_entity("")));
                    };
                    let name = &found[1..end];
                    match resolve(name) {
                        Some(character) => (end + 1, character),
                        None => return Err(self.error(offset, no_entity(name))),
                    }
                }
                Some(b'<') => {
                    let what = "'<' cannot be in a value: write '&lt;'";
                    return Err(self.error(offset, XmlErrorKind::Syntax(what.to_owned())));
                }
                _ => (1, ' '),
            };
            value.push(character);
            rest = &found[length..];
        }
        value.push_str(rest);
        Ok(value)
    }

    fn text(&mut self, start: usize, text: &str) -> Result<(), XmlError> {
        let blank = |c: char| c.is_ascii_whitespace();
        let solid = text.find(|c| !blank(c)).map(|at| start + at);
        if let Some(element) = self.open_kept() {
            element.kept.text(text);
            return Ok(());
        }
        match self.open.last_mut() {
            Some(element) => {
                element.text.push_str(text);
                if let Some(at) = solid {
                    let place = self.cursor.place(at);
                    element.text_place.get_or_insert(place);
                }
                Ok(())
            }
            None => match solid {
                Some(at) => Err(self.error(at, XmlErrorKind::Outside)),
                None => Ok(()),
            },
        }
    }

    /// Adds a complete element to its parent, or makes it the root.
    fn close(&mut self, start: usize, element: Element) -> Result<(), XmlError> {
        self.scope.leave(self.open.len());
        if let Some(parent) = self.open_kept() {
            let attributes = element.attributes.into_iter().map(|a| (a.name, a.value)).collect();
            let (name, content) = (element.name, element.kept);
            parent.kept.0.push(Node::Element(ForeignElement { name, attributes, content }));
            return Ok(());
        }
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None if self.root.is_some() => return Err(self.error(start, XmlErrorKind::Outside)),
            None => self.root = Some(element),
        }
        Ok(())
    }
}

/// Converts a position of quick-xml, which is at most the length of a text in memory.
fn offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// Returns the offset of `part` in `tag`, in bytes. `part` must be a slice of `tag`.
fn within(tag: &str, part: &str) -> usize {
    part.as_ptr().addr().saturating_sub(tag.as_ptr().addr())
}
