//! Frames of neighbor discovery and DHCPv6, byte by byte.

use std::net::Ipv6Addr;

use super::dhcp_frame::{ethernet, udp};

/// ICMPv6 types.
pub const SOLICITATION: u8 = 135;
pub const ADVERTISEMENT: u8 = 136;

/// DHCPv6 message types (RFC 8415, 7.3).
pub const SOLICIT: u8 = 1;
pub const REQUEST6: u8 = 3;
pub const RENEW: u8 = 5;
pub const REPLY: u8 = 7;
pub const RELEASE6: u8 = 8;
pub const DECLINE6: u8 = 9;

pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// An ICMPv6 message with everything around it.
#[derive(Debug, Clone)]
pub struct NdFrame {
    pub mac_to: [u8; 6],
    pub mac_from: [u8; 6],
    pub from: Ipv6Addr,
    pub to: Ipv6Addr,
    pub hop_limit: u8,
    /// The extension headers, whose first one has this number.
    pub extensions: (u8, Vec<u8>),
    /// The message, with a checksum of zero.
    pub message: Vec<u8>,
    /// Whether the checksum is right.
    pub is_sound: bool,
}

/// The Ethernet group of a multicast address.
pub fn group(to: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = to.octets();
    [0x33, 0x33, a, b, c, d]
}

pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c].into()
}

/// The option with a hardware address: 1 is the source's, 2 the target's.
pub fn link_option(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 1], &mac[..]].concat()
}

impl NdFrame {
    fn new(mac_from: [u8; 6], from: Ipv6Addr, to: Ipv6Addr, message: Vec<u8>) -> Self {
        NdFrame {
            mac_to: group(to),
            mac_from,
            from,
            to,
            hop_limit: 255,
            extensions: (58, Vec::new()),
            message,
            is_sound: true,
        }
    }

    fn about(kind: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), options].concat()
    }

    /// The test of an address: from `::` to the hosts that may have it.
    pub fn test(mac: [u8; 6], target: Ipv6Addr) -> Self {
        let message = Self::about(SOLICITATION, target, &[]);
        NdFrame::new(mac, Ipv6Addr::UNSPECIFIED, solicited_node(target), message)
    }

    pub fn solicit(mac: [u8; 6], from: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Self {
        let message = Self::about(SOLICITATION, target, options);
        NdFrame::new(mac, from, solicited_node(target), message)
    }

    /// An advertisement to all.
    pub fn advertise(mac: [u8; 6], from: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Self {
        let mut message = Self::about(ADVERTISEMENT, target, options);
        message[4] = 0x20;
        NdFrame::new(mac, from, ALL_NODES, message)
    }

    pub fn ask_routers(mac: [u8; 6], from: Ipv6Addr, options: &[u8]) -> Self {
        let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
        NdFrame::new(mac, from, to, [&[133, 0, 0, 0, 0, 0, 0, 0], options].concat())
    }

    /// A router advertisement of a prefix of 64 bits with its valid lifetime.
    pub fn router(mac: [u8; 6], from: Ipv6Addr, prefix: Ipv6Addr, valid: u32) -> Self {
        let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        message.extend([3, 4, 64, 0xc0]);
        message.extend(valid.to_be_bytes());
        message.extend(valid.to_be_bytes());
        message.extend([0; 4]);
        message.extend(prefix.octets());
        NdFrame::new(mac, from, ALL_NODES, message)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut message = self.message.clone();
        if self.is_sound {
            let sum = checksum(self.from, self.to, &message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        let body = [self.extensions.1.as_slice(), &message].concat();
        let packet = ipv6(self.from, self.to, self.extensions.0, self.hop_limit, &body);
        ethernet(self.mac_to, self.mac_from, 0x86dd, &packet)
    }
}

pub fn ipv6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, hop_limit: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    let head = [0x60, 0, 0, 0, length[0], length[1], protocol, hop_limit];
    [&head[..], &from.octets(), &to.octets(), body].concat()
}

fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let pseudo =
        [&from.octets()[..], &to.octets(), &(message.len() as u32).to_be_bytes(), &[0, 0, 0, 58]]
            .concat();
    let all = [pseudo.as_slice(), message].concat();
    let mut sum: u32 = all
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A DHCPv6 message with everything around it.
#[derive(Debug, Clone)]
pub struct Dhcp6Frame {
    pub mac_to: [u8; 6],
    pub mac_from: [u8; 6],
    pub from: Ipv6Addr,
    pub to: Ipv6Addr,
    pub ports: (u16, u16),
    pub message: u8,
    pub transaction: u32,
    pub options: Vec<u8>,
}

/// The identifier of the guest as a client.
pub const DUID: [u8; 10] = [0, 3, 0, 1, 0x52, 0x54, 0, 0x11, 0x22, 0x33];

/// A DHCPv6 option.
pub fn option6(code: u16, value: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
}

/// An IA_NA (3) or IA_TA (4) with these options.
pub fn association(code: u16, options: &[u8]) -> Vec<u8> {
    let fixed = if code == 3 { 12 } else { 4 };
    option6(code, &[&vec![0; fixed][..], options].concat())
}

/// An address in an association.
pub fn given(address: Ipv6Addr, valid: u32, options: &[u8]) -> Vec<u8> {
    let lifetimes = [valid, valid].map(u32::to_be_bytes).concat();
    option6(5, &[&address.octets()[..], &lifetimes, options].concat())
}

/// A status code without a text.
pub fn status(code: u16) -> Vec<u8> {
    option6(13, &code.to_be_bytes())
}

impl Dhcp6Frame {
    /// A message of the guest with this address.
    pub fn asks(message: u8, mac: [u8; 6], from: Ipv6Addr) -> Self {
        Dhcp6Frame {
            mac_to: group(ALL_SERVERS),
            mac_from: mac,
            from,
            to: ALL_SERVERS,
            ports: (546, 547),
            message,
            transaction: 0x12_3456,
            options: option6(1, &DUID),
        }
    }

    /// The reply to that message, with more options.
    pub fn replies(&self, mac: [u8; 6], from: Ipv6Addr, options: &[u8]) -> Self {
        Dhcp6Frame {
            mac_to: self.mac_from,
            mac_from: mac,
            from,
            to: self.from,
            ports: (547, 546),
            message: REPLY,
            options: [self.options.as_slice(), options].concat(),
            ..*self
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let [_, a, b, c] = self.transaction.to_be_bytes();
        let message = [&[self.message, a, b, c], self.options.as_slice()].concat();
        let packet = ipv6(self.from, self.to, 17, 64, &udp(self.ports.0, self.ports.1, &message));
        ethernet(self.mac_to, self.mac_from, 0x86dd, &packet)
    }
}
