//! Runs the tests of ports with VLANs on Debian's kernel, in the test host (tests/guest/host).

use std::time::Duration;

use crate::common::test_host::{dir, test_host, without_symbols};
use crate::common::{have_root, start, text};

/// How long the test host may take on a busy machine; it ends itself before.
const LIMIT: Duration = Duration::from_secs(900);
const HOST_SECONDS: u32 = 800;

#[test]
fn ports_have_their_vlans_on_debians_kernel() {
    let test = "ports_have_their_vlans_on_debians_kernel";
    if !have_root(test) {
        return;
    }
    let Some(mut command) = test_host(test, HOST_SECONDS) else { return };
    let dir = dir();
    command.arg(without_symbols(&std::env::current_exe().unwrap(), &dir)).args([
        "--test-threads",
        "1",
        "port_settings::vlans::",
    ]);
    let output = start(command).output(LIMIT);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("2 passed; 0 failed") && !said.contains("skipped"), "{said}");
}
