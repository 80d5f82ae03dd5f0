//! Tests what `nwfilter watch` says about its rules when it starts, and the end of its guard.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::frame::{BRIDGE, Frame, OTHER, PEER, VM, mac_text};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{Reaped, finish, have_root, start, text, wait_until};
use crate::nwfilter_watch::{is_bound, port, rule, settings, watched};

const LIMIT: Duration = Duration::from_secs(60);

/// Ends a watcher, and returns its messages.
fn messages(watcher: Reaped) -> String {
    kill(Pid::from_raw(watcher.pid()), Signal::SIGTERM).unwrap();
    text(&watcher.output(LIMIT).stderr)
}

fn on_both(name: &str, test: impl Fn(&PortScene, &str)) {
    if !have_root(name) {
        return;
    }
    for backend in ["nftables", "iptables"] {
        test(&PortScene::new(Some(backend)), backend);
    }
}

#[test]
fn a_rule_that_names_an_interface_of_the_host_is_refused_before_the_guard_is_set() {
    on_both("a_rule_that_names_an_interface_of_the_host_is_refused", |scene, backend| {
        scene.sh(
            "ip link add up0 type veth peer name far0; ip address add 192.0.2.1/24 dev up0; ip link set up0 up",
        );
        scene.sh("ip link set lo up");
        let before = scene.ruleset();
        for (pattern, interface, words) in [
            ("lo", "lo", "the loopback interface of this host"),
            ("l*", "lo", "the loopback interface of this host"),
            ("up0", "up0", "which has the address 192.0.2.1/24 of this host"),
            ("u*", "up0", "which has the address 192.0.2.1/24 of this host"),
        ] {
            let rule = format!("[[watch]]\nport = \"{pattern}\"\nfilter = \"clean-traffic\"\n");
            scene.settings(&settings(backend, &rule));
            let watcher = start(scene.sandbox.netlaunch(&["nwfilter", "watch"]));
            let output = watcher.output(LIMIT);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{pattern}: {said}");
            let place =
                format!("nwfilter.conf:2:1: the rule for {pattern} would close {interface}, ");
            assert!(said.contains(&place) && said.contains(words), "{pattern}: {said}");
            assert_eq!(scene.ruleset(), before);
            assert!(!scene.sandbox.path("state/nwfilter/guard.json").exists());
        }
        // A rule for such names that the host has not, and a port of the rule without an address.
        let _watcher = watched(scene, backend, &rule(""));
    });
}

#[test]
fn each_bad_rule_is_reported_at_the_start_with_its_place_and_the_others_work() {
    on_both("each_bad_rule_is_reported_at_the_start", |scene, backend| {
        let bad = |filter: &str, parameters: &str| {
            format!(
                "[[watch]]\nport = \"tap*\"\nfilter = \"{filter}\"\nparameters = {{ {parameters} }}\n"
            )
        };
        scene
            .define("sets", "<rule action='accept' direction='out'><all ipset='known' ipsetflags='dst'/></rule>")
            .unwrap();
        let rules = [
            rule(""),
            bad("no-such-filter", ""),
            bad("clean-traffic-gateway", "IP = \"10.2.3.9\""),
            bad("clean-traffic", "IP = \"nonsense\""),
            bad("clean-traffic", "CTRL_IP_LEARNING = \"none\""),
            bad("sets", ""),
        ];
        let watcher = watched(scene, backend, &rules.concat());
        assert!(is_bound(scene, "vnet0"), "{backend}");
        let said = messages(watcher);
        // One line names the backend, and the first rule has five.
        let places = [(7, "no-such-filter"), (11, "GATEWAY_MAC"), (15, "nonsense"), (19, "IP")];
        for (line, words) in places {
            let place = format!("nwfilter.conf:{line}:1: ");
            let found = said.lines().find(|text| text.contains(&place)).unwrap_or_default();
            assert!(found.contains(words) && found.contains("stay closed"), "{place}: {said}");
        }
        let sets = said.contains("nwfilter.conf:23:1: ");
        assert_eq!(sets, backend == "nftables", "{said}");
    });
}

#[test]
fn the_guard_is_not_removed_while_a_process_watches() {
    on_both("the_guard_is_not_removed_while_a_process_watches", |scene, backend| {
        let watcher = watched(scene, backend, &rule(""));
        let stop = || scene.nwfilter(&["watch", "--stop"]);
        let refused = stop();
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
        let said = text(&refused.stderr);
        assert!(said.contains("systemctl stop netlaunch-nwfilter"), "{said}");
        assert!(scene.sandbox.path("state/nwfilter/guard.json").exists());
        assert_eq!(scene.send(Station::Vnet1, &Frame::udp(OTHER, PEER, 1, 2)), []);
        messages(watcher);
        done(stop()).unwrap();
        assert!(!scene.send(Station::Vnet1, &Frame::udp(OTHER, PEER, 1, 2)).is_empty());
    });
}

#[test]
fn a_port_whose_filter_is_removed_is_bound_again_and_the_command_says_so() {
    on_both("a_port_whose_filter_is_removed_is_bound_again", |scene, backend| {
        let watcher = watched(scene, backend, &rule(""));
        for _ in 0..3 {
            assert!(is_bound(scene, "vnet0"), "{backend}");
            let removed = scene.nwfilter(&["unbind", "vnet0"]);
            let said = text(&removed.stderr);
            assert!(said.contains("the guard of the watch rules closes the port vnet0"), "{said}");
        }
        assert!(is_bound(scene, "vnet0"), "{backend}");
        assert_eq!(messages(watcher).matches("the port vnet0 has the filter").count(), 4);
    });
}

#[test]
fn a_bound_port_that_differs_from_its_rule_is_named_at_the_start() {
    on_both("a_bound_port_that_differs_from_its_rule_is_named", |scene, backend| {
        let watcher = watched(scene, backend, &rule(""));
        assert!(is_bound(scene, "vnet0"));
        assert!(!messages(watcher).contains("differs"));
        let said = messages(watched(scene, backend, &rule("")));
        assert!(!said.contains("differs"), "{said}");
        let changed = rule("").replace("\"clean-traffic\"", "\"clean-traffic-dual\"");
        let said = messages(watched(scene, backend, &changed));
        let command = "netlaunch nwfilter bind vnet0 clean-traffic-dual -p IP=10.2.3.4 --replace";
        assert!(said.contains("nwfilter.conf:2:1") && said.contains(command), "{said}");
        assert_eq!(port(scene, "vnet0")["filter"], "clean-traffic");
        let args: Vec<&str> = command.split(' ').skip(2).collect();
        done(scene.nwfilter(&args)).unwrap();
        let said = messages(watched(scene, backend, &changed));
        assert!(!said.contains("differs"), "{said}");
    });
}

/// A process with few descriptors awaits the first frames of some ports only.
#[test]
fn silent_ports_do_not_keep_the_watcher_from_binding_others() {
    if !have_root("silent_ports_do_not_keep_the_watcher_from_binding_others") {
        return;
    }
    let any = "[[watch]]\nport = \"vnet*\"\nfilter = \"no-mac-spoofing\"\n";
    for (limits, is_named) in [("64:64", true), ("64:4096", false)] {
        let scene = PortScene::new(Some("nftables"));
        let taps = "for number in $(seq 100 159); do
            ip tuntap add vnet$number mode tap; ip link set vnet$number master br0 up
        done";
        scene.sh(taps);
        scene.unplug(Station::Vnet0);
        scene.settings(&settings("nftables", any));
        let mut command = scene.sandbox.program(std::path::Path::new("/usr/bin/prlimit"));
        command.arg(format!("--nofile={limits}")).arg(scene.sandbox.path("bin/netlaunch"));
        command.args(["nwfilter", "watch"]);
        let watcher = crate::nwfilter_watch::watched_by(&scene, command);
        // A veth whose other end shows the address needs no frame.
        scene.sh("ip link add vnet7 type veth peer name guest7; ip link set vnet7 master br0 up");
        assert!(is_bound(&scene, "vnet7"), "{limits}");
        let said = messages(watcher);
        assert_eq!(said.contains("LimitNOFILE="), is_named, "{limits}: {said}");
        assert!(!said.contains("Too many open files"), "{limits}: {said}");
    }
}

#[test]
fn a_damaged_record_of_the_guard_is_written_again_and_its_guard_can_be_removed() {
    on_both("a_damaged_record_of_the_guard", |scene, backend| {
        let record = scene.sandbox.path("state/nwfilter/guard.json");
        let closed = || scene.send(Station::Vnet1, &Frame::udp(OTHER, PEER, 1, 2)).is_empty();
        let damage = || {
            messages(watched(scene, backend, &rule("")));
            fs::write(&record, "{\"version\": 1, \"rules\"").unwrap();
        };
        damage();
        let reload = finish(scene.sandbox.netlaunch(&["firewall", "reload"]));
        let said = text(&reload.stderr);
        assert!(said.contains("netlaunch nwfilter watch --stop removes it"), "{said}");
        assert!(closed(), "{backend}");
        messages(watched(scene, backend, &rule("")));
        let _: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        assert!(closed(), "{backend}");
        damage();
        done(scene.nwfilter(&["watch", "--stop"])).unwrap();
        assert!(!closed() && !record.exists(), "{backend}");
        assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
        scene.unbind(Station::Vnet0);
        assert!(!scene.ruleset().to_lowercase().contains("guard"), "{}", scene.ruleset());
    });
}

/// Waits for words in the file of a watcher's messages.
pub fn says(file: &std::path::Path, words: &str) -> bool {
    wait_until(LIMIT, || fs::read_to_string(file).unwrap_or_default().contains(words))
}

#[test]
fn a_first_frame_cannot_name_the_host_or_a_machine_that_the_bridge_knows() {
    let any = "[[watch]]\nport = \"vnet*\"\nfilter = \"no-mac-spoofing\"\n";
    let learned = "belongs to a machine behind the port peer0 of the same bridge; write";
    let own = "is that of the interface br0; write the guest's address as mac in the rule";
    for (forged, words) in [(PEER, learned), (BRIDGE, own)] {
        on_both("a_first_frame_cannot_name_the_host_or_a_machine", |scene, backend| {
            let bridge = mac_text(BRIDGE.mac);
            // The bridge of the scene forgets at once what it learns.
            scene.sh(&format!(
                "ip link set br0 address {bridge}; ip link set br0 type bridge ageing_time 30000"
            ));
            let watcher = watched(scene, backend, any);
            scene.send(Station::Peer, &Frame::udp(PEER, VM, 1, 2));
            for _ in 0..20 {
                assert_eq!(scene.send(Station::Vnet0, &Frame::udp(forged, OTHER, 1, 2)), []);
                sleep(Duration::from_millis(20));
            }
            assert_eq!(port(scene, "vnet0"), Value::Null, "{backend}");
            let sends = || {
                scene.send(Station::Vnet0, &Frame::udp(VM, PEER, 1, 2));
                port(scene, "vnet0") != Value::Null
            };
            assert!(wait_until(LIMIT, sends), "{backend}");
            let said = messages(watcher);
            assert!(said.contains(&format!("of the guest's first frame {words}")), "{said}");
        });
    }
}
