//! The schemas in conf/schema, for the tests whose programs print what they describe.
//!
//! A schema of an answer accepts members that it does not know, because a later release may add
//! some. The tests are stricter: with them an answer has exactly the described members. The schema
//! of a request refuses such members, as netlaunch does.

use serde_json::Value;

/// Returns the schema of this name.
fn read(schema: &str) -> Value {
    let file = format!("{}/conf/schema/{schema}.schema.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// Makes the schema refuse each member that it does not describe.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("properties").is_some_and(Value::is_object) {
                members.entry("additionalProperties").or_insert(false.into());
            }
            members.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn mistakes(schema: &Value, value: &Value) -> Vec<String> {
    jsonschema::meta::validate(schema).unwrap();
    let validator = jsonschema::draft202012::new(schema).unwrap();
    validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

/// Returns the mistakes in `value` by one of the schemas. A member that the schema does not
/// describe is a mistake.
pub(crate) fn faults(schema: &str, value: &Value) -> Vec<String> {
    let mut schema = read(schema);
    close(&mut schema);
    mistakes(&schema, value)
}

/// Checks that `value` has exactly the members of one of the schemas, and that the schema of an
/// answer accepts the same value with a member of a later release.
pub(crate) fn valid(schema: &str, value: &Value) {
    assert_eq!(faults(schema, value), [] as [String; 0], "{schema}: {value:#}");
    let mut later = value.clone();
    later["a_member_of_a_later_release"] = Value::Null;
    let accepts = mistakes(&read(schema), &later).is_empty();
    assert_eq!(accepts, schema != "capi-request", "{schema}: {later:#}");
}
