//! Tests the reader of frames.

use netlaunch::nwfilter::learn::packet::{Dhcp, Message, Payload, read};

use super::A;
use crate::common::dhcp_frame::{ACK, DhcpFrame, EVERYONE, GUEST, arp, ethernet, set_checksum};

fn dhcp_of(frame: &DhcpFrame) -> Option<Dhcp> {
    match read(&frame.bytes())?.content {
        Payload::Ip(packet) => packet.dhcp,
        Payload::Arp(_) => None,
    }
}

#[test]
fn option_53_gives_the_message_type() {
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
        let frame =
            if message.is_servers() { DhcpFrame::answers(code, A) } else { DhcpFrame::asks(code) };
        assert_eq!(dhcp_of(&frame).map(|dhcp| dhcp.message), Some(message));
        // A message with the wrong `op`, or with the ports of the other side, is malformed.
        assert_eq!(dhcp_of(&DhcpFrame { op: 3 - frame.op, ..frame.clone() }), None, "{message:?}");
        let ports = (frame.ports.1, frame.ports.0);
        assert_eq!(dhcp_of(&DhcpFrame { ports, ..frame }), None, "{message:?}");
    }
    for code in [0, 9, 255] {
        assert_eq!(dhcp_of(&DhcpFrame::asks(code)), None, "{code}");
    }
    // A BOOTP message without DHCP.
    assert_eq!(dhcp_of(&DhcpFrame::answers(ACK, A).options(&[])), None);
}

#[test]
fn options_are_read_up_to_the_end_option_and_in_overloaded_fields() {
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
fn malformed_frames_are_rejected() {
    let good = DhcpFrame::answers(ACK, A).bytes();
    assert!(read(&good).is_some());
    // Each case first keeps the old checksum, which is wrong then, and then gets the correct one.
    for (what, at, bytes, right) in [
        ("version 6", 0, &[0x65][..], false),
        ("a header of 16 bytes", 0, &[0x44], false),
        ("a length beyond the frame", 2, &[0xff, 0xff], false),
        ("a length of less than the header", 2, &[0, 19], false),
        ("another time to live", 8, &[3], true),
    ] {
        let mut frame = good.clone();
        frame[14 + at..14 + at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(read(&frame), None, "{what}, wrong checksum");
        set_checksum(&mut frame[14..34]);
        assert_eq!(read(&frame).is_some(), right, "{what}");
    }
    // A fragment is read as an IPv4 packet without DHCP.
    for fragment in [[0x20, 0], [0, 1]] {
        let mut frame = good.clone();
        frame[20..22].copy_from_slice(&fragment);
        set_checksum(&mut frame[14..34]);
        let content = read(&frame).unwrap().content;
        assert!(matches!(content, Payload::Ip(packet) if packet.dhcp.is_none()));
    }
    // A UDP length beyond the packet, and one shorter than the header.
    for length in [0xffffu16, 7] {
        let mut frame = good.clone();
        frame[38..40].copy_from_slice(&length.to_be_bytes());
        assert_eq!(read(&frame), None, "UDP length {length}");
    }
    // Every shortened frame is malformed. Padding after the frame is accepted.
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
