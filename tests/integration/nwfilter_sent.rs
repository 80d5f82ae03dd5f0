//! Filters where the backends see packets at different places: packets that the host
//! sends or routes to a guest, later fragments of IPv6, and rules whose states do not count. Real
//! packets pass a real bridge with a neighbour behind the host as its router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use crate::common::frame::{BRIDGE, Frame, Host, PEER, VM};
use crate::common::port_scene::{PortScene, Station, backends, tracks_bridges};
use crate::common::{Netns, have_root, skipped, text, wait_until};

/// The neighbour's addresses.
const OUTSIDE: Host = Host {
    mac: BRIDGE.mac,
    v4: Ipv4Addr::new(192, 0, 2, 9),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 9),
};

/// A port that every filter here lets through.
const LAST: u16 = 7;

const DROP_PACKETS: &str = "<rule action='drop' direction='inout' priority='1000'><all/></rule>
    <rule action='drop' direction='inout' priority='1000'><all-ipv6/></rule>";

/// A scene whose host routes between the bridge and a neighbour.
struct Routed {
    scene: PortScene,
    outside: Netns,
}

impl Routed {
    fn new(backend: &str) -> Self {
        let scene = PortScene::new(Some(backend));
        let outside = Netns::bare();
        scene.netns.inside(|| {
            for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{file}"), "1").unwrap();
            }
        });
        scene.netns.wire("up0", &outside, "out0");
        scene.netns.ip("address add 192.0.2.1/24 dev up0");
        scene.netns.ip("address add 2001:db8:1::1/64 dev up0 nodad");
        outside.ip(&format!("address add {}/24 dev out0", OUTSIDE.v4));
        outside.ip(&format!("address add {}/64 dev out0 nodad", OUTSIDE.v6));
        outside.ip("route add default via 192.0.2.1");
        outside.ip("-6 route add default via 2001:db8:1::1");
        Routed { scene, outside }
    }

    /// Binds a filter; returns what netlaunch says on it.
    fn bind(&self, rules: &str) -> Result<String, String> {
        self.scene.define("test", rules)?;
        let binding = self.scene.binding(Station::Vnet0, "test", &[]);
        let output = self.scene.nwfilter(&["binding-create", &binding]);
        if output.status.success() { Ok(text(&output.stderr)) } else { Err(text(&output.stderr)) }
    }

    /// The ports, of those given, on which the guest hears datagrams of `sender`.
    fn heard(&self, sender: &Netns, guest: IpAddr, from: u16, ports: &[u16]) -> Vec<u16> {
        let say = |port: u16| format!("nltest-port-{port}-end").into_bytes();
        let send = || {
            sender.inside(|| {
                let any = if guest.is_ipv4() { "0.0.0.0" } else { "::" };
                // A child that another test forks at this moment keeps the last socket open until
                // it executes its program.
                let mut socket = UdpSocket::bind((any, from));
                wait_until(Duration::from_secs(5), || {
                    if socket.is_err() {
                        socket = UdpSocket::bind((any, from));
                    }
                    socket.is_ok()
                });
                let socket = socket.unwrap();
                for port in ports.iter().chain(&[LAST]) {
                    socket.send_to(&say(*port), (guest, *port)).unwrap();
                }
            });
        };
        let heard = self.scene.hear(send, &say(LAST));
        let is_heard = |port: &u16| {
            let said = say(*port);
            heard.iter().any(|frame| frame.windows(said.len()).any(|bytes| bytes == said))
        };
        ports.iter().copied().filter(is_heard).collect()
    }

    /// Checks which of the ports 80 and 81 the host itself and the neighbour reach, on both IP
    /// versions.
    fn reaches(&self, expected: &[u16], what: &str) {
        for sender in [&self.scene.netns, &self.outside] {
            for guest in [IpAddr::V4(VM.v4), IpAddr::V6(VM.v6)] {
                let heard = self.heard(sender, guest, 4000, &[80, 81]);
                assert_eq!(heard, expected, "{what}: {} to {guest}", sender.name);
            }
        }
    }
}

#[test]
fn in_rules_hold_for_packets_that_the_host_sends_and_routes() {
    if !have_root("in_rules_hold_for_packets_that_the_host_sends_and_routes") {
        return;
    }
    for backend in backends() {
        let routed = Routed::new(backend);
        for (rules, expected) in [
            (
                "<rule action='drop' direction='in'><udp dstportstart='80'/></rule>
                 <rule action='reject' direction='in'><udp-ipv6 dstportstart='80'/></rule>",
                [81],
            ),
            (
                "<rule action='accept' direction='in' statematch='false'><udp dstportstart='80'/></rule>
                 <rule action='accept' direction='in' statematch='false'><udp-ipv6 dstportstart='80'/></rule>
                 <rule action='accept' direction='in' statematch='false'><udp dstportstart='7'/></rule>
                 <rule action='accept' direction='in' statematch='false'><udp-ipv6 dstportstart='7'/></rule>
                 <rule action='drop' direction='in' priority='1000'><all/></rule>
                 <rule action='drop' direction='in' priority='1000'><all-ipv6/></rule>",
                [80],
            ),
            (
                "<rule action='drop' direction='in'><udp dstipfrom='10.2.3.3' dstipto='10.2.3.6' dstportstart='80'/></rule>
                 <rule action='drop' direction='in'><udp-ipv6 match='no' dstipaddr='2001:db8::5' dstportstart='80'/></rule>",
                [81],
            ),
        ] {
            let said = routed.bind(rules).unwrap();
            assert!(!said.contains("routes to the guest"), "{backend}: {said}");
            routed.reaches(&expected, backend);
            // A frame of the bridge is judged as before.
            let crosses = routed.scene.enters(&Frame::udp(PEER, VM, 4000, 80));
            assert_eq!(crosses, expected == [80], "{backend}");
            routed.scene.unbind(Station::Vnet0);
        }
        routed.reaches(&[80, 81], "without a filter");
    }
}

/// The answers to what a guest opens pass, and what others open passes where the filter says so.
#[test]
fn states_of_packets_that_the_host_routes_hold_or_netlaunch_says_that_they_do_not() {
    if !have_root("the test of states of routed packets") {
        return;
    }
    for backend in backends() {
        let routed = Routed::new(backend);
        let tracks = backend == "iptables" || tracks_bridges();
        let refused = |bound: Result<String, String>| match bound {
            Err(said) if !tracks => {
                assert!(said.contains("cannot track connections in the bridge family"), "{said}");
                None
            }
            bound => Some(bound.unwrap()),
        };
        let ports = "<rule action='accept' direction='in'><udp dstportstart='80'/></rule>
            <rule action='accept' direction='in'><udp dstportstart='7'/></rule>";
        // New packets of any sender: ebtables does as much without the state.
        let Some(said) = refused(routed.bind(&format!("{ports}{DROP_PACKETS}"))) else { continue };
        assert!(!said.contains("routes to the guest"), "{backend}: {said}");
        for sender in [&routed.scene.netns, &routed.outside] {
            let heard = routed.heard(sender, VM.v4.into(), 4000, &[80, 81]);
            assert_eq!(heard, [80], "{backend}: {}", sender.name);
        }
        assert!(answers(&routed, 80, 4001), "{backend}: the answer of a guest's server");
        routed.scene.unbind(Station::Vnet0);

        // Answers alone: ebtables lets pass what could be one.
        let client = format!(
            "<rule action='accept' direction='out'><udp dstportstart='53'/></rule>
             <rule action='accept' direction='in' statematch='false'><udp dstportstart='7'/></rule>{DROP_PACKETS}"
        );
        let said = routed.bind(&client).unwrap();
        let is_told = said.contains("hold for packets that the host sends or routes to the guest");
        assert_eq!(is_told, backend == "iptables", "{backend}: {said}");
        assert!(answers(&routed, 1000, 53), "{backend}: a guest's question");
        let heard = routed.heard(&routed.outside, VM.v4.into(), 53, &[1000]);
        assert_eq!(heard, [1000], "{backend}: the answer to it");
        let heard = routed.heard(&routed.outside, VM.v4.into(), 54, &[1000, 1001]);
        assert_eq!(heard, [] as [u16; 0], "{backend}: what answers nothing");
        let heard = routed.heard(&routed.outside, VM.v4.into(), 53, &[1001]);
        assert_eq!(!heard.is_empty(), is_told, "{backend}: what looks like an answer");
        let check = text(&routed.scene.nwfilter(&["check", "test"]).stderr);
        let told = "filter test:3: with iptables it does not hold for packets that the host sends";
        assert!(check.contains(told), "{check}");
    }
}

/// Whether a datagram that the guest sends from one port to another of the neighbour's comes there.
fn answers(routed: &Routed, from: u16, to: u16) -> bool {
    let socket = routed.outside.inside(|| UdpSocket::bind((OUTSIDE.v4, to)).unwrap());
    // A guest's server answers a connection that the neighbour opened.
    if to != 53 {
        socket.send_to(b"nltest-open", (VM.v4, from)).unwrap();
        std::thread::sleep(Duration::from_millis(200));
    }
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let frame = Frame::udp(VM, OUTSIDE, from, to);
    routed.scene.write(Station::Vnet0, &frame.bytes(b"nltest-answer"));
    socket.recv(&mut [0; 100]).is_ok()
}

#[test]
fn a_later_fragment_has_the_protocol_of_the_fragment_header_in_the_link_layer() {
    if !have_root("the test of later fragments") {
        return;
    }
    let frames = [
        ("whole", Frame::udp6(VM, PEER, 1000, 53)),
        ("first", Frame::fragment6(VM, PEER, true)),
        ("later", Frame::fragment6(VM, PEER, false)),
    ];
    let accept = |attributes: &str| {
        format!(
            "<rule action='accept' direction='out'><ipv6 {attributes}/></rule><rule action='drop' direction='out' priority='1000'/>"
        )
    };
    let packets = "<rule action='accept' direction='out' statematch='false'><udp-ipv6/></rule>
        <rule action='drop' direction='out' priority='1000'><all-ipv6/></rule>";
    for backend in backends() {
        let scene = PortScene::new(Some(backend));
        for (rules, expected) in [
            (accept("protocol='udp'"), vec!["whole", "first"]),
            (accept("protocol='udp' dstportstart='53'"), vec!["whole", "first"]),
            (accept("protocol='44'"), vec!["later"]),
            (accept("match='no' protocol='udp'"), vec!["later"]),
            (accept("match='no' protocol='tcp'"), vec!["whole", "first", "later"]),
            (accept("match='no' protocol='44'"), vec!["whole", "first"]),
            // The fragment header names the protocol of the packet for the network layer.
            (packets.to_owned(), vec!["whole", "first", "later"]),
        ] {
            scene.filter(&rules).unwrap();
            let passing = |passes: &dyn Fn(&Frame) -> bool| -> Vec<&str> {
                frames.iter().filter(|(_, frame)| passes(frame)).map(|(name, _)| *name).collect()
            };
            assert_eq!(passing(&|frame| scene.leaves(frame)), expected, "{backend}: {rules}");
            let capture = scene.sandbox.path("frames.pcap");
            std::fs::write(&capture, pcap(frames.iter().map(|(_, frame)| frame))).unwrap();
            let capture = capture.to_str().unwrap();
            let explain = ["explain", "test", "--direction", "out", "--pcap", capture];
            let explained = text(&scene.nwfilter(&explain).stdout);
            let passes = explained.lines().zip(&frames).filter(|(line, _)| line.contains(" pass:"));
            let passing: Vec<&str> = passes.map(|(_, (name, _))| *name).collect();
            assert_eq!(passing, expected, "explain: {rules}: {explained}");
            scene.unbind(Station::Vnet0);
        }
    }
}

/// A capture of these frames (libpcap's file format, Ethernet).
fn pcap<'a>(frames: impl Iterator<Item = &'a Frame>) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1].map(u32::to_le_bytes).concat();
    for frame in frames {
        let bytes = frame.bytes(b"nltest-");
        let length = bytes.len() as u32;
        file.extend([0, 0, length, length].map(u32::to_le_bytes).concat());
        file.extend(bytes);
    }
    file
}

#[test]
fn states_do_not_count_where_statematch_is_off() {
    if !have_root("states_do_not_count_where_statematch_is_off") {
        return;
    }
    for backend in backends() {
        let scene = PortScene::new(Some(backend));
        for (off, state) in [("0", "NEW"), ("false", "ESTABLISHED,RELATED"), ("0", "NONE")] {
            let rule = format!(
                "<rule action='accept' direction='out' statematch='{off}'><udp dstportstart='53' state='{state}'/></rule>"
            );
            scene.filter(&format!("{rule}{DROP_PACKETS}")).unwrap();
            // Nothing opened a connection, and both ways pass.
            assert!(scene.enters(&Frame::udp(PEER, VM, 53, 1000)), "{backend}: {rule}");
            assert!(scene.leaves(&Frame::udp(VM, PEER, 1001, 53)), "{backend}: {rule}");
            assert!(!scene.leaves(&Frame::udp(VM, PEER, 1001, 54)), "{backend}: {rule}");
            scene.unbind(Station::Vnet0);
        }
        // A refusing rule does not look at connections, and applies to its own direction only.
        let rule = "<rule action='drop' direction='out' statematch='0'><udp dstportstart='53' state='ESTABLISHED'/></rule>";
        scene.filter(rule).unwrap();
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1000, 53)), "{backend}");
        assert!(scene.enters(&Frame::udp(PEER, VM, 53, 1000)), "{backend}");
    }
}

#[test]
fn a_rule_that_the_kernel_cannot_track_is_refused_with_the_reason() {
    let test = "a_rule_that_the_kernel_cannot_track_is_refused_with_the_reason";
    if !have_root(test) {
        return;
    }
    if tracks_bridges() {
        return skipped(test, "this kernel tracks connections of bridges");
    }
    let scene = PortScene::new(Some("nftables"));
    for action in ["accept", "drop", "reject", "return"] {
        for test in ["state='NEW'", "state='INVALID'", "connlimit-above='2'"] {
            for direction in ["in", "out", "inout"] {
                let rule =
                    format!("<rule action='{action}' direction='{direction}'><tcp {test}/></rule>");
                let end = "<rule action='reject' direction='out' priority='900'><all/></rule>";
                let said = scene.filter(&format!("{rule}{end}")).unwrap_err();
                assert!(said.contains("(nf_conntrack_bridge)"), "{rule}: {said}");
                assert!(!said.contains("Could not process"), "{rule}: {said}");
            }
        }
    }
}
