//! How a guest's address is learnt, without a network: what frames say, what is believed, what the
//! kernel is told to let through to the learner, and what passes meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use common::dhcp_frame::{
    ACK, DECLINE, DISCOVER, DhcpFrame, EVERYONE, GUEST, INFORM, NAK, OFFER, OTHER, RELEASE,
    REQUEST, SERVER, arp, ethernet, ipv4, set_checksum, speech, udp,
};
use netlaunch::learn::bpf::Instruction;
use netlaunch::learn::packet::{Content, Dhcp, Message, read};
use netlaunch::learn::{
    Change, Direction, Interest, Kept, Learner, Lease, LeaseDir, Method, Teacher, UnixTime,
    learning_rules, program,
};
use netlaunch::nwfilter::explain::{Judge, Verdict, Way};
use netlaunch::types::Mac;
use proptest::prelude::*;

use Direction::{FromGuest, ToGuest};

const A: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 20);
const B: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 21);
const HOST: Ipv4Addr = SERVER;
const NOW: UnixTime = UnixTime(1_000_000);
const HOUR: u64 = 3600;

fn guest() -> Mac {
    "52:54:00:11:22:33".parse().unwrap()
}

fn dhcp_only() -> Method {
    Method::Dhcp { servers: Vec::new() }
}

fn learner(method: Method) -> Learner {
    Learner::new(method, guest(), vec!["10.5.0.1/24".parse().unwrap()])
}

fn by_dhcp(address: Ipv4Addr) -> Lease {
    Lease { address, teacher: Teacher::Dhcp, until: Some(UnixTime(NOW.0 + HOUR)) }
}

fn by_traffic(address: Ipv4Addr) -> Lease {
    Lease { address, teacher: Teacher::Traffic, until: None }
}

fn dhcp_of(frame: &DhcpFrame) -> Option<Dhcp> {
    match read(&frame.bytes())?.content {
        Content::Ip(packet) => packet.dhcp,
        Content::Arp(_) => None,
    }
}

// What frames say.

#[test]
fn the_type_of_a_message_is_option_53() {
    let messages = [
        Message::Discover,
        Message::Offer,
        Message::Request,
        Message::Decline,
        Message::Ack,
        Message::Nak,
        Message::Release,
        Message::Inform,
    ];
    for (code, message) in (1..).zip(messages) {
        let frame = match message.is_servers() {
            true => DhcpFrame::answers(code, A),
            false => DhcpFrame::asks(code),
        };
        assert_eq!(dhcp_of(&frame).map(|dhcp| dhcp.message), Some(message));
        // The wrong op, or the other side's ports, makes no other message of it.
        assert_eq!(dhcp_of(&DhcpFrame { op: 3 - frame.op, ..frame.clone() }), None, "{message:?}");
        let ports = (frame.ports.1, frame.ports.0);
        assert_eq!(dhcp_of(&DhcpFrame { ports, ..frame }), None, "{message:?}");
    }
    for code in [0, 9, 255] {
        assert_eq!(dhcp_of(&DhcpFrame::asks(code)), None, "{code}");
    }
    // BOOTP without DHCP.
    assert_eq!(dhcp_of(&DhcpFrame::answers(ACK, A).options(&[])), None);
}

#[test]
fn options_are_read_to_their_end_and_in_the_overloaded_fields() {
    const TYPE: &[u8] = &[53, 1, ACK];
    const TIME: &[u8] = &[51, 4, 0, 0, 0, 9];
    let ack = || DhcpFrame::answers(ACK, A);
    let ended = |options: &[&[u8]]| [&options.concat()[..], &[255]].concat();
    let table: Vec<(&str, DhcpFrame, bool)> = vec![
        ("plain", ack().options(&[TYPE, TIME]), true),
        ("padded", ack().options(&[&[0, 0], TYPE, &[0], TIME]), true),
        ("unknown options", ack().options(&[&[200, 0], TYPE, &[12, 2, 1, 1], TIME]), true),
        ("no end", DhcpFrame { options: [TYPE, TIME].concat(), ..ack() }, false),
        ("cut off in a value", DhcpFrame { options: [TYPE, &[51, 4, 0]].concat(), ..ack() }, false),
        ("cut off at a length", DhcpFrame { options: [TYPE, &[51]].concat(), ..ack() }, false),
        ("no options", DhcpFrame { options: Vec::new(), ..ack() }, false),
        ("the type twice", ack().options(&[TYPE, TYPE, TIME]), false),
        ("a type of two bytes", ack().options(&[&[53, 2, ACK, ACK], TIME]), false),
        ("a time of three bytes", ack().options(&[TYPE, &[51, 3, 0, 0, 9]]), false),
        (
            "in file",
            DhcpFrame { file: ended(&[TIME]), ..ack().options(&[TYPE, &[52, 1, 1]]) },
            true,
        ),
        (
            "in sname",
            DhcpFrame { sname: ended(&[TYPE]), ..ack().options(&[TIME, &[52, 1, 2]]) },
            true,
        ),
        (
            "in both",
            DhcpFrame {
                file: ended(&[TIME]),
                sname: ended(&[TYPE]),
                ..ack().options(&[&[52, 1, 3]])
            },
            true,
        ),
        (
            "not in a field that is not overloaded",
            DhcpFrame { file: ended(&[TYPE]), ..ack().options(&[TIME, &[52, 1, 2]]) },
            false,
        ),
        (
            "a field without an end",
            DhcpFrame { file: vec![0; 128], ..ack().options(&[TYPE, TIME, &[52, 1, 1]]) },
            false,
        ),
        (
            "an option that runs out of its field into the options",
            DhcpFrame {
                file: [vec![0; 126], vec![12, 9]].concat(),
                ..ack().options(&[TYPE, TIME, &[52, 1, 1]])
            },
            false,
        ),
        (
            "overload within an overloaded field",
            DhcpFrame {
                file: ended(&[&[52, 1, 2]]),
                sname: ended(&[TIME]),
                ..ack().options(&[TYPE, &[52, 1, 1]])
            },
            false,
        ),
        ("overload of no field", ack().options(&[TYPE, TIME, &[52, 1, 0]]), false),
        ("overload of four", ack().options(&[TYPE, TIME, &[52, 1, 4]]), false),
    ];
    for (what, frame, good) in table {
        let dhcp = dhcp_of(&frame);
        assert_eq!(dhcp.is_some(), good, "{what}: {dhcp:?}");
        assert!(dhcp.is_none_or(|d| d.message == Message::Ack && d.lease_time.is_some()), "{what}");
    }
}

#[test]
fn malformed_frames_say_nothing() {
    let good = DhcpFrame::answers(ACK, A).bytes();
    assert!(read(&good).is_some());
    // An IPv4 header at its every byte (what changes it, but for the checksum's own word, is
    // wrong), with the checksum made right again in the second column.
    let change = |at: usize, value: u8, fix: bool| {
        let mut frame = good.clone();
        frame[14 + at] = value;
        if fix {
            set_checksum(&mut frame[14..34]);
        }
        read(&frame).is_some()
    };
    for (what, at, value, fixed) in [
        ("version 6", 0, 0x65, false),
        ("a header of 16 bytes", 0, 0x44, false),
        ("a header beyond the packet", 0, 0x4f, false),
        ("longer than the frame", 2, 0xff, false),
        ("shorter than its header", 3, 19, true),
        ("another time to live", 8, 3, true),
    ] {
        assert!(!change(at, value, false), "{what}, wrong checksum");
        // The total length's high byte is 1 here, so 19 makes 275: the message is cut off instead.
        let expected = fixed && what == "another time to live";
        assert_eq!(change(at, value, true), expected, "{what}");
    }
    // A fragment is an IPv4 packet and no DHCP.
    for fragment in [[0x20, 0], [0, 1]] {
        let mut frame = good.clone();
        frame[20..22].copy_from_slice(&fragment);
        set_checksum(&mut frame[14..34]);
        let content = read(&frame).unwrap().content;
        assert!(matches!(content, Content::Ip(packet) if packet.dhcp.is_none()));
    }
    // UDP: a length beyond the packet, and one below the header.
    for length in [0xffffu16, 7] {
        let mut frame = good.clone();
        frame[38..40].copy_from_slice(&length.to_be_bytes());
        assert_eq!(read(&frame), None, "UDP length {length}");
    }
    // Every truncation; and padding behind it does no harm.
    for length in 0..good.len() {
        assert_eq!(read(&good[..length]), None, "{length} bytes");
    }
    assert!(read(&[&good[..], &[0; 18]].concat()).is_some());
    let arp = arp(GUEST, GUEST, A, 1);
    for length in 0..arp.len() {
        assert_eq!(read(&arp[..length]), None, "{length} bytes of ARP");
    }
    for (at, value) in [(15, 6), (16, 0x86), (18, 8), (19, 16), (21, 3)] {
        let mut arp = arp.clone();
        arp[at] = value;
        assert_eq!(read(&arp), None, "ARP with {value} at {at}");
    }
    assert_eq!(read(&ethernet(EVERYONE, GUEST, 0x8100, &good[12..])), None, "a tag in the bytes");
}

// What is believed.

/// What happens, in order.
fn lesson(learner: &mut Learner, frames: &[(Direction, Vec<u8>)]) -> Vec<Change> {
    frames.iter().filter_map(|(way, frame)| learner.see(*way, frame, NOW)).collect()
}

fn asks(message: u8) -> (Direction, Vec<u8>) {
    (FromGuest, DhcpFrame::asks(message).bytes())
}

fn answers(message: u8, address: Ipv4Addr) -> (Direction, Vec<u8>) {
    (ToGuest, DhcpFrame::answers(message, address).bytes())
}

#[test]
fn dhcp_teaches_by_acknowledgements() {
    for method in [dhcp_only(), Method::Any, Method::Dhcp { servers: vec![B, SERVER] }] {
        let mut learner = learner(method);
        let offer = [asks(DISCOVER), answers(OFFER, A)];
        assert_eq!(lesson(&mut learner, &offer), []);
        assert_eq!((learner.offered(), learner.lease()), (Some(A), None));
        let ack = [asks(REQUEST), answers(ACK, A)];
        assert_eq!(lesson(&mut learner, &ack), [Change::Learnt(by_dhcp(A))]);
        assert_eq!((learner.offered(), learner.lease()), (None, Some(by_dhcp(A))));
        assert_eq!(lesson(&mut learner, &ack), [Change::Renewed(by_dhcp(A))]);
        let other = [asks(REQUEST), answers(ACK, B)];
        assert_eq!(lesson(&mut learner, &other), [Change::Learnt(by_dhcp(B))]);
        let nak = [asks(REQUEST), answers(NAK, Ipv4Addr::UNSPECIFIED)];
        assert_eq!(lesson(&mut learner, &nak), [Change::Forgotten(B)]);
        assert_eq!(lesson(&mut learner, &nak), []);
        // Broadcast to a client that cannot take unicast yet.
        let mut ack = DhcpFrame::answers(ACK, A);
        ack.to = EVERYONE;
        let ack = [asks(REQUEST), (ToGuest, ack.bytes())];
        assert_eq!(lesson(&mut learner, &ack), [Change::Learnt(by_dhcp(A))]);
    }
}

#[test]
fn dhcp_teaches_nothing_by_these() {
    let ack = || DhcpFrame::answers(ACK, A);
    let no_time = ack().options(&[&[53, 1, ACK]]);
    let zero = ack().options(&[&[53, 1, ACK], &[51, 4, 0, 0, 0, 0]]);
    for (what, request, answer) in [
        ("an unasked answer", None, ack()),
        ("another transaction", Some(REQUEST), DhcpFrame { transaction: 8, ..ack() }),
        ("another client", Some(REQUEST), DhcpFrame { chaddr: OTHER, ..ack() }),
        ("another receiver", Some(REQUEST), DhcpFrame { to: OTHER, ..ack() }),
        ("a server that is not named", Some(REQUEST), DhcpFrame { source: B, ..ack() }),
        ("the answer to an INFORM", Some(INFORM), ack()),
        ("no time", Some(REQUEST), no_time),
        ("no time at all", Some(REQUEST), zero),
        ("an offer", Some(DISCOVER), DhcpFrame::answers(OFFER, A)),
        ("the host's address", Some(REQUEST), DhcpFrame::answers(ACK, HOST)),
    ] {
        let mut learner = learner(Method::Dhcp { servers: vec![SERVER] });
        let mut frames: Vec<_> = request.map(asks).into_iter().collect();
        frames.push((ToGuest, answer.bytes()));
        assert_eq!(lesson(&mut learner, &frames), [], "{what}");
        // The guest itself says such things to the network.
        let mut learner = self::learner(Method::Any);
        let mut forged = answer;
        (forged.from, forged.source) = (GUEST, Ipv4Addr::UNSPECIFIED);
        let frames = [asks(REQUEST), (FromGuest, forged.bytes())];
        assert_eq!(lesson(&mut learner, &frames), [], "{what}, by the guest");
    }
    // A request in which another is the client, or whose frame has another source.
    for forged in [
        DhcpFrame { chaddr: OTHER, ..DhcpFrame::asks(REQUEST) },
        DhcpFrame { from: OTHER, ..DhcpFrame::asks(REQUEST) },
    ] {
        let frames = [(FromGuest, forged.bytes()), answers(ACK, A)];
        assert_eq!(lesson(&mut learner(dhcp_only()), &frames), []);
    }
}

#[test]
fn what_is_given_back_is_forgotten() {
    let release = |ciaddr| DhcpFrame { ciaddr, ..DhcpFrame::asks(RELEASE) };
    let decline = |address: Ipv4Addr| {
        let requested = [&[50, 4][..], &address.octets()].concat();
        DhcpFrame::asks(DECLINE).options(&[&[53, 1, DECLINE], &requested])
    };
    for (frame, forgets) in [
        (release(A), true),
        (release(B), false),
        (decline(A), true),
        (decline(B), false),
        (DhcpFrame::asks(DECLINE), false),
        (DhcpFrame { from: OTHER, ..release(A) }, false),
        (DhcpFrame { chaddr: OTHER, ..release(A) }, false),
    ] {
        let mut learner = learner(Method::Any);
        lesson(&mut learner, &[asks(REQUEST), answers(ACK, A)]);
        let expected: &[Change] = if forgets { &[Change::Forgotten(A)] } else { &[] };
        assert_eq!(lesson(&mut learner, &[(FromGuest, frame.bytes())]), expected, "{frame:?}");
        // The guest cannot speak itself another one then.
        assert_eq!(lesson(&mut learner, &[(FromGuest, speech(GUEST, B))]), []);
        assert_eq!(learner.interest(), Interest::Dhcp);
        let again = [asks(REQUEST), answers(ACK, B)];
        assert_eq!(lesson(&mut learner, &again), [Change::Learnt(by_dhcp(B))]);
    }
}

#[test]
fn any_learns_from_the_first_packet_and_only_dhcp_corrects_it() {
    for first in [arp(GUEST, GUEST, A, 1), arp(GUEST, GUEST, A, 2), speech(GUEST, A)] {
        assert_eq!(lesson(&mut learner(dhcp_only()), &[(FromGuest, first.clone())]), []);
        let mut learner = learner(Method::Any);
        assert_eq!(learner.interest(), Interest::All);
        assert_eq!(lesson(&mut learner, &[(ToGuest, first.clone())]), []);
        let said = lesson(&mut learner, &[(FromGuest, first)]);
        assert_eq!(said, [Change::Learnt(by_traffic(A))]);
        assert_eq!(learner.interest(), Interest::Dhcp);
        let others = [(FromGuest, speech(GUEST, B)), (FromGuest, arp(GUEST, GUEST, B, 1))];
        assert_eq!(lesson(&mut learner, &others), []);
        // No server has given it, so none can take it.
        let nak = [asks(REQUEST), answers(NAK, Ipv4Addr::UNSPECIFIED)];
        assert_eq!(lesson(&mut learner, &nak), []);
        let same = [asks(REQUEST), answers(ACK, A)];
        assert_eq!(lesson(&mut learner, &same), [Change::Renewed(by_dhcp(A))]);
        let other = [asks(REQUEST), answers(ACK, B)];
        assert_eq!(lesson(&mut learner, &other), [Change::Learnt(by_dhcp(B))]);
    }
    for spoofed in [
        arp(OTHER, GUEST, A, 1),
        arp(GUEST, OTHER, A, 1),
        speech(OTHER, A),
        arp(GUEST, GUEST, Ipv4Addr::UNSPECIFIED, 1),
    ] {
        assert_eq!(lesson(&mut learner(Method::Any), &[(FromGuest, spoofed)]), []);
    }
}

const FORBIDDEN: [&str; 17] = [
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.0.1",
    "169.254.255.255",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "254.1.2.3",
    "255.255.255.255",
    "10.5.0.1",
    "10.5.0.0",
    "10.5.0.255",
    "192.0.2.7",
    "198.51.100.4",
    "198.51.100.5",
];

/// The host's addresses of [`FORBIDDEN`]: with a subnet, with none, and in a link of two.
fn hosts() -> Vec<ipnet::Ipv4Net> {
    ["10.5.0.1/24", "192.0.2.7/32", "198.51.100.4/31", "198.51.100.5/31"]
        .map(|net| net.parse().unwrap())
        .to_vec()
}

#[test]
fn forbidden_addresses_are_never_learnt() {
    let allowed =
        ["10.5.0.2", "10.5.1.0", "192.0.2.6", "198.51.100.3", "223.255.255.254", "1.0.0.0"];
    for (addresses, learnt) in [(&FORBIDDEN[..], false), (&allowed[..], true)] {
        for address in addresses.iter().map(|text| text.parse::<Ipv4Addr>().unwrap()) {
            for frames in [
                vec![asks(REQUEST), answers(ACK, address)],
                vec![(FromGuest, arp(GUEST, GUEST, address, 1))],
                vec![(FromGuest, speech(GUEST, address))],
            ] {
                let mut learner = Learner::new(Method::Any, guest(), hosts());
                assert_eq!(lesson(&mut learner, &frames).len(), usize::from(learnt), "{address}");
            }
            let mut learner = Learner::new(Method::Any, guest(), hosts());
            lesson(&mut learner, &[asks(DISCOVER), answers(OFFER, address)]);
            assert_eq!(learner.offered().is_some(), learnt, "{address}");
            let resumed = learner.resumed(Some(by_dhcp(address)), NOW);
            assert_eq!(resumed.lease().is_some(), learnt, "{address}");
        }
    }
}

// Leases.

#[test]
fn leases_end_with_their_time() {
    let mut learner = learner(dhcp_only());
    lesson(&mut learner, &[asks(REQUEST), answers(ACK, A)]);
    assert_eq!(learner.expire(UnixTime(NOW.0 + HOUR - 1)), None);
    assert_eq!(learner.expire(UnixTime(NOW.0 + HOUR)), Some(Change::Forgotten(A)));
    assert_eq!(learner.expire(UnixTime(NOW.0 + HOUR)), None);
    // For ever.
    let ack = DhcpFrame::answers(ACK, A).options(&[&[53, 1, ACK], &[51, 4, 255, 255, 255, 255]]);
    lesson(&mut learner, &[asks(REQUEST), (ToGuest, ack.bytes())]);
    assert_eq!(learner.lease().unwrap().until, None);
    assert_eq!(learner.expire(UnixTime(u64::MAX)), None);
}

#[test]
fn what_was_learnt_is_kept_for_this_port_and_guest_alone() {
    let state = tempfile::tempdir().unwrap();
    let dir = LeaseDir::new(state.path());
    let port: netlaunch::types::InterfaceName = "vnet0".parse().unwrap();
    assert_eq!(dir.read(&port, NOW).unwrap(), None);
    dir.remove(&port).unwrap();
    let kept =
        Kept { version: 1, port: port.clone(), index: 7, mac: guest(), lease: Some(by_dhcp(A)) };
    dir.write(&kept).unwrap();
    let text = std::fs::read_to_string(dir.file(&port)).unwrap();
    let expected = r#"{"version":1,"port":"vnet0","index":7,"mac":"52:54:00:11:22:33","lease":{"address":"10.5.0.20","teacher":"dhcp","until":1003600}}"#;
    assert_eq!(text, expected);
    assert_eq!(dir.read(&port, NOW).unwrap(), Some(kept.clone()));
    assert!(kept.is_of(7, guest()));
    assert!(!kept.is_of(8, guest()));
    assert!(!kept.is_of(7, "52:54:00:44:55:66".parse().unwrap()));
    // Aged: the lease is over, and that the port was taught stays.
    let later = UnixTime(NOW.0 + HOUR);
    let aged = dir.read(&port, later).unwrap().unwrap();
    assert_eq!(aged.lease, None);
    let mut resumed = learner(Method::Any).resumed(aged.lease, later);
    assert_eq!(resumed.see(FromGuest, &speech(GUEST, B), later), None);
    assert_eq!(learner(Method::Any).resumed(kept.lease, NOW).lease(), Some(by_dhcp(A)));
    assert_eq!(learner(Method::Any).resumed(kept.lease, later).lease(), None);
    // Nothing half-written is left, and what is damaged is like nothing.
    assert_eq!(std::fs::read_dir(dir.file(&port).parent().unwrap()).unwrap().count(), 1);
    std::fs::write(dir.file(&port), &text[..20]).unwrap();
    assert_eq!(dir.read(&port, NOW).unwrap(), None);
    dir.remove(&port).unwrap();
    assert!(!dir.file(&port).exists());
    // A directory that cannot be used is told in one line.
    std::fs::create_dir(dir.file(&port)).unwrap();
    for error in [dir.read(&port, NOW).unwrap_err(), dir.write(&kept).unwrap_err()] {
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
        assert!(error.to_string().contains("vnet0.json"), "{error}");
    }
}
