//! Restores the bridge, addresses, routes and kernel settings of a running network.
//!
//! A missing bridge is created again like the bridge of a start. For an existing bridge the
//! faults of `inspect` are restored in three stages: the link, the addresses, the routes. An
//! interface with the bridge's name that the start did not make is never changed: the reload
//! fails with a message for the administrator.

use super::existing::{check_bridge, is_existing};
use super::fault::BridgeProperty;
use super::inspect::{Bridge, SubnetRoute, bridge_faults, bridge_of, limits_fault, subnet_route};
use super::step::StartInProgress;
use super::{Fault, Manager, ManagerError, NetworkStatus};
use crate::network::Network;
use crate::sys::netlink::{Netlink, Route, Undo};
use crate::sys::traffic;

/// The result of a repair.
#[derive(Debug, Default)]
pub(super) struct Repaired {
    /// The parts that were missing, one phrase each.
    pub(super) missing: Vec<String>,
    /// Whether the bridge was created again. A dnsmasq that is bound to the earlier bridge does not
    /// serve the new one.
    pub(super) recreated: bool,
}

impl Manager {
    /// Restores the bridge of a running network with its addresses and routes, and the kernel
    /// settings of its start. Of a network on a bridge of the host, nothing can be restored.
    ///
    /// # Errors
    /// [`ManagerError`]; the status file records each step that was done.
    pub(super) async fn repair(
        &self,
        network: &Network,
        status: &mut NetworkStatus,
    ) -> Result<Repaired, ManagerError> {
        let netlink = Netlink::open()?;
        let mut host = netlink.host().await?;
        let mut repaired = Repaired::default();
        if is_existing(network) {
            check_bridge(network, &host)?;
            return Ok(repaired);
        }
        let bridge = &network.bridge.name;
        match bridge_of(status, &host) {
            Bridge::Replaced => {
                let (name, bridge) = (network.name.clone(), bridge.clone());
                return Err(ManagerError::Replaced { name, bridge });
            }
            Bridge::Renamed(now) => {
                let (name, bridge) = (network.name.clone(), bridge.clone());
                return Err(ManagerError::Renamed { name, bridge, now });
            }
            Bridge::Missing => {
                // An earlier reload was killed while it created the bridge.
                for undo in &status.links {
                    if let Undo::Marked { .. } = undo {
                        netlink.undo(undo).await?;
                    }
                }
                status.links.clear();
                let start = StartInProgress { manager: self, netlink: &netlink, host: &host };
                start.link(network, status).await?;
                status.write()?;
                repaired.missing.push(format!("the bridge {bridge} was gone"));
                repaired.recreated = true;
            }
            Bridge::There(_) => {
                let start = StartInProgress { manager: self, netlink: &netlink, host: &host };
                repaired.missing = start.relink(network, status).await?;
            }
        }
        host = netlink.host().await?;
        let start = StartInProgress { manager: self, netlink: &netlink, host: &host };
        repaired.missing.extend(start.settings(network, status)?);
        Ok(repaired)
    }
}

impl StartInProgress<'_> {
    /// Restores the missing parts of an existing bridge. Returns these parts.
    async fn relink(
        &self,
        network: &Network,
        status: &mut NetworkStatus,
    ) -> Result<Vec<String>, ManagerError> {
        let mut missing = self.bridge_settings(network)?;
        let stages: [fn(&Fault) -> bool; 3] = [
            |fault| matches!(fault, Fault::BridgeChanged { .. } | Fault::BridgeDown(_)),
            |fault| matches!(fault, Fault::AddressMissing { .. }),
            |fault| matches!(fault, Fault::RouteMissing { .. }),
        ];
        let mut host = self.netlink.host().await?;
        for stage in stages {
            let mut faults = bridge_faults(network, &host);
            faults.retain(stage);
            // The bridge goes up last: the kernel makes its link-local address from the MAC
            // address.
            faults.sort_by_key(|fault| matches!(fault, Fault::BridgeDown(_)));
            for fault in faults {
                missing.push(self.restore(network, status, fault).await?);
            }
            // A bridge that was down has lost its routes and its IPv6 addresses.
            host = self.netlink.host().await?;
        }
        if let Some(fault) = limits_fault(network, &host).await? {
            missing.push(self.restore(network, status, fault).await?);
        }
        let bridge = &network.bridge.name;
        let index = host.link(bridge).map(|link| link.index);
        for own in network.ips.iter().map(|ip| ip.net) {
            if index.map(|index| subnet_route(&host, index, &own)) == Some(SubnetRoute::Replaced) {
                tracing::warn!(
                    "the route to {} through {bridge} is gone, and the host has another one in \
                     its place: check the firewall, which names the fix",
                    own.trunc()
                );
            }
        }
        status.write()?;
        Ok(missing)
    }

    /// Restores the part of a bridge that has a fault of [`bridge_faults`] or [`limits_fault`].
    /// Returns that part, as a phrase.
    async fn restore(
        &self,
        network: &Network,
        status: &mut NetworkStatus,
        fault: Fault,
    ) -> Result<String, ManagerError> {
        let (bridge, netlink) = (&network.bridge.name, self.netlink);
        Ok(match fault {
            Fault::BridgeChanged { property, .. } => {
                let had = match property {
                    BridgeProperty::Mac(mac) => {
                        netlink.set_mac(bridge, mac).await?;
                        "another MAC address"
                    }
                    BridgeProperty::Mtu { wanted, .. } => {
                        netlink.set_mtu(bridge, wanted).await?;
                        "another MTU"
                    }
                    BridgeProperty::ArpOff => {
                        netlink.arp_on(bridge).await?;
                        "ARP off"
                    }
                    BridgeProperty::Stp(on) => {
                        netlink.set_stp(bridge, !on).await?;
                        if on { "STP on" } else { "STP off" }
                    }
                    BridgeProperty::VlansMixed => {
                        netlink.filter_vlans(bridge).await?;
                        "no VLANs"
                    }
                    BridgeProperty::Unlimited => {
                        let index = netlink.link(bridge).await?.index;
                        let path = &self.manager.settings.path;
                        let limits = &network.port.bandwidth;
                        traffic::limit_again(netlink, path, bridge, index, limits).await?;
                        "lost limits of its traffic"
                    }
                };
                format!("the bridge had {had}")
            }
            Fault::AddressMissing { address, instead, .. } => {
                for wrong in instead.into_iter().filter(|one| one.addr() == address.addr()) {
                    netlink.delete_address(bridge, wrong).await?;
                }
                record(status, netlink.add_address(bridge, address).await?);
                format!("the address {address} was missing")
            }
            Fault::RouteMissing { to, route, .. } => {
                match route {
                    Some(route) => {
                        let added = netlink.add_route(bridge, &super::step::route(&route)).await?;
                        record(status, added);
                    }
                    // The kernel removes the routes to the subnets with the bridge, so they need
                    // no record.
                    None => {
                        netlink.add_route(bridge, &Route { to, via: None, metric: None }).await?;
                    }
                }
                format!("the route to {to} was missing")
            }
            // The two functions return no other fault.
            _ => {
                netlink.up(bridge).await?;
                "the bridge was down".to_owned()
            }
        })
    }
}

/// Records what undoes a step, unless an earlier start has recorded it.
fn record(status: &mut NetworkStatus, undo: Undo) {
    if !status.links.contains(&undo) {
        status.links.push(undo);
    }
}
