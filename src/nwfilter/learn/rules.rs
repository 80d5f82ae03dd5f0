//! Makes the rules of a port whose guest has no known address: they pass only the frames that a
//! guest needs to get an address.
//!
//! | | from the guest, with its MAC address | to the guest's MAC address or to all |
//! |---|---|---|
//! | always | DHCP to servers from 0.0.0.0 | DHCP from servers, or from those that are named |
//! | [`Method::by_traffic`] | ARP probes | ARP |
//!
//! The rules drop everything else. A client without an address asks for one from 0.0.0.0 (RFC 2131
//! section 4.1), and an ARP probe claims no address (RFC 5227), so these frames deceive no other
//! machine.
//!
//! The rules also drop an ARP packet that claims an address. The learner sees it all the same,
//! because it sees frames before the rules do. The guest sends the packet again, usually after a
//! second, and then it passes the final rules, which hold the address. So no frame that claims an
//! address leaves the port before the final rules check it.
//!
//! The cost: a guest that already has an address, because it ran before its port was bound, renews
//! its lease from that address (RFC 2131 section 4.3.2), and no server receives the request. The
//! guest has network again when it asks from 0.0.0.0, at the latest when its lease ends. With
//! [`Method::by_traffic`], it has network again after its next ARP packet or its next IPv4 packet
//! that is not DHCP.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::Method;
use super::packet::{CLIENT_PORT, SERVER_PORT, UDP};
use crate::firewall::rules::Version;
use crate::firewall::rules::port::{
    Address, Addresses, FrameKind, Hardware, Number, Origin, Path, PortRule, PortRules,
    PortVerdict, Step, Test,
};
use crate::types::Mac;

/// The [`Origin::filter`] of these rules: the variable that selects them.
const ORIGIN: &str = "CTRL_IP_LEARNING";

/// Returns the rules for a port whose guest has this MAC address.
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
            back.push((FrameKind::Arp, vec![receiver]));
        }
    }
    if method.by_traffic {
        let sender = hardware(Hardware::ArpSender, guest);
        let probe = is_exactly(Address::ArpSender, Ipv4Addr::UNSPECIFIED);
        out.push((FrameKind::Arp, vec![from_guest, sender, probe]));
    }
    PortRules { from_guest: only(out), to_guest: only(back) }
}

/// IPv4. The tests of [`ports`] restrict it to UDP.
const DHCP: FrameKind = FrameKind::Ip(Version::V4, None);

/// Makes a path that passes only these frames.
fn only(frames: Vec<(FrameKind, Vec<Test>)>) -> Path {
    let accepted = frames.into_iter().map(|(kind, tests)| (kind, tests, PortVerdict::Accept));
    let rest = (FrameKind::Any, Vec::new(), PortVerdict::Drop);
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
    let addresses = Addresses::Net(IpNet::V4(Ipv4Net::from(address)));
    Test::Address { field, addresses, negated: false }
}
