//! A network's end, and undoing commands that were killed or failed.
//!
//! Undoing clears each step in the status once it is undone. If one fails, the status stays with
//! that step and every later command tries it again. A status that cannot be written is no reason
//! to stop: the one on disk names more steps than are left, and undoing one twice does nothing.

use super::place::Whereabouts;
use super::status::{self, Status};
use super::{Driver, DriverError, config, zone};
use crate::dnsmasq::{Dnsmasq, DnsmasqError, Files, Leases};
use crate::firewall::{LockedTools, Transaction, transact};
use crate::link::Netlink;
use crate::link::sysctl::Restore;
use crate::network::NetworkName;

/// The steps of a network that could not be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) name: NetworkName,
    /// The failures, a sentence each; empty if everything is undone.
    pub(super) failed: Vec<String>,
}

impl Left {
    /// A sentence for each step.
    pub(super) fn sentences(&self) -> Vec<String> {
        self.failed.iter().map(|what| format!("the network {}: {what}", self.name)).collect()
    }
}

impl From<Left> for DriverError {
    fn from(Left { name, failed }: Left) -> Self {
        DriverError::Left { name, failed }
    }
}

impl Driver {
    /// Ends a network. Returns what could not be undone, a sentence each.
    ///
    /// # Errors
    /// [`DriverError`] when it does not run, or nothing could be begun.
    pub async fn destroy(&self, name: &NetworkName) -> Result<Vec<String>, DriverError> {
        let tools = self.lock().await?;
        let collected = self.collect(&tools).await?;
        self.check_status(name)?;
        self.check_reach(name)?;
        for other in collected.iter().filter(|left| left.name != *name) {
            other.sentences().iter().for_each(|what| tracing::warn!("{what}"));
        }
        if let Some(mine) = collected.into_iter().find(|left| left.name == *name) {
            return Ok(mine.failed);
        }
        let (mut mine, others): (Vec<_>, Vec<_>) =
            self.here()?.into_iter().partition(|status| status.name == *name);
        let Some(mut status) = mine.pop() else { return Err(DriverError::Inactive(name.clone())) };
        // If this command is killed, the next one continues from here.
        status.complete = false;
        if let Err(error) = status.write() {
            tracing::warn!("{error}; ending the network {name} without a record of that");
        }
        Ok(self.undo(&tools, &mut status, &others).await)
    }

    /// Undoes the networks whose start or end was killed or failed, and forgets those of network
    /// namespaces that are gone. Returns each one that it undid, with the steps that are left.
    pub(super) async fn collect(&self, tools: &LockedTools) -> Result<Vec<Left>, DriverError> {
        let (mut complete, mut broken) = (Vec::new(), Vec::new());
        for status in status::all(&self.dir())? {
            let status = match status {
                Ok(status) => status,
                Err(damaged) => {
                    tracing::warn!("{}", damaged.error);
                    continue;
                }
            };
            match status.whereabouts() {
                Whereabouts::Here if status.complete => complete.push(status),
                Whereabouts::Here if status.is_out_of_reach() => {}
                Whereabouts::Here => broken.push(status),
                Whereabouts::Elsewhere(_) => {}
                Whereabouts::Gone => {
                    let name = &status.name;
                    tracing::info!("the network namespace of the network {name} is gone");
                    if let Err(error) = status.remove() {
                        tracing::warn!("{error}");
                    }
                }
            }
        }
        let mut collected = Vec::new();
        for mut status in broken {
            tracing::info!("undoing the network {}, which is incomplete", status.name);
            let failed = self.undo(tools, &mut status, &complete).await;
            collected.push(Left { name: status.name, failed });
        }
        if let Err(error) = status::sweep(&self.dir()) {
            tracing::warn!("{error}");
        }
        Ok(collected)
    }

    /// Undoes a network's steps, last first; goes on over failures and returns them. The status
    /// keeps the steps that failed.
    pub(super) async fn undo(
        &self,
        tools: &LockedTools,
        status: &mut Status,
        others: &[Status],
    ) -> Vec<String> {
        let mut left = Vec::new();
        if status.dnsmasq {
            let (files, record) = (Files::in_dir(&status.dir), status.served.as_ref());
            let failed = Dnsmasq::stop(record, &files, Leases::Remove).await;
            // A file that stays is reported when the directory is removed.
            let ended = failed.iter().all(|error| matches!(error, DnsmasqError::File { .. }));
            if ended {
                (status.dnsmasq, status.served) = (false, None);
            } else {
                left.extend(failed.iter().map(ToString::to_string));
            }
        }
        // The links first: from then on the guests reach nothing, whatever the rules say.
        left.extend(unlink(status).await);
        let remove = status.rules();
        if let Some(backend) = remove.last().map(|recorded| recorded.backend()) {
            let others = self.in_nft(Some(&status.name), others);
            let transaction = Transaction { remove: &remove, add: &[], others };
            match transact(tools, backend, &transaction).await {
                Ok(_) => {
                    status.firewall = None;
                    status.replaced.clear();
                }
                Err(error) => left.push(error.to_string()),
            }
        }
        match zone::undo(&self.settings.system_bus, status).await {
            Ok(()) => status.zone = None,
            Err(error) => left.push(error.to_string()),
        }
        left.extend(self.restore(status, others));
        let kept = if status.is_undone() {
            status.remove()
        } else {
            status.complete = false;
            status.write()
        };
        left.extend(kept.err().map(|error| error.to_string()));
        left
    }

    /// Restores the kernel settings that a network changed, or hands them to one that needs them.
    fn restore(&self, status: &mut Status, others: &[Status]) -> Vec<String> {
        let mut left = Vec::new();
        let mut kept = Vec::new();
        for change in std::mem::take(&mut status.settings).into_iter().rev() {
            let heir = others.iter().find(|other| {
                other.network().is_some_and(|n| config::settings(&n).contains(&change.key))
            });
            let done = match self.sysctls.undo(&change, heir.is_some()) {
                Ok(Restore::HandOver) => heir.map_or(Ok(()), |heir| {
                    heir.inherit(&change).map_err(|error| error.to_string())
                }),
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = done {
                left.push(error);
                kept.insert(0, change);
            }
        }
        status.settings = kept;
        left
    }
}

/// Removes a network's routes, addresses and links. Returns what failed.
async fn unlink(status: &mut Status) -> Vec<String> {
    let netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(_) if status.links.is_empty() => return Vec::new(),
        Err(error) => return vec![error.to_string()],
    };
    let mut left = Vec::new();
    // A route that could not be removed is gone with its link, which the second round finds.
    for _ in 0..2 {
        left.clear();
        for undo in std::mem::take(&mut status.links).into_iter().rev() {
            if let Err(error) = netlink.undo(&undo).await {
                left.push(error.to_string());
                status.links.insert(0, undo);
            }
        }
    }
    left
}
