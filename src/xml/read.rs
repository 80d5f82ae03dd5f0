//! From bytes to a tree.
//!
//! quick-xml splits the text into tags and text; what it does not check is checked here, so that a
//! document that is accepted is well-formed XML 1.0: names, characters, references, one root.

use quick_xml::Reader;
use quick_xml::errors::Error as ReaderError;
use quick_xml::events::{BytesDecl, BytesStart, Event};

use super::error::{Mistake, XmlError};
use super::grammar::{
    attribute_error, check_name, describe, is_char, newlines, no_entity, resolve, short,
};
use super::limits::{MAX_BYTES, MAX_DEPTH, MAX_NODES};
use super::place::{Cursor, Place};

/// An element with all that is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Its name.
    pub name: String,
    /// Where its `<` is.
    pub place: Place,
    /// Its attributes in the document's order.
    pub attributes: Vec<Attribute>,
    /// Its elements in the document's order.
    pub children: Vec<Element>,
    /// All its own text, one after the other, white space included.
    pub text: String,
    /// Where its text starts that is not white space.
    pub text_place: Option<Place>,
}

/// An attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value; references are resolved, and white space is spaces (XML 1.0, 3.3.3).
    pub value: String,
    /// Where its name starts.
    pub place: Place,
    /// Where its value starts, after the quote.
    pub value_place: Place,
}

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads a document.
///
/// # Errors
/// The first [`XmlError`] in it.
pub fn read(bytes: &[u8]) -> Result<Element, XmlError> {
    if bytes.len() > MAX_BYTES {
        return Err(XmlError { place: Place::START, what: Mistake::TooLarge(bytes.len()) });
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let (valid, _) = bytes.split_at(error.valid_up_to());
            let place = Cursor::new(&String::from_utf8_lossy(valid)).place(valid.len());
            return Err(XmlError { place, what: Mistake::NotUtf8 });
        }
    };
    // A byte order mark is not part of the document (XML 1.0, 4.3.3). A second one is a character
    // before the root element; quick-xml would skip it.
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if text.starts_with(BYTE_ORDER_MARK) {
        let what = "a second byte order mark cannot be in front of the document: remove it";
        return Err(XmlError { place: Place::START, what: Mistake::Syntax(what.to_owned()) });
    }
    let mut tree = Tree { text, cursor: Cursor::new(text), open: Vec::new(), root: None, nodes: 0 };
    if let Some((offset, character)) = text.char_indices().find(|(_, c)| !is_char(*c)) {
        return Err(tree.error(offset, Mistake::Character(character.into())));
    }
    tree.grow()
}

/// The tree while it is made.
struct Tree<'a> {
    text: &'a str,
    cursor: Cursor<'a>,
    open: Vec<Element>,
    root: Option<Element>,
    nodes: usize,
}

impl Tree<'_> {
    fn error(&mut self, offset: usize, what: Mistake) -> XmlError {
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
                    None => return Err(self.error(start, Mistake::Outside)),
                },
                Ok(Event::Text(text)) => {
                    if let Some(at) = text.find("]]>") {
                        let what = "']]>' cannot be in text: write ']]&gt;'";
                        return Err(self.error(start + at, Mistake::Syntax(what.to_owned())));
                    }
                    self.text(start, &newlines(&text))?;
                }
                // 9 is the length of `<![CDATA[`.
                Ok(Event::CData(text)) => {
                    if self.open.is_empty() {
                        return Err(self.error(start, Mistake::Outside));
                    }
                    self.text(start + 9, &newlines(&text))?;
                }
                Ok(Event::GeneralRef(name)) => {
                    let Some(character) = resolve(&name) else {
                        return Err(self.error(start, no_entity(&name)));
                    };
                    if self.open.is_empty() {
                        return Err(self.error(start, Mistake::Outside));
                    }
                    self.text(start, character.encode_utf8(&mut [0; 4]))?;
                }
                Ok(Event::Comment(_)) => {}
                Ok(Event::Decl(_)) if start != 0 => {
                    return Err(self.error(start, Mistake::LateDeclaration));
                }
                Ok(Event::Decl(declaration)) => self.declaration(&declaration)?,
                Ok(Event::PI(instruction)) => {
                    let what = Mistake::Instruction(short(instruction.target()));
                    return Err(self.error(start, what));
                }
                Ok(Event::DocType(_)) => return Err(self.error(start, Mistake::Doctype)),
                Ok(Event::Eof) => break,
                Err(error) => {
                    let at = offset(reader.error_position());
                    let end = self.text.len();
                    // Of a bad end tag quick-xml tells where it ends; where it starts says more.
                    let at = if matches!(error, ReaderError::IllFormed(_)) { start } else { at };
                    return Err(self.error(at.min(end), Mistake::Syntax(describe(&error))));
                }
            }
        }
        match (self.open.pop(), self.root.take()) {
            (Some(open), _) => {
                Err(XmlError { place: open.place, what: Mistake::Unclosed(open.name) })
            }
            (None, Some(root)) => Ok(root),
            (None, None) => Err(self.error(self.text.len(), Mistake::Empty)),
        }
    }

    fn declaration(&mut self, declaration: &BytesDecl<'_>) -> Result<(), XmlError> {
        match declaration.version() {
            Ok(version) if version == "1.0" => {}
            Ok(version) => {
                let what = Mistake::Version(short(&version));
                return Err(self.error(0, what));
            }
            Err(error) => return Err(self.error(0, Mistake::Syntax(describe(&error)))),
        }
        match declaration.encoding() {
            None => Ok(()),
            Some(Ok(encoding)) if encoding.eq_ignore_ascii_case("utf-8") => Ok(()),
            Some(Ok(encoding)) => {
                let what = Mistake::Encoding(short(&encoding));
                Err(self.error(0, what))
            }
            Some(Err(error)) => {
                Err(self.error(0, Mistake::Syntax(attribute_error(&error).1.to_owned())))
            }
        }
    }

    fn count(&mut self, at: usize) -> Result<(), XmlError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES { Err(self.error(at, Mistake::TooMany)) } else { Ok(()) }
    }

    /// Reads a start tag whose `<` is at `start`.
    fn element(&mut self, start: usize, tag: &BytesStart<'_>) -> Result<Element, XmlError> {
        self.count(start)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(self.error(start, Mistake::TooDeep));
        }
        let name = tag.name().0.to_owned();
        if let Err(what) = check_name(&name) {
            return Err(self.error(start, what));
        }
        if self.open.is_empty() && self.root.is_some() {
            return Err(self.error(start, Mistake::Outside));
        }
        let place = self.cursor.place(start);
        let mut attributes: Vec<Attribute> = Vec::new();
        // Of the tag with all its attributes: what quick-xml's positions count from.
        let inside = start + 1;
        let mut list = tag.attributes();
        // Ours says where the first one is, and finds it without comparing all with all.
        list.with_checks(false);
        let mut names = std::collections::BTreeMap::new();
        for attribute in list {
            let attribute = match attribute {
                Ok(attribute) => attribute,
                Err(error) => {
                    let (at, what) = attribute_error(&error);
                    return Err(self.error(inside + at, Mistake::Syntax(what.to_owned())));
                }
            };
            let at = inside + within(tag, attribute.key.0);
            let value_at = inside + within(tag, &attribute.value);
            self.count(at)?;
            let name = attribute.key.0.to_owned();
            // A prefix may be declared; check_name refuses every name that uses one.
            let prefix = name.strip_prefix("xmlns:");
            if let Err(what) = check_name(prefix.unwrap_or(&name)) {
                return Err(self.error(at, what));
            }
            if !self.text[..at].ends_with(|c: char| c.is_ascii_whitespace()) {
                let what = "attributes are separated by white space: add a space before this one";
                return Err(self.error(at, Mistake::Syntax(what.to_owned())));
            }
            let place = self.cursor.place(at);
            if let Some(first) = names.insert(name.clone(), place) {
                return Err(XmlError { place, what: Mistake::Duplicate { name, first } });
            }
            let value_place = self.cursor.place(value_at);
            let value = self.value(value_at, &attribute.value)?;
            if prefix.is_none() {
                attributes.push(Attribute { name, value, place, value_place });
            }
        }
        Ok(Element {
            name,
            place,
            attributes,
            children: Vec::new(),
            text: String::new(),
            text_place: None,
        })
    }

    /// An attribute's value from what is between the quotes, the first of it at `start`.
    fn value(&mut self, start: usize, raw: &str) -> Result<String, XmlError> {
        let mut value = String::with_capacity(raw.len());
        let raw_lines = newlines(raw);
        let mut rest: &str = &raw_lines;
        while let Some(at) = rest.find(['&', '<', '\t', '\n']) {
            let (before, found) = rest.split_at(at);
            value.push_str(before);
            // Where carriage returns were dropped this is a few bytes early, never late.
            let here = start + raw_lines.len() - found.len();
            let (length, character) = match found.as_bytes().first() {
                Some(b'&') => {
                    let Some(end) = found.find(';') else {
                        return Err(self.error(here, no_entity("")));
                    };
                    let name = &found[1..end];
                    match resolve(name) {
                        Some(character) => (end + 1, character),
                        None => return Err(self.error(here, no_entity(name))),
                    }
                }
                Some(b'<') => {
                    let what = "'<' cannot be in a value: write '&lt;'";
                    return Err(self.error(here, Mistake::Syntax(what.to_owned())));
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
                Some(at) => Err(self.error(at, Mistake::Outside)),
                None => Ok(()),
            },
        }
    }

    /// Puts a complete element where it belongs.
    fn close(&mut self, start: usize, element: Element) -> Result<(), XmlError> {
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None if self.root.is_some() => return Err(self.error(start, Mistake::Outside)),
            None => self.root = Some(element),
        }
        Ok(())
    }
}

/// Positions are at most the length of a text in memory.
fn offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// Where a part of a tag starts in it. Parts are slices of the tag, which is one of the document.
fn within(tag: &str, part: &str) -> usize {
    part.as_ptr().addr().saturating_sub(tag.as_ptr().addr())
}
