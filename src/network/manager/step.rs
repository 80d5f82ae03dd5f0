//! The steps of a start that change links and kernel settings.
//!
//! A bridge is created with a random mark, and the mark is recorded before the bridge exists. So if
//! netlaunch is killed in between, the next command recognises the bridge by the mark and removes
//! it. The bridge keeps the mark until the status file identifies it by its number. Limits of its
//! traffic come before it is turned on. Addresses and routes can be recorded after they are added:
//! the kernel removes them with the bridge.

use std::time::Duration;

use rand::RngExt;

use super::status::NetworkStatus;
use super::{Manager, ManagerError, port};
use crate::network::{self, Network};
use crate::sys::netlink::sysctl::Key;
use crate::sys::netlink::{BridgeSpec, HostNet, Netlink, Route, Undo};
use crate::sys::tap::complete_checksums;
use crate::sys::traffic;

/// A start that is in progress.
pub(super) struct StartInProgress<'a> {
    pub(super) manager: &'a Manager,
    pub(super) netlink: &'a Netlink,
    pub(super) host: &'a HostNet,
}

/// A bridge that was made and is off.
pub(super) struct MadeBridge {
    /// Its number.
    pub(super) index: u32,
    /// The records that undo the bridge and its addresses.
    pub(super) links: Vec<Undo>,
}

/// Adds the record of a bridge that is about to be made, and returns the mark that it will have.
/// The caller writes `status` before it makes the bridge.
pub(super) fn record_mark(network: &Network, status: &mut NetworkStatus) -> u32 {
    let mark = rand::rng().random_range(1..=u32::MAX);
    status.links.push(Undo::Marked { name: network.bridge.name.clone(), mark });
    mark
}

impl StartInProgress<'_> {
    /// Creates the bridge with its addresses and routes. The status file then has the bridge; the
    /// caller writes the rest of `status`.
    pub(super) async fn link(
        &self,
        network: &Network,
        status: &mut NetworkStatus,
    ) -> Result<(), ManagerError> {
        let mark = record_mark(network, status);
        status.write()?;
        let MadeBridge { index, links } = self.make_bridge(network, mark).await?;
        status.links = links;
        status.write()?;
        self.turn_on(network, status, index).await
    }

    /// Creates the bridge with its addresses. It stays off and keeps the mark, which the status
    /// file must have already.
    pub(super) async fn make_bridge(
        &self,
        network: &Network,
        mark: u32,
    ) -> Result<MadeBridge, ManagerError> {
        let bridge = &network.bridge;
        let spec = BridgeSpec {
            name: bridge.name.clone(),
            mac: network.mac,
            stp: bridge.stp,
            forward_delay: Duration::from_secs(bridge.delay.into()),
            mtu: network.mtu.map(u32::from),
            vlan: port::bridge_vlan(network),
        };
        let (name, index) = (&spec.name, self.netlink.create_marked_bridge(&spec, mark).await?);
        let mut links = vec![Undo::Link { name: name.clone(), index }];
        self.bridge_settings(network)?;
        // The limits disappear with the bridge.
        let path = &self.manager.settings.path;
        let limits = &network.port.bandwidth;
        traffic::limit(self.netlink, path, name, index, limits).await?;
        complete_checksums(name)?;
        for ip in &network.ips {
            links.push(self.netlink.add_address_to(name, index, ip.net).await?);
        }
        Ok(MadeBridge { index, links })
    }

    /// Turns on the bridge of this number, which the status file must have by its number, and adds
    /// its routes.
    pub(super) async fn turn_on(
        &self,
        network: &Network,
        status: &mut NetworkStatus,
        index: u32,
    ) -> Result<(), ManagerError> {
        let name = &network.bridge.name;
        status.links.push(self.netlink.up_unmarked(name, index).await?);
        for route in &network.routes {
            status.links.push(self.netlink.add_route(name, &self::route(route)).await?);
        }
        Ok(())
    }

    /// Stops the bridge from giving itself an address and from accepting routes of a guest that
    /// poses as a router. Returns the settings that had other values.
    pub(super) fn bridge_settings(&self, network: &Network) -> Result<Vec<String>, ManagerError> {
        let bridge = &network.bridge.name;
        let ipv6 = network.ips.iter().any(|ip| ip.net.addr().is_ipv6());
        let mut changed = Vec::new();
        for (key, value) in [
            (Key::Ipv6Disabled(bridge.clone()), if ipv6 { "0" } else { "1" }),
            (Key::AcceptRa(bridge.clone()), "0"),
            (Key::Autoconf(bridge.clone()), "0"),
        ] {
            if self.of_the_bridge(&key, value)? {
                changed.push(format!("{key} was not {value}"));
            }
        }
        Ok(changed)
    }

    /// Sets a setting of the bridge, which the kernel removes with the bridge. A kernel without
    /// IPv6 has no IPv6 setting. Returns whether the value changed.
    pub(super) fn of_the_bridge(&self, key: &Key, value: &str) -> Result<bool, ManagerError> {
        match self.manager.sysctls.get(key)? {
            Some(now) if now != value => {
                self.manager.sysctls.write(key, value)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// Converts a static route of a network to a kernel route.
pub(super) fn route(route: &network::Route) -> Route {
    Route {
        to: route.net,
        via: Some(route.gateway),
        metric: Some(route.metric.map_or(1, |metric| metric.get())),
    }
}
