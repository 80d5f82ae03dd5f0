//! Makes the rules of a port whose guest has no known address: they pass only the frames that a
//! guest needs to get an address.
//!
//! | | from the guest, with its MAC address | to the guest's MAC address or to all |
//! |---|---|---|
//! | always | DHCP to servers from 0.0.0.0 | DHCP from servers, or from those that are named |
//! | [`Method::by_traffic`] | ARP probes | ARP |
//! | IPv6 | from `::`: address tests, MLD reports, router solicitations | ND and MLD messages |
//!
//! The row IPv6 applies if the guest's IPv6 addresses are learned and none is known. Its messages
//! to the guest are neighbor and router advertisements and solicitations (ND), and MLD queries. If
//! the filter uses both `$IP` and `$IPV6`, each version of IP waits for its own address: the rules
//! for one version come before those of the filter ([`Pending`]).
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
//! that is not DHCP. A guest that already has an IPv6 address cannot defend it against the test of
//! another guest, either. The rules must not pass such a neighbor advertisement: Linux sends it to
//! all nodes with the flag Override, so a hostile guest without a known address could redirect the
//! packets for any address.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Method;
use super::packet::{CLIENT_PORT, SERVER_PORT, UDP};
use super::packet6::{ADVERTISEMENT, ICMPV6, ROUTER_ADVERTISEMENT, SOLICITATION};
use crate::firewall::rules::Version;
use crate::firewall::rules::port::{
    Address, Addresses, FrameKind, Hardware, Number, Origin, Path, PortRule, PortRules,
    PortVerdict, Step, Test,
};
use crate::types::Mac;

/// The [`Origin::filter`] of these rules: the variable that selects them.
const ORIGIN: &str = "CTRL_IP_LEARNING";

/// Frames that rules accept, with their tests.
type Accepted = Vec<(FrameKind, Vec<Test>)>;

/// The addresses that are not known yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pending {
    /// How the IPv4 address is learned, if it is unknown.
    pub v4: Option<Method>,
    /// Whether all IPv6 addresses are unknown.
    pub v6: bool,
}

impl Pending {
    /// Returns the rules for a port whose guest has this MAC address. The rules decide about the
    /// versions of IP whose addresses are unknown. `filter` are the rules of the filter for the
    /// other frames; with `None`, these do not pass.
    pub fn rules(&self, guest: Mac, filter: Option<&PortRules>) -> PortRules {
        let guest = guest.octets();
        let (mut out, mut back) =
            self.v4.as_ref().map(|method| frames4(method, guest)).unwrap_or_default();
        let mut kinds = Vec::new();
        if self.v4.is_some() {
            kinds.extend([FrameKind::Ip(Version::V4, None), FrameKind::Arp]);
        }
        if self.v6 {
            let (out6, back6) = frames6(guest);
            out.extend(out6);
            back.extend(back6);
            kinds.push(FrameKind::Ip(Version::V6, None));
        }
        let Some(filter) = filter else {
            return PortRules { from_guest: only(out), to_guest: only(back) };
        };
        PortRules {
            from_guest: self.before(out, &kinds, &filter.from_guest),
            to_guest: self.before(back, &kinds, &filter.to_guest),
        }
    }

    /// Makes a path that passes only these frames of these kinds, and treats others as `filter`.
    fn before(&self, frames: Accepted, kinds: &[FrameKind], filter: &Path) -> Path {
        let drops = kinds.iter().map(|kind| (*kind, Vec::new(), PortVerdict::Drop));
        let accepted = frames.into_iter().map(|(kind, tests)| (kind, tests, PortVerdict::Accept));
        let mut path = filter.clone();
        path.frames = steps(accepted.chain(drops)).chain(filter.frames.iter().cloned()).collect();
        path.packets.retain(|rule| {
            let is_pending = (self.v4.is_some() && rule.is_of(Version::V4))
                || (self.v6 && rule.is_of(Version::V6));
            !is_pending
        });
        path
    }
}

/// Returns the rules for a port whose guest has this MAC address, if only its IPv4 address is
/// needed.
pub fn learning_rules(method: &Method, guest: Mac) -> PortRules {
    Pending { v4: Some(method.clone()), v6: false }.rules(guest, None)
}

/// Returns the frames that a guest without an IPv4 address sends and gets.
fn frames4(method: &Method, guest: [u8; 6]) -> (Accepted, Accepted) {
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
    (out, back)
}

/// Returns the frames that a guest without an IPv6 address sends and gets.
fn frames6(guest: [u8; 6]) -> (Accepted, Accepted) {
    const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let solicited_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0);
    let link = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0);
    let kind = FrameKind::Ip(Version::V6, None);
    let icmp = |first: u8, last: u8| {
        let types = Test::Icmp { types: (first, last), codes: None, negated: false };
        vec![Test::is(Number::Protocol, ICMPV6.into()), types]
    };
    let net = |field, address: Ipv6Addr, length| {
        // The lengths below are at most 128, so the subnet is valid.
        let addresses = Addresses::Net(Ipv6Net::new(address, length).unwrap_or_default().into());
        Test::Address { field, addresses, negated: false }
    };
    let own = [hardware(Hardware::Source, guest), net(Address::Source, Ipv6Addr::UNSPECIFIED, 128)];
    let sends = |messages: Vec<Test>, to, length| {
        (kind, [messages, own.to_vec(), vec![net(Address::Destination, to, length)]].concat())
    };
    let out = vec![
        sends(icmp(SOLICITATION, SOLICITATION), solicited_nodes, 104),
        sends(icmp(133, 133), ALL_ROUTERS, 128),
        sends(icmp(131, 132), link, 16),
        sends(icmp(143, 143), link, 16),
    ];
    let group = Test::Hardware {
        field: Hardware::Destination,
        address: [0x33, 0x33, 0, 0, 0, 0],
        mask: [0xff, 0xff, 0, 0, 0, 0],
        negated: false,
    };
    let receivers = [hardware(Hardware::Destination, guest), group];
    let gets = |(first, last)| {
        let gets = move |receiver| (kind, [icmp(first, last), vec![receiver]].concat());
        receivers.clone().map(gets)
    };
    let back = [(ROUTER_ADVERTISEMENT, ADVERTISEMENT), (130, 130)].into_iter().flat_map(gets);
    (out, back.collect())
}

/// IPv4. The tests of [`ports`] restrict it to UDP.
const DHCP: FrameKind = FrameKind::Ip(Version::V4, None);

/// Makes a path that passes only these frames.
fn only(frames: Accepted) -> Path {
    let accepted = frames.into_iter().map(|(kind, tests)| (kind, tests, PortVerdict::Accept));
    let rest = (FrameKind::Any, Vec::new(), PortVerdict::Drop);
    Path { frames: steps(accepted.chain([rest])).collect(), ..Path::default() }
}

/// Makes the steps of the root chain, numbered from line 1.
fn steps(
    rules: impl Iterator<Item = (FrameKind, Vec<Test>, PortVerdict)>,
) -> impl Iterator<Item = Step> {
    (1..).zip(rules).map(|(line, (kind, tests, verdict))| {
        let origin = Origin { filter: ORIGIN.to_owned(), line };
        Step::Rule(PortRule { kind, tests, verdict, comment: None, origin })
    })
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
