//! Finds the causes that stop the guests of networks and bridges: chains of the host's
//! firewall, parts of running networks that other programs removed, and routes that lead
//! packets elsewhere.
//!
//! The listings of the firewall's tools, the links and the routes are read once for all bridges,
//! and again under the lock if a network has lost a part. The check changes nothing, and works on
//! definitions too, before their networks run.

use super::existing::is_existing;
use super::inspect::{Bridge, bridge_of, uplinks};
use super::published;
use super::routing::RouteCheck;
use super::{Fault, Manager, ManagerError, NetworkStatus, config};
use crate::firewall::conflicts::{Finding, Guests, ListingError, find};
use crate::firewall::rules::{Mode, Version};
use crate::firewall::{ToolError, list};
use crate::network::{Network, NetworkName, StoreError};
use crate::sys::netlink::sysctl::Key;
use crate::sys::netlink::{HostNet, LinkError, Netlink};
use crate::types::InterfaceName;

/// The result of the check of one bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// The network of the bridge; `None` if netlaunch did not make the bridge.
    pub network: Option<NetworkName>,
    /// The bridge.
    pub bridge: InterfaceName,
    /// The chains that stop its guests.
    pub findings: Vec<Finding>,
    /// The parts that its network has lost, if the network runs here, and routes that lead its
    /// packets elsewhere.
    pub faults: Vec<Fault>,
}

/// Why the causes could not be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConflictsError {
    /// The networks or the host's links cannot be read.
    #[error(transparent)]
    Manager(#[from] ManagerError),
    /// A firewall tool failed.
    #[error("the host's rules cannot be read")]
    Tool(#[from] ToolError),
    /// The listing of a firewall tool cannot be parsed.
    #[error(transparent)]
    Listing(#[from] ListingError),
    /// The name is neither a network's bridge nor a bridge of the host.
    #[error(
        "{0} is neither a network's bridge nor a bridge of the host; name one, or none for all networks"
    )]
    NoBridge(InterfaceName),
}

impl From<LinkError> for ConflictsError {
    fn from(error: LinkError) -> Self {
        ConflictsError::Manager(error.into())
    }
}

impl From<StoreError> for ConflictsError {
    fn from(error: StoreError) -> Self {
        ConflictsError::Manager(error.into())
    }
}

impl Manager {
    /// Finds the causes that stop the guests on these bridges. Without bridges, it checks those of
    /// the running networks; if none runs, those of all definitions. Changes nothing.
    ///
    /// # Errors
    /// [`ConflictsError`] if the host cannot be read or a bridge does not exist.
    pub async fn conflicts(
        &self,
        bridges: &[InterfaceName],
    ) -> Result<Vec<Checked>, ConflictsError> {
        let first = self.conflicts_once(bridges).await?;
        if first.iter().all(|checked| checked.faults.is_empty()) {
            return Ok(first);
        }
        match self.lock_for_second_check().await {
            Some(_lock) => self.conflicts_once(bridges).await,
            None => Ok(first),
        }
    }

    async fn conflicts_once(
        &self,
        bridges: &[InterfaceName],
    ) -> Result<Vec<Checked>, ConflictsError> {
        let netlink = Netlink::open()?;
        let host = netlink.host().await?;
        let statuses = self.statuses()?;
        let started: Vec<(&NetworkStatus, Network)> =
            statuses.running().filter_map(|status| Some((status, status.network()?))).collect();
        let running: Vec<Network> = started.iter().map(|(_, network)| network.clone()).collect();
        let mut known = running.clone();
        let (defined, _) = self.store.list()?;
        // The running network counts, even if its definition was changed since.
        known.extend(
            defined
                .into_iter()
                .map(|definition| definition.network)
                .filter(|network| running.iter().all(|other| other.name != network.name)),
        );
        let mut wanted: Vec<(Option<NetworkName>, Guests)> = Vec::new();
        for bridge in bridges {
            match known.iter().find(|network| network.bridge.name == *bridge) {
                Some(network) => wanted.push(self.of_network(network, &host)?),
                None if host.link(bridge).is_some_and(|link| link.bridge) => {
                    wanted.push((None, self.of_bridge(bridge)?));
                }
                None => return Err(ConflictsError::NoBridge(bridge.clone())),
            }
        }
        if bridges.is_empty() {
            let all = if running.is_empty() { &known } else { &running };
            for network in all {
                wanted.push(self.of_network(network, &host)?);
            }
        }
        for (network, guests) in &mut wanted {
            let status = started.iter().find(|(status, _)| Some(&status.name) == network.as_ref());
            if let Some((status, _)) = status {
                guests.published = published::forwarded_versions(&status.published);
                guests.subnets.extend(status.published.iter().flat_map(|one| one.subnets.clone()));
            }
        }
        let v6 = |guests: &Guests| {
            guests.filtered_within.contains(&Version::V6)
                || guests.subnets.iter().any(|net| Version::of(net) == Version::V6)
        };
        let listed = list(&self.tools, wanted.iter().any(|(_, guests)| v6(guests))).await?;
        let mut checked = Vec::new();
        for (network, guests) in wanted {
            let findings = find(&listed.listings(), &guests)?;
            let faults =
                match started.iter().find(|(status, _)| Some(&status.name) == network.as_ref()) {
                    Some((status, network)) => {
                        self.all_faults(status, network, &netlink, &host).await?
                    }
                    None => Vec::new(),
                };
            checked.push(Checked { network, bridge: guests.bridge, findings, faults });
        }
        Ok(checked)
    }

    /// Returns the parts that a running network has lost, and the routes that lead its packets
    /// elsewhere.
    async fn all_faults(
        &self,
        status: &NetworkStatus,
        network: &Network,
        netlink: &Netlink,
        host: &HostNet,
    ) -> Result<Vec<Fault>, ManagerError> {
        let own = self.own_rules([(status, network)].into_iter()).await?;
        let mut faults = self.faults(status, network, host, Some(&own)).await?;
        if let Bridge::There(bridge) = bridge_of(status, host)
            && host.link(&status.bridge).is_some_and(|link| link.up)
        {
            let off =
                |fault: &Fault| matches!(fault, Fault::Setting { key, .. } if key.is_forwarding());
            let forwards = !faults.iter().any(off);
            faults.extend(RouteCheck { netlink, host, network, bridge, forwards }.faults().await?);
        }
        Ok(faults)
    }

    /// Returns the traffic that a network's guests need.
    fn of_network(
        &self,
        network: &Network,
        host: &HostNet,
    ) -> Result<(Option<NetworkName>, Guests), ManagerError> {
        if is_existing(network) {
            return Ok((Some(network.name.clone()), self.of_bridge(&network.bridge.name)?));
        }
        let rules = config::rules(network);
        let uplinks = uplinks(network, host);
        let mut filtered_within = self.filtered_within()?;
        // A version that the network itself does not let pass is not stopped by other rules.
        filtered_within.retain(|version| {
            network.ipv6 || rules.subnets.iter().any(|net| Version::of(net) == *version)
        });
        let guests = Guests {
            bridge: rules.bridge,
            subnets: rules.subnets,
            forwarded: rules.mode != Mode::Isolated,
            guarded: matches!(rules.mode, Mode::Nat { .. } | Mode::Route { .. }),
            filtered_within,
            dhcp: rules.dhcp,
            dns: rules.dns,
            tftp: rules.tftp,
            published: Vec::new(),
            uplinks,
        };
        Ok((Some(network.name.clone()), guests))
    }

    /// Returns the traffic that guests on a bridge of the host need: the bridge must carry their
    /// frames.
    fn of_bridge(&self, bridge: &InterfaceName) -> Result<Guests, ManagerError> {
        Ok(Guests {
            bridge: bridge.clone(),
            subnets: Vec::new(),
            forwarded: false,
            guarded: false,
            filtered_within: self.filtered_within()?,
            dhcp: false,
            dns: false,
            tftp: false,
            published: Vec::new(),
            uplinks: Vec::new(),
        })
    }

    /// Returns the IP versions whose packet filter sees bridged packets.
    fn filtered_within(&self) -> Result<Vec<Version>, ManagerError> {
        let mut versions = Vec::new();
        for (version, key) in
            [(Version::V4, Key::BridgeCallsIptables), (Version::V6, Key::BridgeCallsIp6tables)]
        {
            if self.sysctls.get(&key)?.is_some_and(|value| value != "0") {
                versions.push(version);
            }
        }
        Ok(versions)
    }
}
