//! Tests with hand-made frames: a field exists exactly if its bytes exist and its headers are
//! valid.

use proptest::prelude::*;

use super::{Dependency, EvalPath, Frame, Judge, Verdict};
use crate::firewall::rules::Version;
use crate::firewall::rules::port::{
    Address, ConnectionDirection, FrameKind, Hardware, Number, Origin, Path, PortRule, PortRules,
    PortVerdict, State, Step, SubChain, Test,
};

const UDP: FrameKind = FrameKind::Ip(Version::V4, Some(17));

/// A frame: its EtherType and what follows.
fn frame(ether_type: u16, rest: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], ether_type.to_be_bytes().as_slice(), rest].concat()
}

/// A UDP packet of IPv4 from 10.0.0.1:1000 to 10.0.0.2:53 with these options and fragment field.
fn udp(options: &[u8], fragment: u16) -> Vec<u8> {
    let length = 20 + options.len();
    let mut packet = vec![0x40 | (length / 4) as u8, 0xb9, 0, (length + 8) as u8, 0, 9];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(options);
    packet.extend([0x03, 0xe8, 0, 53, 0, 8, 0, 0]);
    frame(0x0800, &packet)
}

/// A packet of IPv6 with these headers, the first of this kind.
fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    let head = [0x6b, 0x90, 0, 0, 0, rest.len() as u8, next, 64];
    frame(0x86dd, &[head.as_slice(), &[1; 16], &[2; 16], rest].concat())
}

fn number(bytes: &[u8], field: Number) -> Option<u32> {
    Frame::read(bytes, bytes.len()).unwrap().number(field)
}

#[test]
fn ports_are_behind_the_options_and_not_in_later_fragments() {
    for (bytes, port) in [
        (udp(&[], 0), Some(53)),
        (udp(&[1, 1, 1, 0], 0), Some(53)),
        (udp(&[], 0x2000), Some(53)),
        (udp(&[], 1), None),
        (v6(17, &[0x03, 0xe8, 0, 53, 0, 8, 0, 0]), Some(53)),
        (v6(0, &[17, 0, 1, 4, 0, 0, 0, 0, 0x03, 0xe8, 0, 53, 0, 8, 0, 0]), Some(53)),
        (v6(44, &[17, 0, 0, 1, 0, 0, 0, 9, 0x03, 0xe8, 0, 53]), Some(53)),
        (v6(44, &[17, 0, 0, 8, 0, 0, 0, 9, 0x03, 0xe8, 0, 53]), None),
    ] {
        assert_eq!(number(&bytes, Number::DestinationPort), port, "{bytes:x?}");
        let read = Frame::read(&bytes, bytes.len()).unwrap();
        let version = if bytes[12] == 8 { Version::V4 } else { Version::V6 };
        assert!(read.is(FrameKind::Ip(version, Some(17))), "{bytes:x?}");
        assert_eq!(number(&bytes, Number::Dscp), Some(0x2e), "{bytes:x?}");
    }
}

#[test]
fn a_truncated_frame_has_no_fields_after_its_end() {
    let whole = udp(&[], 0);
    for (field, needs) in [
        (Number::EtherType, 14),
        (Number::Dscp, 16),
        (Number::Protocol, 24),
        (Number::SourcePort, 42),
    ] {
        for end in 14..=whole.len() {
            let found = number(&whole[..end], field).is_some();
            assert_eq!(found, end >= needs, "{field:?} in {end} bytes");
        }
    }
    // The packet contains bytes that the capture truncated, but they cannot be read.
    let cut = Frame::read(&whole[..38], whole.len()).unwrap();
    assert_eq!(cut.ports(), Some((1000, 53)));
    assert!(Frame::read(&whole[..13], 13).is_err());
}

#[test]
fn an_ip_header_with_a_wrong_length_has_no_transport_header() {
    for (at, value) in [(14, 0x55), (14, 0x44), (17, 200), (17, 10)] {
        let mut bytes = udp(&[], 0);
        bytes[at] = value;
        assert_eq!(number(&bytes, Number::SourcePort), None, "{at} {value}");
        assert!(!Frame::read(&bytes, bytes.len()).unwrap().is(UDP));
        // Fields at fixed offsets still exist.
        assert_eq!(number(&bytes, Number::Protocol), Some(17));
    }
}

#[test]
fn arp_addresses_follow_the_lengths() {
    let arp = |hardware: u16, protocol: u16, lengths: [u8; 2]| {
        let head = [hardware.to_be_bytes(), protocol.to_be_bytes(), lengths, [0, 2]].concat();
        frame(0x0806, &[head.as_slice(), &(1..=28).collect::<Vec<u8>>()].concat())
    };
    let read = |bytes: &[u8]| {
        let frame = Frame::read(bytes, bytes.len()).unwrap();
        let mac = frame.hardware(Hardware::ArpTarget).map(|mac| mac[0]);
        let address = frame.address(Address::ArpTarget).map(|address| address.to_string());
        (mac, address)
    };
    let target = |text: &str| Some(text.to_owned());
    assert_eq!(read(&arp(1, 0x0800, [6, 4])), (Some(11), target("17.18.19.20")));
    assert_eq!(read(&arp(6, 0x0800, [6, 4])), (None, target("17.18.19.20")));
    assert_eq!(read(&arp(1, 0x0800, [8, 4])), (None, target("21.22.23.24")));
    assert_eq!(read(&arp(1, 0x0801, [6, 16])), (Some(23), None));
    assert_eq!(number(&arp(1, 0x0800, [6, 4]), Number::ArpOperation), Some(2));
    assert_eq!(number(&frame(0x0806, &[0; 7]), Number::ArpHardware), None);
}

#[test]
fn a_vlan_tag_hides_the_fields_behind_it() {
    let tagged = frame(0x8100, &[&[0x20, 0x05], &udp(&[], 0)[12..]].concat());
    let frame = Frame::read(&tagged, tagged.len()).unwrap();
    assert!(frame.is(FrameKind::Vlan) && !frame.is(UDP) && frame.packet().is_none());
    assert_eq!(frame.number(Number::VlanId), Some(5));
    assert_eq!(frame.number(Number::VlanEncapsulated), Some(0x0800));
    assert_eq!(frame.address(Address::Source), None);
}

#[test]
fn stp_fields_need_a_bpdu() {
    let mut bytes = frame(38, &[0x42, 0x42, 3, 0, 0, 0, 0x80, 1, 0x80, 0]);
    assert_eq!(number(&bytes, Number::StpType), None);
    bytes[..6].copy_from_slice(&[0x01, 0x80, 0xc2, 0, 0, 0]);
    assert_eq!(number(&bytes, Number::StpType), Some(0x80));
    assert_eq!(number(&bytes, Number::StpRootPriority), Some(0x8000));
    assert_eq!(number(&bytes, Number::StpPort), None);
    bytes[18] = 1;
    assert_eq!(number(&bytes, Number::StpType), None);
}

fn rule(line: u64, kind: FrameKind, tests: &[Test], verdict: PortVerdict) -> PortRule {
    let origin = Origin { filter: "f".to_owned(), line };
    PortRule { kind, tests: tests.to_vec(), verdict, comment: None, origin }
}

fn out(path: Path) -> PortRules {
    PortRules { from_guest: path, ..PortRules::default() }
}

/// Returns the explanation of one frame.
fn said(rules: &PortRules, bytes: &[u8]) -> String {
    Judge::new(rules).judge(EvalPath::Out, bytes, bytes.len()).unwrap().to_string()
}

#[test]
fn after_a_chain_the_rule_behind_its_call_decides() {
    let sub = |rules| SubChain {
        name: "ipv4-x".to_owned(),
        kind: FrameKind::Ip(Version::V4, None),
        rules,
    };
    let path = |rules| {
        out(Path {
            frames: vec![
                Step::Chain(0),
                Step::Rule(rule(9, FrameKind::Any, &[], PortVerdict::Drop)),
            ],
            chains: vec![sub(rules)],
            packets: vec![],
        })
    };
    use PortVerdict::{Accept, Continue, Reject, Return};
    let behind = "drop: filter f line 9 (chain root)";
    for (verdict, expected) in [
        (Accept, "pass: filter f line 1 (chain ipv4-x)"),
        (Reject, "drop: filter f line 1 (chain ipv4-x)"),
        (Return, behind),
        (Continue, behind),
    ] {
        assert_eq!(said(&path(vec![rule(1, UDP, &[], verdict)]), &udp(&[], 0)), expected);
        assert_eq!(said(&path(vec![rule(1, UDP, &[], verdict)]), &frame(0x88b5, &[])), behind);
    }
    let empty = out(Path::default());
    assert_eq!(said(&empty, &udp(&[], 0)), "pass: the end of chain root");
}

#[test]
fn a_frame_passes_only_if_both_stages_accept_it() {
    let rules = out(Path {
        frames: vec![Step::Rule(rule(1, FrameKind::Any, &[], PortVerdict::Accept))],
        chains: vec![],
        packets: vec![rule(2, UDP, &[Test::is(Number::DestinationPort, 53)], PortVerdict::Reject)],
    });
    assert_eq!(said(&rules, &udp(&[], 0)), "reject: filter f line 2 (IP rules)");
    let passes = "pass: filter f line 1 (chain root), then the end of the IP rules";
    assert_eq!(said(&rules, &udp(&[], 1)), passes);
    assert_eq!(said(&rules, &frame(0x0806, &[])), "pass: filter f line 1 (chain root)");
}

#[test]
fn a_test_of_a_missing_field_fails_even_if_negated() {
    for negated in [false, true] {
        let test = Test::Number { field: Number::SourcePort, first: 0, last: 0, negated };
        let rules = out(Path {
            packets: vec![rule(1, UDP, &[test], PortVerdict::Drop)],
            ..Path::default()
        });
        assert!(said(&rules, &udp(&[], 1)).starts_with("pass"), "{negated}");
        assert_eq!(said(&rules, &udp(&[], 0)).starts_with("drop"), negated);
    }
}

#[test]
fn a_dependency_is_named_only_if_the_verdict_depends_on_it() {
    let set = Test::Set { name: "friends".to_owned(), sides: vec![], negated: false };
    let asked = |then| {
        out(Path {
            packets: vec![
                rule(1, UDP, std::slice::from_ref(&set), PortVerdict::Accept),
                rule(2, UDP, &[Test::is(Number::SourcePort, 1000)], then),
            ],
            ..Path::default()
        })
    };
    assert_eq!(
        said(&asked(PortVerdict::Drop), &udp(&[], 0)),
        "undecided: filter f line 1 (IP rules) depends on the ipset friends"
    );
    let passes = "pass: the end of chain root, then filter f line 2 (IP rules)";
    assert_eq!(said(&asked(PortVerdict::Accept), &udp(&[], 0)), passes);
}

/// Returns rules that let the guest open connections, and let the answers in.
fn stateful() -> PortRules {
    let state = |states: &[State], direction| Test::State { states: states.to_vec(), direction };
    let first = state(&[State::New, State::Established], Some(ConnectionDirection::Original));
    let answer = state(&[State::Established], Some(ConnectionDirection::Reply));
    let path = |test, line| Path {
        packets: vec![
            rule(line, FrameKind::Ip(Version::V4, None), &[test], PortVerdict::Accept),
            rule(9, FrameKind::Any, &[], PortVerdict::Drop),
        ],
        ..Path::default()
    };
    PortRules { from_guest: path(first, 1), to_guest: path(answer, 2) }
}

fn turned(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let (mut source, mut destination) = (bytes[26..30].to_vec(), bytes[30..34].to_vec());
    source.extend(&bytes[34..36]);
    destination.extend(&bytes[36..38]);
    bytes[26..30].copy_from_slice(&destination[..4]);
    bytes[30..34].copy_from_slice(&source[..4]);
    bytes[34..36].copy_from_slice(&destination[4..]);
    bytes[36..38].copy_from_slice(&source[4..]);
    bytes
}

#[test]
fn answers_pass_after_a_request() {
    let rules = stateful();
    let (asks, answers) = (udp(&[], 0), turned(&udp(&[], 0)));
    let verdicts = |frames: &[(EvalPath, &[u8])]| -> Vec<Verdict> {
        let mut judge = Judge::new(&rules);
        let judged = frames
            .iter()
            .map(|(direction, bytes)| judge.judge(*direction, bytes, bytes.len()).unwrap());
        judged.map(|explained| explained.verdict).collect()
    };
    use Verdict::{Drop, Pass};
    let frames =
        [(EvalPath::In, answers.as_slice()), (EvalPath::Out, &asks), (EvalPath::In, &answers)];
    assert_eq!(verdicts(&frames), [Drop, Pass, Pass]);
    // Answers alone do not open a connection.
    assert_eq!(verdicts(&[(EvalPath::Out, &answers), (EvalPath::In, &answers)]), [Pass, Drop]);
}

/// nf_conntrack_bridge tracks the packet behind one VLAN tag.
#[test]
fn a_tagged_packet_opens_a_connection() {
    let rules = stateful();
    let (asks, answers) = (udp(&[], 0), turned(&udp(&[], 0)));
    let tagged = |tags: &[u8]| [&asks[..12], tags, &asks[12..]].concat();
    for (tags, expected) in [
        (&[0x81, 0, 0, 0][..], Verdict::Pass),
        (&[0x81, 0, 0xa0, 5], Verdict::Pass),
        (&[0x88, 0xa8, 0, 5], Verdict::Pass),
        (&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 5], Verdict::Drop),
        (&[0x91, 0, 0, 5], Verdict::Drop),
    ] {
        let mut judge = Judge::new(&rules);
        let mut verdict = |way, bytes: &[u8]| judge.judge(way, bytes, bytes.len()).unwrap().verdict;
        assert_eq!(verdict(EvalPath::Out, &tagged(tags)), Verdict::Pass, "{tags:x?}");
        assert_eq!(verdict(EvalPath::In, &answers), expected, "{tags:x?}");
    }
}

#[test]
fn later_fragments_are_undecided_until_the_first_one() {
    let rules = stateful();
    let mut judge = Judge::new(&rules);
    let mut verdict = |bytes: &[u8]| {
        let explained = judge.judge(EvalPath::Out, bytes, bytes.len()).unwrap();
        let depends: Vec<_> =
            explained.stages.iter().flat_map(|s| &s.depends).map(|(on, _)| on.clone()).collect();
        (explained.verdict, depends)
    };
    assert_eq!(verdict(&udp(&[], 1)), (Verdict::Undecided, vec![Dependency::Begin]));
    assert_eq!(verdict(&udp(&[], 0x2000)), (Verdict::Pass, vec![]));
    assert_eq!(verdict(&udp(&[], 1)), (Verdict::Pass, vec![]));
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_a_panic(
        ether_type in prop::sample::select(vec![0x0800u16, 0x86dd, 0x0806, 0x8035, 0x8100, 38]),
        rest in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let bytes = frame(ether_type, &rest);
        let rules = stateful();
        let mut judge = Judge::new(&rules);
        for direction in [EvalPath::Out, EvalPath::In] {
            prop_assert!(judge.judge(direction, &bytes, bytes.len()).is_ok());
        }
    }
}

#[test]
fn a_dhcp_client_has_hardware_type_1_six_bytes_and_no_relay() {
    let client = |kind: u8, length: u8, relay: u8| {
        let mut message = vec![1, kind, length, 0];
        message.resize(27, 0);
        message.push(relay);
        message.extend([2, 0, 0, 0, 0, 1]);
        message.resize(240, 0);
        let size = 8 + message.len() as u16;
        let ports = [68, 67, size, 0].map(u16::to_be_bytes);
        let mut packet = vec![0x45, 0];
        packet.extend((20 + size).to_be_bytes());
        packet.extend([0, 1, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
        packet.extend(ports.as_flattened());
        packet.extend(message);
        let bytes = [[0xff; 6].as_slice(), &[2, 0, 0, 0, 0, 1, 8, 0], &packet].concat();
        let frame = Frame::read(&bytes, bytes.len()).unwrap();
        frame.hardware(Hardware::DhcpClient)
    };
    assert_eq!(client(1, 6, 0), Some([2, 0, 0, 0, 0, 1]));
    let others = [(1, 5), (1, 8), (1, 10), (1, 16), (0, 6), (6, 6), (32, 6)];
    for (kind, length) in others {
        assert_eq!(client(kind, length, 0), None, "htype {kind}, hlen {length}");
    }
    assert_eq!(client(1, 6, 9), None, "a relay");
}
