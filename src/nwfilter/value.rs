//! The values of attributes, and the names in filters; each type can contain only valid values of
//! the format.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::flags::{SetDirection, States, TcpFlags};
use crate::types::EthernetAddress;
use crate::types::checked_text::checked_text;
pub use crate::types::{FilterName, VariableName, VariableValue};

/// The reason why a text is not a value of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The text is not a chain's name.
    #[error(
        "{0:?} is not a chain: write root, or at most 12 letters, digits, '-', '.', '_' or ':' that start with mac, vlan, stp, arp, rarp, ipv4 or ipv6"
    )]
    Chain(String),
    /// The text does not use a variable.
    #[error("{0:?} is not a variable: write $NAME, $NAME[INDEX] or $NAME[@ITERATOR]")]
    VariableUse(String),
    /// The number of the iterator is above libvirt's limit.
    #[error("{0:?} has too high a number: use iterators from @0 to @1000")]
    Iterator(String),
    /// The text is not the name of an ipset.
    #[error("{0:?} is not an ipset's name")]
    IpSet(String),
    /// The text is not a comment.
    #[error("{0:?} is not a comment")]
    Comment(String),
}

checked_text!(
    /// The name of a chain of rules: `root`, or a name that starts with the protocol of the chain's
    /// frames.
    ChainName, ValueError::Chain, |text| {
        text.len() <= 12 && of(text, b"-._:") && ChainKind::of(text).is_some()
    }
);
checked_text!(
    /// The name of an ipset.
    IpSetName, ValueError::IpSet, |text| {
        (1..=31).contains(&text.len()) && of(text, b"_.:-+ ")
    }
);
checked_text!(
    /// Text for the user, which becomes a comment of the firewall's rule: at most 256 bytes (the
    /// limit of libvirt and of the kernel), without control characters.
    Comment, ValueError::Comment, |text| {
        text.len() <= 256 && !text.contains(char::is_control)
    }
);

/// Returns whether a text consists of letters, digits and these characters.
fn of(text: &str, others: &[u8]) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
}

/// The kind of frames that a chain sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainKind {
    /// All frames, before the other chains, which are called from this one.
    Root,
    /// All frames.
    Mac,
    /// Frames to the bridges' group address (IEEE 802.1D, 7.12.3).
    Stp,
    /// Frames with an IEEE 802.1Q tag.
    Vlan,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// ARP.
    Arp,
    /// RARP.
    Rarp,
}

impl ChainKind {
    const PREFIXES: [(ChainKind, &'static str, i32); 7] = [
        (ChainKind::Stp, "stp", -810),
        (ChainKind::Mac, "mac", -800),
        (ChainKind::Vlan, "vlan", -750),
        (ChainKind::Ipv4, "ipv4", -700),
        (ChainKind::Ipv6, "ipv6", -600),
        (ChainKind::Arp, "arp", -500),
        (ChainKind::Rarp, "rarp", -400),
    ];

    fn of(text: &str) -> Option<ChainKind> {
        if text == "root" {
            return Some(ChainKind::Root);
        }
        let found = ChainKind::PREFIXES.iter().find(|(_, prefix, _)| text.starts_with(prefix));
        found.map(|(kind, ..)| *kind)
    }

    /// Returns the default priority of a chain: its position among root's rules.
    pub fn default_priority(self) -> i32 {
        let found = ChainKind::PREFIXES.iter().find(|(kind, ..)| *kind == self);
        found.map_or(0, |(.., priority)| *priority)
    }
}

impl ChainName {
    /// Returns the name of the root chain, which sees all frames first.
    pub fn root() -> Self {
        ChainName("root".to_owned())
    }

    /// Returns the kind of frames that the chain sees.
    pub fn kind(&self) -> ChainKind {
        // The name was checked when this value was made.
        ChainKind::of(&self.0).unwrap_or(ChainKind::Root)
    }
}

/// The value of an attribute. Exhaustive, because a value is written or filled in later.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// A constant.
    Literal(Literal),
    /// A variable.
    Variable(VariableUse),
}

/// A constant value. Exhaustive, because each kind is written in another way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Literal {
    /// An Ethernet address.
    Mac(EthernetAddress),
    /// A mask of an Ethernet address: the bits that are compared.
    MacMask(EthernetAddress),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// A mask of an IPv4 address: the number of leading bits that are compared.
    V4Mask(u8),
    /// An IPv6 address.
    V6(Ipv6Addr),
    /// A mask of an IPv6 address: the number of leading bits that are compared.
    V6Mask(u8),
    /// A number.
    Number {
        /// The value.
        value: u32,
        /// Whether it is written in hexadecimal.
        hex: bool,
    },
    /// Yes or no.
    Boolean(bool),
    /// TCP flags.
    TcpFlags(TcpFlags),
    /// States of connections.
    State(States),
    /// An ipset.
    IpSet(IpSetName),
    /// The sides to look up, one for each of the set's dimensions, 1 to 6.
    IpSetFlags(Vec<SetDirection>),
    /// A comment for the user.
    Comment(Comment),
}

/// Writes the value as libvirt does. [`super::ValueType::write`] writes numbers by name.
impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Mac(address) | Literal::MacMask(address) => address.fmt(f),
            Literal::V4(address) => address.fmt(f),
            Literal::V6(address) => v6(*address, f),
            Literal::V4Mask(length) | Literal::V6Mask(length) => length.fmt(f),
            Literal::Number { value, hex: true } => write!(f, "{value:#x}"),
            Literal::Number { value, hex: false } => value.fmt(f),
            Literal::Boolean(value) => value.fmt(f),
            Literal::TcpFlags(flags) => flags.fmt(f),
            Literal::State(states) => states.fmt(f),
            Literal::IpSet(name) => name.fmt(f),
            Literal::IpSetFlags(flags) => {
                for (index, flag) in flags.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{}", flag.name())?;
                }
                Ok(())
            }
            Literal::Comment(comment) => comment.fmt(f),
        }
    }
}

/// Writes an address as inet_ntop(3) of the C library does, which libvirt uses: every address with
/// only its last 32 bits set ends in an IPv4 address, not only the mapped ones (RFC 4291, 2.5.5).
fn v6(address: Ipv6Addr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
            write!(f, "::{}", Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        _ => fmt::Display::fmt(&address, f),
    }
}

/// The use of a variable in place of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct VariableUse {
    /// The name of the variable.
    pub name: VariableName,
    /// The selection among its values.
    pub access: Access,
}

/// The selection among a variable's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Access {
    /// All values, one after the other. Variables with the same iterator advance together: the
    /// first values, then the second ones. Different iterators make every combination.
    Iterate(u32),
    /// The value with this index; the first is 0.
    Index(u32),
}

/// The highest number of an iterator (libvirt's limit).
const MAX_ITERATOR: u32 = 1000;

impl FromStr for VariableUse {
    type Err = ValueError;

    /// Allows spaces in the places in which libvirt's schema does.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError::VariableUse(text.to_owned());
        let body = text.strip_prefix('$').ok_or_else(error)?.trim_matches(' ');
        let Some((name, rest)) = body.split_once('[') else {
            let name = body.parse().map_err(|_| error())?;
            return Ok(VariableUse { name, access: Access::Iterate(0) });
        };
        let inside = rest.strip_suffix(']').ok_or_else(error)?.trim_matches(' ');
        let (digits, iterates) = match inside.strip_prefix('@') {
            Some(digits) => (digits, true),
            None => (inside, false),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        let name = name.parse().map_err(|_| error())?;
        let access = match (digits.parse(), iterates) {
            (Ok(number), true) if number <= MAX_ITERATOR => Access::Iterate(number),
            (_, true) => return Err(ValueError::Iterator(text.to_owned())),
            (Ok(number), false) => Access::Index(number),
            (Err(_), false) => return Err(error()),
        };
        Ok(VariableUse { name, access })
    }
}

/// Without the `$`: `A`, `A[@1]`, `A[1]`.
impl fmt::Display for VariableUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.access {
            Access::Iterate(0) => self.name.fmt(f),
            Access::Iterate(number) => write!(f, "{}[@{number}]", self.name),
            Access::Index(number) => write!(f, "{}[{number}]", self.name),
        }
    }
}
