//! Observes the state of a scene: the frames that pass, the output of netlaunch, processes, files
//! and rules.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::Value;

use crate::common::frame::{Frame, Host, OTHER, PEER, VM};
use crate::common::port_scene::{PortScene, Station};
use crate::common::tree::files_below;
use crate::common::{command_line, run, text};

/// Whether each frame passes, in a fixed order, at both ports.
pub type Seen = Vec<bool>;

/// Sends frames whose verdicts differ between the old rules, the new ones and no rules.
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

/// Sends frames whose verdicts differ between no rules, the learning rules and the rules with the
/// address. The learner learns no address from these frames.
pub fn by_frames_without_address(scene: &PortScene) -> Seen {
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

/// Returns vnet0 in the output of `binding-list`.
pub fn vnet0(scene: &PortScene) -> Value {
    let list = scene.list();
    let bindings = list["bindings"].as_array().unwrap();
    bindings.iter().find(|binding| binding["port"] == "vnet0").cloned().unwrap_or_default()
}

pub fn is_learned(scene: &PortScene) -> bool {
    vnet0(scene)["learning"]["address"] == VM.v4.to_string()
}

pub fn has_learner(scene: &PortScene) -> bool {
    vnet0(scene)["learning"]["pid"].is_u64()
}

/// Returns the processes in the scene's namespace: process ids and command lines.
pub fn processes(scene: &PortScene) -> Vec<(i32, String)> {
    let pids = text(&run("ip", &["netns", "pids", &scene.netns.name]).stdout);
    let pids = pids.lines().filter_map(|pid| pid.trim().parse().ok());
    pids.filter_map(|pid| Some((pid, command_line(pid)?))).collect()
}

/// Returns the files below the state directory without lock files, and incomplete definitions.
pub fn files(scene: &PortScene) -> Vec<String> {
    let mut found = files_below(&scene.sandbox.state());
    let defined = files_below(&scene.sandbox.path("config/nwfilter"));
    let is_whole = |path: &Path| path.extension().is_some_and(|extension| extension == "xml");
    found.extend(defined.into_iter().filter(|path| !is_whole(path)));
    found.retain(|path| !path.ends_with(".lock"));
    found.iter().map(|path| path.to_string_lossy().into_owned()).collect()
}

/// Returns the rules in a form that does not depend on the order of chains and ports.
pub fn rules(scene: &PortScene) -> Vec<String> {
    let mut chain = String::new();
    let mut rules: Vec<String> = scene
        .ruleset()
        .lines()
        .map(str::trim)
        // nft prints a blank line after each chain except the last one, which the brace of the
        // table follows.
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
