//! What the values of an attribute are: how they are read, what their limits are, and how they are
//! written in libvirt's canonical form.
//!
//! Numbers are decimal, or hexadecimal after `0x`, and are written as they were read, but a number
//! that has a name is written by it. Masks become prefix lengths, addresses the shortest form.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{ipv4_mask_to_prefix, ipv6_mask_to_prefix};

use super::flags::{SetDirection, States, TcpFlags};
use super::value::{Comment, IpSetName, Literal};

/// What the values of an attribute are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An Ethernet address.
    Mac,
    /// The bits of an Ethernet address that count.
    MacMask,
    /// An IPv4 address.
    V4,
    /// How many leading bits of an IPv4 address count, or a netmask without gaps.
    V4Mask,
    /// An IPv6 address.
    V6,
    /// How many leading bits of an IPv6 address count, or a netmask without gaps.
    V6Mask,
    /// A number of 6 bits.
    U6,
    /// A number of 8 bits. libvirt's format has no variables there.
    U8,
    /// A number of 12 bits.
    U12,
    /// A number of 16 bits.
    U16,
    /// A number of 32 bits.
    U32,
    /// The protocol in an Ethernet frame, from 0x600 on (below, the field is a length: IEEE 802.3,
    /// 3.2.6), or its name.
    EtherType,
    /// The protocol in an IP packet, or its name.
    IpProtocol,
    /// What an ARP packet is for (RFC 826, 903, 1931, 2390), or its name.
    Opcode,
    /// Yes or no.
    Boolean,
    /// TCP flags, `MASK/SET`.
    TcpFlags,
    /// States of connections.
    State,
    /// The name of an ipset.
    IpSet,
    /// Which addresses and ports are looked up in it.
    IpSetFlags,
    /// Words for people.
    Comment,
}

/// Why a text is no value of its attribute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct LiteralError {
    /// The text.
    pub text: String,
    /// What it should be, and how that is written.
    pub what: &'static str,
}

const ETHER_TYPES: [(u32, &str); 5] =
    [(0x0800, "ipv4"), (0x0806, "arp"), (0x8035, "rarp"), (0x8100, "vlan"), (0x86dd, "ipv6")];

const IP_PROTOCOLS: [(u32, &str); 9] = [
    (1, "icmp"),
    (2, "igmp"),
    (6, "tcp"),
    (17, "udp"),
    (50, "esp"),
    (51, "ah"),
    (58, "icmpv6"),
    (132, "sctp"),
    (136, "udplite"),
];

const OPCODES: [(u32, &str); 9] = [
    (1, "Request"),
    (2, "Reply"),
    (3, "Request_Reverse"),
    (4, "Reply_Reverse"),
    (5, "DRARP_Request"),
    (6, "DRARP_Reply"),
    (7, "DRARP_Error"),
    (8, "InARP_Request"),
    (9, "ARP_NAK"),
];

const BOOLEANS: [(&str, bool); 6] =
    [("true", true), ("false", false), ("yes", true), ("no", false), ("1", true), ("0", false)];

impl Kind {
    /// Whether a variable can stand for a value.
    pub fn takes_variables(self) -> bool {
        !matches!(
            self,
            Kind::U8
                | Kind::Boolean
                | Kind::TcpFlags
                | Kind::State
                | Kind::IpSetFlags
                | Kind::Comment
        )
    }

    /// Reads a value.
    ///
    /// # Errors
    /// When the text is none.
    pub fn read(self, text: &str) -> Result<Literal, LiteralError> {
        let number = |least: u32, most: u32, names: &[(u32, &'static str)]| {
            if let Some((value, _)) = names.iter().find(|(_, name)| self.same_word(name, text)) {
                return Some(Literal::Number { value: *value, hex: false });
            }
            let (value, hex) = number(text)?;
            // A number that has a name is written by it.
            let hex = hex && named(names, value).is_none();
            (least..=most).contains(&value).then_some(Literal::Number { value, hex })
        };
        let read = match self {
            Kind::Mac => text.parse().ok().map(Literal::Mac),
            Kind::MacMask => text.parse().ok().map(Literal::MacMask),
            Kind::V4 => text.parse().ok().map(Literal::V4),
            Kind::V4Mask => v4_mask(text).map(Literal::V4Mask),
            Kind::V6 => text.parse().ok().map(Literal::V6),
            Kind::V6Mask => v6_mask(text).map(Literal::V6Mask),
            Kind::U6 => number(0, 63, &[]),
            Kind::U8 => number(0, 0xff, &[]),
            Kind::U12 => number(0, 0xfff, &[]),
            Kind::U16 => number(0, 0xffff, &[]),
            Kind::U32 => number(0, u32::MAX, &[]),
            Kind::EtherType => number(0x600, 0xffff, &ETHER_TYPES),
            Kind::IpProtocol => number(0, 0xff, &IP_PROTOCOLS),
            // libvirt's schema has no hexadecimal form of it, so it is not written so either.
            Kind::Opcode => number(0, 0xffff, &OPCODES).map(|opcode| match opcode {
                Literal::Number { value, .. } => Literal::Number { value, hex: false },
                other => other,
            }),
            Kind::Boolean => {
                let found = BOOLEANS.iter().find(|(word, _)| *word == text);
                found.map(|(_, value)| Literal::Boolean(*value))
            }
            Kind::TcpFlags => TcpFlags::read(text).map(Literal::TcpFlags),
            Kind::State => States::read(text).map(Literal::State),
            Kind::IpSet => text.parse::<IpSetName>().ok().map(Literal::IpSet),
            Kind::IpSetFlags => SetDirection::read_list(text).map(Literal::IpSetFlags),
            Kind::Comment => text.parse::<Comment>().ok().map(Literal::Comment),
        };
        read.ok_or_else(|| LiteralError { text: text.to_owned(), what: self.what() })
    }

    /// Writes a value of this kind.
    pub fn write(self, literal: &Literal) -> String {
        match (self, literal) {
            (Kind::EtherType, Literal::Number { value, .. }) => named(&ETHER_TYPES, *value),
            (Kind::IpProtocol, Literal::Number { value, .. }) => named(&IP_PROTOCOLS, *value),
            (Kind::Opcode, Literal::Number { value, .. }) => named(&OPCODES, *value),
            _ => None,
        }
        .map_or_else(|| literal.to_string(), str::to_owned)
    }

    /// What a value is, and how it is written.
    fn what(self) -> &'static str {
        match self {
            Kind::Mac => {
                "a MAC address: write six pairs of hexadecimal digits, such as 52:54:00:12:34:56"
            }
            Kind::MacMask => {
                "a mask of a MAC address: write six pairs of hexadecimal digits, such as ff:ff:ff:00:00:00"
            }
            Kind::V4 => "an IPv4 address: write one such as 192.0.2.1",
            Kind::V4Mask => {
                "an IPv4 mask: write a prefix length from 0 to 32, or a netmask without gaps such as 255.255.255.0"
            }
            Kind::V6 => "an IPv6 address: write one such as 2001:db8::1",
            Kind::V6Mask => {
                "an IPv6 mask: write a prefix length from 0 to 128, or a netmask without gaps such as ffff:ffff::"
            }
            Kind::U6 => "a number from 0 to 63 (0x3f)",
            Kind::U8 => "a number from 0 to 255 (0xff)",
            Kind::U12 => "a number from 0 to 4095 (0xfff)",
            Kind::U16 => "a number from 0 to 65535 (0xffff)",
            Kind::U32 => "a number from 0 to 4294967295 (0xffffffff)",
            Kind::EtherType => {
                "an Ethernet protocol: write ipv4, ipv6, arp, rarp, vlan, or a number from 1536 (0x600) to 65535 (0xffff)"
            }
            Kind::IpProtocol => {
                "an IP protocol: write tcp, udp, udplite, esp, ah, icmp, igmp, sctp, icmpv6, or a number from 0 to 255 (0xff)"
            }
            Kind::Opcode => {
                "an ARP operation: write Request, Reply, Request_Reverse, Reply_Reverse, DRARP_Request, DRARP_Reply, DRARP_Error, InARP_Request, ARP_NAK, or a number from 0 to 65535"
            }
            Kind::Boolean => "yes or no: write true or false",
            Kind::TcpFlags => {
                "a set of TCP flags: write MASK/SET, each NONE, ALL or some of SYN,ACK,URG,PSH,FIN,RST, such as SYN/ALL"
            }
            Kind::State => {
                "a state of connections: write NONE, or some of NEW,ESTABLISHED,RELATED,INVALID"
            }
            Kind::IpSet => {
                "an ipset's name: use 1 to 31 letters, digits, '-', '.', '_', ':', '+' or spaces"
            }
            Kind::IpSetFlags => "a list of 1 to 6 of src and dst: write one such as src,dst",
            Kind::Comment => "a comment: use at most 256 bytes without control characters",
        }
    }

    /// libvirt's schema takes some operations of ARP with a small letter, and no other words.
    fn same_word(self, word: &str, text: &str) -> bool {
        match self {
            Kind::Opcode => word.eq_ignore_ascii_case(text),
            _ => word == text,
        }
    }
}

fn named(names: &[(u32, &'static str)], value: u32) -> Option<&'static str> {
    names.iter().find(|(number, _)| *number == value).map(|(_, name)| *name)
}

/// A number, and whether it is hexadecimal.
fn number(text: &str) -> Option<(u32, bool)> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // A sign is no digit.
    let valid = digits.chars().all(|c| c.is_digit(radix));
    let value = if valid { u32::from_str_radix(digits, radix).ok() } else { None };
    value.map(|value| (value, radix == 16))
}

/// A prefix length of at most `most`.
fn prefix(text: &str, most: u8) -> Option<u8> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let length = if digits { text.parse().ok() } else { None };
    length.filter(|length| *length <= most)
}

fn v4_mask(text: &str) -> Option<u8> {
    let mask = || ipv4_mask_to_prefix(text.parse::<Ipv4Addr>().ok()?).ok();
    prefix(text, 32).or_else(mask)
}

fn v6_mask(text: &str) -> Option<u8> {
    let mask = || ipv6_mask_to_prefix(text.parse::<Ipv6Addr>().ok()?).ok();
    prefix(text, 128).or_else(mask)
}
