//! Starts one network or several together.
//!
//! Each step is done for all networks before the next step: links, zones and settings of each
//! network, then the rules of all of them in one transaction, then all dnsmasqs. So the start of
//! many networks at boot runs the firewall tool once, and the dnsmasqs start at the same time.
//! Within a network the steps have the order of [`super`], and each one is recorded before it is
//! done. One write of the status file can record several steps: the first one has the mark of the
//! bridge and the user of dnsmasq.
//!
//! A network that fails keeps no other from starting. If the common transaction is refused, each
//! network gets a transaction of its own, so that only those fail whose rules are refused. Networks
//! that failed are undone last: a setting that one of them changed then passes to a network that
//! runs by now.

use std::path::PathBuf;

use futures_util::{StreamExt, stream};

use super::existing::is_existing;
use super::forwarding::UndoReason;
use super::rules::RuleChange;
use super::start::{asks_servers_of_the_host, serve_recorded, warn_without_servers};
use super::status::NetworkStatus;
use super::statuses::Statuses;
use super::step::StartInProgress;
use super::zone::{self, Zones};
use super::{Manager, ManagerError, NetworkNamespace, config};
use crate::firewall::rules::Ruleset;
use crate::firewall::{LockedTools, OwnRules, RemovalRecord, Transaction, ZoneChange};
use crate::network::dnsmasq::{DhcpDns, Files, Planner};
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
    /// The error of the step that failed.
    failed: Option<ManagerError>,
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
        let (mut zones, mut planner) = (zones.flatten(), Planner::default());
        for one in &mut starting {
            one.failed = one.make_links(&start, zones.as_mut(), &mut planner).await.err();
        }
        self.add_rules(tools, statuses, &mut starting).await;
        let sound = starting.iter_mut().filter(|one| one.failed.is_none());
        stream::iter(sound).for_each_concurrent(STARTS, |one| one.finish()).await;
        let results = self.end_start(tools, statuses, starting).await;
        for (name, result) in results {
            if let Some(place) = order.iter_mut().find(|(other, _)| *other == name) {
                place.1 = result;
            }
        }
        Ok(order)
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
        Ok(Starting { network, status, rulesets, served, zone, failed: None })
    }

    /// Adds the rules of the networks that have not failed, with the backend of the running
    /// networks if it can.
    async fn add_rules(&self, tools: &LockedTools, statuses: &Statuses, starting: &mut [Starting]) {
        let has_rules = |one: &&mut Starting| one.failed.is_none() && !one.rulesets.is_empty();
        let mut ruled: Vec<&mut Starting> = starting.iter_mut().filter(has_rules).collect();
        if ruled.is_empty() {
            return;
        }
        if ruled.len() > 1 {
            match self.add_rules_of(tools, statuses, &mut ruled).await {
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
            let added = self.add_rules_of(tools, statuses, std::slice::from_mut(one)).await;
            one.failed = added.err();
        }
    }

    /// Adds the rules of these networks in one transaction. If it is refused, their records are as
    /// before.
    async fn add_rules_of(
        &self,
        tools: &LockedTools,
        statuses: &Statuses,
        ruled: &mut [&mut Starting],
    ) -> Result<(), ManagerError> {
        let used = statuses.running().find_map(|other| other.firewall.as_ref());
        let backends = self.backends(statuses, used.map(RemovalRecord::backend));
        let add: Vec<_> = ruled.iter().map(|one| one.rulesets.clone()).collect();
        let transaction = Transaction { remove: &[], add: &add, others: statuses.in_nft(None) };
        let record = |backend, added: Vec<RemovalRecord>| {
            for (one, added) in ruled.iter_mut().zip(added) {
                (one.status.backend, one.status.firewall) = (Some(backend), Some(added));
                one.status.write()?;
            }
            Ok(())
        };
        let change = RuleChange { tools, backends, transaction };
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
    /// Plans dnsmasq, makes the bridge, puts it into its zone, and changes the kernel settings.
    async fn make_links(
        &mut self,
        start: &StartInProgress<'_>,
        zones: Option<&mut Zones>,
        planner: &mut Planner,
    ) -> Result<(), ManagerError> {
        let Starting { network, status, served, zone, .. } = self;
        // The plan depends on whether other users can reach this directory.
        status.make_dir()?;
        if let Some((program, config)) = served {
            (status.dnsmasq, status.served) = (true, Some(planner.plan(program, config)?));
        }
        if is_existing(network) {
            status.write()?;
        } else {
            start.link(network, status).await?;
        }
        if let (Some(zones), Some(zone)) = (zones, zone.take()) {
            zones.put(zone, status).await?;
        }
        start.settings(network, status).map(drop)
    }

    /// Does the last steps, and keeps the error of one that fails.
    async fn finish(&mut self) {
        self.failed = self.complete().await.err();
    }

    /// Starts dnsmasq, whose record the status file has, and marks the start as complete.
    async fn complete(&mut self) -> Result<(), ManagerError> {
        if let Some((program, config)) = &self.served {
            serve_recorded(program, config, &mut self.status).await?;
        }
        self.status.complete = true;
        self.status.reserve()?;
        Ok(self.status.write()?)
    }
}
