//! Tests filters of ports whose firewall tools end in every bad way. A port has the rules that its
//! record shows, netlaunch selects no other backend, and the next command leaves nothing behind.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use crate::common::bad_tools::{Bad, Count, IPTABLES, NFT, ends, one_line, path};
use crate::common::frame::{Frame, PEER, VM};
use crate::common::port_scene::{PortScene, Station};
use crate::common::{finish, have_root, processes_with, text};

fn drops(port: u16) -> String {
    format!(
        "<rule action='drop' direction='out'><arp opcode='{}'/></rule>\
         <rule action='drop' direction='out'><udp dstportstart='{port}'/></rule>\
         <rule action='drop' direction='out'><udp-ipv6 dstportstart='{port}'/></rule>",
        port - 1000
    )
}

/// Which frames of the guest pass: those that no rules, the old ones and the new ones drop.
fn seen(scene: &PortScene) -> [bool; 6] {
    [
        Frame::arp(VM, PEER, 1),
        Frame::arp(VM, PEER, 2),
        Frame::udp(VM, PEER, 1, 1001),
        Frame::udp(VM, PEER, 1, 1002),
        Frame::udp6(VM, PEER, 1, 1001),
        Frame::udp6(VM, PEER, 1, 1002),
    ]
    .map(|frame| scene.send(Station::Vnet0, &frame).contains(&Station::Peer))
}

const NONE: [bool; 6] = [true; 6];
const OLD: [bool; 6] = [false, true, false, true, false, true];
const NEW: [bool; 6] = [true, false, true, false, true, false];

/// A scene that uses iptables, or chooses.
fn scene(backend: &str) -> PortScene {
    let scene = PortScene::new(Some("iptables").filter(|_| backend == "iptables"));
    scene.foreign_rules();
    scene
}

fn netlaunch(scene: &PortScene, args: &[&str], path: &str) -> Output {
    let mut command = scene.sandbox.netlaunch(args);
    command.env("PATH", path);
    finish(command)
}

fn definition(scene: &PortScene, port: u16) -> PathBuf {
    let file = scene.sandbox.path("defined.xml");
    fs::write(&file, format!("<filter name='test'>\n{}\n</filter>\n", drops(port))).unwrap();
    file
}

fn is_bound(scene: &PortScene) -> bool {
    !scene.list()["bindings"].as_array().unwrap().is_empty()
}

fn files(scene: &PortScene) -> Vec<String> {
    let dir = scene.sandbox.path("state/nwfilter/bindings");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name != ".lock").collect()
}

/// Sorted, since chains are made in another order after a failure.
fn rules(scene: &PortScene) -> Vec<String> {
    let mut lines: Vec<_> = scene.ruleset().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn a_port_has_the_rules_that_its_record_says(backend: &str) {
    if !have_root("a_port_has_the_rules_that_its_record_says") {
        return;
    }
    let scene = scene(backend);
    let before = rules(&scene);
    let (tools, ends) = ends(backend);
    let mut count = Count::default();
    for bad in ends {
        let path = path(&scene.sandbox, tools, bad);
        let mut command = |args: &[&str], from, to| {
            let about = format!("{backend}: {args:?}, {bad:?}");
            let output = netlaunch(&scene, args, &path);
            one_line(&output, &about);
            let expected = if count.add(&output) { to } else { from };
            assert_eq!(seen(&scene), expected, "{about}: {}", text(&output.stderr));
            let has_other = match backend {
                "nftables" => scene.ruleset().contains("NETLAUNCH_"),
                _ => scene.ruleset().contains("netlaunch_nwfilter"),
            };
            assert!(!has_other, "{about}");
            output.status.success()
        };
        scene.define("test", &drops(1001)).unwrap();
        let binding = scene.binding(Station::Vnet0, "test", &[]);
        let bound = command(&["nwfilter", "binding-create", &binding], NONE, OLD);
        assert_eq!(is_bound(&scene), bound, "{bad:?}");
        if !bound {
            assert_eq!((rules(&scene), files(&scene)), (before.clone(), vec![]), "{bad:?}");
            scene.bind(Station::Vnet0, "test", &[]).unwrap();
        }
        let file = definition(&scene, 1002);
        let defined = command(&["nwfilter", "define", file.to_str().unwrap()], OLD, NEW);
        let reloaded = netlaunch(&scene, &["firewall", "reload"], "/usr/sbin:/usr/bin");
        assert!(reloaded.status.success(), "{bad:?}: {}", text(&reloaded.stderr));
        let now = if defined { NEW } else { OLD };
        assert_eq!(seen(&scene), now, "{bad:?}: the definition and the rules differ");
        command(&["firewall", "reload"], now, now);
        let unbound = command(&["nwfilter", "binding-delete", "vnet0"], now, NONE);
        assert_eq!(is_bound(&scene), !unbound, "{bad:?}");
        if !unbound {
            scene.unbind(Station::Vnet0);
        }
        assert_eq!((rules(&scene), files(&scene)), (before.clone(), vec![]), "{bad:?}");
    }
    println!("{backend}: {count:?}");
    assert!(count.done > 0 && count.failed > 0, "{count:?}");
}

#[test]
fn a_port_has_the_rules_that_its_record_says_with_nftables() {
    a_port_has_the_rules_that_its_record_says("nftables");
}

#[test]
fn a_port_has_the_rules_that_its_record_says_with_iptables() {
    a_port_has_the_rules_that_its_record_says("iptables");
}

/// A reload that goes from one backend to the other holds the rules of both at one moment.
#[test]
fn a_port_keeps_its_rules_when_a_tool_is_killed_while_its_backend_changes() {
    if !have_root("a_port_keeps_its_rules_when_a_tool_is_killed_while_its_backend_changes") {
        return;
    }
    for (from, to) in [("nftables", "iptables"), ("iptables", "nftables")] {
        let scene = PortScene::new(Some(from));
        scene.foreign_rules();
        let before = rules(&scene);
        let set = |to: &str| scene.settings(&format!("firewall_backend = \"{to}\"\n"));
        scene.define("test", &drops(1001)).unwrap();
        for tools in [&NFT[..], &IPTABLES[..], &IPTABLES[1..2]] {
            for bad in Bad::ANY {
                let about = format!("{from} to {to}: {tools:?}, {bad:?}");
                set(from);
                scene.bind(Station::Vnet0, "test", &[]).unwrap();
                set(to);
                let path = path(&scene.sandbox, tools, bad);
                let output = netlaunch(&scene, &["firewall", "reload"], &path);
                one_line(&output, &about);
                let seen = seen(&scene);
                // Closed by ebtables is what a change that could not be undone may be.
                assert!(
                    seen.iter().zip(OLD).all(|(is, old)| old || !is),
                    "{about}: {seen:?}: {}",
                    text(&output.stderr)
                );
                let again = netlaunch(&scene, &["firewall", "reload"], "/usr/sbin:/usr/bin");
                assert!(again.status.success(), "{about}: {}", text(&again.stderr));
                assert_eq!(self::seen(&scene), OLD, "{about}");
                assert_eq!(scene.backend_of(Station::Vnet0), to, "{about}");
                scene.unbind(Station::Vnet0);
                assert_eq!((rules(&scene), files(&scene)), (before.clone(), vec![]), "{about}");
            }
        }
        assert!(processes_with(&scene.sandbox.path("wrapped").to_string_lossy()).is_empty());
    }
}
