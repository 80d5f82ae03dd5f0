//! Tests the BPF programs with an interpreter: the frames that they pass to the learner.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use netlaunch::nwfilter::learn::Sender::{self, Guest, Network};
use netlaunch::nwfilter::learn::bpf::program_of_sent;
use netlaunch::nwfilter::learn::{FrameSet, program};

use super::{A, guest};
use crate::common::bpf_machine::run;
use crate::common::dhcp_frame::{
    ACK, DISCOVER, DhcpFrame, EVERYONE, GUEST, OTHER, REQUEST, SERVER, arp, ethernet, ipv4,
    set_checksum, speech, udp,
};

fn passes(interest: FrameSet, way: Sender, frame: &[u8]) -> bool {
    let received = run(&program(interest, guest()), way == Network, false, frame) > 0;
    let sent = run(&program_of_sent(interest, guest()), way == Guest, false, frame) > 0;
    assert_eq!(received, sent, "on a macvtap, the host sends what it receives on a tap");
    received
}

#[test]
fn the_program_passes_only_frames_that_the_learner_needs() {
    use FrameSet::{All, Dhcp};
    let ack = DhcpFrame::answers(ACK, A);
    let request = DhcpFrame::asks(REQUEST);
    let with_options = |mut frame: Vec<u8>| {
        // Adds four bytes of IPv4 options.
        frame.splice(34..34, [1, 1, 1, 0]);
        frame[14] = 0x46;
        let length = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        set_checksum(&mut frame[14..38]);
        frame
    };
    let fragment = |mut frame: Vec<u8>, bytes: [u8; 2]| {
        frame[20..22].copy_from_slice(&bytes);
        frame
    };
    let dns = ethernet(GUEST, OTHER, 0x0800, &ipv4(SERVER, A, 17, &udp(53, 68, &[0; 300])));
    let table: Vec<(&str, Sender, Vec<u8>, &[FrameSet])> = vec![
        ("a request", Guest, request.bytes(), &[Dhcp, All]),
        ("a request with IPv4 options", Guest, with_options(request.bytes()), &[Dhcp, All]),
        ("an answer", Network, ack.bytes(), &[Dhcp, All]),
        ("an answer with IPv4 options", Network, with_options(ack.bytes()), &[Dhcp, All]),
        (
            "an answer to all",
            Network,
            DhcpFrame { to: EVERYONE, ..ack.clone() }.bytes(),
            &[Dhcp, All],
        ),
        ("an answer of the guest", Guest, ack.bytes(), &[]),
        ("a request to the guest", Network, request.bytes(), &[]),
        ("an answer for another", Network, DhcpFrame { chaddr: OTHER, ..ack.clone() }.bytes(), &[]),
        (
            "a request for another",
            Guest,
            DhcpFrame { chaddr: OTHER, ..request.clone() }.bytes(),
            &[],
        ),
        ("a request by another", Guest, DhcpFrame { from: OTHER, ..request }.bytes(), &[]),
        ("the begin of an answer", Network, fragment(ack.bytes(), [0x20, 0]), &[]),
        ("the rest of an answer", Network, fragment(ack.bytes(), [0, 9]), &[]),
        ("a whole answer", Network, fragment(ack.bytes(), [0x40, 0]), &[Dhcp, All]),
        ("DNS", Network, dns, &[]),
        ("ARP of the guest", Guest, arp(GUEST, GUEST, A, 1), &[All]),
        ("ARP to the guest", Network, arp(GUEST, GUEST, A, 1), &[]),
        ("an ARP probe", Guest, arp(GUEST, GUEST, Ipv4Addr::UNSPECIFIED, 1), &[]),
        ("ARP about another", Guest, arp(GUEST, OTHER, A, 1), &[]),
        ("ARP by another", Guest, arp(OTHER, GUEST, A, 1), &[]),
        ("IPv4 of the guest", Guest, speech(GUEST, A), &[All]),
        ("IPv4 to the guest", Network, speech(GUEST, A), &[]),
        ("IPv4 by another", Guest, speech(OTHER, A), &[]),
        ("IPv4 from a group", Guest, speech(GUEST, Ipv4Addr::new(224, 0, 0, 1)), &[]),
        ("IPv4 from loopback", Guest, speech(GUEST, Ipv4Addr::LOCALHOST), &[]),
        ("IPv4 from link-local", Guest, speech(GUEST, Ipv4Addr::new(169, 254, 1, 2)), &[]),
        ("IPv4 from 169.253", Guest, speech(GUEST, Ipv4Addr::new(169, 253, 1, 2)), &[All]),
        ("IPv6 of the guest", Guest, ethernet(OTHER, GUEST, 0x86dd, &[0x60; 40]), &[]),
        ("nothing", Guest, Vec::new(), &[]),
    ];
    for (what, way, frame, interests) in table {
        for interest in [Dhcp, All] {
            let taken = interests.contains(&interest);
            assert_eq!(passes(interest, way, &frame), taken, "{what}, {interest:?}");
            let program = program(interest, guest());
            assert_eq!(run(&program, way == Network, true, &frame), 0, "{what} with a tag");
        }
    }
}

#[test]
fn the_program_drops_a_flood_of_frames_about_other_machines() {
    let mut seen = BTreeSet::new();
    for n in 0..100_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        let mac = [0x52, 0x54, 1, a, b, c];
        let address = Ipv4Addr::from(0x0a05_0100 + n);
        let frame = match n % 5 {
            0 => speech(mac, address),
            1 => arp(mac, mac, address, 1),
            2 => DhcpFrame { from: mac, chaddr: mac, ..DhcpFrame::asks(DISCOVER) }.bytes(),
            3 => {
                DhcpFrame { to: EVERYONE, chaddr: mac, ..DhcpFrame::answers(ACK, address) }.bytes()
            }
            _ => arp(GUEST, mac, address, 2),
        };
        seen.insert(frame.len());
        for way in [Guest, Network] {
            assert!(!passes(FrameSet::All, way, &frame), "{frame:02x?}");
        }
    }
    assert!(seen.len() > 2, "frames of several kinds: {seen:?}");
}
