//! Restores the parts of running networks that other programs removed: bridges, addresses and
//! kernel settings, a firewall that was flushed or replaced, zones that firewalld lost, and a
//! dnsmasq that ended.

use std::collections::BTreeSet;

use super::rules::RuleChange;
use super::start::serve;
use super::statuses::Statuses;
use super::zone::Zones;
use super::{Manager, ManagerError, NetworkStatus, config, status};
use crate::firewall::{LockedTools, OwnRules, RemovalRecord, Transaction};
use crate::network::NetworkName;
use crate::network::dnsmasq::{Dnsmasq, Files};
use crate::types::error_text;

/// The result of a reload: its notes, and the first error. A network that fails does not stop the
/// reload of the others.
#[derive(Default)]
struct Done {
    notes: Vec<String>,
    failed: Option<ManagerError>,
}

impl Done {
    fn fail(&mut self, error: ManagerError) {
        match self.failed {
            Some(_) => tracing::warn!("{}", error_text(&error)),
            None => self.failed = Some(error),
        }
    }
}

impl Manager {
    /// Restores everything that the starts of running networks made: bridges with addresses and
    /// routes, kernel settings, the rules in one transaction with the backend that network.conf
    /// sets now, firewalld zones, and a missing dnsmasq. Returns the restored parts, one sentence
    /// each.
    ///
    /// # Errors
    /// [`ManagerError`]; either the old rules are in place, or the new rules are and the error
    /// names the part that is not.
    pub async fn reload(&self) -> Result<Vec<String>, ManagerError> {
        let (tools, mut statuses) = self.lock().await?;
        let mut failures = self.collect(&tools, &mut statuses).await?;
        failures.retain(|failures| !failures.failed.is_empty());
        let unreachable: Vec<NetworkName> = statuses.out_of_reach().cloned().collect();
        let names: Vec<NetworkName> = statuses
            .running()
            .map(|status| status.name.clone())
            .filter(|name| !unreachable.contains(name))
            .collect();
        let here: Vec<NetworkStatus> =
            names.iter().filter_map(|name| statuses.take(name)).collect();
        // A network whose definition cannot be read does not change.
        let (mut running, unreadable): (Vec<_>, Vec<_>) =
            here.into_iter().partition(|status| status.network().is_some());
        for status in &unreadable {
            tracing::warn!("{}", error_text(&status::broken(&status.dir)));
        }
        let alone = running.is_empty() && unreadable.is_empty();
        unreadable.into_iter().for_each(|status| statuses.put(status));
        reject_others(alone, unreachable, &statuses)?;
        // Zones come first: while firewalld starts or reloads, it may still remove rules.
        let zones = if running.is_empty() {
            Ok(None)
        } else {
            Zones::ready(&self.settings.system_bus).await
        };
        let mut done = Done::default();
        let mut recreated = BTreeSet::new();
        for status in &mut running {
            let network = status.network().ok_or_else(|| status::broken(&status.dir))?;
            match self.repair(&network, status).await {
                Ok(repaired) => {
                    if repaired.recreated {
                        recreated.insert(status.name.clone());
                    }
                    let (name, missing) = (&status.name, repaired.missing.join(", "));
                    if !missing.is_empty() {
                        done.notes.push(format!("put back for the network {name}: {missing}"));
                    }
                }
                Err(error) => done.fail(error),
            }
        }
        if let Err(error) = self.reload_rules(&tools, &statuses, &mut running, &mut done).await {
            done.fail(error);
        }
        let zoned = match zones {
            Ok(Some(mut zones)) => zones.put_back(&mut running).await,
            Ok(None) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        };
        for status in running.iter_mut().filter(|status| status.dnsmasq) {
            if let Err(error) = self.serve_again(status, &recreated, &mut done.notes).await {
                done.fail(error);
            }
        }
        match zoned {
            Ok(notes) => done.notes.extend(notes),
            Err(error) => done.fail(error),
        }
        let last = failures.pop();
        for other in failures {
            other.sentences().iter().for_each(|what| tracing::warn!("{what}"));
        }
        if let Some(failures) = last {
            done.fail(failures.into());
        }
        match done.failed {
            Some(error) => {
                // The caller gets only the error, so the notes go to the log.
                done.notes.iter().for_each(|note| tracing::info!("{note}"));
                Err(error)
            }
            None => Ok(done.notes),
        }
    }

    /// Sets the rules of all these networks in one transaction.
    async fn reload_rules(
        &self,
        tools: &LockedTools,
        statuses: &Statuses,
        running: &mut [NetworkStatus],
        done: &mut Done,
    ) -> Result<(), ManagerError> {
        let (mut ruled, mut rulesets, mut held) = (Vec::new(), Vec::new(), Vec::new());
        for status in running.iter_mut() {
            let network = status.network().ok_or_else(|| status::broken(&status.dir))?;
            let own = self.rulesets(&network, &status.published)?;
            // An open network has no rules.
            if !own.is_empty() {
                held.extend(status.backend.map(|backend| (backend, own.clone())));
                ruled.push(status);
                rulesets.push(own);
            }
        }
        if ruled.is_empty() {
            return Ok(());
        }
        // The reload chooses the backend again, in the usual order.
        let backends = self.backends(statuses, None);
        let before: Vec<_> = ruled.iter().map(|status| status.rules()).collect();
        let remove = before.concat();
        let transaction =
            Transaction { remove: &remove, add: &rulesets, others: statuses.in_nft(None) };
        let change = RuleChange { tools, backends, transaction };
        let record = |backend, added: Vec<RemovalRecord>| {
            for ((status, added), before) in ruled.iter_mut().zip(added).zip(&before) {
                status.replaced = before.iter().filter(|b| **b != added).cloned().collect();
                (status.backend, status.firewall) = (Some(backend), Some(added));
                status.write()?;
            }
            Ok(())
        };
        // The transaction itself reads the iptables rules.
        let mut earlier = OwnRules::read_nft(&held).unwrap_or_default();
        let backend = match change.apply(&mut earlier, record).await {
            Ok(backend) => backend,
            Err(error) if error.left_as_before() => {
                for (status, before) in ruled.into_iter().zip(before) {
                    status.restore(before)?;
                }
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        for ((status, own), had) in ruled.into_iter().zip(&rulesets).zip(&before) {
            status.replaced.clear();
            // Reserve space here, too: an earlier netlaunch did not.
            if let Err(error) = status.write().and_then(|()| status.reserve()) {
                // The status file on disk also has the records of the earlier rules, which are
                // gone.
                tracing::warn!("{}", error_text(&error));
            }
            let name = &status.name;
            let had = had.last().map(RemovalRecord::backend);
            let parts =
                had.map(|backend| earlier.missing(backend, own)).filter(|all| !all.is_empty());
            done.notes.push(match parts {
                Some(parts) => format!(
                    "the rules of the network {name} were missing and are there again ({backend}): {}",
                    parts.join(", ")
                ),
                None => format!("the rules of the network {name} are there ({backend})"),
            });
        }
        Ok(())
    }

    /// Starts a network's dnsmasq if it is gone or stopped, or is bound to an earlier bridge.
    async fn serve_again(
        &self,
        status: &mut NetworkStatus,
        recreated: &BTreeSet<NetworkName>,
        notes: &mut Vec<String>,
    ) -> Result<(), ManagerError> {
        let files = Files::in_dir(&status.dir);
        // A killed start has recorded no process, so a process that is found may be a fork.
        let recorded = status.served.as_ref().is_none_or(|record| record.process.is_some());
        let found = Dnsmasq::find(status.served.as_ref(), &files).filter(|_| recorded);
        let why = match found {
            Some(_) if recreated.contains(&status.name) => "was of the earlier bridge",
            Some(server) if server.is_stopped() => "was stopped",
            Some(_) => return Ok(()),
            None => "was gone",
        };
        let network = status.network().ok_or_else(|| status::broken(&status.dir))?;
        if let Some(config) = config::served(&network, files)? {
            serve(&self.dnsmasq()?, &config, status).await?;
            notes.push(format!("dnsmasq of the network {} {why} and runs again", status.name));
        }
        Ok(())
    }
}

/// Reports networks that this command cannot reload; that is an error if there is no other one.
fn reject_others(
    alone: bool,
    out_of_reach: Vec<NetworkName>,
    statuses: &Statuses,
) -> Result<(), ManagerError> {
    let elsewhere = statuses
        .elsewhere()
        .map(|(name, entry)| ManagerError::OtherNamespace { name: name.clone(), entry });
    for error in out_of_reach.into_iter().map(ManagerError::OutOfReach).chain(elsewhere) {
        if alone {
            return Err(error);
        }
        tracing::warn!("{}", error_text(&error));
    }
    Ok(())
}
