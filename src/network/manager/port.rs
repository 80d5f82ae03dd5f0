//! The settings of a network's ports and of its bridge: limits of traffic, VLANs and isolation.

use super::ManagerError;
use crate::network::{Network, NetworkName};
use crate::types::{Bandwidth, PortGroupName, PortSettings};

/// Returns the settings of a guest's port on a running network. Without a group, they are those of
/// the default group, if the network has one.
///
/// # Errors
/// [`ManagerError::NoPortGroup`].
pub(super) fn settings(
    name: &NetworkName,
    _network: Option<&Network>,
    group: Option<&PortGroupName>,
) -> Result<PortSettings, ManagerError> {
    match group {
        None => Ok(PortSettings::default()),
        Some(group) => Err(ManagerError::NoPortGroup {
            name: name.clone(),
            group: group.clone(),
            groups: Vec::new(),
        }),
    }
}

/// Returns whether the ports of the network have VLANs, so that its bridge must keep them apart.
pub(super) fn has_vlans(_network: &Network) -> bool {
    false
}

/// Returns the limits of the traffic between the host and all guests.
pub(super) fn bandwidth(_network: &Network) -> Bandwidth {
    Bandwidth::default()
}
