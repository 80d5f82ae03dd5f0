//! Writes paths and arguments, which are bytes, as JSON, which has text only.
//!
//! A path in UTF-8 is a JSON string. In the files that netlaunch reads back, any other path is an
//! object `{"not-utf-8": [BYTE, ...]}`, so that no byte is lost. For printed JSON, [`shown`]
//! replaces such an object by a string with U+FFFD in place of the invalid bytes, so that a member
//! always has the same type. It puts the exact bytes into the member `bytes` of the whole object,
//! under the JSON Pointer of the string (RFC 6901).
//!
//! The modules are for serde's `with`: without them, serde refuses a path that is not UTF-8.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

/// The only member of an object in place of a path that is not UTF-8.
const MARK: &str = "not-utf-8";
/// The member with the exact bytes of a printed object.
const BYTES: &str = "bytes";

/// Returns a path or an argument as JSON.
pub fn value(text: &OsStr) -> Value {
    match text.to_str() {
        Some(text) => text.into(),
        None => json!({ MARK: text.as_bytes() }),
    }
}

fn read(value: &Value) -> Option<OsString> {
    if let Value::String(text) = value {
        return Some(text.into());
    }
    marked(value).map(OsString::from_vec)
}

/// Returns the bytes of an object in place of a path; `None` for another value.
fn marked(value: &Value) -> Option<Vec<u8>> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    let bytes = object.get(MARK)?.as_array()?.iter();
    bytes.map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect()
}

/// Returns the printed form of an object: each path is a string, and the member `bytes` has the
/// exact bytes of the paths that are not UTF-8.
pub fn shown(mut value: Value) -> Value {
    let mut bytes = Map::new();
    show(&mut value, &mut String::new(), &mut bytes);
    if let (Value::Object(object), false) = (&mut value, bytes.is_empty()) {
        object.insert(BYTES.to_owned(), bytes.into());
    }
    value
}

fn show(value: &mut Value, at: &mut String, bytes: &mut Map<String, Value>) {
    if let Some(exact) = marked(value) {
        *value = String::from_utf8_lossy(&exact).into();
        bytes.insert(at.clone(), exact.into());
        return;
    }
    let length = at.len();
    let mut below = |name: &str, value: &mut Value| {
        at.push('/');
        at.push_str(&name.replace('~', "~0").replace('/', "~1"));
        show(value, at, bytes);
        at.truncate(length);
    };
    match value {
        Value::Array(items) => {
            items.iter_mut().enumerate().for_each(|(n, item)| below(&n.to_string(), item));
        }
        Value::Object(members) => members.iter_mut().for_each(|(name, item)| below(name, item)),
        _ => {}
    }
}

fn decode<'de, D: Deserializer<'de>>(value: &Value) -> Result<OsString, D::Error> {
    read(value).ok_or_else(|| D::Error::custom("not a path"))
}

/// Serializes a path.
pub mod path {
    use super::*;
    use std::path::{Path, PathBuf};

    /// Writes the value.
    ///
    /// # Errors
    /// The serializer's error.
    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        value(path.as_os_str()).serialize(serializer)
    }

    /// Reads the value.
    ///
    /// # Errors
    /// The deserializer's error, or an error for a value that is not a path.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        decode::<D>(&Value::deserialize(from)?).map(PathBuf::from)
    }
}

/// Serializes an optional path.
pub mod optional_path {
    use super::*;
    use std::path::PathBuf;

    /// Writes the value.
    ///
    /// # Errors
    /// The serializer's error.
    pub fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        path.as_ref().map(|path| value(path.as_os_str())).serialize(serializer)
    }

    /// Reads the value.
    ///
    /// # Errors
    /// The deserializer's error, or an error for a value that is not a path.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        let value = Option::<Value>::deserialize(from)?;
        value.map(|value| decode::<D>(&value).map(PathBuf::from)).transpose()
    }
}

/// Serializes a list of paths.
pub mod paths {
    use super::*;
    use std::path::PathBuf;

    /// Writes the value.
    ///
    /// # Errors
    /// The serializer's error.
    pub fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| value(path.as_os_str())))
    }

    /// Reads the value.
    ///
    /// # Errors
    /// The deserializer's error, or an error for a value that is not a path.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
        let values = Vec::<Value>::deserialize(from)?;
        values.iter().map(|value| decode::<D>(value).map(PathBuf::from)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Paths {
        #[serde(with = "path")]
        one: PathBuf,
        #[serde(default, with = "optional_path")]
        maybe: Option<PathBuf>,
        #[serde(with = "paths")]
        all: Vec<PathBuf>,
    }

    fn os(bytes: &[u8]) -> PathBuf {
        OsString::from_vec(bytes.to_vec()).into()
    }

    #[test]
    fn every_path_comes_back_from_json_as_it_was() {
        for maybe in [None, Some(os(b"/\xff")), Some(os("/é".as_bytes()))] {
            let all = vec![os(b"/a"), os(b"\xe2\x82/b"), os(b"")];
            let paths = Paths { one: os(b"/b\xffd"), maybe, all };
            let text = serde_json::to_string(&paths).unwrap();
            assert_eq!(serde_json::from_str::<Paths>(&text).unwrap(), paths, "{text}");
        }
        let without: Paths = serde_json::from_str(r#"{"one":"/a","all":[]}"#).unwrap();
        assert_eq!(without.maybe, None);
        for bad in [r#"{"one":{"not-utf-8":[256]},"all":[]}"#, r#"{"one":1,"all":[]}"#] {
            assert!(serde_json::from_str::<Paths>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_printed_path_is_a_string_and_its_bytes_are_beside_it() {
        let odd = value(OsStr::from_bytes(b"/b\xffd"));
        let is = shown(json!({ "a": "plain", "x/~y": [odd, { "z": odd }] }));
        let exact: Vec<u8> = b"/b\xffd".to_vec();
        let expected = json!({
            "a": "plain",
            "x/~y": ["/b\u{fffd}d", { "z": "/b\u{fffd}d" }],
            "bytes": { "/x~1~0y/0": exact, "/x~1~0y/1/z": exact },
        });
        assert_eq!(is, expected);
        for (pointer, bytes) in is["bytes"].as_object().unwrap() {
            let lossy = String::from_utf8_lossy(&exact).into_owned();
            assert_eq!((is.pointer(pointer), bytes), (Some(&lossy.into()), &json!(exact)));
        }
        assert_eq!(shown(json!({ "a": "plain" })), json!({ "a": "plain" }));
    }
}
