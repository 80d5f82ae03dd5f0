//! The firewall's tools end in every bad way: killed before their work or after it, with an error
//! after it, with success without it, and nft with lost messages to and from the kernel. Rules and
//! records agree then, no other backend is selected, and the next command leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::frame::{Frame, PEER, VM};
use common::port_scene::{PortScene, Station};
use common::{As, Netns, Sandbox, finish, have_root, processes_with, run, text};

const NAT: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000096</uuid>\
    <forward mode='nat'/><bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:96'/>\
    <ip address='10.96.0.1' netmask='255.255.255.0'/>\
    <ip family='ipv6' address='fd00:96::1' prefix='64'/></network>";

/// How a tool ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bad {
    /// Killed after its work.
    KilledAfter,
    /// Killed before its work.
    KilledBefore,
    /// Success without having read its input.
    Ignores,
    /// An error after its work.
    FailsAfter,
    /// nft: this system call fails with ENOBUFS at this occurrence.
    Lost(&'static str, usize),
    /// nft: killed at the entry to this system call.
    KilledAt(&'static str, usize),
}

impl Bad {
    const ANY: [Bad; 4] = [Bad::KilledAfter, Bad::KilledBefore, Bad::Ignores, Bad::FailsAfter];

    /// Those of each tool, and those of nft's own calls. nft sends its transaction by sendmsg and
    /// reads the kernel's answers by recvmsg.
    fn of_nft() -> Vec<Bad> {
        let calls = [("sendmsg", 1..3), ("recvmsg", 1..12)];
        let of = |(call, times): (&'static str, std::ops::Range<usize>)| {
            times.flat_map(move |n| [Bad::Lost(call, n), Bad::KilledAt(call, n)])
        };
        Bad::ANY.into_iter().chain(calls.into_iter().flat_map(of)).collect()
    }

    /// A script that ends so.
    fn script(self, real: &str) -> String {
        // What only asks is done.
        let ask = format!("case \"$*\" in *list*|*--check*|*-c*) exec {real} \"$@\";; esac\n");
        let strace = "exec /usr/bin/strace -qq -o /dev/null -e signal=none";
        ask + &match self {
            Bad::KilledAfter => format!("{real} \"$@\"; kill -9 $$"),
            Bad::KilledBefore => "kill -9 $$".to_owned(),
            Bad::Ignores => "exit 0".to_owned(),
            Bad::FailsAfter => format!("{real} \"$@\"; echo 'Error: no buffers' >&2; exit 1"),
            Bad::Lost(call, n) => {
                format!("{strace} -e inject={call}:error=ENOBUFS:when={n} {real} \"$@\"")
            }
            Bad::KilledAt(call, n) => {
                format!("{strace} -e inject={call}:signal=KILL:when={n} {real} \"$@\"")
            }
        }
    }
}

/// A directory of the sandbox for PATH in which these tools end so.
fn path(sandbox: &Sandbox, tools: &[&str], bad: Bad) -> String {
    let dir = sandbox.path("wrapped");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    for tool in tools {
        let script = sandbox.script(tool, &bad.script(&format!("/usr/sbin/{tool}")));
        fs::rename(script, dir.join(tool)).unwrap();
    }
    format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", dir.display())
}

const NFT: [&str; 1] = ["nft"];
const IPTABLES: [&str; 3] = ["iptables-restore", "ip6tables-restore", "ebtables-restore"];

/// The tools of a backend, and how they may end.
fn ends(backend: &str) -> (&'static [&'static str], Vec<Bad>) {
    match backend {
        "nftables" => (&NFT, Bad::of_nft()),
        _ => (&IPTABLES, Bad::ANY.to_vec()),
    }
}

fn one_line(output: &Output, about: &str) {
    let said = text(&output.stderr);
    assert!(output.status.code().is_some(), "{about}: {:?}: {said}", output.status);
    if !output.status.success() {
        assert_eq!(said.lines().count(), 1, "{about}: {said}");
    }
}

/// A host for networks.
struct Host {
    // Dropped first: what it ends lives in the namespace.
    sandbox: Sandbox,
    netns: Netns,
}

impl Host {
    /// A host that uses iptables, or chooses.
    fn new(backend: &str) -> Self {
        let netns = Netns::routed();
        let sandbox = Sandbox::new(As::Root, Some(&netns));
        fs::create_dir_all(sandbox.path("config/networks")).unwrap();
        fs::write(sandbox.path("config/networks/lab.xml"), NAT).unwrap();
        let host = Host { sandbox, netns };
        host.set(backend);
        // The tools' own tables stay.
        host.sh(
            "for t in iptables ip6tables; do for c in INPUT OUTPUT FORWARD; do $t -A $c -j ACCEPT; \
             done; $t -t nat -A POSTROUTING -o x9 -j MASQUERADE; done",
        );
        host
    }

    fn set(&self, backend: &str) {
        let line = match backend {
            "iptables" => "firewall_backend = \"iptables\"\n",
            _ => "",
        };
        fs::write(self.sandbox.path("config/network.conf"), line).unwrap();
    }

    fn sh(&self, script: &str) -> String {
        let output = run("ip", &["netns", "exec", &self.netns.name, "sh", "-ec", script]);
        assert!(output.status.success(), "{script}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Rules, links and statuses.
    fn state(&self) -> String {
        let seen = self.sh("nft -s list ruleset; iptables-save; ip6tables-save; ip -o link");
        let mut state: String = seen
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(" [").next().unwrap_or(line).to_owned() + "\n")
            .collect();
        let dir = self.sandbox.state().join("networks");
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name() != ".lock" {
                state += &format!("left: {:?}\n", entry.path());
            }
        }
        state
    }

    /// The backends that have rules.
    fn backends(&self) -> Vec<&'static str> {
        let state = self.state();
        let has = |(word, backend)| state.contains(word).then_some(backend);
        let all = [("netlaunch_network", "nftables"), ("NETLAUNCH_", "iptables")];
        all.into_iter().filter_map(has).collect()
    }

    fn good(&self, line: &str, about: &str) {
        let output = finish(self.sandbox.netlaunch(&line.split(' ').collect::<Vec<_>>()));
        assert!(output.status.success(), "{about}: {line}: {}", text(&output.stderr));
    }

    fn with(&self, line: &str, path: &str) -> Output {
        let mut command = self.sandbox.netlaunch(&line.split(' ').collect::<Vec<_>>());
        command.env("PATH", path);
        finish(command)
    }
}

/// How many commands succeeded and failed.
#[derive(Debug, Default)]
struct Count {
    done: usize,
    failed: usize,
}

impl Count {
    fn add(&mut self, output: &Output) -> bool {
        let success = output.status.success();
        *(if success { &mut self.done } else { &mut self.failed }) += 1;
        success
    }
}

fn a_network_is_all_there_or_not_at_all(backend: &str) {
    if !have_root("a_network_is_all_there_or_not_at_all") {
        return;
    }
    let host = Host::new(backend);
    let before = host.state();
    host.good("network start lab", "");
    let running = host.state();
    assert_eq!(host.backends(), [backend]);
    host.good("network destroy lab", "");
    assert_eq!(host.state(), before);
    let (tools, ends) = ends(backend);
    let mut count = Count::default();
    for bad in ends {
        let path = path(&host.sandbox, tools, bad);
        let about = format!("{backend}: start, {bad:?}");
        let output = host.with("network start lab", &path);
        // What undoing a failed start says are lines of their own.
        let said = text(&output.stderr);
        match count.add(&output) {
            true => {
                assert_eq!(without_numbers(&host.state()), without_numbers(&running), "{about}")
            }
            false => assert_eq!(host.state(), before, "{about}: {said}"),
        }
        if output.status.success() {
            host.good("firewall reload", &about);
            let about = format!("{backend}: reload, {bad:?}");
            count.add(&host.with("firewall reload", &path));
            assert_eq!(host.backends(), [backend], "{about}");
            host.good("firewall reload", &about);
            host.good("network destroy lab", &about);
        } else {
            host.good("network start lab", &about);
            let output = host.with("firewall reload", &path);
            one_line(&output, &about);
            assert_eq!(host.backends(), [backend], "{about}");
            host.good("network destroy lab", &about);
        }
        assert_eq!(host.state(), before, "{about}");
    }
    println!("{backend}: {count:?}");
    assert!(count.done > 0 && count.failed > 0, "{count:?}");
}

/// A state without the numbers of interfaces.
fn without_numbers(state: &str) -> String {
    let line = |line: &str| match line.split_once(": ") {
        Some((number, rest)) if number.parse::<u32>().is_ok() => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    state.lines().map(line).collect()
}

#[test]
fn a_network_is_all_there_or_not_at_all_with_nftables() {
    a_network_is_all_there_or_not_at_all("nftables");
}

#[test]
fn a_network_is_all_there_or_not_at_all_with_iptables() {
    a_network_is_all_there_or_not_at_all("iptables");
}

#[test]
fn a_destroy_whose_tool_was_killed_after_its_work_leaves_nothing() {
    if !have_root("a_destroy_whose_tool_was_killed_after_its_work_leaves_nothing") {
        return;
    }
    for (backend, tools) in [("nftables", &NFT[..]), ("iptables", &IPTABLES[..])] {
        let host = Host::new(backend);
        let before = host.state();
        for bad in [Bad::KilledAfter, Bad::FailsAfter] {
            host.good("network start lab", backend);
            let output = host.with("network destroy lab", &path(&host.sandbox, tools, bad));
            assert!(output.status.success(), "{backend}, {bad:?}: {}", text(&output.stderr));
            assert_eq!(host.state(), before, "{backend}, {bad:?}");
        }
    }
}

/// Only a refusal of a tool that did nothing selects another backend.
#[test]
fn a_killed_tool_selects_no_other_backend() {
    if !have_root("a_killed_tool_selects_no_other_backend") {
        return;
    }
    let host = Host::new("nftables");
    let before = host.state();
    let output = host.with("network start lab", &path(&host.sandbox, &NFT, Bad::KilledBefore));
    assert!(text(&output.stderr).contains("nft was killed by signal 9"), "{output:?}");
    assert_eq!((output.status.code(), host.state()), (Some(125), before.clone()));
    // Its own refusal does.
    let refuses = host.sandbox.script("nft", "echo 'Error: no nf_tables here' >&2; exit 1");
    let dir = host.sandbox.path("refusing");
    fs::create_dir(&dir).unwrap();
    fs::rename(refuses, dir.join("nft")).unwrap();
    let output = host.with("network start lab", &format!("{}:/usr/sbin:/usr/bin", dir.display()));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(host.backends(), ["iptables"]);
    host.good("network destroy lab", "");
    assert_eq!(host.state(), before);
}

/// strace makes fork(2) of netlaunch fail: the guard of the tool cannot be made.
#[test]
fn a_shortage_at_a_tools_start_is_retried_and_selects_no_other_backend() {
    if !have_root("a_shortage_at_a_tools_start_is_retried_and_selects_no_other_backend") {
        return;
    }
    let host = Host::new("nftables");
    let before = host.state();
    for (when, starts) in [("1", true), ("1..3", true), ("1+", false)] {
        let mut command = host.sandbox.program(Path::new("/usr/bin/strace"));
        let calls = "clone,clone3,fork,vfork";
        command.args(["-qq", "-e", "signal=none", "-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={calls}:error=EAGAIN:when={when}")]);
        command.arg("-o").arg(host.sandbox.path("run/calls"));
        command.arg(host.sandbox.path("bin/netlaunch")).args(["network", "start", "lab"]);
        let output = finish(command);
        assert_eq!(output.status.success(), starts, "{when}: {}", text(&output.stderr));
        if starts {
            assert_eq!(host.backends(), ["nftables"], "{when}");
            host.good("network destroy lab", when);
        } else {
            assert!(text(&output.stderr).contains("nft cannot be started now"), "{output:?}");
        }
        assert_eq!(host.state(), before, "{when}");
    }
}

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
