//! Reads the members of a JSON object. An error names the path, the wrong value and the accepted
//! values.
//!
//! serde's own errors name types of Rust, which a C program does not have, and serde accepts an
//! array in place of an object. So the text becomes JSON values first, and [`Members`] takes them
//! out by name. A name that is left at the end is an error, and so is one that occurs twice.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::error::CallError;
use crate::types::os_text;

/// The name of the outermost object in errors.
const WHOLE: &str = "the request";

/// The members of an object that were not taken yet.
#[derive(Debug)]
pub(super) struct Members {
    /// The path of the object; empty for the outermost one.
    path: String,
    rest: Map<String, Value>,
    taken: Vec<&'static str>,
}

impl Members {
    /// Reads a text whose JSON is an object.
    pub(super) fn of_text(text: &str) -> Result<Self, CallError> {
        let unread = |error| CallError::request(format!("{WHOLE} is not JSON: {error}"));
        let Unique(value) = serde_json::from_str(text).map_err(unread)?;
        Members::of(value, "")
    }

    fn of(value: Value, path: &str) -> Result<Self, CallError> {
        match value {
            Value::Object(rest) => Ok(Members { path: path.to_owned(), rest, taken: Vec::new() }),
            other => Err(wrong(if path.is_empty() { WHOLE } else { path }, &other, "an object")),
        }
    }

    /// Takes a member; `None` if it is absent or null.
    pub(super) fn take<T: Member>(&mut self, name: &'static str) -> Result<Option<T>, CallError> {
        self.taken.push(name);
        match self.rest.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::read(value, &self.at(name)).map(Some),
        }
    }

    /// Takes a member that must be there.
    pub(super) fn require<T: Member>(&mut self, name: &'static str) -> Result<T, CallError> {
        let path = self.at(name);
        let absent = || CallError::request(format!("{path} is missing: write {}", T::ACCEPTED));
        self.take(name)?.ok_or_else(absent)
    }

    /// Refuses a member that was not taken.
    pub(super) fn end(self) -> Result<(), CallError> {
        let Some(name) = self.rest.keys().next() else { return Ok(()) };
        let (path, names) = (self.at(name), self.taken.join(", "));
        Err(CallError::request(format!("{path} is no member of a request: use one of {names}")))
    }

    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// A type that a member can have.
pub(super) trait Member: Sized {
    /// The accepted values, as a noun.
    const ACCEPTED: &'static str;

    /// Reads the value at `path`.
    fn read(value: Value, path: &str) -> Result<Self, CallError>;
}

/// Returns the error of a value of another type.
pub(super) fn wrong(path: &str, value: &Value, accepted: &str) -> CallError {
    let found = match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string(),
    };
    CallError::request(format!("{path} is {found}: write {accepted}"))
}

/// Reads a value by its serde form, which is no array and no object. serde would take an object
/// such as `{"fd": null}` for the name of a variant.
pub(super) fn by_serde<T: DeserializeOwned>(
    value: Value,
    path: &str,
    accepted: &str,
) -> Result<T, CallError> {
    let scalar = Some(&value).filter(|value| !value.is_array() && !value.is_object());
    let read = scalar.and_then(|value| T::deserialize(value).ok());
    read.ok_or_else(|| wrong(path, &value, accepted))
}

/// Implements [`Member`] for types whose serde form is one JSON value.
macro_rules! members_by_serde {
    ($($type:ty: $accepted:literal;)+) => {
        $(impl Member for $type {
            const ACCEPTED: &'static str = $accepted;

            fn read(value: Value, path: &str) -> Result<Self, CallError> {
                by_serde(value, path, Self::ACCEPTED)
            }
        })+
    };
}
pub(super) use members_by_serde;

members_by_serde! {
    String: "a string";
    bool: "true or false";
    u16: "a whole number from 0 to 65535";
    u32: "a whole number from 0 to 4294967295";
    Ipv4Addr: "a string with an IPv4 address, such as \"10.0.2.1\"";
    IpAddr: "a string with an IP address, such as \"10.0.2.1\"";
}

/// A path or an argument; any bytes, see [`os_text`].
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct OsText(#[serde(with = "os_text::path")] pub(super) PathBuf);

impl Member for OsText {
    const ACCEPTED: &'static str = "a string, or {\"not-utf-8\": [BYTE, ...]}";

    fn read(value: Value, path: &str) -> Result<Self, CallError> {
        OsText::deserialize(&value).map_err(|_| wrong(path, &value, Self::ACCEPTED))
    }
}

impl<T: Member> Member for Vec<T> {
    const ACCEPTED: &'static str = "an array";

    fn read(value: Value, path: &str) -> Result<Self, CallError> {
        let Value::Array(items) = value else { return Err(wrong(path, &value, Self::ACCEPTED)) };
        let items = items.into_iter().enumerate();
        items.map(|(number, item)| T::read(item, &format!("{path}[{number}]"))).collect()
    }
}

impl<T: Member> Member for BTreeMap<String, T> {
    const ACCEPTED: &'static str = "an object";

    fn read(value: Value, path: &str) -> Result<Self, CallError> {
        let members = Members::of(value, path)?;
        let read = |(name, value)| {
            let path = format!("{path}.{name}");
            T::read(value, &path).map(|value| (name, value))
        };
        members.rest.into_iter().map(read).collect()
    }
}

impl Member for Members {
    const ACCEPTED: &'static str = "an object";

    fn read(value: Value, path: &str) -> Result<Self, CallError> {
        Members::of(value, path)
    }
}

/// JSON in which no object has a member twice: serde_json would silently keep the last one.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Unique)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((name, Unique(value))) = members.next_entry::<String, _>()? {
            if all.contains_key(&name) {
                return Err(A::Error::custom(format!(
                    "{name:?} occurs twice, and once is allowed"
                )));
            }
            all.insert(name, value);
        }
        Ok(all.into())
    }
}
