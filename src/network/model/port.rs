//! The properties of the guests' ports: limits of traffic, VLANs and isolation.
//!
//! A network has them for all its guests, and a port group for the guests that choose it.

use crate::network::values::PortGroupName;
use crate::types::{Bandwidth, Vlan};

/// The properties of a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortProperties {
    /// The limits of traffic. On a network they hold for all its guests together, on a port group
    /// for each guest alone.
    pub bandwidth: Bandwidth,
    /// The VLANs; `None` means that frames pass without a change.
    pub vlan: Option<Vlan>,
    /// Whether the guest reaches no other isolated guest of the same bridge; `None` means that
    /// the document does not say it, which has the same effect as `no`.
    pub isolated: Option<bool>,
    /// libvirt's `trustGuestRxFilters`. It has an effect on macvtap only, so it is kept and has
    /// none here.
    pub trust_guest_rx_filters: Option<bool>,
}

impl PortProperties {
    /// Returns whether the guest reaches no other isolated guest.
    pub fn is_isolated(&self) -> bool {
        self.isolated == Some(true)
    }
}

/// A named set of port properties, which a guest chooses by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortGroup {
    /// Its name.
    pub name: PortGroupName,
    /// Whether guests that choose no group get this one.
    pub default: bool,
    /// The properties of the guest's port.
    pub port: PortProperties,
}

impl super::Network {
    /// Returns the port group with this name. Without a name, it is the default group, if the
    /// network has one.
    pub fn port_group(&self, name: Option<&PortGroupName>) -> Option<&PortGroup> {
        self.port_groups.iter().find(|group| match name {
            Some(name) => group.name == *name,
            None => group.default,
        })
    }
}
