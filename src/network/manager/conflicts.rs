//! What of the host's firewall stops the guests of networks and bridges.

use super::{Driver, DriverError, config};
use crate::firewall::conflicts::{Finding, Guests, ListingError, find};
use crate::firewall::{ToolError, list};
use crate::link::sysctl::Key;
use crate::link::{HostNet, Netlink};
use crate::network::{Network, NetworkName};
use crate::rules::{Mode, Version};
use crate::types::InterfaceName;

/// A bridge that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its network; `None` for a bridge that is none of netlaunch's.
    pub network: Option<NetworkName>,
    /// The bridge.
    pub bridge: InterfaceName,
    /// What stops its guests.
    pub findings: Vec<Finding>,
}

/// Why it cannot be said what stops guests.
#[derive(Debug, thiserror::Error)]
pub enum ConflictsError {
    /// The networks or the host's links cannot be read.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// A firewall tool.
    #[error("the host's rules cannot be read: {0}")]
    Tool(#[from] ToolError),
    /// Its listing.
    #[error(transparent)]
    Listing(#[from] ListingError),
    /// There is no such bridge.
    #[error(
        "{0} is neither a network's bridge nor a bridge of the host; name one, or none for all networks"
    )]
    NoBridge(InterfaceName),
}

impl Driver {
    /// Looks for what stops the guests on these bridges; without any, on those of the networks that
    /// run, and where none does, of all that are defined. Changes nothing.
    ///
    /// # Errors
    /// [`ConflictsError`].
    pub async fn conflicts(
        &self,
        bridges: &[InterfaceName],
    ) -> Result<Vec<Checked>, ConflictsError> {
        let host = Netlink::open().map_err(DriverError::from)?.host().await;
        let host = host.map_err(DriverError::from)?;
        let running: Vec<Network> =
            self.here()?.iter().filter_map(super::Status::network).collect();
        let mut known = running.clone();
        let (defined, _) = self.store.list().map_err(DriverError::from)?;
        // What runs counts, where a definition was changed since.
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
        let v6 = |guests: &Guests| {
            guests.filtered_within.contains(&Version::V6)
                || guests.subnets.iter().any(|net| Version::of(net) == Version::V6)
        };
        let listed = list(&self.tools, wanted.iter().any(|(_, guests)| v6(guests))).await?;
        let mut checked = Vec::new();
        for (network, guests) in wanted {
            let findings = find(&listed.listings(), &guests)?;
            checked.push(Checked { network, bridge: guests.bridge, findings });
        }
        Ok(checked)
    }

    /// What a network's guests need.
    fn of_network(
        &self,
        network: &Network,
        host: &HostNet,
    ) -> Result<(Option<NetworkName>, Guests), DriverError> {
        let rules = config::rules(network);
        let dev = match &rules.mode {
            Mode::Nat { dev, .. } | Mode::Route { dev } => dev.as_ref(),
            Mode::Open | Mode::Isolated => None,
        };
        let uplinks = dev.map_or_else(|| host.uplinks(), |dev| vec![dev.to_string()]);
        let mut filtered_within = self.filtered_within()?;
        // What the network itself does not let pass is nobody else's doing.
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
            uplinks,
        };
        Ok((Some(network.name.clone()), guests))
    }

    /// What the guests on a bridge of the host's own need: that it carries their frames.
    fn of_bridge(&self, bridge: &InterfaceName) -> Result<Guests, DriverError> {
        Ok(Guests {
            bridge: bridge.clone(),
            subnets: Vec::new(),
            forwarded: false,
            guarded: false,
            filtered_within: self.filtered_within()?,
            dhcp: false,
            dns: false,
            tftp: false,
            uplinks: Vec::new(),
        })
    }

    /// The IP versions whose packet filter sees what a bridge carries.
    fn filtered_within(&self) -> Result<Vec<Version>, DriverError> {
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
