//! Tests the rules for a guest whose IPv6 addresses are unknown, and the program that passes the
//! frames to the learner.

use netlaunch::firewall::port_nft::{Extras, PortTables};
use netlaunch::firewall::rules::port::PortRules;
use netlaunch::firewall::{FirewallBackend, PortFilter, PortHooks, PortPlan};
use netlaunch::nwfilter::explain::{EvalPath, Judge, Verdict};
use netlaunch::nwfilter::learn::Sender::{self, Guest, Network};
use netlaunch::nwfilter::learn::packet6::read;
use netlaunch::nwfilter::learn::{FrameSet, FrameSet6, Frames, Pending, program};

use super::{A, GUEST_LINK, ONE, ROUTER_LINK, TWO, from_anything, guest};
use crate::common::bpf_machine::run;
use crate::common::dhcp_frame::{
    DhcpFrame, EVERYONE, GUEST, OTHER, REQUEST, arp, ethernet, speech,
};
use crate::common::nd_frame::{
    Dhcp6Frame, NdFrame, REQUEST6, association, given, ipv6, link_option,
};

fn udp6(from: [u8; 6]) -> Vec<u8> {
    ethernet(OTHER, from, 0x86dd, &ipv6(ONE, TWO, 17, 64, &[0; 16]))
}

fn passes(rules: &PortRules, way: EvalPath, frame: &[u8]) -> bool {
    Judge::new(rules).judge(way, frame, frame.len()).unwrap().verdict == Verdict::Pass
}

#[test]
fn a_guest_without_an_ipv6_address_sends_only_what_claims_none() {
    let to_guest = |mut frame: NdFrame| {
        frame.mac_to = GUEST;
        frame
    };
    let table: Vec<(&str, EvalPath, Vec<u8>, bool)> = vec![
        ("a test", EvalPath::Out, NdFrame::test(GUEST, ONE).bytes(), true),
        ("a test of others", EvalPath::Out, NdFrame::test(OTHER, ONE).bytes(), false),
        (
            "a question for routers",
            EvalPath::Out,
            NdFrame::ask_routers(GUEST, "::".parse().unwrap(), &[]).bytes(),
            true,
        ),
        (
            "a question for routers from an address",
            EvalPath::Out,
            NdFrame::ask_routers(GUEST, GUEST_LINK, &link_option(1, GUEST)).bytes(),
            false,
        ),
        ("a solicitation", EvalPath::Out, NdFrame::solicit(GUEST, ONE, TWO, &[]).bytes(), false),
        (
            "an advertisement",
            EvalPath::Out,
            NdFrame::advertise(GUEST, ONE, ONE, &[]).bytes(),
            false,
        ),
        ("a router's", EvalPath::Out, NdFrame::router(GUEST, ROUTER_LINK, ONE, 9).bytes(), false),
        ("IPv6", EvalPath::Out, udp6(GUEST), false),
        (
            "an answer to a test",
            EvalPath::In,
            NdFrame::advertise(OTHER, ONE, ONE, &[]).bytes(),
            true,
        ),
        ("another test", EvalPath::In, NdFrame::test(OTHER, ONE).bytes(), true),
        ("a router's", EvalPath::In, NdFrame::router(OTHER, ROUTER_LINK, ONE, 9).bytes(), true),
        (
            "an advertisement to the guest",
            EvalPath::In,
            to_guest(NdFrame::advertise(OTHER, ONE, ONE, &[])).bytes(),
            true,
        ),
        ("IPv6 to the guest", EvalPath::In, udp6(OTHER), false),
    ];
    let v6 = Pending { v4: None, v6: true };
    let both = Pending { v4: Some(from_anything()), v6: true };
    let open = PortRules::default();
    for (what, way, frame, expected) in table {
        for rules in
            [v6.rules(guest(), None), v6.rules(guest(), Some(&open)), both.rules(guest(), None)]
        {
            assert_eq!(passes(&rules, way, &frame), expected, "{what}");
        }
    }
    // Each version of IP waits for its own address.
    let v4 = Pending { v4: Some(from_anything()), v6: false };
    let says = speech(GUEST, A);
    assert!(passes(&v6.rules(guest(), Some(&open)), EvalPath::Out, &says));
    assert!(!passes(&v4.rules(guest(), Some(&open)), EvalPath::Out, &says));
    assert!(!passes(&v4.rules(guest(), Some(&open)), EvalPath::Out, &arp(GUEST, GUEST, A, 1)));
    assert!(passes(&v4.rules(guest(), Some(&open)), EvalPath::Out, &udp6(GUEST)));
    let request = DhcpFrame::asks(REQUEST).bytes();
    assert!(passes(&both.rules(guest(), None), EvalPath::Out, &request));
    // The filter decides about all other frames, or they do not pass.
    let other = ethernet(EVERYONE, GUEST, 0x88cc, &[0; 60]);
    assert!(passes(&both.rules(guest(), Some(&open)), EvalPath::Out, &other));
    assert!(!passes(&both.rules(guest(), None), EvalPath::Out, &other));
}

#[test]
fn both_backends_can_express_the_rules_for_a_guest_without_an_ipv6_address() {
    let extras = Extras { trace: true, counters: true, reject: false };
    for v4 in [None, Some(from_anything())] {
        let rules = Pending { v4, v6: true }.rules(guest(), None);
        assert!(!rules.is_stateful());
        for backend in FirewallBackend::ORDER {
            let port = "vnet0".parse().unwrap();
            let (rules, hooks) = (rules.clone().into(), PortHooks::Bridge);
            let tables = PortTables::default();
            let filter = PortFilter { index: 7, port, rules, backend, hooks, tables };
            assert!(!PortPlan::new(&[filter], extras).unwrap().scripts().is_empty(), "{backend}");
        }
    }
}

#[test]
fn the_program_passes_the_frames_from_which_the_table_learns() {
    let request = Dhcp6Frame::asks(REQUEST6, GUEST, GUEST_LINK);
    let reply = request.replies(OTHER, ROUTER_LINK, &association(3, &given(ONE, 600, &[])));
    let table: Vec<(&str, Sender, Vec<u8>, bool)> = vec![
        ("a test", Guest, NdFrame::test(GUEST, ONE).bytes(), true),
        ("a test of others", Guest, NdFrame::test(OTHER, ONE).bytes(), false),
        ("a solicitation", Guest, NdFrame::solicit(GUEST, ONE, TWO, &[]).bytes(), true),
        ("an advertisement", Guest, NdFrame::advertise(GUEST, ONE, ONE, &[]).bytes(), true),
        ("a request", Guest, request.bytes(), true),
        (
            "a reply of the guest",
            Guest,
            Dhcp6Frame { mac_from: GUEST, ..reply.clone() }.bytes(),
            false,
        ),
        ("another test", Network, NdFrame::test(OTHER, ONE).bytes(), true),
        ("an answer", Network, NdFrame::advertise(OTHER, ONE, ONE, &[]).bytes(), true),
        ("a router's", Network, NdFrame::router(OTHER, ROUTER_LINK, ONE, 9).bytes(), true),
        ("a reply", Network, reply.bytes(), true),
        (
            "a reply to others",
            Network,
            Dhcp6Frame { mac_to: OTHER, ..reply.clone() }.bytes(),
            false,
        ),
        ("a solicitation in", Network, NdFrame::solicit(OTHER, ONE, TWO, &[]).bytes(), false),
        ("UDP", Guest, udp6(GUEST), false),
        ("IPv4", Guest, speech(GUEST, A), false),
        ("DHCP", Guest, DhcpFrame::asks(REQUEST).bytes(), false),
    ];
    let v6 = Frames { v4: None, v6: Some(FrameSet6::All) };
    let without_tests = Frames { v4: None, v6: Some(FrameSet6::WithoutTests) };
    for (what, sender, frame, expected) in table {
        let passes =
            |frames: Frames| run(&program(frames, guest()), sender == Network, false, &frame) > 0;
        assert_eq!(passes(v6), expected, "{what}");
        // Before the rules are set.
        let is_early = sender == Guest && matches!(what, "a test" | "a solicitation");
        assert_eq!(passes(without_tests), expected && !is_early, "{what}");
        let both = Frames { v4: Some(FrameSet::All), v6: v6.v6 };
        assert!(passes(both) || !expected, "{what}");
        assert!(!passes(Frames::from(FrameSet::All)) || read(&frame).is_none(), "{what}");
    }
}
