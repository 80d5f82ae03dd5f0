//! Makes foreign text safe for a terminal and a log: without control characters, and of bounded
//! length.
//!
//! A name in a file, an argument, or another program's message may contain an escape sequence that
//! controls the terminal, or may be a megabyte long. [`printable`] and [`json`] escape such
//! characters in the two forms of netlaunch's output, and [`shortened`] limits the length of a
//! message.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::Value;

/// The maximum number of characters of a quoted value in a message.
const LONGEST_QUOTED: usize = 256;
/// The maximum number of characters of another word.
const LONGEST_WORD: usize = 1024;
/// The number of characters that are kept of a longer one.
const KEPT: usize = 64;
/// The maximum number of characters of a message.
const LONGEST: usize = 16_384;

/// Returns whether a terminal may act on a character instead of showing it: a control character
/// (also of ISO 6429's second set), or one that changes the direction or the line of the next ones.
pub(crate) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Returns a text with each such character escaped (`\n`, `\u{1b}`), so that it is one line.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    Cow::Owned(clean)
}

/// Does the same as [`printable`] for a text of several lines, and keeps the line ends.
pub(crate) fn lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Returns JSON with each such character in its strings escaped (`\u009b`). serde_json escapes only
/// the characters that JSON forbids.
pub(crate) fn json(value: &Value, pretty: bool) -> String {
    let text = if pretty { format!("{value:#}") } else { value.to_string() };
    if !text.contains(|c| steers(c) && c != '\n') {
        return text;
    }
    let mut clean = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        // Line feeds separate members. Outside of strings, JSON has no other such character.
        if steers(c) && c != '\n' {
            // Writing to a String cannot fail, and no such character is above U+FFFF.
            let _ = write!(clean, "\\u{:04x}", u32::from(c));
        } else {
            clean.push(c);
        }
    }
    clean
}

/// Returns a message in which each overlong value is cut to its beginning, `…`, and its length.
pub(crate) fn shortened(message: &str) -> Cow<'_, str> {
    if message.len() <= LONGEST_QUOTED {
        return Cow::Borrowed(message);
    }
    let mut short = String::new();
    let mut rest = message;
    while let Some(first) = rest.chars().next() {
        let (piece, most) = match first {
            '"' => (quoted(rest), LONGEST_QUOTED),
            c if c.is_whitespace() => (&rest[..c.len_utf8()], LONGEST_WORD),
            _ => {
                let end = |c: char| c.is_whitespace() || c == '"';
                (&rest[..rest.find(end).unwrap_or(rest.len())], LONGEST_WORD)
            }
        };
        short.push_str(&cut(piece, most));
        rest = &rest[piece.len()..];
    }
    Cow::Owned(cut(&short, LONGEST).into_owned())
}

/// Returns the quoted value at the start of a text, or the first character if the quote has no end.
fn quoted(text: &str) -> &str {
    let mut escaped = true;
    let end = text.char_indices().find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(&text[..1], |(at, _)| &text[..=at])
}

fn cut(text: &str, most: usize) -> Cow<'_, str> {
    let length = text.chars().count();
    if length <= most {
        return Cow::Borrowed(text);
    }
    // Of a whole message, more characters are kept than of a value.
    let kept = if most == LONGEST { LONGEST / 2 } else { KEPT };
    let end = text.char_indices().nth(kept).map_or(text.len(), |(at, _)| at);
    let quote = if text.starts_with('"') && most == LONGEST_QUOTED { "\"" } else { "" };
    Cow::Owned(format!("{}…{quote} ({length} characters)", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_steers_the_terminal() {
        assert_eq!(printable("plain é"), "plain é");
        assert_eq!(printable("a\nb\x1b[0m"), "a\\nb\\u{1b}[0m");
        assert_eq!(printable("\u{9b}2J\u{202e}x"), "\\u{9b}2J\\u{202e}x");
        assert_eq!(lines("a\nb\x07\n"), "a\nb\\u{7}\n");
        let value = serde_json::json!({ "a": "\x1b\u{9b}\u{7f}\u{2028}é\n" });
        for pretty in [false, true] {
            let text = json(&value, pretty);
            assert!(!text.contains(|c| steers(c) && c != '\n'), "{text}");
            assert!(text.contains(r#""\u001b\u009b\u007f\u2028é\n""#), "{text}");
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
    }

    #[test]
    fn a_message_does_not_echo_a_long_value_whole() {
        for text in ["", "\"", "short \"value\"", &format!("{} x", "a".repeat(LONGEST_WORD))] {
            assert_eq!(shortened(text), text);
        }
        let long = "é\"".repeat(1 << 20);
        let message = format!("mtu: {long:?} is not an MTU: use 68 to 65520 bytes");
        let short = shortened(&message);
        assert!(short.starts_with("mtu: \"é\\\"é"), "{short}");
        let end = "…\" (3145730 characters) is not an MTU: use 68 to 65520 bytes";
        assert!(short.ends_with(end) && short.chars().count() < 200, "{short}");
        let message = format!("unknown key `{}`; the keys are a, b", "x".repeat(1 << 20));
        let short = shortened(&message);
        assert!(short.ends_with("… (1048579 characters) the keys are a, b"), "{short}");
        let many = shortened(&"x ".repeat(1 << 20)).chars().count();
        assert!(many < LONGEST, "{many}");
        // A quote without an end is a word.
        let open = format!("5\" {}", "word ".repeat(100));
        assert_eq!(shortened(&open), open);
    }
}
