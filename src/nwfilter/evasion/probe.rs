//! Makes the frames of a guest that forges addresses: forged packets, plain and in encapsulations.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A guest, whose packets are made here.
pub(super) struct Probe {
    mac: [u8; 6],
    address: Ipv4Addr,
    address_v6: Ipv6Addr,
}

/// A packet, and the frame's addresses and EtherType.
pub(super) struct Inner {
    to: [u8; 6],
    from: [u8; 6],
    ether_type: u16,
    body: Vec<u8>,
}

/// A form of frames from which a host extracts a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encapsulation {
    /// A VLAN tag: of VLAN 0 (IEEE 802.1Q, 6.9), which hosts remove, or of a VLAN that the rules
    /// name.
    Vlan,
    /// Two tags (IEEE 802.1ad).
    QinQ,
    /// An IEEE 802.3 frame with SNAP (RFC 1042).
    Snap,
    /// MPLS (RFC 3032).
    Mpls,
    /// A PPPoE session (RFC 2516).
    Pppoe,
}

/// A neighbour's addresses (RFC 5737, RFC 3849).
const OTHER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];
const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
const OTHER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x77);
const LINK_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The receiver, which a filter has no reason to name.
const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x78];
const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 78);
const BROADCAST: [u8; 6] = [0xff; 6];

const UDP: u8 = 17;
const ICMPV6: u8 = 58;

impl Probe {
    pub(super) fn new(mac: [u8; 6], address: Option<Ipv4Addr>) -> Self {
        let address = address.unwrap_or(Ipv4Addr::new(192, 0, 2, 1));
        Probe { mac, address, address_v6: LINK_V6 }
    }

    /// Returns the guest with another IPv4 address.
    pub(super) fn with_v4(&self, address: Ipv4Addr) -> Self {
        Probe { address, ..*self }
    }

    /// Returns the guest with another IPv6 address.
    pub(super) fn with_v6(&self, address_v6: Ipv6Addr) -> Self {
        Probe { address_v6, ..*self }
    }

    /// Returns frames with addresses other than the guest's; the first has another MAC address.
    pub(super) fn forged(&self) -> Vec<(&'static str, Inner)> {
        let udp = udp(1000, 2000, &[0; 18]);
        let forged_mac = Inner { from: OTHER_MAC, ..self.v4(self.address, PEER, &udp) };
        vec![
            ("forged MAC addresses", forged_mac),
            ("forged IPv4 addresses", self.v4(OTHER, PEER, &udp)),
            ("forged IPv6 addresses", self.v6(OTHER_V6, OTHER_V6, UDP, &udp)),
            ("forged ARP addresses", self.inner(BROADCAST, 0x0806, arp(self.mac, OTHER))),
            (
                "forged ARP MAC addresses",
                self.inner(BROADCAST, 0x0806, arp(OTHER_MAC, self.address)),
            ),
        ]
    }

    /// Returns packets of a server to clients, from the guest's own addresses.
    pub(super) fn served(&self) -> Vec<(&'static str, Inner)> {
        let answer = udp(67, 68, &dhcp(2, PEER_MAC));
        let answer_v6 = udp(547, 546, &[7, 0, 0, 1]);
        let advertisement = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        vec![
            ("a DHCP server", self.v4(self.address, Ipv4Addr::BROADCAST, &answer)),
            ("a DHCPv6 server", self.v6(self.address_v6, LINK_V6, UDP, &answer_v6)),
            ("an IPv6 router", self.v6(self.address_v6, ALL_NODES, ICMPV6, &advertisement)),
        ]
    }

    /// Returns a DHCP request in the name of another client (RFC 2131, 4.1).
    pub(super) fn clients(&self) -> Vec<(&'static str, Inner)> {
        vec![("forged DHCP clients", self.client(OTHER_MAC))]
    }

    fn client(&self, address: [u8; 6]) -> Inner {
        let question = udp(68, 67, &dhcp(1, address));
        self.v4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &question)
    }

    /// Returns the honest frame that corresponds to a forged one.
    pub(super) fn honest(&self, forged: &Inner) -> Inner {
        match (forged.ether_type, forged.to) {
            (0x0806, _) => self.inner(BROADCAST, 0x0806, arp(self.mac, self.address)),
            (0x86dd, _) => self.v6(self.address_v6, OTHER_V6, UDP, &udp(1000, 2000, &[0; 18])),
            (_, BROADCAST) => self.client(self.mac),
            _ => self.v4(self.address, PEER, &udp(1000, 2000, &[0; 18])),
        }
    }

    fn inner(&self, to: [u8; 6], ether_type: u16, body: Vec<u8>) -> Inner {
        Inner { to, from: self.mac, ether_type, body }
    }

    fn v4(&self, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Inner {
        let length = (20 + payload.len()) as u16;
        let mut body = vec![0x45, 0];
        body.extend(length.to_be_bytes());
        // The evaluation does not check the checksum.
        body.extend([0, 1, 0, 0, 64, UDP, 0, 0]);
        body.extend(from.octets());
        body.extend(to.octets());
        body.extend(payload);
        self.inner(if to.is_broadcast() { BROADCAST } else { PEER_MAC }, 0x0800, body)
    }

    fn v6(&self, from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: &[u8]) -> Inner {
        let mut body = vec![0x60, 0, 0, 0];
        body.extend((payload.len() as u16).to_be_bytes());
        body.extend([protocol, 255]);
        body.extend(from.octets());
        body.extend(to.octets());
        body.extend(payload);
        let to = if to.is_multicast() { [0x33, 0x33, 0, 0, 0, 1] } else { PEER_MAC };
        self.inner(to, 0x86dd, body)
    }
}

impl Inner {
    /// Returns the plain frame.
    pub(super) fn plain(&self) -> Vec<u8> {
        self.frame(&self.ether_type.to_be_bytes())
    }

    /// Returns the frame with `header` between the addresses and the packet.
    fn frame(&self, header: &[u8]) -> Vec<u8> {
        [&self.to, self.from.as_slice(), header, &self.body].concat()
    }
}

impl Encapsulation {
    pub(super) const ALL: [Encapsulation; 5] = [
        Encapsulation::Vlan,
        Encapsulation::QinQ,
        Encapsulation::Snap,
        Encapsulation::Mpls,
        Encapsulation::Pppoe,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Encapsulation::Vlan => "a VLAN tag",
            Encapsulation::QinQ => "two VLAN tags (QinQ)",
            Encapsulation::Snap => "802.3 and SNAP",
            Encapsulation::Mpls => "MPLS",
            Encapsulation::Pppoe => "PPPoE",
        }
    }

    /// Returns the frames with a packet in this form; for a VLAN tag, one frame for each of these
    /// VLANs.
    pub(super) fn frames(self, inner: &Inner, vlans: &[u16]) -> Vec<Vec<u8>> {
        let vlans = if self == Encapsulation::Vlan { vlans } else { &[0] };
        vlans.iter().filter_map(|vlan| self.frame(inner, *vlan)).collect()
    }

    /// Returns the frame with a packet in this form; `None` for ARP in MPLS or PPPoE, which cannot
    /// carry it.
    fn frame(self, inner: &Inner, vlan: u16) -> Option<Vec<u8>> {
        let kind = inner.ether_type.to_be_bytes();
        let length = |more: usize| ((inner.body.len() + more) as u16).to_be_bytes();
        let header = match (self, inner.ether_type) {
            (Encapsulation::Vlan, _) => [&[0x81, 0], vlan.to_be_bytes().as_slice(), &kind].concat(),
            (Encapsulation::QinQ, _) => {
                [&[0x88, 0xa8, 0, 0, 0x81, 0, 0, 0], kind.as_slice()].concat()
            }
            (Encapsulation::Snap, _) => {
                [&length(8), [0xaa, 0xaa, 3, 0, 0, 0].as_slice(), &kind].concat()
            }
            (Encapsulation::Mpls | Encapsulation::Pppoe, 0x0806) => return None,
            (Encapsulation::Mpls, _) => vec![0x88, 0x47, 0, 1, 1, 64],
            (Encapsulation::Pppoe, of) => {
                let protocol = if of == 0x0800 { 0x21 } else { 0x57 };
                [&[0x88, 0x64, 0x11, 0, 0, 1], length(2).as_slice(), &[0, protocol]].concat()
            }
        };
        Some(inner.frame(&header))
    }
}

/// Returns an ARP request of this sender (RFC 826).
fn arp(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    [&head, mac.as_slice(), &address.octets(), &[0; 6], &PEER.octets()].concat()
}

fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    [[source, destination, length, 0].map(u16::to_be_bytes).as_flattened(), payload].concat()
}

/// Returns a DHCP message of a client with this address (RFC 2131, 2).
fn dhcp(operation: u8, client: [u8; 6]) -> Vec<u8> {
    let mut message = vec![operation, 1, 6, 0];
    message.resize(28, 0);
    message.extend(client);
    message.resize(236, 0);
    message.extend([99, 130, 83, 99, 53, 1, operation, 255]);
    message
}
