//! The program netlaunch starts no thread: a thread that cannot be started (EAGAIN) would end a
//! launch, and a second thread costs memory for as long as the guest runs. Only launches of
//! the library have a thread, and the program does not use those.

use std::path::Path;

use crate::common::source::sources;

/// The functions that start a thread: those of the standard library, and those that tokio runs in
/// its pool of threads for blocking calls.
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

#[test]
fn no_thread_is_started() {
    let all = sources(&["src"]);
    assert!(all.len() > 100, "{}", all.len());
    for source in all.iter().filter(|source| source.path.ends_with(".rs")) {
        let path = Path::new(&source.path);
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name.ends_with("tests") || name == "testing" {
            continue;
        }
        // The unit tests are at the end of a file.
        let program = source.text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        if path.ends_with("src/launcher/launch_thread.rs") {
            continue;
        }
        let is_cli = path.components().any(|part| part.as_os_str() == "cli");
        let launches = ["launch_blocking", "plan_blocking", "Launcher::"];
        let found = launches.iter().find(|call| is_cli && program.contains(*call));
        assert_eq!(found, None, "{}", path.display());
        for starter in STARTERS {
            assert!(!program.contains(starter), "{}: {starter}", path.display());
        }
    }
}
