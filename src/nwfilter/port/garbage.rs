//! Collects garbage, and rebuilds the rules of all ports.
//!
//! Garbage is the rules and saved leases of interfaces that are gone, the rules that an interrupted
//! command left, and learner locks without a holder. A reload rebuilds the rules of all ports from
//! the current definitions and addresses.

use std::collections::BTreeSet;

use nix::net::if_::if_nametoindex;

use super::interface_names::Ports;
use super::lock::Lock;
use super::summary::PortSummary;
use super::{BindingError, Bindings, PortStatus, log};
use crate::firewall::AppliedTexts;
use crate::nwfilter::learn::{Clock, SavedLease};
use crate::types::error_text;

/// The result of a reload.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Reloaded {
    /// A note for each port, one sentence each.
    pub notes: Vec<String>,
    /// The ports that have a filter, as the reload left them.
    pub ports: Vec<PortStatus>,
}

/// The ports after their rules were rebuilt.
pub(super) struct Rebuilt {
    /// The ports whose rules were set.
    changed: Vec<PortStatus>,
    /// The ports whose binding cannot be parsed; they keep their rules.
    kept: Vec<PortStatus>,
}

impl Bindings {
    /// Removes the rules that an interrupted command left and those of interfaces that are gone.
    ///
    /// # Errors
    /// [`BindingError`] if the lock cannot be taken or the garbage cannot be removed.
    pub async fn collect(&self) -> Result<(), BindingError> {
        if !self.dir().exists() {
            return Ok(());
        }
        let (tools, ports) = self.lock().await?;
        let Ports { live, stale, .. } = self.complete_interrupted(&tools, ports).await?;
        self.collect_leases(&[])?;
        if !stale.is_empty() {
            self.change(&tools, Vec::new(), &stale, &self.summaries(&live)).await?;
        }
        Ok(())
    }

    /// Removes the same rules as [`collect`](Self::collect), for a command that does not change
    /// ports otherwise. A failure is logged and does not stop the command.
    pub(super) async fn collect_if_possible(
        &self,
        tools: &Lock,
        stale: &[PortStatus],
        live: &[PortStatus],
    ) {
        if !stale.is_empty()
            && let Err(error) = self.change(tools, Vec::new(), stale, &self.summaries(live)).await
        {
            tracing::warn!(
                "the filters of removed interfaces could not be deleted: {}",
                error_text(&error)
            );
        }
    }

    /// Removes the saved leases of interfaces that are gone, and the learner locks that no process
    /// holds, except those of the ports in `bound`.
    pub(super) fn collect_leases(&self, bound: &[PortSummary]) -> Result<(), BindingError> {
        let names: BTreeSet<_> = bound.iter().map(|other| &other.port).collect();
        let indexes: BTreeSet<_> = bound.iter().map(|other| other.index).collect();
        let gone = |saved: &SavedLease| if_nametoindex(saved.port.as_str()) != Ok(saved.index);
        let saved = self.leases.all_but(&Clock::now(), |port| names.contains(port))?;
        for saved in saved.iter().filter(|saved| gone(saved)) {
            self.leases.remove(&saved.port)?;
        }
        if let Err(error) = self.locks.collect(|index| indexes.contains(&index)) {
            tracing::warn!("unused learner locks cannot be removed: {}", error_text(&error));
        }
        Ok(())
    }

    /// Removes the saved lease of a port whose rules are gone. A lease from a DHCP server stays
    /// while the port exists, since the guest keeps it with another filter, too. So do IPv6
    /// addresses, which a guest tests only once.
    pub(super) fn forget_lease(&self, status: &PortStatus) -> Result<(), BindingError> {
        let clock = Clock::now();
        let Some(saved) = self.leases.read(&status.port, &clock)? else {
            return Ok(self.leases.remove(&status.port)?);
        };
        let is_given = saved.lease.is_some_and(|lease| lease.source.is_dhcp());
        if saved.index != status.index || is_given {
            return Ok(());
        }
        if saved.leases6.is_empty() {
            return Ok(self.leases.remove(&status.port)?);
        }
        let kept = SavedLease { had_address: false, lease: None, ..saved };
        Ok(self.leases.write(&kept, &clock)?)
    }

    /// Sets every port's rules again, with the backend that nwfilter.conf sets now. Returns a note
    /// for each port, one sentence each.
    ///
    /// # Errors
    /// [`BindingError`]; the old rules then stay.
    pub async fn reload(&self) -> Result<Vec<String>, BindingError> {
        Ok(self.reload_beside(async {}).await?.0.notes)
    }

    /// Does the same as [`reload`](Self::reload), and does `work` while nft applies the rules.
    ///
    /// # Errors
    /// The errors of [`reload`](Self::reload).
    pub async fn reload_beside<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<(Reloaded, T), BindingError> {
        if !self.dir().exists() {
            return Ok((Reloaded::default(), work.await));
        }
        let (tools, ports) = self.lock().await?;
        let missing_rules = self.missing_rules(&ports.live).await;
        let (rebuilt, work) = tokio::join!(self.rebuild(&tools, ports), work);
        let Rebuilt { changed: mut ports, kept } = rebuilt?;
        if let Some(applied) = &self.tools.applied {
            // Without ports there are few rules.
            let keep = if ports.is_empty() { AppliedTexts::remove } else { AppliedTexts::save };
            if let Err(error) = keep(applied) {
                tracing::debug!("the next reload applies every text: {}", error_text(&error));
            }
        }
        let note = |PortStatus { port, .. }: &PortStatus| match missing_rules.get(port) {
            Some(what) => format!("the filter of the port {port} is there; before, {what}"),
            None => format!("the filter of the port {port} is there"),
        };
        let notes = ports.iter().map(note).collect();
        ports.extend(kept);
        match self.shared_addresses(&ports).await {
            Ok(shared) => shared.iter().for_each(|shared| tracing::warn!("{shared}")),
            Err(error) => log(Some(error)),
        }
        Ok((Reloaded { notes, ports }, work))
    }

    /// Does the part of [`reload`](Self::reload) that needs the lock.
    pub(super) async fn rebuild(
        &self,
        tools: &Lock,
        ports: Ports,
    ) -> Result<Rebuilt, BindingError> {
        tools.warn_of_damaged();
        self.collect_leases(&[])?;
        // On a full disk, where the marker cannot be written, the rules can still be rebuilt.
        let was_interrupted = self.has_marker();
        if !was_interrupted {
            log(self.write_marker().err());
        }
        self.end_change(self.rebuild_all(tools, ports).await, was_interrupted)
    }

    /// Builds and sets the rules of all ports from the current definitions and addresses.
    pub(super) async fn rebuild_all(
        &self,
        tools: &Lock,
        ports: Ports,
    ) -> Result<Rebuilt, BindingError> {
        let (bound, others) = self.bound(ports.live);
        let wanted = self.wanted(&bound, &self.filters()?)?;
        let changed = self.change(tools, wanted, &ports.stale, &self.summaries(&others)).await?;
        self.rebuild_guard(tools).await?;
        Ok(Rebuilt { changed, kept: others })
    }
}
