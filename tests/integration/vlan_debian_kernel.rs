//! Runs the tests of ports with VLANs on Debian's kernel, in the test host (tests/guest/host).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{have_root, skipped, start, text};

/// How long the test host may take on a busy machine; it ends itself before.
const LIMIT: Duration = Duration::from_secs(900);
const HOST_LIMIT: &str = "800";

#[test]
fn ports_have_their_vlans_on_debians_kernel() {
    let test = "ports_have_their_vlans_on_debians_kernel";
    if !have_root(test) {
        return;
    }
    let guest = std::env::var_os("NETLAUNCH_TEST_GUEST")
        .map_or_else(|| "/var/cache/netlaunch-tests/guest".into(), PathBuf::from);
    if !guest.join("host-initrd.gz").exists() {
        let guest = guest.display();
        skipped(test, format_args!("no test host in {guest} (run ./tests/setup --guest)"));
        return;
    }
    // The test host reads programs through a slow share, so they go there without their symbols.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let copy = dir.path().join("tests");
    let stripped =
        Command::new("strip").arg("-o").arg(&copy).arg(std::env::current_exe().unwrap()).status();
    assert!(stripped.unwrap().success());
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/host"));
    command
        .args(["--timeout", HOST_LIMIT, "--"])
        .arg(&copy)
        .args(["--test-threads", "1", "port_settings::vlans::"])
        .env("NETLAUNCH_TEST_GUEST", guest)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = start(command).output(LIMIT);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("2 passed; 0 failed") && !said.contains("skipped"), "{said}");
}
