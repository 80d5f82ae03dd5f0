//! Tests the memory of a supervisor: it gives back the pages of the program that only a start
//! needs.

use std::time::Duration;

use crate::common::scene::Scene;
use crate::common::{As, Netns, Sandbox, have_root, status_field, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// Returns a field of /proc/PID/status in KiB.
pub fn kibibytes(pid: i32, field: &str) -> u64 {
    let value = status_field(pid, field);
    value.trim_end_matches(" kB").parse().unwrap_or_else(|_| panic!("{field}: {value:?}"))
}

#[test]
fn a_supervisor_gives_back_the_pages_that_only_a_start_needs() {
    if !have_root("a_supervisor_gives_back_the_pages_that_only_a_start_needs") {
        return;
    }
    let netns = Netns::routed();
    for who in [As::Root, As::User] {
        let sandbox = Sandbox::new(who, Some(&netns));
        let qemu = "-M none -nodefaults -display none -S -qmp stdio";
        let mut command = sandbox.netlaunch(&["--backend", "slirp", "--device", "none", "--"]);
        command.arg("qemu-system-x86_64").args(qemu.split(' '));
        let mut scene = Scene::start(command);
        scene.hear("QMP");
        let pid = scene.pid();
        // VmHWM is the largest value of VmRSS so far.
        let given_back = || kibibytes(pid, "VmRSS") + 1024 < kibibytes(pid, "VmHWM");
        let (now, most) = (kibibytes(pid, "VmRSS"), kibibytes(pid, "VmHWM"));
        assert!(wait_until(LIMIT, given_back), "{who:?}: {now} of {most} KiB");
        scene.say("{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}");
        assert!(scene.end().success(), "{who:?}: {}", scene.said());
    }
}
