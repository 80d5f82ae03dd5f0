//! The rules that are in force on a bound port, and what they have counted.
//!
//! The rules are compiled again from the binding, the definitions and the saved lease. They are the
//! rules in the kernel only if their digest is that of the port's record. Otherwise the definition
//! was changed without netlaunch, or another version of netlaunch set the rules, and no rule in the
//! kernel can be attributed to a line of a definition.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{BindingError, Bindings, PortStatus};
use crate::firewall::rules::port::PortRules;
use crate::firewall::{
    CountError, Counters, FirewallBackend, PortCounts, PortRecord, PortRoles, PortTrace,
    RuleCounts, RulesCounted, TraceError,
};
use crate::nwfilter::Binding;
use crate::types::{InterfaceName, error_text};

/// A bound port and the rules that are in force on it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PortInForce {
    /// The status of the port.
    pub status: PortStatus,
    /// The binding of the port.
    pub binding: Binding,
    /// The rules: those of the filter, or those that let the guest get an address.
    pub rules: Arc<PortRules>,
}

impl PortInForce {
    /// Returns the roles of the rules in the kernel.
    pub fn roles(&self) -> PortRoles {
        let Some(record) = self.status.recorded.first() else { return PortRoles::default() };
        let settings = (self.status.trace, self.status.counters);
        // The kernel has the rules under the name that the port had when they were set.
        let port = self.status.renamed_from.as_ref().unwrap_or(&self.status.port);
        PortRoles::of(record, port, &self.rules, settings)
    }
}

/// The counters of a port's rules, or the reason why they are not known.
pub type PortRuleCounts = Result<RuleCounts, String>;

impl Bindings {
    /// Returns a bound port with the rules that are in force on it.
    ///
    /// # Errors
    /// [`BindingError::Unbound`] if the port has no filter, [`BindingError::OtherRules`] if the
    /// rules in the kernel were not made from the present definitions.
    pub fn in_force(&self, port: &InterfaceName) -> Result<PortInForce, BindingError> {
        self.rules_in_force(self.get(port)?)
    }

    /// Does the same as [`in_force`](Self::in_force), but first waits until no command changes
    /// filters. In the middle of a change, the kernel has new rules while the record and the
    /// definition are still the old ones.
    ///
    /// # Errors
    /// The errors of [`in_force`](Self::in_force), and [`BindingError::Locked`].
    pub async fn in_force_after_changes(
        &self,
        port: &InterfaceName,
    ) -> Result<PortInForce, BindingError> {
        let _locked = self.lock().await?;
        self.in_force(port)
    }

    /// Does the same as [`in_force`](Self::in_force) for the status of a port.
    ///
    /// # Errors
    /// The errors of [`in_force`](Self::in_force).
    pub fn rules_in_force(&self, status: PortStatus) -> Result<PortInForce, BindingError> {
        let other = || BindingError::OtherRules(status.port.clone());
        let binding = self.binding(&status)?;
        let filters = self.store.tree(&binding.filter)?;
        let bound = [(status.clone(), binding)];
        let wanted = self.wanted(&bound, &filters)?.pop().ok_or_else(other)?;
        // A record of old and new rules belongs to a change that was interrupted.
        match status.recorded.as_slice() {
            [record] if record.digest() == Some(wanted.rules.digest()) => {}
            _ => return Err(other()),
        }
        let [(status, binding)] = bound;
        Ok(PortInForce { status, binding, rules: wanted.rules })
    }

    /// Reads the counters of these ports' filters, by interface index. Ports without counters are
    /// left out. If nft cannot read the counters, it logs a warning and returns an empty map. nft
    /// runs once for each family of tables, or not at all if no port has counters.
    pub async fn counts<'a>(
        &self,
        ports: impl Iterator<Item = &'a PortStatus>,
    ) -> BTreeMap<u32, PortCounts> {
        let objects: Vec<_> = ports
            .flat_map(|status| &status.recorded)
            .filter_map(PortRecord::objects)
            .filter(|objects| objects.has_counters())
            .collect();
        if objects.is_empty() {
            return BTreeMap::new();
        }
        match Counters::read(&self.tools).await {
            Ok(counters) => objects
                .into_iter()
                .filter_map(|objects| Some((objects.index, counters.of(objects)?)))
                .collect(),
            Err(error) => {
                let error = error_text(&error);
                tracing::warn!("cannot read the counters of the ports' filters: {error}");
                BTreeMap::new()
            }
        }
    }

    /// Reads the counters of the rules of these ports, by interface index; the error says why the
    /// counters of a port are not known. Each tool of iptables runs once for all ports.
    pub async fn rule_counts(&self, ports: &[PortStatus]) -> BTreeMap<u32, PortRuleCounts> {
        let records: Vec<&PortRecord> = ports.iter().flat_map(|port| &port.recorded).collect();
        let counted = RulesCounted::read(&self.tools, &records).await;
        let counts = |status: &PortStatus| {
            if status.backend == FirewallBackend::Nftables && !status.counters {
                return Err(error_text(&CountError::Off));
            }
            let port = self.rules_in_force(status.clone()).map_err(|error| error_text(&error))?;
            counted.of(&port.roles()).map_err(|error| error_text(&error))
        };
        ports.iter().map(|status| (status.index, counts(status))).collect()
    }

    /// Starts to follow the kernel's trace of a port. Call it in a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// [`TraceError`]; no rule was added.
    pub async fn trace(&self, port: &PortInForce) -> Result<PortTrace, TraceError> {
        let status = &port.status;
        let record = status.recorded.first().ok_or_else(|| {
            TraceError::Kernel(std::io::Error::other("the port has no recorded rules"))
        })?;
        // The rules of iptables mark no frames.
        let marks = status.trace && status.backend == FirewallBackend::Nftables;
        PortTrace::open(&self.tools, record, &status.port, port.roles(), marks).await
    }

    /// Returns a note if the port's backend ignores the setting of the trace.
    pub(super) fn trace_note(&self, status: &PortStatus) -> Option<String> {
        let ignored = status.trace && status.backend == FirewallBackend::Iptables;
        ignored.then(|| {
            format!(
                "enable_trace has no effect on the port {}: only nftables supports this",
                status.port
            )
        })
    }
}
