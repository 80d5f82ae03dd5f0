//! Compares running networks with the parts that their starts made.
//!
//! Changes nothing. The host's links, addresses and routes are read once by netlink, the rules once
//! by the firewall tools, and settings and processes from /proc. An ordinary user may be unable to
//! read the rules; the result then has no faults of rules.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use ipnet::IpNet;

use super::existing::{self, is_existing};
use super::fault::BridgeProperty;
use super::namespace::NetworkLocation;
use super::port::bridge_vlan;
use super::published;
use super::statuses::Statuses;
use super::{Damaged, Fault, Manager, ManagerError, NetworkStatus, config};
use crate::firewall::rules::Ruleset;
use crate::firewall::{FirewallBackend, OwnRules};
use crate::network::dnsmasq::{Dnsmasq, Files};
use crate::network::{Network, NetworkName};
use crate::sys::flock::Flock;
use crate::sys::netlink::sysctl::Key;
use crate::sys::netlink::{HostNet, Netlink, Undo, is_link_local};
use crate::sys::state_file;
use crate::sys::traffic;
use crate::types::error_text;

/// An active network.
#[derive(Debug)]
#[non_exhaustive]
pub struct Active {
    /// The status of the network.
    pub status: NetworkStatus,
    /// Whether it runs in another network namespace.
    pub elsewhere: bool,
    /// The parts that it has lost; empty for a network in another network namespace.
    pub faults: Vec<Fault>,
}

/// All networks that are active or may be active.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Survey {
    /// The active networks.
    pub active: Vec<Active>,
    /// The status files that cannot be used.
    pub damaged: Vec<Damaged>,
}

impl Manager {
    /// Returns all active networks, each with the parts that it has lost.
    ///
    /// # Errors
    /// The state directory cannot be read. Faults that cannot be checked are left out.
    pub async fn survey(&self) -> Result<Survey, ManagerError> {
        let first = self.survey_once().await?;
        if first.active.iter().all(|network| network.faults.is_empty()) {
            return Ok(first);
        }
        match self.lock_for_second_check().await {
            Some(_lock) => self.survey_once().await,
            None => Ok(first),
        }
    }

    async fn survey_once(&self) -> Result<Survey, ManagerError> {
        let mut statuses = self.statuses()?;
        let mut faults = self.inspect(&statuses, |_| true).await.unwrap_or_else(|error| {
            tracing::debug!("the running networks cannot be checked: {}", error_text(&error));
            BTreeMap::new()
        });
        let damaged = statuses.take_damaged();
        let active = statuses.active().into_iter().map(|(status, location)| {
            let faults = faults.remove(&status.name).unwrap_or_default();
            Active { elsewhere: location != NetworkLocation::Here, faults, status }
        });
        Ok(Survey { active: active.collect(), damaged })
    }

    /// Returns the parts that the network with this name has lost; none for a network that does not
    /// run in this network namespace.
    ///
    /// # Errors
    /// The state directory, the host or a kernel setting cannot be read.
    pub async fn faults_of(&self, name: &NetworkName) -> Result<Vec<Fault>, ManagerError> {
        let first = self.faults_once(name).await?;
        if first.is_empty() {
            return Ok(first);
        }
        match self.lock_for_second_check().await {
            Some(_lock) => self.faults_once(name).await,
            None => Ok(first),
        }
    }

    async fn faults_once(&self, name: &NetworkName) -> Result<Vec<Fault>, ManagerError> {
        let statuses = self.statuses()?;
        let mut faults = self.inspect(&statuses, |status| status.name == *name).await?;
        Ok(faults.remove(name).unwrap_or_default())
    }

    /// Takes the lock for a second check of networks that have faults.
    ///
    /// A check reads the status files and then the host. A command that ends, reloads or starts a
    /// network between the two reads makes them differ, and such a difference is no fault. The
    /// first check therefore needs no lock, and only faults that a check under the lock finds again
    /// are reported. Without the lock, which an ordinary user cannot take, the first check counts.
    pub(super) async fn lock_for_second_check(&self) -> Option<Flock<OwnedFd>> {
        let lock = state_file::lock(&self.dir(), self.lock_limit).await;
        lock.inspect_err(|error| {
            tracing::debug!("networks with faults are not checked again: {}", error_text(&error));
        })
        .ok()
    }

    /// Returns the lost parts of those running networks that `is_wanted` selects.
    async fn inspect(
        &self,
        statuses: &Statuses,
        is_wanted: impl Fn(&NetworkStatus) -> bool,
    ) -> Result<BTreeMap<NetworkName, Vec<Fault>>, ManagerError> {
        let networks: Vec<(&NetworkStatus, Network)> = statuses
            .running()
            .filter(|status| is_wanted(status))
            .filter_map(|status| Some((status, status.network()?)))
            .collect();
        if networks.is_empty() {
            return Ok(BTreeMap::new());
        }
        let host = Netlink::open()?.host().await?;
        let own = self.own_rules(networks.iter().map(|(status, network)| (*status, network))).await;
        let mut all = BTreeMap::new();
        for (status, network) in &networks {
            let faults = self.faults(status, network, &host, own.as_ref().ok()).await?;
            all.insert(status.name.clone(), faults);
        }
        Ok(all)
    }

    /// Reads the current rules of these networks.
    pub(super) async fn own_rules<'a>(
        &self,
        networks: impl Iterator<Item = (&'a NetworkStatus, &'a Network)>,
    ) -> Result<OwnRules, ManagerError> {
        let mut wanted: Vec<(FirewallBackend, Vec<Ruleset>)> = Vec::new();
        for (status, network) in networks {
            if let Some(backend) = status.backend {
                wanted.push((backend, self.rulesets(network, &status.published)?));
            }
        }
        Ok(OwnRules::read(&self.tools, &wanted).await?)
    }

    /// Returns the parts that a network of this network namespace has lost. Rules are compared only
    /// if they could be read.
    ///
    /// # Errors
    /// A kernel setting or the limits of the bridge cannot be read.
    pub(super) async fn faults(
        &self,
        status: &NetworkStatus,
        network: &Network,
        host: &HostNet,
        own: Option<&OwnRules>,
    ) -> Result<Vec<Fault>, ManagerError> {
        if is_existing(network) {
            return Ok(existing::faults(network, host));
        }
        let bridge = &network.bridge.name;
        let mut faults = Vec::new();
        match bridge_of(status, host) {
            Bridge::Missing => faults.push(Fault::BridgeMissing(bridge.clone())),
            Bridge::Replaced => faults.push(Fault::BridgeReplaced(bridge.clone())),
            Bridge::Renamed(now) => {
                faults.push(Fault::BridgeRenamed { bridge: bridge.clone(), now });
            }
            Bridge::There(_) => {
                faults.extend(bridge_faults(network, host));
                faults.extend(limits_fault(network, host).await?);
                let ipv6 = network.ips.iter().any(|ip| ip.net.addr().is_ipv6());
                if ipv6 {
                    faults.extend(self.setting(Key::Ipv6Disabled(bridge.clone()), "0", true)?);
                    faults.extend(self.setting(Key::AcceptRa(bridge.clone()), "0", true)?);
                }
            }
        }
        faults.extend(self.forwarding_faults(status, network, host)?);
        // After an interrupted change of published ports, the rules can be those of before or after
        // it. The next command completes the change.
        if let (Some(own), Some(backend), false) = (own, status.backend, status.publishing) {
            let parts = own.missing(backend, &self.rulesets(network, &status.published)?);
            if !parts.is_empty() {
                faults.push(Fault::RulesMissing { backend, parts });
            }
        }
        faults.extend(server_fault(status));
        Ok(faults)
    }

    /// Checks forwarding where the network needs it: of the whole host, of its bridge and, for
    /// IPv4, of the interfaces by which replies arrive.
    fn forwarding_faults(
        &self,
        status: &NetworkStatus,
        network: &Network,
        host: &HostNet,
    ) -> Result<Vec<Fault>, ManagerError> {
        let mut faults = Vec::new();
        for key in config::settings(network, &published::present(&status.published, host)) {
            if let Some(fault) = self.setting(key.clone(), "1", true)? {
                faults.push(fault);
                continue;
            }
            // IPv6 has no such setting for one interface: ip6_forward() in the kernel.
            if key != Key::Ipv4Forwarding {
                continue;
            }
            let bridge = Key::Ipv4ForwardingOf(network.bridge.name.clone());
            faults.extend(self.setting(bridge, "1", true)?);
            let uplinks = uplinks(network, host);
            for uplink in uplinks.iter().filter_map(|uplink| uplink.parse().ok()) {
                faults.extend(self.setting(Key::Ipv4ForwardingOf(uplink), "1", false)?);
            }
        }
        Ok(faults)
    }

    /// Returns a fault if a setting has another value. A setting that the kernel lacks is no fault.
    pub(super) fn setting(
        &self,
        key: Key,
        wanted: &'static str,
        set_by_reload: bool,
    ) -> Result<Option<Fault>, ManagerError> {
        let value = self.sysctls.get(&key)?.filter(|value| value != wanted);
        Ok(value.map(|value| Fault::Setting { key, value, wanted, set_by_reload }))
    }
}

/// Returns a fault if parts of the limits of an existing bridge are gone.
pub(super) async fn limits_fault(
    network: &Network,
    host: &HostNet,
) -> Result<Option<Fault>, ManagerError> {
    let (bridge, bandwidth) = (&network.bridge.name, &network.port.bandwidth);
    let Some(link) = host.link(bridge).filter(|_| !bandwidth.is_unlimited()) else {
        return Ok(None);
    };
    let netlink = Netlink::open()?;
    let limited = traffic::has_limits(&netlink, link.index, bandwidth).await?;
    let fault =
        || Fault::BridgeChanged { bridge: bridge.clone(), property: BridgeProperty::Unlimited };
    Ok((!limited).then(fault))
}

/// Returns the interfaces by which a network's guests reach everything beyond the host.
pub(super) fn uplinks(network: &Network, host: &HostNet) -> Vec<String> {
    match network.forward.devs() {
        [] => host.uplinks(),
        devs => devs.iter().map(ToString::to_string).collect(),
    }
}

/// The interface that has the name of a network's bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bridge {
    /// There is no bridge, or one that an interrupted command has just begun to create.
    Missing,
    /// Another interface than the one that the start made has the name.
    Replaced,
    /// No interface has the name, and the bridge that the start made has this name now.
    Renamed(String),
    /// The interface is the network's bridge and has this index.
    There(u32),
}

pub(super) fn bridge_of(status: &NetworkStatus, host: &HostNet) -> Bridge {
    let made = status.links.iter().find_map(|undo| match undo {
        Undo::Link { index, .. } => Some(*index),
        _ => None,
    });
    let Some(link) = host.link(&status.bridge) else {
        let renamed = host.links.iter().find(|link| link.bridge && Some(link.index) == made);
        return renamed.map_or(Bridge::Missing, |link| Bridge::Renamed(link.name.clone()));
    };
    let marked = status
        .links
        .iter()
        .any(|undo| matches!(undo, Undo::Marked { mark, .. } if *mark == link.group));
    match made {
        Some(index) if index == link.index && link.bridge => Bridge::There(index),
        None if marked => Bridge::Missing,
        _ => Bridge::Replaced,
    }
}

/// Returns the faults of an existing bridge: of its link, then of its addresses, then of its
/// routes. [`repair`](super::repair) restores these parts.
pub(super) fn bridge_faults(network: &Network, host: &HostNet) -> Vec<Fault> {
    let bridge = &network.bridge.name;
    let Some(link) = host.link(bridge) else { return Vec::new() };
    let mut faults = Vec::new();
    if !link.up {
        faults.push(Fault::BridgeDown(bridge.clone()));
    }
    let mut changed =
        |property| faults.push(Fault::BridgeChanged { bridge: bridge.clone(), property });
    if let Some(mac) = network.mac.filter(|mac| link.mac != Some(mac.octets())) {
        changed(BridgeProperty::Mac(mac));
    }
    if let Some(wanted) = network.mtu.map(u32::from).filter(|mtu| *mtu != link.mtu) {
        changed(BridgeProperty::Mtu { now: link.mtu, wanted });
    }
    if link.noarp {
        changed(BridgeProperty::ArpOff);
    }
    if let Some(stp) = link.stp.filter(|stp| *stp != network.bridge.stp) {
        changed(BridgeProperty::Stp(stp));
    }
    if bridge_vlan(network).is_some() && link.vlan_filtering != Some(true) {
        changed(BridgeProperty::VlansMixed);
    }
    let addresses = host.addresses.iter().filter(|one| one.link == link.index);
    let present: Vec<IpNet> = addresses.map(|one| one.address).collect();
    let (here, lost): (Vec<_>, Vec<_>) =
        network.ips.iter().map(|ip| ip.net).partition(|own| present.contains(own));
    for address in lost {
        let of_version =
            |net: &&IpNet| net.addr().is_ipv4() == address.addr().is_ipv4() && !is_link_local(net);
        let instead = present.iter().filter(of_version).copied().collect();
        faults.push(Fault::AddressMissing { bridge: bridge.clone(), address, instead });
    }
    let mut route_missing =
        |to, route| faults.push(Fault::RouteMissing { bridge: bridge.clone(), to, route });
    for own in here {
        if link.up && subnet_route(host, link.index, &own) == SubnetRoute::Missing {
            route_missing(own.trunc(), None);
        }
    }
    for route in &network.routes {
        let to = route.net.trunc();
        if !host.routes.iter().any(|one| one.to == to && one.link == Some(link.index)) {
            route_missing(to, Some(route.clone()));
        }
    }
    faults
}

/// The host's route to a subnet of a bridge, which the kernel makes with the bridge's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SubnetRoute {
    /// The route leads to the bridge, or the subnet needs no route.
    There,
    /// No route exists.
    Missing,
    /// Another route of the main table to the same subnet is in its place.
    Replaced,
}

/// Looks for the route to the subnet of `own`, an address of the bridge with this index. A single
/// address (/32, /128) and a link-local subnet have no such route.
pub(super) fn subnet_route(host: &HostNet, bridge: u32, own: &IpNet) -> SubnetRoute {
    let to = own.trunc();
    let all = host.routes.iter().chain(&host.other_routes).filter(|route| route.to == to);
    if own.prefix_len() == own.max_prefix_len()
        || is_link_local(own)
        || all.clone().any(|route| route.links.contains(&bridge))
    {
        return SubnetRoute::There;
    }
    if host.routes.iter().any(|route| route.to == to) {
        SubnetRoute::Replaced
    } else {
        SubnetRoute::Missing
    }
}

/// Checks whether the network's dnsmasq runs and is not stopped.
fn server_fault(status: &NetworkStatus) -> Option<Fault> {
    if !status.dnsmasq {
        return None;
    }
    let files = Files::in_dir(&status.dir);
    match Dnsmasq::find(status.served.as_ref(), &files) {
        Some(server) if server.is_stopped() => Some(Fault::ServerStopped(server.pid())),
        Some(_) => None,
        // Without a readable /proc, as with hidepid, the state is not known, and no fault is
        // reported.
        None if status.hides_its_dnsmasq() || !Path::new("/proc/1").exists() => None,
        None => Some(Fault::ServerMissing),
    }
}
