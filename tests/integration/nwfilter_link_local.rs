//! Tests that frames which a bridge handles before its own hooks (01:80:c2:00:00:00 to 0f) pass the
//! filter of the port: by frames through a real bridge that learns addresses.

mod limits;

use std::net::UdpSocket;
use std::time::Duration;

use crate::common::frame::{BRIDGE, Frame, OTHER, PEER, VM, mac_text};
use crate::common::port_scene::{PortScene, Station, tracks_bridges};
use crate::common::{extent, have_root, skipped, text, wait_until};

/// LLDP's address, which no hook of the bridge family sees.
const LLDP: u8 = 0x0e;

/// A scene whose bridge learns addresses, and where one filter of these rules is on vnet0.
fn scene(backend: &str) -> PortScene {
    let scene = PortScene::new(Some(backend));
    scene.netns.ip("link set br0 type bridge ageing_time 30000");
    scene
}

/// A frame to the link-local address that ends in `last`.
fn link_local(last: u8, source: [u8; 6], rest: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0x01, 0x80, 0xc2, 0, 0, last], source.as_slice(), rest].concat();
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

/// The port behind which the bridge believes an address to be.
fn learned(scene: &PortScene, mac: [u8; 6]) -> Option<String> {
    let table = scene.sh("bridge fdb show br br0");
    let mac = mac_text(mac);
    let mine = |line: &&str| line.starts_with(&mac) && !line.contains("permanent");
    let line = table.lines().find(mine)?;
    line.split_whitespace().nth(2).map(str::to_owned)
}

/// A configuration BPDU of a bridge with this address that claims to be the root (IEEE 802.1D,
/// 9.3.1).
fn bpdu(mac: [u8; 6]) -> Vec<u8> {
    let bridge = [&[0, 0], mac.as_slice()].concat();
    let mut body = vec![0, 38, 0x42, 0x42, 3, 0, 0, 0, 0, 0];
    body.extend(&bridge);
    body.extend([0; 4]);
    body.extend(&bridge);
    body.extend([0x80, 1, 0, 0, 20, 0, 2, 0, 15, 0]);
    link_local(0, mac, &body)
}

/// Counts the BPDUs that come through vnet0's ingress hook behind all filters. (The kernel's STP
/// hears none outside of the initial network namespace; the tests of
/// nwfilter_debian_kernel have a root.)
fn count_bpdus(scene: &PortScene) {
    let chain = "add chain netdev seen c { type filter hook ingress device vnet0 priority 10; }";
    scene.sh(&format!("nft 'add table netdev seen; {chain}'"));
    scene.sh("nft add rule netdev seen c ether daddr 01:80:c2:00:00:00 counter");
}

fn bpdus(scene: &PortScene) -> u32 {
    let shown = scene.sh("nft list table netdev seen");
    let mut words = shown.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}

/// How many of 30 packets for the silent neighbour come to the guest behind vnet0, which sends a
/// frame with the neighbour's address before each.
fn stolen(scene: &PortScene, last: u8) -> usize {
    let attack = link_local(last, OTHER.mac, &[0x88, 0xb5]);
    let speech = [PEER.mac.as_slice(), &OTHER.mac, &[0x88, 0xb6], &[0; 46]].concat();
    let mut stolen = 0;
    for number in 0..30 {
        if number == 0 {
            scene.write(Station::Vnet1, &speech);
            assert_eq!(learned(scene, OTHER.mac).as_deref(), Some("vnet1"));
        }
        scene.write(Station::Vnet0, &attack);
        let seen = scene.send(Station::Peer, &Frame::udp(PEER, OTHER, 1000, 2000));
        stolen += usize::from(seen.contains(&Station::Vnet0) || !seen.contains(&Station::Vnet1));
    }
    stolen
}

#[test]
fn a_filtered_guest_takes_no_neighbours_address_by_link_local_frames() {
    if !have_root("a_filtered_guest_takes_no_neighbours_address_by_link_local_frames") {
        return;
    }
    let scene = scene("nftables");
    assert_eq!(stolen(&scene, LLDP), 30, "without a filter the attack works");
    scene.bind(Station::Vnet0, "no-mac-spoofing", &[]).unwrap();
    for last in 0..16 {
        scene.netns.ip("link set br0 type bridge fdb_flush");
        assert_eq!(stolen(&scene, last), 0, "packets stolen by frames to {last:x}");
    }
}

#[test]
fn a_filter_decides_about_bpdus_before_the_bridge() {
    if !have_root("a_filter_decides_about_bpdus_before_the_bridge") {
        return;
    }
    let scene = scene("nftables");
    scene.netns.ip("link set br0 type bridge stp_state 1");
    count_bpdus(&scene);
    scene.write(Station::Vnet0, &bpdu(VM.mac));
    assert_eq!(bpdus(&scene), 1, "without a filter");
    scene.bind(Station::Vnet0, "clean-traffic", &[("IP", "10.2.3.4")]).unwrap();
    scene.write(Station::Vnet0, &bpdu(VM.mac));
    assert_eq!(bpdus(&scene), 1, "clean-traffic");
    scene.unbind(Station::Vnet0);
    // A filter that accepts the frame lets it through, as libvirt's documentation has it.
    scene
        .filter(
            "<rule action='accept' direction='out' priority='100'><stp srcmacaddr='$MAC'/></rule>\
             <rule action='drop' direction='out'/>",
        )
        .unwrap();
    scene.write(Station::Vnet0, &bpdu(OTHER.mac));
    assert_eq!(bpdus(&scene), 1, "a BPDU of another sender");
    scene.write(Station::Vnet0, &bpdu(VM.mac));
    assert_eq!(bpdus(&scene), 2, "an accepted BPDU");
}

#[test]
fn the_next_command_filters_link_local_frames_of_a_renamed_port_again() {
    if !have_root("the_next_command_filters_link_local_frames_of_a_renamed_port_again") {
        return;
    }
    let scene = scene("nftables");
    let forged = |last: u8| {
        let mac = [2, 0, 0, 0, 9, last];
        scene.write(Station::Vnet0, &link_local(LLDP, mac, &[0x88, 0xcc]));
        learned(&scene, mac)
    };
    scene.bind(Station::Vnet0, "no-mac-spoofing", &[]).unwrap();
    assert_eq!(forged(1), None, "bound");
    scene.netns.ip("link set vnet0 name px");
    scene.bind(Station::Vnet1, "no-mac-spoofing", &[]).unwrap();
    assert_eq!(forged(2), None, "another port was bound after the rename");
    scene.netns.ip("link set px name vnet0");
    scene.unbind(Station::Vnet1);
    assert_eq!(forged(3), None, "another port was released after the rename");
    scene.netns.ip("link set vnet0 name px");
    scene.define("other", "").unwrap();
    assert_eq!(forged(4), None, "a filter was defined after the rename");
}

/// Whether a UDP packet from this address, sent to the host by a link-local frame, arrives.
fn reaches_host(scene: &PortScene, from: std::net::Ipv4Addr) -> bool {
    let socket = scene.netns.inside(|| UdpSocket::bind((BRIDGE.v4, 4000)).unwrap());
    socket.set_nonblocking(true).unwrap();
    let sender = crate::common::frame::Host { v4: from, ..VM };
    let mut bytes = Frame::udp(sender, BRIDGE, 68, 4000).bytes(b"nltest-host");
    bytes[..6].copy_from_slice(&[0x01, 0x80, 0xc2, 0, 0, LLDP]);
    scene.write(Station::Vnet0, &bytes);
    wait_until(Duration::from_millis(200), || socket.recv(&mut [0; 100]).is_ok())
}

#[test]
fn packets_to_the_host_by_link_local_frames_pass_the_filter() {
    if !have_root("packets_to_the_host_by_link_local_frames_pass_the_filter") {
        return;
    }
    let scene = scene("nftables");
    let forged = "10.2.3.77".parse().unwrap();
    assert!(reaches_host(&scene, forged), "without a filter the packet arrives");
    scene.bind(Station::Vnet0, "no-ip-spoofing", &[("IP", "10.2.3.4")]).unwrap();
    assert!(!reaches_host(&scene, forged), "a forged source address");
    assert!(reaches_host(&scene, VM.v4), "the guest's own address");
    scene.unbind(Station::Vnet0);
    let rule = |action: &str, element: &str| {
        format!("<rule action='{action}' direction='out' statematch='false'>{element}</rule>")
    };
    scene.filter(&rule("drop", "<udp dstportstart='4000'/>")).unwrap();
    assert!(!reaches_host(&scene, VM.v4), "a port that the filter refuses");
    scene.define("test", &rule("drop", "<udp dstportstart='4001'/>")).unwrap();
    assert!(reaches_host(&scene, VM.v4), "a port that the filter does not name");
}

/// Filters of each kind that decides about link-local frames.
const FILTERS: [(&str, &str); 7] = [
    ("empty", ""),
    ("mac", "<rule action='drop' direction='out'><mac match='no' srcmacaddr='$MAC'/></rule>"),
    ("ethertype", "<rule action='drop' direction='out'><mac protocolid='0x88cc'/></rule>"),
    (
        "chain",
        "<rule action='accept' direction='out' priority='-900'><mac dstmacaddr='01:80:c2:00:00:0e'/></rule>\
         <filterref filter='no-mac-spoofing'/><filterref filter='no-ip-spoofing'/>\
         <rule action='drop' direction='out' priority='900'><arp gratuitous='true'/></rule>",
    ),
    (
        "stp",
        "<rule action='accept' direction='out'><stp type='0' root-priority='0'/></rule>\
         <rule action='drop' direction='inout' priority='1000'/>",
    ),
    ("port", "<rule action='drop' direction='out'><udp dstportstart='4000'/></rule>"),
    ("inward", "<rule action='drop' direction='in'/>"),
];

/// Frames of each kind; the destination's last byte is set later.
fn frames() -> Vec<Vec<u8>> {
    let mut forged = VM.mac;
    forged[4] = 0x77;
    let mut all = Vec::new();
    for source in [VM.mac, forged] {
        all.push(link_local(0, source, &[0x88, 0xcc]));
        all.push(link_local(0, source, &[0x81, 0, 0, 5, 0x08, 0]));
        let own = bpdu(source);
        let mut other = own.clone();
        other[22] = 0x80;
        all.extend([own, other]);
        for packet in [Frame::udp(VM, PEER, 1, 4000), Frame::udp(OTHER, PEER, 1, 53)] {
            all.push(packet.sent_by(source).bytes(b"nltest"));
        }
        for target in [PEER, VM] {
            all.push(Frame::arp(VM, target, 1).sent_by(source).bytes(b"nltest"));
        }
    }
    all
}

/// A capture of frames (pcap, link type Ethernet).
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let words = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    for frame in frames {
        let length = frame.len() as u32;
        file.extend(words(&[0, 0, length, length]));
        file.extend(frame);
    }
    file
}

#[test]
fn explain_says_what_the_kernel_does_with_link_local_frames() {
    if !have_root("explain_says_what_the_kernel_does_with_link_local_frames") {
        return;
    }
    let scene = scene("nftables");
    let (mut passed, mut stopped) = (0, 0);
    for (name, rules) in FILTERS {
        scene.define(name, rules).unwrap();
        let parameters: &[_] = if name == "chain" { &[("IP", "10.2.3.4")] } else { &[] };
        scene.bind(Station::Vnet0, name, parameters).unwrap();
        // A bridge drops 01, which are pause frames, by itself.
        let lasts = extent(&[0, 2, LLDP][..], &[0, 2, 3, 0xd, LLDP, 0xf]);
        let frames: Vec<Vec<u8>> = lasts
            .iter()
            .flat_map(|last| {
                frames().into_iter().map(move |mut frame| {
                    frame[..6].copy_from_slice(&[0x01, 0x80, 0xc2, 0, 0, *last]);
                    frame
                })
            })
            .collect();
        let capture = scene.sandbox.path("frames.pcap");
        std::fs::write(&capture, pcap(&frames)).unwrap();
        let mac = mac_text(VM.mac);
        let args = ["explain", "--json", "--direction", "out", "--mac", &mac];
        let of = ["--param", "IP=10.2.3.4", name, "--pcap", capture.to_str().unwrap()];
        let args = [args.as_slice(), &of].concat();
        let output = scene.nwfilter(&args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let explained: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        for (number, frame) in frames.iter().enumerate() {
            scene.netns.ip("link set br0 type bridge fdb_flush");
            scene.write(Station::Vnet0, frame);
            let source: [u8; 6] = frame[6..12].try_into().unwrap();
            let passes = learned(&scene, source).is_some();
            let verdict = explained["frames"][number]["verdict"].as_str().unwrap();
            assert_eq!(verdict == "pass", passes, "{name}: {verdict}: {frame:x?}");
            *if passes { &mut passed } else { &mut stopped } += 1;
        }
        scene.unbind(Station::Vnet0);
    }
    println!("{passed} passed, {stopped} stopped");
    assert!(passed > 100 && stopped > 100);
}

#[test]
fn stateful_rules_stop_packets_to_link_local_addresses() {
    let test = "stateful_rules_stop_packets_to_link_local_addresses";
    if !have_root(test) {
        return;
    }
    if !tracks_bridges() {
        return skipped(test, "this kernel does not track connections of bridges");
    }
    let scene = scene("nftables");
    scene
        .filter(
            "<rule action='accept' direction='out'><udp dstportstart='4000'/></rule>\
             <rule action='drop' direction='inout' priority='1000'><all/></rule>",
        )
        .unwrap();
    assert!(!reaches_host(&scene, VM.v4));
}

/// The rule for frames needs the hook without connection tracking.
#[test]
fn stateful_rules_that_refuse_no_packet_bind_beside_a_rule_that_refuses_frames() {
    let test = "stateful_rules_that_refuse_no_packet_bind_beside_a_rule_that_refuses_frames";
    if !have_root(test) {
        return;
    }
    if !tracks_bridges() {
        return skipped(test, "this kernel does not track connections of bridges");
    }
    let scene = scene("nftables");
    scene
        .filter(
            "<rule action='accept' direction='out'><udp dstportstart='4000'/></rule>\
             <rule action='drop' direction='out'><arp/></rule>",
        )
        .unwrap();
    assert!(reaches_host(&scene, VM.v4));
}

#[test]
fn rules_for_link_local_frames_go_with_their_binding() {
    if !have_root("rules_for_link_local_frames_go_with_their_binding") {
        return;
    }
    let scene = scene("nftables");
    let before = scene.ruleset();
    let filter = || scene.bind(Station::Vnet0, "no-mac-spoofing", &[]);
    filter().unwrap();
    scene.bind(Station::Vnet1, "no-mac-spoofing", &[]).unwrap();
    scene.unbind(Station::Vnet1);
    assert_eq!(stolen_once(&scene), 0);
    // A lost table comes back with all its hooks.
    scene.sh("nft flush ruleset");
    let reloaded = crate::common::finish(scene.sandbox.netlaunch(&["firewall", "reload"]));
    assert!(reloaded.status.success(), "{}", text(&reloaded.stderr));
    assert_eq!(stolen_once(&scene), 0);
    scene.define("no-mac-spoofing", "").unwrap();
    assert_eq!(stolen_once(&scene), 1, "the filter was redefined and lets all pass");
    let undefined = scene.nwfilter(&["undefine", "no-mac-spoofing"]);
    assert!(undefined.status.success(), "{}", text(&undefined.stderr));
    assert_eq!(stolen_once(&scene), 0);
    // A later interface of the name has no filter.
    scene.unplug(Station::Vnet0);
    scene.plug(Station::Vnet0);
    assert_eq!(stolen_once(&scene), 1);
    filter().unwrap();
    assert_eq!(stolen_once(&scene), 0);
    scene.unbind(Station::Vnet0);
    assert_eq!(scene.ruleset(), before);
}

/// Whether one frame with the neighbour's address moves it to vnet0.
fn stolen_once(scene: &PortScene) -> usize {
    scene.netns.ip("link set br0 type bridge fdb_flush");
    scene.write(Station::Vnet0, &link_local(LLDP, OTHER.mac, &[0x88, 0xb5]));
    usize::from(learned(scene, OTHER.mac).is_some())
}

/// Returns the standard error of a command that succeeds.
fn said(scene: &PortScene, args: &[&str]) -> String {
    let output = scene.nwfilter(args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn bind_and_check_say_that_iptables_does_not_filter_link_local_frames() {
    if !have_root("bind_and_check_say_that_iptables_does_not_filter_link_local_frames") {
        return;
    }
    const WORDS: &str = "01:80:c2:00:00:00 to 0f (STP, LLDP and others) come to the bridge without";
    for (backend, expected) in [("iptables", true), ("nftables", false)] {
        let scene = scene(backend);
        let file = scene.binding(Station::Vnet0, "clean-traffic", &[("IP", "10.2.3.4")]);
        let note = said(&scene, &["binding-create", &file]);
        assert_eq!(note.contains(WORDS), expected, "{backend}: {note}");
        assert!(expected || note.is_empty(), "{note}");
        let checked = said(&scene, &["check", "clean-traffic"]);
        assert_eq!(checked.contains(WORDS), expected, "{backend}: {checked}");
        scene.unbind(Station::Vnet0);
        // A filter that refuses none has nothing to say.
        let file = scene.binding(Station::Vnet0, "allow-arp", &[]);
        assert_eq!(said(&scene, &["binding-create", &file]), "", "{backend}");
    }
}

#[test]
fn bind_names_the_filter_that_closes_encapsulations() {
    if !have_root("bind_names_the_filter_that_closes_encapsulations") {
        return;
    }
    let scene = scene("nftables");
    for name in ["no-mac-spoofing", "no-ip-spoofing", "no-arp-spoofing"] {
        let file = scene.binding(Station::Vnet0, name, &[("IP", "10.2.3.4")]);
        let note = said(&scene, &["binding-create", &file]);
        assert!(note.contains("add the filter no-other-l2-traffic"), "{name}: {note}");
        assert_eq!(note.lines().count(), 1, "{name}: {note}");
        scene.unbind(Station::Vnet0);
    }
}
