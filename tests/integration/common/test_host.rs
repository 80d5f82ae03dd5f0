//! The test host with Debian's kernel (tests/guest/host), for a test that runs a command in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::skipped;

/// Returns the directory of the test host's files, if it was built.
pub fn built(test: &str) -> Option<PathBuf> {
    let guest = std::env::var_os("NETLAUNCH_TEST_GUEST")
        .map_or_else(|| "/var/cache/netlaunch-tests/guest".into(), PathBuf::from);
    if !guest.join("host-initrd.gz").exists() {
        let guest = guest.display();
        skipped(test, format_args!("no test host in {guest} (run ./tests/setup --guest)"));
        return None;
    }
    Some(guest)
}

/// Returns the command that runs what is added to it in the test host, if that was built. The test
/// host ends itself after this number of seconds.
pub fn test_host(test: &str, seconds: u32) -> Option<Command> {
    let guest = built(test)?;
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/host"));
    command
        .args(["--timeout", &seconds.to_string(), "--"])
        .env("NETLAUNCH_TEST_GUEST", guest)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Some(command)
}

/// Makes a directory that the test host has, too.
pub fn dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Copies a program of this build to `dir` without its symbols, because the test host reads
/// programs through a slow share.
pub fn without_symbols(program: &Path, dir: &TempDir) -> PathBuf {
    let copy = dir.path().join(program.file_name().unwrap());
    let stripped = Command::new("strip").arg("-o").args([copy.as_path(), program]).status();
    assert!(stripped.unwrap().success(), "strip {}", program.display());
    copy
}

/// Copies netlaunch, as [`without_symbols`].
pub fn netlaunch(dir: &TempDir) -> PathBuf {
    without_symbols(Path::new(env!("CARGO_BIN_EXE_netlaunch")), dir)
}
