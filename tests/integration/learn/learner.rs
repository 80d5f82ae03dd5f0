//! Tests the frames that change the learner's state, and those that do not.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlaunch::nwfilter::learn::Sender::{Guest, Network};
use netlaunch::nwfilter::learn::{AddressChange, FrameSet, Learner, Method};

use super::{
    A, B, FORBIDDEN, HOST, NOW, answers, asks, by_dhcp, by_traffic, dhcp_only, feed, from_anything,
    guest, hosts, learner,
};
use crate::common::dhcp_frame::{
    ACK, DECLINE, DISCOVER, DhcpFrame, EVERYONE, GUEST, INFORM, NAK, OFFER, OTHER, RELEASE,
    REQUEST, SERVER, arp, speech,
};

#[test]
fn an_acknowledgement_gives_the_address() {
    let relay = Ipv4Addr::new(10, 5, 0, 30);
    for method in [
        dhcp_only(),
        from_anything(),
        Method::dhcp(vec![relay, SERVER]),
        Method::any(vec![relay, SERVER]),
    ] {
        let mut learner = learner(method);
        let offer = [asks(DISCOVER), answers(OFFER, A)];
        assert_eq!(feed(&mut learner, &offer), []);
        assert_eq!((learner.offered(), learner.lease()), (Some(A), None));
        let ack = [asks(REQUEST), answers(ACK, A)];
        assert_eq!(feed(&mut learner, &ack), [AddressChange::Learned(by_dhcp(A))]);
        assert_eq!((learner.offered(), learner.lease()), (None, Some(by_dhcp(A))));
        assert_eq!(feed(&mut learner, &ack), [AddressChange::Renewed(by_dhcp(A))]);
        let other = [asks(REQUEST), answers(ACK, B)];
        assert_eq!(feed(&mut learner, &other), [AddressChange::Learned(by_dhcp(B))]);
        let nak = [asks(REQUEST), answers(NAK, Ipv4Addr::UNSPECIFIED)];
        assert_eq!(feed(&mut learner, &nak), [AddressChange::Forgotten(B)]);
        assert_eq!(feed(&mut learner, &nak), []);
        // A server broadcasts to a client that cannot receive unicast yet.
        let mut ack = DhcpFrame::answers(ACK, A);
        ack.to = EVERYONE;
        let ack = [asks(REQUEST), (Network, ack.bytes())];
        assert_eq!(feed(&mut learner, &ack), [AddressChange::Learned(by_dhcp(A))]);
    }
}

#[test]
fn these_dhcp_answers_give_no_address() {
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
        ("the server's address", Some(REQUEST), DhcpFrame::answers(ACK, SERVER)),
    ] {
        let mut frames: Vec<_> = request.map(asks).into_iter().collect();
        frames.push((Network, answer.bytes()));
        for method in [Method::dhcp(vec![SERVER]), Method::any(vec![SERVER])] {
            assert_eq!(feed(&mut learner(method), &frames), [], "{what}");
        }
        // The guest sends the same message to the network.
        let mut learner = learner(from_anything());
        let mut forged = answer;
        (forged.from, forged.source) = (GUEST, Ipv4Addr::UNSPECIFIED);
        let frames = [asks(REQUEST), (Guest, forged.bytes())];
        assert_eq!(feed(&mut learner, &frames), [], "{what}, by the guest");
    }
    // Requests for another client, and from another source.
    for forged in [
        DhcpFrame { chaddr: OTHER, ..DhcpFrame::asks(REQUEST) },
        DhcpFrame { from: OTHER, ..DhcpFrame::asks(REQUEST) },
    ] {
        let frames = [(Guest, forged.bytes()), answers(ACK, A)];
        assert_eq!(feed(&mut learner(dhcp_only()), &frames), []);
    }
}

#[test]
fn a_released_or_declined_address_is_forgotten() {
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
        let mut learner = learner(from_anything());
        feed(&mut learner, &[asks(REQUEST), answers(ACK, A)]);
        let expected: &[AddressChange] = if forgets { &[AddressChange::Forgotten(A)] } else { &[] };
        assert_eq!(feed(&mut learner, &[(Guest, frame.bytes())]), expected, "{frame:?}");
        // The guest cannot choose a new address by sending a packet.
        assert_eq!(feed(&mut learner, &[(Guest, speech(GUEST, B))]), []);
        assert_eq!(learner.check(Vec::new()), None);
        assert_eq!(feed(&mut learner, &[(Guest, speech(GUEST, B))]), []);
        assert_eq!(learner.frames(), FrameSet::Dhcp);
        let again = [asks(REQUEST), answers(ACK, B)];
        assert_eq!(feed(&mut learner, &again), [AddressChange::Learned(by_dhcp(B))]);
    }
}

#[test]
fn the_method_any_uses_the_first_packet_and_then_only_dhcp() {
    for first in [arp(GUEST, GUEST, A, 1), arp(GUEST, GUEST, A, 2), speech(GUEST, A)] {
        assert_eq!(feed(&mut learner(dhcp_only()), &[(Guest, first.clone())]), []);
        let mut learner = learner(from_anything());
        assert_eq!(learner.frames(), FrameSet::All);
        assert_eq!(feed(&mut learner, &[(Network, first.clone())]), []);
        let said = feed(&mut learner, &[(Guest, first)]);
        assert_eq!(said, [AddressChange::Learned(by_traffic(A))]);
        let others = [(Guest, speech(GUEST, B)), (Guest, arp(GUEST, GUEST, B, 1))];
        assert_eq!(feed(&mut learner, &others), []);
        assert_eq!(learner.frames(), FrameSet::All);
        assert_eq!(learner.check(Vec::new()), None);
        assert_eq!(learner.frames(), FrameSet::Dhcp);
        assert_eq!(feed(&mut learner, &others), []);
        // The address came from traffic, so a server cannot withdraw it.
        let nak = [asks(REQUEST), answers(NAK, Ipv4Addr::UNSPECIFIED)];
        assert_eq!(feed(&mut learner, &nak), []);
        let same = [asks(REQUEST), answers(ACK, A)];
        assert_eq!(feed(&mut learner, &same), [AddressChange::Renewed(by_dhcp(A))]);
        let other = [asks(REQUEST), answers(ACK, B)];
        assert_eq!(feed(&mut learner, &other), [AddressChange::Learned(by_dhcp(B))]);
    }
    for spoofed in [
        arp(OTHER, GUEST, A, 1),
        arp(GUEST, OTHER, A, 1),
        speech(OTHER, A),
        arp(GUEST, GUEST, Ipv4Addr::UNSPECIFIED, 1),
    ] {
        assert_eq!(feed(&mut learner(from_anything()), &[(Guest, spoofed)]), []);
    }
}

#[test]
fn a_first_address_that_fails_its_check_leaves_no_trace() {
    let host_has = |address: Ipv4Addr| vec![Ipv4Net::from(address)];
    let speaks = |address| [(Guest, speech(GUEST, address))];
    let given = |address| [asks(REQUEST), answers(ACK, address)];
    let frames = [speaks(A).to_vec(), given(A).to_vec()];
    for first in frames {
        let mut learner = learner(from_anything());
        feed(&mut learner, &first);
        assert_eq!(learner.check(host_has(A)), Some(AddressChange::Forgotten(A)));
        assert_eq!((learner.lease(), learner.had_address()), (None, false));
        assert_eq!(learner.frames(), FrameSet::All);
        // From now on the learner treats the address as the host's.
        assert_eq!(feed(&mut learner, &speaks(A)), []);
        assert_eq!(feed(&mut learner, &given(A)), []);
        assert_eq!(feed(&mut learner, &speaks(B)), [AddressChange::Learned(by_traffic(B))]);
        assert_eq!(learner.check(host_has(A)), None);
        assert_eq!((learner.lease(), learner.had_address()), (Some(by_traffic(B)), true));
        // After a checked address, only DHCP replaces an address that the host has now.
        assert_eq!(learner.check(host_has(B)), Some(AddressChange::Forgotten(B)));
        assert!(learner.had_address());
        assert_eq!(feed(&mut learner, &speaks(A)), []);
        assert_eq!(feed(&mut learner, &given(A)), [AddressChange::Learned(by_dhcp(A))]);
    }
    // The check also drops an offer of the host's address.
    let mut learner = learner(dhcp_only());
    feed(&mut learner, &[asks(DISCOVER), answers(OFFER, A)]);
    assert_eq!(learner.check(host_has(A)), None);
    assert_eq!(learner.offered(), None);
}

#[test]
fn forbidden_addresses_are_never_learned() {
    let allowed =
        ["10.5.0.2", "10.5.1.0", "192.0.2.6", "198.51.100.3", "223.255.255.254", "1.0.0.0"];
    for (addresses, learned) in [(&FORBIDDEN[..], false), (&allowed[..], true)] {
        for address in addresses.iter().map(|text| text.parse::<Ipv4Addr>().unwrap()) {
            for frames in [
                vec![asks(REQUEST), answers(ACK, address)],
                vec![(Guest, arp(GUEST, GUEST, address, 1))],
                vec![(Guest, speech(GUEST, address))],
            ] {
                let mut learner = Learner::new(from_anything(), guest(), hosts());
                assert_eq!(feed(&mut learner, &frames).len(), usize::from(learned), "{address}");
            }
            let mut learner = Learner::new(from_anything(), guest(), hosts());
            feed(&mut learner, &[asks(DISCOVER), answers(OFFER, address)]);
            assert_eq!(learner.offered().is_some(), learned, "{address}");
            let resumed = learner.resumed(Some(by_dhcp(address)), NOW);
            assert_eq!(resumed.lease().is_some(), learned, "{address}");
        }
    }
}
