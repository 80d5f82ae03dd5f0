//! What is there: which frames pass, what netlaunch says of its ports, processes, files and rules.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::Value;

use crate::common::frame::{Frame, Host, OTHER, PEER, VM};
use crate::common::port_scene::{PortScene, Station};
use crate::common::{run, text};

/// Whether each of these frames passes, in this order, at both ports.
pub type Seen = Vec<bool>;

/// What tells the old rules, the new ones and none apart.
pub fn by_frames(scene: &PortScene) -> Seen {
    let mut seen = Seen::new();
    for (station, guest) in [(Station::Vnet0, VM), (Station::Vnet1, OTHER)] {
        for frame in [
            Frame::arp(guest, PEER, 1),
            Frame::arp(guest, PEER, 2),
            Frame::udp(guest, PEER, 1, 1000),
            Frame::udp(guest, PEER, 1, 1001),
            Frame::udp(guest, PEER, 1, 1002),
            Frame::udp(guest, PEER, 1, 1003),
            Frame::udp6(guest, PEER, 1, 1001),
            Frame::udp6(guest, PEER, 1, 1002),
        ] {
            seen.push(scene.send(station, &frame).contains(&Station::Peer));
        }
        for port in [1000, 1001, 1002] {
            let frame = Frame::udp(PEER, guest, 1, port);
            seen.push(scene.send(Station::Peer, &frame).contains(&station));
        }
    }
    seen
}

/// The same for no rules, those to learn an address by, and those with the address. None of the
/// frames teaches one.
pub fn by_unteaching_frames(scene: &PortScene) -> Seen {
    let nobody = Host { v4: Ipv4Addr::UNSPECIFIED, ..VM };
    let mut seen = vec![
        scene.leaves(&Frame::arp(nobody, PEER, 1)),
        scene.leaves(&Frame::udp6(VM, PEER, 1, 1)),
        scene.leaves(&Frame::udp(VM, PEER, 1, 1).sent_by(OTHER.mac)),
        scene.enters(&Frame::udp(PEER, VM, 1, 1)),
    ];
    seen.extend(&by_frames(scene)[11..]);
    seen
}

pub fn is_bound(scene: &PortScene) -> bool {
    vnet0(scene) != Value::Null
}

/// What `binding-list` says of vnet0.
pub fn vnet0(scene: &PortScene) -> Value {
    let list = scene.list();
    let bindings = list["bindings"].as_array().unwrap();
    bindings.iter().find(|binding| binding["port"] == "vnet0").cloned().unwrap_or_default()
}

pub fn is_learnt(scene: &PortScene) -> bool {
    vnet0(scene)["learning"]["address"] == VM.v4.to_string()
}

pub fn is_listened_to(scene: &PortScene) -> bool {
    vnet0(scene)["learning"]["pid"].is_u64()
}

/// What runs in the scene's namespace: process numbers and command lines.
pub fn processes(scene: &PortScene) -> Vec<(i32, String)> {
    let pids = text(&run("ip", &["netns", "pids", &scene.netns.name]).stdout);
    let line = |pid: i32| Some(text(&fs::read(format!("/proc/{pid}/cmdline")).ok()?));
    let pids = pids.lines().filter_map(|pid| pid.trim().parse().ok());
    pids.filter_map(|pid| Some((pid, line(pid)?.replace('\0', " ")))).collect()
}

/// The files below the state directory but for locks, and what is unfinished of definitions.
pub fn files(scene: &PortScene) -> Vec<String> {
    fn walk(dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.path().is_dir() {
                true => walk(&entry.path(), found),
                false => found.push(entry.path().to_string_lossy().into_owned()),
            }
        }
    }
    let (mut found, mut defined) = (Vec::new(), Vec::new());
    walk(&scene.sandbox.state(), &mut found);
    walk(&scene.sandbox.path("config/nwfilter"), &mut defined);
    found.extend(defined.into_iter().filter(|path| !path.ends_with(".xml")));
    found.retain(|path| !path.ends_with("/.lock"));
    found
}

/// The rules, whatever order chains and ports have in them.
pub fn rules(scene: &PortScene) -> Vec<String> {
    let mut chain = String::new();
    let mut rules: Vec<String> = scene
        .ruleset()
        .lines()
        .map(str::trim)
        // A blank line follows each chain but the last one, and the table's brace that one.
        .filter(|line| !matches!(*line, "" | "}"))
        .map(|line| {
            if line.starts_with("chain ") || line.starts_with("table ") || line.starts_with('*') {
                chain = line.to_owned();
            }
            format!("{chain} {line}")
        })
        .collect();
    rules.sort();
    rules
}

pub fn are_the_same(is: &[String], expected: &[String], about: &str) {
    let but = |all: &[String], others: &[String]| -> Vec<String> {
        all.iter().filter(|line| !others.contains(line)).cloned().collect()
    };
    let (more, less) = (but(is, expected), but(expected, is));
    assert!(is == expected, "{about}: too many {more:#?}, too few {less:#?}");
}
