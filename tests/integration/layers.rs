//! Holds the imports of the source to the layers that ARCHITECTURE.md shows: a module imports only
//! modules of lower layers, and the wings do not import each other.

use crate::common::source::{Source, sources, without_literals};

/// The top-level modules from the lowest layer to the highest.
const LAYERS: [&[&str]; 5] = [
    &["types"],
    &["sys"],
    &["firewall", "xml"],
    &["launcher", "network", "nwfilter"],
    &["capi", "cli"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// Returns the modules after each `crate::` of a text.
fn imported(code: &str) -> Vec<&str> {
    let starts = code.match_indices("crate::").map(|(at, word)| &code[at + word.len()..]);
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    starts.map(|rest| &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())]).collect()
}

/// Returns the imports of a file that do not go down.
fn upward(source: &Source) -> Vec<String> {
    let mut parts = source.path.split('/').skip(1);
    let (Some(module), Some(_)) = (parts.next(), parts.next()) else { return Vec::new() };
    let own = layer(module).unwrap_or_else(|| panic!("{module} has no layer in this test"));
    let code = without_literals(&source.text);
    let wrong = imported(&code).into_iter().filter(|to| *to != module);
    let wrong = wrong.filter(|to| layer(to).is_some_and(|other| other >= own));
    wrong.map(|to| format!("{}: imports {to}", source.path)).collect()
}

#[test]
fn modules_import_lower_layers_only() {
    let all = sources(&["src"]);
    let files = all.iter().filter(|source| source.path.ends_with(".rs"));
    let wrong: Vec<String> = files.flat_map(upward).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_import_that_goes_up_or_sideways_is_found() {
    let file = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    for (path, text, expected) in [
        ("src/launcher/start.rs", "use crate::nwfilter::port::Bindings;", 1),
        ("src/types/mac.rs", "let a = crate::sys::flock::Flock;", 1),
        ("src/cli/run.rs", "use crate::network::Network;\nuse crate::cli::args;", 0),
        ("src/sys/tap.rs", "// crate::cli\nlet a = \"crate::cli\";", 0),
    ] {
        assert_eq!(upward(&file(path, text)).len(), expected, "{path}");
    }
}
