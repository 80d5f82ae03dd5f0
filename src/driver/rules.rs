//! The firewall rules of networks, set through the first backend that takes them.
//!
//! Whether a backend works is found out by using it: the transaction is the test, so that what works
//! costs no second process. Only a tool's own refusal, with nothing changed, selects the next
//! backend; a killed tool or a shortage ends the command. A setting names one backend and leaves no
//! other. Before each attempt the caller records what removes the rules, since a netlaunch that is
//! killed after the attempt cannot.

use super::place::Whereabouts;
use super::status::{self, Status};
use super::{Driver, DriverError, config};
use crate::firewall::{
    ApplyError, Backend, LockedTools, Recorded, ToolError, Transaction, transact,
};
use crate::link::sysctl::Key;
use crate::network::Network;
use crate::rules::{Ruleset, Version, for_network};
use crate::state::StatusError;

/// No backend took the rules.
#[derive(Debug, thiserror::Error)]
#[error("no firewall backend works on this host: {}", reasons(.0))]
pub struct Untaken(
    /// Each one that was tried, and what it said.
    pub Vec<(Backend, ToolError)>,
);

fn reasons(tried: &[(Backend, ToolError)]) -> String {
    let reason = |(backend, error): &(Backend, ToolError)| format!("{backend}: {error}");
    tried.iter().map(reason).collect::<Vec<_>>().join("; ")
}

impl Driver {
    /// The backends to try, in this order: the one that the settings name, else the one that the
    /// other networks' rules are in, which works, before the rest. While a network that is not
    /// completely undone has rules in a backend, that is the only one: its tool has just failed, and
    /// the rules of two backends would stay.
    pub(super) fn backends(&self, others: &[Status]) -> Vec<Backend> {
        if let Some(named) = self.settings.firewall_backend {
            return vec![named];
        }
        let all = status::all(&self.dir()).unwrap_or_default().into_iter().flatten();
        let left = all.filter(|one| !one.complete && one.whereabouts() == Whereabouts::Here);
        if let Some(rules) = left.flat_map(|status| status.rules()).next() {
            return vec![rules.backend()];
        }
        let used = others.iter().find_map(|other| other.firewall.as_ref().map(Recorded::backend));
        let rest = Backend::ORDER.into_iter().filter(|backend| Some(*backend) != used);
        used.into_iter().chain(rest).collect()
    }

    /// The rules of a network. Without IPv6 on the host there is none to refuse, and the tools for
    /// it may not work.
    pub(super) fn rulesets(&self, network: &Network) -> Result<Vec<Ruleset>, DriverError> {
        let mut rulesets = for_network(&config::rules(network))?;
        if !self.has_ipv6()? {
            rulesets.retain(|ruleset| ruleset.version == Version::V4);
        }
        Ok(rulesets)
    }

    /// Whether the host has IPv6.
    pub(super) fn has_ipv6(&self) -> Result<bool, DriverError> {
        Ok(self.sysctls.get(&Key::AllIpv6Disabled)?.is_some_and(|value| value == "0"))
    }

    /// Removes and adds rules in one transaction, through the first of `backends` that takes it.
    /// `record` is called before each attempt, with what is to be recorded for each added owner.
    ///
    /// # Errors
    /// [`DriverError`]; [`DriverError::left_as_before`] says whether the rules are as they were.
    pub(super) async fn set_rules(
        &self,
        tools: &LockedTools,
        backends: &[Backend],
        transaction: &Transaction<'_>,
        mut record: impl FnMut(Backend, Vec<Recorded>) -> Result<(), StatusError>,
    ) -> Result<Backend, DriverError> {
        let mut tried = Vec::new();
        for backend in backends {
            let added = transaction.add.iter().map(|rules| Recorded::new(*backend, rules));
            record(*backend, added.collect())?;
            match transact(tools, *backend, transaction).await {
                Ok(_) => {
                    for (other, error) in &tried {
                        tracing::info!("{backend} is used, since {other} does not work: {error}");
                    }
                    return Ok(*backend);
                }
                Err(ApplyError::Tool(error)) if error.selects_another() && backends.len() > 1 => {
                    tried.push((*backend, error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Untaken(tried).into())
    }
}
