//! Tests the filters for IPv6: which frames of a guest leave its port. `explain`, nftables and
//! iptables in the kernel must agree on each of them.

use std::net::Ipv6Addr;

use netlaunch::nwfilter::explain::{EvalPath, Judge, Verdict};
use netlaunch::nwfilter::{Compiler, FilterName, Filters, Variables, stock, stock_names};

use crate::common::dhcp_frame::{GUEST, OTHER, ethernet, udp};
use crate::common::frame::VM;
use crate::common::have_root;
use crate::common::nd_frame::{ALL_NODES, Dhcp6Frame, NdFrame, REPLY, ipv6, link_option};
use crate::common::port_scene::{PortScene, Station};

const OWN: Ipv6Addr = VM.v6;
const OWN_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe11, 0x2233);
const THEIRS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const NONE: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
/// A nonce (RFC 7527).
const NONCE: [u8; 8] = [14, 1, 1, 2, 3, 4, 5, 6];

/// A frame, its name, and whether it may leave.
type Row = (&'static str, Vec<u8>, bool);

/// The frames of a guest with the addresses `OWN` and `OWN_LINK`.
fn frames() -> Vec<Row> {
    [packets(), advertisements(), routers_and_groups()].concat()
}

fn changed(mut frame: NdFrame, change: impl Fn(&mut NdFrame)) -> Vec<u8> {
    change(&mut frame);
    frame.bytes()
}

fn packets() -> Vec<Row> {
    let says = |mac, from, to: Ipv6Addr| {
        let packet = ipv6(from, to, 17, 64, &udp(1000, 2000, b"nltest"));
        ethernet(OTHER, mac, 0x86dd, &packet)
    };
    let solicits = |from, options: &[u8]| NdFrame::solicit(GUEST, from, THEIRS, options).bytes();
    let mut test_with_nonce = NdFrame::test(GUEST, THEIRS);
    test_with_nonce.message.extend(NONCE);
    vec![
        ("IPv6", says(GUEST, OWN, THEIRS), true),
        ("IPv6 from the link-local address", says(GUEST, OWN_LINK, ROUTER), true),
        ("IPv6 from another address", says(GUEST, THEIRS, OWN), false),
        ("IPv6 from another link-local address", says(GUEST, ROUTER, OWN_LINK), false),
        ("IPv6 from another MAC address", says(OTHER, OWN, THEIRS), false),
        ("IPv6 from no address", says(GUEST, NONE, THEIRS), false),
        ("a test of an address", NdFrame::test(GUEST, THEIRS).bytes(), true),
        ("a test with a nonce", test_with_nonce.bytes(), true),
        ("a test from another MAC address", NdFrame::test(OTHER, OWN).bytes(), false),
        ("a solicitation", solicits(OWN, &link_option(1, GUEST)), true),
        ("a solicitation without options", solicits(OWN_LINK, &[]), true),
        ("a solicitation from another address", solicits(ROUTER, &link_option(1, GUEST)), false),
        ("a solicitation with another MAC address", solicits(OWN, &link_option(1, OTHER)), false),
        (
            "a solicitation with a second MAC address",
            solicits(OWN, &[link_option(1, GUEST), link_option(1, OTHER)].concat()),
            false,
        ),
        ("a solicitation with the target's", solicits(OWN, &link_option(2, OTHER)), false),
    ]
}

fn advertisements() -> Vec<Row> {
    let own = || link_option(2, GUEST);
    let advertises =
        |from, target, options: &[u8]| NdFrame::advertise(GUEST, from, target, options).bytes();
    vec![
        ("an advertisement", advertises(OWN, OWN, &own()), true),
        ("an advertisement without options", advertises(OWN, OWN, &[]), true),
        (
            "an advertisement of its link-local address",
            advertises(OWN_LINK, OWN_LINK, &own()),
            true,
        ),
        // As from BSD, which chooses the source by the receiver.
        ("an advertisement from its other address", advertises(OWN_LINK, OWN, &own()), true),
        ("an advertisement of another address", advertises(OWN, THEIRS, &own()), false),
        ("an advertisement of the router", advertises(OWN_LINK, ROUTER, &own()), false),
        ("an advertisement from another address", advertises(THEIRS, OWN, &own()), false),
        (
            "an advertisement of another MAC address",
            advertises(OWN, OWN, &link_option(2, OTHER)),
            false,
        ),
        (
            "another MAC address behind a nonce",
            advertises(OWN, OWN, &[&NONCE[..], &link_option(2, OTHER)].concat()),
            false,
        ),
        (
            "an advertisement of another address behind a destination header",
            changed(NdFrame::advertise(GUEST, OWN, THEIRS, &own()), |frame| {
                frame.extensions = (60, vec![58, 0, 1, 4, 0, 0, 0, 0]);
            }),
            false,
        ),
        (
            "an advertisement of another address in a first fragment",
            changed(NdFrame::advertise(GUEST, OWN, THEIRS, &own()), |frame| {
                frame.extensions = (44, vec![58, 0, 0, 1, 0, 0, 0, 7]);
            }),
            false,
        ),
    ]
}

fn routers_and_groups() -> Vec<Row> {
    let mld = |kind, from| {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat();
        changed(NdFrame::ask_routers(GUEST, from, &[]), |frame| {
            (frame.message, frame.hop_limit) = (message.clone(), 1);
            frame.extensions = (0, vec![58, 0, 5, 2, 0, 0, 1, 0]);
            (frame.to, frame.mac_to) = ("ff02::16".parse().unwrap(), [0x33, 0x33, 0, 0, 0, 0x16]);
        })
    };
    let server = Dhcp6Frame::asks(7, GUEST, OWN_LINK);
    let server = Dhcp6Frame { ports: (547, 546), message: REPLY, ..server };
    vec![
        (
            "a question for routers",
            NdFrame::ask_routers(GUEST, OWN_LINK, &link_option(1, GUEST)).bytes(),
            true,
        ),
        (
            "a question for routers from no address",
            NdFrame::ask_routers(GUEST, NONE, &[]).bytes(),
            true,
        ),
        (
            "a question for routers with another MAC address",
            NdFrame::ask_routers(GUEST, OWN_LINK, &link_option(1, OTHER)).bytes(),
            false,
        ),
        ("a router advertisement", NdFrame::router(GUEST, OWN_LINK, OWN, 600).bytes(), false),
        (
            "a redirect",
            changed(NdFrame::advertise(GUEST, OWN_LINK, THEIRS, &[0; 16]), |frame| {
                frame.message[0] = 137
            }),
            false,
        ),
        ("a DHCPv6 request", Dhcp6Frame::asks(3, GUEST, OWN_LINK).bytes(), true),
        (
            "a DHCPv6 request from another address",
            Dhcp6Frame::asks(3, GUEST, ROUTER).bytes(),
            false,
        ),
        ("a DHCPv6 reply", server.bytes(), false),
        ("an MLD report", mld(131, OWN_LINK), true),
        ("an MLD report from no address", mld(143, NONE), true),
        ("an MLD report from another address", mld(143, ROUTER), false),
        ("an MLD query", mld(130, OWN_LINK), false),
    ]
}

const PARAMETERS: [(&str, Ipv6Addr); 2] = [("IPV6", OWN), ("IPV6", OWN_LINK)];

fn explained(filter: &str, frames: &[Row]) -> Vec<String> {
    let filters: Filters = stock_names()
        .filter_map(|name: FilterName| Some((name.clone(), stock(&name)?.unwrap())))
        .collect();
    let mut parameters: Vec<_> = PARAMETERS
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.to_string().parse().unwrap()))
        .collect();
    parameters.push(("MAC".parse().unwrap(), "52:54:00:11:22:33".parse().unwrap()));
    parameters.push(("IP".parse().unwrap(), "10.2.3.4".parse().unwrap()));
    let variables: Variables = parameters.into_iter().collect();
    let mut compiler = Compiler::new(&filters);
    let filter = compiler.filter(&filter.parse().unwrap()).unwrap();
    let (rules, _) = compiler.rules(filter, &variables).unwrap();
    let judged = frames.iter().map(|(what, bytes, expected)| {
        let explained = Judge::new(&rules).judge(EvalPath::Out, bytes, bytes.len()).unwrap();
        let text = explained.to_string();
        assert_eq!(explained.verdict == Verdict::Pass, *expected, "{what}: {text}");
        text
    });
    judged.collect()
}

fn agrees(backend: &str) {
    let test = format!("the_filters_for_ipv6_pass_only_a_guests_own_addresses_with_{backend}");
    if !have_root(&test) {
        return;
    }
    let frames = frames();
    for filter in ["clean-traffic-v6", "clean-traffic-dual"] {
        let explained = explained(filter, &frames);
        let scene = PortScene::new(Some(backend));
        let texts = PARAMETERS.map(|(name, value)| (name, value.to_string()));
        let mut parameters: Vec<(&str, &str)> =
            texts.iter().map(|(name, value)| (*name, value.as_str())).collect();
        parameters.push(("IP", "10.2.3.4"));
        // Without a filter, every frame leaves.
        for (what, bytes, _) in &frames {
            assert!(scene.leaves_bytes(bytes), "{backend}: {what}: the scene stops it");
        }
        scene.bind(Station::Vnet0, filter, &parameters).unwrap();
        for ((what, bytes, expected), why) in frames.iter().zip(&explained) {
            assert_eq!(scene.leaves_bytes(bytes), *expected, "{backend}: {what}: explain: {why}");
        }
    }
}

#[test]
fn the_filters_for_ipv6_pass_only_a_guests_own_addresses_with_nftables() {
    agrees("nftables");
}

#[test]
fn the_filters_for_ipv6_pass_only_a_guests_own_addresses_with_iptables() {
    agrees("iptables");
}

#[test]
fn a_rule_of_neighbor_discovery_without_its_control_variable_tests_the_source() {
    let frames = [
        ("an advertisement", NdFrame::advertise(GUEST, OWN, THEIRS, &[]).bytes(), true),
        ("from another", NdFrame::advertise(GUEST, THEIRS, OWN, &[]).bytes(), false),
    ];
    explained("netlaunch-nd-messages", &frames);
    let own = [
        ("an advertisement", NdFrame::advertise(GUEST, OWN, THEIRS, &[]).bytes(), false),
        ("from another", NdFrame::advertise(GUEST, THEIRS, OWN, &[]).bytes(), true),
    ];
    explained("no-nd-spoofing", &own);
    assert!(ALL_NODES.is_multicast());
}
