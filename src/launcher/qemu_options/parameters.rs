//! Parses the value of an option: `key=value,key=value`, or JSON.
//!
//! The grammar is that of QEMU's keyval and QemuOpts parsers. Keys and values are bytes, because a
//! path need not be UTF-8.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::json;

/// The parameters of one option or section, in order.
///
/// If a key comes several times, QEMU uses the last value; for `id` it uses the first one, and for
/// a list such as `hostfwd` all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    list: Vec<(Vec<u8>, Vec<u8>)>,
    is_json: bool,
}

impl Parameters {
    /// Parses the value of an option. `implied` is the key of the first parameter if that
    /// parameter has no key.
    ///
    /// A value that begins with `{` is JSON, and its nested keys become `a.b`. In the other form
    /// two commas stand for one comma of the value, and a parameter without `=` is a switch:
    /// `share` means `share=on`, and `noshare` means `share=off`.
    pub fn read(text: &[u8], implied: Option<&str>) -> Self {
        if text.first() == Some(&b'{')
            && let Some(parameters) = json::flatten(text)
        {
            return Parameters { list: parameters, is_json: true };
        }
        let mut implied = implied;
        let parameters = parts(text, implied.is_some()).into_iter().map(|(key, value)| {
            match (key, implied.take()) {
                (Some(key), _) => (key.to_vec(), value),
                (None, Some(key)) => (key.as_bytes().to_vec(), value),
                (None, None) => match value.strip_prefix(b"no") {
                    Some(name) => (name.to_vec(), b"off".to_vec()),
                    None => (value, b"on".to_vec()),
                },
            }
        });
        Parameters { list: parameters.collect(), is_json: false }
    }

    /// Returns whether they were written as JSON.
    pub fn is_json(&self) -> bool {
        self.is_json
    }

    /// Adds a parameter after the others.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        self.list.push((key.to_vec(), value.to_vec()));
    }

    /// Adds all parameters of `others` after these.
    pub fn extend(&mut self, others: &Parameters) {
        self.list.extend_from_slice(&others.list);
    }

    /// Returns the value that QEMU uses for `key`: the first `id`, the last of any other key.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        let mut all = self.all(key);
        if key == "id" { all.next() } else { all.last() }
    }

    /// Returns all values of `key`, in order.
    pub fn all(&self, key: &str) -> impl Iterator<Item = &[u8]> {
        let named = move |(name, _): &&(Vec<u8>, Vec<u8>)| name == key.as_bytes();
        self.list.iter().filter(named).map(|(_, value)| value.as_slice())
    }

    /// Returns whether QEMU uses this value for `key`.
    pub fn is(&self, key: &str, value: &str) -> bool {
        self.get(key) == Some(value.as_bytes())
    }

    /// Returns the keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.list.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}

/// Returns a path as the value of an option: each comma is doubled (QEMU's manual, option syntax).
pub fn path_value(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_bytes().iter();
    let doubled = bytes.flat_map(|b| std::iter::repeat_n(*b, if *b == b',' { 2 } else { 1 }));
    OsString::from_vec(doubled.collect())
}

/// A part of a value: its key, if it has one, and its text.
type Part<'a> = (Option<&'a [u8]>, Vec<u8>);

/// Divides a value at its single commas, as QEMU does: two commas stand for one in the text behind
/// a `=`, and in the first part if that part `may_omit_key`. In any other part without a key each
/// comma ends the part.
pub(super) fn parts(text: &[u8], may_omit_key: bool) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.iter().position(|b| matches!(b, b'=' | b',')).unwrap_or(rest.len());
        let part = if rest.get(end) == Some(&b'=') {
            let key = &rest[..end];
            rest = &rest[end + 1..];
            (Some(key), take_value(&mut rest))
        } else if may_omit_key && parts.is_empty() {
            (None, take_value(&mut rest))
        } else {
            let name = &rest[..end];
            rest = &rest[end..];
            (None, name.to_vec())
        };
        parts.push(part);
        rest = rest.strip_prefix(b",").unwrap_or(rest);
    }
    parts
}

/// Removes a value from the front of `rest`: the text up to a single comma, which stays.
fn take_value(rest: &mut &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail.first()) {
            (b',', Some(b',')) => *rest = &tail[1..],
            (b',', _) => break,
            _ => *rest = tail,
        }
        value.push(*first);
    }
    value
}

/// Parses a boolean as qapi_bool_parse() of QEMU does; `None` for a word that QEMU refuses.
pub fn boolean(word: &[u8]) -> Option<bool> {
    match word {
        b"on" | b"yes" | b"true" | b"y" => Some(true),
        b"off" | b"no" | b"false" | b"n" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, implied: Option<&str>) -> String {
        let parameters = Parameters::read(text.as_bytes(), implied);
        let one = |(key, value): (&[u8], &[u8])| {
            format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value))
        };
        parameters.iter().map(one).collect::<Vec<_>>().join(";")
    }

    #[test]
    fn a_value_is_read_in_each_of_its_forms() {
        for (text, implied, expected) in [
            ("user,id=a", Some("type"), "type=user;id=a"),
            ("id=a,type=user", Some("type"), "id=a;type=user"),
            ("user,,b,id=a,,b", Some("type"), "type=user,b;id=a,b"),
            ("id=a,,", None, "id=a,"),
            ("id=a,,,b", None, "id=a,;b=on"),
            ("a=,b=x=y", None, "a=;b=x=y"),
            ("a,noshare,share", None, "a=on;share=off;share=on"),
            ("user,", Some("type"), "type=user"),
            (",type=user", Some("type"), "type=;type=user"),
            ("", Some("type"), ""),
            (",,", None, "=on;=on"),
            (r#"{"type":"user","id":"a"}"#, Some("type"), "id=a;type=user"),
            ("{'a':{'b':true},'n':1024,'l':['x',null]}", None, "a.b=on;l.0=x;n=1024"),
            ("{broken", Some("type"), "type={broken"),
        ] {
            assert_eq!(read(text, implied), expected, "{text}");
        }
    }

    #[test]
    fn the_last_value_of_a_key_counts_but_the_first_id() {
        let parameters = Parameters::read(b"id=a,id=b,x=1,x=2", None);
        assert_eq!((parameters.get("id"), parameters.get("x")), (Some(&b"a"[..]), Some(&b"2"[..])));
        assert_eq!(parameters.all("x").count(), 2);
    }

    #[test]
    fn a_boolean_is_one_of_eight_words() {
        let words = ["on", "yes", "true", "y", "off", "no", "false", "n"];
        let read: Vec<_> = words.iter().filter_map(|word| boolean(word.as_bytes())).collect();
        assert_eq!(read, [true, true, true, true, false, false, false, false]);
        assert!(["", "1", "0", "ON"].iter().all(|word| boolean(word.as_bytes()).is_none()));
    }
}
