//! Changes a running network without cutting its guests off.
//!
//! A change goes from the network of the status file to a new one. First the status file gets the
//! new network as a [`PendingChange`], then the rules change in one transaction and dnsmasq gets
//! its new files, then the definition is written if it changes too, and last the status file gets
//! the new network as its own. If a step fails, the earlier steps are undone.
//!
//! If the command is killed, the pending change remains in the status file, and the next command
//! that holds the lock finishes the work ([`Manager::finish_pending`]): it completes the change if
//! the definition was written, and undoes it otherwise. So the network and its definition have
//! both changed, or neither has.
//!
//! The host's links, addresses, routes and settings never change here, so a guest's traffic
//! continues. A dnsmasq that must start again keeps its leases; requests of guests get no answer
//! for that moment, and clients repeat them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::live_part::{live_part, needs_vlans};
use super::rules::RuleChange;
use super::start::serve;
use super::statuses::Statuses;
use super::{Manager, ManagerError, NetworkStatus, config, parse, status};
use crate::firewall::{LockedTools, OwnRules, RemovalRecord, Transaction};
use crate::network::dnsmasq::{Dnsmasq, DnsmasqError, Files, Leases};
use crate::network::store::HeldDefinition;
use crate::network::update::NetworkUpdate;
use crate::network::{Network, NetworkName, to_xml};
use crate::types::error_text;

/// A change of a running network that is not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingChange {
    /// The new network, as XML.
    xml: String,
    /// The new definition, if that changes too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    definition: Option<PendingDefinition>,
}

/// A definition that is written as a part of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PendingDefinition {
    #[serde(with = "crate::types::os_text::path")]
    path: PathBuf,
    xml: String,
}

impl PendingChange {
    /// Returns whether the definition was written, which completes the change.
    fn is_committed(&self) -> bool {
        self.definition.as_ref().is_some_and(|definition| {
            let read = crate::xml::store::read(&definition.path);
            read.is_ok_and(|bytes| bytes.as_deref() == Some(definition.xml.as_bytes()))
        })
    }
}

/// The things that an update changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateScope {
    /// The running network if the network is active, else the definition.
    Current,
    /// The running network.
    Live,
    /// The definition.
    Config,
    /// Both: either both change, or neither does.
    Both,
}

/// The things that an update has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Updated {
    /// The running network.
    pub live: bool,
    /// The definition.
    pub config: bool,
}

/// The new definition, with the lock of all definitions.
type Replacement<'a> = (HeldDefinition<'a>, String);

impl Manager {
    /// Changes one element of a network.
    ///
    /// # Errors
    /// [`ManagerError`]; then nothing has changed.
    pub async fn update(
        &self,
        name: &NetworkName,
        update: &NetworkUpdate,
        scope: UpdateScope,
    ) -> Result<Updated, ManagerError> {
        let active = || match self.running(name) {
            Ok(_) => Ok(true),
            Err(ManagerError::Inactive(_)) => Ok(false),
            Err(error) => Err(error),
        };
        let (live, config) = match scope {
            UpdateScope::Live => (true, false),
            UpdateScope::Config => (false, true),
            UpdateScope::Both => (true, true),
            UpdateScope::Current => {
                let live = active()?;
                (live, !live)
            }
        };
        if live {
            let (tools, mut statuses) = self.lock().await?;
            let mut status = self.take_running(&tools, &mut statuses, name).await?;
            let old = status.network().ok_or_else(|| status::broken(&status.dir))?;
            let new = update.apply(&old)?;
            if needs_vlans(&old, &new) {
                return Err(ManagerError::NoVlans(name.clone()));
            }
            let definition = config.then(|| self.replacement(name, update)).transpose()?;
            self.change(&tools, &statuses, &mut status, [&old, &new], definition).await?;
        } else {
            let (held, text) = self.replacement(name, update)?;
            held.write(&text)?;
        }
        Ok(Updated { live, config })
    }

    /// Applies the definition of a running network as far as no guest is cut off. Returns the parts
    /// that wait for the next start.
    ///
    /// # Errors
    /// [`ManagerError`]; the running network is then as before.
    pub async fn apply_definition(
        &self,
        name: &NetworkName,
    ) -> Result<Vec<&'static str>, ManagerError> {
        let (tools, mut statuses) = self.lock().await?;
        let mut status = self.take_running(&tools, &mut statuses, name).await?;
        let old = status.network().ok_or_else(|| status::broken(&status.dir))?;
        let defined = self.store.get(name)?.network;
        let (new, waiting) = live_part(&old, &defined);
        if new != old {
            self.change(&tools, &statuses, &mut status, [&old, &new], None).await?;
        }
        Ok(waiting)
    }

    /// Takes a running network out of the statuses, after the garbage collection.
    async fn take_running(
        &self,
        tools: &LockedTools,
        statuses: &mut Statuses,
        name: &NetworkName,
    ) -> Result<NetworkStatus, ManagerError> {
        for failures in self.collect(tools, statuses).await? {
            failures.sentences().iter().for_each(|what| tracing::warn!("{what}"));
        }
        statuses.check(name)?;
        let Some(status) = statuses.take(name) else {
            self.store.get(name)?;
            return Err(ManagerError::Inactive(name.clone()));
        };
        if status.change.is_some() {
            return Err(ManagerError::Unfinished(name.clone()));
        }
        Ok(status)
    }

    /// Returns the changed definition, and holds the lock of all definitions.
    fn replacement(
        &self,
        name: &NetworkName,
        update: &NetworkUpdate,
    ) -> Result<Replacement<'_>, ManagerError> {
        let held = self.store.hold(name)?;
        let text = held.replacement(&update.apply(held.network())?)?;
        Ok((held, text))
    }

    /// Changes a running network from the first of these networks to the second.
    async fn change(
        &self,
        tools: &LockedTools,
        statuses: &Statuses,
        status: &mut NetworkStatus,
        [old, new]: [&Network; 2],
        definition: Option<Replacement<'_>>,
    ) -> Result<(), ManagerError> {
        let pending = definition.as_ref().map(|(held, text)| PendingDefinition {
            path: held.path().to_owned(),
            xml: text.clone(),
        });
        let change = PendingChange { xml: to_xml(new), definition: pending };
        status.change = Some(change.clone());
        status.write()?;
        // The definition may have had this text before, so only a write makes it a commit.
        let mut written = false;
        let applied = async {
            self.set_parts(tools, statuses, status, new, Some(old)).await?;
            if let Some((held, text)) = &definition {
                written = true;
                held.write(text)?;
            }
            Ok::<(), ManagerError>(())
        };
        match applied.await {
            Err(error) if !written || !change.is_committed() => {
                match self.set_parts(tools, statuses, status, old, None).await {
                    Ok(()) => {
                        status.change = None;
                        if let Err(error) = status.write() {
                            tracing::warn!("{}", error_text(&error));
                        }
                    }
                    Err(error) => tracing::warn!(
                        "the network {} has not its old state again; the next command tries it: {}",
                        status.name,
                        error_text(&error)
                    ),
                }
                return Err(error);
            }
            Err(error) => tracing::warn!("{}", error_text(&error)),
            Ok(()) => {}
        }
        (status.xml, status.change) = (change.xml, None);
        status.write()?;
        if let Err(error) = status.reserve() {
            tracing::warn!("{}", error_text(&error));
        }
        Ok(())
    }

    /// Completes or undoes the changes of running networks whose command was killed or failed.
    pub(super) async fn finish_pending(&self, tools: &LockedTools, statuses: &mut Statuses) {
        let out_of_reach: Vec<NetworkName> = statuses.out_of_reach().cloned().collect();
        let pending: Vec<NetworkName> = (statuses.running())
            .filter(|status| status.change.is_some() && !out_of_reach.contains(&status.name))
            .map(|status| status.name.clone())
            .collect();
        for name in pending {
            let Some(mut status) = statuses.take(&name) else { continue };
            if let Err(error) = self.finish_one(tools, statuses, &mut status).await {
                tracing::warn!(
                    "the interrupted change of the network {name} is neither complete nor undone; the next command tries it again: {}",
                    error_text(&error)
                );
            }
            statuses.put(status);
        }
    }

    async fn finish_one(
        &self,
        tools: &LockedTools,
        statuses: &Statuses,
        status: &mut NetworkStatus,
    ) -> Result<(), ManagerError> {
        let Some(change) = status.change.clone() else { return Ok(()) };
        let (what, xml) = if change.is_committed() {
            ("completing", change.xml)
        } else {
            ("undoing", status.xml.clone())
        };
        tracing::info!("{what} an interrupted change of the network {}", status.name);
        let target = parse(&xml).ok_or_else(|| status::broken(&status.dir))?;
        self.set_parts(tools, statuses, status, &target, None).await?;
        (status.xml, status.change) = (xml, None);
        Ok(status.write()?)
    }

    /// Gives a running network the rules and the dnsmasq of `target`. Without `from`, the network
    /// that has them now, both are set in any case.
    async fn set_parts(
        &self,
        tools: &LockedTools,
        statuses: &Statuses,
        status: &mut NetworkStatus,
        target: &Network,
        from: Option<&Network>,
    ) -> Result<(), ManagerError> {
        let rulesets = self.rulesets(target, &status.published)?;
        let has_them = match from {
            Some(from) => self.rulesets(from, &status.published)? == rulesets,
            None => rulesets.is_empty() && status.rules().is_empty(),
        };
        if !has_them {
            self.replace_rules(tools, statuses, status, rulesets).await?;
        }
        self.set_server(status, target, from.is_some()).await
    }

    /// Replaces the rules of one network in one transaction.
    pub(super) async fn replace_rules(
        &self,
        tools: &LockedTools,
        statuses: &Statuses,
        status: &mut NetworkStatus,
        rulesets: Vec<crate::firewall::rules::Ruleset>,
    ) -> Result<(), ManagerError> {
        let before = status.rules();
        let others = statuses.in_nft(Some(&status.name));
        let add: Vec<_> = if rulesets.is_empty() { Vec::new() } else { vec![rulesets] };
        let transaction = Transaction { remove: &before, add: &add, others };
        let backends = self.backends(statuses, status.backend);
        let change = RuleChange { tools, backends, transaction };
        let record = |backend, mut added: Vec<RemovalRecord>| {
            let added = added.pop();
            let is_new = |record: &&RemovalRecord| Some(*record) != added.as_ref();
            status.replaced = before.iter().filter(is_new).cloned().collect();
            (status.backend, status.firewall) = (Some(backend), added);
            status.write()
        };
        match change.apply(&mut OwnRules::default(), record).await {
            Ok(_) => {
                status.replaced.clear();
                Ok(status.write()?)
            }
            Err(error) if error.left_as_before() => {
                status.restore(before)?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the network's dnsmasq the files for `target`. dnsmasq reads the lists of hosts again
    /// on SIGHUP; every other change needs a new start. `knows` says that a dnsmasq with the same
    /// lists has read them.
    async fn set_server(
        &self,
        status: &mut NetworkStatus,
        target: &Network,
        knows: bool,
    ) -> Result<(), ManagerError> {
        let files = Files::in_dir(&status.dir);
        let Some(served) = config::served(target, files.clone())? else {
            if status.dnsmasq {
                let failed = Dnsmasq::stop(status.served.as_ref(), &files, Leases::Keep).await;
                if let Some(error) = failed.into_iter().next() {
                    return Err(error.into());
                }
                (status.dnsmasq, status.served) = (false, None);
                status.write()?;
            }
            return Ok(());
        };
        let text = served.render().map_err(DnsmasqError::Config)?;
        // A killed start has recorded no process, so a process that is found may be a fork.
        let recorded = status.served.as_ref().is_some_and(|record| record.process.is_some());
        let running = Dnsmasq::find(status.served.as_ref(), &files)
            .filter(|server| status.dnsmasq && recorded && !server.is_stopped());
        match running {
            Some(_) if knows && files.have_conf(&text) && files.have_hosts(&text) => Ok(()),
            Some(server) if files.have_conf(&text) => Ok(server.reload(&served)?),
            _ => serve(&self.dnsmasq()?, &served, status).await,
        }
    }
}
