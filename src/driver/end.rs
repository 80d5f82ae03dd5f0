//! A network's end, and taking back what a killed command left.

use super::status::{self, Status};
use super::{Driver, DriverError, config, zone};
use crate::dnsmasq::{Dnsmasq, Files, Leases};
use crate::firewall::{LockedTools, Transaction, transact};
use crate::link::Netlink;
use crate::link::sysctl::Restore;
use crate::network::NetworkName;

impl Driver {
    /// Ends a network. Returns what could not be undone, a sentence each.
    ///
    /// # Errors
    /// [`DriverError`] when it does not run, or nothing could be begun.
    pub async fn destroy(&self, name: &NetworkName) -> Result<Vec<String>, DriverError> {
        let tools = self.lock().await?;
        let mut left = self.collect(&tools).await?;
        self.check_status(name)?;
        let (mut mine, others): (Vec<_>, Vec<_>) =
            self.active()?.into_iter().partition(|status| status.name == *name);
        let Some(mut status) = mine.pop() else { return Err(DriverError::Inactive(name.clone())) };
        // From here on it is for the next command to go on, where this one is killed.
        status.complete = false;
        status.write()?;
        left.extend(self.undo(&tools, &status, &others).await);
        Ok(left)
    }

    /// Takes back what starts that were killed left. Returns what could not be undone.
    pub(super) async fn collect(&self, tools: &LockedTools) -> Result<Vec<String>, DriverError> {
        let (mut complete, mut broken) = (Vec::new(), Vec::new());
        for status in status::all(&self.dir())? {
            match status {
                Ok(status) if status.complete => complete.push(status),
                Ok(status) => broken.push(status),
                Err(damaged) => tracing::warn!("{}", damaged.error),
            }
        }
        let mut left = Vec::new();
        for status in &broken {
            tracing::info!("the start of the network {} was cut short, and is undone", status.name);
            left.extend(self.undo(tools, status, &complete).await);
        }
        status::sweep(&self.dir())?;
        Ok(left)
    }

    /// Undoes a network's steps, last first; goes on over failures and returns them.
    pub(super) async fn undo(
        &self,
        tools: &LockedTools,
        status: &Status,
        others: &[Status],
    ) -> Vec<String> {
        let mut left = Vec::new();
        if status.dnsmasq {
            let files = Files::in_dir(&status.dir);
            left.extend(
                Dnsmasq::stop(&files, Leases::Remove).await.iter().map(ToString::to_string),
            );
        }
        // The links first: from then on the guests reach nothing, whatever the rules say.
        match Netlink::open() {
            Ok(netlink) => {
                let failed = netlink.undo_all(&status.links).await;
                left.extend(failed.iter().map(ToString::to_string));
            }
            Err(error) => left.push(error.to_string()),
        }
        let remove = status.rules();
        if let Some(backend) = remove.last().map(|recorded| recorded.backend()) {
            let transaction =
                Transaction { remove: &remove, add: &[], others: self.in_nft(others) };
            if let Err(error) = transact(tools, backend, &transaction).await {
                left.push(error.to_string());
            }
        }
        if let Err(error) = zone::undo(&self.settings.system_bus, status).await {
            left.push(error.to_string());
        }
        for change in status.settings.iter().rev() {
            let heir = others.iter().find(|other| {
                other.network().is_some_and(|n| config::settings(&n).contains(&change.key))
            });
            match self.sysctls.undo(change, heir.is_some()) {
                Ok(Restore::HandOver) => {
                    if let Some(Err(error)) = heir.map(|heir| heir.inherit(change)) {
                        left.push(error.to_string());
                    }
                }
                Ok(_) => {}
                Err(error) => left.push(error.to_string()),
            }
        }
        if let Err(error) = status.remove() {
            left.push(error.to_string());
        }
        left
    }
}
