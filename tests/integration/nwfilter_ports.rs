//! Tests the identity of a port: the number of an interface in a network namespace, whatever its
//! name. Covers names that change or belong to others, several state directories and several
//! namespaces.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::frame::{Frame, OTHER, PEER, VM};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{Netns, finish, have_root, run, text};

const BACKENDS: [&str; 2] = ["nftables", "iptables"];
const ADDRESS: &[(&str, &str)] = &[("IP", "10.2.3.4")];
/// Refuses a frame on both backends.
const NO_ARP: &str = "<rule action='drop' direction='out'><arp/></rule>";

fn ports(scene: &PortScene) -> Vec<String> {
    let list = scene.list();
    let ports = list["bindings"].as_array().unwrap().iter();
    ports.map(|binding| binding["port"].as_str().unwrap().to_owned()).collect()
}

fn rename(scene: &PortScene, from: &str, to: &str) {
    scene.netns.ip(&format!("link set {from} down"));
    scene.netns.ip(&format!("link set {from} name {to}"));
    scene.netns.ip(&format!("link set {to} up"));
}

fn reload(scene: &PortScene) {
    done(finish(scene.sandbox.netlaunch(&["firewall", "reload"]))).unwrap();
}

#[test]
fn a_renamed_port_keeps_its_filter() {
    if !have_root("a_renamed_port_keeps_its_filter") {
        return;
    }
    for backend in BACKENDS {
        let scene = PortScene::new(Some(backend));
        scene.define("test", NO_ARP).unwrap();
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        rename(&scene, "vnet0", "other0");
        if backend == "nftables" {
            assert!(!scene.leaves(&Frame::arp(VM, PEER, 1)), "rules go with the number");
        }
        assert_eq!(ports(&scene), ["other0"], "{backend}");
        // A command about another port.
        scene.bind(Station::Vnet1, "test", &[]).unwrap();
        assert_eq!(ports(&scene), ["other0", "vnet1"], "{backend}");
        assert!(!scene.leaves(&Frame::arp(VM, PEER, 1)), "{backend}");
        assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)), "{backend}");
        let xml = scene.nwfilter(&["binding-dumpxml", "other0"]);
        assert!(text(&xml.stdout).contains("<portdev name='other0'/>"), "{}", text(&xml.stdout));
        // Names can be exchanged, too.
        rename(&scene, "vnet1", "third");
        rename(&scene, "other0", "vnet1");
        rename(&scene, "third", "other0");
        reload(&scene);
        assert_eq!(ports(&scene), ["other0", "vnet1"], "{backend}");
        for (station, host) in [(Station::Vnet0, VM), (Station::Vnet1, OTHER)] {
            let came = scene.send(station, &Frame::arp(host, PEER, 1));
            assert!(!came.contains(&Station::Peer), "{backend}: {host:?}");
        }
        for port in ["vnet1", "other0"] {
            done(scene.nwfilter(&["binding-delete", port])).unwrap();
        }
        assert!(scene.leaves(&Frame::arp(VM, PEER, 1)), "{backend}");
        assert_eq!(ports(&scene), [] as [&str; 0]);
        let left = fs::read_dir(scene.sandbox.path("state/nwfilter/bindings")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".lock"], "{backend}");
    }
}

#[test]
fn a_port_is_renamed_while_it_learns() {
    if !have_root("a_port_is_renamed_while_it_learns") {
        return;
    }
    for backend in BACKENDS {
        let scene = PortScene::new(Some(backend));
        scene.bind(Station::Vnet0, "clean-traffic", &[]).unwrap();
        rename(&scene, "vnet0", "other0");
        reload(&scene);
        scene.leaves(&Frame::arp(VM, PEER, 1));
        let learned = || {
            let list = scene.list();
            list["bindings"][0]["learning"]["address"] == "10.2.3.4"
        };
        assert!(
            crate::common::wait_until(std::time::Duration::from_secs(20), learned),
            "{backend}"
        );
        assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)), "{backend}");
        assert!(
            !scene.leaves(&Frame::udp(OTHER, PEER, 1, 2).sent_by(VM.mac)),
            "{backend}: spoofed"
        );
        done(scene.nwfilter(&["binding-delete", "other0"])).unwrap();
    }
}

#[test]
fn another_name_of_an_interface_is_refused() {
    if !have_root("another_name_of_an_interface_is_refused") {
        return;
    }
    let scene = PortScene::new(None);
    scene.netns.ip("link property add dev vnet0 altname second");
    let file = scene.binding(Station::Vnet0, "clean-traffic", ADDRESS);
    let xml = fs::read_to_string(&file).unwrap().replace("'vnet0'", "'second'");
    fs::write(&file, xml).unwrap();
    let output = scene.nwfilter(&["binding-create", &file]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("second is another name of the interface vnet0"), "{said}");
    assert_eq!(ports(&scene), [] as [&str; 0]);
}

/// A port of this name beside the scene's, and a document that binds a filter to it.
fn named(scene: &PortScene, name: &str) -> String {
    let ip = |args: &[&str]| {
        let all = [&["-n", &scene.netns.name], args].concat();
        assert!(run("ip", &all).status.success(), "{args:?}");
    };
    ip(&["link", "add", name, "type", "veth", "peer", "name", "inside"]);
    ip(&["link", "set", name, "master", "br0", "up"]);
    let file = scene.binding(Station::Vnet0, "test", &[]);
    let xml = fs::read_to_string(&file).unwrap();
    fs::write(&file, xml.replace("'vnet0'", &format!("'{name}'"))).unwrap();
    file
}

#[test]
fn iptables_refuses_a_port_name_that_is_a_pattern() {
    if !have_root("iptables_refuses_a_port_name_that_is_a_pattern") {
        return;
    }
    for (backend, code) in [("iptables", 2), ("nftables", 0)] {
        let scene = PortScene::new(Some(backend));
        scene.define("test", NO_ARP).unwrap();
        let output = scene.nwfilter(&["binding-create", &named(&scene, "vn+")]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(code == 0 || said.contains("does not end in +"), "{said}");
        assert!(scene.leaves(&Frame::arp(VM, PEER, 1)), "{backend}: vnet0 is another port");
    }
}

#[test]
fn a_port_may_have_the_name_of_a_marker_file() {
    if !have_root("a_port_may_have_the_name_of_a_marker_file") {
        return;
    }
    let scene = PortScene::new(None);
    scene.define("test", NO_ARP).unwrap();
    done(scene.nwfilter(&["binding-create", &named(&scene, ".new-a")])).unwrap();
    reload(&scene);
    assert_eq!(ports(&scene), [".new-a"]);
    done(scene.nwfilter(&["binding-delete", ".new-a"])).unwrap();
    assert_eq!(scene.ruleset(), "");
}

/// netlaunch nwfilter with another state directory.
fn elsewhere(scene: &PortScene, args: &[&str]) -> Command {
    let mut command = scene.sandbox.netlaunch(&[&["nwfilter"], args].concat());
    command.env("NETLAUNCH_STATE_DIR", scene.sandbox.path("state2"));
    command
}

#[test]
fn another_state_directorys_ports_keep_their_rules() {
    if !have_root("another_state_directorys_ports_keep_their_rules") {
        return;
    }
    for backend in BACKENDS {
        let scene = PortScene::new(Some(backend));
        scene.define("test", NO_ARP).unwrap();
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        let file = scene.binding(Station::Vnet1, "test", &[]);
        done(finish(elsewhere(&scene, &["binding-create", &file]))).unwrap();
        let others = || scene.send(Station::Vnet1, &Frame::arp(OTHER, PEER, 1));
        assert!(!others().contains(&Station::Peer), "{backend}");
        done(finish(elsewhere(&scene, &["binding-delete", "vnet1"]))).unwrap();
        assert!(others().contains(&Station::Peer), "{backend}");
        assert!(!scene.leaves(&Frame::arp(VM, PEER, 1)), "{backend}: another's");
        scene.unbind(Station::Vnet0);
        assert!(!scene.ruleset().contains("netlaunch"), "{backend}: {}", scene.ruleset());
    }
}

#[test]
fn another_namespaces_state_directory_is_refused() {
    if !have_root("another_namespaces_state_directory_is_refused") {
        return;
    }
    let scene = PortScene::new(None);
    scene.bind(Station::Vnet0, "clean-traffic", &[]).unwrap();
    let (rules, list) = (scene.ruleset(), scene.list());
    let other = Netns::bare();
    other.ip("link add vnet0 type veth peer name inside");
    other.ip("link add br0 type bridge");
    other.ip("link set vnet0 master br0");
    let file = scene.binding(Station::Vnet0, "clean-traffic", ADDRESS);
    let netlaunch = scene.sandbox.path("bin/netlaunch");
    let there = |args: &[&str]| {
        let inside = scene.sandbox.program(Path::new("/usr/bin/nsenter"));
        let mut command = inside;
        command.arg(format!("--net=/run/netns/{}", other.name)).arg(&netlaunch).args(args);
        finish(command)
    };
    for args in [
        &["nwfilter", "binding-create", &file][..],
        &["nwfilter", "binding-delete", "vnet0"],
        &["nwfilter", "binding-list"],
        &["firewall", "reload"],
    ] {
        let output = there(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{args:?}: {said}");
        assert!(said.contains("is about the ports of another network namespace"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(scene.ruleset(), rules);
    assert_eq!(scene.list(), list);
    // A state directory without ports belongs to the first namespace that uses it.
    scene.unbind(Station::Vnet0);
    assert!(there(&["nwfilter", "binding-create", &file]).status.success());
    let output = scene.nwfilter(&["binding-list"]);
    assert_eq!(output.status.code(), Some(125), "{}", text(&output.stdout));
    assert!(there(&["nwfilter", "binding-delete", "vnet0"]).status.success());
}

#[test]
fn the_port_at_fault_is_named() {
    if !have_root("the_port_at_fault_is_named") {
        return;
    }
    let scene = PortScene::new(Some("iptables"));
    let drop = "<rule action='drop' direction='out'><mac/></rule>";
    scene.define("test", drop).unwrap();
    scene.bind(Station::Vnet0, "test", &[("V", "5")]).unwrap();
    scene.bind(Station::Vnet1, "test", &[("V", "4095")]).unwrap();
    let said = scene
        .define("test", "<rule action='drop' direction='out'><vlan vlanid='$V'/></rule>")
        .unwrap_err();
    assert!(said.contains("the port vnet1: ") && !said.contains("vnet0"), "{said}");
}

#[test]
fn a_port_that_no_frame_can_meet_is_refused_with_the_reason() {
    if !have_root("a_port_that_no_frame_can_meet_is_refused_with_the_reason") {
        return;
    }
    for backend in [Some("nftables"), Some("iptables"), None] {
        let scene = PortScene::new(backend);
        let rules = scene.ruleset();
        scene.netns.ip("link add alone type veth peer name behind");
        scene.netns.ip("link add link behind name on_macvlan type macvlan mode bridge");
        for (port, words) in [
            ("lo", "it is the loopback interface"),
            ("br0", "it is a bridge"),
            ("alone", "it is on no bridge"),
        ] {
            let output = scene.nwfilter(&["binding-create", &of_port(&scene, port)]);
            let said = text(&output.stderr);
            assert_eq!(
                (output.status.code(), said.lines().count()),
                (Some(2), 1),
                "{port}: {said}"
            );
            let begin = format!("netlaunch: error: the port {port} cannot have a filter: {words}");
            assert!(said.starts_with(&begin), "{port}: {said}");
        }
        assert_eq!(ports(&scene), [] as [String; 0], "{backend:?}");
        assert_eq!(scene.ruleset(), rules, "{backend:?}");
        // A port of a bridge can have one, whatever its kind.
        scene.netns.ip("link set on_macvlan master br0");
        done(scene.nwfilter(&["binding-create", &of_port(&scene, "on_macvlan")])).unwrap();
    }
}

/// The document that binds clean-traffic to this port.
fn of_port(scene: &PortScene, port: &str) -> String {
    let vnet0 = scene.binding(Station::Vnet0, "clean-traffic", ADDRESS);
    let xml = fs::read_to_string(vnet0).unwrap().replace("'vnet0'", &format!("'{port}'"));
    let file = scene.sandbox.path("port.xml");
    fs::write(&file, xml).unwrap();
    file.to_string_lossy().into_owned()
}
