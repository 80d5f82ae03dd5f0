//! Addresses that are learnt for ports bound by hand, seen from outside: what passes before and
//! after, who learns, what survives, and what is left when it ends.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::dhcp_frame::{ACK, DhcpFrame, EVERYONE, OFFER, RELEASE, REQUEST};
use common::frame::{BRIDGE, Frame, Host, OTHER, PEER, VM};
use common::port_scene::{PortScene, Station, done};
use common::{have_root, start, text, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// What has to come comes within this.
const LIMIT: Duration = Duration::from_secs(20);
/// Another address than the guest's.
const STRANGER: Host = Host { v4: Ipv4Addr::new(10, 2, 3, 200), ..VM };
/// The guest while it has none.
const NOBODY: Host = Host { v4: Ipv4Addr::UNSPECIFIED, ..VM };
/// Whom it asks for one.
const SERVERS: Host = Host { mac: EVERYONE, v4: Ipv4Addr::BROADCAST, ..PEER };

/// Runs a test on each backend.
fn on_both(name: &str, test: impl Fn(&PortScene)) {
    if !have_root(name) {
        return;
    }
    for backend in ["nftables", "iptables"] {
        println!("{backend}");
        test(&PortScene::new(Some(backend)));
    }
}

/// What `binding-list` says of the learning of vnet0.
fn learning(scene: &PortScene) -> Value {
    let list = scene.list();
    let bindings = list["bindings"].as_array().unwrap();
    let found = bindings.iter().find(|binding| binding["port"] == "vnet0");
    found.map_or(Value::Null, |binding| binding["learning"].clone())
}

fn learns(scene: &PortScene, address: Option<Ipv4Addr>) {
    let expected = address.map_or(Value::Null, |address| json!(address));
    let learnt = || learning(scene)["address"] == expected;
    assert!(wait_until(LIMIT, learnt), "{address:?}: {}", learning(scene));
}

fn learner(scene: &PortScene) -> Pid {
    let pid = learning(scene)["pid"].as_i64().unwrap_or_else(|| panic!("{}", learning(scene)));
    Pid::from_raw(pid as i32)
}

/// Whether a process runs; one that nobody has waited for does not.
fn runs(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn bind(scene: &PortScene, method: &str) {
    scene.bind(Station::Vnet0, "clean-traffic", &[("CTRL_IP_LEARNING", method)]).unwrap();
}

/// The guest asks for an address, and a server behind peer0 gives it for this long.
fn lease(scene: &PortScene, address: Ipv4Addr, seconds: u32) {
    let request = DhcpFrame { from: VM.mac, chaddr: VM.mac, ..DhcpFrame::asks(REQUEST) };
    scene.write(Station::Vnet0, &request.bytes());
    scene.write(Station::Peer, &acknowledgement(address, seconds, PEER).bytes());
}

fn acknowledgement(address: Ipv4Addr, seconds: u32, server: Host) -> DhcpFrame {
    let answer = DhcpFrame {
        to: EVERYONE,
        from: server.mac,
        source: server.v4,
        chaddr: VM.mac,
        ..DhcpFrame::answers(ACK, address)
    };
    let time = [&[51, 4][..], &seconds.to_be_bytes()].concat();
    answer.options(&[&[53, 1, ACK], &[54, 4], &server.v4.octets(), &time])
}

/// What the guest may send with its address comes out, and nothing else does.
fn is_in_force(scene: &PortScene) {
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
    assert!(scene.leaves(&Frame::arp(VM, PEER, 1)));
    is_not_deceived(scene);
}

fn is_not_deceived(scene: &PortScene) {
    for forbidden in [
        Frame::udp(STRANGER, PEER, 1, 2),
        Frame::arp(STRANGER, PEER, 1),
        Frame::udp(VM, PEER, 1, 2).sent_by(OTHER.mac),
        Frame::udp6(VM, PEER, 1, 2),
        Frame::udp(STRANGER, PEER, 68, 67),
        Frame::udp(STRANGER, SERVERS, 68, 67),
        Frame::udp(Host { mac: VM.mac, ..BRIDGE }, PEER, 68, 67),
    ] {
        assert!(!scene.leaves(&forbidden), "{forbidden:?}");
    }
}

/// No rule, no process and no file of a port is left; `pid` was its learner.
fn nothing_is_left(scene: &PortScene, before: &str, pid: Pid) {
    assert!(wait_until(LIMIT, || !runs(pid)), "{pid} still learns");
    assert!(wait_until(LIMIT, || scene.ruleset() == before), "{}", scene.ruleset());
    for dir in ["bindings", "learners", "leases"] {
        let dir = scene.sandbox.path(&format!("state/nwfilter/{dir}"));
        let left = || -> Vec<_> {
            let entries = fs::read_dir(&dir).into_iter().flatten();
            let names = entries.map(|entry| entry.unwrap().file_name());
            names.filter(|name| name != ".lock").collect()
        };
        let none = || left().is_empty();
        assert!(wait_until(LIMIT, none), "{}: {:?}", dir.display(), left());
    }
}

/// The state of a scene whose tools have made the tables that they keep.
fn before(scene: &PortScene) -> String {
    scene.foreign_rules();
    scene.ruleset()
}

#[test]
fn the_first_packet_teaches_and_only_what_was_taught_passes() {
    on_both("the test of learning by any packet", |scene| {
        let before = before(scene);
        bind(scene, "any");
        assert_eq!(learning(scene)["address"], Value::Null);
        let probe = Frame::arp(NOBODY, PEER, 1);
        assert!(scene.leaves(&probe), "who has an address yet to choose may ask for it");
        assert!(scene.leaves(&Frame::udp(NOBODY, SERVERS, 68, 67)));
        for nobodys in [
            Frame::udp(VM, SERVERS, 68, 67),
            Frame::udp(VM, PEER, 68, 67),
            Frame::udp(STRANGER, PEER, 68, 67),
            Frame::udp(Host { v4: BRIDGE.v4, ..VM }, PEER, 68, 67),
            Frame::udp(VM, PEER, 1, 2).sent_by(OTHER.mac),
            Frame::udp(Host { v4: BRIDGE.v4, ..VM }, PEER, 1, 2),
            Frame::udp(Host { v4: Ipv4Addr::new(224, 0, 0, 5), ..VM }, PEER, 1, 2),
            Frame::udp6(VM, PEER, 1, 2),
        ] {
            assert!(!scene.leaves(&nobodys), "{nobodys:?}");
        }
        assert_eq!(learning(scene)["address"], Value::Null);
        // It is not known whose address it is before the learner has seen it.
        scene.leaves(&Frame::arp(VM, PEER, 1));
        learns(scene, Some(VM.v4));
        is_in_force(scene);
        // Other packets teach nothing more.
        for _ in 0..3 {
            is_not_deceived(scene);
        }
        assert_eq!(learning(scene)["address"], json!(VM.v4));
        let pid = learner(scene);
        scene.unbind(Station::Vnet0);
        nothing_is_left(scene, &before, pid);
    });
}

#[test]
fn what_a_server_gives_is_in_force_until_it_ends() {
    on_both("the test of learning by DHCP", |scene| {
        let parameters = [("CTRL_IP_LEARNING", "dhcp"), ("DHCPSERVER", "10.2.3.9")];
        scene.bind(Station::Vnet0, "clean-traffic", &parameters).unwrap();
        // Nothing but DHCP teaches, and nothing but DHCP passes.
        is_not_deceived(scene);
        assert!(!scene.leaves(&Frame::arp(VM, PEER, 1)));
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
        assert!(scene.leaves(&Frame::udp(NOBODY, SERVERS, 68, 67)));
        assert!(!scene.leaves(&Frame::udp(VM, SERVERS, 68, 67)), "it may not be its address");
        // An answer of somebody else's, and one that nobody asked for.
        let request = DhcpFrame { from: VM.mac, chaddr: VM.mac, ..DhcpFrame::asks(REQUEST) };
        scene.write(Station::Peer, &acknowledgement(STRANGER.v4, 3600, PEER).bytes());
        scene.write(Station::Vnet0, &request.bytes());
        scene.write(Station::Vnet1, &acknowledgement(STRANGER.v4, 3600, OTHER).bytes());
        // An offer is none of the two.
        let mut offer = acknowledgement(STRANGER.v4, 3600, PEER);
        offer.options[2] = OFFER;
        scene.write(Station::Peer, &offer.bytes());
        lease(scene, VM.v4, 3);
        learns(scene, Some(VM.v4));
        is_in_force(scene);
        let until = learning(scene)["until"].as_u64().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!((now.as_secs()..now.as_secs() + 4).contains(&until), "{until}");
        // Its time is over.
        learns(scene, None);
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
        // Another address, given back.
        lease(scene, STRANGER.v4, 3600);
        learns(scene, Some(STRANGER.v4));
        assert!(scene.leaves(&Frame::udp(STRANGER, PEER, 1, 2)));
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
        let release = DhcpFrame {
            from: VM.mac,
            chaddr: VM.mac,
            source: STRANGER.v4,
            ciaddr: STRANGER.v4,
            ..DhcpFrame::asks(RELEASE)
        };
        scene.write(Station::Vnet0, &release.bytes());
        learns(scene, None);
        assert!(!scene.leaves(&Frame::udp(STRANGER, PEER, 1, 2)));
    });
}

/// The guest's own packets teach then, and of servers those that are named.
#[test]
fn servers_are_named_for_learning_from_anything_too() {
    on_both("the test of servers that are named", |scene| {
        for method in ["any", "dhcp"] {
            let bind = |server| {
                let parameters = [("CTRL_IP_LEARNING", method), ("DHCPSERVER", server)];
                scene.bind(Station::Vnet0, "clean-traffic", &parameters)
            };
            for none in ["dhcp.example", "10.2.3.0/24", "fe80::1"] {
                let said = bind(none).unwrap_err();
                let mistake = format!("DHCPSERVER cannot be \"{none}\": write the IPv4 address");
                assert!(said.contains(&mistake) && said.lines().count() == 1, "{said}");
            }
            bind("10.2.3.9").unwrap();
            let request = DhcpFrame { from: VM.mac, chaddr: VM.mac, ..DhcpFrame::asks(REQUEST) };
            scene.write(Station::Vnet0, &request.bytes());
            scene.write(Station::Vnet1, &acknowledgement(STRANGER.v4, 3600, OTHER).bytes());
            scene.write(Station::Peer, &acknowledgement(VM.v4, 3600, PEER).bytes());
            learns(scene, Some(VM.v4));
            is_in_force(scene);
            scene.unbind(Station::Vnet0);
            fs::remove_file(scene.sandbox.path("state/nwfilter/leases/vnet0.json")).unwrap();
        }
        // Where no address is learnt it is a variable like others.
        let filter = "<rule action='drop' direction='out'><ipv6 srcipaddr='$DHCPSERVER'/></rule>";
        scene.define("mine", filter).unwrap();
        scene.bind(Station::Vnet0, "mine", &[("DHCPSERVER", "fe80::1")]).unwrap();
    });
}

/// Frames that the learner has no room for are lost, and those that the rules drop take none.
#[test]
fn a_flood_of_answers_delays_learning_unless_servers_are_named() {
    on_both("the test of floods of answers", |scene| {
        for named in [true, false] {
            let server = named.then_some(("DHCPSERVER", "10.2.3.9"));
            let parameters: Vec<_> =
                [("CTRL_IP_LEARNING", "dhcp")].into_iter().chain(server).collect();
            scene.bind(Station::Vnet0, "clean-traffic", &parameters).unwrap();
            let pid = learner(scene);
            kill(pid, Signal::SIGSTOP).unwrap();
            let mut answer = acknowledgement(STRANGER.v4, 3600, OTHER);
            answer.transaction = 99;
            for _ in 0..1000 {
                scene.write(Station::Vnet1, &answer.bytes());
            }
            lease(scene, VM.v4, 3600);
            kill(pid, Signal::SIGCONT).unwrap();
            if !named {
                let again = || {
                    lease(scene, VM.v4, 3600);
                    learning(scene)["address"] == json!(VM.v4)
                };
                assert!(wait_until(LIMIT, again), "{}", learning(scene));
            }
            learns(scene, Some(VM.v4));
            is_in_force(scene);
            scene.unbind(Station::Vnet0);
            fs::remove_file(scene.sandbox.path("state/nwfilter/leases/vnet0.json")).unwrap();
        }
    });
}

#[test]
fn a_lease_survives_whoever_learnt_it() {
    on_both("the test of learners that are killed", |scene| {
        let before = before(scene);
        bind(scene, "dhcp");
        lease(scene, VM.v4, 3600);
        learns(scene, Some(VM.v4));
        let first = learner(scene);
        kill(first, Signal::SIGKILL).unwrap();
        assert!(wait_until(LIMIT, || learning(scene)["pid"] == Value::Null));
        is_in_force(scene);
        // Any command that changes something starts another.
        scene.define("unrelated", "").unwrap();
        assert!(wait_until(LIMIT, || learning(scene)["pid"] != Value::Null));
        let second = learner(scene);
        assert_ne!(first, second);
        is_in_force(scene);
        // It goes on with what it did not learn itself.
        done(run_netlaunch(scene, &["firewall", "reload"])).unwrap();
        is_in_force(scene);
        lease(scene, STRANGER.v4, 3600);
        learns(scene, Some(STRANGER.v4));
        // A binding that comes back finds the lease; what a packet taught is forgotten.
        scene.unbind(Station::Vnet0);
        bind(scene, "dhcp");
        assert_eq!(learning(scene)["address"], json!(STRANGER.v4));
        assert!(scene.leaves(&Frame::udp(STRANGER, PEER, 1, 2)));
        scene.unbind(Station::Vnet0);
        fs::remove_file(scene.sandbox.path("state/nwfilter/leases/vnet0.json")).unwrap();
        bind(scene, "any");
        scene.leaves(&Frame::arp(VM, PEER, 1));
        learns(scene, Some(VM.v4));
        let third = learner(scene);
        scene.unbind(Station::Vnet0);
        nothing_is_left(scene, &before, third);
    });
}

/// The host's addresses are those that it has when one is put in force, not when learning began.
#[test]
fn an_address_that_the_host_has_by_then_is_not_learnt() {
    on_both("the test of addresses that the host gets meanwhile", |scene| {
        let hosts = Host { v4: Ipv4Addr::new(10, 9, 9, 1), ..VM };
        bind(scene, "any");
        scene.netns.ip("address add 10.9.9.1/24 dev br0");
        assert!(!scene.leaves(&Frame::arp(hosts, PEER, 1)));
        assert!(!scene.leaves(&Frame::udp(hosts, PEER, 1, 2)));
        // It has taught nothing, not even that something was taught.
        let learnt = || {
            scene.leaves(&Frame::arp(VM, PEER, 1));
            learning(scene)["address"] == json!(VM.v4)
        };
        assert!(wait_until(LIMIT, learnt), "{}", learning(scene));
        is_in_force(scene);
        assert!(!scene.leaves(&Frame::udp(hosts, PEER, 1, 2)));
        // One that is given while another is in force.
        scene.netns.ip("address add 10.9.9.2/24 dev br0");
        let hosts = Host { v4: Ipv4Addr::new(10, 9, 9, 2), ..VM };
        lease(scene, hosts.v4, 3600);
        learns(scene, None);
        assert!(!scene.leaves(&Frame::udp(hosts, PEER, 1, 2)));
        lease(scene, VM.v4, 3600);
        learns(scene, Some(VM.v4));
        // And one that is kept, of a guest that comes back.
        scene.unbind(Station::Vnet0);
        scene.netns.ip(&format!("address add {}/32 dev br0", VM.v4));
        bind(scene, "dhcp");
        assert_eq!(learning(scene)["address"], Value::Null);
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
        done(run_netlaunch(scene, &["firewall", "reload"])).unwrap();
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
        lease(scene, STRANGER.v4, 3600);
        learns(scene, Some(STRANGER.v4));
    });
}

/// A binding believes of what is kept what it would believe now.
#[test]
fn a_kept_lease_is_of_a_server_that_the_binding_names() {
    on_both("the test of leases of other servers", |scene| {
        let bind_to = |servers: &[&str]| {
            let servers = servers.iter().map(|server| ("DHCPSERVER", *server));
            let parameters: Vec<_> =
                [("CTRL_IP_LEARNING", "dhcp")].into_iter().chain(servers).collect();
            scene.bind(Station::Vnet0, "clean-traffic", &parameters).unwrap();
            learning(scene)["address"].clone()
        };
        assert_eq!(bind_to(&[]), Value::Null);
        lease(scene, STRANGER.v4, 3600);
        learns(scene, Some(STRANGER.v4));
        for (servers, kept) in [
            (&["10.2.3.1"][..], false),
            (&["10.2.3.1", "10.2.3.9"], true),
            (&["10.2.3.1"], false),
            (&[], true),
        ] {
            scene.unbind(Station::Vnet0);
            let expected = if kept { json!(STRANGER.v4) } else { Value::Null };
            assert_eq!(bind_to(servers), expected, "{servers:?}");
            assert_eq!(scene.leaves(&Frame::udp(STRANGER, PEER, 1, 2)), kept, "{servers:?}");
            done(run_netlaunch(scene, &["firewall", "reload"])).unwrap();
            assert_eq!(learning(scene)["address"], expected, "{servers:?}");
        }
    });
}

#[test]
fn a_port_that_goes_takes_its_learner_and_its_rules_with_it() {
    on_both("the test of ports that go", |scene| {
        let before = before(scene);
        bind(scene, "any");
        scene.leaves(&Frame::arp(VM, PEER, 1));
        learns(scene, Some(VM.v4));
        let pid = learner(scene);
        scene.unplug(Station::Vnet0);
        nothing_is_left(scene, &before, pid);
        // Another of the name is another guest's.
        scene.plug(Station::Vnet0);
        bind(scene, "any");
        assert_eq!(learning(scene)["address"], Value::Null);
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
    });
}

#[test]
fn a_filter_changes_under_a_guest_that_has_no_address_yet() {
    on_both("the test of changes while learning", |scene| {
        let rules = |more: &str| {
            format!(
                "{more}<rule action='accept' direction='out'><ip srcipaddr='$IP'/></rule>\
                 <rule action='drop' direction='out'><mac/></rule>"
            )
        };
        scene.define("test", &rules("")).unwrap();
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        let no_telnet = rules(
            "<rule action='drop' direction='out' priority='1'><ip protocol='tcp' dstportstart='23'/></rule>",
        );
        scene.define("test", &no_telnet).unwrap();
        assert!(!scene.leaves(&Frame::tcp(VM, PEER, 1, 22, 2)), "it is not known yet");
        learns(scene, Some(VM.v4));
        assert!(scene.leaves(&Frame::tcp(VM, PEER, 1, 22, 2)));
        assert!(!scene.leaves(&Frame::tcp(VM, PEER, 1, 23, 2)));
        // And when it has one.
        scene.define("test", &rules("")).unwrap();
        assert!(scene.leaves(&Frame::tcp(VM, PEER, 1, 23, 2)));
        assert!(!scene.leaves(&Frame::tcp(STRANGER, PEER, 1, 23, 2)));
        // What needs more than the address cannot come about.
        let file = scene.sandbox.path("state/nwfilter/bindings/vnet0.json");
        let status = fs::read_to_string(&file).unwrap();
        let said = scene
            .define(
                "test",
                &rules("<rule action='drop' direction='out'><ip dstipaddr='$WHO'/></rule>"),
            )
            .unwrap_err();
        assert!(said.contains("the port vnet0: the filter test needs values for WHO"), "{said}");
        assert_eq!(fs::read_to_string(&file).unwrap(), status);
        assert!(scene.leaves(&Frame::tcp(VM, PEER, 1, 23, 2)));
        scene.unbind(Station::Vnet0);

        // Nor what asks for the address of a guest of which nobody wanted to know it.
        scene.define("test", "<rule action='drop' direction='out'><mac/></rule>").unwrap();
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        let said = scene.define("test", &rules("")).unwrap_err();
        assert!(said.contains("the port vnet0: the filter test needs values for IP"), "{said}");
        assert!(!scene.leaves(&Frame::tcp(VM, PEER, 1, 22, 2)));
    });
}

/// A directory in which each of the firewall's tools fails while the file it returns is there.
fn failing_tools(scene: &PortScene) -> (PathBuf, PathBuf) {
    let dir = scene.sandbox.path("failing");
    let switch = scene.sandbox.path("fail");
    fs::create_dir_all(&dir).unwrap();
    for tool in ["nft", "ebtables-restore", "iptables-restore", "ip6tables-restore"] {
        let script = format!(
            "#!/bin/sh\nif [ -e {} ]; then echo broken on purpose >&2; exit 1; fi\nexec /usr/sbin/{tool} \"$@\"\n",
            switch.display()
        );
        let file = dir.join(tool);
        fs::write(&file, script).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    (dir, switch)
}

fn is_up(scene: &PortScene, port: &str) -> bool {
    scene.netns.says("ip", &["-o", "link", "show", "dev", port]).contains(",UP")
}

#[test]
fn a_port_whose_rules_cannot_be_set_is_turned_off() {
    on_both("the test of rules that cannot be set", |scene| {
        let before = before(scene);
        let (tools, switch) = failing_tools(scene);
        let file = scene.binding(Station::Vnet0, "clean-traffic", &[]);
        let create = || done(scene.nwfilter_with_path(&tools, &["binding-create", &file]));
        // Those to learn by.
        fs::write(&switch, "").unwrap();
        let said = create().unwrap_err();
        assert!(
            said.contains("broken on purpose") && said.contains("vnet0 was turned off"),
            "{said}"
        );
        assert!(!is_up(scene, "vnet0"));
        assert_eq!(scene.ruleset(), before);
        assert_eq!(scene.list()["bindings"], json!([]));
        scene.netns.ip("link set vnet0 up");
        // Those that are made with the address.
        fs::remove_file(&switch).unwrap();
        create().unwrap();
        fs::write(&switch, "").unwrap();
        scene.leaves(&Frame::arp(VM, PEER, 1));
        assert!(wait_until(LIMIT, || learning(scene)["error"] != Value::Null));
        let error = learning(scene)["error"].to_string();
        assert!(error.contains("broken on purpose") && error.contains("turned off"), "{error}");
        assert!(!is_up(scene, "vnet0"));
        let shown = text(&scene.nwfilter(&["binding-list"]).stdout);
        assert!(shown.contains("failed, off"), "{shown}");
        // Mended.
        fs::remove_file(&switch).unwrap();
        done(run_netlaunch(scene, &["firewall", "reload"])).unwrap();
        assert!(is_up(scene, "vnet0"));
        assert_eq!(learning(scene)["error"], Value::Null);
        learns(scene, Some(VM.v4));
        is_in_force(scene);
    });
}

fn run_netlaunch(scene: &PortScene, args: &[&str]) -> std::process::Output {
    common::finish(scene.sandbox.netlaunch(args))
}

#[test]
fn waiting_for_the_address_prints_it() {
    if !have_root("waiting_for_the_address_prints_it") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let file = scene.binding(Station::Vnet0, "clean-traffic", &[]);
    let args = ["nwfilter", "binding-create", "--wait", &file];
    let mut waits = start(scene.sandbox.netlaunch(&args));
    assert!(wait_until(LIMIT, || learning(&scene)["pid"] != Value::Null));
    assert!(waits.0.try_wait().unwrap().is_none());
    scene.leaves(&Frame::arp(VM, PEER, 1));
    let output = waits.output(LIMIT);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "10.2.3.4\n");
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)), "the rules are there, too");
    scene.unbind(Station::Vnet0);
    // Nothing to wait for.
    let file = scene.binding(Station::Vnet0, "clean-traffic", &[("IP", "10.2.3.4")]);
    let output = scene.nwfilter(&["binding-create", "--wait", &file]);
    assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output.stderr));
    scene.unbind(Station::Vnet0);
    // Nothing that will come.
    let file = scene.binding(Station::Vnet0, "clean-traffic", &[]);
    let waits = start(scene.sandbox.netlaunch(&["nwfilter", "binding-create", "--wait", &file]));
    assert!(wait_until(LIMIT, || learning(&scene)["pid"] != Value::Null));
    scene.unbind(Station::Vnet0);
    let output = waits.output(LIMIT);
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("the port vnet0 is gone, or its filter"));
}

/// Directories can be named from where the command stands, and the process that learns finds them.
#[test]
fn directories_may_be_relative() {
    if !have_root("directories_may_be_relative") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let file = scene.binding(Station::Vnet0, "clean-traffic", &[]);
    let state = scene.sandbox.state();
    let mut command = scene.sandbox.netlaunch(&["nwfilter", "binding-create", &file]);
    command.current_dir(state.parent().unwrap());
    command.env("NETLAUNCH_STATE_DIR", state.file_name().unwrap());
    done(common::finish(command)).unwrap();
    assert!(runs(learner(&scene)));
    scene.leaves(&Frame::arp(VM, PEER, 1));
    learns(&scene, Some(VM.v4));
}

#[test]
fn one_process_learns_for_a_port() {
    if !have_root("one_process_learns_for_a_port") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    bind(&scene, "any");
    let pid = learner(&scene);
    // There is nothing to do for another.
    done(scene.nwfilter(&["binding-learn", "vnet0"])).unwrap();
    for numbers in ["7", "0,1", "7,7", "100,101", "7,8,9"] {
        let said = done(scene.nwfilter(&["binding-learn", "vnet0", numbers])).unwrap_err();
        assert!(said.contains("FD,FD: ") && said.lines().count() == 1, "{said}");
    }
    assert!(runs(pid));
    // Nor for one of a port without a filter, or with one that needs no address.
    done(scene.nwfilter(&["binding-learn", "vnet1"])).unwrap();
    assert_eq!(learner(&scene), pid);
    let status =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    let may = u64::from_str_radix(effective, 16).unwrap();
    const NET_ADMIN_AND_RAW: u64 = 1 << 12 | 1 << 13;
    assert_eq!(
        may & !NET_ADMIN_AND_RAW & !2,
        0,
        "CAP_DAC_OVERRIDE is the most it keeps: {effective}"
    );
}
