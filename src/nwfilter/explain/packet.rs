//! Reads the headers of IP packets as the kernel's filters read them, up to the header of the
//! transport protocol.
//!
//! A packet exists if its version and its lengths are right, and if each extension header before
//! the transport protocol exists.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

impl<'a> Packet<'a> {
    /// Returns the packet whose first bytes an ICMP error quotes.
    pub(super) fn quoted(bytes: &'a [u8], v6: bool) -> Option<Self> {
        let read = if v6 { packet_v6 } else { packet_v4 };
        read(bytes, usize::MAX)
    }

    /// Returns an IPv6 packet with the protocol behind AH; `None` if a header is missing, or if no
    /// protocol follows. The kernel finds the protocol of a connection in this way.
    pub(super) fn behind_ah(self) -> Option<Self> {
        let (mut protocol, mut payload) = (self.protocol, self.payload);
        while self.source.is_ipv6() && (SKIPPED.contains(&protocol) || protocol == AH) {
            let [next, words] = array(payload, 0)?;
            let length = if protocol == AH {
                (usize::from(words) + 2) * 4
            } else {
                (usize::from(words) + 1) * 8
            };
            (protocol, payload) = (next, payload.get(length..).unwrap_or_default());
        }
        let exists = self.source.is_ipv4() || protocol != NO_NEXT_HEADER;
        exists.then_some(Packet { protocol, payload, ..self })
    }
}

/// Numbers of IP protocols (IANA, Protocol Numbers).
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;
pub(super) const ICMPV6: u8 = 58;
pub(super) const GRE: u8 = 47;
const AH: u8 = 51;
/// Hop-by-hop options, routing, destination options.
const SKIPPED: [u8; 3] = [0, 43, 60];
const NO_NEXT_HEADER: u8 = 59;
/// The protocol number of IPv6's fragment header.
pub(super) const FRAGMENT: u8 = 44;

/// Returns whether a protocol's header begins with a source and a destination port: TCP, UDP, DCCP,
/// SCTP, UDP-Lite.
pub(super) fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | 33 | SCTP | 136)
}

/// Returns whether the first fragment header of an IPv6 packet says that the packet is a later
/// fragment. The version and the lengths of the packet do not count, and AH is an extension header,
/// because nftables looks for the fragment header in this way.
pub(super) fn is_later_fragment(bytes: &[u8]) -> bool {
    let (mut protocol, mut behind) =
        (array::<1>(bytes, 6).map_or(NO_NEXT_HEADER, |[next]| next), 40);
    while SKIPPED.contains(&protocol) || protocol == AH {
        let Some([next, words]) = array(bytes, behind) else { return false };
        let words = usize::from(words);
        behind += if protocol == AH { (words + 2) * 4 } else { (words + 1) * 8 };
        protocol = next;
    }
    let offset = array(bytes, behind + 2).map_or(0, u16::from_be_bytes);
    protocol == FRAGMENT && offset & !7 != 0
}

/// Returns the bytes at an offset if all of them exist.
pub(super) fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// Parses an IPv4 packet. `bytes` are the packet and the bytes after it; `length` is their number
/// before truncation.
pub(super) fn packet_v4(bytes: &[u8], length: usize) -> Option<Packet<'_>> {
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
pub(super) fn packet_v6(bytes: &[u8], length: usize) -> Option<Packet<'_>> {
    const HEADER: usize = 40;
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
            // The kernel reads the first four bytes of this header, of eight.
            let head: [u8; 4] = array(bytes, behind)?;
            let offset = u16::from_be_bytes([head[2], head[3]]);
            let number = u32::from_be_bytes(array(bytes, behind + 4).unwrap_or_default());
            protocol = head[0];
            behind += 8;
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
            // The kernel reads the start of AH before it takes AH as the protocol.
            if protocol == AH && array::<2>(bytes, behind).is_none() {
                return None;
            }
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
