//! Reads the addresses in a frame: ARP (RFC 826), IPv4 headers (RFC 791) and DHCP (RFC 2131 and
//! 2132) in untagged Ethernet II frames.
//!
//! [`read`] checks the Ethernet header, then ARP or IPv4, then UDP and DHCP. It is strict: it
//! rejects a frame that is cut off, contradicts itself or has a wrong IPv4 header checksum.
//!
//! It does not verify UDP checksums, because the host's own packets have none yet on a virtual port
//! (checksum offload).

use std::net::Ipv4Addr;

use crate::types::EthernetAddress;

/// EtherType of IPv4.
pub(super) const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub(super) const ARP: u16 = 0x0806;
/// The length of an Ethernet header without a tag, in bytes.
pub(super) const ETHERNET: usize = 14;
/// IP protocol UDP.
pub(super) const UDP: u8 = 17;
/// The length of a UDP header, in bytes.
pub(super) const UDP_HEADER: usize = 8;
/// The UDP port of DHCP servers.
pub(super) const SERVER_PORT: u16 = 67;
/// The UDP port of DHCP clients.
pub(super) const CLIENT_PORT: u16 = 68;
/// The offset of the client's hardware address in a BOOTP message.
pub(super) const CHADDR: usize = 28;

/// The offsets of the `sname` field, the `file` field and the magic cookie in a BOOTP message.
const SNAME: usize = 44;
const FILE: usize = 108;
const COOKIE: usize = 236;
/// The four bytes in front of the DHCP options (RFC 2131 section 3).
const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// A frame with ARP or IPv4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The destination MAC address.
    pub destination: EthernetAddress,
    /// The source MAC address, as the frame states it.
    pub source: EthernetAddress,
    /// The ARP or IPv4 packet in the frame.
    pub content: Payload,
}

/// The packet that a frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// ARP for IPv4 on Ethernet.
    Arp(Arp),
    /// An IPv4 packet.
    Ip(Packet),
}

/// An ARP request or reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arp {
    /// The sender's hardware address.
    pub sender_mac: EthernetAddress,
    /// The sender's IPv4 address; 0.0.0.0 in a probe (RFC 5227).
    pub sender: Ipv4Addr,
}

/// An IPv4 packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The source address, as the packet states it.
    pub source: Ipv4Addr,
    /// The destination address.
    pub destination: Ipv4Addr,
    /// The DHCP message in the packet, if there is one.
    pub dhcp: Option<Dhcp>,
}

/// A DHCP message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp {
    /// The type (option 53).
    pub message: Message,
    /// The transaction number (`xid`).
    pub transaction: u32,
    /// The client's hardware address (`chaddr`).
    pub client: EthernetAddress,
    /// The address that the client states as its own (`ciaddr`).
    pub current: Ipv4Addr,
    /// The address that the server gives (`yiaddr`).
    pub given: Ipv4Addr,
    /// The address that the client asks for or declines (option 50).
    pub requested: Option<Ipv4Addr>,
    /// The lease time in seconds; all ones means without end (option 51).
    pub lease_time: Option<u32>,
}

/// The type of a DHCP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names of RFC 2132, section 9.6")]
pub enum Message {
    Discover,
    Offer,
    Request,
    Decline,
    Ack,
    Nak,
    Release,
    Inform,
}

impl Message {
    fn new(code: u8) -> Option<Self> {
        Some(match code {
            1 => Message::Discover,
            2 => Message::Offer,
            3 => Message::Request,
            4 => Message::Decline,
            5 => Message::Ack,
            6 => Message::Nak,
            7 => Message::Release,
            8 => Message::Inform,
            _ => return None,
        })
    }

    /// Returns whether servers send this type.
    pub fn is_servers(self) -> bool {
        matches!(self, Message::Offer | Message::Ack | Message::Nak)
    }
}

/// Reads a frame, which begins with the destination MAC address.
///
/// Returns `None` for other kinds of frames and for malformed frames.
pub fn read(frame: &[u8]) -> Option<Frame> {
    let destination = EthernetAddress::new(at(frame, 0)?);
    let source = EthernetAddress::new(at(frame, 6)?);
    let payload = frame.get(ETHERNET..)?;
    let content = match u16::from_be_bytes(at(frame, 12)?) {
        ARP => Payload::Arp(arp(payload)?),
        IPV4 => Payload::Ip(ipv4(payload)?),
        _ => return None,
    };
    Some(Frame { destination, source, content })
}

/// Returns the `N` bytes at an offset, or `None` if the input is shorter.
pub(super) fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn arp(payload: &[u8]) -> Option<Arp> {
    // The hardware type is Ethernet, the protocol type IPv4, and the address lengths are 6 and 4.
    if at(payload, 0)? != [0, 1, 0x08, 0, 6, 4] {
        return None;
    }
    // The packet is a request or a reply and has room for the target's addresses.
    if !matches!(at(payload, 6)?, [0, 1 | 2]) || payload.len() < 28 {
        return None;
    }
    let sender_mac = EthernetAddress::new(at(payload, 8)?);
    Some(Arp { sender_mac, sender: at::<4>(payload, 14)?.into() })
}

fn ipv4(payload: &[u8]) -> Option<Packet> {
    let [first] = at(payload, 0)?;
    let header = usize::from(first & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes(at(payload, 2)?));
    if first >> 4 != 4 || header < 20 || total < header {
        return None;
    }
    // The bytes behind the packet are padding.
    let packet = payload.get(..total)?;
    let (header, body) = packet.split_at_checked(header)?;
    if checksum(header) != 0 {
        return None;
    }
    // More fragments follow, or this is a later fragment. DHCP messages are not sent in fragments,
    // because a client could not receive them.
    let is_fragment = u16::from_be_bytes(at(header, 6)?) & 0x3fff != 0;
    let [protocol] = at(header, 9)?;
    let dhcp = match protocol {
        UDP if !is_fragment => udp(body)?,
        _ => None,
    };
    let source = at::<4>(header, 12)?.into();
    let destination = at::<4>(header, 16)?.into();
    Some(Packet { source, destination, dhcp })
}

/// Computes the Internet checksum (RFC 1071). The result is 0 for a header with a correct checksum.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    // A header has at most 30 words, so the second addition removes the last carry.
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) as u16 + (sum >> 16) as u16)
}

/// Reads the DHCP message of a datagram between client and server port.
///
/// Returns `Some(None)` for other ports, and `None` for a malformed datagram.
fn udp(body: &[u8]) -> Option<Option<Dhcp>> {
    let ports = (u16::from_be_bytes(at(body, 0)?), u16::from_be_bytes(at(body, 2)?));
    let length = usize::from(u16::from_be_bytes(at(body, 4)?));
    let message = body.get(UDP_HEADER..length)?;
    let from_server = match ports {
        (SERVER_PORT, CLIENT_PORT) => true,
        (CLIENT_PORT, SERVER_PORT) => false,
        _ => return Some(None),
    };
    let dhcp = dhcp(message)?;
    (dhcp.message.is_servers() == from_server).then_some(Some(dhcp))
}

fn dhcp(message: &[u8]) -> Option<Dhcp> {
    let mut options = Options::default();
    if at(message, COOKIE)? != MAGIC {
        return None;
    }
    options.read(message.get(COOKIE + MAGIC.len()..)?)?;
    // Option 52 says that the `file` and `sname` fields hold more options, in this order (RFC 2131
    // section 4.1). A second option 52 in these fields is an error, because `Options` already has
    // one.
    let overload = options.overload.unwrap_or(0);
    if overload & 1 != 0 {
        options.read(message.get(FILE..COOKIE)?)?;
    }
    if overload & 2 != 0 {
        options.read(message.get(SNAME..FILE)?)?;
    }
    let kind = options.message?;
    // `op` (request or reply), the hardware type Ethernet, and the address length.
    let op = if kind.is_servers() { 2 } else { 1 };
    if at(message, 0)? != [op, 1, 6] {
        return None;
    }
    Some(Dhcp {
        message: kind,
        transaction: u32::from_be_bytes(at(message, 4)?),
        client: EthernetAddress::new(at(message, CHADDR)?),
        current: at::<4>(message, 12)?.into(),
        given: at::<4>(message, 16)?.into(),
        requested: options.requested,
        lease_time: options.lease_time,
    })
}

/// The options that the learner uses.
#[derive(Default)]
struct Options {
    message: Option<Message>,
    requested: Option<Ipv4Addr>,
    lease_time: Option<u32>,
    overload: Option<u8>,
}

impl Options {
    /// Reads a field of options up to the end option. A field without an end option is malformed.
    fn read(&mut self, mut rest: &[u8]) -> Option<()> {
        const PAD: u8 = 0;
        const END: u8 = 255;
        loop {
            let (&code, after) = rest.split_first()?;
            rest = match code {
                PAD => after,
                END => return Some(()),
                _ => {
                    let (&length, after) = after.split_first()?;
                    let (value, after) = after.split_at_checked(usize::from(length))?;
                    self.take(code, value)?;
                    after
                }
            }
        }
    }

    fn take(&mut self, code: u8, value: &[u8]) -> Option<()> {
        match code {
            50 => once(&mut self.requested, <[u8; 4]>::try_from(value).ok()?.into()),
            51 => once(&mut self.lease_time, u32::from_be_bytes(value.try_into().ok()?)),
            52 => match value {
                [fields @ 1..=3] => once(&mut self.overload, *fields),
                _ => None,
            },
            53 => match value {
                [code] => once(&mut self.message, Message::new(*code)?),
                _ => None,
            },
            _ => Some(()),
        }
    }
}

/// Sets an option. A second occurrence is malformed: it would be the second part of a long value
/// (RFC 3396), and the values of these options are short.
fn once<T>(field: &mut Option<T>, value: T) -> Option<()> {
    field.replace(value).is_none().then_some(())
}
