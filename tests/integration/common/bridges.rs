//! Launches on a bridge: of a QEMU that runs with its processor stopped, and of the real guest.

use std::net::IpAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::scene::{Scene, alive, launches};
use super::{AT_MOST, Netns, Sandbox, finish, text, wait_until};
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

/// Another machine on that bridge, 10.77.0.1, with a page, and the callers that have asked for it.
pub fn neighbour(host: &Netns) -> (Netns, Arc<Mutex<Vec<IpAddr>>>) {
    let neighbour = Netns::bare();
    host.wire("port0", &neighbour, "eth0");
    host.ip("link set port0 master br0");
    neighbour.ip("address add 10.77.0.1/24 dev eth0");
    let at = "10.77.0.1:80".parse().unwrap();
    let callers = neighbour.serve_http_at(at, "page of a neighbour");
    (neighbour, callers)
}

/// The arguments of a launch, with a guest that does not ask for an address.
pub fn without_dhcp(mut args: Vec<String>) -> Vec<String> {
    let kernel = args.iter().position(|arg| arg == "-append").unwrap() + 1;
    args[kernel].insert_str(0, "nl.dhcp=no ");
    args
}

/// How a launch of the real guest ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The guest powers off.
    Own,
    /// netlaunch is killed.
    Killed,
}

impl End {
    /// Brings it about, where the guest waits for a line and then ends its QEMU with `status`.
    pub fn come(self, scene: &mut Scene, qemu: i32, status: i32) {
        match self {
            End::Own => {
                scene.say("go");
                assert_eq!(scene.end().code(), Some(status), "{}", scene.said());
            }
            End::Killed => {
                kill(Pid::from_raw(scene.pid()), Signal::SIGKILL).unwrap();
                scene.end();
                let gone = wait_until(AT_MOST, || !alive(qemu));
                assert!(gone, "QEMU outlives netlaunch");
            }
        }
    }
}

/// The arguments of netlaunch, then a QEMU that waits for the command to run its guest.
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
    let begun = wait_until(AT_MOST, || {
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
