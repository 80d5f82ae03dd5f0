//! Characters, names, references and line ends, and what to say of markup that is none.

use quick_xml::errors::Error as ReaderError;
use quick_xml::events::attributes::AttrError;

use super::error::Mistake;

/// How long a name can be, in characters; the formats' own are shorter than 30.
const MAX_NAME: usize = 64;

/// A character of XML 1.0 (production \[2\]).
pub(super) fn is_char(character: char) -> bool {
    !matches!(character, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}')
}

/// The names that libvirt's formats can have: ASCII ones.
pub(super) fn check_name(name: &str) -> Result<(), Mistake> {
    if name.contains(':') || name == "xmlns" {
        return Err(Mistake::Namespace(short(name)));
    }
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if starts && rest && name.len() <= MAX_NAME { Ok(()) } else { Err(Mistake::Name(short(name))) }
}

/// What is between `&` and `;` as a character.
pub(super) fn resolve(name: &str) -> Option<char> {
    let number = match name {
        "amp" => return Some('&'),
        "lt" => return Some('<'),
        "gt" => return Some('>'),
        "quot" => return Some('"'),
        "apos" => return Some('\''),
        _ => name.strip_prefix('#')?,
    };
    let (digits, radix) = match number.strip_prefix('x') {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    char::from_u32(u32::from_str_radix(digits, radix).ok()?).filter(|c| is_char(*c))
}

/// The error of a reference that stands for nothing, or of a `&` that begins none.
pub(super) fn no_entity(name: &str) -> Mistake {
    match name.strip_prefix('#').unwrap_or(name) {
        inner
            if check_name(inner).is_ok()
                || inner.bytes().all(|b| b.is_ascii_digit()) && !inner.is_empty() =>
        {
            Mistake::Entity(name.to_owned())
        }
        _ => Mistake::Syntax(
            "'&' starts a reference: write '&amp;' for the character itself".to_owned(),
        ),
    }
}

/// A part of the document as an error can show it: one line, not long.
pub(super) fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_NAME).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_NAME).is_some() {
        shown.push('…');
    }
    shown
}

/// Line ends as XML passes them on (2.11): one newline each.
pub(super) fn newlines(text: &str) -> std::borrow::Cow<'_, str> {
    match text.contains('\r') {
        true => text.replace("\r\n", "\n").replace('\r', "\n").into(),
        false => text.into(),
    }
}

pub(super) fn describe(error: &ReaderError) -> String {
    use quick_xml::errors::IllFormedError::{
        DoubleHyphenInComment, MismatchedEndTag, MissingDeclVersion, UnclosedReference,
        UnmatchedEndTag,
    };
    match error {
        ReaderError::IllFormed(MismatchedEndTag { expected, found }) => {
            format!("</{}> closes nothing: </{}> comes first", short(found), short(expected))
        }
        ReaderError::IllFormed(UnmatchedEndTag(name)) => {
            format!("</{}> closes nothing: remove it", short(name))
        }
        ReaderError::IllFormed(UnclosedReference) => no_entity("").to_string(),
        ReaderError::IllFormed(DoubleHyphenInComment) => {
            "'--' cannot be in a comment: remove it".to_owned()
        }
        // quick-xml quotes the document here, however long.
        ReaderError::IllFormed(MissingDeclVersion(_)) => {
            "<?xml?> needs a version first: write version='1.0'".to_owned()
        }
        ReaderError::InvalidAttr(error) => attribute_error(error).1.to_owned(),
        other => other.to_string().replace('\n', " "),
    }
}

/// Where in the tag, and what.
pub(super) fn attribute_error(error: &AttrError) -> (usize, &'static str) {
    match *error {
        AttrError::ExpectedEq(at) => (at, "an attribute needs a value: write NAME='VALUE'"),
        AttrError::ExpectedValue(at) => (at, "a value is missing: write NAME='VALUE'"),
        AttrError::UnquotedValue(at) => (at, "a value needs quotes: write NAME='VALUE'"),
        AttrError::ExpectedQuote(at, _) => (at, "a quote is missing: write NAME='VALUE'"),
        AttrError::Duplicated(at, _) => (at, "an attribute is there twice: remove one of them"),
    }
}
