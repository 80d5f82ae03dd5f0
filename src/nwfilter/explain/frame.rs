//! Reads the fields of a raw Ethernet frame as the kernel's filters read them.
//!
//! The module checks only what the kernel's filters check, and a field exists if its bytes exist: a
//! truncated frame has the fields before its end. The parts that determine a field's offset must
//! exist as well, and must be valid:
//!
//! - ARP's addresses follow the lengths that its header names, and have a length and a kind
//!   themselves (as ebtables does; nftables finds only those at the places that six and four bytes
//!   make). IP addresses exist if the packet has both.
//! - STP's fields need the header of logical link control and the protocol number of a BPDU.
//! - A VLAN tag hides the fields behind it: a tagged frame is of no other kind. But the tracking of
//!   connections reads them ([`without_tag`]).
//! - Ports, flags and types need an IP header whose version and lengths are right, and a packet
//!   that is no later fragment and has four bytes behind its IP headers.
//! - IPv6's protocol is behind the extension headers; of AH it is AH. Of a later fragment, the link
//!   layer's rules see the number of the fragment header, 44, and the other rules the protocol that
//!   this header names, unless that is another extension header.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{
    FRAGMENT, Fragment, ICMP, ICMPV6, Packet, TCP, UDP, array, has_ports, is_later_fragment,
    packet_v4, packet_v6,
};
use crate::firewall::rules::port::{
    Address, Addresses, FrameKind, Hardware, LINK_LOCAL, LINK_LOCAL_MASK, NeighborMessage, Number,
};
use crate::firewall::rules::{AddressRange, Version};

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

    /// Returns whether the frame is of an IP version, even if its header is not valid: a rule for
    /// all packets of that version applies to it.
    pub fn is_ip(&self) -> bool {
        self.is(V4) || self.is(V6)
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
            Number::Protocol if self.is(V6) && is_later_fragment(&self.bytes[HEADER..]) => {
                Some(u32::from(FRAGMENT))
            }
            Number::Protocol => self.packet.map(|packet| u32::from(packet.protocol)),
            Number::Dscp if self.is(V4) => self.array(HEADER + 1).map(|tos| byte(tos) >> 2),
            Number::Dscp if self.is(V6) => self.array(HEADER).map(|word| short(word) >> 6 & 0x3f),
            Number::Dscp => None,
            Number::SourcePort => self.ports().map(|(source, _)| u32::from(source)),
            Number::DestinationPort => self.ports().map(|(_, destination)| u32::from(destination)),
        }
    }

    /// Returns whether an IP address is one of these.
    pub fn is_in(&self, field: Address, addresses: &Addresses) -> Option<bool> {
        Some(match addresses {
            Addresses::Net(net) => net.contains(&self.start_of(field, net.prefix_len())?),
            Addresses::Range(AddressRange::V4(first, last)) => {
                (IpAddr::V4(*first)..=IpAddr::V4(*last)).contains(&self.address(field)?)
            }
            Addresses::Range(AddressRange::V6(first, last)) => {
                (IpAddr::V6(*first)..=IpAddr::V6(*last)).contains(&self.address(field)?)
            }
        })
    }

    /// Returns an IP address.
    pub fn address(&self, field: Address) -> Option<IpAddr> {
        self.start_of(field, u8::MAX)
    }

    /// Returns an IP address of which at least these bits exist; the missing bytes are 0. nftables
    /// reads the bytes of a prefix alone if it has no further bits, so a packet that ends within
    /// its address can be in a subnet.
    fn start_of(&self, field: Address, bits: u8) -> Option<IpAddr> {
        let v4 =
            |offset| self.start(offset, bits).map(|bytes: [u8; 4]| Ipv4Addr::from(bytes).into());
        let v6 =
            |offset| self.start(offset, bits).map(|bytes: [u8; 16]| Ipv6Addr::from(bytes).into());
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
                // A packet that ends before the target's address has none of the two addresses.
                let target: [u8; 4] = self.array(sender + protocol + hardware)?;
                let found = if field == Address::ArpTarget { target } else { self.array(sender)? };
                Some(Ipv4Addr::from(found).into())
            }
        }
    }

    /// Returns bytes of which those with the first bits exist, or all if the bits end within a
    /// byte.
    fn start<const N: usize>(&self, offset: usize, bits: u8) -> Option<[u8; N]> {
        let whole = bits.is_multiple_of(8) && usize::from(bits / 8) <= N;
        let needed = if whole { usize::from(bits / 8) } else { N };
        let rest = self.bytes.get(offset..)?;
        let byte = |at: usize| rest.get(at).copied().unwrap_or(0);
        (rest.len() >= needed).then(|| std::array::from_fn(byte))
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

    /// Returns the transport protocol's header and the bytes after it, at least four bytes: filters
    /// read no field of a shorter header.
    pub fn transport(&self) -> Option<&'a [u8]> {
        self.packet
            .filter(|packet| !matches!(packet.fragment, Fragment::Later(_)))
            .map(|packet| packet.payload)
            .filter(|payload| payload.len() >= 4)
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

/// Returns the bytes of a frame as nf_conntrack_bridge reads them: the kernel has taken the first
/// VLAN tag out of the frame before. A frame with another tag behind it is no packet.
pub(super) fn without_tag(bytes: &[u8]) -> Cow<'_, [u8]> {
    let tag = array(bytes, 12).map(u16::from_be_bytes);
    match (tag, bytes.get(..12), bytes.get(16..)) {
        (Some(0x8100 | 0x88a8), Some(head), Some(rest)) if rest.len() >= 2 => {
            Cow::Owned([head, rest].concat())
        }
        _ => Cow::Borrowed(bytes),
    }
}

const V4: FrameKind = FrameKind::Ip(Version::V4, None);
const V6: FrameKind = FrameKind::Ip(Version::V6, None);
