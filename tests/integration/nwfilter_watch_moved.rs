//! Tests that `nwfilter watch` compares a port with those that are on its bridge now, and not with
//! those that were on its bridge when they were bound.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::frame::{Frame, Host, OTHER, PEER, VM};
use crate::common::port_scene::{PortScene, Station};
use crate::common::{have_root, wait_until};
use crate::nwfilter_watch::{port, settings, watched_by};
use crate::nwfilter_watch_rules::says;

const LIMIT: Duration = Duration::from_secs(60);

/// Starts a watcher whose messages go to a file.
fn watched(scene: &PortScene, rules: &str) -> (crate::common::Reaped, std::path::PathBuf) {
    scene.settings(&settings("nftables", rules));
    let file = scene.sandbox.path("messages");
    let line = format!(
        "exec {} nwfilter watch 2> {}",
        scene.sandbox.path("bin/netlaunch").display(),
        file.display()
    );
    let mut command = scene.sandbox.program(std::path::Path::new("/bin/sh"));
    command.args(["-c", &line]);
    (watched_by(scene, command), file)
}

fn second_bridge(scene: &PortScene) {
    scene.netns.ip("link add br1 type bridge");
    scene.netns.ip("link set br1 up");
}

#[test]
fn the_address_of_a_port_that_has_come_from_another_bridge_is_refused() {
    if !have_root("the_address_of_a_port_that_has_come_from_another_bridge_is_refused") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    second_bridge(&scene);
    scene.unplug(Station::Vnet1);
    let rules = "[[watch]]\nport = \"vnet*\"\nfilter = \"no-mac-spoofing\"\n";
    let (_watcher, file) = watched(&scene, rules);
    let sends = || {
        scene.send(Station::Vnet0, &Frame::udp(VM, PEER, 1, 2));
        port(&scene, "vnet0") != Value::Null
    };
    assert!(wait_until(LIMIT, sends));
    scene.netns.ip("link set vnet0 master br1");
    scene.plug(Station::Vnet1);
    scene.netns.ip("link set vnet1 master br1");
    for _ in 0..20 {
        scene.send(Station::Vnet1, &Frame::udp(VM, PEER, 1, 2));
        sleep(Duration::from_millis(20));
    }
    assert!(says(&file, "is that of the port vnet0 of the same bridge"));
    assert_eq!(port(&scene, "vnet1"), Value::Null);
    // On the bridge that vnet0 has left, the address is free.
    scene.netns.ip("link set vnet1 master br0");
    let sends = || {
        scene.send(Station::Vnet1, &Frame::udp(VM, PEER, 1, 2));
        port(&scene, "vnet1") != Value::Null
    };
    assert!(wait_until(LIMIT, sends), "{}", scene.list());
}

#[test]
fn two_learned_addresses_of_a_bridge_are_named_when_a_port_moves_there() {
    if !have_root("two_learned_addresses_of_a_bridge_are_named_when_a_port_moves_there") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    second_bridge(&scene);
    scene.netns.ip("link set vnet1 master br1");
    let rules = "[[watch]]\nport = \"vnet*\"\nfilter = \"clean-traffic\"\n";
    let (_watcher, file) = watched(&scene, rules);
    for (station, host) in [(Station::Vnet0, VM), (Station::Vnet1, Host { v4: VM.v4, ..OTHER })] {
        let learned = || {
            scene.send(station, &Frame::arp(host, PEER, 1));
            port(&scene, station.port())["learning"]["address"] == json!(VM.v4)
        };
        assert!(wait_until(LIMIT, learned), "{}", scene.list());
    }
    scene.netns.ip("link set vnet1 master br0");
    let both = "the ports vnet0 and vnet1 of the same bridge both have the address 10.2.3.4";
    assert!(says(&file, both));
}
