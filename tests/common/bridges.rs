//! Launches on a bridge whose QEMU runs with its processor stopped.

use std::process::Command;
use std::time::Duration;

use super::scene::{Scene, launches};
use super::{Netns, Sandbox, finish, text, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// A host with the bridge br0.
pub fn host() -> Netns {
    let host = Netns::bare();
    host.ip("link add br0 type bridge");
    host.ip("link set br0 up");
    host
}

/// netlaunch's arguments, then a QEMU that waits to be told to run its guest.
pub fn waiting<'a>(options: &[&'a str], mark: &'a str) -> Vec<&'a str> {
    let mut args = options.to_vec();
    let qemu = ["--", QEMU, "-S", "-nodefaults", "-no-user-config", "-display", "none"];
    args.extend(qemu);
    args.extend(["-accel", "tcg", "-m", "32", "-name", mark]);
    args
}

/// A launch whose QEMU runs.
pub fn up(sandbox: &Sandbox, command: Command) -> (Scene, serde_json::Value) {
    let mut scene = Scene::start(command);
    let mut shown = serde_json::Value::Null;
    let begun = wait_until(Duration::from_secs(30), || {
        shown = launches(sandbox).pop().unwrap_or_default();
        !shown["qemu"].is_null()
    });
    assert!(begun, "{:?}\n{}", scene.end(), scene.said());
    (scene, shown)
}

/// Ends it as a service manager does.
pub fn end(mut scene: Scene) {
    kill(Pid::from_raw(scene.pid()), Signal::SIGTERM).unwrap();
    let code = scene.end().code();
    assert!([Some(0), Some(143)].contains(&code), "{code:?}: {}", scene.said());
}

pub fn taps(host: &Netns) -> String {
    host.says("ip", &["-o", "link", "show", "type", "tun"])
}

/// Its one line of complaint, and its exit status.
pub fn refused(command: Command) -> (Option<i32>, String) {
    let output = finish(command);
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    (output.status.code(), said)
}
