//! The events of running networks, and the comparison that finds them.
//!
//! An event is the difference between two states, so the functions here are pure: the manager reads
//! the state again when the kernel reports a change.

use super::dnsmasq::DhcpLease;
use super::manager::NetworkStatus;
use crate::types::{InterfaceName, Mac, NetworkName};

/// An event of a running network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkEvent {
    /// The network.
    pub network: NetworkName,
    /// The change.
    pub what: NetworkChange,
}

/// A change of a running network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkChange {
    /// Its start is complete.
    Started {
        /// Its bridge.
        bridge: InterfaceName,
    },
    /// It has ended, or its end has begun.
    Stopped,
    /// A port that is turned on is on its bridge.
    PortAttached(AttachedPort),
    /// A port has left its bridge.
    PortDetached(AttachedPort),
    /// dnsmasq has given an address.
    LeaseAdded(DhcpLease),
    /// dnsmasq has changed the end or the name of a lease.
    LeaseRenewed(DhcpLease),
    /// A lease has ended, or the guest has given it back.
    LeaseRemoved(DhcpLease),
}

impl NetworkChange {
    /// Returns its name in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            NetworkChange::Started { .. } => "started",
            NetworkChange::Stopped => "stopped",
            NetworkChange::PortAttached(_) => "port-attached",
            NetworkChange::PortDetached(_) => "port-detached",
            NetworkChange::LeaseAdded(_) => "lease-added",
            NetworkChange::LeaseRenewed(_) => "lease-renewed",
            NetworkChange::LeaseRemoved(_) => "lease-removed",
        }
    }
}

/// A port on the bridge of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttachedPort {
    /// The name of the interface.
    pub port: String,
    /// The launch that the port belongs to, if it has a name in the port's alias.
    pub launch: Option<String>,
    /// The MAC address of the launch's guest.
    pub mac: Option<Mac>,
}

/// Returns the changes from the leases `old` to the leases `new`, first the removed ones.
pub(super) fn lease_changes(old: &[DhcpLease], new: &[DhcpLease]) -> Vec<NetworkChange> {
    let same = |a: &DhcpLease, b: &DhcpLease| {
        a.address == b.address && a.mac == b.mac && a.client == b.client
    };
    let removed = old.iter().filter(|old| !new.iter().any(|new| same(old, new)));
    let mut changes: Vec<_> = removed.cloned().map(NetworkChange::LeaseRemoved).collect();
    for lease in new {
        match old.iter().find(|old| same(old, lease)) {
            None => changes.push(NetworkChange::LeaseAdded(lease.clone())),
            Some(old) if old != lease => changes.push(NetworkChange::LeaseRenewed(lease.clone())),
            Some(_) => {}
        }
    }
    changes
}

/// Returns whether a network is a running one for the events, in its own network namespace.
pub(super) fn runs_here(status: &NetworkStatus) -> bool {
    status.complete && status.location() == super::manager::NetworkLocation::Here
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    fn lease(address: &str, last: u8, until: u64) -> DhcpLease {
        DhcpLease {
            address: address.parse().unwrap(),
            mac: Some(format!("52:54:00:00:00:{last:02x}").parse().unwrap()),
            name: None,
            client: None,
            association: None,
            until: Some(until),
        }
    }

    #[test]
    fn leases_are_added_renewed_and_removed() {
        let (a, b, c) =
            (lease("10.0.0.1", 1, 10), lease("10.0.0.2", 2, 10), lease("10.0.0.3", 3, 1));
        let longer = lease("10.0.0.2", 2, 20);
        let other = lease("10.0.0.1", 9, 10);
        assert_eq!(lease_changes(&[], slice::from_ref(&a)), [NetworkChange::LeaseAdded(a.clone())]);
        assert_eq!(
            lease_changes(&[a.clone(), b, c.clone()], &[a.clone(), longer.clone()]),
            [NetworkChange::LeaseRemoved(c), NetworkChange::LeaseRenewed(longer)]
        );
        assert_eq!(
            lease_changes(slice::from_ref(&a), slice::from_ref(&other)),
            [NetworkChange::LeaseRemoved(a), NetworkChange::LeaseAdded(other)]
        );
    }
}
