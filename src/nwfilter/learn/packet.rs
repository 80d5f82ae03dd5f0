//! What a frame says about addresses: ARP (RFC 826), IPv4 headers (RFC 791) and DHCP (RFC 2131 and
//! 2132) in untagged Ethernet II frames.
//!
//! The reader is strict: what is cut off, contradicts itself or has a wrong IPv4 header checksum is
//! no frame to learn from. It does not verify UDP checksums, which the hosts' own packets do not
//! have yet on a virtual port (checksum offload).

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
/// Where a BOOTP message has the client's hardware address.
pub(super) const CHADDR: usize = 28;

/// Where a BOOTP message has the `sname` field, the `file` field, and the magic cookie.
const SNAME: usize = 44;
const FILE: usize = 108;
const COOKIE: usize = 236;
/// The bytes before DHCP's options (RFC 2131 section 3).
const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// A frame of interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Where it goes.
    pub destination: EthernetAddress,
    /// Where it says it comes from.
    pub source: EthernetAddress,
    /// What it is.
    pub content: Content,
}

/// What a frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// ARP for IPv4 on Ethernet.
    Arp(Arp),
    /// An IPv4 packet.
    Ip(Packet),
}

/// A request or reply of ARP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arp {
    /// The sender's hardware address.
    pub sender_mac: EthernetAddress,
    /// The sender's address; 0.0.0.0 in a probe (RFC 5227).
    pub sender: Ipv4Addr,
}

/// An IPv4 packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Where it says it comes from.
    pub source: Ipv4Addr,
    /// Where it goes.
    pub destination: Ipv4Addr,
    /// The DHCP message in it.
    pub dhcp: Option<Dhcp>,
}

/// A DHCP message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp {
    /// What it is, by option 53.
    pub message: Message,
    /// The transaction (`xid`).
    pub transaction: u32,
    /// The client's hardware address (`chaddr`).
    pub client: EthernetAddress,
    /// The address that the client says it has (`ciaddr`).
    pub current: Ipv4Addr,
    /// The address that the server gives (`yiaddr`).
    pub given: Ipv4Addr,
    /// The address that the client asks for or declines (option 50).
    pub requested: Option<Ipv4Addr>,
    /// How long the address is given for, in seconds; all ones is for ever (option 51).
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

    /// Whether it is a server that sends it.
    pub fn is_servers(self) -> bool {
        matches!(self, Message::Offer | Message::Ack | Message::Nak)
    }
}

/// Reads a frame, from its destination address on. `None` is every other kind of frame, and a
/// malformed one.
pub fn read(frame: &[u8]) -> Option<Frame> {
    let destination = EthernetAddress::new(at(frame, 0)?);
    let source = EthernetAddress::new(at(frame, 6)?);
    let payload = frame.get(ETHERNET..)?;
    let content = match u16::from_be_bytes(at(frame, 12)?) {
        ARP => Content::Arp(arp(payload)?),
        IPV4 => Content::Ip(ipv4(payload)?),
        _ => return None,
    };
    Some(Frame { destination, source, content })
}

/// The `N` bytes at an offset.
fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn arp(payload: &[u8]) -> Option<Arp> {
    // Ethernet, IPv4, their address lengths.
    if at(payload, 0)? != [0, 1, 0x08, 0, 6, 4] {
        return None;
    }
    // Request or reply; and the target's addresses are there.
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
    // What is behind the packet is padding.
    let packet = payload.get(..total)?;
    let (header, body) = packet.split_at_checked(header)?;
    if checksum(header) != 0 {
        return None;
    }
    // More fragments, or a later one. Nobody sends DHCP in fragments: a client could not take it.
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

/// The Internet checksum (RFC 1071); 0 over a header that has the right one.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    // 30 words at most, so one carry can come of the first fold.
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) as u16 + (sum >> 16) as u16)
}

/// The DHCP message between a client's and a server's port; `Some(None)` is another datagram.
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
    // Option 52: more options in the fields for the boot file's and the server's name, in this
    // order (RFC 2131 section 4.1). They cannot have an option 52 again, since it was given.
    let overload = options.overload.unwrap_or(0);
    if overload & 1 != 0 {
        options.read(message.get(FILE..COOKIE)?)?;
    }
    if overload & 2 != 0 {
        options.read(message.get(SNAME..FILE)?)?;
    }
    let kind = options.message?;
    // Request or reply, Ethernet, the address's length.
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

/// The options that matter here.
#[derive(Default)]
struct Options {
    message: Option<Message>,
    requested: Option<Ipv4Addr>,
    lease_time: Option<u32>,
    overload: Option<u8>,
}

impl Options {
    /// Reads a field of options up to its end, which must be there.
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

/// An option that comes twice is one in two parts (RFC 3396), and these would be too long then.
fn once<T>(field: &mut Option<T>, value: T) -> Option<()> {
    field.replace(value).is_none().then_some(())
}
