//! Tests interfaces with a number as their name, which is the number of another one. nft takes the
//! name first.

use crate::common::frame::{Frame, OTHER, PEER, VM};
use crate::common::have_root;
use crate::common::port_scene::{PortScene, Station, backends};

/// Adds an interface whose name is the number of this one.
fn add_namesake(scene: &PortScene, port: &str) {
    let number = scene.sh(&format!("cat /sys/class/net/{port}/ifindex"));
    scene.netns.ip(&format!("link add name {} type bridge", number.trim()));
}

#[test]
fn an_interface_named_like_a_ports_number_does_not_take_its_rules() {
    if !have_root("an_interface_named_like_a_ports_number_does_not_take_its_rules") {
        return;
    }
    for backend in backends() {
        let scene = PortScene::new(Some(backend));
        add_namesake(&scene, "vnet0");
        let true_frame = Frame::udp(VM, PEER, 1, 2);
        let forged = [Frame::udp(OTHER, PEER, 1, 2), true_frame.clone().sent_by(OTHER.mac)];
        assert!(forged.iter().all(|frame| scene.leaves(frame)), "{backend}: without a filter");
        let address = VM.v4.to_string();
        scene.bind(Station::Vnet0, "clean-traffic", &[("IP", &address)]).unwrap();
        assert!(forged.iter().all(|frame| !scene.leaves(frame)), "{backend}");
        assert!(scene.leaves(&true_frame), "{backend}");
        assert_eq!(scene.list()["bindings"][0]["state"], "in-force", "{backend}");
        // A removal finds the elements again.
        scene.unbind(Station::Vnet0);
        assert!(forged.iter().all(|frame| scene.leaves(frame)), "{backend}: unbound");
        assert!(!scene.ruleset().to_lowercase().contains("netlaunch"), "{backend}");
    }
}
