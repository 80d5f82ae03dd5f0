//! What the kernel lets through to the learner, by an interpreter of the programs.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use netlaunch::learn::Direction::{self, FromGuest, ToGuest};
use netlaunch::learn::bpf::Instruction;
use netlaunch::learn::{Change, Interest, Learner, Method, Teacher, program};
use proptest::prelude::*;

use crate::common::dhcp_frame::{
    ACK, DISCOVER, DhcpFrame, EVERYONE, GUEST, NAK, OFFER, OTHER, REQUEST, SERVER, arp, ethernet,
    ipv4, set_checksum, speech, udp,
};
use crate::{A, B, FORBIDDEN, NOW, dhcp_only, guest, hosts};

/// What a BPF program returns for a frame: how many bytes of it are taken.
///
/// # Panics
/// On what the kernel would refuse: a jump out of the program, an unknown instruction.
fn run(program: &[Instruction], outgoing: bool, tagged: bool, frame: &[u8]) -> u32 {
    let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
    let number = |at: u32, size: usize| -> Option<u32> {
        let bytes = frame.get(at as usize..at as usize + size)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    };
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let loaded = match u32::from(code) {
            // ld and ldx: words, half words and bytes; absolute, relative to X; 4 * (byte & 15).
            0x20 if k == 0xffff_f004 => Some(if outgoing { 4 } else { 0 }),
            0x20 if k == 0xffff_f030 => Some(tagged.into()),
            0x20 => number(k, 4),
            0x28 => number(k, 2),
            0x30 => number(k, 1),
            0x40 => number(x + k, 4),
            0x48 => number(x + k, 2),
            0x50 => number(x + k, 1),
            0xb1 => {
                let Some(byte) = number(k, 1) else { return 0 };
                x = (byte & 15) * 4;
                Some(a)
            }
            0x06 => return k,
            jump @ (0x15 | 0x35 | 0x45) => {
                let holds = match jump {
                    0x15 => a == k,
                    0x35 => a >= k,
                    _ => a & k != 0,
                };
                at += usize::from(if holds { jt } else { jf });
                Some(a)
            }
            other => panic!("unknown instruction {other:#x}"),
        };
        match loaded {
            Some(value) => a = value,
            None => return 0,
        }
    }
}

fn takes(interest: Interest, way: Direction, frame: &[u8]) -> bool {
    run(&program(interest, guest()), way == ToGuest, false, frame) > 0
}

#[test]
fn the_kernel_passes_these_frames_and_drops_those() {
    use Interest::{All, Dhcp};
    let ack = DhcpFrame::answers(ACK, A);
    let request = DhcpFrame::asks(REQUEST);
    let with_options = |mut frame: Vec<u8>| {
        // Four bytes of IPv4 options.
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
    let table: Vec<(&str, Direction, Vec<u8>, &[Interest])> = vec![
        ("a request", FromGuest, request.bytes(), &[Dhcp, All]),
        ("a request with IPv4 options", FromGuest, with_options(request.bytes()), &[Dhcp, All]),
        ("an answer", ToGuest, ack.bytes(), &[Dhcp, All]),
        ("an answer with IPv4 options", ToGuest, with_options(ack.bytes()), &[Dhcp, All]),
        (
            "an answer to all",
            ToGuest,
            DhcpFrame { to: EVERYONE, ..ack.clone() }.bytes(),
            &[Dhcp, All],
        ),
        ("an answer of the guest", FromGuest, ack.bytes(), &[]),
        ("a request to the guest", ToGuest, request.bytes(), &[]),
        ("an answer for another", ToGuest, DhcpFrame { chaddr: OTHER, ..ack.clone() }.bytes(), &[]),
        (
            "a request for another",
            FromGuest,
            DhcpFrame { chaddr: OTHER, ..request.clone() }.bytes(),
            &[],
        ),
        ("a request by another", FromGuest, DhcpFrame { from: OTHER, ..request }.bytes(), &[]),
        ("the begin of an answer", ToGuest, fragment(ack.bytes(), [0x20, 0]), &[]),
        ("the rest of an answer", ToGuest, fragment(ack.bytes(), [0, 9]), &[]),
        ("a whole answer", ToGuest, fragment(ack.bytes(), [0x40, 0]), &[Dhcp, All]),
        ("DNS", ToGuest, dns, &[]),
        ("ARP of the guest", FromGuest, arp(GUEST, GUEST, A, 1), &[All]),
        ("ARP to the guest", ToGuest, arp(GUEST, GUEST, A, 1), &[]),
        ("an ARP probe", FromGuest, arp(GUEST, GUEST, Ipv4Addr::UNSPECIFIED, 1), &[]),
        ("ARP about another", FromGuest, arp(GUEST, OTHER, A, 1), &[]),
        ("ARP by another", FromGuest, arp(OTHER, GUEST, A, 1), &[]),
        ("IPv4 of the guest", FromGuest, speech(GUEST, A), &[All]),
        ("IPv4 to the guest", ToGuest, speech(GUEST, A), &[]),
        ("IPv4 by another", FromGuest, speech(OTHER, A), &[]),
        ("IPv4 from a group", FromGuest, speech(GUEST, Ipv4Addr::new(224, 0, 0, 1)), &[]),
        ("IPv4 from loopback", FromGuest, speech(GUEST, Ipv4Addr::LOCALHOST), &[]),
        ("IPv4 from link-local", FromGuest, speech(GUEST, Ipv4Addr::new(169, 254, 1, 2)), &[]),
        ("IPv4 from 169.253", FromGuest, speech(GUEST, Ipv4Addr::new(169, 253, 1, 2)), &[All]),
        ("IPv6 of the guest", FromGuest, ethernet(OTHER, GUEST, 0x86dd, &[0x60; 40]), &[]),
        ("nothing", FromGuest, Vec::new(), &[]),
    ];
    for (what, way, frame, interests) in table {
        for interest in [Dhcp, All] {
            let taken = interests.contains(&interest);
            assert_eq!(takes(interest, way, &frame), taken, "{what}, {interest:?}");
            let program = program(interest, guest());
            assert_eq!(run(&program, way == ToGuest, true, &frame), 0, "{what} with a tag");
        }
    }
}

/// A frame that may matter, and which way it goes.
fn frames() -> impl Strategy<Value = (Direction, Vec<u8>)> {
    let address = prop_oneof![
        Just(A),
        Just(B),
        any::<[u8; 4]>().prop_map(Ipv4Addr::from),
        prop::sample::select(&FORBIDDEN).prop_map(|text| text.parse().unwrap()),
    ];
    let mac = prop_oneof![4 => Just(GUEST), 1 => Just(OTHER), 1 => Just(EVERYONE)];
    let way = prop_oneof![Just(FromGuest), Just(ToGuest)];
    let dhcp = (1..=8u8, address.clone(), mac.clone(), mac.clone(), mac.clone(), 7..9u32);
    let dhcp = dhcp.prop_map(|(message, address, to, from, chaddr, transaction)| {
        let message = DhcpFrame {
            to,
            from,
            chaddr,
            transaction,
            ..match message {
                OFFER | ACK | NAK => DhcpFrame::answers(message, address),
                _ => DhcpFrame { ciaddr: address, ..DhcpFrame::asks(message) },
            }
        };
        message.bytes()
    });
    let arp = (mac.clone(), mac.clone(), address.clone(), 0..4u16)
        .prop_map(|(from, sender, address, operation)| arp(from, sender, address, operation));
    let ip = (mac, address).prop_map(|(from, address)| speech(from, address));
    let noise = prop::collection::vec(any::<u8>(), 0..400);
    (way, prop_oneof![5 => dhcp, 2 => arp, 2 => ip, 1 => noise])
}

/// Some bytes are others, and the end may be missing; the IPv4 checksum may be right again.
fn mutated() -> impl Strategy<Value = (Direction, Vec<u8>)> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let cut = prop_oneof![3 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)];
    (frames(), changes, cut, any::<bool>()).prop_map(|((way, mut frame), changes, cut, fix)| {
        for (at, byte) in changes {
            if !frame.is_empty() {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
        }
        let header = frame.get(14).map_or(0, |byte| usize::from(byte & 15) * 4);
        if fix && header >= 20 && frame.len() >= 14 + header {
            set_checksum(&mut frame[14..14 + header]);
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len() + 1));
        }
        (way, frame)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Nothing panics; what changes the learner, the kernel has let through; what is learnt is no
    /// forbidden address; and a frame that does not have the guest's addresses changes nothing.
    #[test]
    fn whatever_comes_the_learner_stays_sane(
        lesson in prop::collection::vec(mutated(), 1..12),
        any in any::<bool>(),
    ) {
        let method = if any { Method::Any } else { dhcp_only() };
        let mut learner = Learner::new(method, guest(), hosts());
        for (way, frame) in lesson {
            let interest = learner.interest();
            let before = format!("{learner:?}");
            let change = learner.see(way, &frame, NOW);
            let changed = before != format!("{learner:?}");
            prop_assert!(changed || matches!(change, None | Some(Change::Renewed(_))));
            if changed || change.is_some() {
                prop_assert!(takes(interest, way, &frame), "{way:?} {frame:02x?}");
                let is_guests = match way {
                    FromGuest => frame[6..12] == GUEST,
                    ToGuest => frame[0..6] == GUEST || frame[0..6] == EVERYONE,
                };
                prop_assert!(is_guests);
            }
            if let Some(Change::Learnt(lease) | Change::Renewed(lease)) = change {
                prop_assert!(!FORBIDDEN.contains(&lease.address.to_string().as_str()));
                prop_assert!(!lease.address.is_multicast() && lease.address.octets()[0] < 240);
                prop_assert!(!lease.address.is_loopback() && !lease.address.is_link_local());
                prop_assert_eq!(learner.lease(), Some(lease));
                prop_assert!(any || lease.teacher == Teacher::Dhcp);
            }
        }
    }
}

#[test]
fn a_flood_of_frames_of_others_is_dropped_by_the_kernel() {
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
        for way in [FromGuest, ToGuest] {
            assert!(!takes(Interest::All, way, &frame), "{frame:02x?}");
        }
    }
    assert!(seen.len() > 2, "frames of several kinds: {seen:?}");
}
