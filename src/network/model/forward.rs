//! The connection between the guests of a network and other networks.

use std::fmt;
use std::net::Ipv4Addr;

use crate::types::{InterfaceName, PortRange};

/// The connection between the guests and other networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// Guests and other networks do not reach each other.
    Isolated,
    /// Guests reach other networks with an address of the host as the source address. Other
    /// networks do not reach the guests.
    Nat(Nat),
    /// Guests and other networks reach each other, with the guests' own addresses.
    Route {
        /// The interfaces for forwarding, in both directions; an empty list means every interface.
        devs: Vec<InterfaceName>,
    },
    /// The host's own firewall decides; netlaunch makes no rules.
    Open,
    /// The guests join a bridge that exists already. netlaunch changes nothing of the host: the
    /// network has no address, no rules and no services of its own.
    Bridge,
}

impl Forward {
    /// Returns the mode's name in XML. An isolated network has no `<forward>`, so its name is only
    /// for people.
    pub fn name(&self) -> &'static str {
        match self {
            Forward::Isolated => "isolated",
            Forward::Nat(_) => "nat",
            Forward::Route { .. } => "route",
            Forward::Open => "open",
            Forward::Bridge => "bridge",
        }
    }

    /// Returns the only interfaces for forwarding; an empty list means every interface.
    pub fn devs(&self) -> &[InterfaceName] {
        match self {
            Forward::Nat(nat) => &nat.devs,
            Forward::Route { devs } => devs,
            Forward::Isolated | Forward::Open | Forward::Bridge => &[],
        }
    }
}

/// The settings of network address translation.
///
/// [`Nat::default`] translates IPv4 only, to the address of the interface that a packet leaves by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nat {
    /// The interfaces for forwarding; an empty list means every interface.
    pub devs: Vec<InterfaceName>,
    /// Whether IPv6 is translated too; otherwise it is routed.
    pub ipv6: bool,
    /// The IPv4 source addresses; `None` means the address of the interface.
    pub addresses: Option<AddressRange>,
    /// The TCP and UDP source ports; `None` lets the kernel choose.
    pub ports: Option<PortRange>,
}

/// The IPv4 addresses `first..=last`; the range is never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

impl AddressRange {
    /// Makes the range `first..=last`, or `None` if `first` is greater than `last`.
    pub fn new(first: Ipv4Addr, last: Ipv4Addr) -> Option<Self> {
        (first <= last).then_some(AddressRange { first, last })
    }

    /// Returns the lowest address.
    pub fn first(self) -> Ipv4Addr {
        self.first
    }

    /// Returns the highest address.
    pub fn last(self) -> Ipv4Addr {
        self.last
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}
