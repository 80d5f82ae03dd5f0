//! Reads any bytes as a frame and as a capture file.
//!
//! If the learner's frame reader accepts a frame, it agrees with the reader of `explain`. The
//! verdict of a filter depends only on the frame and on the earlier frames.

#![no_main]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a finding is a panic")]

use std::net::IpAddr;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use netlaunch::nwfilter::learn::packet::{self, Payload};
use netlaunch::nwfilter::explain::{Captured, EvalPath, Frame, Judge, PcapError, PcapReader};
use netlaunch::nwfilter::{compile, flatten, needs, parse, sample};
use netlaunch::firewall::rules::port::{Address, Hardware, PortRules};
use netlaunch_fuzz::{filters, in_one_line};

/// A filter with every element and attribute.
const EVERYTHING: &[u8] = include_bytes!("../../tests/fixtures/nwfilter/everything.xml");
/// The minimum length of an Ethernet frame.
const HEADER: usize = 14;

fuzz_target!(|bytes: &[u8]| {
    let mut captured = Vec::new();
    if let Err(error) = read_pcap(bytes, &mut captured) {
        in_one_line(&error);
    }
    let kept: usize = captured.iter().map(|(bytes, _)| bytes.len()).sum();
    assert!(kept <= bytes.len());
    let whole = Captured { bytes, length: bytes.len() };
    for rules in all_rules() {
        let mut judge = Judge::new(rules);
        let captured = captured.iter().map(|(bytes, length)| Captured { bytes, length: *length });
        for Captured { bytes, length } in [whole].into_iter().chain(captured) {
            agree(bytes, length);
            for way in [EvalPath::Out, EvalPath::In] {
                let twin = judge.clone().judge(way, bytes, length).map(|it| it.to_string());
                let explained = judge.judge(way, bytes, length).map(|it| it.to_string());
                assert_eq!(explained, twin);
                assert_eq!(explained.is_err(), bytes.len() < HEADER);
                explained.iter().for_each(|text| in_one_line(text));
            }
        }
    }
});

/// Reads the frames of a capture.
fn read_pcap(bytes: &[u8], frames: &mut Vec<(Vec<u8>, usize)>) -> Result<(), PcapError> {
    let mut reader = PcapReader::open(bytes)?;
    while let Some(frame) = reader.frame()? {
        frames.push((frame.bytes.to_vec(), frame.length));
    }
    Ok(())
}

/// Checks that the two readers agree on a frame that the learner's reader accepts.
fn agree(bytes: &[u8], length: usize) {
    let (Some(learnt), Ok(frame)) = (packet::read(bytes), Frame::read(bytes, length)) else {
        return;
    };
    assert_eq!(frame.source(), learnt.source.octets());
    match learnt.content {
        Payload::Arp(arp) => {
            assert_eq!(frame.hardware(Hardware::ArpSender), Some(arp.sender_mac.octets()));
            assert_eq!(frame.address(Address::ArpSender), Some(arp.sender.into()));
        }
        Payload::Ip(ip) => {
            let found = frame.packet().map(|packet| (packet.source, packet.destination));
            assert_eq!(found, Some((IpAddr::from(ip.source), IpAddr::from(ip.destination))));
            if ip.dhcp.is_some() {
                assert!(matches!(frame.ports(), Some((67, 68) | (68, 67))));
            }
        }
    }
}

/// Returns the rules of two filters: one with every attribute, and one that tracks connections.
fn all_rules() -> &'static [PortRules] {
    static RULES: OnceLock<Vec<PortRules>> = OnceLock::new();
    RULES.get_or_init(|| {
        let mut filters = filters();
        let filter = parse(EVERYTHING, None).unwrap();
        filters.insert(filter.name.clone(), filter);
        let rules = |name: &str| {
            let filter = &filters[&name.parse().unwrap()];
            let variables = sample(&needs(filter, &filters), &filters).unwrap();
            compile(&flatten(filter, &filters, &variables).unwrap()).unwrap().0
        };
        ["everything", "clean-traffic-gateway"].map(rules).into()
    })
}
