//! Tests that the next command removes a NIC whose supervisor and cleaner were killed.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::attach::{FILTERED, on_network};
use crate::common::attach_scene::{AttachScene, LIMIT, NAME};
use crate::common::scene::{Scene, alive};
use crate::common::{processes_with, wait_until};

/// Kills the supervisor of the NIC and its cleaner, the cleaner first.
fn kill_both(scene: &AttachScene) {
    let supervisor = scene.supervisor();
    let path = scene.sandbox.path("bin/netlaunch").to_string_lossy().into_owned();
    let mut pids: Vec<i32> = processes_with(&path)
        .into_iter()
        .filter(|(_, line)| line.contains(" attach "))
        .map(|(pid, _)| pid)
        .collect();
    assert!(pids.len() > 1 && pids.contains(&supervisor), "{pids:?}");
    pids.sort_by_key(|pid| *pid == supervisor);
    for pid in &pids {
        // The guard of a killed program ends by itself.
        assert!(matches!(kill(Pid::from_raw(*pid), Signal::SIGKILL), Ok(()) | Err(Errno::ESRCH)));
    }
    assert!(wait_until(LIMIT, || pids.iter().all(|pid| !alive(*pid))), "{pids:?}");
}

#[test]
fn the_next_attach_or_detach_removes_a_nic_whose_supervisor_and_cleaner_were_killed() {
    let test = "the_next_attach_or_detach_removes_a_nic_whose_supervisor_and_cleaner_were_killed";
    let Some((host, mut scene)) = on_network(test, "nftables") else { return };
    for next in ["attach", "detach"] {
        assert_eq!(scene.attach(FILTERED), "net1", "{next}");
        assert!(scene.lease("eth1").contains("ip=192.168.122."), "{next}");
        kill_both(&scene);
        assert!(scene.monitor("info network").contains("net1"), "{next}");
        // The start of another launch removes the directories of killed launches, and not this one.
        let other = scene.sandbox.netlaunch(&["--backend", "slirp", "--name", "other"]);
        let mut other = Scene::start(other);
        other.hear("-netdev");
        // With slirp there is nothing to supervise, so it ends by itself.
        other.end();
        if next == "attach" {
            assert_eq!(scene.attach("slirp"), "net1");
            assert!(scene.monitor("info network").contains("type=user"));
        }
        scene.detach("net1");
        scene.card_is_gone("eth1");
        scene.nothing_attached(&host, next);
        assert!(!scene.monitor("info network").contains("net1"), "{next}");
    }
    let left = scene.sandbox.netlaunch(&["detach", NAME, "net1"]);
    assert!(!crate::common::finish(left).status.success());
}
