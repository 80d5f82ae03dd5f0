//! Compares plans with golden texts: each file in tests/fixtures/plan has requests, as command lines,
//! on hosts that are described by facts, each with the plan's shell text or the refusal. The tests
//! start nothing and do not look at the host. To write new texts, run
//! `NETLAUNCH_BLESS=1 cargo test --test integration plan::`, and read the diff.
//!
//! A case is a head of `KEY: VALUE` lines, a line `>` and the text. Keys:
//! ```text
//! passt:    old (Debian 12), new, none, broken; then -OPTION for one that it lacks,
//!           confined=DIR for an AppArmor profile that allows DIR
//! qemu:     new (reconnect-ms), middle (reconnect), old (neither), none, broken; then -NETDEV
//! host:     routes=SUBNET, dns=SERVER, no-dns (an empty resolv.conf), no-route (no IPv4 default
//!           route), v6 (an IPv6 default route)
//! bridge:   root (may make taps), no-tun, vhost (vhost-net), helper, helper-plain (not setuid), closed (its list
//!           cannot be read), no-list, allow=BRIDGE, deny=BRIDGE; joins=BRIDGE, mtu=BYTES and
//!           rules of what is to be joined
//! dir:      the launch directory
//! args:     the command line
//! ```

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
use netlaunch::types::{HostAddress, Mac, Publish, TransientUser};
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
                target = Some(TargetBridge { bridge, mtu: 1500, firewall });
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

/// An address, prefix and gateway of which many make no network.
fn addresses() -> impl Strategy<Value = (AddressChoice, Option<std::net::Ipv4Addr>)> {
    let fixed = (any::<u32>(), 0u8..=32, prop::option::of(any::<u32>()), 0u32..4).prop_map(
        |(address, prefix, gateway, near)| {
            // The edges of subnets come up too rarely by chance.
            let host = if prefix == 0 { u32::MAX } else { u32::MAX >> u32::from(prefix).min(31) };
            let address = match near {
                0 => address & !host,
                1 => address | host,
                _ => address,
            };
            let gateway =
                gateway.map(|g| if near == 3 { (address & !host) | (g & host) } else { g });
            let choice = HostAddress::new(address.into(), prefix)
                .map_or(AddressChoice::Default, AddressChoice::Fixed);
            (choice, gateway.map(Into::into))
        },
    );
    prop_oneof![
        4 => fixed,
        1 => Just((AddressChoice::Default, None)),
        1 => Just((AddressChoice::Host, None)),
    ]
}

fn publish() -> impl Strategy<Value = Publish> {
    let address = prop_oneof![
        Just(String::new()),
        Just("0.0.0.0:".to_owned()),
        Just("[::1]:".to_owned()),
        Just("[::]:".to_owned()),
    ];
    let ports = (1u16..65000, 0u16..20, 1u16..65000, any::<bool>());
    (address, ports).prop_map(|(address, (port, more, guest, udp))| {
        let protocol = if udp { "udp" } else { "tcp" };
        format!("{address}{port}-{}:{guest}/{protocol}", port + more).parse().unwrap()
    })
}

fn requests() -> impl Strategy<Value = Request> {
    let backend = prop_oneof![
        3 => Just(None),
        3 => Just(Some(Backend::Passt)),
        1 => Just(Some(Backend::Slirp)),
        1 => Just(Some(Backend::Bridge)),
    ];
    let transport = prop::option::of(prop_oneof![
        Just(Transport::Unix),
        Just(Transport::Fd),
        Just(Transport::VhostUser),
    ]);
    let family = prop_oneof![3 => Just(Family::Both), 1 => Just(Family::V4), 1 => Just(Family::V6)];
    let dns = prop::option::of(any::<IpAddr>());
    let rest = (
        prop::option::of(60u16..),
        any::<bool>(),
        prop::option::of("[a-z]{1,5}"),
        prop::option::of("/[a-zA-Z, =-]{1,9}"),
        any::<bool>(),
    );
    (backend, transport, addresses(), family, dns, prop::collection::vec(publish(), 0..4), rest)
        .prop_map(|(backend, transport, (address, gateway), family, dns, publish, rest)| {
            let (mtu, host_loopback, name, pcap, serve) = rest;
            let attachment = Some(Attachment::Bridge("br0".parse().unwrap()));
            let attachment = attachment.filter(|_| backend == Some(Backend::Bridge));
            if attachment.is_some() {
                // Hardly any of them could be asked for there.
                let command = Command { program: "q".into(), args: Vec::new() };
                let command = (!serve).then_some(command);
                let pcap = pcap.map(PathBuf::from);
                let nic = NicRequest { backend, attachment, mtu, pcap, ..NicRequest::default() };
                return Request { nic, command, ..Request::default() };
            }
            let args = ["-m", "64", "-M", "q35"].map(OsString::from).to_vec();
            let command = Command { program: "qemu-system-x86_64".into(), args };
            let nic = NicRequest {
                backend,
                transport,
                address,
                gateway,
                dns,
                family,
                publish,
                mtu,
                host_loopback,
                hostname: name.as_ref().map(|name| name.parse().unwrap()),
                search: name.iter().map(|name| name.parse().unwrap()).collect(),
                pcap: pcap.map(PathBuf::from),
                ..NicRequest::default()
            };
            Request { nic, command: (!serve).then_some(command), ..Request::default() }
        })
}

fn facts() -> impl Strategy<Value = Facts> {
    let of = |list: &[&'static str]| prop::sample::select(list.to_vec());
    let passts = of(&["old", "new", "new -one-off", "none", "old confined=/tmp", "new -no-map-gw"]);
    let qemus = of(&["new", "middle", "old", "new -stream", "new -user", "none"]);
    let hosts = of(&[
        "",
        "no-route",
        "v6 dns=127.0.0.53",
        "dns=192.0.2.1 dns=::1 routes=10.0.2.0/24",
        "routes=10.0.0.0/8 routes=172.16.0.0/12 routes=192.168.0.0/16 routes=169.254.0.0/16",
    ]);
    let bridges = of(&[
        "root joins=br0 mtu=9000",
        "root no-tun joins=br0",
        "helper allow=br0 joins=br0",
        "helper-plain joins=br0",
        "helper",
    ]);
    (passts, qemus, hosts, bridges).prop_map(|(p, q, h, b)| {
        let (bridge, target) = bridge(b);
        let (passt, qemu, host) = (passt(p), qemu(q), host(h));
        Facts { passt, qemu, host, bridge, target, ..Facts::default() }
    })
}

/// The words behind an option.
fn values<'a>(argv: &'a [String], option: &str) -> Vec<&'a str> {
    argv.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].as_str()).collect()
}

fn words(argv: &[OsString]) -> Vec<String> {
    argv.iter().map(|word| word.to_str().unwrap().to_owned()).collect()
}

fn check(request: &Request, facts: &Facts, made: &Plan) {
    let qemu = words(&made.qemu.args);
    let made = made.nics.first();
    assert_eq!(values(&qemu, "-netdev").len(), 1, "{qemu:?}");
    assert_eq!(made.backend == Backend::Passt, made.passt.is_some());
    assert_eq!(made.transport.is_some(), made.passt.is_some());
    if let Some(named) = request.nic.backend {
        assert_eq!((made.backend, &made.fallback), (named, &None), "never silently replaced");
    }
    if let Some(view) = made.addresses {
        let (address, subnet) = (view.address.address(), view.address.subnet());
        for one in [address, view.gateway, view.dns] {
            assert!(subnet.contains(&one) && one != subnet.network() && one != subnet.broadcast());
        }
        assert!(address != view.gateway && address != view.dns);
    }
    let Some(passt) = &made.passt else {
        let netdev = values(&qemu, "-netdev")[0];
        if let Some(bridge) = &made.bridge {
            let (tap, helper) = (netdev.ends_with(",fd=7"), netdev.contains(",br=br0,helper=/"));
            assert_eq!(
                (tap, helper),
                (bridge.tap_owner == TapOwner::Netlaunch, bridge.tap_owner != TapOwner::Netlaunch),
                "{netdev}"
            );
            assert_eq!((made.fd == Some(7), made.addresses), (tap, None));
            assert!(!(tap && request.command.is_none()), "nobody inherits it");
            return;
        }
        assert!(netdev.starts_with("user,id=net0"), "{netdev}");
        let given = made.addresses.map(|v| format!(",dhcpstart={},", v.address.address()));
        assert!(given.is_none_or(|given| netdev.contains(&given)), "{netdev}");
        // QEMU refuses it otherwise: "DNS must be different from host".
        assert!(made.addresses.is_none_or(|view| view.dns != view.gateway), "{netdev}");
        return;
    };
    let argv = words(&passt.argv);
    // It would set the gateway's address, not the guest's.
    assert!(!argv.iter().any(|a| a == "--mac-addr" || a.starts_with("--mac") || a == "-M"));
    assert!(!argv.iter().any(|a| a.contains(&made.mac.unwrap().to_string())));
    // Every option is one that this passt has, and no short one is used.
    for option in argv.iter().filter(|arg| arg.starts_with('-')) {
        let known = option.strip_prefix("--").is_some_and(|name| facts.passt.has(name));
        assert!(known, "{option}: {argv:?}");
    }
    let (address, mask) = (values(&argv, "--address"), values(&argv, "--netmask"));
    let gateway = values(&argv, "--gateway");
    assert_eq!((address.len(), gateway.len()), (mask.len(), mask.len()), "all or none: {argv:?}");
    assert_eq!(address.len(), usize::from(made.addresses.is_some()));
    if let Some(view) = made.addresses {
        assert_eq!(address, [view.address.address().to_string()]);
        assert_eq!(mask, [view.address.subnet().prefix_len().to_string()]);
        assert_eq!(gateway, [view.gateway.to_string()]);
    }
    let socket = values(&argv, "--socket");
    let one_off = argv.iter().any(|arg| arg == "--one-off");
    match made.transport {
        Some(Transport::Fd) => {
            assert!(socket.is_empty() && !one_off && passt.socket.is_none());
            assert_eq!(values(&argv, "--fd"), ["3"]);
            assert!(values(&qemu, "-netdev")[0].ends_with("addr.type=fd,addr.str=7"));
        }
        _ => {
            assert_eq!(one_off, facts.passt.has("one-off"));
            assert!(values(&argv, "--fd").is_empty());
            assert_eq!(socket.len(), 1);
            assert!(socket[0].len() <= MAX_SOCKET_PATH, "{}", socket[0].len());
            assert_eq!(passt.socket.as_deref(), Some(Path::new(socket[0])));
        }
    }
    let ports = values(&argv, "--tcp-ports").len() + values(&argv, "--udp-ports").len();
    assert_eq!(ports, request.nic.publish.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_on_every_host_gives_a_plan_or_a_refusal(
        request in requests(),
        facts in facts(),
        dir in "/tmp/[a-zA-Z,. -]{0,100}",
    ) {
        let mac: Mac = "52:54:00:12:34:56".parse().unwrap();
        let launch_ids = LaunchIds { dir: dir.into(), mac, qemu_fds: vec![7], passt_users: Vec::new() };
        match plan(&request, &facts, &launch_ids) {
            Ok(made) => {
                check(&request, &facts, &made);
                prop_assert_eq!(Ok(made), plan(&request, &facts, &launch_ids), "deterministic");
            }
            Err(error) => {
                let line = error.to_string();
                prop_assert!(!line.is_empty() && !line.contains('\n'), "{}", line);
                let length = match &error {
                    PlanError::SocketPath { length, .. } => *length,
                    _ => MAX_SOCKET_PATH + 1,
                };
                prop_assert!(length > MAX_SOCKET_PATH);
            }
        }
    }
}
