//! `--print` shows everything and starts nothing.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use common::{As, Sandbox, finish, text};

#[test]
fn print_starts_nothing() {
    let sandbox = Sandbox::new(As::Root, None);
    let output = finish(sandbox.netlaunch(&[
        "--print=json",
        "--backend",
        "slirp",
        "--",
        "qemu-system-x86_64",
    ]));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["backend"], "slirp");
    assert_eq!(sandbox.launch_dirs(), [] as [String; 0]);
}
