//! Checks whether the filters of ports are in force: whether each port is on a bridge, and whether
//! its rules are in the kernel as netlaunch set them.
//!
//! The status file of a port records which rules were set. Another program can flush the rules or
//! remove the port from its bridge at any time, and netlaunch is not notified. So a command that
//! shows ports reads all interfaces once and all rules once, for any number of ports
//! ([`PortRulesState`]).

use std::collections::BTreeMap;

use serde::Serialize;

use super::bridge::{NotOnBridge, Site, find, iptables_is_called};
use super::{BindingError, Bindings, PortState, PortStatus};
use crate::firewall::{PortHooks, PortRecord, PortRulesState, RulesKnown, RulesState};
use crate::nwfilter::FilterName;
use crate::sys::netlink::{GuestTap, Link, Netlink};
use crate::sys::state_file;
use crate::types::facts::Problem;
use crate::types::{InterfaceName, error_text};

/// The command that sets the rules of all ports and attaches the taps of launches.
const RELOAD: &str = "netlaunch firewall reload";

/// Whether a port's filter is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FilterState {
    /// The filter sees every frame of the guest.
    InForce,
    /// The port is on no bridge, so the filter sees no frame.
    NoBridge,
    /// Some or all of its rules are not in the kernel, or are for a name that the port had before.
    RulesMissing,
    /// The rules are there, but rules of other programs come first and may accept frames that the
    /// filter rejects.
    Overtaken,
    /// The rules are there, but the kernel does not pass bridged packets to iptables.
    NotCalled,
    /// The port is turned off, because its rules could not be set.
    Off,
    /// The rules in the kernel cannot be read, for example by an ordinary user, or an earlier
    /// netlaunch recorded no rules to compare with.
    Unknown,
}

impl FilterState {
    /// Returns the text for a table.
    pub fn words(self) -> &'static str {
        match self {
            FilterState::InForce => "in force",
            FilterState::NoBridge => "no bridge",
            FilterState::RulesMissing => "rules missing",
            FilterState::Overtaken => "overtaken",
            FilterState::NotCalled => "not called",
            FilterState::Off => "off",
            FilterState::Unknown => "unknown",
        }
    }
}

/// The result of a check of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortCheck {
    /// The state of the first problem.
    pub state: FilterState,
    /// The bridge of the port now; if it has none, the bridge at the time of the binding.
    pub bridge: Option<InterfaceName>,
    /// The missing rules, or the place where other rules come first, as a clause.
    pub rules_problem: Option<String>,
    /// Why the filter is not in force and how to fix it; empty if it is in force or if that is
    /// unknown.
    pub problems: Vec<Problem>,
}

/// A port whose filter is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortProblem {
    /// The port.
    pub port: InterfaceName,
    /// The filter of the port.
    pub filter: FilterName,
    /// The result of the check.
    pub check: PortCheck,
}

impl Bindings {
    /// Checks whether the filters of these ports are in force; the results have the order of the
    /// ports. Changes nothing. If the rules cannot be read, it logs a warning.
    ///
    /// Another command can change a port between the read of its status and that of its rules, and
    /// the two then differ. So if there is a problem, the ports are read and checked again under
    /// the lock of all ports, and a port without a filter by then is left out. Without the lock,
    /// which an ordinary user cannot take, the first check counts.
    ///
    /// # Errors
    /// [`BindingError`]: the host's interfaces or the statuses cannot be read.
    pub async fn check_ports(
        &self,
        live: Vec<PortStatus>,
    ) -> Result<Vec<(PortStatus, PortCheck)>, BindingError> {
        self.check_ports_knowing(live, None, RulesKnown::Nothing).await
    }

    async fn check_ports_knowing(
        &self,
        live: Vec<PortStatus>,
        links: Option<&[Link]>,
        known: RulesKnown,
    ) -> Result<Vec<(PortStatus, PortCheck)>, BindingError> {
        let checks = self.compare(&live, links, known).await?;
        if checks.iter().all(|check| check.problems.is_empty()) {
            return Ok(live.into_iter().zip(checks).collect());
        }
        let _lock = match state_file::lock(&self.dir(), self.lock_limit).await {
            Ok(lock) => lock,
            Err(error) => {
                tracing::debug!(
                    "ports with problems are not checked again: {}",
                    error_text(&error)
                );
                return Ok(live.into_iter().zip(checks).collect());
            }
        };
        let mut now = self.list()?;
        now.retain(|status| live.iter().any(|earlier| earlier.index == status.index));
        let checks = self.compare(&now, None, RulesKnown::Nothing).await?;
        Ok(now.into_iter().zip(checks).collect())
    }

    /// Compares what these statuses record with what is in the kernel; `None` for `links` reads all
    /// interfaces. The results have the order of the statuses.
    async fn compare(
        &self,
        live: &[PortStatus],
        links: Option<&[Link]>,
        known: RulesKnown,
    ) -> Result<Vec<PortCheck>, BindingError> {
        if live.is_empty() {
            return Ok(Vec::new());
        }
        let listed;
        let links = match links {
            Some(links) => links,
            None => {
                listed = Netlink::open()?.links().await?;
                &listed
            }
        };
        let now = self.rules_now(live, known).await;
        Ok(live.iter().map(|status| checked(status, links, &now)).collect())
    }

    /// Reads from the kernel the rules that these statuses record.
    async fn rules_now(&self, live: &[PortStatus], known: RulesKnown) -> PortRulesState {
        let recorded: Vec<_> = live.iter().flat_map(|status| &status.recorded).collect();
        let now = PortRulesState::read_after(&self.tools, &recorded, known).await;
        for unknown in &now.unknown {
            tracing::warn!("cannot check whether the rules of ports are in the kernel: {unknown}");
        }
        now
    }

    /// Returns the rules that the kernel lacks, as a clause for each port with missing rules. If
    /// some are missing, or could not be read, a reload applies the texts of the ports again. The
    /// caller holds the lock, or another command may change the rules meanwhile.
    pub(super) async fn missing_rules(
        &self,
        live: &[PortStatus],
    ) -> BTreeMap<InterfaceName, String> {
        if live.is_empty() {
            return BTreeMap::new();
        }
        let now = self.rules_now(live, RulesKnown::Nothing).await;
        let missing = |status: &PortStatus| Some((status.port.clone(), rules(status, &now).1?));
        let missing: BTreeMap<_, _> = live.iter().filter_map(missing).collect();
        let is_certain = missing.is_empty() && now.unknown.is_empty();
        if let Some(applied) = self.tools.applied.as_ref().filter(|_| !is_certain) {
            applied.distrust();
        }
        missing
    }

    /// Returns those of these ports whose filters are not in force, in their order. Changes
    /// nothing. `None` for `links` reads all interfaces.
    ///
    /// # Errors
    /// [`BindingError`]: the host's interfaces or the statuses cannot be read.
    pub async fn not_in_force(
        &self,
        live: Vec<PortStatus>,
        links: Option<&[Link]>,
        known: RulesKnown,
    ) -> Result<Vec<PortProblem>, BindingError> {
        let checked = self.check_ports_knowing(live, links, known).await?;
        let has_problem = |(_, check): &(PortStatus, PortCheck)| !check.problems.is_empty();
        let problem = |(status, check): (PortStatus, PortCheck)| match self.binding(&status) {
            Ok(binding) => Some(PortProblem { port: status.port, filter: binding.filter, check }),
            Err(error) => {
                tracing::warn!("{}", error_text(&error));
                None
            }
        };
        Ok(checked.into_iter().filter(has_problem).filter_map(problem).collect())
    }
}

fn checked(status: &PortStatus, links: &[Link], now: &PortRulesState) -> PortCheck {
    let mut check = PortCheck {
        state: FilterState::InForce,
        bridge: status.bridge.clone(),
        rules_problem: None,
        problems: Vec::new(),
    };
    let mut add = |state, problem| {
        if check.problems.is_empty() {
            check.state = state;
        }
        check.problems.extend(problem);
    };
    if let PortState::Off(why) = &status.state {
        add(
            FilterState::Off,
            Some(Problem::new(
                format!("the port is off: {why}"),
                format!("fix that, then: {RELOAD}"),
            )),
        );
    }
    let link = Link::among(links, status.index);
    let bridge = match link.map(|link| (link, site(status, link, links))) {
        Some((_, Ok(Site::Bridge(bridge)))) => bridge.name.parse().ok(),
        Some((_, Ok(Site::Interface(_)))) => None,
        Some((link, Err(why))) => {
            let problem = why.problem(&status.port);
            let fix = back_on_bridge(status, link, links).unwrap_or(problem.fix);
            add(FilterState::NoBridge, Some(Problem::new(problem.why, fix)));
            None
        }
        // The interface was removed after the status files were read.
        None => None,
    };
    let (state, rules_problem) = rules(status, now);
    if let Some(state) = state {
        add(state, rules_problem.clone().map(|what| Problem::new(what, RELOAD)));
    }
    let needs_call = status.recorded.iter().any(PortRecord::has_packet_rules);
    if needs_call && bridge.is_some() && !iptables_is_called(&status.port) {
        let why = "iptables does not see the packets that bridges forward";
        let fix =
            "sysctl net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1";
        add(FilterState::NotCalled, Some(Problem::new(why, fix)));
    }
    PortCheck { rules_problem, bridge: bridge.or(check.bridge), ..check }
}

/// Returns where the filter of a port sees its frames now. A filter on the hooks of the interface
/// sees them wherever the interface is, also on a bridge.
fn site<'a>(status: &PortStatus, link: &Link, links: &'a [Link]) -> Result<Site<'a>, NotOnBridge> {
    if status.hooks == PortHooks::Interface {
        return Ok(Site::Interface(None));
    }
    match find(link, links) {
        Ok(Site::Interface(_)) => Err(NotOnBridge::NoMaster),
        found => found,
    }
}

/// Returns why the rules of a renamed port do not see its frames: they match the earlier name,
/// which no interface or another one has now.
fn has_rules_of_earlier_name(status: &PortStatus) -> Option<String> {
    let earlier = status.renamed_from.as_ref()?;
    let by_name = status.recorded.iter().any(PortRecord::knows_the_name);
    by_name.then(|| format!("its rules are for the name {earlier}, which the port had before"))
}

/// Returns the state of a port's rules and what is wrong with them, as a clause; (`None`, `None`)
/// if nothing is.
fn rules(status: &PortStatus, now: &PortRulesState) -> (Option<FilterState>, Option<String>) {
    match recorded_rules(&status.recorded, now) {
        RulesState::There => match has_rules_of_earlier_name(status) {
            Some(what) => (Some(FilterState::RulesMissing), Some(what)),
            None => (None, None),
        },
        RulesState::Missing(what) => (Some(FilterState::RulesMissing), Some(what)),
        RulesState::Overtaken(what) => (Some(FilterState::Overtaken), Some(what)),
        RulesState::Unknown => (Some(FilterState::Unknown), None),
    }
}

/// Checks whether a port's rules are in the kernel. While a change is in flight, the status has
/// several records, and one of them fits.
fn recorded_rules(recorded: &[PortRecord], now: &PortRulesState) -> RulesState {
    let mut found = recorded.iter().map(|recorded| now.rules(recorded));
    let Some(first) = found.next() else {
        return RulesState::Missing("no rules were recorded for it".to_owned());
    };
    match first {
        RulesState::There => RulesState::There,
        first => found.find(|one| *one == RulesState::There).unwrap_or(first),
    }
}

/// Returns the command that puts a port back on its bridge; `None` if its bridge is not known.
fn back_on_bridge(status: &PortStatus, link: &Link, links: &[Link]) -> Option<String> {
    let home = GuestTap::of(link).map(|tap| tap.home);
    let bridge = home.as_ref().map(|home| &home.bridge).or(status.bridge.as_ref())?;
    let is_there = links.iter().any(|link| link.bridge && link.name == bridge.as_str());
    Some(match (&home, is_there) {
        (Some(_), true) => RELOAD.to_owned(),
        (Some(home), false) => match &home.network {
            Some(network) => format!("netlaunch network start {network}"),
            None => format!("make the bridge {bridge}, then: {RELOAD}"),
        },
        (None, true) => format!("ip link set {} master {bridge}", status.port),
        (None, false) => {
            format!("make the bridge {bridge}, then: ip link set {} master {bridge}", status.port)
        }
    })
}
