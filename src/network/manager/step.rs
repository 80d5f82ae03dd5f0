//! The steps of a start that change links and kernel settings.
//!
//! A bridge is created with a random mark, and the mark is recorded before the bridge exists. So if
//! netlaunch is killed in between, the next command recognises the bridge by the mark and removes
//! it. Limits of its traffic come before it is turned on. Addresses and routes are recorded after
//! they are added: the kernel removes them with the bridge.

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

impl StartInProgress<'_> {
    /// Creates the bridge with its addresses and routes.
    pub(super) async fn link(
        &self,
        network: &Network,
        status: &mut NetworkStatus,
    ) -> Result<(), ManagerError> {
        let bridge = &network.bridge;
        let spec = BridgeSpec {
            name: bridge.name.clone(),
            mac: network.mac,
            stp: bridge.stp,
            forward_delay: Duration::from_secs(bridge.delay.into()),
            mtu: network.mtu.map(u32::from),
            vlan: port::bridge_vlan(network),
        };
        let mark = rand::rng().random_range(1..=u32::MAX);
        status.links.push(Undo::Marked { name: spec.name.clone(), mark });
        status.write()?;
        // The kernel removes addresses and routes with the bridge.
        let made = self.netlink.create_marked_bridge(&spec, mark).await?;
        status.links = vec![made];
        status.write()?;
        self.netlink.unmark(&spec.name).await?;
        self.bridge_settings(network)?;
        self.limit_bridge(network, status).await?;
        complete_checksums(&bridge.name)?;
        for ip in &network.ips {
            status.links.push(self.netlink.add_address(&bridge.name, ip.net).await?);
        }
        status.links.extend(self.netlink.up(&bridge.name).await?);
        for route in &network.routes {
            status.links.push(self.netlink.add_route(&bridge.name, &self::route(route)).await?);
        }
        Ok(status.write()?)
    }

    /// Limits the traffic between the host and all guests. The limits disappear with the bridge.
    async fn limit_bridge(
        &self,
        network: &Network,
        status: &NetworkStatus,
    ) -> Result<(), ManagerError> {
        let Some(Undo::Link { name, index }) = status.links.first() else { return Ok(()) };
        let path = &self.manager.settings.path;
        Ok(traffic::limit(self.netlink, path, name, *index, &network.port.bandwidth).await?)
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
            Some(_) => Ok(self.manager.sysctls.set(key, value)?.is_some()),
            None => Ok(false),
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
