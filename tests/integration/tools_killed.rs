//! Tests networks whose firewall tools end in every bad way. Rules and records then agree,
//! netlaunch selects no other backend, and the next command leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::common::bad_tools::{Bad, Count, IPTABLES, NFT, ends, one_line, path};
use crate::common::{As, Netns, Sandbox, finish, have_root, text};

const NAT: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000096</uuid>\
    <forward mode='nat'/><bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:96'/>\
    <ip address='10.96.0.1' netmask='255.255.255.0'/>\
    <ip family='ipv6' address='fd00:96::1' prefix='64'/></network>";

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
        self.netns.sh(script)
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
        // The undo of a failed start writes lines of its own.
        let said = text(&output.stderr);
        if count.add(&output) {
            assert_eq!(without_numbers(&host.state()), without_numbers(&running), "{about}")
        } else {
            assert_eq!(host.state(), before, "{about}: {said}")
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
fn a_network_is_complete_or_absent_with_nftables() {
    a_network_is_all_there_or_not_at_all("nftables");
}

#[test]
fn a_network_is_complete_or_absent_with_iptables() {
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
    for (when, starts) in [("1", true), ("1..3", true), ("1..5", false), ("1+", false)] {
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
