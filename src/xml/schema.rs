//! Validation of documents against libvirt's schemas, for tests.

use std::path::PathBuf;
use std::process::Command;

/// Returns the path of a schema, or `None` (with a note on stderr) if libvirt's package or xmllint
/// is not installed.
fn schema(name: &str) -> Option<PathBuf> {
    let dirs = std::env::var_os("NETLAUNCH_TEST_SCHEMAS").map(PathBuf::from);
    let dir = dirs.unwrap_or_else(|| "/usr/share/libvirt/schemas".into());
    let found = Some(dir.join(name)).filter(|path| path.exists());
    let xmllint = Command::new("xmllint").arg("--version").output().is_ok();
    if found.is_none() || !xmllint {
        eprintln!("skipped the schema: it needs libvirt's {name} and xmllint (./tests/setup)");
    }
    found.filter(|_| xmllint)
}

/// Asserts that the schema accepts every document; does nothing if the schema or xmllint is
/// missing.
pub(crate) fn accepted(name: &str, documents: &[String]) {
    let Some(schema) = schema(name) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut xmllint = Command::new("xmllint");
    xmllint.args(["--noout", "--nonet", "--relaxng"]).arg(schema);
    for (index, document) in documents.iter().enumerate() {
        let path = dir.path().join(format!("{index}.xml"));
        std::fs::write(&path, document).unwrap();
        xmllint.arg(path);
    }
    let output = xmllint.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}\n{}", documents.join("\n"));
    assert_eq!(stderr.matches(" validates").count(), documents.len(), "{stderr}");
}
