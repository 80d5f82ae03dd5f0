//! Tests the learning rules.

use std::net::Ipv4Addr;

use netlaunch::firewall::port_nft::{Extras, PortTables};
use netlaunch::firewall::{FirewallBackend, PortFilter, PortHooks, PortPlan};
use netlaunch::nwfilter::explain::{EvalPath, Judge, Verdict};
use netlaunch::nwfilter::learn::{Method, learning_rules};

use super::{A, B, dhcp_only, from_anything, guest};
use crate::common::dhcp_frame::{
    ACK, DhcpFrame, EVERYONE, GUEST, OTHER, REQUEST, SERVER, arp, ethernet, ipv4, speech, udp,
};

#[test]
fn the_learning_rules_pass_only_frames_that_get_an_address() {
    let any = from_anything();
    let all = dhcp_only();
    let named = Method::dhcp(vec![SERVER, B]);
    let unnamed = Method::dhcp(vec![A]);
    let any_named = Method::any(vec![SERVER, B]);
    let any_unnamed = Method::any(vec![A]);
    let methods = [&any, &all, &named, &unnamed, &any_named, &any_unnamed];
    let in_any: &[&Method] = &[&any, &any_named, &any_unnamed];
    let answered: &[&Method] = &[&any, &all, &named, &any_named];
    let ack = DhcpFrame::answers(ACK, A);
    let ack_to_all = DhcpFrame { to: EVERYONE, ..ack.clone() };
    let request = DhcpFrame::asks(REQUEST);
    let request_to_server = DhcpFrame { destination: SERVER, ..request.clone() };
    let asks_as = |source| DhcpFrame { source, ..DhcpFrame::asks(REQUEST) };
    let renewal = DhcpFrame { to: OTHER, destination: SERVER, ciaddr: A, ..asks_as(A) };
    let probe = |from, sender| arp(from, sender, Ipv4Addr::UNSPECIFIED, 1);
    let arp_to = |to: [u8; 6]| {
        let mut frame = arp(OTHER, OTHER, SERVER, 2);
        frame[..6].copy_from_slice(&to);
        frame
    };
    let answer_to_dns = ethernet(GUEST, OTHER, 0x0800, &ipv4(SERVER, A, 17, &udp(53, 68, b"x")));
    let table: Vec<(&str, EvalPath, Vec<u8>, &[&Method])> = vec![
        ("a request", EvalPath::Out, request.bytes(), &methods),
        ("a request to one server", EvalPath::Out, request_to_server.bytes(), &methods),
        ("a request from an address", EvalPath::Out, asks_as(A).bytes(), &[]),
        (
            "a request from nearly none",
            EvalPath::Out,
            asks_as(Ipv4Addr::new(0, 0, 0, 1)).bytes(),
            &[],
        ),
        ("a renewal", EvalPath::Out, renewal.bytes(), &[]),
        (
            "a request of others",
            EvalPath::Out,
            DhcpFrame { from: OTHER, ..request.clone() }.bytes(),
            &[],
        ),
        ("an answer out", EvalPath::Out, DhcpFrame { from: GUEST, ..ack.clone() }.bytes(), &[]),
        ("an answer", EvalPath::In, ack.bytes(), answered),
        ("an answer to all", EvalPath::In, ack_to_all.bytes(), answered),
        ("an answer to others", EvalPath::In, DhcpFrame { to: OTHER, ..ack }.bytes(), &[]),
        ("a request in", EvalPath::In, DhcpFrame { from: OTHER, ..request }.bytes(), &[]),
        ("DNS", EvalPath::In, answer_to_dns, &[]),
        ("an ARP probe", EvalPath::Out, probe(GUEST, GUEST), in_any),
        ("an ARP probe of others", EvalPath::Out, probe(OTHER, GUEST), &[]),
        ("an ARP probe about others", EvalPath::Out, probe(GUEST, OTHER), &[]),
        ("ARP that says an address", EvalPath::Out, arp(GUEST, GUEST, A, 1), &[]),
        ("ARP to the guest", EvalPath::In, arp_to(GUEST), in_any),
        ("ARP to all", EvalPath::In, arp_to(EVERYONE), in_any),
        ("ARP to others", EvalPath::In, arp_to(OTHER), &[]),
        ("IPv4 out", EvalPath::Out, speech(GUEST, A), &[]),
        ("IPv4 in", EvalPath::In, speech(OTHER, A), &[]),
        ("IPv6 out", EvalPath::Out, ethernet(EVERYONE, GUEST, 0x86dd, &[0x60; 60]), &[]),
        ("IPv6 in", EvalPath::In, ethernet(GUEST, OTHER, 0x86dd, &[0x60; 60]), &[]),
        ("anything else", EvalPath::Out, ethernet(EVERYONE, GUEST, 0x88cc, &[0; 60]), &[]),
    ];
    for method in methods {
        let rules = learning_rules(method, guest());
        for (what, way, frame, passing) in &table {
            let explained = Judge::new(&rules).judge(*way, frame, frame.len()).unwrap();
            let passes = explained.verdict == Verdict::Pass;
            assert_eq!(passes, passing.contains(&method), "{what}, {method:?}");
        }
    }
}

#[test]
fn both_backends_can_express_the_learning_rules() {
    let extras = Extras { trace: true, counters: true, reject: false };
    for method in
        [from_anything(), dhcp_only(), Method::dhcp(vec![SERVER, B]), Method::any(vec![SERVER, B])]
    {
        let rules = learning_rules(&method, guest());
        assert!(!rules.is_stateful());
        for backend in FirewallBackend::ORDER {
            let port = "vnet0".parse().unwrap();
            let filter = PortFilter {
                index: 7,
                port,
                rules: rules.clone().into(),
                backend,
                hooks: PortHooks::Bridge,
                tables: PortTables::default(),
            };
            let scripts = PortPlan::new(&[filter], extras).unwrap().scripts();
            assert!(!scripts.is_empty(), "{method:?}, {backend}");
        }
    }
}
