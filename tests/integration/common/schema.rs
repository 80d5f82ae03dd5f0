//! The schemas in conf/schema, for the tests whose programs print what they describe.

use serde_json::Value;

/// Returns the mistakes in `value` by one of the schemas.
pub fn faults(schema: &str, value: &Value) -> Vec<String> {
    let file = format!("{}/conf/schema/{schema}.schema.json", env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

/// Nothing is.
pub fn valid(schema: &str, value: &Value) {
    assert_eq!(faults(schema, value), [] as [String; 0], "{schema}: {value:#}");
}
