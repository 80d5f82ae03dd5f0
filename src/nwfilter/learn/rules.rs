//! What a port lets through while its guest's address is learnt: what it takes to get an address.
//!
//! | | from the guest, with its MAC address | to the guest's MAC address or to all |
//! |---|---|---|
//! | always | DHCP to servers from 0.0.0.0 | DHCP from servers, or from those that are named |
//! | [`Method::by_traffic`] | ARP probes | ARP |
//!
//! Everything else is dropped. A client without an address asks for one from 0.0.0.0 (RFC 2131
//! section 4.1), and an ARP probe says no address (RFC 5227): they deceive nobody. An ARP packet
//! that says one is dropped like any other packet of the guest: it teaches the learner all the same,
//! which sees it before any rule does, and nobody else before it is checked. The guest sends it
//! again, after a second as a rule, and then it passes the rules that were made with what it said.
//! So nothing leaves that says an address before the final rules can judge it.
//!
//! The price: a guest that has an address already, because it ran before its port was bound, renews
//! it from that address (RFC 2131 section 4.3.2), and no server hears it. It is back when it asks
//! anew from 0.0.0.0, at the latest when its lease is over; with [`Method::by_traffic`], when it sends its
//! next ARP packet, or an IPv4 packet that is not DHCP.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::Method;
use super::packet::{CLIENT_PORT, SERVER_PORT, UDP};
use crate::rules::Version;
use crate::rules::port::{
    Address, Addresses, Hardware, Kind, Number, Origin, Path, PortRule, PortRules, PortVerdict,
    Step, Test,
};
use crate::types::Mac;

/// What [`Origin::filter`] is for these rules: the variable that asks for them.
const ORIGIN: &str = "CTRL_IP_LEARNING";

/// The rules of a port whose guest has this MAC address.
pub fn learning_rules(method: &Method, guest: Mac) -> PortRules {
    let guest = guest.octets();
    let from_guest = hardware(Hardware::Source, guest);
    let without_address = is_exactly(Address::Source, Ipv4Addr::UNSPECIFIED);
    let asks = [ports(CLIENT_PORT, SERVER_PORT), vec![from_guest.clone(), without_address]];
    let mut out = vec![(DHCP, asks.concat())];
    let mut back = Vec::new();
    for receiver in [guest, [0xff; 6]] {
        let receiver = hardware(Hardware::Destination, receiver);
        let answer = [ports(SERVER_PORT, CLIENT_PORT), vec![receiver.clone()]].concat();
        match method.servers.as_slice() {
            [] => back.push((DHCP, answer)),
            servers => {
                let from = |server: &Ipv4Addr| vec![is_exactly(Address::Source, *server)];
                let from_servers = servers.iter().map(from);
                back.extend(from_servers.map(|from| (DHCP, [answer.clone(), from].concat())));
            }
        }
        if method.by_traffic {
            back.push((Kind::Arp, vec![receiver]));
        }
    }
    if method.by_traffic {
        let sender = hardware(Hardware::ArpSender, guest);
        let probe = is_exactly(Address::ArpSender, Ipv4Addr::UNSPECIFIED);
        out.push((Kind::Arp, vec![from_guest, sender, probe]));
    }
    PortRules { from_guest: only(out), to_guest: only(back) }
}

/// IPv4; that it is UDP is a test of the rules' own ([`ports`]).
const DHCP: Kind = Kind::Ip(Version::V4, None);

/// A path that only these frames pass.
fn only(frames: Vec<(Kind, Vec<Test>)>) -> Path {
    let accepted = frames.into_iter().map(|(kind, tests)| (kind, tests, PortVerdict::Accept));
    let rest = (Kind::Any, Vec::new(), PortVerdict::Drop);
    let step = |(line, (kind, tests, verdict))| {
        let origin = Origin { filter: ORIGIN.to_owned(), line };
        Step::Rule(PortRule { kind, tests, verdict, comment: None, origin })
    };
    let frames = (1..).zip(accepted.chain([rest])).map(step).collect();
    Path { frames, ..Path::default() }
}

fn ports(source: u16, destination: u16) -> Vec<Test> {
    vec![
        Test::is(Number::Protocol, UDP.into()),
        Test::is(Number::SourcePort, source.into()),
        Test::is(Number::DestinationPort, destination.into()),
    ]
}

fn hardware(field: Hardware, address: [u8; 6]) -> Test {
    Test::Hardware { field, address, mask: [0xff; 6], negated: false }
}

fn is_exactly(field: Address, address: Ipv4Addr) -> Test {
    let among = Addresses::Net(IpNet::V4(Ipv4Net::from(address)));
    Test::Address { field, among, negated: false }
}
