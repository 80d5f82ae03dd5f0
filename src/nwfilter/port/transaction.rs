//! Changes the rules of any number of ports as one transaction, in the order that [`super`]
//! describes.
//!
//! [`Bindings::change`] marks the ports that lose their filter, tries the firewall backends one
//! after the other, and then removes the status files of these ports. Each attempt writes the
//! status files before it applies the rules, and again afterwards.
//!
//! At every moment the status files must be able to remove each rule that the kernel may hold. So
//! the old status files are restored only if the firewall reports that the old rules are in place.
//! Otherwise the files keep the records of the old and of the new rules.

use std::borrow::Cow;
use std::sync::Arc;

use super::bridge::{check_iptables_name, iptables_is_called};
use super::desired_port::DesiredPort;
use super::lock::Lock;
use super::summary::PortSummary;
use super::table_choice::{choose_tables, corrected, is_special, tables_in_kernel};
use super::{BindingError, Bindings, FailedPorts, PortState, PortStatus, log};
use crate::firewall::port_nft::{TableUse, TablesInKernel};
use crate::firewall::rules::port::PortRules;
use crate::firewall::{
    Beside, FirewallBackend, NoUsableBackend, PortError, PortFilter, PortPlan, PortRecord,
    Unwritable,
};
use crate::sys::state_file::{self, StateFileError};
use crate::types::error_text;

/// A change of the rules of several ports, which happens completely or not at all.
struct Transaction<'a> {
    bindings: &'a Bindings,
    lock: &'a Lock,
    /// The ports whose rules are set.
    wanted: &'a [DesiredPort],
    /// The ports that lose their rules. A port in `wanted` may have the name of one of them.
    gone: &'a [PortStatus],
    /// The records of all old rules of these ports.
    old: Vec<&'a PortRecord>,
    /// The rules beside those of the transaction.
    beside: Beside,
    /// The tables that the kernel has ports in.
    kernel: TablesInKernel,
    /// The only backend that may be used, if nwfilter.conf or the guard of ports sets one.
    configured: Option<FirewallBackend>,
}

/// The status files that one attempt writes.
#[derive(Default)]
struct StatusFiles {
    /// The files to write before the rules change, with the records of the old and the new rules.
    before: Vec<PortStatus>,
    /// The files to write after the rules have changed, with the records of the new rules.
    after: Vec<PortStatus>,
    /// The files to write only after the change: their old records also remove the new rules.
    same_objects: Vec<PortStatus>,
    /// The statuses of all ports after the change.
    all: Vec<PortStatus>,
}

impl Bindings {
    /// Sets the `wanted` rules and removes the rules of `gone`. `others` are the remaining ports
    /// with a filter, which do not change. Returns the new statuses of the `wanted` ports.
    pub(super) async fn change(
        &self,
        lock: &Lock,
        wanted: Vec<DesiredPort>,
        gone: &[PortStatus],
        others: &[PortSummary],
    ) -> Result<Vec<PortStatus>, BindingError> {
        let dir = self.dir();
        self.remove_index();
        if self.tools.applied.is_none() {
            // The texts of the last reload are no longer the last changes of rules.
            log(state_file::remove(&self.applied_path()).err());
        }
        let concerned = || wanted.iter().map(|wanted| &wanted.status).chain(gone);
        for status in concerned() {
            lock.check(&status.port)?;
        }
        let tables: TableUse = others.iter().filter_map(|other| other.table).collect();
        let kernel = tables_in_kernel(wanted.len(), &tables);
        let old: Vec<_> = concerned()
            .flat_map(|status| &status.recorded)
            .map(|record| corrected(record, &kernel))
            .collect();
        let (guarded, backend_of_guard) = self.guard_of_change();
        let transaction = Transaction {
            bindings: self,
            lock,
            wanted: &wanted,
            gone,
            old: old.iter().map(Cow::as_ref).collect(),
            beside: Beside {
                // A port whose status cannot be read may have rules in the table.
                needs_table: guarded || lock.has_damaged() || !tables.is_empty(),
                tables,
                guarded,
            },
            kernel,
            configured: self.settings.firewall_backend.or(backend_of_guard),
        };
        // If the command is interrupted after this point, the next command completes the removal.
        let removals: Vec<&PortStatus> = gone.iter().filter(|status| status.is_bound()).collect();
        // A removal needs no new record, since the old one names every object to remove. So it
        // continues on a full or read-only disk. If the command is then killed, the status file
        // claims rules that are gone, and a reload sets them again.
        for status in &removals {
            let state = PortState::Changing { off: status.is_off() };
            if let Err(error) = (PortStatus { state, ..(*status).clone() }).write(&dir) {
                tracing::warn!(
                    "{}; the rules of the port {} are removed anyway",
                    error_text(&error),
                    status.port
                );
            }
        }
        let changed = match transaction.try_backends().await {
            Ok(changed) => changed,
            Err(error) => {
                if !error.is_half_done() {
                    log(removals.iter().filter_map(|status| status.write(&dir).err()));
                }
                return Err(error);
            }
        };
        // A status in `gone` of a port that is also in `wanted` was already overwritten. For the
        // others, try to remove every file and return the first error at the end, since the rules
        // are already gone.
        let mut removed = Ok(());
        for status in gone.iter().filter(|gone| !wanted.iter().any(|w| w.status.port == gone.port))
        {
            removed =
                removed.and(self.forget_lease(status).and_then(|()| Ok(status.remove(&dir)?)));
        }
        if !gone.is_empty() {
            log(self.collect_leases(others).err());
        }
        for wanted in &wanted {
            self.turn_on(&wanted.status).await;
        }
        removed.map(|()| changed)
    }
}

impl Transaction<'_> {
    /// Tries the [`choices`](Self::choices) in order until a backend can set the rules.
    async fn try_backends(&self) -> Result<Vec<PortStatus>, BindingError> {
        let configured = self.configured;
        let mut failures = Vec::new();
        for backends in self.choices() {
            match self.attempt(&backends).await {
                Err(BindingError::Firewall { ports, error })
                    if configured.is_none() && error.is_backends() =>
                {
                    let backend = if backends.contains(&FirewallBackend::Nftables) {
                        FirewallBackend::Nftables
                    } else {
                        FirewallBackend::Iptables
                    };
                    tracing::debug!("{backend} is not used: {}", error_text(&error));
                    failures.push((backend, FailedPorts { ports, error }));
                }
                Err(error) => return Err(error),
                Ok(changed) => {
                    let why = match configured {
                        Some(_) => "the settings or the guard of ports demand it",
                        None => "the backend accepts them",
                    };
                    for (DesiredPort { status, .. }, backend) in self.wanted.iter().zip(&backends) {
                        tracing::debug!("the rules of {} are in {backend}: {why}", status.port);
                    }
                    self.warn_of_moved(&backends, failures.last());
                    return Ok(changed);
                }
            }
        }
        Err(NoUsableBackend(failures).into())
    }

    /// Warns of ports whose rules were in nftables and are in iptables now.
    fn warn_of_moved(
        &self,
        backends: &[FirewallBackend],
        failure: Option<&(FirewallBackend, FailedPorts)>,
    ) {
        let has_moved = |status: &PortStatus, backend| {
            let was = (status.is_bound(), status.backend);
            was == (true, FirewallBackend::Nftables) && backend == FirewallBackend::Iptables
        };
        let statuses = self.wanted.iter().map(|wanted| &wanted.status).zip(backends);
        let moved: Vec<_> =
            statuses.filter(|(status, backend)| has_moved(status, **backend)).collect();
        if let ([(first, _), more @ ..], Some((_, FailedPorts { error, .. }))) = (&*moved, failure)
        {
            let more = match more.len() {
                0 => String::new(),
                number => format!(" and of {number} other ports"),
            };
            tracing::warn!(
                "the rules of the port {}{more} moved from nftables to iptables: {}",
                first.port,
                error_text(error)
            );
        }
    }

    /// Returns the backends to try for each port, the best choice first. If nwfilter.conf sets a
    /// backend, or a guard of ports is there, it is the only choice. Otherwise the choices are
    /// nftables for all ports, then iptables only for the ports with rules that nftables may not
    /// support, then iptables for all. iptables cannot filter a port without a bridge.
    fn choices(&self) -> Vec<Vec<FirewallBackend>> {
        let all = |backend| vec![backend; self.wanted.len()];
        let needs_nftables = |wanted: &DesiredPort| !wanted.status.hooks.is_bridge();
        if let Some(backend) = self.configured {
            return vec![all(backend)];
        }
        let iptables_if = |iptables| {
            if iptables { FirewallBackend::Iptables } else { FirewallBackend::Nftables }
        };
        let mixed = self.wanted.iter().map(|wanted| {
            iptables_if(wanted.all_rules().any(is_special) && !needs_nftables(wanted))
        });
        let mut choices = vec![all(FirewallBackend::Nftables), mixed.collect()];
        if !self.wanted.is_empty() {
            let iptables = self.wanted.iter().map(|wanted| iptables_if(!needs_nftables(wanted)));
            choices.push(iptables.collect());
        }
        choices.dedup();
        choices
    }

    /// Sets the rules with these backends, one for each port.
    async fn attempt(&self, backends: &[FirewallBackend]) -> Result<Vec<PortStatus>, BindingError> {
        let plan = self.plan(backends).await?;
        let files = self.status_files(plan.recorded(), backends);
        if let Err(error) = self.write(&files.before) {
            self.restore();
            return Err(error.into());
        }
        if let Err(error) = plan.apply(self.lock, &self.old, &self.beside).await {
            // If the rollback failed, or the new rules may be set, the status files keep both
            // records.
            if error.left_as_before() {
                self.restore();
            }
            return Err(self.firewall_error(error));
        }
        for error in files.same_objects.iter().filter_map(|s| s.write(&self.bindings.dir()).err()) {
            tracing::warn!(
                "{}; until the next reload the port may seem to lack rules",
                error_text(&error)
            );
        }
        match self.write(&files.after) {
            Ok(()) => Ok(files.all),
            Err(error) => Err(self.undo_unrecorded(&plan, error).await?),
        }
    }

    /// Renders the rules of all ports, and checks that the backends can set these rules and the
    /// pending ones.
    async fn plan(&self, backends: &[FirewallBackend]) -> Result<PortPlan, BindingError> {
        let (mut filters, mut pending) = (Vec::new(), Vec::new());
        let tables = choose_tables(self.wanted, backends, &self.beside.tables, &self.kernel);
        for ((wanted, backend), tables) in self.wanted.iter().zip(backends).zip(tables) {
            let PortStatus { port, index, .. } = &wanted.status;
            if *backend == FirewallBackend::Iptables && wanted.status.hooks.is_bridge() {
                let has_packets = |rules: &PortRules| {
                    !rules.from_guest.packets.is_empty() || !rules.to_guest.packets.is_empty()
                };
                check_iptables_name(port)?;
                if wanted.all_rules().any(has_packets) && !iptables_is_called(port) {
                    return Err(BindingError::NotCalled(port.clone()));
                }
            }
            let filter = |rules: &Arc<PortRules>| PortFilter {
                index: *index,
                port: port.clone(),
                rules: rules.clone(),
                backend: *backend,
                hooks: wanted.status.hooks,
                tables,
            };
            filters.push(filter(&wanted.rules));
            pending.extend(wanted.pending_rules.iter().map(filter));
        }
        let plan = PortPlan::new(&filters, self.bindings.extras())?;
        // Errors in the pending rules are reported now, and not when the address is learned.
        let pending_plan = PortPlan::new(&pending, self.bindings.extras())?;
        if pending.iter().any(|filter| is_special(&filter.rules)) {
            pending_plan.check(self.lock).await.map_err(|error| self.firewall_error(error))?;
        }
        Ok(plan)
    }

    /// Returns the status files of an attempt that makes these records, one for each port.
    fn status_files(&self, records: &[PortRecord], backends: &[FirewallBackend]) -> StatusFiles {
        let settings = &self.bindings.settings;
        let mut files = StatusFiles::default();
        for ((wanted, record), backend) in self.wanted.iter().zip(records).zip(backends) {
            let (old, target) = (&wanted.status, &wanted.target);
            let mut after = PortStatus {
                state: PortState::Bound,
                address: wanted.address,
                addresses6: wanted.addresses6.clone(),
                // A learned address clears the earlier refusal.
                refused: target.refused.clone().filter(|_| wanted.address.is_none()),
                backend: *backend,
                trace: settings.enable_trace,
                counters: settings.enable_counters,
                definitions: Some(self.bindings.store.dir().to_owned()),
                ..target.clone()
            };
            let earlier = self.earlier(wanted);
            // The target still has the records of the old status.
            let differs = earlier.is_some() || after != *old;
            after.recorded = vec![record.clone()];
            // A record with the same objects removes the new rules as well, so it need not be
            // written before the change. So a full disk stops no change that alters only the number
            // of rules.
            if let (false, [one]) = (differs, old.recorded.as_slice())
                && one.has_objects_of(record)
            {
                files.same_objects.extend(Some(&after).filter(|_| one != record).cloned());
                files.all.push(after);
                continue;
            }
            let mut both = old.recorded.clone();
            both.extend(earlier.into_iter().flat_map(|status| status.recorded.clone()));
            if !both.contains(record) {
                both.push(record.clone());
            }
            files.before.push(PortStatus { recorded: both, ..old.clone() });
            files.after.push(after.clone());
            files.all.push(after);
        }
        files
    }

    /// Ends an attempt whose rules are set, but whose status files could not be written because of
    /// `error`. The files written before the change name the old and the new rules. So ports that
    /// had rules keep these files, and the next command completes them. If all ports are new, their
    /// rules are removed again. Returns the error of the attempt.
    async fn undo_unrecorded(
        &self,
        plan: &PortPlan,
        error: StateFileError,
    ) -> Result<BindingError, BindingError> {
        if self.wanted.iter().any(|wanted| wanted.status.is_bound()) {
            return Ok(BindingError::Unrecorded(error));
        }
        let nothing = PortPlan::new(&[], self.bindings.extras())?;
        let undone = nothing
            .apply(self.lock, &plan.recorded().iter().collect::<Vec<_>>(), &self.beside)
            .await;
        undone.map_err(|error| self.firewall_error(error))?;
        let dir = self.bindings.dir();
        log(self.wanted.iter().filter_map(|wanted| wanted.status.remove(&dir).err()));
        Ok(error.into())
    }

    /// Restores the status files after a change that left the old rules in place. A bound port gets
    /// its old status back. A new port gets the status of the earlier interface with its name, or
    /// none.
    fn restore(&self) {
        let dir = &self.bindings.dir();
        log(self.wanted.iter().filter_map(|wanted| {
            let restored = match (wanted.status.is_bound(), self.earlier(wanted)) {
                (true, _) => wanted.status.write(dir),
                (false, Some(earlier)) => earlier.write(dir),
                (false, None) => wanted.status.remove(dir),
            };
            restored.err()
        }));
    }

    /// Returns the status of an earlier interface with the name of this port. The same transaction
    /// removes its rules.
    fn earlier(&self, wanted: &DesiredPort) -> Option<&PortStatus> {
        self.gone.iter().find(|status| status.port == wanted.status.port)
    }

    fn write(&self, statuses: &[PortStatus]) -> Result<(), StateFileError> {
        statuses.iter().try_for_each(|status| status.write(&self.bindings.dir()))
    }

    fn firewall_error(&self, error: PortError) -> BindingError {
        let ports = self.wanted.iter().map(|wanted| wanted.status.port.clone()).collect();
        BindingError::Firewall { ports, error }
    }
}

impl From<Unwritable> for BindingError {
    fn from(Unwritable { port, error }: Unwritable) -> Self {
        BindingError::Firewall { ports: vec![port], error }
    }
}
