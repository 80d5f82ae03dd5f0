//! The ports that the rules of `netlaunch nwfilter watch` are about.

use std::collections::BTreeMap;

use super::nwfilter_bind::owner;
use super::nwfilter_config::WatchRule;
use crate::firewall::port_guard::GuardRule;
use crate::nwfilter::Binding;
use crate::nwfilter::port::{Site, site_of};
use crate::sys::netlink::{GuestTap, Link};
use crate::types::{InterfaceName, Mac, MacPrefix};

impl WatchRule {
    /// Returns the rule of the guard, which the guest's address does not narrow: a guest can forge
    /// the address.
    pub(super) fn guard(&self) -> GuardRule {
        GuardRule { port: self.port.clone(), bridge: self.bridge.clone() }
    }

    /// Returns the binding of a port to the filter of the rule, for a guest with this address.
    pub(super) fn binding(&self, port: &InterfaceName, mac: Mac) -> Binding {
        Binding {
            owner: owner(port),
            port: port.clone(),
            linkdev: None,
            mac,
            filter: self.filter.clone(),
            parameters: self.parameters.clone(),
        }
    }

    /// Returns whether the rule is about a port of this bridge, or of none.
    pub(super) fn is_about(&self, port: &str, bridge: Option<&str>) -> bool {
        let is_own = |own: &InterfaceName| bridge == Some(own.as_str());
        self.port.matches(port) && self.bridge.as_ref().is_none_or(is_own)
    }

    /// Returns whether the rule is about this port with a guest that has this address.
    pub(super) fn is_for(&self, port: &str, place: &WatchedPlace, mac: Mac) -> bool {
        self.is_about(port, place.bridge())
            && self.mac.as_ref().is_none_or(|prefix| prefix.matches(mac))
    }
}

/// A port that a rule is about, without a filter.
pub(super) struct Candidate {
    pub(super) port: InterfaceName,
    pub(super) place: WatchedPlace,
    /// The guest's address; `None` if only its first frame shows it.
    pub(super) mac: Option<Mac>,
    /// Whether the guest has chosen the address in its first frame.
    pub(super) mac_of_frame: bool,
    /// Whether it is the tap of a launch, which has no filter of its own.
    pub(super) of_launch: bool,
    /// Whether it is a macvtap that is on.
    pub(super) is_open_macvtap: bool,
}

/// The interface that a port shares with other ports.
#[derive(PartialEq, Eq)]
pub(super) enum WatchedPlace {
    Bridge(InterfaceName),
    /// The interface below a macvtap or macvlan; `None` if it is in another network namespace.
    Above(Option<InterfaceName>),
}

impl WatchedPlace {
    /// Returns the present place of an interface; `None` if it can have no filter.
    pub(super) fn of(link: &Link, links: &[Link]) -> Option<Self> {
        Some(match site_of(link, links).ok()? {
            Site::Bridge(bridge) => WatchedPlace::Bridge(bridge.name.parse().ok()?),
            Site::Interface(lower) => {
                WatchedPlace::Above(lower.and_then(|lower| lower.name.parse().ok()))
            }
        })
    }

    pub(super) fn bridge(&self) -> Option<&str> {
        match self {
            WatchedPlace::Bridge(bridge) => Some(bridge.as_str()),
            WatchedPlace::Above(_) => None,
        }
    }
}

impl Candidate {
    /// Returns the interface as a port that a rule is about. `learned` are the addresses from first
    /// frames, by the index of the port.
    pub(super) fn of(
        link: &Link,
        links: &[Link],
        rules: &[WatchRule],
        learned: &BTreeMap<u32, Mac>,
    ) -> Option<Self> {
        let place = WatchedPlace::of(link, links)?;
        let first = rules.iter().find(|rule| rule.is_about(&link.name, place.bridge()))?;
        let launch = GuestTap::of(link);
        // The launch binds its own filter before it turns the tap on.
        if launch.is_some() && !link.up {
            return None;
        }
        let peer = links
            .iter()
            .find(|other| Some(other.index) == link.peer && link.kind.as_deref() == Some("veth"));
        let of_rule = first.mac.as_ref().and_then(MacPrefix::whole);
        let of_launch = launch.is_some();
        let of_interface = match place {
            WatchedPlace::Bridge(_) => None,
            // The kernel gives the interface the frames for this address.
            WatchedPlace::Above(_) => Mac::new(link.mac?).ok(),
        };
        let mac = of_rule
            .or(of_interface)
            .or_else(|| launch.and_then(|tap| tap.home.mac))
            .or_else(|| Mac::new(peer?.mac?).ok());
        let of_frame = learned.get(&link.index).copied().filter(|_| mac.is_none());
        let is_macvtap = place.bridge().is_none() && link.kind.as_deref() == Some("macvtap");
        let port = link.name.parse().ok()?;
        Some(Candidate {
            port,
            place,
            mac: mac.or(of_frame),
            mac_of_frame: of_frame.is_some(),
            of_launch,
            is_open_macvtap: is_macvtap && link.up,
        })
    }
}
