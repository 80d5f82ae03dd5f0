//! Reads the fields of a raw Ethernet frame as the kernel's filters read them.
//!
//! The module checks only what the kernel's filters check, and a field exists if its bytes exist: a
//! truncated frame has the fields before its end. The parts that determine a field's offset must
//! exist as well, and must be valid:
//!
//! - ARP's addresses follow the lengths that its header names, and have a length and a kind
//!   themselves (as ebtables does; nftables reads them at the places that six and four bytes make).
//! - STP's fields need the header of logical link control and the protocol number of a BPDU.
//! - A VLAN tag hides the fields behind it: a tagged frame is of no other kind.
//! - Ports, flags and types need an IP header whose version and lengths are right, and a packet
//!   that is no later fragment.
//! - IPv6's protocol is behind the extension headers; of AH it is AH. Of a later fragment, the link
//!   layer's rules see the number of the fragment header, 44, and the other rules the protocol that
//!   this header names, unless that is another extension header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::firewall::rules::Version;
use crate::firewall::rules::port::{
    Address, FrameKind, Hardware, LINK_LOCAL, LINK_LOCAL_MASK, NeighborMessage, Number,
};

/// The bytes of an Ethernet header.
const HEADER: usize = 14;
/// The bytes of an ARP header in front of its addresses (RFC 826).
const ARP_HEADER: usize = 8;
/// The destination of frames to the bridge group (IEEE 802.1D, 7.12.3).
const BRIDGE_GROUP: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];
/// The logical link control header of a BPDU, and its protocol number (IEEE 802.1D, 9.3.1).
const BPDU: [u8; 5] = [0x42, 0x42, 0x03, 0, 0];

/// The bytes are not an Ethernet frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} bytes are no Ethernet frame, whose header has 14; give the whole frame, without preamble and checksum"
)]
pub struct TooShort(pub usize);

/// A frame.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    bytes: &'a [u8],
    packet: Option<Packet<'a>>,
}

/// The fields of an IP header that are needed to find the transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The source.
    pub source: IpAddr,
    /// The destination.
    pub destination: IpAddr,
    /// The protocol.
    pub protocol: u8,
    /// The part of the packet that the frame contains.
    pub fragment: Fragment,
    /// The bytes after the headers; for a later fragment, bytes from the middle of the packet.
    pub payload: &'a [u8],
}

/// The part of a packet that a frame contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// The whole packet.
    Whole,
    /// The first fragment of the packet with this number.
    First(u32),
    /// A later fragment of the packet with this number.
    Later(u32),
}

impl<'a> Frame<'a> {
    /// Parses a frame. `length` is its number of bytes before the capture truncated it, at least
    /// the length of `bytes`.
    ///
    /// # Errors
    /// Returns [`TooShort`] if the bytes are not an Ethernet frame.
    pub fn read(bytes: &'a [u8], length: usize) -> Result<Self, TooShort> {
        if bytes.len() < HEADER {
            return Err(TooShort(bytes.len()));
        }
        let mut frame = Frame { bytes, packet: None };
        let behind = length.max(bytes.len()) - HEADER;
        frame.packet = match frame.ether_type() {
            Some(0x0800) => packet_v4(&bytes[HEADER..], behind),
            Some(0x86dd) => packet_v6(&bytes[HEADER..], behind),
            _ => None,
        };
        Ok(frame)
    }

    /// Returns the IP packet in the frame, if its header is valid.
    pub fn packet(&self) -> Option<&Packet<'a>> {
        self.packet.as_ref()
    }

    /// Returns the sender's hardware address.
    pub fn source(&self) -> [u8; 6] {
        self.array(6).unwrap_or_default()
    }

    /// Returns whether a bridge does not forward the frame ([`LINK_LOCAL`]).
    pub fn is_link_local(&self) -> bool {
        let masked = |address: [u8; 6]| -> [u8; 6] {
            std::array::from_fn(|byte| address[byte] & LINK_LOCAL_MASK[byte])
        };
        self.array(0).map(masked) == Some(LINK_LOCAL)
    }

    /// Returns whether the frame is of this kind.
    pub fn is(&self, kind: FrameKind) -> bool {
        match kind {
            FrameKind::Any => true,
            FrameKind::Stp => self.array(0) == Some(BRIDGE_GROUP),
            FrameKind::Ip(_, Some(protocol)) => {
                self.ether_type() == kind.ether_type()
                    && self.packet.is_some_and(|packet| packet.protocol == protocol)
            }
            _ => self.ether_type() == kind.ether_type(),
        }
    }

    /// Returns a hardware address.
    pub fn hardware(&self, field: Hardware) -> Option<[u8; 6]> {
        const ETHERNET: u32 = 1;
        match field {
            Hardware::Destination => self.array(0),
            Hardware::Source => self.array(6),
            Hardware::ArpSender | Hardware::ArpTarget => {
                let (hardware, protocol) = self.arp_lengths()?;
                if self.arp(0) != Some(ETHERNET) || hardware != 6 {
                    return None;
                }
                let sender = HEADER + ARP_HEADER;
                let target = sender + hardware + protocol;
                self.array(if field == Hardware::ArpSender { sender } else { target })
            }
            Hardware::StpRoot => self.bpdu(10),
            Hardware::StpSender => self.bpdu(22),
            Hardware::DhcpClient => {
                let datagram = self.transport()?;
                let is_udp = self.packet.is_some_and(|packet| packet.protocol == UDP);
                let is_ethernet = array(datagram, 9) == Some([1, 6]);
                let is_direct = array(datagram, 32) == Some([0; 4]);
                array(datagram, 36).filter(|_| is_udp && is_ethernet && is_direct)
            }
        }
    }

    /// Returns a number.
    pub fn number(&self, field: Number) -> Option<u32> {
        let byte = |bytes: [u8; 1]| u32::from(bytes[0]);
        let short = |bytes| u32::from(u16::from_be_bytes(bytes));
        let tagged = || self.is(FrameKind::Vlan);
        match field {
            Number::EtherType => self.ether_type().map(u32::from),
            Number::VlanId if tagged() => self.array(14).map(|tag| short(tag) & 0xfff),
            Number::VlanEncapsulated if tagged() => self.array(16).map(short),
            Number::VlanId | Number::VlanEncapsulated => None,
            Number::StpType => self.bpdu(6).map(byte),
            Number::StpFlags => self.bpdu(7).map(byte),
            Number::StpRootPriority => self.bpdu(8).map(short),
            Number::StpRootCost => self.bpdu(16).map(u32::from_be_bytes),
            Number::StpSenderPriority => self.bpdu(20).map(short),
            Number::StpPort => self.bpdu(28).map(short),
            Number::StpAge => self.bpdu(30).map(short),
            Number::StpMaxAge => self.bpdu(32).map(short),
            Number::StpHelloTime => self.bpdu(34).map(short),
            Number::StpForwardDelay => self.bpdu(36).map(short),
            Number::ArpHardware => self.arp(0),
            Number::ArpProtocol => self.arp(2),
            Number::ArpOperation => self.arp(6),
            // The number is in the IPv4 header and is read even if the rest of the header is not
            // valid.
            Number::Protocol if self.is(V4) => self.array(HEADER + 9).map(byte),
            Number::Protocol => self.packet.map(|packet| match packet.fragment {
                Fragment::Later(_) => u32::from(FRAGMENT),
                Fragment::Whole | Fragment::First(_) => u32::from(packet.protocol),
            }),
            Number::Dscp if self.is(V4) => self.array(HEADER + 1).map(|tos| byte(tos) >> 2),
            Number::Dscp if self.is(V6) => self.array(HEADER).map(|word| short(word) >> 6 & 0x3f),
            Number::Dscp => None,
            Number::SourcePort => self.ports().map(|(source, _)| u32::from(source)),
            Number::DestinationPort => self.ports().map(|(_, destination)| u32::from(destination)),
        }
    }

    /// Returns an IP address.
    pub fn address(&self, field: Address) -> Option<IpAddr> {
        let v4 = |offset| self.array(offset).map(|bytes: [u8; 4]| Ipv4Addr::from(bytes).into());
        let v6 = |offset| self.array(offset).map(|bytes: [u8; 16]| Ipv6Addr::from(bytes).into());
        match field {
            Address::Source if self.is(V4) => v4(HEADER + 12),
            Address::Destination if self.is(V4) => v4(HEADER + 16),
            Address::Source if self.is(V6) => v6(HEADER + 8),
            Address::Destination if self.is(V6) => v6(HEADER + 24),
            Address::Source | Address::Destination => None,
            Address::ArpSender | Address::ArpTarget => {
                const IPV4: u32 = 0x0800;
                let (hardware, protocol) = self.arp_lengths()?;
                if self.arp(2) != Some(IPV4) || protocol != 4 {
                    return None;
                }
                let sender = HEADER + ARP_HEADER + hardware;
                let target = sender + protocol + hardware;
                v4(if field == Address::ArpSender { sender } else { target })
            }
        }
    }

    /// Returns the type and code of an ICMP message.
    pub fn icmp(&self) -> Option<(u8, u8)> {
        match (self.transport()?, self.packet?.protocol) {
            ([kind, code, ..], ICMP | ICMPV6) => Some((*kind, *code)),
            _ => None,
        }
    }

    /// Returns whether the frame has a neighbor discovery message of this form.
    pub fn is_neighbor_message(&self, message: &NeighborMessage) -> bool {
        let has = |at: usize, bytes: &[u8]| {
            self.bytes.get(HEADER + at..).is_some_and(|rest| rest.starts_with(bytes))
        };
        let target = || self.array(HEADER + NeighborMessage::TARGET).map(Ipv6Addr::from);
        self.is(V6)
            && has(4, &message.header())
            && message.target.is_none_or(|net| target().is_some_and(|is| net.contains(&is)))
            && message.option().is_none_or(|(at, bytes)| has(at, &bytes))
    }

    /// Returns TCP's flags; FIN is the lowest bit.
    pub fn tcp_flags(&self) -> Option<u8> {
        self.transport()
            .filter(|_| self.packet.is_some_and(|p| p.protocol == TCP))?
            .get(13)
            .copied()
    }

    /// Returns the source and destination port.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.transport()? {
            [a, b, c, d, ..] if has_ports(self.packet?.protocol) => {
                Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
            }
            _ => None,
        }
    }

    /// Returns the transport protocol's header and the bytes after it.
    pub fn transport(&self) -> Option<&'a [u8]> {
        self.packet
            .filter(|packet| !matches!(packet.fragment, Fragment::Later(_)))
            .map(|packet| packet.payload)
    }

    fn ether_type(&self) -> Option<u16> {
        self.array(12).map(u16::from_be_bytes)
    }

    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        array(self.bytes, offset)
    }

    /// Returns a number of 16 bits of the ARP or RARP header, which must be complete.
    fn arp(&self, offset: usize) -> Option<u32> {
        self.arp_lengths()?;
        self.array(HEADER + offset).map(|bytes| u32::from(u16::from_be_bytes(bytes)))
    }

    /// Returns the lengths of ARP's hardware and protocol addresses.
    fn arp_lengths(&self) -> Option<(usize, usize)> {
        if !self.is(FrameKind::Arp) && !self.is(FrameKind::Rarp) {
            return None;
        }
        let header: [u8; ARP_HEADER] = self.array(HEADER)?;
        Some((usize::from(header[4]), usize::from(header[5])))
    }

    /// Returns bytes of a BPDU; the offset starts at the link control header.
    fn bpdu<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let found = self.is(FrameKind::Stp) && self.array(HEADER) == Some(BPDU);
        found.then(|| self.array(HEADER + offset)).flatten()
    }
}

impl<'a> Packet<'a> {
    /// Returns the packet whose first bytes an ICMP error quotes.
    pub(super) fn quoted(bytes: &'a [u8], v6: bool) -> Option<Self> {
        let read = if v6 { packet_v6 } else { packet_v4 };
        read(bytes, usize::MAX)
    }
}

const V4: FrameKind = FrameKind::Ip(Version::V4, None);
const V6: FrameKind = FrameKind::Ip(Version::V6, None);

/// Numbers of IP protocols (IANA, Protocol Numbers).
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;
pub(super) const ICMPV6: u8 = 58;

/// Returns whether a protocol's header begins with a source and a destination port: TCP, UDP, DCCP,
/// SCTP, UDP-Lite.
pub(super) fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | 33 | SCTP | 136)
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// Parses an IPv4 packet. `bytes` are the packet and the bytes after it; `length` is their number
/// before truncation.
fn packet_v4(bytes: &[u8], length: usize) -> Option<Packet<'_>> {
    const MORE: u16 = 0x2000;
    const OFFSET: u16 = 0x1fff;
    let header: [u8; 20] = array(bytes, 0)?;
    let short = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let address =
        |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let (version, words, total) =
        (header[0] >> 4, usize::from(header[0] & 0xf), usize::from(short(2)));
    let behind = words * 4;
    if version != 4 || behind < header.len() || total < behind || length < total {
        return None;
    }
    let (flags, number) = (short(6), u32::from(short(4)));
    let fragment = match (flags & OFFSET, flags & MORE) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First(number),
        _ => Fragment::Later(number),
    };
    Some(Packet {
        source: address(12).into(),
        destination: address(16).into(),
        protocol: header[9],
        fragment,
        payload: bytes.get(behind..).unwrap_or_default(),
    })
}

/// Parses an IPv6 packet, as [`packet_v4`] does; the extension headers are those of RFC 8200, 4.
fn packet_v6(bytes: &[u8], length: usize) -> Option<Packet<'_>> {
    const HEADER: usize = 40;
    /// Hop-by-hop options, routing, destination options.
    const SKIPPED: [u8; 3] = [0, 43, 60];
    let header: [u8; HEADER] = array(bytes, 0)?;
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || length < HEADER + payload {
        return None;
    }
    let (mut protocol, mut behind, mut fragment) = (header[6], HEADER, Fragment::Whole);
    loop {
        if SKIPPED.contains(&protocol) {
            let [next, words] = array(bytes, behind)?;
            protocol = next;
            behind += (usize::from(words) + 1) * 8;
        } else if protocol == FRAGMENT {
            let head: [u8; 8] = array(bytes, behind)?;
            let (offset, number) =
                (u16::from_be_bytes([head[2], head[3]]), [4, 5, 6, 7].map(|i| head[i]));
            let number = u32::from_be_bytes(number);
            protocol = head[0];
            behind += head.len();
            if offset & !7 != 0 {
                // The middle of the packet follows, which does not show further headers.
                if SKIPPED.contains(&protocol) || protocol == AH {
                    protocol = FRAGMENT;
                }
                fragment = Fragment::Later(number);
                break;
            }
            // A packet whose only fragment is this one is whole (RFC 8200, 4.5).
            fragment = if offset & 1 == 0 { Fragment::Whole } else { Fragment::First(number) };
        } else {
            break;
        }
    }
    Some(Packet {
        source: array(bytes, 8).map(Ipv6Addr::from)?.into(),
        destination: array(bytes, 24).map(Ipv6Addr::from)?.into(),
        protocol,
        fragment,
        payload: bytes.get(behind..).unwrap_or_default(),
    })
}

const AH: u8 = 51;
/// The protocol number of IPv6's fragment header.
const FRAGMENT: u8 = 44;
