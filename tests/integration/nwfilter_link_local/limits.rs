//! Tests that the limits of a port's traffic take no frame past its filter.

use netlaunch::sys::traffic;

use super::{LLDP, link_local, scene, stolen};
use crate::common::frame::VM;
use crate::common::port_scene::{PortScene, Station};
use crate::common::{AT_MOST, have_root, wait_until};

/// Limits the traffic from vnet0 as a launch does.
fn limit(scene: &PortScene) {
    let (port, ifb) = ("vnet0".parse().unwrap(), "limit".parse().unwrap());
    let bandwidth = "outbound=100000".parse().unwrap();
    let commands = traffic::commands(&port, &ifb, &bandwidth);
    scene.sh("ip link add limit type ifb && ip link set limit up");
    scene.sh(&format!("tc -batch - <<'END'\n{commands}END"));
}

/// Returns the number of frames that left by the device of the limits.
fn limited(scene: &PortScene) -> u32 {
    scene.sh("cat /sys/class/net/limit/statistics/tx_packets").trim().parse().unwrap()
}

#[test]
fn a_filter_has_link_local_frames_of_a_port_with_limits() {
    if !have_root("a_filter_has_link_local_frames_of_a_port_with_limits") {
        return;
    }
    for stp in [false, true] {
        let scene = scene("nftables");
        limit(&scene);
        // STP can be turned on after the limits were set.
        scene.netns.ip(&format!("link set br0 type bridge stp_state {}", u8::from(stp)));
        // The ports of a bridge with STP forward nothing at first.
        let waits = ["blocking", "listening", "learning"];
        let is_waiting = |ports: &str| waits.iter().any(|state| ports.contains(state));
        assert!(wait_until(AT_MOST, || !is_waiting(&scene.sh("bridge link"))), "STP {stp}");
        assert_eq!(stolen(&scene, LLDP), 30, "without a filter the attack works");
        scene.bind(Station::Vnet0, "no-mac-spoofing", &[]).unwrap();
        for last in 0..16 {
            scene.netns.ip("link set br0 type bridge fdb_flush");
            assert_eq!(stolen(&scene, last), 0, "STP {stp}: packets stolen by frames to {last:x}");
        }
        // Frames to all other addresses have the limit.
        for (last, redirected) in [(0, false), (1, false), (15, false), (16, true)] {
            let before = limited(&scene);
            scene.write(Station::Vnet0, &link_local(last, VM.mac, &[0x88, 0xb5]));
            assert_eq!(limited(&scene) - before, u32::from(redirected), "STP {stp}: {last:x}");
        }
    }
}
