//! The project's own files, for the tests of their text.

use std::fs;
use std::path::{Path, PathBuf};

use super::tree::files_below;

/// One file of the project.
pub struct Source {
    /// The path from the project's top, as a message shows it.
    pub path: String,
    pub text: String,
}

/// Reads the files at `places`, which are files or directories from the project's top, in the order
/// of their paths.
pub fn sources(places: &[&str]) -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let paths_of = |place: &&str| match top.join(place) {
        dir if dir.is_dir() => files_below(&dir),
        file => vec![file],
    };
    let mut paths: Vec<PathBuf> = places.iter().flat_map(paths_of).collect();
    paths.sort();
    let source = |path: PathBuf| Source {
        path: path.strip_prefix(top).unwrap().display().to_string(),
        text: fs::read_to_string(&path).unwrap(),
    };
    paths.into_iter().map(source).collect()
}

/// Replaces comments, strings and characters by spaces, so that each brace that is left opens or
/// closes a block. Keeps the lines.
pub fn without_literals(code: &str) -> String {
    let bytes = code.as_bytes();
    let mut kept = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end == at {
            at += 1;
            continue;
        }
        kept[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end;
    }
    String::from_utf8(kept).unwrap()
}

/// Returns the end of the comment or literal that begins at `at`, or `at` if none begins there.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let find = |from: usize, what: &[u8]| {
        let found = rest[from..].windows(what.len()).position(|window| window == what);
        found.map_or(bytes.len(), |found| at + from + found + what.len())
    };
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => find(2, b"\n") - 1,
        [b'/', b'*', ..] => find(2, b"*/"),
        [b'r', ..] if !after_word => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            match rest.get(1 + hashes) {
                Some(b'"') => find(2 + hashes, &[&b"\""[..], &vec![b'#'; hashes]].concat()),
                _ => at,
            }
        }
        [b'"', ..] => closing_quote(bytes, at, b'"'),
        [b'\'', b'\\', ..] => closing_quote(bytes, at, b'\''),
        // A lifetime has no quote behind its name. The character may have up to four bytes.
        [b'\'', first, ..] => {
            let length = match first {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            };
            if rest.get(1 + length) == Some(&b'\'') { at + length + 2 } else { at }
        }
        _ => at,
    }
}

/// Returns the end of a literal in which a backslash protects the next byte.
fn closing_quote(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}
