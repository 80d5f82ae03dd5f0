//! Validation of documents against libvirt's schemas, for tests.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The parts of network.rng that newer releases of libvirt have, and one that its parser knows and
/// its schema does not (`<port>` in `<portgroup>`): the text of the release of Debian 12, and the
/// text to put before it.
const NEWER: [(&str, &str); 4] = [
    (
        "<!-- <metadata> element -->",
        "<optional><element name=\"title\"><text/></element></optional>\
         <optional><element name=\"description\"><text/></element></optional>",
    ),
    (
        "<attribute name=\"localOnly\">",
        "<attribute name=\"register\"><ref name=\"virYesNo\"/></attribute></optional><optional>",
    ),
    (
        "<attribute name=\"domain\"><ref name=\"dnsName\"/></attribute>\n                  \
         </optional>\n                  <empty/>",
        "<attribute name=\"port\"><ref name=\"port\"/></attribute></optional><optional>",
    ),
    (
        "<optional>\n                <ref name=\"vlan\"/>",
        "<optional><ref name=\"portOptions\"/></optional>",
    ),
];

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
    let schema = with_newer_parts(&schema, dir.path());
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

/// Copies a schema and those beside it to `dir`, with the parts of newer releases.
fn with_newer_parts(schema: &Path, dir: &Path) -> PathBuf {
    for file in std::fs::read_dir(schema.parent().unwrap()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), dir.join(file.file_name())).unwrap();
    }
    let copy = dir.join(schema.file_name().unwrap());
    if copy.ends_with("network.rng") {
        let mut text = std::fs::read_to_string(&copy).unwrap();
        for (place, part) in NEWER {
            let is_known = |name: &&str| part.contains(name) && text.contains(name);
            // A schema without the place is newer, too.
            if !["name=\"title\"", "name=\"register\""].iter().any(is_known) {
                text = text.replacen(place, &format!("{part}{place}"), 1);
            }
        }
        std::fs::write(&copy, text).unwrap();
    }
    copy
}
