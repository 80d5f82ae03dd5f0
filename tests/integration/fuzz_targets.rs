//! Holds the fuzz targets, their seeds and dictionaries, and the lists of them together.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Returns the names in a directory of `fuzz/`, without this end.
fn names(dir: &str, end: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz().join(dir)).unwrap().map(|entry| entry.unwrap());
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter_map(|name| Some(name.strip_suffix(end)?.to_owned())).collect()
}

/// Returns the words between `before` and `after` in the lines of a file of `fuzz/`.
fn words(file: &str, before: &str, after: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(fuzz().join(file)).unwrap();
    let word = |line: &str| Some(line.trim().strip_prefix(before)?.split_once(after)?.0.to_owned());
    text.lines().filter_map(word).collect()
}

#[test]
fn each_target_is_in_the_package_and_in_the_readme() {
    let targets = names("fuzz_targets", ".rs");
    assert!(targets.len() > 10);
    assert_eq!(words("Cargo.toml", "path = \"fuzz_targets/", ".rs\""), targets);
    assert_eq!(words("README.md", "| `", "` |"), targets);
}

#[test]
fn each_target_has_seeds_unless_it_generates_its_inputs() {
    let targets = names("fuzz_targets", ".rs");
    let seeds = names("seeds", "");
    assert!(seeds.is_subset(&targets), "{seeds:?}");
    // `fuzz/run` names inputs besides the seeds.
    let more = words("run", "[", "]='../");
    assert!(!more.is_empty() && more.is_subset(&targets), "{more:?}");
    for target in targets.difference(&seeds).filter(|target| !more.contains(*target)) {
        let file = fuzz().join("fuzz_targets").join(target).with_extension("rs");
        let generates = fs::read_to_string(file).unwrap().contains("derive(Debug, Arbitrary)");
        assert!(generates, "{target} has no seeds");
    }
    for target in &seeds {
        assert!(!names(&format!("seeds/{target}"), "").is_empty(), "{target} has no seeds");
    }
}

#[test]
fn each_dictionary_belongs_to_a_target_and_has_entries_that_libfuzzer_accepts() {
    let targets = names("fuzz_targets", ".rs");
    for name in names("dictionaries", ".dict") {
        assert!(name == "xml" || targets.contains(&name), "{name}");
        let text = fs::read_to_string(fuzz().join("dictionaries").join(format!("{name}.dict")));
        for line in text.unwrap().lines().filter(|line| !line.starts_with('#')) {
            let is_entry = line.len() > 2 && line.starts_with('"') && line.ends_with('"');
            assert!(line.is_empty() || is_entry, "{name}: {line}");
        }
    }
}
