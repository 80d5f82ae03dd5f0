//! Starts a network: the order of the steps, and the checks before the first.
//!
//! All checks that can refuse the network come before the first step, so that most refusals
//! need no undo. Then the steps follow in the order of [`super`]. Each step is recorded in the
//! status file before it is done; if one fails, the start undoes all of them and returns the
//! error of that step.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::forwarding::UndoReason;
use super::rules::RuleChange;
use super::status::NetworkStatus;
use super::statuses::Statuses;
use super::step::StartInProgress;
use super::zone::{self, Zones};
use super::{Manager, ManagerError, NetworkNamespace, config};
use crate::firewall::rules::Ruleset;
use crate::firewall::{LockedTools, OwnRules, RemovalRecord, Transaction};
use crate::network::dnsmasq::{self, DhcpDns, Dnsmasq, Files, without_servers};
use crate::network::{Network, NetworkName, check_against};
use crate::sys::netlink::{HostNet, Netlink};
use crate::sys::program::find;

impl Manager {
    /// Starts a network. Returns the steps of other networks that could not be undone, one sentence
    /// each.
    ///
    /// # Errors
    /// [`ManagerError`]; the host is then as before, except for steps that could not be undone:
    /// they are logged and stay in the status file.
    pub async fn start(&self, name: &NetworkName) -> Result<Vec<String>, ManagerError> {
        let (tools, mut statuses) = self.lock().await?;
        let collected = self.collect(&tools, &mut statuses).await?;
        statuses.check(name)?;
        let mut notes = Vec::new();
        for failures in collected.into_iter().filter(|failures| !failures.failed.is_empty()) {
            if failures.name == *name {
                return Err(failures.into());
            }
            notes.extend(failures.sentences());
        }
        let network = self.store.get(name)?.network;
        if statuses.running().any(|status| status.name == *name) {
            return Err(ManagerError::Active(name.clone()));
        }
        let netlink = Netlink::open()?;
        let host = netlink.host().await?;
        self.check(&network, &statuses, &host)?;
        let rulesets = self.rulesets(&network, &[])?;
        let files = Files::in_dir(&self.dir().join(name.as_str()));
        let served = config::served(&network, files.clone())?;
        let dnsmasq = served.as_ref().map(|_| self.dnsmasq()).transpose()?;
        let mut zones = Zones::ready(&self.settings.system_bus).await?;
        let zone = match &mut zones {
            Some(zones) => zones.change(&network).await?,
            None => zone::without_firewalld(&network)?,
        };

        let namespace = NetworkNamespace::current().map_err(ManagerError::UnknownNamespace)?;
        let mut status = NetworkStatus::new(&network, &self.dir().join(name.as_str()), namespace);
        let start = StartInProgress { manager: self, netlink: &netlink, host: &host };
        let asks_host = served.as_ref().is_some_and(asks_servers_of_the_host);
        let done = async {
            status.write()?;
            start.link(&network, &mut status).await?;
            if let (Some(zones), Some(zone)) = (&mut zones, zone) {
                zones.put(zone, &mut status).await?;
            }
            start.settings(&network, &mut status)?;
            if !rulesets.is_empty() {
                self.add_rules(&tools, &statuses, &mut status, rulesets).await?;
            }
            if let (Some(program), Some(config)) = (dnsmasq, served) {
                serve(&program, &config, &mut status).await?;
            }
            status.complete = true;
            status.reserve()?;
            status.write()?;
            Ok(())
        };
        let Err(error) = done.await else {
            if asks_host {
                warn_without_servers(name);
            }
            return Ok(notes);
        };
        for what in self.undo(&tools, &mut status, &mut statuses, UndoReason::FailedStart).await {
            tracing::warn!("the network {name} is not completely undone: {what}");
        }
        Err(error)
    }

    /// Adds the rules of a network that starts, with the backend of the other networks if it can.
    async fn add_rules(
        &self,
        tools: &LockedTools,
        statuses: &Statuses,
        status: &mut NetworkStatus,
        rulesets: Vec<Ruleset>,
    ) -> Result<(), ManagerError> {
        let used = statuses.running().find_map(|other| other.firewall.as_ref());
        let backends = self.backends(statuses, used.map(RemovalRecord::backend));
        let (add, others) = ([rulesets], statuses.in_nft(Some(&status.name)));
        let transaction = Transaction { remove: &[], add: &add, others };
        let record = |backend, mut added: Vec<_>| {
            (status.backend, status.firewall) = (Some(backend), added.pop());
            status.write()
        };
        let change = RuleChange { tools, backends, transaction };
        if let Err(error) = change.apply(&mut OwnRules::default(), record).await {
            if error.left_as_before() {
                status.firewall = None;
            }
            return Err(error);
        }
        Ok(())
    }

    /// Checks that the network conflicts with no running network and with nothing else on the host.
    fn check(
        &self,
        network: &Network,
        statuses: &Statuses,
        host: &HostNet,
    ) -> Result<(), ManagerError> {
        let name = &network.name;
        let running: Vec<Network> = statuses.running().filter_map(NetworkStatus::network).collect();
        check_against(network, &running)
            .map_err(|problem| ManagerError::Beside { name: name.clone(), what: problem.what })?;
        let bridge = &network.bridge.name;
        if host.link(bridge).is_some() {
            return Err(ManagerError::Bridge { name: name.clone(), bridge: bridge.clone() });
        }
        for subnet in network.subnets() {
            if subnet.addr().is_ipv6() && !self.has_ipv6()? {
                return Err(ManagerError::NoIpv6 { name: name.clone(), subnet });
            }
            if let Some(conflict) = host.conflict(subnet, None) {
                return Err(ManagerError::Subnet { name: name.clone(), subnet, conflict });
            }
        }
        Ok(())
    }

    /// Returns the path of the dnsmasq program.
    pub(super) fn dnsmasq(&self) -> Result<PathBuf, ManagerError> {
        let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let dirs: Vec<PathBuf> = self.settings.path.iter().cloned().chain(system).collect();
        let name = OsStr::new("dnsmasq");
        let lookup = find(name, &dirs);
        match lookup.problem(name, dnsmasq::INSTALL) {
            Some(problem) => Err(ManagerError::NoDnsmasq(problem)),
            None => Ok(lookup.found().unwrap_or_else(|| name.into())),
        }
    }

    /// Starts every network that has autostart on and does not run.
    pub async fn autostart(&self) -> Vec<Result<NetworkName, ManagerError>> {
        let (defined, broken) = match self.store.list() {
            Ok(list) => list,
            Err(error) => return vec![Err(error.into())],
        };
        let mut results: Vec<_> =
            broken.into_iter().map(|broken| Err(ManagerError::Store(broken.error))).collect();
        for definition in defined.into_iter().filter(|definition| definition.autostart) {
            let name = definition.network.name;
            match self.start(&name).await {
                Ok(notes) => {
                    for note in notes {
                        tracing::warn!("{note}");
                    }
                    results.push(Ok(name));
                }
                Err(ManagerError::Active(_)) => {}
                Err(error) => results.push(Err(error)),
            }
        }
        results
    }
}

/// Warns if /etc/resolv.conf names no server for the guests' queries.
fn warn_without_servers(name: &NetworkName) {
    if let Some(why) = without_servers(Path::new("/etc/resolv.conf")) {
        tracing::warn!(
            "guests of the network {name} get no answers about names outside, since {why}; name a \
             server there, or in <forwarder> of the network's <dns>"
        );
    }
}

/// Returns whether dnsmasq asks the servers in /etc/resolv.conf.
fn asks_servers_of_the_host(config: &DhcpDns) -> bool {
    let all = |forwarder: &dnsmasq::Forwarder| forwarder.domain.is_none();
    config.dns.as_ref().is_some_and(|dns| dns.host_servers && !dns.forwarders.iter().any(all))
}

/// Ends leftover dnsmasq processes of a network and starts dnsmasq. The status file has its record
/// before and afterwards.
pub(super) async fn serve(
    program: &Path,
    config: &DhcpDns,
    status: &mut NetworkStatus,
) -> Result<(), ManagerError> {
    if status.dnsmasq {
        // The leftover processes are found by this record, so end them before the new record
        // replaces it.
        Dnsmasq::end(status.served.as_ref(), &config.files).await?;
    }
    let mut record = Dnsmasq::plan(program, config)?;
    (status.dnsmasq, status.served) = (true, Some(record.clone()));
    status.write()?;
    Dnsmasq::start(program, config, &mut record).await?;
    status.served = Some(record);
    Ok(status.write()?)
}
