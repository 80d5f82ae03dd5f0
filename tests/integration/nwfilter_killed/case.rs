//! The commands that are killed, what is there before them, and what they change.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::LIMIT;
use crate::common::frame::{Frame, PEER, VM};
use crate::common::port_scene::{PortScene, Station};
use crate::common::{text, wait_until};
use crate::seen::{
    Seen, by_frames, by_unteaching_frames, is_bound, is_learnt, is_listened_to, vnet0,
};

/// Rules that refuse one operation of ARP, and datagrams to two ports, one of which is always 1000:
/// in both directions, by all three tools of iptables.
fn refused(arp: u16, port: u16) -> String {
    let mut rules = format!("<rule action='drop' direction='out'><arp opcode='{arp}'/></rule>");
    for way in ["in", "out"] {
        for (kind, port) in [("udp", 1000), ("udp", port), ("udp-ipv6", port)] {
            rules += &format!(
                "<rule action='drop' direction='{way}'><{kind} dstportstart='{port}'/></rule>"
            );
        }
    }
    rules
}

/// A rule that none of these tests' frames is about.
pub fn unrelated(port: u16) -> String {
    format!("<rule action='drop' direction='out'><udp dstportstart='{port}'/></rule>")
}

pub fn old_rules() -> String {
    refused(1, 1001)
}

fn new_rules() -> String {
    refused(2, 1002)
}

/// A command that is killed.
pub struct Case {
    pub name: &'static str,
    /// Makes the state before it.
    pub prepare: fn(&PortScene),
    /// The command.
    pub command: fn(&PortScene) -> Vec<String>,
    /// Which frames pass.
    pub see: fn(&PortScene) -> Seen,
    /// Whether definitions, bindings and addresses say that the new rules are to be in force.
    pub is_new: fn(&PortScene) -> bool,
    /// Whether it replaces a filter of a port, which iptables' tools may then close.
    pub replaces: bool,
    /// Whether the address of vnet0 is learnt.
    pub learns: bool,
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The guest says its address until it is in force.
pub fn teach(scene: &PortScene) {
    let taught = || {
        scene.leaves(&Frame::arp(VM, PEER, 1));
        is_learnt(scene)
    };
    assert!(wait_until(LIMIT, taught), "{}", vnet0(scene));
}

fn bind_the_other(scene: &PortScene) {
    scene.bind(Station::Vnet1, "outer", &[]).unwrap();
}

fn bind_both(scene: &PortScene) {
    bind_the_other(scene);
    scene.bind(Station::Vnet0, "inner", &[]).unwrap();
}

fn bind_learning(scene: &PortScene) {
    bind_the_other(scene);
    scene.bind(Station::Vnet0, "clean-traffic", &[]).unwrap();
}

/// Writes a definition to be defined, and returns its path.
fn definition(scene: &PortScene, name: &str, rules: &str) -> String {
    let file = scene.sandbox.path(&format!("{name}-to-be.xml"));
    fs::write(&file, format!("<filter name='{name}'>\n{rules}\n</filter>\n")).unwrap();
    file.to_string_lossy().into_owned()
}

pub const BIND: Case = Case {
    name: "bind",
    prepare: bind_the_other,
    command: |scene| {
        words(&["nwfilter", "binding-create", &scene.binding(Station::Vnet0, "inner", &[])])
    },
    see: by_frames,
    is_new: is_bound,
    replaces: false,
    learns: false,
};

pub const BIND_AND_LEARN: Case = Case {
    name: "bind and learn",
    prepare: bind_the_other,
    command: |scene| {
        let binding = scene.binding(Station::Vnet0, "clean-traffic", &[]);
        words(&["nwfilter", "binding-create", &binding])
    },
    see: by_unteaching_frames,
    is_new: is_bound,
    replaces: false,
    learns: true,
};

pub const DEFINE: Case = Case {
    name: "define",
    prepare: bind_both,
    command: |scene| words(&["nwfilter", "define", &definition(scene, "inner", &new_rules())]),
    see: by_frames,
    is_new: |scene| {
        let output = scene.nwfilter(&["dumpxml", "inner"]);
        text(&output.stdout).contains("1002")
    },
    replaces: true,
    learns: false,
};

pub const UNBIND: Case = Case {
    name: "unbind",
    prepare: bind_both,
    command: |_| words(&["nwfilter", "binding-delete", "vnet0"]),
    see: by_frames,
    is_new: |scene| !is_bound(scene),
    replaces: false,
    learns: false,
};

pub const UNBIND_AND_FORGET: Case = Case {
    name: "unbind and forget",
    prepare: |scene| {
        bind_learning(scene);
        teach(scene);
    },
    command: |_| words(&["nwfilter", "binding-delete", "vnet0"]),
    see: by_unteaching_frames,
    is_new: |scene| !is_bound(scene),
    replaces: false,
    learns: true,
};

/// To the other backend. No frame may tell that one is at work.
pub const SWITCH: Case = Case {
    name: "switch",
    prepare: |scene| {
        bind_both(scene);
        set(scene, other_backend(&backend(scene)));
    },
    command: |_| words(&["firewall", "reload"]),
    see: by_frames,
    is_new: |_| false,
    replaces: false,
    learns: false,
};

/// The process that learns, while it puts the address in force.
pub const LEARN: Case = Case {
    name: "learn",
    prepare: |scene| {
        bind_learning(scene);
        let learner = Pid::from_raw(vnet0(scene)["learning"]["pid"].as_i64().unwrap() as i32);
        kill(learner, Signal::SIGKILL).unwrap();
        assert!(wait_until(LIMIT, || !is_listened_to(scene)));
    },
    command: |_| words(&["nwfilter", "binding-learn", "vnet0"]),
    see: by_unteaching_frames,
    is_new: is_learnt,
    replaces: true,
    learns: true,
};

fn backend(scene: &PortScene) -> String {
    let settings = fs::read_to_string(scene.sandbox.path("config/nwfilter.conf")).unwrap();
    settings.split('"').nth(1).unwrap().to_owned()
}

fn other_backend(backend: &str) -> &'static str {
    if backend == "nftables" { "iptables" } else { "nftables" }
}

pub fn set(scene: &PortScene, backend: &str) {
    scene.settings(&format!("firewall_backend = \"{backend}\"\n"));
}
