//! netlaunch is killed at every step of putting filters on ports, changing them there and taking
//! them away: a port is under the old rules or the new ones, the next command repairs what is left,
//! and in the end nothing of ours is there.
//!
//! Which rules a port is under is told by frames: some pass under the old rules, some under the new
//! ones, some under both, some under neither. nft changes all ports at once. The three tools of
//! iptables do so one after the other: each frame is judged as by the old rules or as by the new
//! ones, and while a filter is replaced its ports may drop everything.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use common::frame::{Frame, Host, OTHER, PEER, VM};
use common::killed::{self, Moment};
use common::port_scene::{PortScene, Station, done};
use common::{Reaped, have_root, run, start, text, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// What has to come comes within this.
const LIMIT: Duration = Duration::from_secs(20);

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
fn unrelated(port: u16) -> String {
    format!("<rule action='drop' direction='out'><udp dstportstart='{port}'/></rule>")
}

fn old_rules() -> String {
    refused(1, 1001)
}

fn new_rules() -> String {
    refused(2, 1002)
}

/// Whether each of these frames passes, in this order, at both ports.
type Seen = Vec<bool>;

/// What tells the old rules, the new ones and none apart.
fn by_frames(scene: &PortScene) -> Seen {
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
fn by_unteaching_frames(scene: &PortScene) -> Seen {
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

/// A command that is killed.
struct Case {
    name: &'static str,
    /// Makes the state before it.
    prepare: fn(&PortScene),
    /// The command.
    command: fn(&PortScene) -> Vec<String>,
    /// Which frames pass.
    see: fn(&PortScene) -> Seen,
    /// Whether definitions, bindings and addresses say that the new rules are to be in force.
    is_new: fn(&PortScene) -> bool,
    /// Whether it replaces a filter of a port, which iptables' tools may then close.
    replaces: bool,
    /// Whether the address of vnet0 is learnt.
    learns: bool,
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn is_bound(scene: &PortScene) -> bool {
    vnet0(scene) != Value::Null
}

/// What `binding-list` says of vnet0.
fn vnet0(scene: &PortScene) -> Value {
    let list = scene.list();
    let bindings = list["bindings"].as_array().unwrap();
    bindings.iter().find(|binding| binding["port"] == "vnet0").cloned().unwrap_or_default()
}

fn is_learnt(scene: &PortScene) -> bool {
    vnet0(scene)["learning"]["address"] == VM.v4.to_string()
}

fn is_listened_to(scene: &PortScene) -> bool {
    vnet0(scene)["learning"]["pid"].is_u64()
}

/// The guest says its address until it is in force.
fn teach(scene: &PortScene) {
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

const BIND: Case = Case {
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

const BIND_AND_LEARN: Case = Case {
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

const DEFINE: Case = Case {
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

const UNBIND: Case = Case {
    name: "unbind",
    prepare: bind_both,
    command: |_| words(&["nwfilter", "binding-delete", "vnet0"]),
    see: by_frames,
    is_new: |scene| !is_bound(scene),
    replaces: false,
    learns: false,
};

const UNBIND_AND_FORGET: Case = Case {
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
const SWITCH: Case = Case {
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
const LEARN: Case = Case {
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

fn set(scene: &PortScene, backend: &str) {
    scene.settings(&format!("firewall_backend = \"{backend}\"\n"));
}

/// What runs in the scene's namespace: process numbers and command lines.
fn processes(scene: &PortScene) -> Vec<(i32, String)> {
    let pids = text(&run("ip", &["netns", "pids", &scene.netns.name]).stdout);
    let line = |pid: i32| Some(text(&fs::read(format!("/proc/{pid}/cmdline")).ok()?));
    let pids = pids.lines().filter_map(|pid| pid.trim().parse().ok());
    pids.filter_map(|pid| Some((pid, line(pid)?.replace('\0', " ")))).collect()
}

/// The files below the state directory but for locks, and what is unfinished of definitions.
fn files(scene: &PortScene) -> Vec<String> {
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
fn rules(scene: &PortScene) -> Vec<String> {
    let mut chain = String::new();
    let mut rules: Vec<String> = scene
        .ruleset()
        .lines()
        .map(|line| {
            let line = line.trim();
            if line.starts_with("chain ") || line.starts_with("table ") || line.starts_with('*') {
                chain = line.to_owned();
            }
            format!("{chain} {line}")
        })
        .collect();
    rules.sort();
    rules
}

fn are_the_same(is: &[String], expected: &[String], about: &str) {
    let but = |all: &[String], others: &[String]| -> Vec<String> {
        all.iter().filter(|line| !others.contains(line)).cloned().collect()
    };
    let (more, less) = (but(is, expected), but(expected, is));
    assert!(is == expected, "{about}: too many {more:#?}, too few {less:#?}");
}

/// Kills the learner while the guest says its address, or after that is in force. Returns whether it
/// came to the moment.
fn learner_killed(scene: &PortScene, at: Option<&Moment>) -> bool {
    let args = (LEARN.command)(scene);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut strace: Reaped = start(killed::traced(&scene.sandbox, &args, at));
    let mut ended = None;
    let done = || {
        scene.leaves(&Frame::arp(VM, PEER, 1));
        ended = strace.0.try_wait().unwrap();
        ended.is_some() || is_learnt(scene)
    };
    assert!(wait_until(LIMIT, done), "{at:?}: {}", vnet0(scene));
    if ended.is_none() {
        // A last moment can come after the status says so.
        let exits = || {
            ended = strace.0.try_wait().unwrap();
            ended.is_some()
        };
        if !wait_until(Duration::from_millis(100), exits) {
            let pid = vnet0(scene)["learning"]["pid"].as_i64().unwrap();
            kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
            strace.output(LIMIT);
            return false;
        }
    }
    killed::was_killed(ended.unwrap())
}

/// One case on one backend.
struct Killing<'a> {
    scene: &'a PortScene,
    case: &'a Case,
    backend: &'a str,
    /// Which frames pass before the command and after it.
    old: Seen,
    new: Seen,
    /// The rules of others.
    before: Vec<String>,
}

impl Killing<'_> {
    fn is_learner(&self) -> bool {
        self.case.name == LEARN.name
    }

    /// Waits until the tools that were at work are gone; learners may be there.
    fn rest(&self, about: &str) {
        let at_rest = || {
            let other =
                |(_, line): &(i32, String)| self.is_learner() || !line.contains(" binding-learn ");
            !processes(self.scene).iter().any(other)
        };
        assert!(wait_until(LIMIT, at_rest), "{about}: {:?}", processes(self.scene));
    }

    /// Every frame is judged as by the old rules or as by the new ones; by nft all alike.
    fn is_old_or_new(&self, about: &str) {
        let (seen, old, new) = ((self.case.see)(self.scene), &self.old, &self.new);
        let states = format!("{about}:\nseen {seen:?}\nold  {old:?}\nnew  {new:?}");
        if self.backend == "nftables" {
            assert!(seen == *old || seen == *new, "{states}");
        }
        for ((seen, old), new) in seen.iter().zip(old).zip(new) {
            assert!(!seen || *old || *new, "open where both are closed: {states}");
            let may_close = self.case.replaces || !old || !new;
            assert!(*seen || may_close, "closed where both are open: {states}");
        }
    }

    /// Some command that has to do with none of the ports.
    fn next_command(&self, i: usize, about: &str) {
        let scene = self.scene;
        let done = match i % 4 {
            0 => scene.bind(Station::Peer, "unrelated", &[]),
            1 => done(scene.nwfilter(&["binding-delete", "peer0"])),
            2 => scene.define("unrelated", &unrelated(2000 + i as u16)),
            _ => self.reload(),
        };
        done.unwrap_or_else(|error| panic!("{about}: {error}"));
    }

    fn reload(&self) -> Result<(), String> {
        done(common::finish(self.scene.sandbox.netlaunch(&["firewall", "reload"])))
    }

    /// Rules, definitions and bindings agree, and a reload has nothing to mend.
    fn is_repaired(&self, about: &str) {
        let scene = self.scene;
        let unfinished: Vec<_> = files(scene)
            .into_iter()
            .filter(|file| file.contains("bindings/.") || file.contains("leases/."))
            .collect();
        assert!(unfinished.is_empty(), "{about}: {unfinished:?}");
        if self.case.learns && is_bound(scene) {
            assert!(wait_until(LIMIT, || is_listened_to(scene)), "{about}: {}", vnet0(scene));
        }
        let agrees = || {
            let expected = if (self.case.is_new)(scene) { &self.new } else { &self.old };
            (self.case.see)(scene) == *expected
        };
        // What was learnt before is put in force by whoever learns now.
        let limit = if self.case.learns { LIMIT } else { Duration::ZERO };
        assert!(
            wait_until(limit, agrees),
            "{about}:\nseen {:?}\nold  {:?}\nnew  {:?}\nis to be new: {}",
            (self.case.see)(scene),
            self.old,
            self.new,
            (self.case.is_new)(scene)
        );
        if self.case.learns && is_bound(scene) {
            teach(scene);
        }
        if self.case.name == SWITCH.name {
            // What another command bound meanwhile has the backend that was to be.
            if scene.list()["bindings"].to_string().contains("peer0") {
                scene.unbind(Station::Peer);
            }
            let backends = [Station::Vnet0, Station::Vnet1].map(|port| scene.backend_of(port));
            assert_eq!(backends[0], backends[1], "{about}");
            set(scene, &backends[0]);
        }
        let is = rules(scene);
        self.reload().unwrap();
        are_the_same(&is, &rules(scene), about);
    }

    /// Takes everything away, and looks for what is left.
    fn end(&self, about: &str) {
        let scene = self.scene;
        for binding in scene.list()["bindings"].as_array().unwrap() {
            done(scene.nwfilter(&["binding-delete", binding["port"].as_str().unwrap()])).unwrap();
        }
        set(scene, self.backend);
        scene.define("inner", &old_rules()).unwrap();
        self.reload().unwrap();
        let none = || processes(scene).is_empty();
        assert!(wait_until(LIMIT, none), "{about}: {:?}", processes(scene));
        assert_eq!(files(scene), [] as [String; 0], "{about}");
        are_the_same(&rules(scene), &self.before, about);
    }
}

fn kill_at_every_moment(case: &Case, backend: &str) {
    if !have_root(case.name) {
        return;
    }
    let scene = &PortScene::new(Some(backend));
    scene.foreign_rules();
    scene.define("unrelated", &unrelated(1999)).unwrap();
    scene.define("inner", &old_rules()).unwrap();
    scene.define("outer", "<filterref filter='inner'/>").unwrap();
    let mut killing =
        Killing { scene, case, backend, old: vec![], new: vec![], before: rules(scene) };
    let command = || (case.command)(scene);
    (case.prepare)(scene);
    killing.old = (case.see)(scene);
    let moments = if killing.is_learner() {
        learner_killed(scene, None);
        killed::noted(&scene.sandbox)
    } else {
        let args = command();
        killed::moments(&scene.sandbox, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    killing.new = (case.see)(scene);
    let same = case.name == SWITCH.name;
    assert_eq!(killing.old == killing.new, same, "{:?}", killing.old);
    killing.end("undisturbed");
    let mut came = 0;
    for (i, at) in moments.iter().enumerate() {
        let about = &format!("{backend}: {} killed before {at}", case.name);
        if i % 4 == 1 {
            scene.bind(Station::Peer, "unrelated", &[]).unwrap();
        }
        (case.prepare)(scene);
        let args = command();
        came += usize::from(if killing.is_learner() {
            learner_killed(scene, Some(at))
        } else {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            killed::killed(&scene.sandbox, &args, at)
        });
        killing.rest(about);
        killing.is_old_or_new(about);
        killing.next_command(i, about);
        killing.is_repaired(about);
        killing.end(about);
    }
    println!("{backend}: {} killed at {came} of {} moments", case.name, moments.len());
    assert!(came * 10 > moments.len() * 8, "{came} of {}", moments.len());
}

/// A test for each case and backend, since they take their time.
macro_rules! killed {
    ($($test:ident: $case:expr, $backend:literal;)*) => {
        $(#[test]
        fn $test() {
            kill_at_every_moment(&$case, $backend);
        })*
    };
}

killed! {
    bind_with_nftables: BIND, "nftables";
    bind_with_iptables: BIND, "iptables";
    bind_and_learn_with_nftables: BIND_AND_LEARN, "nftables";
    bind_and_learn_with_iptables: BIND_AND_LEARN, "iptables";
    define_with_nftables: DEFINE, "nftables";
    define_with_iptables: DEFINE, "iptables";
    unbind_with_nftables: UNBIND, "nftables";
    unbind_with_iptables: UNBIND, "iptables";
    unbind_and_forget_with_nftables: UNBIND_AND_FORGET, "nftables";
    unbind_and_forget_with_iptables: UNBIND_AND_FORGET, "iptables";
    switch_from_nftables: SWITCH, "nftables";
    switch_from_iptables: SWITCH, "iptables";
    learn_with_nftables: LEARN, "nftables";
    learn_with_iptables: LEARN, "iptables";
}
