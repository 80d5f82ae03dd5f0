//! The guests whose ports are published, as the status file of a network lists them, and what the
//! rules, the settings and the plans of a network make of them. `publishing` changes the list.
//!
//! An entry has the present address of its guest. It is as old as the guest's tap: a name and an
//! index, which the kernel gives only once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::status;
use super::{Manager, ManagerError};
use crate::firewall::rules::{Mode, NetworkRules, PublishedPort, Version};
use crate::firewall::{FirewallBackend, Script, scripts};
use crate::network::dnsmasq::Files;
use crate::network::guest_address::{AddressSource, AddressTable};
use crate::network::{Network, NetworkName};
use crate::sys::netlink::{HostNet, Netlink};
use crate::types::{InterfaceName, Mac, Publish, error_text};

/// The addresses of a guest to which connections go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestAddress {
    /// The IPv4 address; `None` while it is not known.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address; `None` while it is not known.
    pub ipv6: Option<Ipv6Addr>,
}

/// A guest whose ports are published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedGuest {
    /// The name of its launch.
    pub launch: String,
    /// The tap of the guest.
    pub tap: InterfaceName,
    /// The index of the tap.
    pub index: u32,
    /// The hardware address of the guest's card.
    pub mac: Mac,
    /// The ports.
    pub publish: Vec<Publish>,
    /// The addresses of the guest.
    pub address: GuestAddress,
    /// The subnets of the bridge, if the network itself has none because it is on a bridge of the
    /// host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<IpNet>,
}

impl PublishedGuest {
    pub(super) fn is_on(&self, tap: &InterfaceName, index: u32) -> bool {
        self.tap == *tap && self.index == index
    }

    fn is_on_link(&self, index: u32, name: &str) -> bool {
        self.index == index && self.tap.as_str() == name
    }
}

/// Returns the guests whose taps exist. The next command removes the others, which a launch that
/// was killed has left, perhaps before it turned forwarding on.
pub(super) fn present(published: &[PublishedGuest], host: &HostNet) -> Vec<PublishedGuest> {
    let is_there = |guest: &&PublishedGuest| {
        host.links.iter().any(|link| guest.is_on_link(link.index, &link.name))
    };
    published.iter().filter(is_there).cloned().collect()
}

/// Returns the published ports as the firewall needs them.
pub(super) fn ports(published: &[PublishedGuest]) -> Vec<PublishedPort> {
    published.iter().flat_map(|guest| ports_at(&guest.publish, guest.address)).collect()
}

/// Returns the network as the rules of published ports need it. Guests on a bridge of the host send
/// their replies to a router of their own, so every client gets the address of the bridge, as in an
/// isolated network.
pub(super) fn seen_by_ports(rules: &NetworkRules, subnets: &[IpNet]) -> NetworkRules {
    if subnets.is_empty() {
        rules.clone()
    } else {
        NetworkRules { mode: Mode::Isolated, subnets: subnets.to_vec(), ..rules.clone() }
    }
}

/// Returns ports that are published to a guest with this address.
fn ports_at(publish: &[Publish], address: GuestAddress) -> impl Iterator<Item = PublishedPort> {
    let GuestAddress { ipv4, ipv6 } = address;
    publish.iter().map(move |publish| PublishedPort {
        publish: publish.clone(),
        guest: match publish.address {
            IpAddr::V4(_) => ipv4.map(IpAddr::from),
            IpAddr::V6(_) => ipv6.map(IpAddr::from),
        },
    })
}

/// Returns whether the host must forward packets of an IP version for published ports. The host's
/// own connections are not forwarded, so a port on a loopback address does not need that.
pub(super) fn needs_forwarding(published: &[PublishedGuest], v6: bool) -> bool {
    let needs = |port: &Publish| port.address.is_ipv6() == v6 && !port.address.is_loopback();
    published.iter().flat_map(|guest| &guest.publish).any(needs)
}

/// Returns the IP versions of which the host forwards packets to published ports.
pub(super) fn forwarded_versions(published: &[PublishedGuest]) -> Vec<Version> {
    let versions = [(Version::V4, false), (Version::V6, true)].into_iter();
    versions
        .filter(|(_, v6)| needs_forwarding(published, *v6))
        .map(|(version, _)| version)
        .collect()
}

impl Manager {
    /// Returns the entry of the guest on this tap; `None` if its network does not run or does not
    /// have the entry. Takes no lock.
    ///
    /// # Errors
    /// [`ManagerError::StatusFile`] if the state directory cannot be read.
    pub fn published(
        &self,
        name: &NetworkName,
        tap: &InterfaceName,
        index: u32,
    ) -> Result<Option<PublishedGuest>, ManagerError> {
        let statuses = self.statuses()?;
        let mut guests = statuses
            .running()
            .filter(|status| status.name == *name && !status.publishing)
            .flat_map(|status| &status.published);
        Ok(guests.find(|guest| guest.is_on(tap, index)).cloned())
    }

    /// Returns the present addresses of a guest, by its hardware address: leased, reserved, learned
    /// by the guest's filter, or seen by the kernel, in this order. Only addresses of the network's
    /// subnets count. The kernel forgets addresses, so the address of `before` stays until another
    /// guest has a lease or a reservation of it.
    ///
    /// # Errors
    /// [`ManagerError`] if the network does not run or the state directory cannot be read.
    pub async fn guest_address(
        &self,
        name: &NetworkName,
        mac: Mac,
        before: GuestAddress,
        learned: Option<Ipv4Addr>,
    ) -> Result<GuestAddress, ManagerError> {
        let statuses = self.statuses()?;
        let Some(status) = statuses.running().find(|status| status.name == *name) else {
            return Err(ManagerError::Inactive(name.clone()));
        };
        let network = status.network().ok_or_else(|| status::broken(&status.dir))?;
        let (table, failed) = AddressTable::of_network(status).await;
        for error in failed {
            tracing::debug!("{}", error_text(&error));
        }
        let found = table.find(mac);
        let subnets = subnets(&network).await?;
        let is_inside = |address: IpAddr| subnets.iter().any(|net| net.contains(&address));
        let is_others = |address: IpAddr| table.is_of_other(address, mac);
        let ipv4 = match found.v4 {
            Some(found) if found.source != AddressSource::Neighbor => Some(found.address),
            seen => learned.or(seen.map(|found| found.address)),
        };
        let ipv6 = found.v6.map(|found| found.address);
        Ok(GuestAddress {
            ipv4: ipv4
                .filter(|address| is_inside((*address).into()))
                .or(before.ipv4.filter(|address| !is_others((*address).into()))),
            ipv6: ipv6
                .filter(|address| is_inside((*address).into()))
                .or(before.ipv6.filter(|address| !is_others((*address).into()))),
        })
    }

    /// Returns the subnets of the bridge of a network that has none itself, for
    /// [`PublishedGuest::subnets`].
    ///
    /// # Errors
    /// [`ManagerError`] if the network does not run or the host cannot be read.
    pub async fn bridge_subnets(&self, name: &NetworkName) -> Result<Vec<IpNet>, ManagerError> {
        let statuses = self.statuses()?;
        let Some(status) = statuses.running().find(|status| status.name == *name) else {
            return Err(ManagerError::Inactive(name.clone()));
        };
        let network = status.network().ok_or_else(|| status::broken(&status.dir))?;
        if network.ips.is_empty() { subnets(&network).await } else { Ok(Vec::new()) }
    }

    /// Returns the path of the file with the leases of a network.
    pub fn lease_file(&self, name: &NetworkName) -> PathBuf {
        Files::in_dir(&self.dir().join(name.as_str())).leases
    }

    /// Returns the scripts that a guest with this address and these ports would add to the rules of
    /// a network, for a plan. Changes nothing.
    ///
    /// # Errors
    /// [`ManagerError`] if the network does not run, or cannot publish these ports.
    pub async fn publish_scripts(
        &self,
        name: &NetworkName,
        publish: &[Publish],
        address: GuestAddress,
    ) -> Result<Vec<Script>, ManagerError> {
        let statuses = self.statuses()?;
        let Some(status) = statuses.running().find(|status| status.name == *name) else {
            return Err(ManagerError::Inactive(name.clone()));
        };
        let network = status.network().ok_or_else(|| status::broken(&status.dir))?;
        let subnets = subnets(&network).await?;
        check_versions(&network.name, publish, &subnets)?;
        let mut published = ports(&status.published);
        published.extend(ports_at(publish, address));
        let own = if network.ips.is_empty() { &subnets[..] } else { &[] };
        let rulesets = self.rulesets_with(&network, &published, own)?;
        let backend = status.backend.or(self.settings.firewall_backend);
        Ok(scripts(backend.unwrap_or(FirewallBackend::Nftables), &rulesets))
    }
}

/// Returns the subnets of a network; for one without addresses of its own, those of the addresses
/// that the bridge has now.
pub(super) async fn subnets(network: &Network) -> Result<Vec<IpNet>, ManagerError> {
    if !network.ips.is_empty() {
        return Ok(network.subnets().collect());
    }
    let host = Netlink::open()?.host().await?;
    let bridge = host.link(&network.bridge.name).map(|link| link.index);
    let on_bridge = host.addresses.iter().filter(|one| Some(one.link) == bridge);
    let is_link_local = |net: &IpNet| match net {
        IpNet::V4(net) => net.addr().is_link_local(),
        IpNet::V6(net) => net.addr().is_unicast_link_local(),
    };
    Ok(on_bridge.map(|one| one.address).filter(|net| !is_link_local(net)).collect())
}

/// Checks that the network has a subnet of the IP version of each port.
pub(super) fn check_versions(
    name: &NetworkName,
    publish: &[Publish],
    subnets: &[IpNet],
) -> Result<(), ManagerError> {
    let has = |v6: bool| subnets.iter().any(|net| net.addr().is_ipv6() == v6);
    match publish.iter().find(|port| !has(port.address.is_ipv6())) {
        Some(port) => Err(ManagerError::PublishVersion {
            name: name.clone(),
            publish: port.clone(),
            version: if port.address.is_ipv6() { "IPv6" } else { "IPv4" },
        }),
        None => Ok(()),
    }
}
