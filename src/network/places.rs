//! Which part of a network an error is about, and where that part is in the document.

use std::collections::BTreeMap;

use crate::xml::Place;

/// A part of a [`super::Network`]; numbers are indices into its lists.
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
    Ip(usize),
    Tftp(usize),
    Dhcp(usize),
    Range(usize, usize),
    Host(usize, usize),
    Bootp(usize),
    Route(usize),
}

/// Where the parts of a network are in the document it came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<Part, Place>);

impl Places {
    /// Remembers where a part is.
    pub fn note(&mut self, part: Part, place: Place) {
        self.0.insert(part, place);
    }

    /// Where a part is; of one that the document leaves out, where the document starts.
    pub fn of(&self, part: Part) -> Place {
        let whole = || self.0.get(&Part::Network);
        self.0.get(&part).or_else(whole).copied().unwrap_or(Place::START)
    }
}
