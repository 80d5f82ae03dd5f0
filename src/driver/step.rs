//! The steps of a start that change links and kernel settings, each recorded before it is done.

use std::time::Duration;

use rand::RngExt;

use super::status::Status;
use super::{Driver, DriverError, config};
use crate::link::sysctl::Key;
use crate::link::{BridgeSpec, HostNet, Netlink, Route, Undo};
use crate::network::Network;
use crate::process::tap::complete_checksums;

/// A start that is under way.
pub(super) struct Begun<'a> {
    pub(super) driver: &'a Driver,
    pub(super) netlink: &'a Netlink,
    pub(super) host: &'a HostNet,
}

impl Begun<'_> {
    /// Bridge, addresses, routes.
    pub(super) async fn link(
        &self,
        network: &Network,
        status: &mut Status,
    ) -> Result<(), DriverError> {
        let bridge = &network.bridge;
        let spec = BridgeSpec {
            name: bridge.name.clone(),
            mac: Some(network.mac),
            stp: bridge.stp,
            forward_delay: Duration::from_secs(bridge.delay.into()),
            mtu: network.mtu.map(u32::from),
        };
        let mark = rand::rng().random_range(1..=u32::MAX);
        status.links.push(Undo::Marked { name: spec.name.clone(), mark });
        status.write()?;
        // Its addresses and routes go with it.
        let made = self.netlink.create_marked_bridge(&spec, mark).await?;
        status.links = vec![made];
        status.write()?;
        self.netlink.unmark(&spec.name).await?;
        // A bridge that is nobody's host must not make itself an address, nor take routes.
        let ipv6 = network.ips.iter().any(|ip| ip.net.addr().is_ipv6());
        self.of_the_bridge(&Key::Ipv6Disabled(bridge.name.clone()), if ipv6 { "0" } else { "1" })?;
        self.of_the_bridge(&Key::AcceptRa(bridge.name.clone()), "0")?;
        self.of_the_bridge(&Key::Autoconf(bridge.name.clone()), "0")?;
        complete_checksums(&bridge.name)?;
        for ip in &network.ips {
            status.links.push(self.netlink.add_address(&bridge.name, ip.net).await?);
        }
        status.links.extend(self.netlink.up(&bridge.name).await?);
        for route in &network.routes {
            let route = Route {
                to: route.net,
                via: Some(route.gateway),
                metric: Some(route.metric.map_or(1, |metric| metric.get())),
            };
            status.links.push(self.netlink.add_route(&bridge.name, &route).await?);
        }
        Ok(status.write()?)
    }

    /// A setting of the bridge's own, which goes with it; a kernel without IPv6 has none.
    fn of_the_bridge(&self, key: &Key, value: &str) -> Result<(), DriverError> {
        if self.driver.sysctls.get(key)?.is_some() {
            self.driver.sysctls.set(key, value)?;
        }
        Ok(())
    }

    /// Forwarding, where the network wants it.
    pub(super) fn settings(
        &self,
        network: &Network,
        status: &mut Status,
    ) -> Result<(), DriverError> {
        for key in config::settings(network) {
            if key == Key::Ipv6Forwarding {
                // The host would lose the routes that it has from other routers.
                for link in self.host.advertised() {
                    if let Ok(link) = link.parse() {
                        self.set(&Key::AcceptRa(link), "2", status)?;
                    }
                }
            }
            self.set(&key, "1", status)?;
        }
        Ok(())
    }

    /// A setting of the host's: recorded, then made.
    fn set(&self, key: &Key, value: &str, status: &mut Status) -> Result<(), DriverError> {
        if let Some(change) = self.driver.sysctls.plan(key, value)? {
            status.settings.push(change.clone());
            status.write()?;
            self.driver.sysctls.make(&change)?;
        }
        Ok(())
    }
}
