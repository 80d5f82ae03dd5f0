//! The kinds of attribute values: their syntax, their limits, and their form in libvirt's canonical
//! XML.
//!
//! Numbers are decimal, or hexadecimal after `0x`, and are written in the form in which they were
//! read; but a number that has a name is written by its name. Masks become prefix lengths,
//! addresses become the shortest form.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{ipv4_mask_to_prefix, ipv6_mask_to_prefix};

use super::flags::{SetDirection, States, TcpFlags};
use super::value::{Comment, IpSetName, Literal};

/// The kind of an attribute's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// An Ethernet address.
    Mac,
    /// A mask of an Ethernet address.
    MacMask,
    /// An IPv4 address.
    V4,
    /// The number of leading bits of an IPv4 address, or a netmask without gaps.
    V4Mask,
    /// An IPv6 address.
    V6,
    /// The number of leading bits of an IPv6 address, or a netmask without gaps.
    V6Mask,
    /// A number of 6 bits.
    U6,
    /// A number of 8 bits. libvirt's format does not allow variables there.
    U8,
    /// A number of 12 bits.
    U12,
    /// A number of 16 bits.
    U16,
    /// A number of 32 bits.
    U32,
    /// The protocol in an Ethernet frame, from 0x600 on, or its name. A smaller number in this
    /// field is a length (IEEE 802.3, 3.2.6).
    EtherType,
    /// The protocol in an IP packet, or its name.
    IpProtocol,
    /// The operation of an ARP packet (RFC 826, 903, 1931, 2390), or its name.
    Opcode,
    /// Yes or no.
    Boolean,
    /// TCP flags, `MASK/SET`.
    TcpFlags,
    /// States of connections.
    State,
    /// The name of an ipset.
    IpSet,
    /// The addresses and ports that are looked up in the ipset.
    IpSetFlags,
    /// A comment for the user.
    Comment,
}

/// The reason why a text is not a value of its attribute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
#[non_exhaustive]
pub struct LiteralError {
    /// The text.
    pub text: String,
    /// A description of valid values and their syntax.
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

impl ValueType {
    /// Returns whether a variable can be used in place of a value.
    pub fn takes_variables(self) -> bool {
        !matches!(
            self,
            ValueType::U8
                | ValueType::Boolean
                | ValueType::TcpFlags
                | ValueType::State
                | ValueType::IpSetFlags
                | ValueType::Comment
        )
    }

    /// Parses a value.
    ///
    /// # Errors
    /// Returns an error if the text is not a value of this kind.
    pub fn read(self, text: &str) -> Result<Literal, LiteralError> {
        let number = |least: u32, most: u32, names: &[(u32, &'static str)]| {
            if let Some((value, _)) = names.iter().find(|(_, name)| self.same_word(name, text)) {
                return Some(Literal::Number { value: *value, hex: false });
            }
            let (value, hex) = number(text)?;
            // A number that has a name is written by its name.
            let hex = hex && named(names, value).is_none();
            (least..=most).contains(&value).then_some(Literal::Number { value, hex })
        };
        let read = match self {
            ValueType::Mac => text.parse().ok().map(Literal::Mac),
            ValueType::MacMask => text.parse().ok().map(Literal::MacMask),
            ValueType::V4 => text.parse().ok().map(Literal::V4),
            ValueType::V4Mask => v4_mask(text).map(Literal::V4Mask),
            ValueType::V6 => text.parse().ok().map(Literal::V6),
            ValueType::V6Mask => v6_mask(text).map(Literal::V6Mask),
            ValueType::U6 => number(0, 63, &[]),
            ValueType::U8 => number(0, 0xff, &[]),
            ValueType::U12 => number(0, 0xfff, &[]),
            ValueType::U16 => number(0, 0xffff, &[]),
            ValueType::U32 => number(0, u32::MAX, &[]),
            ValueType::EtherType => number(0x600, 0xffff, &ETHER_TYPES),
            ValueType::IpProtocol => number(0, 0xff, &IP_PROTOCOLS),
            // libvirt's schema has no hexadecimal form of an opcode, so it is always written in
            // decimal.
            ValueType::Opcode => number(0, 0xffff, &OPCODES).map(|opcode| match opcode {
                Literal::Number { value, .. } => Literal::Number { value, hex: false },
                other => other,
            }),
            ValueType::Boolean => {
                let found = BOOLEANS.iter().find(|(word, _)| *word == text);
                found.map(|(_, value)| Literal::Boolean(*value))
            }
            ValueType::TcpFlags => TcpFlags::read(text).map(Literal::TcpFlags),
            ValueType::State => States::read(text).map(Literal::State),
            ValueType::IpSet => text.parse::<IpSetName>().ok().map(Literal::IpSet),
            ValueType::IpSetFlags => SetDirection::read_list(text).map(Literal::IpSetFlags),
            ValueType::Comment => text.parse::<Comment>().ok().map(Literal::Comment),
        };
        read.ok_or_else(|| LiteralError { text: text.to_owned(), what: self.what() })
    }

    /// Writes a value of this kind.
    pub fn write(self, literal: &Literal) -> String {
        match (self, literal) {
            (ValueType::EtherType, Literal::Number { value, .. }) => named(&ETHER_TYPES, *value),
            (ValueType::IpProtocol, Literal::Number { value, .. }) => named(&IP_PROTOCOLS, *value),
            (ValueType::Opcode, Literal::Number { value, .. }) => named(&OPCODES, *value),
            _ => None,
        }
        .map_or_else(|| literal.to_string(), str::to_owned)
    }

    /// Returns a description of valid values and their syntax.
    fn what(self) -> &'static str {
        match self {
            ValueType::Mac => {
                "a MAC address: write six pairs of hexadecimal digits, such as 52:54:00:12:34:56"
            }
            ValueType::MacMask => {
                "a mask of a MAC address: write six pairs of hexadecimal digits, such as ff:ff:ff:00:00:00"
            }
            ValueType::V4 => "an IPv4 address: write one such as 192.0.2.1",
            ValueType::V4Mask => {
                "an IPv4 mask: write a prefix length from 0 to 32, or a netmask without gaps such as 255.255.255.0"
            }
            ValueType::V6 => "an IPv6 address: write one such as 2001:db8::1",
            ValueType::V6Mask => {
                "an IPv6 mask: write a prefix length from 0 to 128, or a netmask without gaps such as ffff:ffff::"
            }
            ValueType::U6 => "a number from 0 to 63 (0x3f)",
            ValueType::U8 => "a number from 0 to 255 (0xff)",
            ValueType::U12 => "a number from 0 to 4095 (0xfff)",
            ValueType::U16 => "a number from 0 to 65535 (0xffff)",
            ValueType::U32 => "a number from 0 to 4294967295 (0xffffffff)",
            ValueType::EtherType => {
                "an Ethernet protocol: write ipv4, ipv6, arp, rarp, vlan, or a number from 1536 (0x600) to 65535 (0xffff)"
            }
            ValueType::IpProtocol => {
                "an IP protocol: write tcp, udp, udplite, esp, ah, icmp, igmp, sctp, icmpv6, or a number from 0 to 255 (0xff)"
            }
            ValueType::Opcode => {
                "an ARP operation: write Request, Reply, Request_Reverse, Reply_Reverse, DRARP_Request, DRARP_Reply, DRARP_Error, InARP_Request, ARP_NAK, or a number from 0 to 65535"
            }
            ValueType::Boolean => "yes or no: write true or false",
            ValueType::TcpFlags => {
                "a set of TCP flags: write MASK/SET, each NONE, ALL or some of SYN,ACK,URG,PSH,FIN,RST, such as SYN/ALL"
            }
            ValueType::State => {
                "a state of connections: write NONE, or some of NEW,ESTABLISHED,RELATED,INVALID"
            }
            ValueType::IpSet => {
                "an ipset's name: use 1 to 31 letters, digits, '-', '.', '_', ':', '+' or spaces"
            }
            ValueType::IpSetFlags => "a list of 1 to 6 of src and dst: write one such as src,dst",
            ValueType::Comment => "a comment: use at most 256 bytes without control characters",
        }
    }

    /// Returns whether a text is this name. libvirt's schema allows some ARP operations in small
    /// letters; all other names are case-sensitive.
    fn same_word(self, word: &str, text: &str) -> bool {
        match self {
            ValueType::Opcode => word.eq_ignore_ascii_case(text),
            _ => word == text,
        }
    }
}

fn named(names: &[(u32, &'static str)], value: u32) -> Option<&'static str> {
    names.iter().find(|(number, _)| *number == value).map(|(_, name)| *name)
}

/// Parses a number; also returns whether it is hexadecimal.
fn number(text: &str) -> Option<(u32, bool)> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // A sign is not a digit.
    let valid = digits.chars().all(|c| c.is_digit(radix));
    let value = if valid { u32::from_str_radix(digits, radix).ok() } else { None };
    value.map(|value| (value, radix == 16))
}

/// Parses a prefix length of at most `most`.
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
