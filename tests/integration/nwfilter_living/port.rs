//! `explain --port` takes filter, MAC address and variables from the binding.

use std::io::Write;

use super::*;
use crate::common::AT_MOST;
use crate::common::frame::{PEER, VM};

#[test]
fn the_rules_of_a_port_explain_a_frame_as_its_filter_and_variables_do() {
    on_both("the_rules_of_a_port_explain_a_frame_as_its_filter_and_variables_do", |scene, _| {
        scene.bind(Station::Vnet0, "clean-traffic", &[("IP", "10.2.3.4")]).unwrap();
        let stranger = Frame::arp(PEER, VM, 1).sent_by(VM.mac);
        for frame in [Frame::arp(VM, PEER, 1), Frame::udp(VM, PEER, 1, 2), stranger] {
            let frame = ["--frame", &hex(&frame)].map(str::to_owned);
            let frame = [frame[0].as_str(), frame[1].as_str()];
            let by_port = nwfilter(scene, &[&["explain", "--port", "vnet0"], &frame[..]].concat());
            let named = ["explain", "clean-traffic", "--mac", "52:54:00:11:22:33"];
            let by_name = nwfilter(scene, &[&named[..], &["-p", "IP=10.2.3.4"], &frame].concat());
            assert_eq!(by_port, by_name);
            assert!(by_port.0.starts_with("1 out ") && by_port.2 == Some(0), "{by_port:?}");
        }
        let (out, error, _) = nwfilter(
            scene,
            &["explain", "--port", "vnet0", "--json", "--frame", &hex(&Frame::arp(PEER, VM, 1))],
        );
        let object: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (&object["port"], &object["filter"]),
            (&"vnet0".into(), &"clean-traffic".into())
        );
        assert_eq!((&object["frames"][0]["direction"], error.as_str()), (&"in".into(), ""));
    });
}

#[test]
fn a_port_without_known_rules_is_refused_in_one_line() {
    on_both("a_port_without_known_rules_is_refused_in_one_line", |scene, _| {
        let frame = hex(&Frame::arp(VM, PEER, 1));
        let frame = ["--frame", &frame];
        let refused = |args: &[&str], words: &str| {
            let (out, error, status) = nwfilter(scene, &[&["explain"], args].concat());
            assert_eq!((out.as_str(), status), ("", Some(2)), "{args:?}: {error}");
            assert!(error.contains(words) && error.lines().count() == 1, "{args:?}: {error}");
        };
        let port = ["--port", "vnet0"];
        refused(&[&port[..], &frame].concat(), "the port vnet0 has no filter");
        refused(&[&["test"], &port[..], &frame].concat(), "cannot go with");
        refused(&[&port[..], &frame, &["-p", "IP=10.2.3.4"]].concat(), "cannot go with");
        refused(&[&port[..], &frame, &["--mac", "52:54:00:11:22:33"]].concat(), "cannot go with");
        refused(&[&port[..], &frame, &["--follow"]].concat(), "cannot go with");
        refused(&["test", "--follow"], "cannot go with");
        refused(&port, "--frame HEX");
        // A definition that changes without netlaunch is not in the kernel.
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        let file = scene.sandbox.path("config/nwfilter/test.xml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("dstportstart='53'", "dstportstart='57'")).unwrap();
        refused(&[&port[..], &frame].concat(), "netlaunch firewall reload");
        let reload = crate::common::finish(scene.sandbox.netlaunch(&["firewall", "reload"]));
        assert!(reload.status.success(), "{}", crate::common::text(&reload.stderr));
        let (out, error, _) = nwfilter(scene, &[&["explain"], &port[..], &frame].concat());
        assert!(out.starts_with("1 out pass: filter test line "), "{out} {error}");
    });
}

#[test]
fn a_port_that_learns_is_explained_by_the_rules_of_learning() {
    on_both("a_port_that_learns_is_explained_by_the_rules_of_learning", |scene, _| {
        scene.bind(Station::Vnet0, "clean-traffic", &[]).unwrap();
        let frame = hex(&Frame::udp(VM, PEER, 1, 2));
        let args = ["explain", "--port", "vnet0", "--frame", &frame];
        let (out, error, _) = nwfilter(scene, &args);
        assert!(out.starts_with("1 out drop: filter CTRL_IP_LEARNING line "), "{out} {error}");
        scene.write(Station::Vnet0, &Frame::arp(VM, PEER, 1).bytes(b"nltest-learn"));
        let learned = wait_until(AT_MOST, || {
            scene.list()["bindings"][0]["learning"]["address"] == "10.2.3.4"
        });
        assert!(learned, "{:#}", scene.list());
        let (out, error, _) = nwfilter(scene, &args);
        assert!(out.starts_with("1 out pass: filter "), "{out} {error}");
    });
}

/// A pcap file with these frames.
fn record(frame: &[u8]) -> Vec<u8> {
    let length = (frame.len() as u32).to_le_bytes();
    [&[0; 8], length.as_slice(), &length, frame].concat()
}

#[test]
fn frames_of_a_stream_are_explained_as_they_arrive() {
    on_both("frames_of_a_stream_are_explained_as_they_arrive", |scene, _| {
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        let (from, mut to) = std::io::pipe().unwrap();
        let args = ["explain", "--port", "vnet0", "--pcap", "-"];
        let running = Running::start(scene, &args, from.into());
        let head =
            [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
        to.write_all(&head).unwrap();
        let bytes = |frame: Frame| record(&frame.bytes(b"nltest-pcap"));
        for number in 1..=2 {
            to.write_all(&bytes(Frame::udp(VM, PEER, 1, 53))).unwrap();
            let line = running.line();
            assert!(line.starts_with(&format!("{number} out drop: filter test line ")), "{line}");
        }
        to.write_all(&bytes(Frame::udp(PEER, VM, 1, 1))).unwrap();
        assert!(running.line().starts_with("3 in pass: "));
        drop(to);
        assert_eq!(running.status(), Some(0));
    });
}
