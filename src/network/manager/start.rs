//! Starts a network, or all networks that start with the host: the checks before the first step.
//!
//! All checks that can refuse a network come before the first step, so that most refusals need no
//! undo. Then `together` does the steps. Each step is recorded in the status file before it is
//! done; if one fails, all steps of that network are undone, and the error of the step is returned.

use std::path::{Path, PathBuf};

use super::end::UndoFailures;
use super::existing::{check_bridge, is_existing};
use super::status::NetworkStatus;
use super::{Manager, ManagerError};
use crate::network::dnsmasq::{self, DhcpDns, Dnsmasq, without_servers};
use crate::network::{Network, NetworkName, check_against};
use crate::sys::netlink::HostNet;

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
        let started = self.start_together(vec![network], &tools, &mut statuses).await?;
        for (_, result) in started {
            result?;
        }
        Ok(notes)
    }

    /// Checks that the network conflicts with none of the networks `beside` it and with nothing
    /// else on the host.
    pub(super) fn check<'a>(
        &self,
        network: &Network,
        beside: impl IntoIterator<Item = &'a Network>,
        host: &HostNet,
    ) -> Result<(), ManagerError> {
        let name = &network.name;
        check_against(network, beside)
            .map_err(|problem| ManagerError::Beside { name: name.clone(), what: problem.what })?;
        if is_existing(network) {
            return check_bridge(network, host);
        }
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
        dnsmasq::find_dnsmasq(&self.settings.path).map_err(ManagerError::NoDnsmasq)
    }

    /// Starts every network that has autostart on and does not run, all of them together.
    pub async fn autostart(&self) -> Vec<Result<NetworkName, ManagerError>> {
        let (defined, broken) = match self.store.list() {
            Ok(list) => list,
            Err(error) => return vec![Err(error.into())],
        };
        let mut results: Vec<_> =
            broken.into_iter().map(|broken| Err(ManagerError::Store(broken.error))).collect();
        let wanted = defined.into_iter().filter(|definition| definition.autostart);
        let wanted: Vec<Network> = wanted.map(|definition| definition.network).collect();
        if wanted.is_empty() {
            return results;
        }
        match self.start_wanted(wanted, &mut results).await {
            Ok(started) => {
                results.extend(started.into_iter().map(|(name, result)| result.map(|()| name)));
            }
            Err(error) => results.push(Err(error)),
        }
        results
    }

    /// Starts those of these networks that do not run. The networks that cannot be started because
    /// of an earlier command go to `results`.
    async fn start_wanted(
        &self,
        wanted: Vec<Network>,
        results: &mut Vec<Result<NetworkName, ManagerError>>,
    ) -> Result<Vec<(NetworkName, Result<(), ManagerError>)>, ManagerError> {
        let (tools, mut statuses) = self.lock().await?;
        let mut collected = self.collect(&tools, &mut statuses).await?;
        collected.retain(|failures| !failures.failed.is_empty());
        let mut networks = Vec::new();
        for network in wanted {
            if let Err(error) = statuses.check(&network.name) {
                results.push(Err(error));
                continue;
            }
            if let Some(at) = collected.iter().position(|one| one.name == network.name) {
                results.push(Err(collected.swap_remove(at).into()));
                continue;
            }
            if !statuses.running().any(|status| status.name == network.name) {
                networks.push(network);
            }
        }
        for note in collected.iter().flat_map(UndoFailures::sentences) {
            tracing::warn!("{note}");
        }
        self.start_together(networks, &tools, &mut statuses).await
    }
}

/// Warns if /etc/resolv.conf names no server for the guests' queries.
pub(super) fn warn_without_servers(name: &NetworkName) {
    if let Some(why) = without_servers(Path::new("/etc/resolv.conf")) {
        tracing::warn!(
            "guests of the network {name} get no answers about names outside, since {why}; name a \
             server there, or in <forwarder> of the network's <dns>"
        );
    }
}

/// Returns whether dnsmasq asks the servers in /etc/resolv.conf.
pub(super) fn asks_servers_of_the_host(config: &DhcpDns) -> bool {
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
    (status.dnsmasq, status.served) = (true, Some(Dnsmasq::plan(program, config)?));
    status.write()?;
    serve_recorded(program, config, status).await?;
    Ok(status.write()?)
}

/// Starts dnsmasq, whose record the status file has, and adds its process to the record. The caller
/// writes the status file.
pub(super) async fn serve_recorded(
    program: &Path,
    config: &DhcpDns,
    status: &mut NetworkStatus,
) -> Result<(), ManagerError> {
    if let Some(record) = &mut status.served {
        Dnsmasq::start(program, config, record).await?;
    }
    Ok(())
}
