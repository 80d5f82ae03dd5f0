//! netlaunch starts no thread: a thread that cannot be started (EAGAIN) would end a launch, and a
//! second thread would not be the parent whose death ends QEMU and passt (PR_SET_PDEATHSIG).

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// What starts a thread of its own: the standard library's, and what tokio runs in its pool of
/// threads for blocking calls.
const STARTERS: [&str; 9] = [
    "thread::spawn",
    "thread::Builder",
    "thread::scope",
    "spawn_blocking",
    "block_in_place",
    "tokio::fs",
    "lookup_host",
    "ToSocketAddrs",
    "new_multi_thread",
];

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_thread_is_started() {
    let mut all = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    assert!(all.len() > 100, "{}", all.len());
    for path in all {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name.ends_with("tests") || name == "testing" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        // The unit tests are at the end of a file.
        let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for starter in STARTERS {
            assert!(!program.contains(starter), "{}: {starter}", path.display());
        }
    }
}
