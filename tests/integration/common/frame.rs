//! Frames made by hand, and whose addresses they have. Each carries a number, by which it is known
//! again whatever way it took.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The guest behind vnet0.
pub const VM: Host = Host {
    mac: [0x52, 0x54, 0, 0x11, 0x22, 0x33],
    v4: Ipv4Addr::new(10, 2, 3, 4),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 4),
};
/// The guest behind vnet1.
pub const OTHER: Host = Host {
    mac: [0x52, 0x54, 0, 0x11, 0x22, 0x44],
    v4: Ipv4Addr::new(10, 2, 3, 5),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5),
};
/// The host behind peer0.
pub const PEER: Host = Host {
    mac: [0x52, 0x54, 0, 0xaa, 0xbb, 0xcc],
    v4: Ipv4Addr::new(10, 2, 3, 9),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9),
};
/// The host's own end of the bridge.
pub const BRIDGE: Host = Host {
    mac: [0x52, 0x54, 0, 0, 0, 0xfe],
    v4: Ipv4Addr::new(10, 2, 3, 254),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe),
};

/// IPv6's fragment header, as a protocol.
const FRAGMENT: u8 = 44;

/// A host with its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    pub mac: [u8; 6],
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

/// An address in six pairs of digits.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A frame in the making.
#[derive(Debug, Clone)]
pub struct Frame {
    pub source: [u8; 6],
    pub destination: [u8; 6],
    ether_type: [u8; 2],
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    /// Bytes as they are; the number stands behind them.
    Plain(Vec<u8>),
    /// A packet; the number is its payload's end.
    Packet { source: Host, destination: Host, v6: bool, protocol: u8, head: Vec<u8> },
}

impl Frame {
    fn packet(from: Host, to: Host, v6: bool, protocol: u8, head: Vec<u8>) -> Self {
        Frame {
            source: from.mac,
            destination: to.mac,
            ether_type: if v6 { [0x86, 0xdd] } else { [0x08, 0x00] },
            body: Body::Packet { source: from, destination: to, v6, protocol, head },
        }
    }

    /// A datagram (RFC 768).
    pub fn udp(from: Host, to: Host, source: u16, destination: u16) -> Self {
        let head = [source, destination, 0, 0].map(u16::to_be_bytes).concat();
        Frame::packet(from, to, false, 17, head)
    }

    /// The same over IPv6.
    pub fn udp6(from: Host, to: Host, source: u16, destination: u16) -> Self {
        let head = [source, destination, 0, 0].map(u16::to_be_bytes).concat();
        Frame::packet(from, to, true, 17, head)
    }

    /// A fragment of a datagram over IPv6 (RFC 8200, 4.5): its begin, which has the ports, or its
    /// last part.
    pub fn fragment6(from: Host, to: Host, is_first: bool) -> Self {
        let offset: u16 = if is_first { 1 } else { 1280 };
        let head = [[17, 0], offset.to_be_bytes(), [0, 0], [0, 7]].concat();
        let ports = [1000u16, 53, 1300, 0].map(u16::to_be_bytes).concat();
        let frame = Frame::packet(from, to, true, FRAGMENT, [head, ports].concat());
        if is_first { frame.padded() } else { frame }
    }

    /// With a payload whose length, the number's included, is a multiple of eight bytes.
    fn padded(mut self) -> Self {
        if let Body::Packet { head, .. } = &mut self.body {
            head.extend([0; 5]);
        }
        self
    }

    /// A segment with these flags (RFC 9293).
    pub fn tcp(from: Host, to: Host, source: u16, destination: u16, flags: u8) -> Self {
        let ports = [source, destination].map(u16::to_be_bytes).concat();
        let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0];
        Frame::packet(from, to, false, 6, [ports.as_slice(), &rest].concat())
    }

    /// An ICMP message of this type (RFC 792).
    pub fn icmp(from: Host, to: Host, kind: u8) -> Self {
        Frame::packet(from, to, false, 1, vec![kind, 0, 0, 0, 0, 7, 0, 1])
    }

    /// ARP or RARP for IPv4 (RFC 826, 903).
    pub fn arp(sender: Host, target: Host, operation: u16) -> Self {
        let numbers = [1, 0x0800, 0x0604, operation].map(u16::to_be_bytes).concat();
        let parties =
            [sender.mac.as_slice(), &sender.v4.octets(), &target.mac, &target.v4.octets()];
        Frame {
            source: sender.mac,
            destination: [0xff; 6],
            ether_type: [0x08, 0x06],
            body: Body::Plain([numbers, parties.concat()].concat()),
        }
    }

    /// RARP about addresses of this protocol.
    pub fn rarp(sender: Host, protocol: u16) -> Self {
        let mut frame = Frame::arp(sender, sender, 3);
        frame.ether_type = [0x80, 0x35];
        if let Body::Plain(bytes) = &mut frame.body {
            bytes[2..4].copy_from_slice(&protocol.to_be_bytes());
        }
        frame
    }

    /// A bridge's configuration message (IEEE 802.1D, 9.3.1) whose flags and both bytes of the
    /// root's priority are this. The kernel's ebtables reads each field one byte too early
    /// (ebt_stp.c takes the protocol's identifier for one byte, it has two), so that only such a
    /// priority is what it is on both backends.
    pub fn stp(from: Host, byte: u8) -> Self {
        let mut bytes = vec![0x42, 0x42, 0x03, 0, 0, 0, 0];
        bytes.extend([byte; 3]);
        bytes.extend([0; 28]);
        Frame {
            source: from.mac,
            destination: [0x01, 0x80, 0xc2, 0, 0, 0],
            // Of IEEE 802.3: the length, the number's ten bytes included.
            ether_type: (bytes.len() as u16 + 10).to_be_bytes(),
            body: Body::Plain(bytes),
        }
    }

    /// The same frame from another hardware address.
    pub fn sent_by(mut self, mac: [u8; 6]) -> Self {
        self.source = mac;
        self
    }

    /// The frame's bytes, with the number in them.
    pub fn bytes(&self, number: &[u8]) -> Vec<u8> {
        let body = match &self.body {
            Body::Plain(bytes) => [bytes.as_slice(), number].concat(),
            Body::Packet { source, destination, v6, protocol, head } => {
                let payload = [head.as_slice(), number].concat();
                packet(*source, *destination, *v6, *protocol, payload)
            }
        };
        let mut frame =
            [self.destination.as_slice(), &self.source, &self.ether_type, &body].concat();
        frame.resize(frame.len().max(60), 0);
        frame
    }
}

/// An IP packet; the payload's length and checksum fields are filled in.
fn packet(from: Host, to: Host, v6: bool, protocol: u8, mut payload: Vec<u8>) -> Vec<u8> {
    let length = payload.len() as u16;
    let ends: Vec<u8> = if v6 {
        [from.v6.octets(), to.v6.octets()].concat()
    } else {
        [from.v4.octets(), to.v4.octets()].concat()
    };
    let pseudo = [ends.as_slice(), &length.to_be_bytes(), &[0, protocol]].concat();
    let (at, covered) = match protocol {
        17 => {
            payload[4..6].copy_from_slice(&length.to_be_bytes());
            (6, pseudo)
        }
        6 => (16, pseudo),
        _ => (2, Vec::new()),
    };
    if protocol != FRAGMENT {
        let sum = checksum(&[covered, payload.clone()].concat());
        payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let mut head = if v6 {
        let [high, low] = length.to_be_bytes();
        vec![0x60, 0, 0, 0, high, low, protocol, 64]
    } else {
        let [high, low] = (length + 20).to_be_bytes();
        vec![0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0]
    };
    head.extend(&ends);
    if !v6 {
        let sum = checksum(&head);
        head[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    [head, payload].concat()
}

/// The internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
