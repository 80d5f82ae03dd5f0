//! Tests `nwfilter watch` with macvtap ports: each gets the filter of its rule when it comes, and
//! one without a filter is turned off.

use std::time::Duration;

use crate::common::frame::{Frame, OTHER, PEER, VM, mac_text};
use crate::common::macvtap::{have_macvtap, plug_above, scene, write_frame};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{text, wait_until};
use crate::nwfilter_watch::{is_bound, port, rule, watched};

const LIMIT: Duration = Duration::from_secs(60);
/// The guest behind a macvtap that comes later.
const LATER: [u8; 6] = [0x52, 0x54, 0, 0x11, 0x22, 0x55];

fn is_on(scene: &PortScene, name: &str) -> bool {
    scene.netns.says("ip", &["-o", "link", "show", name]).contains(",UP")
}

#[test]
fn a_macvtap_gets_the_filter_of_its_rule_and_is_off_without_one() {
    if !have_macvtap("a_macvtap_gets_the_filter_of_its_rule_and_is_off_without_one") {
        return;
    }
    let scene = scene("bridge");
    // The address of vnet0 and that of vnet2 are those of rules, and vnet1 has another.
    let rules = format!(
        "{}[[watch]]\nport = \"vnet1\"\nfilter = \"clean-traffic\"\nmac = \"02:00\"\n\
         [[watch]]\nport = \"vnet2\"\nfilter = \"no-mac-spoofing\"\nmac = \"{}\"\n",
        rule("").replace("vnet*", "vnet0"),
        mac_text(LATER)
    );
    let watcher = watched(&scene, "nftables", &rules);
    assert!(is_bound(&scene, "vnet0") && is_on(&scene, "vnet0"));
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
    assert!(!scene.leaves(&Frame::udp(OTHER, PEER, 1, 2)));
    assert!(wait_until(LIMIT, || !is_on(&scene, "vnet1")));
    assert!(port(&scene, "vnet1").is_null());

    // Another program makes a macvtap and turns it on at once.
    for run in 1..=5 {
        let queue = plug_above(&scene.netns, "vnet2", "peer0", "bridge", LATER);
        scene.netns.ip("link set vnet2 up");
        assert!(is_bound(&scene, "vnet2"), "run {run}");
        assert!(wait_until(LIMIT, || is_on(&scene, "vnet2")), "run {run}");
        let forged = Frame::udp(VM, PEER, 1, 2).sent_by(OTHER.mac);
        let own = Frame::udp(VM, PEER, 1, 2).sent_by(LATER);
        let numbered = |number: &str| [number.as_bytes(), &run.to_string().into_bytes()].concat();
        let heard = scene.peer_hears_from(
            || {
                write_frame(&queue, &forged.bytes(&numbered("nlforged")));
                write_frame(&queue, &own.bytes(&numbered("nlown")));
            },
            &numbered("nlown"),
        );
        let has = |number: &[u8]| {
            heard.iter().any(|frame| frame.windows(number.len()).any(|bytes| bytes == number))
        };
        assert!(has(&numbered("nlown")) && !has(&numbered("nlforged")), "run {run}");
        drop(queue);
        scene.netns.ip("link delete vnet2");
        assert!(wait_until(LIMIT, || port(&scene, "vnet2").is_null()), "run {run}");
    }
    drop(watcher);
    done(scene.nwfilter(&["watch", "--stop"])).unwrap();
}

#[test]
fn iptables_cannot_filter_a_macvtap_so_the_watcher_turns_it_off() {
    if !have_macvtap("iptables_cannot_filter_a_macvtap_so_the_watcher_turns_it_off") {
        return;
    }
    let scene = scene("bridge");
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
    let watcher = watched(&scene, "iptables", &rule(""));
    assert!(wait_until(LIMIT, || !is_on(&scene, "vnet0")));
    scene.try_send(Station::Vnet0, &Frame::udp(VM, PEER, 1, 2));
    assert!(port(&scene, "vnet0").is_null());
    // Another program turns it on again.
    scene.netns.ip("link set vnet0 up");
    assert!(wait_until(LIMIT, || !is_on(&scene, "vnet0")));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(watcher.pid()), nix::sys::signal::SIGTERM)
        .unwrap();
    let said = text(&watcher.output(LIMIT).stderr);
    assert!(said.contains("the port vnet0 stays closed"), "{said}");
    assert!(said.contains("frames of bridges only"), "{said}");
}
