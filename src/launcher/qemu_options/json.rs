//! Parses the JSON form of an option's value, such as `-object '{"qom-type":
//! "memory-backend-memfd"}'`.
//!
//! The result has the same pairs as QEMU's other form, `key=value,key=value`, so the rest of the
//! program sees no difference. QEMU also takes strings in single quotes, which JSON does not have.

use serde_json::Value;

/// Returns the pairs of a JSON object; `None` if the text is not JSON.
///
/// As in QEMU's other form, a nested key is `a.b`, the key of a list's element is its index, and a
/// boolean is `on` or `off`.
pub(super) fn flatten(text: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let value = json_value(text)?;
    let mut pairs = Vec::new();
    walk(String::new(), &value, &mut pairs);
    Some(pairs)
}

/// Parses a value in the JSON form; `None` if the text is not JSON.
pub(in crate::launcher) fn json_value(text: &[u8]) -> Option<Value> {
    let parsed = serde_json::from_slice(text);
    parsed.or_else(|_| serde_json::from_slice(&double_quoted(text))).ok()
}

/// Adds the pairs of `value`, whose key is `path`.
///
/// The recursion is limited, because serde_json limits the depth of the value.
fn walk(path: String, value: &Value, pairs: &mut Vec<(Vec<u8>, Vec<u8>)>) {
    let below = |name: &str| match path.as_str() {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    let text = match value {
        Value::Object(map) => {
            return map.iter().for_each(|(name, value)| walk(below(name), value, pairs));
        }
        Value::Array(list) => {
            let numbered = list.iter().enumerate();
            return numbered.for_each(|(n, value)| walk(below(&n.to_string()), value, pairs));
        }
        Value::Null => return,
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
    };
    pairs.push((path.into_bytes(), text.into_bytes()));
}

/// Returns the text with double quotes around each string.
///
/// QEMU takes strings in single quotes as well (qobject/json-lexer.c).
fn double_quoted(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut quote = None;
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (None, b'\'' | b'"') => {
                quote = Some(byte);
                out.push(b'"');
            }
            (Some(open), close) if open == close => {
                quote = None;
                out.push(b'"');
            }
            (Some(_), b'"') => out.extend_from_slice(b"\\\""),
            (Some(_), b'\\') => match bytes.next() {
                // JSON has no escape sequence for a single quote.
                Some(b'\'') => out.push(b'\''),
                Some(escaped) => out.extend_from_slice(&[b'\\', escaped]),
                None => out.push(b'\\'),
            },
            _ => out.push(byte),
        }
    }
    out
}
