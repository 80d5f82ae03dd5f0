//! Tests filters on macvtap ports over time: rules that other programs remove, names that change,
//! interfaces that go or move, counters, and other state directories.

use serde_json::{Value, json};

use crate::common::frame::{Frame, OTHER, PEER, VM, mac_text};
use crate::common::macvtap::{have_macvtap, plug_above, scene};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::schema::valid;
use crate::common::{As, Netns, Sandbox, finish, text};

const RULES: &str = "<rule action='drop' direction='out'><udp dstportstart='53'/></rule>
    <rule action='drop' direction='in'><udp dstportstart='53'/></rule>";

fn listed(scene: &PortScene) -> Value {
    let list = scene.list();
    valid("bindings", &list);
    list["bindings"].clone()
}

fn firewall(scene: &PortScene, command: &str) -> (Option<i32>, String) {
    let output = finish(scene.sandbox.netlaunch(&["firewall", command]));
    (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

fn in_force(scene: &PortScene) {
    let port = &listed(scene)[0];
    let shown = (&port["state"], &port["problems"], &port["bridge"], &port["lower"]);
    assert_eq!(shown, (&json!("in-force"), &json!([]), &Value::Null, &json!("peer0")), "{port}");
    assert_eq!(firewall(scene, "check").0, Some(0));
    stops(scene, true);
}

/// Checks whether the filter stops frames, in both directions.
fn stops(scene: &PortScene, stops: bool) {
    assert_eq!(scene.leaves(&Frame::udp(VM, PEER, 1, 53)), !stops);
    assert_eq!(scene.enters(&Frame::udp(PEER, VM, 1, 53)), !stops);
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 54)));
    assert!(scene.enters(&Frame::udp(PEER, VM, 1, 54)));
}

#[test]
fn rules_of_a_macvtap_that_another_program_removes_are_missed() {
    if !have_macvtap("rules_of_a_macvtap_that_another_program_removes_are_missed") {
        return;
    }
    let scene = scene("bridge");
    scene.filter(RULES).unwrap();
    let number = listed(&scene)[0]["index"].to_string();
    in_force(&scene);
    let rules = scene.ruleset();
    let table = "netdev netlaunch_nwfilter";
    for command in [
        "nft flush ruleset".to_owned(),
        format!("nft delete table {table}"),
        format!("nft flush table {table}"),
        format!("nft flush chain {table} p{number}-egress"),
        format!("nft flush chain {table} p{number}-ingress"),
        format!("nft flush chain {table} p{number}-sent"),
        format!("nft flush chain {table} p{number}-to-ip"),
        format!("nft delete chain {table} p{number}-egress"),
        format!("nft add table {table} '{{ flags dormant; }}'"),
    ] {
        scene.sh(&command);
        let port = &listed(&scene)[0];
        assert_eq!(port["state"], "rules-missing", "{command}: {port}");
        let why = port["problems"][0]["why"].as_str().unwrap();
        let (status, found) = firewall(&scene, "check");
        assert!(status == Some(1) && found.contains(why), "{command}: {found}");
        let (status, put_back) = firewall(&scene, "reload");
        let line = format!("the filter of the port vnet0 is there; before, {why}\n");
        assert!(status == Some(0) && put_back.contains(&line), "{command}: {put_back}");
        in_force(&scene);
    }
    assert_eq!(scene.ruleset(), rules);
    scene.unbind(Station::Vnet0);
    assert_eq!(scene.sh("nft list tables"), "");
}

#[test]
fn a_renamed_macvtap_has_its_filter_after_the_next_command() {
    if !have_macvtap("a_renamed_macvtap_has_its_filter_after_the_next_command") {
        return;
    }
    let scene = scene("bridge");
    scene.filter(RULES).unwrap();
    let rename = |from: &str, to: &str| {
        scene.netns.ip(&format!("link set {from} down"));
        scene.netns.ip(&format!("link set {from} name {to}"));
        scene.netns.ip(&format!("link set {to} up"));
    };
    rename("vnet0", "other0");
    let port = &listed(&scene)[0];
    assert_eq!((&port["port"], &port["state"]), (&json!("other0"), &json!("rules-missing")));
    let why = port["problems"][0]["why"].as_str().unwrap();
    assert!(why.contains("for the name vnet0, which the port had before"), "{why}");
    // Another interface of the old name has no filter.
    let _queue = plug_above(&scene.netns, "vnet0", "peer0", "bridge", [2, 0, 0, 0, 0, 9]);
    assert_eq!(firewall(&scene, "reload").0, Some(0));
    let rules = scene.sh("nft list table netdev netlaunch_nwfilter");
    assert!(rules.contains("\"other0\"") && !rules.contains("\"vnet0\""), "{rules}");
    in_force(&scene);
    done(scene.nwfilter(&["binding-delete", "other0"])).unwrap();
    stops(&scene, false);
    assert_eq!(scene.sh("nft list tables"), "");
}

#[test]
fn a_macvtap_that_goes_or_moves_has_no_filter() {
    if !have_macvtap("a_macvtap_that_goes_or_moves_has_no_filter") {
        return;
    }
    let scene = scene("bridge");
    scene.filter(RULES).unwrap();
    let away = Netns::bare();
    scene.netns.ip(&format!("link set vnet0 netns {}", away.name));
    assert_eq!(listed(&scene), json!([]), "netlaunch claims no filter on it");
    let (status, said) = firewall(&scene, "check");
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(firewall(&scene, "reload").0, Some(0));
    assert_eq!(scene.sh("nft list tables"), "", "its rules are collected");
    // The next interface of that name is another port.
    let _queue = plug_above(&scene.netns, "vnet0", "peer0", "bridge", VM.mac);
    scene.netns.ip("link set vnet0 up");
    assert_eq!(listed(&scene), json!([]));
    scene.bind(Station::Vnet0, "test", &[]).unwrap();
    scene.netns.ip("link delete vnet0");
    assert_eq!(listed(&scene), json!([]));
    assert_eq!(firewall(&scene, "reload").0, Some(0));
    assert_eq!(scene.sh("nft list tables"), "");
}

#[test]
fn counters_of_a_macvtap_count_the_frames_of_each_direction() {
    if !have_macvtap("counters_of_a_macvtap_count_the_frames_of_each_direction") {
        return;
    }
    let scene = scene("private");
    scene.settings("enable_counters = true\n");
    scene.filter(RULES).unwrap();
    // Only frames that the test sends.
    for _ in 0..3 {
        scene.write(Station::Vnet0, &Frame::udp(VM, PEER, 1, 53).bytes(b"nltest"));
    }
    scene.write(Station::Vnet0, &Frame::udp(VM, PEER, 1, 54).bytes(b"nltest"));
    for port in [53, 53, 54, 54, 54] {
        scene.write(Station::Peer, &Frame::udp(PEER, VM, 1, port).bytes(b"nltest"));
    }
    let counters = listed(&scene)[0]["counters"].clone();
    let frames = |direction: &str, what: &str| counters[direction][what]["frames"].clone();
    let from = (frames("from_guest", "passed"), frames("from_guest", "dropped"));
    let to = (frames("to_guest", "passed"), frames("to_guest", "dropped"));
    assert_eq!((from, to), ((json!(1), json!(3)), (json!(3), json!(2))), "{counters}");
    let output = scene.nwfilter(&["binding-list", "--counters", "--json"]);
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rules = list["bindings"][0]["rules"].as_array().unwrap();
    let counted: Vec<_> =
        rules.iter().map(|rule| (rule["direction"].clone(), rule["frames"].clone())).collect();
    assert_eq!(counted, [(json!("out"), json!(3)), (json!("in"), json!(2))], "{list}");
}

#[test]
fn ports_of_bridges_and_macvtaps_share_a_host() {
    if !have_macvtap("ports_of_bridges_and_macvtaps_share_a_host") {
        return;
    }
    let scene = PortScene::new(None);
    scene.netns.ip("link add low0 type veth peer name low1");
    let _queue = plug_above(&scene.netns, "m0", "low0", "bridge", OTHER.mac);
    scene.define("test", RULES).unwrap();
    // The macvtap belongs to another state directory.
    let second = Sandbox::new(As::Root, Some(&scene.netns));
    let netlaunch = |args: &[&str]| done(finish(second.netlaunch(args))).unwrap();
    let file = second.path("binding.xml");
    let mac = mac_text(OTHER.mac);
    let xml = format!(
        "<filterbinding><portdev name='m0'/><mac address='{mac}'/>\
         <filterref filter='no-mac-spoofing'/></filterbinding>"
    );
    std::fs::write(&file, xml).unwrap();
    let tables = || scene.sh("nft list tables");
    let netdev = "table netdev netlaunch_nwfilter\n";
    let bind_macvtap = || netlaunch(&["nwfilter", "binding-create", &file.to_string_lossy()]);
    for last_is_bridge in [true, false] {
        bind_macvtap();
        assert_eq!(tables(), netdev);
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 53)));
        if last_is_bridge {
            netlaunch(&["nwfilter", "binding-delete", "m0"]);
            assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 53)));
            scene.unbind(Station::Vnet0);
        } else {
            scene.unbind(Station::Vnet0);
            let rules = scene.sh("nft list table netdev netlaunch_nwfilter");
            assert!(rules.contains("device \"m0\""), "{rules}");
            netlaunch(&["nwfilter", "binding-delete", "m0"]);
        }
        assert_eq!(tables(), "");
    }
}
