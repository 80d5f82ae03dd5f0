//! Sets the firewall rules of networks, with the first backend that accepts them.
//!
//! The transaction itself is the test of a backend, so a working backend costs no extra process.
//! Only a refusal by the tool, with no rule changed, leads to the next backend. A killed tool, or a
//! lack of memory or space, ends the command. If network.conf sets a backend, no other is tried.
//! Before each attempt the caller records what removes the rules, since a netlaunch that is killed
//! after the attempt cannot do so.

use ipnet::IpNet;

use super::published::{self, PublishedGuest};
use super::statuses::Statuses;
use super::{Manager, ManagerError, config};
use crate::firewall::rules::{PublishedPort, Ruleset, Version, add_published, for_network};
use crate::firewall::{
    ApplyError, FirewallBackend, LockedTools, NoUsableBackend, OwnRules, RemovalRecord,
    Transaction, transact_reading,
};
use crate::network::Network;
use crate::sys::netlink::sysctl::Key;
use crate::sys::state_file::StateFileError;
use crate::types::error_text;

impl Manager {
    /// Returns the backends to try, in order. If network.conf sets one, it is the only one.
    /// Otherwise `used`, the backend of the other networks, comes first, since it works. While a
    /// network that is not completely undone has rules in a backend, that backend is the only one:
    /// its tool has just failed, and with another backend the rules of both would stay.
    pub(super) fn backends(
        &self,
        statuses: &Statuses,
        used: Option<FirewallBackend>,
    ) -> Vec<FirewallBackend> {
        if let Some(named) = self.settings.firewall_backend {
            tracing::debug!("the firewall backend is {named}: the settings name it");
            return vec![named];
        }
        if let Some(backend) = statuses.unfinished_backend() {
            return vec![backend];
        }
        let rest = FirewallBackend::ORDER.into_iter().filter(|backend| Some(*backend) != used);
        let order: Vec<FirewallBackend> = used.into_iter().chain(rest).collect();
        if let Some(first) = order.first() {
            let why = match used {
                Some(_) => "the rules of other networks are there",
                None => "the settings name none",
            };
            tracing::debug!("the firewall backend to try first is {first}: {why}");
        }
        order
    }

    /// Returns the rules of a network and of the ports that are published to its guests. On a host
    /// without IPv6 there is no IPv6 to refuse, and its tools may not work, so there are no IPv6
    /// rules.
    pub(super) fn rulesets(
        &self,
        network: &Network,
        published: &[PublishedGuest],
    ) -> Result<Vec<Ruleset>, ManagerError> {
        let subnets: Vec<IpNet> =
            published.iter().flat_map(|guest| guest.subnets.clone()).collect();
        self.rulesets_with(network, &published::ports(published), &subnets)
    }

    /// Does the same as [`rulesets`](Self::rulesets), with ports that need not be published yet.
    /// `subnets` are those of the bridge if the network itself has none.
    pub(super) fn rulesets_with(
        &self,
        network: &Network,
        published: &[PublishedPort],
        subnets: &[IpNet],
    ) -> Result<Vec<Ruleset>, ManagerError> {
        let rules = config::rules(network);
        let mut rulesets = for_network(&rules)?;
        let rules = published::seen_by_ports(&rules, subnets);
        add_published(&mut rulesets, &rules, published)?;
        if !self.has_ipv6()? {
            rulesets.retain(|ruleset| ruleset.version == Version::V4);
        }
        Ok(rulesets)
    }

    /// Returns whether the host has IPv6.
    pub(super) fn has_ipv6(&self) -> Result<bool, ManagerError> {
        Ok(self.sysctls.get(&Key::AllIpv6Disabled)?.is_some_and(|value| value == "0"))
    }
}

/// A change of networks' rules that may use any of several backends.
pub(super) struct RuleChange<'a> {
    pub(super) tools: &'a LockedTools,
    /// The backends to try, in order.
    pub(super) backends: Vec<FirewallBackend>,
    pub(super) transaction: Transaction<'a>,
}

impl RuleChange<'_> {
    /// Carries out the transaction with the first backend that accepts it, and returns that
    /// backend. `record` is called before each attempt with the records of each added owner.
    /// `earlier` receives the iptables rules from before the change.
    ///
    /// # Errors
    /// [`ManagerError`]; [`ManagerError::left_as_before`] returns whether the old rules are in
    /// place.
    pub(super) async fn apply(
        &self,
        earlier: &mut OwnRules,
        mut record: impl FnMut(FirewallBackend, Vec<RemovalRecord>) -> Result<(), StateFileError>,
    ) -> Result<FirewallBackend, ManagerError> {
        let mut tried = Vec::new();
        for &backend in &self.backends {
            let new = |rules: &Vec<Ruleset>| RemovalRecord::new(backend, rules);
            record(backend, self.transaction.add.iter().map(new).collect())?;
            match transact_reading(self.tools, backend, &self.transaction, earlier).await {
                Ok(_) => {
                    for (other, error) in &tried {
                        tracing::info!(
                            "{backend} is used, since {other} does not work: {}",
                            error_text(&error)
                        );
                    }
                    return Ok(backend);
                }
                Err(ApplyError::Tool(error))
                    if error.selects_another() && self.backends.len() > 1 =>
                {
                    tried.push((backend, error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(NoUsableBackend(tried).into())
    }
}
