//! Networks on a bridge that the host made (`<forward mode='bridge'>`).
//!
//! Nothing of the host changes when such a network starts or ends: no link, no address, no rule, no
//! setting and no dnsmasq. The status file only says that the network runs. So all parts of the
//! bridge belong to the host's administrator, and a reload cannot restore them.

use super::{Fault, ManagerError};
use crate::network::{Forward, Network};
use crate::sys::netlink::HostNet;

/// Returns whether the network's bridge belongs to the host.
pub(super) fn is_existing(network: &Network) -> bool {
    network.forward == Forward::Bridge
}

/// Checks that the bridge is there.
///
/// # Errors
/// [`ManagerError::NoHostBridge`] if no interface has the name, or one that is no bridge.
pub(super) fn check_bridge(network: &Network, host: &HostNet) -> Result<(), ManagerError> {
    let bridge = &network.bridge.name;
    let why = match host.link(bridge) {
        Some(link) if link.bridge => return Ok(()),
        Some(_) => "that interface is no Linux bridge",
        None => "the host has no interface of that name",
    };
    Err(ManagerError::NoHostBridge { name: network.name.clone(), bridge: bridge.clone(), why })
}

/// Returns the faults of the bridge.
pub(super) fn faults(network: &Network, host: &HostNet) -> Vec<Fault> {
    let bridge = &network.bridge.name;
    match host.link(bridge) {
        Some(link) if link.bridge && link.up => Vec::new(),
        Some(link) if link.bridge => vec![Fault::HostBridgeDown(bridge.clone())],
        _ => vec![Fault::HostBridgeMissing(bridge.clone())],
    }
}
