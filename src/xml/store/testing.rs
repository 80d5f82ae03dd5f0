//! For the tests of the stores: what is in their files, and many who use one directory at once.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Tells a process that it is one of those of [`processes`], which, and the directory.
const WORKER: &str = "NETLAUNCH_TEST_STORE_WORKER";

/// How many use a directory at once.
pub(crate) const WORKERS: usize = 4;

/// Every file below the directory but the lock, with its text.
pub(crate) fn files(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries.map(Result::unwrap) {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if entry.file_name() == ".lock" => {}
            false => found.push((path.display().to_string(), fs::read_to_string(&path).unwrap())),
        }
    }
    found.sort();
    found
}

/// Has each worker, by its number, do its work on one directory in a thread, then checks what is
/// there.
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

/// The same in processes: each runs this test again, by its full name.
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
    assert!(files.iter().all(|(path, _)| !path.contains(crate::dir::UNFINISHED)), "{files:?}");
}
