//! Lists the commands that are killed, with the state before them and their effect.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::LIMIT;
use super::seen::{
    Seen, by_frames, by_frames_without_address, has_learner, is_bound, is_learned, vnet0,
};
use crate::common::frame::{Frame, PEER, VM};
use crate::common::port_scene::{PortScene, Station};
use crate::common::{text, wait_until};

/// Returns rules that drop one ARP operation and datagrams to two ports, of which one is always
/// 1000. They cover both directions and all three tools of iptables.
fn dropping(arp: u16, port: u16) -> String {
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

/// Returns a rule that matches no frame of these tests.
pub fn unrelated(port: u16) -> String {
    format!("<rule action='drop' direction='out'><udp dstportstart='{port}'/></rule>")
}

pub fn old_rules() -> String {
    dropping(1, 1001)
}

fn new_rules() -> String {
    dropping(2, 1002)
}

/// A command to kill.
pub struct Case {
    pub name: &'static str,
    /// Makes the state before the command.
    pub prepare: fn(&PortScene),
    /// Returns the arguments of the command.
    pub command: fn(&PortScene) -> Vec<String>,
    /// Returns which frames pass.
    pub see: fn(&PortScene) -> Seen,
    /// Returns whether the new rules must be in force, by the definitions, bindings and addresses.
    pub is_new: fn(&PortScene) -> bool,
    /// Whether the command replaces a filter of a port. The tools of iptables may close the port
    /// meanwhile.
    pub replaces: bool,
    /// Whether netlaunch learns the address of vnet0.
    pub learns: bool,
}

fn args(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

/// Sends the guest's address until its rules are in force.
pub fn learn_address(scene: &PortScene) {
    let learned = || {
        scene.leaves(&Frame::arp(VM, PEER, 1));
        is_learned(scene)
    };
    assert!(wait_until(LIMIT, learned), "{}", vnet0(scene));
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

/// Writes a filter definition to a file, and returns the path of the file.
fn definition(scene: &PortScene, name: &str, rules: &str) -> String {
    let file = scene.sandbox.path(&format!("{name}-to-be.xml"));
    fs::write(&file, format!("<filter name='{name}'>\n{rules}\n</filter>\n")).unwrap();
    file.to_string_lossy().into_owned()
}

pub const BIND: Case = Case {
    name: "bind",
    prepare: bind_the_other,
    command: |scene| {
        args(&["nwfilter", "binding-create", &scene.binding(Station::Vnet0, "inner", &[])])
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
        args(&["nwfilter", "binding-create", &binding])
    },
    see: by_frames_without_address,
    is_new: is_bound,
    replaces: false,
    learns: true,
};

pub const DEFINE: Case = Case {
    name: "define",
    prepare: bind_both,
    command: |scene| args(&["nwfilter", "define", &definition(scene, "inner", &new_rules())]),
    see: by_frames,
    is_new: |scene| {
        let output = scene.nwfilter(&["dumpxml", "inner"]);
        text(&output.stdout).contains("1002")
    },
    replaces: true,
    learns: false,
};

/// Gives vnet0 another filter.
pub const SWAP: Case = Case {
    name: "swap",
    prepare: |scene| {
        scene.define("newer", &new_rules()).unwrap();
        bind_both(scene);
    },
    command: |_| args(&["nwfilter", "bind", "vnet0", "newer", "--replace"]),
    see: by_frames,
    is_new: |scene| vnet0(scene)["filter"] == "newer",
    replaces: true,
    learns: false,
};

pub const UNBIND: Case = Case {
    name: "unbind",
    prepare: bind_both,
    command: |_| args(&["nwfilter", "binding-delete", "vnet0"]),
    see: by_frames,
    is_new: |scene| !is_bound(scene),
    replaces: false,
    learns: false,
};

pub const UNBIND_AND_FORGET: Case = Case {
    name: "unbind and forget",
    prepare: |scene| {
        bind_learning(scene);
        learn_address(scene);
    },
    command: |_| args(&["nwfilter", "binding-delete", "vnet0"]),
    see: by_frames_without_address,
    is_new: |scene| !is_bound(scene),
    replaces: false,
    learns: true,
};

/// Switches to the other backend. The frames must show no difference.
pub const SWITCH: Case = Case {
    name: "switch",
    prepare: |scene| {
        bind_both(scene);
        set(scene, other_backend(&backend(scene)));
    },
    command: |_| args(&["firewall", "reload"]),
    see: by_frames,
    is_new: |_| false,
    replaces: false,
    learns: false,
};

/// Kills the learner process while it sets the rules with the address.
pub const LEARN: Case = Case {
    name: "learn",
    prepare: |scene| {
        bind_learning(scene);
        let learner = Pid::from_raw(vnet0(scene)["learning"]["pid"].as_i64().unwrap() as i32);
        kill(learner, Signal::SIGKILL).unwrap();
        assert!(wait_until(LIMIT, || !has_learner(scene)));
    },
    command: |_| args(&["nwfilter", "binding-learn", "vnet0"]),
    see: by_frames_without_address,
    is_new: is_learned,
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
