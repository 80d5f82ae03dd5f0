//! Runs the learner through random sequences of frames that are close to those it accepts. The fuzz
//! target `learner` searches further.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlaunch::nwfilter::learn::Sender::{self, Guest, Network};
use netlaunch::nwfilter::learn::{BootTime, Lease, Method};
use proptest::prelude::*;

use super::{A, B, FORBIDDEN, HOUR, NOW, by_dhcp, by_traffic, dhcp_only, from_anything, hosts};
use crate::common::dhcp_frame::{
    ACK, DhcpFrame, EVERYONE, GUEST, NAK, OFFER, OTHER, SERVER, arp, set_checksum, speech,
};
use crate::common::observed::Observed;

/// Generates a frame that the learner may accept, with its direction.
fn frames() -> impl Strategy<Value = (Sender, Vec<u8>)> {
    let address = prop_oneof![
        Just(A),
        Just(B),
        any::<[u8; 4]>().prop_map(Ipv4Addr::from),
        prop::sample::select(&FORBIDDEN).prop_map(|text| text.parse().unwrap()),
    ];
    let mac = prop_oneof![4 => Just(GUEST), 1 => Just(OTHER), 1 => Just(EVERYONE)];
    let way = prop_oneof![Just(Guest), Just(Network)];
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

/// Changes some bytes of a frame, may cut its end, and may correct its IPv4 checksum.
fn mutated() -> impl Strategy<Value = (Sender, Vec<u8>)> {
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

/// An event in the life of a learner.
#[derive(Debug, Clone)]
enum Event {
    /// A frame arrives.
    Frame(Sender, Vec<u8>),
    /// This number of seconds passes.
    Later(u64),
    /// Another learner continues, with the current lease or with this one.
    Restart(Option<Lease>),
    /// The learner checks its lease, and the host has these addresses by then.
    Check(Vec<Ipv4Net>),
}

/// Generates a saved lease, which may come from another binding.
fn kept() -> impl Strategy<Value = Option<Lease>> {
    let lease = prop::sample::select(vec![by_dhcp(A), by_traffic(B)]);
    prop_oneof![Just(None), lease.prop_map(Some)]
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => mutated().prop_map(|(way, frame)| Event::Frame(way, frame)),
        2 => (0..2 * HOUR).prop_map(Event::Later),
        1 => kept().prop_map(Event::Restart),
        2 => prop::collection::vec(prop::sample::select(vec![A, B]), 0..2).prop_map(|more| {
            Event::Check(hosts().into_iter().chain(more.into_iter().map(Ipv4Net::from)).collect())
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// [`Observed`] checks each step.
    #[test]
    fn the_learner_obeys_its_rules_for_every_sequence_of_events(
        events in prop::collection::vec(events(), 1..16),
        method in prop::sample::select(vec![
            from_anything(),
            dhcp_only(),
            Method::dhcp(vec![SERVER]),
            Method::dhcp(vec![B]),
            Method::any(vec![SERVER]),
            Method::any(vec![B]),
        ]),
    ) {
        let mut learner = Observed::new(method, hosts());
        let mut now = NOW;
        for event in events {
            match event {
                Event::Frame(way, frame) => drop(learner.process_frame(way, &frame, now)),
                Event::Later(seconds) => {
                    now = BootTime(now.0 + seconds);
                    learner.expire(now);
                }
                Event::Restart(kept) => learner.resume(kept.or(learner.lease()), now),
                Event::Check(hosts) => drop(learner.check(hosts)),
            }
        }
    }
}
