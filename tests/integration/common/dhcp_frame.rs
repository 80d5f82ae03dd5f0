//! Frames that a learner of addresses is to read, byte by byte.

use std::net::Ipv4Addr;

/// DHCP's message types (RFC 2132 section 9.6).
pub const DISCOVER: u8 = 1;
pub const OFFER: u8 = 2;
pub const REQUEST: u8 = 3;
pub const DECLINE: u8 = 4;
pub const ACK: u8 = 5;
pub const NAK: u8 = 6;
pub const RELEASE: u8 = 7;
pub const INFORM: u8 = 8;

pub const GUEST: [u8; 6] = [0x52, 0x54, 0, 0x11, 0x22, 0x33];
pub const OTHER: [u8; 6] = [0x52, 0x54, 0, 0x44, 0x55, 0x66];
pub const EVERYONE: [u8; 6] = [0xff; 6];
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 1);

/// An Ethernet frame around a payload.
pub fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from[..], &kind.to_be_bytes(), payload].concat()
}

/// An IPv4 packet with the right header checksum.
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(20 + body.len() as u16).to_be_bytes());
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    set_checksum(&mut header);
    [&header, body].concat()
}

/// Writes the header's checksum.
pub fn set_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let mut sum: u32 =
        header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// A UDP datagram without a checksum.
pub fn udp(source: u16, destination: u16, body: &[u8]) -> Vec<u8> {
    let length = 8 + body.len() as u16;
    let fields = [source, destination, length, 0].map(u16::to_be_bytes);
    [fields.as_flattened(), body].concat()
}

/// An IPv4 packet of the guest in a frame.
pub fn speech(frame_from: [u8; 6], from: Ipv4Addr) -> Vec<u8> {
    let packet = ipv4(from, Ipv4Addr::new(192, 0, 2, 9), 17, &udp(1000, 2000, b"hello"));
    ethernet(OTHER, frame_from, 0x0800, &packet)
}

/// An ARP frame. The frame and the ARP message may name different senders.
pub fn arp(frame_from: [u8; 6], sender_mac: [u8; 6], sender: Ipv4Addr, operation: u16) -> Vec<u8> {
    let target = [10, 5, 0, 1];
    let body = [
        &[0, 1, 8, 0, 6, 4][..],
        &operation.to_be_bytes(),
        &sender_mac,
        &sender.octets(),
        &[0; 6],
        &target,
    ];
    ethernet(EVERYONE, frame_from, 0x0806, &body.concat())
}

/// A DHCP message with everything around it.
#[derive(Debug, Clone)]
pub struct DhcpFrame {
    pub to: [u8; 6],
    pub from: [u8; 6],
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub ports: (u16, u16),
    pub op: u8,
    pub transaction: u32,
    pub ciaddr: Ipv4Addr,
    pub yiaddr: Ipv4Addr,
    pub chaddr: [u8; 6],
    pub sname: Vec<u8>,
    pub file: Vec<u8>,
    /// Behind the cookie, with the end.
    pub options: Vec<u8>,
}

impl DhcpFrame {
    /// Returns a message of the guest.
    pub fn asks(message: u8) -> Self {
        DhcpFrame {
            to: EVERYONE,
            from: GUEST,
            source: Ipv4Addr::UNSPECIFIED,
            destination: Ipv4Addr::BROADCAST,
            ports: (68, 67),
            op: 1,
            transaction: 7,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            chaddr: GUEST,
            sname: Vec::new(),
            file: Vec::new(),
            options: vec![53, 1, message, 255],
        }
    }

    /// Returns a message of the server.
    pub fn answers(message: u8, yiaddr: Ipv4Addr) -> Self {
        DhcpFrame {
            to: GUEST,
            from: OTHER,
            source: SERVER,
            destination: yiaddr,
            ports: (67, 68),
            op: 2,
            yiaddr,
            options: vec![53, 1, message, 54, 4, 10, 5, 0, 1, 51, 4, 0, 0, 0x0e, 0x10, 255],
            ..DhcpFrame::asks(message)
        }
    }

    /// With these options instead, and the end.
    pub fn options(mut self, options: &[&[u8]]) -> Self {
        self.options = [&options.concat()[..], &[255]].concat();
        self
    }

    /// The BOOTP message.
    pub fn message(&self) -> Vec<u8> {
        let mut message = vec![0u8; 236];
        message[0] = self.op;
        message[1] = 1;
        message[2] = 6;
        message[4..8].copy_from_slice(&self.transaction.to_be_bytes());
        message[12..16].copy_from_slice(&self.ciaddr.octets());
        message[16..20].copy_from_slice(&self.yiaddr.octets());
        message[28..34].copy_from_slice(&self.chaddr);
        message[44..44 + self.sname.len()].copy_from_slice(&self.sname);
        message[108..108 + self.file.len()].copy_from_slice(&self.file);
        message.extend([99, 130, 83, 99]);
        message.extend(&self.options);
        message
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        let datagram = udp(self.ports.0, self.ports.1, &self.message());
        let packet = ipv4(self.source, self.destination, 17, &datagram);
        ethernet(self.to, self.from, 0x0800, &packet)
    }
}
