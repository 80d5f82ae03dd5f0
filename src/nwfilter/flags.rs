//! Values that consist of several words: TCP flags, states of connections, the sides that are
//! looked up in an ipset.

use std::fmt;

/// TCP flags: those that are compared, and those of them that must be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TcpFlags {
    /// The bits that are compared, as in the TCP header (RFC 9293, 3.1).
    pub mask: u8,
    /// The bits that must be set. libvirt's format also allows bits that are not in the mask.
    pub flags: u8,
}

const TCP_FLAGS: [(u8, &str); 6] =
    [(0x01, "FIN"), (0x02, "SYN"), (0x04, "RST"), (0x08, "PSH"), (0x10, "ACK"), (0x20, "URG")];
/// The bits of `ALL`.
const ALL_TCP_FLAGS: u8 = 0x3f;

impl TcpFlags {
    pub(super) fn read(text: &str) -> Option<TcpFlags> {
        let (mask, flags) = text.split_once('/')?;
        Some(TcpFlags { mask: tcp_flags(mask)?, flags: tcp_flags(flags)? })
    }
}

fn tcp_flags(text: &str) -> Option<u8> {
    match text {
        // libvirt reads an empty half as NONE; its own test documents use `PSH/`.
        "NONE" | "" => Some(0),
        "ALL" => Some(ALL_TCP_FLAGS),
        _ => text.split(',').try_fold(0, |all, word| {
            let (bit, _) = TCP_FLAGS.iter().find(|(_, name)| *name == word)?;
            Some(all | bit)
        }),
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |bits: u8| match bits {
            0 => "NONE".to_owned(),
            ALL_TCP_FLAGS => "ALL".to_owned(),
            _ => {
                let set = TCP_FLAGS.iter().filter(|(bit, _)| bits & bit != 0);
                set.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
            }
        };
        write!(f, "{}/{}", words(self.mask), words(self.flags))
    }
}

/// States of connections, as the kernel tracks them. If no state is set, the value is `NONE`: the
/// rule tests single packets, without connection tracking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct States {
    /// The packet is the first of its connection.
    pub new: bool,
    /// The packet belongs to a connection with packets in both directions.
    pub established: bool,
    /// The packet is the first of a connection that another one announced, or an error about one.
    pub related: bool,
    /// The packet belongs to no connection and cannot start one.
    pub invalid: bool,
}

impl States {
    /// Returns whether this is `NONE`.
    pub fn is_none(self) -> bool {
        self == States::default()
    }

    pub(super) fn read(text: &str) -> Option<States> {
        let mut states = States::default();
        if text == "NONE" {
            return Some(states);
        }
        for word in text.split(',') {
            match word {
                "NEW" => states.new = true,
                "ESTABLISHED" => states.established = true,
                "RELATED" => states.related = true,
                "INVALID" => states.invalid = true,
                _ => return None,
            }
        }
        Some(states)
    }
}

impl fmt::Display for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.new, "NEW"),
            (self.established, "ESTABLISHED"),
            (self.related, "RELATED"),
            (self.invalid, "INVALID"),
        ];
        let words: Vec<_> = all.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
        f.write_str(if words.is_empty() { "NONE" } else { "" })?;
        f.write_str(&words.join(","))
    }
}

/// The side of a packet that is looked up in an ipset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetDirection {
    /// The source.
    Src,
    /// The destination.
    Dst,
}

impl SetDirection {
    /// Returns the side's name in the format.
    pub fn name(self) -> &'static str {
        match self {
            SetDirection::Src => "src",
            SetDirection::Dst => "dst",
        }
    }

    pub(super) fn read_list(text: &str) -> Option<Vec<SetDirection>> {
        let read = |word: &str| match word.to_ascii_lowercase().as_str() {
            "src" => Some(SetDirection::Src),
            "dst" => Some(SetDirection::Dst),
            _ => None,
        };
        let list: Option<Vec<_>> = text.split(',').map(read).collect();
        list.filter(|list| list.len() <= 6)
    }
}
