//! Publishes ports of the host to the guests of running networks.
//!
//! The status file of a network lists the guests whose ports are published, each with its present
//! address. The rules of a network follow from its definition and this list, so every command that
//! sets or removes the rules of a network includes the published ports. A change of the list is one
//! transaction that replaces the network's rules. The new list and the records that remove the old
//! and the new rules are written before it.
//!
//! An entry is as old as its guest's tap: a name and an index, which the kernel gives only once. So
//! if a launch is killed, the next command finds the entry without a tap and removes it.
//!
//! A port on the host's loopback address needs `route_localnet` of the bridge, which lets guests
//! reach loopback services. A rule of the network prevents that. So the setting is turned on after
//! the rules are set, and off before they are removed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::rules::RuleChange;
use super::status;
use super::statuses::Statuses;
use super::step::StartInProgress;
use super::{Fault, Manager, ManagerError, NetworkStatus};
use crate::firewall::rules::{Mode, NetworkRules, PublishedPort, Version, needs_localnet};
use crate::firewall::{
    FirewallBackend, LockedTools, OwnRules, RemovalRecord, Script, Transaction, scripts,
};
use crate::network::dnsmasq::Files;
use crate::network::guest_address::AddressTable;
use crate::network::{Network, NetworkName};
use crate::sys::netlink::Netlink;
use crate::sys::netlink::sysctl::Key;
use crate::types::{InterfaceName, Mac, Publish, error_text, overlap};

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
    fn is_on(&self, tap: &InterfaceName, index: u32) -> bool {
        self.tap == *tap && self.index == index
    }
}

/// Returns the published ports as the firewall needs them.
pub(super) fn ports(published: &[PublishedGuest]) -> Vec<PublishedPort> {
    published.iter().flat_map(|guest| ports_at(&guest.publish, guest.address)).collect()
}

/// Returns the network as the rules of published ports need it. Guests on a bridge of the host send
/// their replies to a router of their own, so every client gets the address of the bridge, as in an
/// isolated network.
pub(super) fn seen_by_ports(rules: &NetworkRules, subnets: &[IpNet]) -> NetworkRules {
    match subnets.is_empty() {
        true => rules.clone(),
        false => NetworkRules { mode: Mode::Isolated, subnets: subnets.to_vec(), ..rules.clone() },
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

fn is_on_loopback(published: &[PublishedGuest]) -> bool {
    published.iter().flat_map(|guest| &guest.publish).any(needs_localnet)
}

impl Manager {
    /// Publishes a guest's ports, or changes its entry. Does nothing if the entry is there already.
    ///
    /// # Errors
    /// [`ManagerError`]; the entry is then as before.
    pub async fn publish(
        &self,
        name: &NetworkName,
        guest: &PublishedGuest,
    ) -> Result<(), ManagerError> {
        let (tools, mut statuses) = self.lock().await?;
        self.collect_published(&tools, &mut statuses).await;
        statuses.check(name)?;
        let Some(mut status) = statuses.take(name) else {
            return Err(ManagerError::Inactive(name.clone()));
        };
        let network = status.network().ok_or_else(|| status::broken(&status.dir))?;
        check_versions(&network.name, &guest.publish, &subnets(&network).await?)?;
        let others = statuses.running().flat_map(|other| &other.published);
        let others = others.chain(&status.published);
        let is_other = |other: &&PublishedGuest| !other.is_on(&guest.tap, guest.index);
        check_others(guest, others.filter(is_other))?;
        let before = status.published.clone();
        let mut wanted = before.clone();
        wanted.retain(|other| !other.is_on(&guest.tap, guest.index));
        wanted.push(guest.clone());
        if wanted == before && !status.publishing {
            return Ok(());
        }
        let changed = self.change_published(&tools, &statuses, &mut status, wanted).await;
        if changed.is_err() && status.published != before {
            let undone = self.change_published(&tools, &statuses, &mut status, before).await;
            if let Err(error) = undone {
                tracing::warn!("{}", error_text(&error));
            }
        }
        changed
    }

    /// Removes the published ports of the guest on this tap, and those of all guests that are gone.
    ///
    /// # Errors
    /// [`ManagerError`]; a later command removes them.
    pub async fn unpublish(
        &self,
        name: &NetworkName,
        tap: &InterfaceName,
        index: u32,
    ) -> Result<(), ManagerError> {
        let (tools, mut statuses) = self.lock().await?;
        self.collect_published(&tools, &mut statuses).await;
        let Some(mut status) = statuses.take(name) else { return Ok(()) };
        let mut wanted = status.published.clone();
        wanted.retain(|guest| !guest.is_on(tap, index));
        if wanted == status.published {
            return Ok(());
        }
        self.change_published(&tools, &statuses, &mut status, wanted).await
    }

    /// Removes the published ports of guests that are gone.
    ///
    /// # Errors
    /// [`ManagerError`] if the lock cannot be taken or the status files cannot be read.
    pub async fn unpublish_gone(&self) -> Result<(), ManagerError> {
        if !self.statuses()?.running().any(|status| has_published(status)) {
            return Ok(());
        }
        let (tools, mut statuses) = self.lock().await?;
        self.collect_published(&tools, &mut statuses).await;
        Ok(())
    }

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

    /// Returns the present addresses of a guest, by its hardware address: reserved, leased, or seen
    /// by the kernel, in this order. Only addresses of the network's subnets count. The kernel forgets
    /// addresses, so an earlier address stays until another guest has a lease of it.
    ///
    /// # Errors
    /// [`ManagerError`] if the network does not run or the state directory cannot be read.
    pub async fn guest_address(
        &self,
        name: &NetworkName,
        mac: Mac,
        before: Option<GuestAddress>,
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
        let is_others = |address: IpAddr| {
            table.leases().iter().any(|lease| lease.address == address && lease.mac != Some(mac))
        };
        let before = before.unwrap_or_default();
        let ipv4 = found.v4.map(|found| found.address);
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

    /// Removes the published ports of guests that are gone, and completes a change that was
    /// interrupted. A failure is logged, and a later command tries again.
    pub(super) async fn collect_published(&self, tools: &LockedTools, statuses: &mut Statuses) {
        let names: Vec<NetworkName> = statuses
            .running()
            .filter(|status| has_published(status))
            .map(|status| status.name.clone())
            .collect();
        if names.is_empty() {
            return;
        }
        let links = match async { Netlink::open()?.links().await }.await {
            Ok(links) => links,
            Err(error) => {
                tracing::warn!("{}", error_text(&error));
                return;
            }
        };
        let is_there = |guest: &PublishedGuest| {
            links.iter().any(|link| link.index == guest.index && link.name == guest.tap.as_str())
        };
        for name in names {
            let Some(mut status) = statuses.take(&name) else { continue };
            let wanted: Vec<_> =
                status.published.iter().filter(|guest| is_there(guest)).cloned().collect();
            if wanted != status.published || status.publishing {
                tracing::debug!("removing the ports published to guests of {name} that are gone");
                let changed = self.change_published(tools, statuses, &mut status, wanted).await;
                if let Err(error) = changed {
                    tracing::warn!(
                        "ports published to guests of the network {name} that are gone still have \
                         rules: {}",
                        error_text(&error)
                    );
                }
            }
            statuses.put(status);
        }
    }

    /// Replaces the list of published ports of a network, its rules and the settings that the ports
    /// need.
    async fn change_published(
        &self,
        tools: &LockedTools,
        statuses: &Statuses,
        status: &mut NetworkStatus,
        wanted: Vec<PublishedGuest>,
    ) -> Result<(), ManagerError> {
        let network = status.network().ok_or_else(|| status::broken(&status.dir))?;
        let rulesets = self.rulesets(&network, &wanted)?;
        if !is_on_loopback(&wanted) {
            if let Some(error) = self.forbid_localnet(status) {
                tracing::warn!("{error}");
            }
        }
        let (list, before) = (std::mem::replace(&mut status.published, wanted), status.rules());
        status.publishing = true;
        let add = if rulesets.is_empty() { Vec::new() } else { vec![rulesets] };
        if before.is_empty() && add.is_empty() {
            status.publishing = false;
            return Ok(status.write()?);
        }
        let used = status.backend;
        let transaction = Transaction { remove: &before, add: &add, others: statuses.in_nft(None) };
        let backends = self.backends(statuses, used);
        let change = RuleChange { tools, backends, transaction };
        let record = |backend, mut added: Vec<RemovalRecord>| {
            let added = added.pop();
            status.replaced =
                before.iter().filter(|old| Some(*old) != added.as_ref()).cloned().collect();
            if added.is_some() {
                status.backend = Some(backend);
            }
            status.firewall = added;
            status.write()
        };
        match change.apply(&mut OwnRules::default(), record).await {
            Ok(_) => {}
            Err(error) => {
                if error.left_as_before() {
                    (status.published, status.publishing) = (list, false);
                    status.restore(before)?;
                }
                return Err(error);
            }
        }
        status.replaced.clear();
        status.publishing = false;
        if status.firewall.is_none() {
            status.backend = None;
        }
        status.write()?;
        // An error leaves the reserved space of before, which is enough for a destroy.
        if let Err(error) = status.reserve() {
            tracing::debug!("{}", error_text(&error));
        }
        self.forward_published(&network, status).await?;
        self.allow_localnet(status).await
    }

    /// Turns forwarding on if the published ports need it. It stays on until the network ends.
    async fn forward_published(
        &self,
        network: &Network,
        status: &mut NetworkStatus,
    ) -> Result<(), ManagerError> {
        if !needs_forwarding(&status.published, false) && !needs_forwarding(&status.published, true)
        {
            return Ok(());
        }
        let netlink = Netlink::open()?;
        let host = netlink.host().await?;
        let start = StartInProgress { manager: self, netlink: &netlink, host: &host };
        start.settings(network, status)?;
        Ok(())
    }

    /// Turns `route_localnet` of the bridge on if a published port needs it. The rules are set.
    pub(super) async fn allow_localnet(
        &self,
        status: &mut NetworkStatus,
    ) -> Result<(), ManagerError> {
        if !is_on_loopback(&status.published) {
            return Ok(());
        }
        let key = Key::RouteLocalnet(status.bridge.clone());
        let Some(mut change) = self.sysctls.plan(&key, "1")? else { return Ok(()) };
        change.index = Some(Netlink::open()?.link(&status.bridge).await?.index);
        status.settings.retain(|one| one.key != key);
        status.settings.push(change.clone());
        status.write()?;
        Ok(self.sysctls.make(&change)?)
    }

    /// Turns `route_localnet` of the bridge off if the manager turned it on. Returns the failure;
    /// the record then stays.
    pub(super) fn forbid_localnet(&self, status: &mut NetworkStatus) -> Option<String> {
        let key = Key::RouteLocalnet(status.bridge.clone());
        let at = status.settings.iter().position(|change| change.key == key)?;
        match self.sysctls.undo(&status.settings[at], false) {
            Ok(_) => {
                status.settings.remove(at);
                None
            }
            Err(error) => Some(error_text(&error)),
        }
    }

    /// Returns a fault if a published port needs `route_localnet` and it is off.
    pub(super) fn localnet_fault(
        &self,
        status: &NetworkStatus,
    ) -> Result<Option<Fault>, ManagerError> {
        match is_on_loopback(&status.published) {
            true => self.setting(Key::RouteLocalnet(status.bridge.clone()), "1", true),
            false => Ok(None),
        }
    }
}

fn has_published(status: &NetworkStatus) -> bool {
    !status.published.is_empty() || status.publishing
}

/// Returns the subnets of a network; for one without addresses of its own, those of the addresses
/// that the bridge has now.
async fn subnets(network: &Network) -> Result<Vec<IpNet>, ManagerError> {
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
fn check_versions(
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

/// Checks that no other guest has one of the ports.
fn check_others<'a>(
    guest: &PublishedGuest,
    others: impl Iterator<Item = &'a PublishedGuest>,
) -> Result<(), ManagerError> {
    for other in others {
        let both: Vec<Publish> = other.publish.iter().chain(&guest.publish).cloned().collect();
        if let Some((_, publish, port)) = overlap(&both) {
            let (publish, launch) = (publish.clone(), other.launch.clone());
            return Err(ManagerError::PublishedTwice { publish, port, launch });
        }
    }
    Ok(())
}
