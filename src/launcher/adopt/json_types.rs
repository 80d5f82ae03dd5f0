//! Checks the types in a user-mode network that is written as JSON.
//!
//! In the comma form each value is a text. In JSON QEMU takes a value of the right type only: it
//! refuses `"ipv4": "off"` and takes `"ipv4": false`. A network that QEMU refuses must not move,
//! because netlaunch would write it in the comma form, in which QEMU takes it.

use serde_json::Value;

use super::super::qemu_options::json_value;
use super::netdev_options::LISTS;

/// The options that are booleans (NetdevUserOptions of QEMU's qapi/net.json).
const BOOLEANS: [&str; 3] = ["ipv4", "ipv6", "restrict"];
/// The options that are numbers.
const NUMBERS: [&str; 1] = ["ipv6-prefixlen"];

/// Returns the first member that has another type than QEMU expects, as JSON; `None` if there is
/// none, or if the text is no JSON object. All further options are strings.
pub(super) fn wrong_type(text: &[u8]) -> Option<String> {
    let Some(Value::Object(members)) = json_value(text) else { return None };
    let wrong = members.iter().find(|(name, value)| !has_type(name, value));
    wrong.map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())))
}

fn has_type(name: &str, value: &Value) -> bool {
    if LISTS.contains(&name) {
        let is_string = |value: &Value| match value {
            Value::Object(members) => {
                members.len() == 1 && members.get("str").is_some_and(Value::is_string)
            }
            _ => false,
        };
        return value.as_array().is_some_and(|list| list.iter().all(is_string));
    }
    if BOOLEANS.contains(&name) {
        value.is_boolean()
    } else if NUMBERS.contains(&name) {
        value.is_i64() || value.is_u64()
    } else {
        // The comma form has dots in the names of a list's elements, and JSON has none.
        value.is_string() && !name.contains('.')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_has_one_type() {
        for (text, expected) in [
            (r#"{"type":"user","id":"a"}"#, None),
            ("{'type':'user','id':'a','ipv4':true,'restrict':false}", None),
            (r#"{"hostfwd":[{"str":"::1-:1"}],"dnssearch":[],"ipv6-prefixlen":64}"#, None),
            (r#"{"id":"a","ipv4":"off"}"#, Some(r#""ipv4":"off""#)),
            (r#"{"ipv6":0}"#, Some(r#""ipv6":0"#)),
            (r#"{"restrict":null}"#, Some(r#""restrict":null"#)),
            (r#"{"hostname":true}"#, Some(r#""hostname":true"#)),
            (r#"{"net":10}"#, Some(r#""net":10"#)),
            (r#"{"ipv6-prefixlen":"64"}"#, Some(r#""ipv6-prefixlen":"64""#)),
            (r#"{"hostfwd":"::1-:1"}"#, Some(r#""hostfwd":"::1-:1""#)),
            (r#"{"hostfwd":["::1-:1"]}"#, Some(r#""hostfwd":["::1-:1"]"#)),
            (r#"{"hostfwd":[{"str":1}]}"#, Some(r#""hostfwd":[{"str":1}]"#)),
            (r#"{"hostfwd":[{"str":"a","x":"b"}]}"#, Some(r#""hostfwd":[{"str":"a","x":"b"}]"#)),
            (r#"{"hostfwd.0.str":"::1-:1"}"#, Some(r#""hostfwd.0.str":"::1-:1""#)),
            ("user,ipv4=off", None),
        ] {
            assert_eq!(wrong_type(text.as_bytes()).as_deref(), expected, "{text}");
        }
    }
}
