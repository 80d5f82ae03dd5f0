//! Tests bindings from outside: a rejected packet is answered, a failed command leaves no trace, a
//! deleted binding leaves nothing, and the changes of other programs meanwhile do no harm.

use std::io::{BufRead, BufReader};

use crate::common::frame::{BRIDGE, Frame, Host, OTHER, PEER, VM};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::schema::{faults, valid};
use crate::common::{AT_MOST, have_root, start, wait_until};
use netlaunch::firewall::rules::{Mode, NetworkRules, for_network};
use netlaunch::firewall::{FirewallBackend, Tools, Transaction, transact};
use serde_json::{Value, json};

const BACKENDS: [&str; 2] = ["nftables", "iptables"];

/// Runs a test on each backend.
fn on_both(name: &str, test: impl Fn(&PortScene, &str)) {
    if !have_root(name) {
        return;
    }
    for backend in BACKENDS {
        println!("{backend}");
        test(&PortScene::new(Some(backend)), backend);
    }
}

/// Datagrams to this port are dropped, both ways.
fn no_port(port: u16) -> String {
    let rule =
        |way| format!("<rule action='drop' direction='{way}'><udp dstportstart='{port}'/></rule>");
    rule("in") + &rule("out")
}

#[test]
fn a_reject_rule_answers_on_iptables() {
    if !have_root("a_reject_rule_answers_on_iptables") {
        return;
    }
    const UNREACHABLE: u8 = 3;
    let scene = PortScene::new(Some("iptables"));
    scene
        .filter("<rule action='reject' direction='out'><udp dstportstart='53'/></rule><rule action='drop' direction='out'><udp dstportstart='54'/></rule>")
        .unwrap();
    let rejected = Frame::udp(VM, PEER, 1000, 53);
    assert!(!scene.leaves(&rejected));
    let is_answer = |bytes: &Vec<u8>| {
        bytes.len() > 34 && bytes[12..14] == [8, 0] && bytes[23] == 1 && bytes[34] == UNREACHABLE
    };
    assert!(scene.answers(Station::Vnet0, &rejected).iter().any(is_answer));
    let dropped = Frame::udp(VM, PEER, 1000, 54);
    assert!(!scene.answers(Station::Vnet0, &dropped).iter().any(is_answer));
}

/// The three tools are not one: the last of them fails when the others have done their part.
#[test]
fn a_tool_that_fails_half_way_leaves_every_tool_as_it_was() {
    if !have_root("a_tool_that_fails_half_way_leaves_every_tool_as_it_was") {
        return;
    }
    const RULES: &str = "<rule action='drop' direction='out'><arp opcode='1'/></rule>
         <rule action='drop' direction='out'><udp dstportstart='53'/></rule>
         <rule action='drop' direction='out'><udp-ipv6 dstportstart='53'/></rule>";
    let scene = PortScene::new(Some("iptables"));
    scene.foreign_rules();
    let failing = scene.sandbox.path("failing");
    std::fs::create_dir(&failing).unwrap();
    let script =
        scene.sandbox.script("ip6tables-restore", "cat > /dev/null; echo no luck >&2; exit 4");
    std::os::unix::fs::symlink(script, failing.join("ip6tables-restore")).unwrap();
    let untouched = scene.ruleset();
    let frames =
        [Frame::arp(VM, PEER, 1), Frame::udp(VM, PEER, 1, 53), Frame::udp6(VM, PEER, 1, 53)];
    let pass = || frames.each_ref().map(|frame| scene.leaves(frame));

    // A port that had no filter has none.
    scene.define("test", RULES).unwrap();
    let binding = scene.binding(Station::Vnet0, "test", &[]);
    let said = done(scene.nwfilter_with_path(&failing, &["binding-create", &binding])).unwrap_err();
    assert!(said.contains("ip6tables-restore failed: no luck"), "{said}");
    assert_eq!(scene.ruleset(), untouched);
    assert_eq!(pass(), [true; 3]);
    assert_eq!(scene.list()["bindings"], json!([]));

    // One that had a filter keeps it, and so does the definition.
    scene.bind(Station::Vnet0, "test", &[]).unwrap();
    let bound = scene.ruleset();
    assert_eq!(pass(), [false; 3]);
    let file = scene.sandbox.path("filter.xml");
    let old = std::fs::read_to_string(scene.sandbox.path("config/nwfilter/test.xml")).unwrap();
    std::fs::write(&file, old.replace("53", "54").replace("opcode='Request'", "opcode='2'"))
        .unwrap();
    let define = ["define", file.to_str().unwrap()];
    done(scene.nwfilter_with_path(&failing, &define)).unwrap_err();
    assert_eq!(scene.ruleset(), bound);
    assert_eq!(pass(), [false; 3]);
    assert_eq!(
        std::fs::read_to_string(scene.sandbox.path("config/nwfilter/test.xml")).unwrap(),
        old
    );

    // A filter that cannot be taken away is still there.
    done(scene.nwfilter_with_path(&failing, &["binding-delete", "vnet0"])).unwrap_err();
    assert_eq!(scene.ruleset(), bound);
    assert_eq!(scene.backend_of(Station::Vnet0), "iptables");
    scene.unbind(Station::Vnet0);
    assert_eq!(scene.ruleset(), untouched);
}

#[test]
fn a_deleted_binding_leaves_nothing_and_rules_of_others_stay() {
    on_both("a_deleted_binding_leaves_nothing_and_rules_of_others_stay", |scene, backend| {
        scene.settings(&format!(
            "firewall_backend = \"{backend}\"\nenable_counters = true\nenable_trace = true\n"
        ));
        scene.foreign_rules();
        let before = scene.ruleset();
        let ip = [("IP", "10.2.3.4")];
        for _ in 0..2 {
            scene.bind(Station::Vnet0, "clean-traffic", &ip).unwrap();
            scene.bind(Station::Vnet1, "clean-traffic", &[("IP", "10.2.3.5")]).unwrap();
            assert_ne!(scene.ruleset(), before);
            scene.unbind(Station::Vnet0);
            scene.unbind(Station::Vnet1);
            assert_eq!(scene.ruleset(), before);
            let state = scene.sandbox.path("state/nwfilter/bindings");
            let left: Vec<_> = std::fs::read_dir(state)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .filter(|name| name != ".lock")
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
    });
}

/// A network's rules let its guests' traffic pass; that must not come before what refuses it.
#[test]
fn a_network_that_starts_later_does_not_open_a_port() {
    on_both("a_network_that_starts_later_does_not_open_a_port", |scene, backend| {
        scene
            .filter(&format!(
                "{}<rule action='drop' direction='out'><udp dstportstart='67'/></rule>",
                no_port(5000)
            ))
            .unwrap();
        let filtered = || {
            assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 5000)));
            assert!(!scene.enters(&Frame::udp(PEER, VM, 1, 5000)));
            assert!(!scene.reaches_host(67), "a DHCP server of the host's is reached");
            assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 5001)));
            assert!(scene.reaches_host(53));
        };
        filtered();
        let network = NetworkRules {
            bridge: "br0".parse().unwrap(),
            mode: Mode::Nat { devs: Vec::new(), addresses: None, ports: None, ipv6: false },
            subnets: vec![format!("{}/24", BRIDGE.v4).parse().unwrap()],
            ipv6_between_guests: true,
            dhcp: true,
            dns: true,
            tftp: false,
        };
        let add = vec![for_network(&network).unwrap()];
        let chosen = if backend == "nftables" {
            FirewallBackend::Nftables
        } else {
            FirewallBackend::Iptables
        };
        scene.netns.inside(|| {
            let transaction = Transaction { remove: &[], add: &add, others: false };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let tools = Tools::find(&[]);
            runtime.unwrap().block_on(transact(&tools, chosen, &transaction)).unwrap();
        });
        filtered();
        // And a port that gets its filter when the network is there.
        scene.unbind(Station::Vnet0);
        assert!(scene.reaches_host(67));
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        filtered();
    });
}

#[test]
fn a_frame_between_two_ports_passes_the_filters_of_both() {
    on_both("a_frame_between_two_ports_passes_the_filters_of_both", |scene, _| {
        let drop = |way: &str, port: u16| {
            format!("<rule action='drop' direction='{way}'><udp dstportstart='{port}'/></rule>")
        };
        scene.define("sender", &format!("{}{}", drop("out", 1), drop("in", 11))).unwrap();
        scene.define("receiver", &format!("{}{}", drop("in", 2), drop("out", 12))).unwrap();
        scene.bind(Station::Vnet0, "sender", &[]).unwrap();
        scene.bind(Station::Vnet1, "receiver", &[]).unwrap();
        for (port, there, back) in [
            (1, false, true),
            (2, false, true),
            (3, true, true),
            (11, true, false),
            (12, true, false),
        ] {
            let to = scene.send(Station::Vnet0, &Frame::udp(VM, OTHER, 9, port));
            assert_eq!(to.contains(&Station::Vnet1), there, "to port {port}");
            let from = scene.send(Station::Vnet1, &Frame::udp(OTHER, VM, 9, port));
            assert_eq!(from.contains(&Station::Vnet0), back, "back to port {port}");
        }
    });
}

#[test]
fn a_port_that_is_made_again_is_another_port() {
    on_both("a_port_that_is_made_again_is_another_port", |scene, _| {
        scene.foreign_rules();
        let before = scene.ruleset();
        scene.filter(&no_port(53)).unwrap();
        let frame = Frame::udp(VM, PEER, 1, 53);
        assert!(!scene.leaves(&frame));
        scene.unplug(Station::Vnet0);
        scene.plug(Station::Vnet0);
        assert_eq!(scene.list()["bindings"], json!([]), "the old port's filter is listed");
        // The next command that changes anything collects what the old port left.
        scene.bind(Station::Vnet1, "test", &[]).unwrap();
        assert!(scene.leaves(&frame), "the new port is filtered by the old one's rules");
        scene.unbind(Station::Vnet1);
        assert_eq!(scene.ruleset(), before, "rules of the old port are left");
        // It can have a filter of its own.
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        assert!(!scene.leaves(&frame));
        // So can one that comes between.
        scene.unplug(Station::Vnet0);
        scene.plug(Station::Vnet0);
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        assert!(!scene.leaves(&frame));
        scene.unbind(Station::Vnet0);
        assert_eq!(scene.ruleset(), before);
    });
}

#[test]
fn gratuitous_arp_is_distinguished_from_other_arp() {
    on_both("gratuitous_arp_is_distinguished_from_other_arp", |scene, _| {
        scene
            .filter(
                "<rule action='accept' direction='out'><arp gratuitous='true'/></rule>
                 <rule action='drop' direction='out' priority='900'><arp/></rule>",
            )
            .unwrap();
        // The announcement's target has the sender's address; every byte of it counts.
        assert!(scene.leaves(&Frame::arp(VM, VM, 1)));
        for at in 0..4 {
            let mut octets = VM.v4.octets();
            octets[at] ^= 1;
            let target = Host { v4: octets.into(), ..VM };
            assert!(!scene.leaves(&Frame::arp(VM, target, 1)), "another byte {at}");
        }
        assert!(scene.enters(&Frame::arp(PEER, VM, 1)));
    });
}

#[test]
fn ports_count_what_passes_and_what_is_dropped() {
    on_both("ports_count_what_passes_and_what_is_dropped", |scene, backend| {
        let settings = format!("firewall_backend = \"{backend}\"\n");
        scene
            .define(
                "test",
                &format!(
                    "{}<rule action='reject' direction='out'><udp dstportstart='54'/></rule>
                 <rule action='drop' direction='out'><arp opcode='2'/></rule>",
                    no_port(53)
                ),
            )
            .unwrap();
        scene.bind(Station::Vnet1, "test", &[]).unwrap();
        scene.settings(&format!("{settings}enable_counters = true\n"));
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 53)));
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 54)));
        assert!(!scene.leaves(&Frame::arp(VM, PEER, 2)));
        assert!(scene.leaves(&Frame::arp(VM, PEER, 1)));
        assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 55)));
        assert!(!scene.enters(&Frame::udp(PEER, VM, 1, 53)));
        let list = scene.list();
        valid("bindings", &list);
        let ports = list["bindings"].as_array().unwrap();
        let names: Vec<_> = ports.iter().map(|port| port["port"].as_str().unwrap()).collect();
        assert_eq!(names, ["vnet0", "vnet1"]);
        assert_eq!(ports[1]["counters"], Value::Null, "bound without counters");
        let counters = &ports[0]["counters"];
        if backend == "iptables" {
            assert_eq!(*counters, Value::Null);
            return;
        }
        let frames = |path: &str, what: &str| counters[path][what]["frames"].as_u64().unwrap();
        assert_eq!(frames("from_guest", "dropped"), 3);
        assert_eq!(frames("from_guest", "passed"), 2);
        assert_eq!(frames("to_guest", "dropped"), 1);
        // Frames that mark the end of a test are flooded to the guest, too.
        assert!(frames("to_guest", "passed") >= 1);
        assert!(counters["from_guest"]["passed"]["bytes"].as_u64().unwrap() >= 2 * 46);
        let mut more = list.clone();
        more["bindings"][0]["extra"] = json!(1);
        assert_ne!(faults("bindings", &more), [] as [String; 0]);
    });
}

#[test]
fn frames_of_a_traced_port_are_shown_by_nft() {
    if !have_root("frames_of_a_traced_port_are_shown_by_nft") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    scene.settings("firewall_backend = \"nftables\"\nenable_trace = true\n");
    scene.filter(&no_port(53)).unwrap();
    let mut command = scene.sandbox.program("/usr/sbin/nft".as_ref());
    command.args(["monitor", "trace"]);
    let mut monitor = start(command);
    let (lines, shown) = std::sync::mpsc::channel();
    let output = BufReader::new(monitor.0.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
    let mut all = String::new();
    // It is not known when nft listens.
    let traced = wait_until(AT_MOST, || {
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 53)));
        all.extend(shown.try_iter().map(|line| line + "\n"));
        all.contains("netlaunch_nwfilter") && all.contains("verdict drop")
    });
    assert!(traced, "{all}");
}

#[test]
fn a_binding_without_a_setting_says_which_backend_it_has() {
    if !have_root("a_binding_without_a_setting_says_which_backend_it_has") {
        return;
    }
    let scene = PortScene::new(None);
    scene.filter(&no_port(53)).unwrap();
    assert_eq!(scene.backend_of(Station::Vnet0), "nftables");
    assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 53)));
    // A setting counts for what is bound from now on, and for what reload puts back.
    scene.settings("firewall_backend = \"iptables\"\n");
    scene.bind(Station::Vnet1, "test", &[]).unwrap();
    assert_eq!(scene.backend_of(Station::Vnet1), "iptables");
    assert_eq!(scene.backend_of(Station::Vnet0), "nftables");
    assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 53)));
}
