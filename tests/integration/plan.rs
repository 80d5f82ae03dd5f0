//! Compares plans with golden texts: each file in tests/fixtures/plan has requests, as command
//! lines, on hosts that are described by facts, each with the plan's shell text or the refusal. The
//! tests start nothing and do not look at the host. To write new texts, run
//! `NETLAUNCH_BLESS=1 cargo test --test integration plan::`, and read the diff.
//!
//! A case is a head of `KEY: VALUE` lines, a line `>` and the text. Keys:
//! ```text
//! passt:    old (Debian 12), new, none, broken; then -OPTION for one that it lacks,
//!           confined=DIR for an AppArmor profile that allows DIR
//! qemu:     new (reconnect-ms), middle (reconnect), old (neither), none, broken; then -NETDEV
//! host:     routes=SUBNET, dns=SERVER, no-dns (an empty resolv.conf), no-route (no IPv4 default
//!           route), v6 (an IPv6 default route)
//! bridge:   root (may make taps), no-tun, vhost (vhost-net), helper, helper-plain (not setuid),
//! closed (its list
//!           cannot be read), no-list, allow=BRIDGE, deny=BRIDGE; joins=BRIDGE, mtu=BYTES and
//!           rules of what is to be joined, with limits=BANDWIDTH, vlan=ID, trunk=TAGS and isolated
//!           of its ports
//! dir:      the launch directory
//! args:     the command line
//! ```

mod properties;

use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use netlaunch::cli::config::Config;
use netlaunch::cli::plan_shell::shell;
use netlaunch::cli::{parse, request};
use netlaunch::launcher::plan::{
    AddressChoice, Attachment, Backend, Command, Family, LaunchIds, MAX_SOCKET_PATH, NicRequest,
    Plan, PlanError, Request, TapOwner, Transport, plan,
};
use netlaunch::types::facts::{
    AclRule, AclState, BridgeAccess, Confinement, Facts, FirewallScript, Host, Passt, Problem,
    Qemu, Reconnect, RulesOf, TargetBridge,
};
use netlaunch::types::{HostAddress, Mac, PortSettings, Publish, TransientUser};
use proptest::prelude::*;

const OLD: &str = include_str!("../fixtures/probe/passt-2023-03-help.txt");
const NEW: &str = include_str!("../fixtures/probe/passt-2026-10-help.txt");
const LACKING: &str = "install it";

/// The long options of a passt's help.
fn options(help: &str) -> std::collections::BTreeSet<String> {
    help.split_whitespace()
        .filter_map(|word| word.trim_end_matches(',').strip_prefix("--"))
        .map(str::to_owned)
        .collect()
}

fn passt(words: &str) -> Passt {
    let mut passt = Passt { path: Some("/usr/bin/passt".into()), ..Passt::default() };
    for word in words.split_whitespace() {
        match (word, word.strip_prefix('-'), word.strip_prefix("confined=")) {
            ("old", ..) => passt.options = options(OLD),
            ("new", ..) => passt.options = options(NEW),
            ("none", ..) => {
                let problem = Problem::new("passt is not installed", LACKING);
                passt = Passt { problem: Some(problem), ..Passt::default() };
            }
            ("broken", ..) => {
                passt.problem = Some(Problem::new("/usr/bin/passt gave no help", LACKING));
            }
            (_, Some(option), _) => assert!(passt.options.remove(option), "{words}"),
            (_, _, Some(dir)) => {
                let writable = vec![PathBuf::from(dir)];
                passt.confinement = Some(Confinement { profile: "passt".into(), writable });
            }
            _ => panic!("passt: {words}"),
        }
    }
    passt
}

fn qemu(words: &str) -> Qemu {
    let netdevs = ["user", "tap", "bridge", "socket", "stream", "vhost-user"].map(str::to_owned);
    let mut qemu = Qemu {
        path: Some("/usr/bin/qemu-system-x86_64".into()),
        netdevs: netdevs.into(),
        ..Qemu::default()
    };
    for word in words.split_whitespace() {
        match (word, word.strip_prefix('-')) {
            ("new", _) => qemu.reconnect = Reconnect::Milliseconds,
            ("middle", _) => qemu.reconnect = Reconnect::Seconds,
            ("old", _) => qemu.reconnect = Reconnect::No,
            ("silent", _) => qemu.reconnect = Reconnect::Unknown,
            ("none", _) => {
                let problem = Problem::new("qemu is not installed", LACKING);
                qemu = Qemu { problem: Some(problem), ..Qemu::default() };
            }
            ("card", _) => qemu.default_card = Some(true),
            ("broken", _) => {
                let why = "/usr/bin/qemu-system-x86_64 does not look like QEMU";
                qemu.problem = Some(Problem::new(why, LACKING));
            }
            (_, Some(netdev)) => assert!(qemu.netdevs.remove(netdev), "{words}"),
            _ => panic!("qemu: {words}"),
        }
    }
    qemu
}

fn host(words: &str) -> Host {
    let mut host = Host { default_v4: Some("eth0".into()), ..Host::default() };
    for word in words.split_whitespace() {
        match word.split_once('=') {
            None if word == "no-route" => host.default_v4 = None,
            None if word == "no-dns" => {
                host.resolvers_problem = Some("/etc/resolv.conf names no DNS server".to_owned());
            }
            None if word == "v6" => host.default_v6 = Some("eth0".into()),
            Some(("routes", subnet)) => host.routes.push(subnet.parse().unwrap()),
            Some(("dns", server)) => host.resolvers.push(server.parse().unwrap()),
            _ => panic!("host: {words}"),
        }
    }
    host
}

fn bridge(words: &str) -> (BridgeAccess, Option<TargetBridge>) {
    let mut bridge = BridgeAccess { tun: true, ..BridgeAccess::default() };
    bridge.acl.file = "/etc/qemu/bridge.conf".into();
    bridge.acl.state = AclState::Read;
    let mut target: Option<TargetBridge> = None;
    for word in words.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("root", _) => bridge.net_admin = true,
            ("no-tun", _) => bridge.tun = false,
            ("vhost", _) => bridge.vhost_net.usable = true,
            ("helper", _) => bridge.helper = Some("/usr/lib/qemu/qemu-bridge-helper".into()),
            ("helper-plain", _) => {
                bridge.helper = Some("/usr/lib/qemu/qemu-bridge-helper".into());
                let problem = Problem::new("the helper is not setuid", "make it setuid");
                bridge.helper_problem = Some(problem);
            }
            ("closed", _) => bridge.acl.state = AclState::Unreadable,
            ("no-list", _) => bridge.acl.state = AclState::Missing,
            (verb @ ("allow" | "deny"), name) => {
                let name = Some(name.to_owned()).filter(|name| name != "all");
                bridge.acl.rules.push(AclRule { allow: verb == "allow", bridge: name });
            }
            ("joins", name) => {
                let (bridge, firewall) = (name.parse().unwrap(), Vec::new());
                target = Some(TargetBridge {
                    bridge,
                    mtu: 1500,
                    port: PortSettings::default(),
                    firewall,
                });
            }
            ("isolated", _) => target.as_mut().unwrap().port.isolated = true,
            ("vlan", id) => target.as_mut().unwrap().port.vlan = Some(id.parse().unwrap()),
            ("trunk", tags) => {
                let vlan = format!("trunk {}", tags.replace(':', " ")).parse().unwrap();
                target.as_mut().unwrap().port.vlan = Some(vlan);
            }
            ("limits", text) => {
                target.as_mut().unwrap().port.bandwidth = text.parse().unwrap();
            }
            ("mtu", bytes) => target.as_mut().unwrap().mtu = bytes.parse().unwrap(),
            ("filter", _) => {
                let args = ["-f", "-"].map(str::to_owned).into();
                let input = "add table bridge t\n".into();
                let script =
                    FirewallScript { of: RulesOf::Port, program: "nft".into(), args, input };
                target.as_mut().unwrap().firewall.push(script);
            }
            ("rules", _) => {
                let args = ["-f", "-"].map(str::to_owned).into();
                let input = "add table ip t\nadd chain ip t c\n".into();
                let script =
                    FirewallScript { of: RulesOf::Network, program: "nft".into(), args, input };
                target.as_mut().unwrap().firewall.push(script);
            }
            _ => panic!("bridge: {words}"),
        }
    }
    (bridge, target)
}

/// One case of a file: its head as it stands there, and the text expected.
struct Case<'a> {
    head: &'a str,
    expected: &'a str,
}

impl Case<'_> {
    fn value(&self, key: &str) -> &str {
        let prefix = format!("{key}:");
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().trim()
    }

    fn outcome(&self) -> String {
        for line in self.head.lines().filter(|line| !line.starts_with('#')) {
            let key = line.split(':').next().unwrap();
            assert!(["passt", "qemu", "host", "bridge", "dir", "args"].contains(&key), "{line}");
        }
        let or = |key, default| match self.value(key) {
            "" => default,
            value => value,
        };
        let (bridge, target) = bridge(self.value("bridge"));
        let mut host = host(self.value("host"));
        host.root = bridge.net_admin;
        let facts = Facts {
            passt: passt(or("passt", "new")),
            qemu: qemu(or("qemu", "new")),
            host,
            bridge,
            target,
            ..Facts::default()
        };
        let passt_user = TransientUser { uid: 1_900_000_000, gid: 1_900_000_000 };
        let launch_ids = LaunchIds {
            dir: or("dir", "/run/netlaunch/launch-abcdefgh").into(),
            mac: "52:54:00:12:34:56".parse().unwrap(),
            qemu_fds: (7..40).collect(),
            free_ports: Vec::new(),
            passt_users: facts.host.root.then_some(passt_user).into_iter().collect(),
        };
        let words = shell_words::split(self.value("args")).unwrap();
        let words = std::iter::once("netlaunch".to_owned()).chain(words).map(OsString::from);
        let args = match parse::parse(words) {
            Ok(args) => args.launch,
            Err(parse::Stop::Usage(error)) => return format!("usage: {error}\n"),
            Err(stop) => panic!("{stop:?}"),
        };
        let job = match request::job(&args, &Config::default()) {
            Ok(job) => job,
            Err(error) => return format!("usage: {error}\n"),
        };
        match plan(&job.request, &facts, &launch_ids) {
            Ok(plan) => shell(&plan),
            Err(error) if error.is_usage() => format!("usage: {error}\n"),
            Err(error) => format!("error: {error}\n"),
        }
    }
}

/// The cases of a file: heads and texts, separated by lines of `>`, and empty lines between cases.
fn cases(text: &str) -> Vec<Case<'_>> {
    text.split("\n\n")
        .map(str::trim)
        .filter(|block| block.lines().any(|line| !line.starts_with('#')))
        .map(|block| {
            let (head, expected) = block.split_once("\n>").unwrap_or((block, ""));
            Case { head, expected: expected.trim_start() }
        })
        .collect()
}

#[test]
fn plans_equal_the_golden_texts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/plan");
    let bless = std::env::var_os("NETLAUNCH_BLESS").is_some();
    let mut count = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let mut fresh = String::new();
        for case in cases(&text) {
            let outcome = case.outcome();
            if !bless {
                assert_eq!(
                    outcome.trim(),
                    case.expected.trim(),
                    "{}:\n{}",
                    path.display(),
                    case.head
                );
            }
            let gap = if fresh.is_empty() { "" } else { "\n" };
            fresh.push_str(&format!("{gap}{}\n>\n{}\n", case.head, outcome.trim_end()));
            count += 1;
        }
        if bless {
            fs::write(&path, fresh).unwrap();
        }
    }
    assert!(count > 60, "{count} cases in {}", dir.display());
}

/// passt's arguments about DNS for a host with these servers, and then with others; `None` where
/// passt stays as it is.
fn dns_after(passt_words: &str, options: &str, before: &str, after: &str) -> Option<String> {
    let servers = |text: &str| text.split(' ').map(|s| s.parse().unwrap()).collect::<Vec<IpAddr>>();
    let mut facts = Facts { passt: passt(passt_words), qemu: qemu("new"), ..Facts::default() };
    facts.host.default_v4 = Some("eth0".into());
    facts.host.default_v6 = Some("eth0".into());
    facts.host.resolvers = servers(before);
    let words = ["netlaunch"].into_iter().chain(options.split_whitespace());
    let args = parse::parse(words.map(OsString::from)).unwrap().launch;
    let job = request::job(&args, &Config::default()).unwrap();
    let launch_ids = LaunchIds {
        dir: "/run/l".into(),
        mac: "52:54:00:12:34:56".parse().unwrap(),
        qemu_fds: vec![7],
        free_ports: Vec::new(),
        passt_users: Vec::new(),
    };
    let plan = plan(&job.request, &facts, &launch_ids).unwrap().nics.first().passt.clone().unwrap();
    let changed = plan.with_resolvers(&servers(after))?;
    assert_eq!(changed.with_resolvers(&servers(after)), None, "the same servers again");
    let back = changed.with_resolvers(&servers(before)).unwrap();
    assert_eq!(back.argv, plan.argv, "the first servers again");
    let words: Vec<&str> = changed.argv.iter().map(|word| word.to_str().unwrap()).collect();
    let pairs = words.windows(2).filter(|pair| pair[0].starts_with("--dns"));
    Some(pairs.map(|pair| format!("{} {} ", pair[0], pair[1])).collect())
}

#[test]
fn passt_is_replaced_only_for_servers_that_change_the_guests_dns() {
    let new = "--dns-forward 10.0.2.3 --dns 10.0.2.3 --dns-host 10.8.0.1 ";
    let old = "--dns-forward 192.0.2.53 --dns 0.0.0.0 --dns 192.0.2.53 ";
    let gateway = "--dns-forward 10.0.2.2 --dns 0.0.0.0 --dns 10.0.2.2 ";
    for (passt, options, before, after, expected) in [
        ("new", "", "192.0.2.53", "10.8.0.1", Some(new)),
        ("new", "", "192.0.2.53", "192.0.2.53 127.0.0.53", None),
        ("new", "--ipv4-only", "192.0.2.53", "192.0.2.53 2001:db8::1", None),
        ("new", "--dns 9.9.9.9", "192.0.2.53", "10.8.0.1", None),
        ("old", "", "192.0.2.53", "10.8.0.1", Some(old)),
        ("old", "", "127.0.0.1", "10.8.0.1", Some(gateway)),
        ("old", "", "127.0.0.53", "10.8.0.1", Some(gateway)),
        ("old", "--dns 9.9.9.9", "192.0.2.53", "10.8.0.1", None),
        ("old", "", "192.0.2.53", "192.0.2.53", None),
    ] {
        let got = dns_after(passt, options, before, after);
        assert_eq!(got.as_deref(), expected, "{passt} {options}: {before}, then {after}");
    }
}
