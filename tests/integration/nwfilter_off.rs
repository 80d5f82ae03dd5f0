//! Tests when a port is turned off because it has no rules, and when it is turned on again.

use std::fs;
use std::time::Duration;

use crate::common::frame::{Frame, PEER, VM};
use crate::common::port_scene::{PortScene, Station};
use crate::common::small_disk::Small;
use crate::common::{have_root, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn is_up(scene: &PortScene) -> bool {
    scene.netns.says("ip", &["-o", "link", "show", "dev", "vnet0"]).contains(",UP")
}

fn address(scene: &PortScene) -> Value {
    scene.list()["bindings"][0]["learning"]["address"].clone()
}

#[test]
fn a_filter_that_the_backend_cannot_express_leaves_the_port_as_it_was() {
    if !have_root("a_filter_that_the_backend_cannot_express_leaves_the_port_as_it_was") {
        return;
    }
    // The rules that learning takes could be set, those that follow never.
    for (backend, rule) in [
        ("nftables", "<all srcipaddr='$IP' ipset='some' ipsetflags='src'/>"),
        ("iptables", "<vlan vlanid='4095'/><ip srcipaddr='$IP'/>"),
    ] {
        let scene = PortScene::new(Some(backend));
        let rules = rule.split_inclusive("/>");
        let rules: String = rules
            .map(|rule| format!("<rule action='drop' direction='out'>{rule}</rule>"))
            .collect();
        scene.define("test", &rules).unwrap();
        let said = scene.bind(Station::Vnet0, "test", &[]).unwrap_err();
        assert!(!said.contains("turned off"), "{backend}: {said}");
        assert!(is_up(&scene), "{backend}: {said}");
        assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)), "{backend}");
        assert_eq!(scene.list()["bindings"], Value::Array(vec![]), "{backend}");
    }
}

#[test]
fn a_port_that_was_turned_off_when_the_disk_was_full_comes_back() {
    if !have_root("a_port_that_was_turned_off_when_the_disk_was_full_comes_back") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let disk = Small::over(scene.sandbox.state());
    scene.bind(Station::Vnet0, "clean-traffic", &[]).unwrap();
    // Its removal before a change would make room for the status.
    fs::remove_file(scene.sandbox.state().join("nwfilter/ports.index")).unwrap();
    disk.fill();
    // Its address can be kept, and the status not be written.
    scene.leaves(&Frame::arp(VM, PEER, 1));
    assert!(wait_until(LIMIT, || !is_up(&scene)), "{}", scene.list());
    assert_eq!(address(&scene), Value::Null);
    fs::remove_file(disk.filler()).unwrap();
    assert!(wait_until(LIMIT, || is_up(&scene)), "{}", scene.list());
    assert_eq!(address(&scene), Value::from("10.2.3.4"));
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
    scene.unbind(Station::Vnet0);
}
