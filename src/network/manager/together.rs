//! Starts one network or several together.
//!
//! The firewall tool runs once: the rules of all networks are one transaction. While it runs, the
//! bridges are made, but they stay off. When the rules are in force, one network after the other
//! gets its zone, its bridge is turned on, and its dnsmasq starts. A dnsmasq starts while the next
//! networks are still turned on, so that a host with several processors uses them. Each step is
//! recorded before it is done. One write of the status file can record several steps: the first one
//! has the mark of the bridge, the settings of the host and the removal of the rules, the second
//! one the number of the bridge and the user of dnsmasq.
//!
//! A network that fails keeps no other from starting. If the common transaction is refused, each
//! network gets a transaction of its own, so that only those fail whose rules are refused. Networks
//! that failed are undone last: a setting that one of them changed then passes to a network that
//! runs by now.

use std::path::PathBuf;

use futures_util::{StreamExt, stream};
use tokio::sync::Mutex;

use super::existing::is_existing;
use super::forwarding::UndoReason;
use super::rules::RuleChange;
use super::start::{asks_servers_of_the_host, serve_recorded, warn_without_servers};
use super::status::NetworkStatus;
use super::statuses::Statuses;
use super::step::{MadeBridge, StartInProgress, record_mark};
use super::zone::{self, Zones};
use super::{Manager, ManagerError, NetworkNamespace, config};
use crate::firewall::rules::Ruleset;
use crate::firewall::{
    FirewallBackend, LockedTools, OwnRules, RemovalRecord, Transaction, ZoneChange,
};
use crate::network::dnsmasq::{DhcpDns, Files, Planner, Record};
use crate::network::{Network, NetworkName};
use crate::sys::netlink::Netlink;
use crate::types::error_text;

/// The number of dnsmasqs that start at the same time. Each of them needs some descriptors of
/// netlaunch, and a processor for 3 ms.
const STARTS: usize = 32;

/// A network that passed all checks before the first step, or whose start is in progress.
struct Starting {
    network: Network,
    status: NetworkStatus,
    rulesets: Vec<Ruleset>,
    /// dnsmasq and its configuration; `None` for a network without DHCP and DNS.
    served: Option<(PathBuf, DhcpDns)>,
    zone: Option<ZoneChange>,
    /// The bridge, from its creation until it is turned on.
    made: Option<MadeBridge>,
    /// The error of the step that failed.
    failed: Option<ManagerError>,
}

/// The parts of a start that need no rules: they are made while the firewall tool runs.
struct Parts {
    network: Network,
    /// The mark of the bridge; `None` if the bridge is the host's.
    mark: Option<u32>,
    served: Option<(PathBuf, DhcpDns)>,
    made: Option<MadeBridge>,
    record: Option<Record>,
    failed: Option<ManagerError>,
}

impl Parts {
    fn new(network: &Network, mark: Option<u32>, served: Option<(PathBuf, DhcpDns)>) -> Self {
        let network = network.clone();
        Parts { network, mark, served, made: None, record: None, failed: None }
    }

    async fn make(
        &mut self,
        start: &StartInProgress<'_>,
        planner: &mut Planner,
    ) -> Result<(), ManagerError> {
        if let Some(mark) = self.mark {
            self.made = Some(start.make_bridge(&self.network, mark).await?);
        }
        if let Some((program, config)) = &self.served {
            self.record = Some(planner.plan(program, config)?);
        }
        Ok(())
    }
}

impl Manager {
    /// Starts these networks, which do not run. Returns the result of each, in their order.
    ///
    /// # Errors
    /// The host cannot be examined; nothing has changed then.
    pub(super) async fn start_together(
        &self,
        networks: Vec<Network>,
        tools: &LockedTools,
        statuses: &mut Statuses,
    ) -> Result<Vec<(NetworkName, Result<(), ManagerError>)>, ManagerError> {
        let netlink = Netlink::open()?;
        let host = netlink.host().await?;
        let running: Vec<Network> = statuses.running().filter_map(NetworkStatus::network).collect();
        let mut zones = None;
        let (mut order, mut starting) = (Vec::new(), Vec::<Starting>::new());
        for network in networks {
            let name = network.name.clone();
            let checked = async {
                let others = starting.iter().map(|one| &one.network);
                self.check(&network, others.chain(&running), &host)?;
                if zones.is_none() {
                    zones = Some(Zones::ready(&self.settings.system_bus).await?);
                }
                self.starting(network, zones.as_mut().and_then(Option::as_mut)).await
            };
            match checked.await {
                Ok(one) => {
                    starting.push(one);
                    order.push((name, Ok(())));
                }
                Err(error) => order.push((name, Err(error))),
            }
        }
        let start = StartInProgress { manager: self, netlink: &netlink, host: &host };
        self.make_all(&start, tools, statuses, &mut starting).await;
        let zones = Mutex::new(zones.flatten());
        let sound = starting.iter_mut().filter(|one| one.failed.is_none());
        stream::iter(sound).for_each_concurrent(STARTS, |one| one.finish(&start, &zones)).await;
        let results = self.end_start(tools, statuses, starting).await;
        for (name, result) in results {
            if let Some(place) = order.iter_mut().find(|(other, _)| *other == name) {
                place.1 = result;
            }
        }
        Ok(order)
    }

    /// Adds the rules of the networks, and meanwhile makes their bridges, which stay off, and plans
    /// their dnsmasqs. The status files have the records of rules and bridges before.
    async fn make_all(
        &self,
        start: &StartInProgress<'_>,
        tools: &LockedTools,
        statuses: &Statuses,
        starting: &mut [Starting],
    ) {
        let used = statuses.running().find_map(|other| other.firewall.as_ref());
        let backends = self.backends(statuses, used.map(RemovalRecord::backend));
        let mut parts = Vec::new();
        for one in starting.iter_mut() {
            match one.record(start, backends.first().copied()) {
                Ok(mark) => parts.push(Some(Parts::new(&one.network, mark, one.served.take()))),
                Err(error) => {
                    one.failed = Some(error);
                    parts.push(None);
                }
            }
        }
        let make = async {
            let mut planner = Planner::default();
            for part in parts.iter_mut().flatten() {
                part.failed = part.make(start, &mut planner).await.err();
            }
        };
        tokio::join!(self.add_rules(tools, statuses, &backends, starting), make);
        for (one, part) in starting.iter_mut().zip(parts) {
            let Some(part) = part else { continue };
            (one.made, one.served) = (part.made, part.served);
            if let Some(record) = part.record {
                (one.status.dnsmasq, one.status.served) = (true, Some(record));
            }
            one.failed = one.failed.take().or(part.failed);
        }
    }

    /// Finds out everything that the start of a network needs; changes nothing.
    async fn starting(
        &self,
        network: Network,
        zones: Option<&mut Zones>,
    ) -> Result<Starting, ManagerError> {
        let rulesets = self.rulesets(&network, &[])?;
        let dir = self.dir().join(network.name.as_str());
        let served = config::served(&network, Files::in_dir(&dir))?;
        let served = served.map(|config| Ok::<_, ManagerError>((self.dnsmasq()?, config)));
        let served = served.transpose()?;
        let zone = match zones {
            Some(zones) => zones.change(&network).await?,
            None => zone::without_firewalld(&network)?,
        };
        let namespace = NetworkNamespace::current().map_err(ManagerError::UnknownNamespace)?;
        let status = NetworkStatus::new(&network, &dir, namespace);
        Ok(Starting { network, status, rulesets, served, zone, made: None, failed: None })
    }

    /// Adds the rules of the networks that have not failed, with the backend of the running
    /// networks if it can.
    async fn add_rules(
        &self,
        tools: &LockedTools,
        statuses: &Statuses,
        backends: &[FirewallBackend],
        starting: &mut [Starting],
    ) {
        let has_rules = |one: &&mut Starting| one.failed.is_none() && !one.rulesets.is_empty();
        let mut ruled: Vec<&mut Starting> = starting.iter_mut().filter(has_rules).collect();
        if ruled.is_empty() {
            return;
        }
        if ruled.len() > 1 {
            match self.add_rules_of(tools, statuses, backends, &mut ruled).await {
                Ok(()) => return,
                Err(error) if error.left_as_before() => tracing::debug!(
                    "the rules of {} networks are added one by one: {}",
                    ruled.len(),
                    error_text(&error)
                ),
                Err(error) => {
                    // Whether the kernel has the rules is not known, so all of them are removed.
                    let first = ruled[0].network.name.clone();
                    for one in ruled.iter_mut().skip(1) {
                        let (name, with) = (one.network.name.clone(), first.clone());
                        one.failed = Some(ManagerError::RulesTogether { name, with });
                    }
                    ruled[0].failed = Some(error);
                    return;
                }
            }
        }
        for one in &mut ruled {
            let added = self.add_rules_of(tools, statuses, backends, std::slice::from_mut(one));
            one.failed = added.await.err();
        }
    }

    /// Adds the rules of these networks in one transaction. If it is refused, their records are as
    /// before.
    async fn add_rules_of(
        &self,
        tools: &LockedTools,
        statuses: &Statuses,
        backends: &[FirewallBackend],
        ruled: &mut [&mut Starting],
    ) -> Result<(), ManagerError> {
        let add: Vec<_> = ruled.iter().map(|one| one.rulesets.clone()).collect();
        let transaction = Transaction { remove: &[], add: &add, others: statuses.in_nft(None) };
        let record = |backend, added: Vec<RemovalRecord>| {
            for (one, added) in ruled.iter_mut().zip(added) {
                (one.status.backend, one.status.firewall) = (Some(backend), Some(added));
                one.status.write()?;
            }
            Ok(())
        };
        let change = RuleChange { tools, backends: backends.to_owned(), transaction };
        let applied = change.apply(&mut OwnRules::default(), record).await;
        if applied.as_ref().is_err_and(ManagerError::left_as_before) {
            ruled.iter_mut().for_each(|one| one.status.firewall = None);
        }
        applied.map(drop)
    }

    /// Adds the networks that run now to `statuses`, and undoes those that failed. Returns the
    /// result of each.
    async fn end_start(
        &self,
        tools: &LockedTools,
        statuses: &mut Statuses,
        starting: Vec<Starting>,
    ) -> Vec<(NetworkName, Result<(), ManagerError>)> {
        let mut results = Vec::new();
        let mut failed = Vec::new();
        for one in starting {
            let name = one.network.name.clone();
            match one.failed {
                None => {
                    if one.served.is_some_and(|(_, config)| asks_servers_of_the_host(&config)) {
                        warn_without_servers(&name);
                    }
                    statuses.put(one.status);
                    results.push((name, Ok(())));
                }
                Some(error) => failed.push((one.status, error)),
            }
        }
        for (mut status, error) in failed {
            let name = status.name.clone();
            for what in self.undo(tools, &mut status, statuses, UndoReason::FailedStart).await {
                tracing::warn!("the network {name} is not completely undone: {what}");
            }
            results.push((name, Err(error)));
        }
        results
    }
}

impl Starting {
    /// Writes the first status file and changes the settings of the host. Returns the mark of the
    /// bridge that the start makes; `None` if the bridge is the host's. `backend` is the one that
    /// is tried first.
    fn record(
        &mut self,
        start: &StartInProgress<'_>,
        backend: Option<FirewallBackend>,
    ) -> Result<Option<u32>, ManagerError> {
        let Starting { network, status, rulesets, .. } = self;
        if let Some(backend) = backend.filter(|_| !rulesets.is_empty()) {
            status.backend = Some(backend);
            status.firewall = Some(RemovalRecord::new(backend, rulesets));
        }
        let mark = (!is_existing(network)).then(|| record_mark(network, status));
        start.settings(network, status)?;
        status.write()?;
        Ok(mark)
    }

    /// Does the last steps, and keeps the error of one that fails.
    async fn finish(&mut self, start: &StartInProgress<'_>, zones: &Mutex<Option<Zones>>) {
        self.failed = self.complete(start, zones).await.err();
    }

    /// Changes the zone and the settings, turns the bridge on, starts dnsmasq, and marks the start
    /// as complete.
    async fn complete(
        &mut self,
        start: &StartInProgress<'_>,
        zones: &Mutex<Option<Zones>>,
    ) -> Result<(), ManagerError> {
        let Starting { network, status, served, zone, made, .. } = self;
        {
            // Only one network at a time: the first dnsmasq starts before the last bridge is on.
            let mut zones = zones.lock().await;
            let made = made.take();
            let index = made.as_ref().map(|made| made.index);
            if let Some(made) = made {
                status.links = made.links;
            }
            if let (Some(zones), Some(zone)) = (zones.as_mut(), zone.take()) {
                zones.put(zone, status).await?;
            }
            // Those of the host are set already. The bridge did not exist then.
            start.settings(network, status)?;
            status.write()?;
            if let Some(index) = index {
                start.turn_on(network, status, index).await?;
            }
        }
        if let Some((program, config)) = served {
            serve_recorded(program, config, status).await?;
        }
        status.complete = true;
        status.reserve()?;
        Ok(status.write()?)
    }
}
