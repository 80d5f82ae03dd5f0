//! The lexical rules of XML (characters, names, references, line ends) and the errors of text that
//! breaks them.

use quick_xml::errors::Error as ReaderError;
use quick_xml::events::attributes::AttrError;

use super::error::XmlErrorKind;

/// The longest name, in characters; the names of libvirt's formats are shorter than 30.
const MAX_NAME: usize = 64;

/// Returns whether XML 1.0 allows the character (production \[2\]).
pub(super) fn is_char(character: char) -> bool {
    !matches!(character, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}')
}

/// Returns whether the ASCII characters have their ASCII bytes in an encoding.
pub(super) fn extends_ascii(encoding: &str) -> bool {
    const NAMES: [&str; 6] =
        ["us-ascii", "ascii", "iso-8859-1", "iso-8859-15", "latin1", "windows-1252"];
    NAMES.iter().any(|name| name.eq_ignore_ascii_case(encoding))
}

/// Checks the name of an element or attribute.
///
/// The names of libvirt's formats are ASCII, so only ASCII names are accepted.
///
/// # Errors
/// [`XmlErrorKind::Namespace`] for a name with a prefix and for `xmlns`; [`XmlErrorKind::Name`] for
/// any other name that is not accepted.
pub(super) fn check_name(name: &str) -> Result<(), XmlErrorKind> {
    if name.contains(':') || name == "xmlns" {
        return Err(XmlErrorKind::Namespace(short(name)));
    }
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if starts && rest && name.len() <= MAX_NAME {
        Ok(())
    } else {
        Err(XmlErrorKind::Name(short(name)))
    }
}

/// Returns the character that the reference `&name;` means, or `None` if it means no character.
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

/// Returns the error of a reference without a meaning, or of a `&` that does not start a reference.
pub(super) fn no_entity(name: &str) -> XmlErrorKind {
    match name.strip_prefix('#').unwrap_or(name) {
        inner
            if check_name(inner).is_ok()
                || inner.bytes().all(|b| b.is_ascii_digit()) && !inner.is_empty() =>
        {
            XmlErrorKind::Entity(name.to_owned())
        }
        _ => XmlErrorKind::Syntax(
            "'&' starts a reference: write '&amp;' for the character itself".to_owned(),
        ),
    }
}

/// Returns a part of the document as an error shows it: on one line, and cut after [`MAX_NAME`]
/// characters.
pub(super) fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_NAME).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_NAME).is_some() {
        shown.push('…');
    }
    shown
}

/// Replaces each line end with one newline, as XML requires (XML 1.0, 2.11).
pub(super) fn newlines(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\r') {
        text.replace("\r\n", "\n").replace('\r', "\n").into()
    } else {
        text.into()
    }
}

/// Describes an error of quick-xml in one line, with its fix where netlaunch knows one.
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
        // quick-xml's own text quotes the document here, without a limit on its length.
        ReaderError::IllFormed(MissingDeclVersion(_)) => {
            "<?xml?> needs a version first: write version='1.0'".to_owned()
        }
        ReaderError::InvalidAttr(error) => attribute_error(error).1.to_owned(),
        other => other.to_string().replace('\n', " "),
    }
}

/// Returns the offset of the error within the tag, in bytes, and its description.
pub(super) fn attribute_error(error: &AttrError) -> (usize, &'static str) {
    match *error {
        AttrError::ExpectedEq(at) => (at, "an attribute needs a value: write NAME='VALUE'"),
        AttrError::ExpectedValue(at) => (at, "a value is missing: write NAME='VALUE'"),
        AttrError::UnquotedValue(at) => (at, "a value needs quotes: write NAME='VALUE'"),
        AttrError::ExpectedQuote(at, _) => (at, "a quote is missing: write NAME='VALUE'"),
        AttrError::Duplicated(at, _) => (at, "an attribute is there twice: remove one of them"),
    }
}
