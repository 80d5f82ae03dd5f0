//! The proofs of the table's rows: what the kernel does with a rule or a setting on one backend.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Backend;
use crate::common::frame::{BRIDGE, Frame, OTHER, PEER, VM, checksum, mac_text};
use crate::common::port_scene::{PortScene, Station, done, tracks_bridges};
use crate::common::{ipset, text, wait_until};

fn bind(scene: &PortScene, rules: &str) -> Result<String, String> {
    scene.define("test", rules)?;
    let output = scene.nwfilter(&["binding-create", &scene.binding(Station::Vnet0, "test", &[])]);
    let said = text(&output.stderr);
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// `words` must be in the refusal.
fn refuses(scene: &PortScene, rules: &str, words: &str) {
    let error = bind(scene, rules).unwrap_err();
    assert!(error.contains(words), "{error}");
}

pub fn an_ipset(scene: &PortScene, backend: Backend) {
    scene.netns.inside(|| ipset::make("known", PEER.v4, 53));
    let rules =
        "<rule action='drop' direction='out'><all ipset='known' ipsetflags='dst,dst'/></rule>";
    if backend == Backend::Nftables {
        return refuses(scene, rules, "looks addresses up in the ipset known");
    }
    bind(scene, rules).unwrap();
    assert!(!scene.leaves(&Frame::udp(VM, PEER, 1000, 53)));
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1000, 54)));
}

pub fn connections(scene: &PortScene, backend: Backend) {
    let rules = "<rule action='accept' direction='out'><udp dstportstart='53'/></rule>
        <rule action='drop' direction='inout' priority='1000'><all/></rule>";
    if backend == Backend::Nftables && !tracks_bridges() {
        return refuses(scene, rules, "nf_conntrack_bridge");
    }
    bind(scene, rules).unwrap();
    // The hub floods a frame to unfiltered ports, too, where it opens a connection. So the guest
    // speaks first.
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1000, 53)));
    assert!(scene.enters(&Frame::udp(PEER, VM, 53, 1000)));
    assert!(!scene.enters(&Frame::udp(PEER, VM, 53, 1001)));
}

/// The guest's answer, which a rule for frames drops, makes the peer's next packet one of an
/// established connection if it is tracked.
pub fn dropped_answers(scene: &PortScene, backend: Backend) {
    if backend == Backend::Nftables && !tracks_bridges() {
        return;
    }
    let rules = "<rule action='drop' direction='out'><ip protocol='udp'/></rule>
        <rule action='drop' direction='in'><udp state='ESTABLISHED'/></rule>";
    bind(scene, rules).unwrap();
    assert!(scene.enters(&Frame::udp(PEER, VM, 1000, 53)));
    assert!(!scene.leaves(&Frame::udp(VM, PEER, 53, 1000)));
    assert_eq!(scene.enters(&Frame::udp(PEER, VM, 1000, 53)), backend == Backend::Iptables);
}

/// The peer's tagged packet opens the connection to which the guest's packet is the answer.
pub fn tagged_packets(scene: &PortScene, backend: Backend) {
    if backend == Backend::Nftables && !tracks_bridges() {
        return;
    }
    bind(scene, "<rule action='drop' direction='out'><udp state='ESTABLISHED'/></rule>").unwrap();
    let mut frame = Frame::udp(PEER, VM, 1000, 53).bytes(b"nltest-tag");
    frame.splice(12..12, [0x81, 0, 0, 5]);
    scene.write(Station::Peer, &frame);
    let answer = Frame::udp(VM, PEER, 53, 1000);
    assert_eq!(scene.leaves(&answer), backend == Backend::Iptables);
}

pub fn packets_of_the_host(scene: &PortScene, backend: Backend) {
    let rules = "<rule action='drop' direction='in'><tcp flags='SYN/SYN'/></rule>";
    let said = bind(scene, rules).unwrap();
    assert_eq!(said.contains("cannot test TCP flags"), backend == Backend::Iptables, "{said}");
    // The host's first segment to the guest has SYN. A datagram follows, which passes.
    let send = || {
        scene.netns.inside(|| {
            let guest = SocketAddr::from((VM.v4, 4711));
            let error = TcpStream::connect_timeout(&guest, Duration::from_millis(50)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
            let socket = std::net::UdpSocket::bind((BRIDGE.v4, 0)).unwrap();
            socket.send_to(b"nltest-last", (VM.v4, 9)).unwrap();
        });
    };
    let heard = scene.hear(send, b"nltest-last");
    let is_segment = |frame: &Vec<u8>| frame[12..14] == [8, 0] && frame[23] == 6;
    assert_eq!(heard.iter().any(is_segment), backend == Backend::Iptables);
}

pub fn reject_to_the_guest(scene: &PortScene, backend: Backend) {
    bind(scene, "<rule action='reject' direction='in'><udp dstportstart='53'/></rule>").unwrap();
    let frame = Frame::udp(PEER, VM, 1000, 53);
    assert!(!scene.enters(&frame));
    // An ICMP error for the peer.
    let is_answer = |bytes: &Vec<u8>| bytes[12..14] == [8, 0] && bytes[23] == 1;
    let answered = scene.answers(Station::Peer, &frame).iter().any(is_answer);
    assert_eq!(answered, backend == Backend::Iptables);
}

pub fn link_local_frames(scene: &PortScene, backend: Backend) {
    scene.netns.ip("link set br0 type bridge ageing_time 30000");
    let said = bind(scene, "<rule action='drop' direction='out'><mac/></rule>").unwrap();
    assert_eq!(
        said.contains("come to the bridge without the filter"),
        backend == Backend::Iptables
    );
    let mut frame = [&[1, 0x80, 0xc2, 0, 0, 0x0e], OTHER.mac.as_slice(), &[0x88, 0xcc]].concat();
    frame.resize(60, 0);
    scene.write(Station::Vnet0, &frame);
    // The bridge learns the source of a frame that reaches it.
    let learned = || scene.sh("bridge fdb show br br0").contains(&mac_text(OTHER.mac));
    let reached = wait_until(Duration::from_millis(200), learned);
    assert_eq!(reached, backend == Backend::Iptables);
}

pub fn stp_fields(scene: &PortScene, backend: Backend) {
    for (rule, place, bytes) in
        [("type='128'", 20, [128].as_slice()), ("root-priority='0x0102'", 22, &[1, 2])]
    {
        bind(scene, &format!("<rule action='drop' direction='out'><stp {rule}/></rule>")).unwrap();
        let mut frame = Frame::stp(VM, 0).bytes(b"nltest-stp");
        frame[place..place + bytes.len()].copy_from_slice(bytes);
        let stopped = !leaves(scene, &frame);
        assert_eq!(stopped, backend == Backend::Nftables, "{rule}");
        printed_by_check(scene, "ebtables takes the version for the type");
        scene.unbind(Station::Vnet0);
    }
    // A notification of a changed topology (type 128, version 0).
    let mut frame = Frame::stp(VM, 0).bytes(b"nltest-stp");
    frame[20] = 128;
    assert_eq!(stops(scene, "<stp type='0'/>", &frame), backend == Backend::Iptables);
}

/// Whether a rule stops a packet with AH. The rule is set by the tools of PATH, or by ip6tables of
/// this program; `None` if there is no such program.
pub fn ah_of_ipv6(scene: &PortScene, rule: &str, tools: Option<&str>) -> Option<bool> {
    scene.define("test", &format!("<rule action='drop' direction='out'>{rule}</rule>")).unwrap();
    let binding = scene.binding(Station::Vnet0, "test", &[]);
    let dir = scene.sandbox.path("tools");
    std::fs::create_dir_all(&dir).unwrap();
    if let Some(program) = tools {
        let program = std::path::Path::new("/usr/sbin").join(program);
        if !program.exists() {
            return None;
        }
        for name in ["ip6tables-save", "ip6tables-restore"] {
            std::os::unix::fs::symlink(&program, dir.join(name)).unwrap();
        }
    }
    done(scene.nwfilter_with_path(&dir, &["binding-create", &binding])).unwrap();
    // A header of AH (RFC 4302) of 24 bytes before a datagram.
    let datagram = Frame::udp6(VM, PEER, 1000, 53).bytes(b"nltest-ah");
    let (head, rest) = datagram.split_at(54);
    let (mut head, ah) = (head.to_vec(), [&[17, 4], [0; 22].as_slice()].concat());
    assert_eq!(head[20], 17);
    head[19] += 24;
    head[20] = 51;
    let stopped = !leaves(scene, &[head, ah, rest.to_vec()].concat());
    printed_by_check(scene, "the header behind AH");
    done(scene.nwfilter_with_path(&dir, &["binding-delete", "vnet0"])).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    Some(stopped)
}

/// Whether a filter of this rule stops the bytes.
fn stops(scene: &PortScene, rule: &str, frame: &[u8]) -> bool {
    bind(scene, &format!("<rule action='drop' direction='out'>{rule}</rule>")).unwrap();
    let stopped = !leaves(scene, frame);
    scene.unbind(Station::Vnet0);
    stopped
}

pub fn ah_and_no_next_header(scene: &PortScene, backend: Backend) {
    let is_nftables = backend == Backend::Nftables;
    let mut frame = Frame::udp6(VM, PEER, 1000, 53).bytes(b"nltest-59");
    frame[20] = 59;
    assert_eq!(stops(scene, "<ipv6 protocol='59'/>", &frame), is_nftables);
    assert_eq!(stops(scene, "<ipv6 match='no' protocol='tcp'/>", &frame), is_nftables);
    let datagram = Frame::udp6(VM, PEER, 1000, 53).bytes(b"nltest-ah");
    let mut frame = datagram[..54].to_vec();
    frame[19] += 24;
    frame[20] = 51;
    frame.extend([&[17, 4], [0; 22].as_slice(), &datagram[54..]].concat());
    assert_eq!(stops(scene, "<ipv6 protocol='udp'/>", &frame), !is_nftables);
    assert_eq!(stops(scene, "<ipv6 match='no' protocol='udp'/>", &frame), is_nftables);
}

pub fn arp_lengths(scene: &PortScene, backend: Backend) {
    let is_iptables = backend == Backend::Iptables;
    // MAC addresses of four bytes, and behind the first of them the sender's IPv4 address.
    let mut frame = Frame::arp(VM, PEER, 1).bytes(b"nltest-arp");
    frame[18] = 4;
    frame[26..30].copy_from_slice(&[10, 9, 9, 9]);
    let rule = "<arp arpsrcipaddr='10.9.9.9'/>";
    assert_eq!(stops(scene, rule, &frame), is_iptables);
    // Protocol addresses of 16 bytes, and behind the first of them the target's MAC address.
    let mut frame = Frame::arp(VM, PEER, 1).bytes(b"nltest-arp");
    frame[19] = 16;
    frame[44..50].copy_from_slice(&OTHER.mac);
    frame[22..28].copy_from_slice(&OTHER.mac);
    let target = format!("<arp arpdstmacaddr='{}'/>", mac_text(OTHER.mac));
    assert_eq!(stops(scene, &target, &frame), is_iptables);
    let sender = format!("<arp arpsrcmacaddr='{}'/>", mac_text(OTHER.mac));
    assert!(stops(scene, &sender, &frame));
}

/// The first fragment header says that the packet is whole, and the second one that it is a later
/// fragment of a datagram.
pub fn two_fragment_headers(scene: &PortScene, backend: Backend) {
    let is_nftables = backend == Backend::Nftables;
    let datagram = Frame::udp6(VM, PEER, 1000, 53).bytes(b"nltest-twice");
    let mut frame = datagram[..54].to_vec();
    frame[19] += 16;
    frame[20] = 44;
    for (next, offset) in [(44, 0), (17, 8)] {
        frame.extend([next, 0, 0, offset, 0, 0, 0, 7]);
    }
    frame.extend(&datagram[54..]);
    assert_eq!(stops(scene, "<ipv6 protocol='udp'/>", &frame), is_nftables);
    assert_eq!(stops(scene, "<ipv6 protocol='44'/>", &frame), !is_nftables);
    assert_eq!(stops(scene, "<ipv6 match='no' protocol='udp'/>", &frame), !is_nftables);
}

pub fn short_headers(scene: &PortScene, backend: Backend) {
    // The first four bytes of an ICMP message of type 8, as the whole payload.
    let mut frame = Frame::icmp(VM, PEER, 8).bytes(b"nltest-short");
    frame[16..18].copy_from_slice(&24u16.to_be_bytes());
    let sum = checksum(&[&frame[14..24], [0; 2].as_slice(), &frame[26..34]].concat());
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.truncate(38);
    assert_eq!(stops(scene, "<icmp type='9'/>", &frame), backend == Backend::Iptables);
    assert!(stops(scene, "<icmp type='8'/>", &frame));
    // Destination options (60) and a datagram behind the end of the packet.
    let mut frame = Frame::udp6(VM, PEER, 1000, 53).bytes(b"nltest-short");
    (frame[18], frame[19], frame[20]) = (0, 0, 60);
    frame.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
    assert_eq!(stops(scene, "<udp-ipv6/>", &frame), backend == Backend::Nftables);
    // The ports of DCCP (33) behind the end of a packet to the guest. br_netfilter removes the
    // bytes in front of the rules of both backends, and is there if iptables is used.
    if backend == Backend::Nftables {
        return;
    }
    let mut frame = Frame::udp6(PEER, VM, 1000, 53).bytes(b"nltest-short");
    (frame[18], frame[19], frame[20]) = (0, 0, 33);
    let rule = "<rule action='drop' direction='in'><ipv6 protocol='33' dstportstart='53'/></rule>";
    bind(scene, rule).unwrap();
    let last = b"nltest-end";
    let send = || {
        scene.write(Station::Peer, &frame);
        scene.write(Station::Peer, &Frame::arp(PEER, VM, 1).bytes(last));
    };
    let heard = scene.hear(send, last);
    assert!(heard.iter().any(|bytes| bytes.len() >= 34 && frame.starts_with(bytes)));
    scene.unbind(Station::Vnet0);
}

/// Whether bytes that the guest sends reach the peer.
fn leaves(scene: &PortScene, frame: &[u8]) -> bool {
    // A frame after it, which no filter here stops, shows that it had its time.
    let heard = scene.peer_hears(frame, &Frame::arp(VM, PEER, 1).bytes(b"nltest-end"));
    // br_netfilter removes the bytes behind the end of a packet.
    heard.iter().any(|bytes| bytes.len() >= 34 && frame.starts_with(bytes))
}

fn printed_by_check(scene: &PortScene, words: &str) {
    let output = scene.nwfilter(&["check", "test"]);
    assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
}

pub fn refused_by_iptables(scene: &PortScene, backend: Backend, rule: &str, words: &str) {
    let rules = format!("<rule action='drop' direction='out'>{rule}</rule>");
    match backend {
        Backend::Iptables => refuses(scene, &rules, words),
        Backend::Nftables => {
            bind(scene, &rules).unwrap();
            // The VLAN number and the DSCP of this frame, which is IPv4, are others.
            let applies = !scene.leaves(&Frame::udp(VM, PEER, 1000, 53));
            assert_eq!(applies, rule.contains("dscp"));
            let mut tagged = [PEER.mac.as_slice(), &VM.mac, &[0x81, 0, 0x0f, 0xff]].concat();
            tagged.extend([0x88, 0xb5]);
            tagged.resize(60, 7);
            assert_eq!(leaves(scene, &tagged), rule.contains("dscp"));
        }
    }
}

pub fn calls_of_iptables(scene: &PortScene, backend: Backend) {
    let rules = "<rule action='drop' direction='out'><udp dstportstart='53'/></rule>";
    scene.sh(
        "if test -e /proc/sys/net/bridge; then sysctl -qw net.bridge.bridge-nf-call-iptables=0; fi",
    );
    match backend {
        Backend::Iptables => refuses(scene, rules, "iptables does not see the packets"),
        Backend::Nftables => {
            bind(scene, rules).unwrap();
            assert!(!scene.leaves(&Frame::udp(VM, PEER, 1000, 53)));
        }
    }
}

pub fn a_renamed_port(scene: &PortScene, backend: Backend) {
    bind(scene, "<rule action='drop' direction='out'><arp/></rule>").unwrap();
    let frame = Frame::arp(VM, PEER, 1);
    assert!(!scene.leaves(&frame));
    scene.netns.ip("link set vnet0 down");
    scene.netns.ip("link set vnet0 name other0");
    scene.netns.ip("link set other0 up");
    assert_eq!(scene.leaves(&frame), backend == Backend::Iptables);
    scene.define("another", "<rule action='drop' direction='out'/>").unwrap();
    scene.bind(Station::Vnet1, "another", &[]).unwrap();
    assert!(!scene.leaves(&frame), "after the next command");
}

pub fn a_pattern_as_a_name(scene: &PortScene, backend: Backend) {
    scene.define("test", "<rule action='drop' direction='out'><arp/></rule>").unwrap();
    scene.netns.ip("link set vnet0 down");
    scene.netns.ip("link set vnet0 name v+");
    scene.netns.ip("link set v+ up");
    let file = scene.binding(Station::Vnet0, "test", &[]);
    let xml = std::fs::read_to_string(&file).unwrap().replace("'vnet0'", "'v+'");
    std::fs::write(&file, xml).unwrap();
    let bound = done(scene.nwfilter(&["binding-create", &file]));
    match backend {
        Backend::Iptables => {
            let error = bound.unwrap_err();
            assert!(error.contains("iptables reads the name v+ as a pattern"), "{error}");
        }
        Backend::Nftables => {
            bound.unwrap();
            assert!(!scene.leaves(&Frame::arp(VM, PEER, 1)));
        }
    }
}

pub fn counters_of_a_port(scene: &PortScene, backend: Backend) {
    let name = if backend == Backend::Nftables { "nftables" } else { "iptables" };
    let rules = "<rule action='drop' direction='out'><arp/></rule>";
    let setting = format!("firewall_backend = \"{name}\"\n");
    if backend == Backend::Nftables {
        scene.settings(&format!("{setting}enable_counters = true\n"));
    }
    bind(scene, rules).unwrap();
    assert!(!scene.leaves(&Frame::arp(VM, PEER, 1)));
    let output = scene.nwfilter(&["binding-list", "--counters", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let port = &list["bindings"][0];
    assert_eq!(port["rules"][0]["frames"], 1, "{list:#}");
    let dropped = &port["counters"]["from_guest"]["dropped"]["frames"];
    match backend {
        Backend::Nftables => assert_eq!(*dropped, 1, "{list:#}"),
        Backend::Iptables => assert!(port["counters"].is_null(), "{list:#}"),
    }
}

pub fn trace_setting(scene: &PortScene, backend: Backend) {
    let name = if backend == Backend::Nftables { "nftables" } else { "iptables" };
    scene.settings(&format!("firewall_backend = \"{name}\"\nenable_trace = true\n"));
    let said = bind(scene, "<rule action='drop' direction='out'><arp/></rule>").unwrap();
    let is_said = said.contains("enable_trace has no effect on the port vnet0");
    assert_eq!(is_said, backend == Backend::Iptables, "{said}");
    let traces = scene.ruleset().contains("nftrace set 1");
    assert_eq!(traces, backend == Backend::Nftables);
}
