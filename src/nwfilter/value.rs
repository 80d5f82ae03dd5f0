//! The values of attributes, and the names that filters use: each type can only hold what the
//! format has.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::flags::{SetDirection, States, TcpFlags};
use crate::types::EthernetAddress;
use crate::types::checked_text::checked_text;

/// Why a text is not a value of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a filter's name.
    #[error(
        "{0:?} cannot name a filter: use 1 to 128 letters, digits, '-', '.' or '_', a letter or '_' first"
    )]
    Filter(String),
    /// Not a chain's name.
    #[error(
        "{0:?} is not a chain: write root, or at most 12 letters, digits, '-', '.', '_' or ':' that start with mac, vlan, stp, arp, rarp, ipv4 or ipv6"
    )]
    Chain(String),
    /// Not a variable's name.
    #[error("{0:?} cannot name a variable: use 1 to 64 letters, digits or '_'")]
    VariableName(String),
    /// Not a variable's value.
    #[error(
        "{0:?} cannot be a variable's value: use 1 to 255 letters, digits, '_', '.', ':' or '/'"
    )]
    VariableValue(String),
    /// Not the use of a variable.
    #[error("{0:?} is not a variable: write $NAME, $NAME[INDEX] or $NAME[@ITERATOR]")]
    VariableUse(String),
    /// An iterator that libvirt has no number for.
    #[error("{0:?} has too high a number: use iterators from @0 to @1000")]
    Iterator(String),
    /// Not the name of an ipset.
    #[error("{0:?} is not an ipset's name")]
    IpSet(String),
    /// Not a comment.
    #[error("{0:?} is not a comment")]
    Comment(String),
}

checked_text!(
    /// What a filter is called; also the name of its file. libvirt's schema takes letters of other
    /// scripts, too; netlaunch does not, and limits the length.
    FilterName, ValueError::Filter, |text| {
        let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        starts && text.len() <= 128 && of(text, b"-._")
    }
);
checked_text!(
    /// A chain of rules: `root`, or a name that starts with the protocol of the frames that it
    /// sees.
    ChainName, ValueError::Chain, |text| {
        text.len() <= 12 && of(text, b"-._:") && ChainKind::of(text).is_some()
    }
);
checked_text!(
    /// What a variable is called.
    VariableName, ValueError::VariableName, |text| {
        (1..=64).contains(&text.len()) && of(text, b"_")
    }
);
checked_text!(
    /// One of a variable's values. What it may be depends on where the variable is used.
    VariableValue, ValueError::VariableValue, |text| {
        (1..=255).contains(&text.len()) && of(text, b"_.:/")
    }
);
checked_text!(
    /// The name of an ipset.
    IpSetName, ValueError::IpSet, |text| {
        (1..=31).contains(&text.len()) && of(text, b"_.:-+ ")
    }
);
checked_text!(
    /// Words for people, which end up in the firewall's own comments: 256 bytes at most (libvirt's
    /// and the kernel's limit), no control characters.
    Comment, ValueError::Comment, |text| {
        text.len() <= 256 && !text.contains(char::is_control)
    }
);

/// Whether a text is of letters, digits and these.
fn of(text: &str, others: &[u8]) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
}

/// Which frames a chain sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainKind {
    /// All of them, first; the other chains are called from it.
    Root,
    /// All of them.
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

    /// The priority of chains that have none of their own: where they stand among root's rules.
    pub fn default_priority(self) -> i32 {
        let found = ChainKind::PREFIXES.iter().find(|(kind, ..)| *kind == self);
        found.map_or(0, |(.., priority)| *priority)
    }
}

impl ChainName {
    /// The chain that sees all frames first.
    pub fn root() -> Self {
        ChainName("root".to_owned())
    }

    /// Which frames it sees.
    pub fn kind(&self) -> ChainKind {
        // Checked when it was made.
        ChainKind::of(&self.0).unwrap_or(ChainKind::Root)
    }
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// This.
    Literal(Literal),
    /// What a variable is.
    Variable(VariableUse),
}

/// A value that is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Literal {
    /// An Ethernet address.
    Mac(EthernetAddress),
    /// The bits of an Ethernet address that count.
    MacMask(EthernetAddress),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// How many leading bits of an IPv4 address count.
    V4Mask(u8),
    /// An IPv6 address.
    V6(Ipv6Addr),
    /// How many leading bits of an IPv6 address count.
    V6Mask(u8),
    /// A number.
    Number {
        /// It.
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
    /// What is looked up in it, one for each of the set's dimensions, 1 to 6.
    IpSetFlags(Vec<SetDirection>),
    /// Words for people.
    Comment(Comment),
}

/// As libvirt writes it; a number that has a name is for [`super::Kind::write`].
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

/// As inet_ntop(3) of the C library does, which libvirt uses: addresses of 32 bits after zeros are
/// written with an IPv4 address at the end, not only the mapped ones (RFC 4291, 2.5.5).
fn v6(address: Ipv6Addr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
            write!(f, "::{}", Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        _ => fmt::Display::fmt(&address, f),
    }
}

/// A variable where a value could be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VariableUse {
    /// Which.
    pub name: VariableName,
    /// Which of its values.
    pub access: Access,
}

/// Which of a variable's values are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Access {
    /// One after the other. Variables with the same iterator go together: the first values, then
    /// the second ones. Different iterators make every combination.
    Iterate(u32),
    /// This one; the first is 0.
    Index(u32),
}

/// The highest number of an iterator (libvirt's limit).
const MAX_ITERATOR: u32 = 1000;

impl FromStr for VariableUse {
    type Err = ValueError;

    /// Takes spaces where libvirt's schema does.
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
