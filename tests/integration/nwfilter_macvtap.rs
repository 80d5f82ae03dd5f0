//! Tests filters on macvtap ports, which are on no bridge: by frames through real macvtaps, in each
//! mode, that the filter stops what it stops on a port of a bridge, and that rules which it cannot
//! carry out there are refused.

use std::fs;

use crate::common::frame::{Frame, Host, OTHER, PEER, VM};
use crate::common::learning_scene::{NOBODY, SERVERS, STRANGER, is_not_deceived, learns, lease};
use crate::common::macvtap::{have_macvtap, scene};
use crate::common::port_scene::{PortScene, Station};
use crate::common::text;

const MODES: [&str; 5] = ["bridge", "private", "vepa", "passthru", "source"];
const IP: &[(&str, &str)] = &[("IP", "10.2.3.4")];

/// Checks that the frames which clean-traffic lets through pass, and no others.
fn is_clean(scene: &PortScene) {
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
    assert!(scene.leaves(&Frame::arp(VM, PEER, 1)));
    assert!(scene.leaves(&Frame::udp(NOBODY, SERVERS, 68, 67)));
    assert!(scene.enters(&Frame::udp(PEER, VM, 1, 2)));
    assert!(scene.enters(&Frame::arp(PEER, VM, 1)));
    is_not_deceived(scene);
    assert!(!scene.enters(&Frame::udp6(PEER, VM, 1, 2)));
}

#[test]
fn clean_traffic_stops_forged_frames_in_each_mode() {
    if !have_macvtap("clean_traffic_stops_forged_frames_in_each_mode") {
        return;
    }
    for mode in MODES {
        println!("{mode}");
        let scene = scene(mode);
        let forged = Frame::udp(VM, PEER, 1, 2).sent_by(OTHER.mac);
        assert!(scene.leaves(&forged) && scene.leaves(&Frame::udp6(VM, PEER, 1, 2)));
        assert!(scene.enters(&Frame::udp6(PEER, VM, 1, 2)));
        scene.bind(Station::Vnet0, "clean-traffic", IP).unwrap();
        is_clean(&scene);
        scene.unbind(Station::Vnet0);
        assert!(scene.leaves(&forged) && scene.leaves(&Frame::udp6(VM, PEER, 1, 2)));
        assert!(scene.enters(&Frame::udp6(PEER, VM, 1, 2)));
        assert_eq!(scene.sh("nft list tables"), "");
    }
}

#[test]
fn frames_between_two_ports_pass_the_filters_of_both() {
    if !have_macvtap("frames_between_two_ports_pass_the_filters_of_both") {
        return;
    }
    let scene = scene("bridge");
    let everyone = Host { mac: [0xff; 6], ..OTHER };
    let to_other = Frame::udp(VM, OTHER, 1, 2);
    let to_all = Frame::udp(VM, everyone, 1, 2);
    let both = [Station::Vnet1, Station::Peer];
    assert_eq!(scene.send(Station::Vnet0, &to_other), [Station::Vnet1]);
    assert_eq!(scene.send(Station::Vnet0, &to_all), both);
    scene.bind(Station::Vnet0, "clean-traffic", IP).unwrap();
    assert_eq!(scene.send(Station::Vnet0, &to_other), [Station::Vnet1]);
    assert_eq!(scene.send(Station::Vnet0, &to_all), both);
    for forged in [
        Frame::udp(STRANGER, OTHER, 1, 2),
        Frame::udp(STRANGER, everyone, 1, 2),
        Frame::arp(STRANGER, OTHER, 1),
        Frame::udp(VM, OTHER, 1, 2).sent_by(OTHER.mac),
    ] {
        assert_eq!(scene.send(Station::Vnet0, &forged), [], "{forged:?}");
    }
    scene
        .define("no-dns", "<rule action='drop' direction='in'><udp dstportstart='53'/></rule>")
        .unwrap();
    scene.bind(Station::Vnet1, "no-dns", &[]).unwrap();
    for (port, seen) in [(2, &both[..1]), (53, &[])] {
        assert_eq!(scene.send(Station::Vnet0, &Frame::udp(VM, OTHER, 1, port)), seen);
        assert_eq!(scene.send(Station::Peer, &Frame::udp(PEER, OTHER, 1, port)), seen);
    }
    assert_eq!(scene.send(Station::Vnet0, &Frame::udp(VM, everyone, 1, 53)), [Station::Peer]);
}

/// One filter for each kind of rule, and a frame of each direction that it refuses.
#[test]
fn rules_of_each_kind_apply_in_both_directions() {
    if !have_macvtap("rules_of_each_kind_apply_in_both_directions") {
        return;
    }
    let scene = scene("passthru");
    let syn = 2;
    type Between = fn(Host, Host) -> Frame;
    let cases: [(&str, Between); 9] = [
        ("<mac protocolid='0x86dd'/>", |from, to| Frame::udp6(from, to, 1, 2)),
        ("<arp opcode='1'/>", |from, to| Frame::arp(from, to, 1)),
        ("<rarp/>", |from, _| Frame::rarp(from, 0x0800)),
        ("<stp/>", |from, _| Frame::stp(from, 0)),
        ("<ip protocol='udp'/>", |from, to| Frame::udp(from, to, 1, 2)),
        ("<ipv6 protocol='udp'/>", |from, to| Frame::udp6(from, to, 1, 2)),
        ("<udp dstportstart='2'/>", |from, to| Frame::udp(from, to, 1, 2)),
        ("<tcp flags='SYN,ACK/SYN'/>", |from, to| Frame::tcp(from, to, 1, 2, 2)),
        ("<icmp type='8'/>", |from, to| Frame::icmp(from, to, 8)),
    ];
    let other = |from, to| Frame::tcp(from, to, 1, 2, syn | 16);
    for (rule, frame) in cases {
        assert!(scene.leaves(&frame(VM, PEER)) && scene.enters(&frame(PEER, VM)), "{rule}");
        let drop = |direction| format!("<rule action='drop' direction='{direction}'>{rule}</rule>");
        scene.filter(&drop("out")).unwrap();
        assert!(!scene.leaves(&frame(VM, PEER)) && scene.enters(&frame(PEER, VM)), "{rule} out");
        scene.define("test", &drop("in")).unwrap();
        assert!(scene.leaves(&frame(VM, PEER)) && !scene.enters(&frame(PEER, VM)), "{rule} in");
        assert!(scene.leaves(&other(VM, PEER)) && scene.enters(&other(PEER, VM)), "{rule}");
        scene.unbind(Station::Vnet0);
    }
}

#[test]
fn rules_that_need_a_bridge_are_refused() {
    if !have_macvtap("rules_that_need_a_bridge_are_refused") {
        return;
    }
    let scene = scene("bridge");
    for (rules, words) in [
        (
            "<rule action='accept' direction='in'><tcp dstportstart='22'/></rule>",
            "line 3 of the filter test tracks connections, which no backend can do on a port \
             without a bridge; set statematch='false' in that rule",
        ),
        (
            "<rule action='drop' direction='out'><tcp connlimit-above='2'/></rule>",
            "counts connections, which",
        ),
        (
            "<rule action='reject' direction='out'><tcp dstportstart='22'/></rule>",
            "rejects packets with an answer, which",
        ),
        (
            "<rule action='drop' direction='out'><all ipset='bad' ipsetflags='src'/></rule>",
            "looks addresses up in an ipset, which",
        ),
    ] {
        for backend in ["", "firewall_backend = \"nftables\"\n"] {
            scene.settings(backend);
            let said = scene.filter(rules).unwrap_err();
            assert!(said.contains(words), "{rules}: {said}");
        }
    }
    // The same port on iptables, and rules that need no state.
    let stateless = "<rule action='drop' direction='out'><udp dstportstart='53'/></rule>
        <rule action='accept' direction='in' statematch='false'><tcp dstportstart='22'/></rule>";
    scene.settings("firewall_backend = \"iptables\"\n");
    let said = scene.filter(stateless).unwrap_err();
    assert!(said.contains("see the frames of bridges only, and the port is on none"), "{said}");
    assert_eq!(scene.list()["bindings"].as_array().unwrap().len(), 0);
    assert_eq!(scene.sh("nft list tables; iptables-save; ebtables-save"), "");
    scene.settings("");
    scene.filter(stateless).unwrap();
    // A new definition that cannot be carried out is refused, and the old one stays in force.
    let said = scene
        .define("test", "<rule action='accept' direction='in'><tcp dstportstart='22'/></rule>")
        .unwrap_err();
    assert!(said.contains("the port vnet0: the rule in line"), "{said}");
    assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 53)));
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 54)));
}

/// Binds clean-traffic to vnet0 with more text in the document.
fn bind_with(scene: &PortScene, linkdev: &str) -> Result<(), String> {
    let file = scene.binding(Station::Vnet0, "clean-traffic", IP);
    let xml = fs::read_to_string(&file).unwrap();
    fs::write(&file, xml.replace("<mac ", &format!("{linkdev}\n<mac "))).unwrap();
    let output = scene.nwfilter(&["binding-create", &file]);
    if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
}

#[test]
fn linkdev_names_the_interface_below_the_port() {
    if !have_macvtap("linkdev_names_the_interface_below_the_port") {
        return;
    }
    let scene = scene("bridge");
    let said = bind_with(&scene, "<linkdev name='lo'/>").unwrap_err();
    assert!(said.contains("but the interface below the port is peer0; write <linkdev"), "{said}");
    assert_eq!(scene.sh("nft list tables"), "");
    bind_with(&scene, "<linkdev name='peer0'/>").unwrap();
    is_clean(&scene);
    let xml = text(&scene.nwfilter(&["binding-dumpxml", "vnet0"]).stdout);
    assert!(xml.contains("<portdev name='vnet0'/>\n  <linkdev name='peer0'/>"), "{xml}");
}

#[test]
fn the_address_of_a_guest_is_learned_from_dhcp() {
    if !have_macvtap("the_address_of_a_guest_is_learned_from_dhcp") {
        return;
    }
    let scene = scene("bridge");
    let said =
        scene.bind(Station::Vnet0, "clean-traffic", &[("CTRL_IP_LEARNING", "any")]).unwrap_err();
    assert!(
        said.contains("is on no bridge, where an address is learned from DHCP alone"),
        "{said}"
    );
    assert_eq!(scene.sh("nft list tables"), "");
    let file = scene.binding(Station::Vnet0, "clean-traffic", &[]);
    let output = scene.nwfilter(&["binding-create", &file]);
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("learned from DHCP alone"), "{said}");
    let xml = text(&scene.nwfilter(&["binding-dumpxml", "vnet0"]).stdout);
    assert!(xml.contains("<parameter name='CTRL_IP_LEARNING' value='dhcp'/>"), "{xml}");
    // Without an address, the guest may ask for one and nothing else.
    assert!(scene.leaves(&Frame::udp(NOBODY, SERVERS, 68, 67)));
    for early in [Frame::udp(VM, PEER, 1, 2), Frame::arp(VM, PEER, 1)] {
        assert!(!scene.leaves(&early), "{early:?}");
    }
    is_not_deceived(&scene);
    learns(&scene, None);
    lease(&scene, VM.v4, 600);
    learns(&scene, Some(VM.v4));
    is_clean(&scene);
    // Another port above the same interface cannot have that address.
    let said = scene.bind(Station::Vnet1, "clean-traffic", IP).unwrap_err();
    assert!(said.contains("the port vnet0 of the same bridge learned it"), "{said}");
    scene.unbind(Station::Vnet0);
    assert_eq!(scene.sh("nft list tables"), "");
}
