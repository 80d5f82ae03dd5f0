//! `explain --follow` names the rule with which the kernel decided.

use super::*;
use crate::common::AT_MOST;
use crate::common::frame::{BRIDGE, PEER, VM, mac_text};
use crate::common::macvtap::{self, have_macvtap};

/// The frames of a test: the station that sends, and the frame.
fn frames() -> Vec<(Station, Frame)> {
    let out = [
        Frame::arp(VM, PEER, 1),
        Frame::arp(VM, PEER, 2),
        Frame::udp(VM, PEER, 7, 53),
        Frame::udp(VM, PEER, 7, 54),
        Frame::udp(VM, PEER, 7, 55),
        Frame::udp(VM, PEER, 7, 56),
        Frame::udp6(VM, PEER, 7, 53),
        Frame::tcp(VM, PEER, 7, 80, 2),
        Frame::icmp(VM, PEER, 8),
        Frame::rarp(VM, 0x0800),
    ];
    let back =
        [Frame::udp(PEER, VM, 7, 53), Frame::udp6(PEER, VM, 7, 56), Frame::udp(PEER, VM, 7, 55)];
    let out = out.into_iter().map(|frame| (Station::Vnet0, frame));
    out.chain(back.into_iter().map(|frame| (Station::Peer, frame))).collect()
}

/// The words of `explain` for a frame, without its number: direction, verdict and rules.
fn explained(scene: &PortScene, frame: &Frame) -> String {
    let (out, error, _) = nwfilter(scene, &["explain", "--port", "vnet0", "--frame", &hex(frame)]);
    let line = out.lines().next().unwrap_or_else(|| panic!("{error}"));
    line.split_once(' ').unwrap().1.to_owned()
}

/// The lines that come for a frame, without their numbers: each has the frame behind a bar.
fn followed(running: &Running, scene: &PortScene, from: Station, frame: &Frame) -> Vec<String> {
    running.lines.try_iter().for_each(drop);
    scene.send(from, frame);
    // This frame, which a rule of its own drops, ends the wait. On a macvtap the kernel does not
    // report the type of the frame.
    let end = [PEER.mac.as_slice(), &VM.mac, &[0x90, 0], &[0; 46]].concat();
    let digits: String = end.iter().map(|byte| format!("{byte:02x}")).collect();
    let (out, ..) = nwfilter(scene, &["explain", "--port", "vnet0", "--frame", &digits]);
    let last = out.trim_end().split_once(' ').unwrap().1.to_owned();
    scene.write(Station::Vnet0, &end);
    let mut lines = Vec::new();
    loop {
        let line = running.line();
        let (words, about) = line.split_once(" | ").unwrap_or_else(|| panic!("{line}"));
        if words.split_once(' ').unwrap().1 == last {
            return lines;
        }
        // The scene sends marks to the port.
        if about.contains("EtherType 0x88b5") {
            continue;
        }
        lines.push(format!("{} | {about}", words.split_once(' ').unwrap().1));
    }
}

#[test]
fn each_frame_is_followed_in_the_words_that_explain_it() {
    on_each("each_frame_is_followed_in_the_words_that_explain_it", |scene, backend| {
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        let running = Running::follow(scene, &[]);
        for (from, frame) in frames() {
            let expected = explained(scene, &frame);
            let lines = followed(&running, scene, from, &frame);
            // The answer to a rejected frame, for example, is a frame of its own.
            let source = if from == Station::Peer { PEER } else { VM };
            let own = |line: &&String| line.contains(&format!(" | {} > ", mac_text(source.mac)));
            let lines: Vec<_> = lines.iter().filter(own).collect();
            let lines: Vec<_> =
                lines.iter().map(|line| line.split_once(" | ").unwrap().0).collect();
            if backend == "nftables" {
                assert_eq!(lines, [&expected], "{backend}");
                continue;
            }
            // With iptables, each stage has a line.
            let stopped = expected.contains(" drop: ") || expected.contains(" reject: ");
            let deciding = if stopped {
                lines.iter().filter(|line| !line.contains(" pass: ")).copied().collect::<Vec<_>>()
            } else {
                lines.clone()
            };
            let (head, places) = expected.split_once(": ").unwrap();
            let mut places: Vec<_> =
                places.split(", then ").map(|place| format!("{head}: {place}")).collect();
            // A stage without a rule for the frame has no chain there.
            places.retain(|place| stopped || lines.contains(&place.as_str()));
            let mut deciding: Vec<_> = deciding.iter().map(|line| (*line).to_owned()).collect();
            // The hub floods a frame of the guest, and the second stage has a line for each copy.
            deciding.sort();
            deciding.dedup();
            places.sort();
            assert_eq!(deciding, places, "{expected}: {lines:?}");
        }
    });
}

#[test]
fn the_trace_ends_with_its_process_also_when_it_is_killed() {
    on_both("the_trace_ends_with_its_process_also_when_it_is_killed", |scene, _| {
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        let before = scene.ruleset();
        for signal in [nix::sys::signal::Signal::SIGKILL, nix::sys::signal::Signal::SIGTERM] {
            let running = Running::follow(scene, &[]);
            assert!(has_trace_table(scene));
            let pid = nix::unistd::Pid::from_raw(running.process.pid());
            nix::sys::signal::kill(pid, signal).unwrap();
            let clean = signal == nix::sys::signal::Signal::SIGTERM;
            assert_eq!(running.status(), clean.then_some(0));
            // The kernel removes the table after the socket of the process is closed.
            assert!(wait_until(AT_MOST, || !has_trace_table(scene)));
            assert_eq!(scene.ruleset(), before);
        }
    });
}

#[test]
fn following_ends_after_a_number_of_frames_and_with_the_filter() {
    on_both("following_ends_after_a_number_of_frames_and_with_the_filter", |scene, _| {
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        let counted = Running::follow(scene, &["--count", "2"]);
        for _ in 0..3 {
            scene.send(Station::Vnet0, &Frame::udp(VM, BRIDGE, 7, 55));
        }
        let lines = [counted.line(), counted.line()];
        assert!(lines[0].starts_with("1 ") && lines[1].starts_with("2 "), "{lines:?}");
        assert!(counted.lines.recv_timeout(Duration::from_secs(20)).is_err());
        assert_eq!(counted.status(), Some(0));

        let running = Running::follow(scene, &[]);
        scene.unbind(Station::Vnet0);
        running.message("the port vnet0 or its filter is gone");
        assert_eq!(running.status(), Some(0));

        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        let running = Running::follow(scene, &[]);
        scene.unplug(Station::Vnet0);
        running.message("the port vnet0 or its filter is gone");
        assert_eq!(running.status(), Some(0));
    });
}

#[test]
fn a_renamed_port_is_followed_by_its_new_name() {
    if !have_root("a_renamed_port_is_followed_by_its_new_name") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    scene.define("test", RULES).unwrap();
    scene.bind(Station::Vnet0, "test", &[]).unwrap();
    let mut running = Running::follow(&scene, &["--json"]);
    for change in ["vnet0 down", "vnet0 name vnet7", "vnet7 up"] {
        scene.netns.ip(&format!("link set {change}"));
    }
    let line = || {
        scene.send(Station::Vnet0, &Frame::udp(VM, BRIDGE, 7, 53));
        let lines: Vec<String> = running.lines.try_iter().collect();
        lines.iter().any(|line| line.contains("\"port\":\"vnet7\""))
    };
    assert!(wait_until(AT_MOST, line), "{:?}", running.messages.try_iter().last());
    assert!(running.process.0.try_wait().unwrap().is_none());
}

#[test]
fn a_filter_that_changes_is_followed_with_its_new_lines() {
    on_both("a_filter_that_changes_is_followed_with_its_new_lines", |scene, _| {
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        let running = Running::follow(scene, &[]);
        let frame = Frame::udp(VM, PEER, 7, 53);
        let drop = |lines: Vec<String>| {
            lines.into_iter().find(|line| line.starts_with("out drop: ")).unwrap()
        };
        let old = drop(followed(&running, scene, Station::Vnet0, &frame));
        let comment = "<rule action='accept' direction='out' statematch='false' priority='50'><igmp/></rule>\n";
        scene.define("test", &format!("{comment}{RULES}")).unwrap();
        let expected = explained(scene, &frame);
        let new = drop(followed(&running, scene, Station::Vnet0, &frame));
        assert_ne!(old, new);
        assert!(new.starts_with(&format!("{expected} | ")), "{new}: {expected}");
    });
}

#[test]
fn link_local_frames_are_followed_on_the_ingress_hook() {
    if !have_root("link_local_frames_are_followed_on_the_ingress_hook") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    scene.define("test", "<rule action='drop' direction='out'><stp/></rule>").unwrap();
    scene.bind(Station::Vnet0, "test", &[]).unwrap();
    let running = Running::follow(&scene, &["--json", "--count", "1"]);
    scene.send(Station::Vnet0, &Frame::stp(VM, 0));
    let line: serde_json::Value = serde_json::from_str(&running.line()).unwrap();
    assert_eq!((&line["direction"], &line["verdict"]), (&"out".into(), &"drop".into()), "{line:#}");
    assert_eq!(line["stages"][0]["rule"]["filter"], "test", "{line:#}");
    crate::common::schema::valid("nwfilter-follow", &line);
    assert_eq!(running.status(), Some(0));
}

#[test]
fn frames_of_a_macvtap_are_followed_in_the_words_that_explain_them() {
    if !have_macvtap("frames_of_a_macvtap_are_followed_in_the_words_that_explain_them") {
        return;
    }
    let scene = macvtap::scene("private");
    scene.define("test", &RULES.replace("'reject'", "'drop'")).unwrap();
    for settings in ["", "enable_trace = true\n"] {
        scene.settings(settings);
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        let before = scene.ruleset();
        let running = Running::follow(&scene, &[]);
        assert_eq!(has_trace_table(&scene), settings.is_empty());
        for (from, frame) in frames() {
            let expected = explained(&scene, &frame);
            let lines = followed(&running, &scene, from, &frame);
            let lines: Vec<_> =
                lines.iter().map(|line| line.split_once(" | ").unwrap().0).collect();
            assert_eq!(lines, [&expected], "{frame:?}");
        }
        drop(running);
        let gone = || scene.ruleset() == before;
        assert!(wait_until(AT_MOST, gone), "{}", scene.ruleset());
        scene.unbind(Station::Vnet0);
    }
}
