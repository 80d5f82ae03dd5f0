//! Helpers for the tests of the stores: the content of their files, and workers that use one
//! directory at the same time.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The variable that gives a worker process of [`processes`] its number and the directory, as
/// `NUMBER:DIRECTORY`.
const WORKER: &str = "NETLAUNCH_TEST_STORE_WORKER";

/// The number of workers that use one directory at the same time.
pub(crate) const WORKERS: usize = 4;

/// Returns the path and the text of every file below `dir`, sorted, without the lock files.
pub(crate) fn files(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries.map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if entry.file_name() != ".lock" {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// Runs `work` on one directory in [`WORKERS`] threads, each with its number, then runs `check`.
pub(crate) fn threads(work: fn(&Path, usize), check: fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path();
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            scope.spawn(move || work(config, worker));
        }
    });
    checked(config, check);
}

/// Does the same as [`threads`] in processes; each one runs the test with the full name `test`
/// again.
pub(crate) fn processes(test: &str, work: fn(&Path, usize), check: fn(&Path)) {
    if let Some(worker) = std::env::var_os(WORKER) {
        let worker = worker.into_string().unwrap();
        let (number, config) = worker.split_once(':').unwrap();
        return work(Path::new(config), number.parse().unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test, "--nocapture"])
                .env(WORKER, format!("{worker}:{}", dir.path().display()))
                .spawn()
                .unwrap()
        })
        .collect();
    for mut worker in workers {
        assert!(worker.wait().unwrap().success());
    }
    checked(dir.path(), check);
}

fn checked(config: &Path, check: fn(&Path)) {
    check(config);
    let files = files(config);
    assert!(files.iter().all(|(path, _)| !path.contains(crate::sys::dir::UNFINISHED)), "{files:?}");
}
