//! The parts of a network that an error can be about, and their places in the document.
//!
//! The reader notes the place of each [`Part`] while it reads. A check works on the
//! [`super::Network`] alone and names a part; [`Places::of`] then turns the part into a line
//! and a column.

use std::collections::BTreeMap;

use crate::xml::Position;

/// A part of a [`super::Network`]; each number is an index into one of its lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the part of the model that has its name")]
pub enum Part {
    Network,
    Name,
    Uuid,
    Bridge,
    Mac,
    Mtu,
    Forward,
    NatAddresses,
    NatPorts,
    Domain,
    Dns,
    Bandwidth,
    Ip(usize),
    Tftp(usize),
    Dhcp(usize),
    Range(usize, usize),
    Host(usize, usize),
    Bootp(usize),
    Route(usize),
    PortGroup(usize),
    DnsmasqOption(usize),
}

/// The places of a network's parts in its document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<Part, Position>);

impl Places {
    /// Stores the place of a part.
    pub fn note(&mut self, part: Part, place: Position) {
        self.0.insert(part, place);
    }

    /// Returns the place of a part, or the start of the document's element if the document leaves
    /// the part out.
    pub fn of(&self, part: Part) -> Position {
        let whole = || self.0.get(&Part::Network);
        self.0.get(&part).or_else(whole).copied().unwrap_or(Position::START)
    }
}
