//! Tests the reader of neighbor discovery and DHCPv6.

use std::net::Ipv6Addr;

use netlaunch::nwfilter::learn::packet6::{Dhcp6, Given6, Message6, Prefix, read};
use proptest::prelude::*;

use super::{GUEST_LINK, ONE, ROUTER_LINK, TWO};
use crate::common::dhcp_frame::{GUEST, OTHER};
use crate::common::nd_frame::{
    Dhcp6Frame, NdFrame, RELEASE6, REPLY, REQUEST6, SOLICIT, association, given, link_option,
    option6, status,
};

fn message(bytes: &[u8]) -> Option<Message6> {
    read(bytes).map(|frame| frame.content)
}

#[test]
fn neighbor_discovery_is_read() {
    let test = NdFrame::test(GUEST, ONE);
    let mut with_nonce = test.clone();
    with_nonce.message.extend([14, 1, 1, 2, 3, 4, 5, 6]);
    for frame in [test, with_nonce] {
        assert_eq!(message(&frame.bytes()), Some(Message6::Test(ONE)));
    }
    let option = link_option(1, GUEST);
    let solicits = NdFrame::solicit(GUEST, TWO, ONE, &option);
    assert_eq!(message(&solicits.bytes()), Some(Message6::Solicitation));
    let advertises = NdFrame::advertise(GUEST, TWO, ONE, &link_option(2, GUEST));
    assert_eq!(message(&advertises.bytes()), Some(Message6::Advertisement(ONE)));
    let prefix = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
    let router = NdFrame::router(OTHER, ROUTER_LINK, prefix, 600);
    let net = "2001:db8::/64".parse().unwrap();
    assert_eq!(message(&router.bytes()), Some(Message6::Router(vec![Prefix { net, valid: 600 }])));
}

/// Other machines ignore such a test of an address, so none objects to it.
#[test]
fn a_test_of_an_address_that_other_machines_ignore_is_not_read() {
    let test = || NdFrame::test(GUEST, ONE);
    let with = |options: &[u8]| {
        let mut frame = test();
        frame.message.extend(options);
        frame
    };
    let mut to_another = test();
    to_another.mac_to = OTHER;
    let mut to_another_group = test();
    to_another_group.mac_to = [0x33, 0x33, 0xff, 9, 9, 9];
    let mut to_another_node = NdFrame::test(GUEST, TWO);
    to_another_node.message[8..24].copy_from_slice(&ONE.octets());
    let mut with_a_code = test();
    with_a_code.message[1] = 1;
    let behind_options = NdFrame { extensions: (0, vec![58, 0, 1, 4, 0, 0, 0, 0]), ..test() };
    let in_a_fragment = NdFrame { extensions: (44, vec![58, 0, 0, 0, 0, 0, 0, 7]), ..test() };
    for (what, frame) in [
        ("a wrong checksum", NdFrame { is_sound: false, ..test() }),
        ("a hop limit of 64", NdFrame { hop_limit: 64, ..test() }),
        ("the Ethernet address of another machine", to_another),
        ("another Ethernet group", to_another_group),
        ("another group", to_another_node),
        ("a code", with_a_code),
        ("a hop-by-hop header", behind_options),
        ("a fragment header", in_a_fragment),
        ("the hardware address of the source", with(&link_option(1, GUEST))),
        ("another option", with(&[200, 1, 0, 0, 0, 0, 0, 0])),
        ("an option of no length", with(&[14, 0, 0, 0, 0, 0, 0, 0])),
        (
            "a target that is a group",
            NdFrame::test(GUEST, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 5)),
        ),
    ] {
        assert_eq!(message(&frame.bytes()), None, "{what}");
    }
    let whole = test().bytes();
    for length in 0..whole.len() {
        assert_eq!(message(&whole[..length]), None, "{length} bytes");
    }
}

fn dhcp(frame: &Dhcp6Frame) -> Option<Dhcp6> {
    match message(&frame.bytes()) {
        Some(Message6::Dhcp(dhcp)) => Some(dhcp),
        _ => None,
    }
}

#[test]
fn the_addresses_of_a_dhcpv6_reply_are_those_without_an_error_status() {
    let request = Dhcp6Frame::asks(REQUEST6, GUEST, GUEST_LINK);
    let one = || given(ONE, 600, &[]);
    let two = given(TWO, 300, &status(0));
    for (what, options, expected) in [
        ("an IA_NA", association(3, &one()), vec![ONE]),
        ("an IA_TA", association(4, &one()), vec![ONE]),
        ("both", [association(3, &one()), association(4, &two)].concat(), vec![ONE, TWO]),
        ("a good status", association(3, &[one(), status(0)].concat()), vec![ONE]),
        ("a bad status of the IA", association(3, &[one(), status(2)].concat()), vec![]),
        ("a bad status in front", association(3, &[status(6), one()].concat()), vec![]),
        ("a bad status of one", association(3, &given(ONE, 600, &status(4))), vec![]),
        ("a bad status of all", [association(3, &one()), status(1)].concat(), vec![]),
        ("an address outside", one(), vec![]),
        ("other options", [option6(23, &[0; 16]), association(3, &one())].concat(), vec![ONE]),
    ] {
        let read = dhcp(&request.replies(OTHER, ROUTER_LINK, &options)).expect(what);
        let addresses: Vec<_> = read.addresses.iter().map(|given| given.address).collect();
        assert_eq!(addresses, expected, "{what}");
    }
    let many: Vec<u8> =
        (0..100).flat_map(|n| given((u128::from(ONE) + n).into(), 9, &[])).collect();
    let read = dhcp(&request.replies(OTHER, ROUTER_LINK, &association(3, &many))).unwrap();
    assert_eq!(read.addresses.len(), 16);
    assert_eq!(read.addresses[0], Given6 { address: ONE, valid: 9 });
}

#[test]
fn malformed_dhcpv6_is_not_read() {
    let request = Dhcp6Frame::asks(REQUEST6, GUEST, GUEST_LINK);
    let reply = request.replies(OTHER, ROUTER_LINK, &association(3, &given(ONE, 600, &[])));
    assert!(dhcp(&request).is_some() && dhcp(&reply).is_some());
    let none = |what: &str, frame: &Dhcp6Frame| assert_eq!(dhcp(frame), None, "{what}");
    none("no client", &Dhcp6Frame { options: Vec::new(), ..reply.clone() });
    let twice = [request.options.clone(), request.options.clone()].concat();
    none("two clients", &Dhcp6Frame { options: twice, ..request.clone() });
    none("a reply of a client", &Dhcp6Frame { message: REPLY, ..request.clone() });
    none("a request of a server", &Dhcp6Frame { message: SOLICIT, ..reply.clone() });
    none("a relay's message", &Dhcp6Frame { message: 13, ..reply.clone() });
    none("other ports", &Dhcp6Frame { ports: (546, 546), ..request.clone() });
    let mut cut = reply.clone();
    cut.options.pop();
    none("a cut option", &cut);
    let release = Dhcp6Frame { message: RELEASE6, ..request };
    assert!(dhcp(&release).is_some());
}

proptest! {
    #[test]
    fn no_frame_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }

    #[test]
    fn no_damaged_frame_panics(
        kind in 0..4_usize,
        damage in proptest::collection::vec((0..200_usize, any::<u8>()), 0..6),
        length in 0..200_usize,
    ) {
        let request = Dhcp6Frame::asks(REQUEST6, GUEST, GUEST_LINK);
        let mut bytes = match kind {
            0 => NdFrame::test(GUEST, ONE).bytes(),
            1 => NdFrame::router(OTHER, ROUTER_LINK, ONE, 600).bytes(),
            2 => request.bytes(),
            _ => request
                .replies(OTHER, ROUTER_LINK, &association(3, &given(ONE, 600, &status(0))))
                .bytes(),
        };
        for (at, byte) in damage {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(length);
        if let Some(frame) = read(&bytes) {
            prop_assert!(!frame.from.is_multicast());
        }
    }
}
