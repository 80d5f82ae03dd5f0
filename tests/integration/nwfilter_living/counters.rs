//! `binding-list --counters` shows the frames that each rule has counted.

use serde_json::Value;

use super::*;
use crate::common::AT_MOST;
use crate::common::frame::{PEER, VM};

/// The frames that the rule of this line has counted: direction, line, frames.
fn counted(object: &Value, port: usize) -> Vec<(String, u64, u64)> {
    let rules = object["bindings"][port]["rules"].as_array().unwrap();
    let rules = rules.iter().map(|rule| {
        let direction = rule["direction"].as_str().unwrap().to_owned();
        (direction, rule["line"].as_u64().unwrap(), rule["frames"].as_u64().unwrap())
    });
    rules.filter(|(.., frames)| *frames > 0).collect()
}

/// Sends one frame to each rule of the filter, and two to the first one.
fn send(scene: &PortScene) {
    for frame in [
        Frame::arp(VM, PEER, 2),
        Frame::arp(VM, PEER, 2),
        Frame::arp(VM, PEER, 1),
        Frame::udp(VM, PEER, 7, 53),
        Frame::udp(VM, PEER, 7, 54),
    ] {
        scene.send(Station::Vnet0, &frame);
    }
    for frame in [Frame::udp(PEER, VM, 7, 53), Frame::udp6(PEER, VM, 7, 56)] {
        scene.send(Station::Peer, &frame);
    }
}

#[test]
fn each_rule_counts_its_frames_under_its_line() {
    on_each("each_rule_counts_its_frames_under_its_line", |scene, backend| {
        scene.settings(&format!("firewall_backend = \"{backend}\"\nenable_counters = true\n"));
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        send(scene);
        let (out, error, status) = nwfilter(scene, &["binding-list", "--counters", "--json"]);
        assert_eq!((error.as_str(), status), ("", Some(0)));
        let object: Value = serde_json::from_str(&out).unwrap();
        crate::common::schema::valid("bindings", &object);
        let xml = nwfilter(scene, &["dumpxml", "test"]).0;
        let line = |direction: &str, words: &str| {
            let (direction, lines) = (format!("direction='{direction}'"), xml.lines());
            // The rule is in the line before its protocol.
            let lines: Vec<&str> = lines.collect();
            let is_it = |two: &[&str]| two[0].contains(&direction) && two[1].contains(words);
            lines.windows(2).position(is_it).unwrap() as u64 + 1
        };
        let own = |direction: &str, words: &str, frames| {
            (direction.to_owned(), line(direction, words), frames)
        };
        let expected = [
            own("out", "opcode='Reply'", 2),
            own("out", "<arp/>", 1),
            own("out", "dstportstart='53'", 1),
            own("out", "dstportstart='54'", 1),
            own("in", "dstportstart='53'", 1),
            own("in", "dstportstart='56'", 1),
        ];
        // A frame that the hub floods counts in iptables once for each copy.
        let counted: Vec<_> = counted(&object, 0)
            .into_iter()
            .map(|(way, line, frames)| {
                let copies = backend == "iptables" && way == "out" && line > 9;
                (way, line, if copies { frames.min(1) } else { frames })
            })
            .collect();
        assert_eq!(counted, expected, "{backend}: {object:#}\n{xml}");

        let (table, ..) = nwfilter(scene, &["binding-list", "--counters"]);
        let row = |start: &[&str]| {
            table
                .lines()
                .any(|line| line.split_whitespace().take(start.len()).eq(start.iter().copied()))
        };
        let arp = line("out", "opcode='Reply'").to_string();
        assert!(row(&["PORT", "DIR", "FILTER", "LINE", "CHAIN", "ACTION", "FRAMES", "BYTES"]));
        assert!(row(&["vnet0", "out", "test", &arp, "root", "drop", "2"]), "{table}");
        let dropped = row(&["vnet0", "out", "-", "-", "-", "dropped", "4"]);
        assert_eq!(dropped, backend == "nftables", "{table}");
    });
}

#[test]
fn rules_without_counters_are_named_with_the_fix() {
    if !have_root("rules_without_counters_are_named_with_the_fix") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    scene.define("test", RULES).unwrap();
    scene.bind(Station::Vnet0, "test", &[]).unwrap();
    let (_, error, _) = nwfilter(&scene, &["binding-list", "--counters"]);
    assert!(error.contains("the port vnet0 are not known"), "{error}");
    scene.bind(Station::Vnet1, "test", &[]).unwrap();
    let (out, error, status) = nwfilter(&scene, &["binding-list", "--counters", "--json"]);
    assert_eq!(status, Some(0));
    assert!(error.contains("enable_counters = true"), "{error}");
    assert!(error.contains("the port vnet0 and 1 more are not known"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["bindings"][0]["rules"], Value::Null);
}

#[test]
fn watched_counters_are_printed_again_until_the_command_is_ended() {
    on_both("watched_counters_are_printed_again_until_the_command_is_ended", |scene, backend| {
        scene.settings(&format!("firewall_backend = \"{backend}\"\nenable_counters = true\n"));
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        let args = ["binding-list", "--counters", "--watch", "--json"];
        let running = Running::start(scene, &args, Stdio::null());
        let first: Value = serde_json::from_str(&running.line()).unwrap();
        assert_eq!(counted(&first, 0), []);
        scene.send(Station::Vnet0, &Frame::arp(VM, PEER, 2));
        let came = wait_until(AT_MOST, || {
            let next: Value = serde_json::from_str(&running.line()).unwrap();
            counted(&next, 0).iter().any(|(.., frames)| *frames == 1)
        });
        assert!(came);
        let pid = nix::unistd::Pid::from_raw(running.process.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(running.status(), Some(0));
    });
}
