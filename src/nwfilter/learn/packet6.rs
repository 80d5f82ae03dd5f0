//! Reads the IPv6 addresses in a frame: neighbor discovery (RFC 4861) and DHCPv6 (RFC 8415) in
//! untagged Ethernet II frames.
//!
//! [`read`] is strict, because a guest gains from a frame that netlaunch reads and other machines
//! ignore: none of them would answer that the address is in use. It reads a message only if it
//! follows the IPv6 header directly, without extension headers and fragments (RFC 6980), if the hop
//! limit and the ICMPv6 checksum are right, and if the frame goes to the Ethernet address of its
//! group. A test of an address may have a nonce (RFC 7527) and no other option: the rules of
//! [`super::Pending`] and the filter `no-nd-spoofing` let only these through.
//!
//! It does not verify UDP checksums, because the host's own packets have none yet on a virtual port
//! (checksum offload).

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::packet::{ETHERNET, UDP, UDP_HEADER, at};
use crate::types::EthernetAddress;

/// EtherType of IPv6.
pub(super) const IPV6: u16 = 0x86dd;
/// The length of an IPv6 header, in bytes.
pub(super) const IPV6_HEADER: usize = 40;
/// IP protocol ICMPv6.
pub(super) const ICMPV6: u8 = 58;
/// The ICMPv6 types of neighbor discovery.
pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;
pub(super) const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;
/// The UDP ports of DHCPv6 clients and servers.
pub(super) const CLIENT_PORT6: u16 = 546;
pub(super) const SERVER_PORT6: u16 = 547;

/// The shortest Ethernet frame without its checksum, in bytes (IEEE 802.3): shorter packets get
/// padding.
const SHORTEST: usize = 60;
/// The largest number of addresses or prefixes that are read from one message.
pub const MOST_IN_MESSAGE: usize = 16;
/// The longest identifier of a DHCPv6 client, in bytes (RFC 8415, 11.1).
const LONGEST_DUID: usize = 130;

/// A frame with a message that names addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame6 {
    /// The destination MAC address.
    pub destination: EthernetAddress,
    /// The source MAC address, as the frame states it.
    pub source: EthernetAddress,
    /// The source address of the packet.
    pub from: Ipv6Addr,
    /// Whether nothing follows the packet but the padding to the shortest Ethernet frame.
    pub is_exact: bool,
    /// The message.
    pub content: Message6,
}

/// A message that names addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message6 {
    /// A host tests whether another one has this address (RFC 4862, 5.4.2).
    Test(Ipv6Addr),
    /// A host with an address asks for another one.
    Solicitation,
    /// A host advertises that it has this address.
    Advertisement(Ipv6Addr),
    /// A router advertises the prefixes from which hosts make addresses.
    Router(Vec<Prefix>),
    /// A DHCPv6 message.
    Dhcp(Dhcp6),
}

/// A prefix from which hosts make addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The subnet.
    pub net: Ipv6Net,
    /// How long its addresses are valid, in seconds; all ones means without end.
    pub valid: u32,
}

/// A DHCPv6 message between client and server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp6 {
    /// The type.
    pub kind: Dhcp6Kind,
    /// The transaction number, of 24 bits.
    pub transaction: u32,
    /// The client's identifier (DUID).
    pub client: Vec<u8>,
    /// Whether the message has the option Rapid Commit.
    pub rapid: bool,
    /// The addresses of IA_NA and IA_TA options without an error status.
    pub addresses: Vec<Given6>,
}

/// An address in a DHCPv6 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given6 {
    /// The address.
    pub address: Ipv6Addr,
    /// How long the address is valid, in seconds; all ones means without end.
    pub valid: u32,
}

/// The type of a DHCPv6 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names of RFC 8415, section 7.3")]
pub enum Dhcp6Kind {
    Solicit,
    Request,
    Renew,
    Rebind,
    Release,
    Decline,
    Reply,
}

impl Dhcp6Kind {
    fn new(code: u8) -> Option<Self> {
        Some(match code {
            1 => Dhcp6Kind::Solicit,
            3 => Dhcp6Kind::Request,
            5 => Dhcp6Kind::Renew,
            6 => Dhcp6Kind::Rebind,
            7 => Dhcp6Kind::Reply,
            8 => Dhcp6Kind::Release,
            9 => Dhcp6Kind::Decline,
            _ => return None,
        })
    }
}

/// Reads a frame, which begins with the destination MAC address.
///
/// Returns `None` for other kinds of frames and for malformed frames.
pub fn read(frame: &[u8]) -> Option<Frame6> {
    let destination = EthernetAddress::new(at(frame, 0)?);
    let source = EthernetAddress::new(at(frame, 6)?);
    let packet = frame.get(ETHERNET..)?;
    let [first, ..] = at::<4>(packet, 0)?;
    if u16::from_be_bytes(at(frame, 12)?) != IPV6 || first >> 4 != 6 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes(at(packet, 4)?));
    let [protocol, hop_limit] = at(packet, 6)?;
    let (from, to) = (Ipv6Addr::from(at::<16>(packet, 8)?), Ipv6Addr::from(at::<16>(packet, 24)?));
    if from.is_multicast() || !reaches(destination, to) {
        return None;
    }
    // The bytes behind the packet are padding.
    let body = packet.get(IPV6_HEADER..)?.get(..length)?;
    let content = match protocol {
        ICMPV6 if hop_limit == 255 && checksum(from, to, body) == 0 => neighbor(from, to, body)?,
        UDP => Message6::Dhcp(udp(body)?),
        _ => return None,
    };
    let is_exact = frame.len() <= (ETHERNET + IPV6_HEADER + length).max(SHORTEST);
    Some(Frame6 { destination, source, from, is_exact, content })
}

/// Returns whether a frame has an ICMPv6 message directly behind its IPv6 header.
pub(super) fn is_icmp6(frame: &[u8]) -> bool {
    at::<2>(frame, 12) == Some(IPV6.to_be_bytes()) && at(frame, ETHERNET + 6) == Some([ICMPV6])
}

/// Returns whether the receivers of a frame are those of its packet: a multicast packet goes to the
/// Ethernet group of its address (RFC 2464, 7).
fn reaches(destination: EthernetAddress, to: Ipv6Addr) -> bool {
    let [a, b, rest @ ..] = destination.octets();
    if to.is_multicast() { [a, b] == [0x33; 2] && to.octets().ends_with(&rest) } else { a & 1 == 0 }
}

/// Computes the ICMPv6 checksum with the pseudo header (RFC 4443, 2.3). The result is 0 for a
/// message with a correct checksum.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, body: &[u8]) -> u16 {
    let word = |pair: &[u8]| {
        u64::from(pair.first().copied().unwrap_or(0)) << 8
            | u64::from(pair.get(1).copied().unwrap_or(0))
    };
    let sum = |bytes: &[u8]| bytes.chunks(2).map(word).sum::<u64>();
    let pseudo = body.len() as u64 + u64::from(ICMPV6);
    let mut total = sum(&from.octets()) + sum(&to.octets()) + sum(body) + pseudo;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

/// Reads a neighbor discovery message (RFC 4861, 6.1 and 7.1).
fn neighbor(from: Ipv6Addr, to: Ipv6Addr, body: &[u8]) -> Option<Message6> {
    const FIXED: usize = 24;
    const ROUTER_FIXED: usize = 16;
    const NONCE: [u8; 2] = [14, 1];
    let [kind, code] = at(body, 0)?;
    if code != 0 {
        return None;
    }
    if kind == ROUTER_ADVERTISEMENT {
        let options = body.get(ROUTER_FIXED..)?;
        return from.is_unicast_link_local().then(|| prefixes(options)).flatten();
    }
    let target = Ipv6Addr::from(at::<16>(body, 8)?);
    if target.is_multicast() {
        return None;
    }
    let options = body.get(FIXED..)?;
    match kind {
        SOLICITATION if from.is_unspecified() => {
            let has_form =
                options.is_empty() || (options.len() == 8 && options.starts_with(&NONCE));
            (has_form && to == solicited_node(target)).then_some(Message6::Test(target))
        }
        SOLICITATION => Some(Message6::Solicitation),
        ADVERTISEMENT if !from.is_unspecified() => Some(Message6::Advertisement(target)),
        _ => None,
    }
}

/// Returns the multicast address of the hosts that may have this address (RFC 4291, 2.7.1).
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// Reads the prefixes of a router advertisement from which hosts make addresses (flag A).
fn prefixes(mut options: &[u8]) -> Option<Message6> {
    const PREFIX: u8 = 3;
    const AUTONOMOUS: u8 = 0x40;
    let mut found = Vec::new();
    while !options.is_empty() {
        let [kind, words] = at(options, 0)?;
        let (option, rest) = options.split_at_checked(usize::from(words) * 8)?;
        options = rest;
        if words == 0 {
            return None;
        }
        if kind != PREFIX || option.len() != 32 || found.len() == MOST_IN_MESSAGE {
            continue;
        }
        let [length, flags] = at(option, 2)?;
        let net = Ipv6Net::new(at::<16>(option, 16)?.into(), length).ok()?.trunc();
        if flags & AUTONOMOUS != 0 {
            found.push(Prefix { net, valid: u32::from_be_bytes(at(option, 4)?) });
        }
    }
    Some(Message6::Router(found))
}

/// Reads the DHCPv6 message of a datagram between client and server port.
fn udp(body: &[u8]) -> Option<Dhcp6> {
    let ports = (u16::from_be_bytes(at(body, 0)?), u16::from_be_bytes(at(body, 2)?));
    let length = usize::from(u16::from_be_bytes(at(body, 4)?));
    let message = body.get(UDP_HEADER..length)?;
    let from_server = match ports {
        (SERVER_PORT6, CLIENT_PORT6) => true,
        (CLIENT_PORT6, SERVER_PORT6) => false,
        _ => return None,
    };
    let dhcp = dhcp(message)?;
    ((dhcp.kind == Dhcp6Kind::Reply) == from_server).then_some(dhcp)
}

fn dhcp(message: &[u8]) -> Option<Dhcp6> {
    const CLIENT: u16 = 1;
    const IA_NA: u16 = 3;
    const IA_TA: u16 = 4;
    const STATUS: u16 = 13;
    const RAPID_COMMIT: u16 = 14;
    let [code, a, b, c] = at(message, 0)?;
    let (kind, transaction) = (Dhcp6Kind::new(code)?, u32::from_be_bytes([0, a, b, c]));
    let (mut client, mut rapid, mut is_refused) = (None, false, false);
    let mut addresses = Vec::new();
    for option in Options(message.get(4..)?) {
        let (code, value) = option?;
        match code {
            CLIENT if client.is_some() || !(3..=LONGEST_DUID).contains(&value.len()) => {
                return None;
            }
            CLIENT => client = Some(value.to_vec()),
            RAPID_COMMIT => rapid = true,
            STATUS => is_refused |= !is_success(value)?,
            IA_NA => association(value.get(12..)?, &mut addresses)?,
            IA_TA => association(value.get(4..)?, &mut addresses)?,
            _ => {}
        }
    }
    if is_refused {
        addresses.clear();
    }
    Some(Dhcp6 { kind, transaction, client: client?, rapid, addresses })
}

/// Reads the options of an IA_NA or IA_TA. An error status of the association or of an address
/// means that the client does not get it (RFC 8415, 18.2.10.1).
fn association(options: &[u8], addresses: &mut Vec<Given6>) -> Option<()> {
    const ADDRESS: u16 = 5;
    const STATUS: u16 = 13;
    let mut found = Vec::new();
    for option in Options(options) {
        let (code, value) = option?;
        match code {
            STATUS if !is_success(value)? => return Some(()),
            ADDRESS => {
                let address = Ipv6Addr::from(at::<16>(value, 0)?);
                let valid = u32::from_be_bytes(at(value, 20)?);
                let mut is_given = true;
                for option in Options(value.get(24..)?) {
                    let (code, value) = option?;
                    is_given &= code != STATUS || is_success(value)?;
                }
                if is_given && addresses.len() + found.len() < MOST_IN_MESSAGE {
                    found.push(Given6 { address, valid });
                }
            }
            _ => {}
        }
    }
    addresses.append(&mut found);
    Some(())
}

fn is_success(status: &[u8]) -> Option<bool> {
    Some(at(status, 0)? == [0, 0])
}

/// Returns the frame that asks the guest whether it has an address: a neighbor solicitation from
/// the link-local address of the port. The guest does not take it for a test of the address, whose
/// source is `::`.
pub fn question(port: EthernetAddress, guest: EthernetAddress, target: Ipv6Addr) -> Vec<u8> {
    let [a, b, c, d, e, f] = port.octets();
    let from = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    let to = solicited_node(target);
    let mut body = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[1, 1]].concat();
    body.extend(port.octets());
    let sum = checksum(from.into(), to, &body).to_be_bytes();
    body.splice(2..4, sum);
    let length = (body.len() as u16).to_be_bytes();
    let header = [0x60, 0, 0, 0, length[0], length[1], ICMPV6, 255];
    let ether_type = IPV6.to_be_bytes();
    let parts =
        [&guest.octets()[..], &port.octets(), &ether_type, &header, &from, &to.octets(), &body];
    parts.concat()
}

/// The options of a DHCPv6 message; an item is `None` if an option is cut off, which is the last
/// item.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.0);
        Some((|| {
            let (code, length) = (u16::from_be_bytes(at(rest, 0)?), at(rest, 2)?);
            let length = usize::from(u16::from_be_bytes(length));
            let (value, after) = rest.get(4..)?.split_at_checked(length)?;
            self.0 = after;
            Some((code, value))
        })())
    }
}
