//! What is believed.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlaunch::learn::Direction::{FromGuest, ToGuest};
use netlaunch::learn::{Change, Interest, Learner, Method};

use crate::common::dhcp_frame::{
    ACK, DECLINE, DISCOVER, DhcpFrame, EVERYONE, GUEST, INFORM, NAK, OFFER, OTHER, RELEASE,
    REQUEST, SERVER, arp, speech,
};
use crate::{
    A, B, FORBIDDEN, HOST, NOW, answers, asks, by_dhcp, by_traffic, dhcp_only, from_anything,
    guest, hosts, learner, lesson,
};

#[test]
fn dhcp_teaches_by_acknowledgements() {
    let relay = Ipv4Addr::new(10, 5, 0, 30);
    for method in [
        dhcp_only(),
        from_anything(),
        Method::dhcp(vec![relay, SERVER]),
        Method::any(vec![relay, SERVER]),
    ] {
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
        ("the server's address", Some(REQUEST), DhcpFrame::answers(ACK, SERVER)),
    ] {
        let mut frames: Vec<_> = request.map(asks).into_iter().collect();
        frames.push((ToGuest, answer.bytes()));
        for method in [Method::dhcp(vec![SERVER]), Method::any(vec![SERVER])] {
            assert_eq!(lesson(&mut learner(method), &frames), [], "{what}");
        }
        // The guest itself says such things to the network.
        let mut learner = learner(from_anything());
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
        let mut learner = learner(from_anything());
        lesson(&mut learner, &[asks(REQUEST), answers(ACK, A)]);
        let expected: &[Change] = if forgets { &[Change::Forgotten(A)] } else { &[] };
        assert_eq!(lesson(&mut learner, &[(FromGuest, frame.bytes())]), expected, "{frame:?}");
        // The guest cannot speak itself another one then.
        assert_eq!(lesson(&mut learner, &[(FromGuest, speech(GUEST, B))]), []);
        assert_eq!(learner.check(Vec::new()), None);
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
        let mut learner = learner(from_anything());
        assert_eq!(learner.interest(), Interest::All);
        assert_eq!(lesson(&mut learner, &[(ToGuest, first.clone())]), []);
        let said = lesson(&mut learner, &[(FromGuest, first)]);
        assert_eq!(said, [Change::Learnt(by_traffic(A))]);
        let others = [(FromGuest, speech(GUEST, B)), (FromGuest, arp(GUEST, GUEST, B, 1))];
        assert_eq!(lesson(&mut learner, &others), []);
        assert_eq!(learner.interest(), Interest::All);
        assert_eq!(learner.check(Vec::new()), None);
        assert_eq!(learner.interest(), Interest::Dhcp);
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
        assert_eq!(lesson(&mut learner(from_anything()), &[(FromGuest, spoofed)]), []);
    }
}

#[test]
fn an_address_that_is_the_hosts_when_it_is_checked_was_never_learnt() {
    let host_has = |address: Ipv4Addr| vec![Ipv4Net::from(address)];
    let speaks = |address| [(FromGuest, speech(GUEST, address))];
    let given = |address| [asks(REQUEST), answers(ACK, address)];
    let frames = [speaks(A).to_vec(), given(A).to_vec()];
    for first in frames {
        let mut learner = learner(from_anything());
        lesson(&mut learner, &first);
        assert_eq!(learner.check(host_has(A)), Some(Change::Forgotten(A)));
        assert_eq!((learner.lease(), learner.is_taught()), (None, false));
        assert_eq!(learner.interest(), Interest::All);
        // It is the host's from now on.
        assert_eq!(lesson(&mut learner, &speaks(A)), []);
        assert_eq!(lesson(&mut learner, &given(A)), []);
        assert_eq!(lesson(&mut learner, &speaks(B)), [Change::Learnt(by_traffic(B))]);
        assert_eq!(learner.check(host_has(A)), None);
        assert_eq!((learner.lease(), learner.is_taught()), (Some(by_traffic(B)), true));
        // Once something was known, only DHCP teaches in place of what is the host's.
        assert_eq!(learner.check(host_has(B)), Some(Change::Forgotten(B)));
        assert!(learner.is_taught());
        assert_eq!(lesson(&mut learner, &speaks(A)), []);
        assert_eq!(lesson(&mut learner, &given(A)), [Change::Learnt(by_dhcp(A))]);
    }
    // Nor is one offered.
    let mut learner = learner(dhcp_only());
    lesson(&mut learner, &[asks(DISCOVER), answers(OFFER, A)]);
    assert_eq!(learner.check(host_has(A)), None);
    assert_eq!(learner.offered(), None);
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
                let mut learner = Learner::new(from_anything(), guest(), hosts());
                assert_eq!(lesson(&mut learner, &frames).len(), usize::from(learnt), "{address}");
            }
            let mut learner = Learner::new(from_anything(), guest(), hosts());
            lesson(&mut learner, &[asks(DISCOVER), answers(OFFER, address)]);
            assert_eq!(learner.offered().is_some(), learnt, "{address}");
            let resumed = learner.resumed(Some(by_dhcp(address)), NOW);
            assert_eq!(resumed.lease().is_some(), learnt, "{address}");
        }
    }
}
