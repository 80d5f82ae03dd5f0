//! Words as a POSIX shell writes them.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use super::printable::steers;

/// Words as one line that a shell splits into the same words.
pub fn shell_line<S: AsRef<OsStr>>(words: &[S]) -> String {
    words.iter().map(|word| quote(word.as_ref())).collect::<Vec<_>>().join(" ")
}

/// A word as a shell reads it. A word with a control character, or one that is not UTF-8, is
/// written as `$'...'` (POSIX.1-2024, 2.2.4) with octal escapes, so that a terminal that shows the
/// line does not act on it.
pub fn quote(word: &OsStr) -> String {
    match word.to_str() {
        Some(text) if !text.contains(steers) => ::shell_words::quote(text).into_owned(),
        _ => escaped(word.as_bytes()),
    }
}

/// Splits a text into words as a POSIX shell does, without any expansion. Returns `None` if a quote
/// has no end.
pub fn split_words(text: &str) -> Option<Vec<String>> {
    ::shell_words::split(text).ok()
}

fn escaped(word: &[u8]) -> String {
    let mut quoted = String::from("$'");
    for chunk in word.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '\\' => quoted.extend(['\\', c]),
                c if steers(c) => octal(&mut quoted, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => quoted.push(c),
            }
        }
        octal(&mut quoted, chunk.invalid());
    }
    quoted.push('\'');
    quoted
}

fn octal(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "\\{byte:03o}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn a_shell_reads_the_words_back_and_a_terminal_is_not_steered() {
        let words: Vec<OsString> = [
            &b"plain"[..],
            b"it's $HOME \\",
            b"\x1b]0;title\x07",
            b"two\nlines'\\t",
            b"not \xff UTF-8 \xe2\x82",
            "\u{9b}2J 1 \u{202e}\u{7f}\u{1}7".as_bytes(),
            "é".as_bytes(),
            b"",
        ]
        .map(|word| OsString::from_vec(word.to_vec()))
        .to_vec();
        let line = shell_line(&words);
        assert!(!line.contains(steers), "{line:?}");
        assert!(line.contains("$'\\033]0;title\\007'"), "{line}");
        let script = format!("printf '%s\\0' {line}");
        let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
        let read: Vec<&[u8]> = output.stdout.split_inclusive(|byte| *byte == 0).collect();
        let expected: Vec<Vec<u8>> =
            words.iter().map(|word| [word.as_bytes(), b"\0"].concat()).collect();
        assert_eq!(read, expected);
    }
}
