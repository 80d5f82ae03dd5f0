//! One change of any number of ports, in the order that [`super`] describes.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::lock::Lock;
use super::meaning::Known;
use super::{BindingError, Bindings, Status, Tried};
use crate::firewall::{Backend, PortFilter, PortPlan, PortRecorded, Unwritable};
use crate::link::Netlink;
use crate::rules::port::{PortRules, Test};
use crate::types::InterfaceName;

/// The rules that a port is to have.
pub(super) struct Wanted {
    /// The status of before.
    pub(super) status: Status,
    /// The rules.
    pub(super) rules: Arc<PortRules>,
    /// Those that are to follow; they are not set, and have to be possible.
    pub(super) to_come: Option<Arc<PortRules>>,
    /// The learnt address that the rules are made with.
    pub(super) address: Option<Ipv4Addr>,
}

impl Bindings {
    /// Gives ports the rules they are to have, and removes those of `gone`. `others` are ports that
    /// stay as they are.
    pub(super) async fn change(
        &self,
        tools: &Lock,
        wanted: Vec<Wanted>,
        gone: &[Status],
        others: &[Status],
    ) -> Result<(), BindingError> {
        let dir = self.dir();
        for status in wanted.iter().map(|wanted| &wanted.status).chain(gone) {
            tools.check(&status.port)?;
        }
        let ports: Vec<_> = wanted.iter().map(|wanted| wanted.status.port.clone()).collect();
        let removed: Vec<PortRecorded> = wanted
            .iter()
            .map(|wanted| &wanted.status)
            .chain(gone)
            .flat_map(|status| status.recorded.iter().cloned())
            .collect();
        // A port whose status cannot be read may have rules in nft's table, which must stay then.
        let others = tools.has_damaged()
            || others
                .iter()
                .any(|status| status.recorded.iter().any(|r| r.backend() == Backend::Nftables));
        // What is cut short from here on is an end that the next command completes.
        let going: Vec<&Status> = gone.iter().filter(|status| status.complete).collect();
        // A removal needs no new record: the old one says all that is to go. So it goes on where the
        // disk is full or can only be read. Killed then, it leaves a port that seems to have rules,
        // which a reload makes again.
        for status in &going {
            if let Err(error) = (Status { complete: false, ..(*status).clone() }).write(&dir) {
                tracing::warn!("{error}; the rules of the port {} go all the same", status.port);
            }
        }
        if let Err(error) = self.try_backends(tools, &wanted, gone, &removed, others).await {
            let stay = if error.is_half_done() { Vec::new() } else { going };
            for error in stay.iter().filter_map(|status| status.write(&dir).err()) {
                tracing::warn!("{error}");
            }
            return Err(error);
        }
        // One of the same port was replaced.
        // All are tried, and the first failure is told at the end: their rules are gone.
        let mut removed = Ok(());
        for status in gone.iter().filter(|status| !ports.contains(&status.port)) {
            let all = self.forget(status).and_then(|()| Ok(status.remove(&dir)?));
            removed = removed.and(all);
        }
        if !gone.is_empty()
            && let Err(error) = self.collect_learnt()
        {
            tracing::warn!("{error}");
        }
        for status in wanted.iter().map(|wanted| &wanted.status) {
            self.turn_on(status).await;
        }
        removed
    }

    /// Turns a port on that was off for want of rules.
    pub(super) async fn turn_on(&self, status: &Status) {
        if !status.turned_off {
            return;
        }
        let on = async {
            let netlink = Netlink::open()?;
            match netlink.link(&status.port).await {
                // Not another of its name.
                Ok(link) if link.index == status.index => netlink.up(&status.port).await.map(drop),
                _ => Ok(()),
            }
        };
        if let Err(error) = on.await {
            tracing::warn!("the port {} stays off: {error}", status.port);
        }
    }

    /// Tries what [`choices`](Self::choices) has until something is possible.
    async fn try_backends(
        &self,
        tools: &Lock,
        wanted: &[Wanted],
        gone: &[Status],
        removed: &[PortRecorded],
        others: bool,
    ) -> Result<(), BindingError> {
        let mut tried = Vec::new();
        for backends in self.choices(wanted) {
            match self.attempt(tools, wanted, &backends, gone, removed, others).await {
                Err(BindingError::Firewall { ports, error })
                    if self.settings.firewall_backend.is_none() && error.is_backends() =>
                {
                    let nftables = backends.contains(&Backend::Nftables);
                    let backend = if nftables { Backend::Nftables } else { Backend::Iptables };
                    tried.push(Tried { backend, ports, error });
                }
                done => return done,
            }
        }
        Err(BindingError::NoBackend(tried))
    }

    /// The backends to try for each port, the best first: the one that is set, else nftables, else
    /// iptables for the ports that nftables may not be able to serve, else for all.
    fn choices(&self, wanted: &[Wanted]) -> Vec<Vec<Backend>> {
        if let Some(backend) = self.settings.firewall_backend {
            return vec![vec![backend; wanted.len()]];
        }
        let mixed = wanted.iter().map(|wanted| match wanted.all_rules().any(is_special) {
            true => Backend::Iptables,
            false => Backend::Nftables,
        });
        let mut choices = vec![vec![Backend::Nftables; wanted.len()], mixed.collect()];
        if !wanted.is_empty() {
            choices.push(vec![Backend::Iptables; wanted.len()]);
        }
        choices.dedup();
        choices
    }

    async fn attempt(
        &self,
        tools: &Lock,
        wanted: &[Wanted],
        backends: &[Backend],
        gone: &[Status],
        removed: &[PortRecorded],
        others: bool,
    ) -> Result<(), BindingError> {
        let dir = &self.dir();
        let ports = || wanted.iter().map(|wanted| wanted.status.port.clone()).collect();
        let failed = |error| BindingError::Firewall { ports: ports(), error };
        let filter = |wanted: &Wanted, rules: &Arc<PortRules>, backend: &Backend| PortFilter {
            index: wanted.status.index,
            port: wanted.status.port.clone(),
            rules: rules.clone(),
            backend: *backend,
        };
        let mut filters = Vec::new();
        let mut to_come = Vec::new();
        for (wanted, backend) in wanted.iter().zip(backends) {
            let has_packets = |rules: &PortRules| {
                !rules.from_guest.packets.is_empty() || !rules.to_guest.packets.is_empty()
            };
            let port = &wanted.status.port;
            if *backend == Backend::Iptables && port.as_str().ends_with('+') {
                return Err(BindingError::Pattern(port.clone()));
            }
            if *backend == Backend::Iptables
                && wanted.all_rules().any(has_packets)
                && !iptables_is_called(port)
            {
                return Err(BindingError::NotCalled(port.clone()));
            }
            filters.push(filter(wanted, &wanted.rules, backend));
            to_come.extend(wanted.to_come.iter().map(|rules| filter(wanted, rules, backend)));
        }
        let of_port = |Unwritable { port, error }: Unwritable| BindingError::Firewall {
            ports: vec![port],
            error,
        };
        let plan = PortPlan::new(&filters, self.extras()).map_err(of_port)?;
        // What can be known now of the rules that follow is told now.
        let all_to_come = PortPlan::new(&to_come, self.extras()).map_err(of_port)?;
        if to_come.iter().any(|filter| is_special(&filter.rules)) {
            all_to_come.check(tools).await.map_err(failed)?;
        }
        // What an earlier interface of the name left is removed by the same transaction.
        let stale = |port: &InterfaceName| gone.iter().find(|status| status.port == *port);
        let (trace, counters) = (self.settings.enable_trace, self.settings.enable_counters);
        let (mut begun, mut complete) = (Vec::new(), Vec::new());
        for ((wanted, recorded), backend) in wanted.iter().zip(plan.recorded()).zip(backends) {
            let status = &wanted.status;
            let stale = stale(&status.port);
            let same = status.complete
                && status.backend == *backend
                && (status.trace, status.counters) == (trace, counters)
                && status.address == wanted.address
                && status.definitions.as_deref() == Some(self.store.dir())
                && status.failed.is_none()
                && (status.refused.is_none() || wanted.address.is_none())
                && stale.is_none();
            // What names the same objects needs no word.
            if same && status.recorded.as_slice() == std::slice::from_ref(recorded) {
                continue;
            }
            let mut both = status.recorded.clone();
            both.extend(stale.into_iter().flat_map(|s| s.recorded.clone()));
            if !both.contains(recorded) {
                both.push(recorded.clone());
            }
            begun.push(Status { recorded: both, ..status.clone() });
            let recorded = vec![recorded.clone()];
            let (backend, address) = (*backend, wanted.address);
            let (failed, turned_off) = (None, false);
            // Another address was learnt since one was refused.
            let refused = status.refused.clone().filter(|_| wanted.address.is_none());
            let definitions = Some(self.store.dir().to_owned());
            let status = Status {
                failed,
                turned_off,
                refused,
                trace,
                counters,
                definitions,
                ..status.clone()
            };
            complete.push(Status { recorded, complete: true, backend, address, ..status });
        }
        if let Err(error) = begun.iter().try_for_each(|status| status.write(dir)) {
            self.put_back(wanted, gone);
            return Err(error.into());
        }
        if let Err(error) = plan.apply(tools, removed, others).await {
            // Of a change that was not undone, or may be done, the statuses know both sides.
            if error.left_as_before() {
                self.put_back(wanted, gone);
            }
            return Err(failed(error));
        }
        let Err(error) = complete.iter().try_for_each(|status| status.write(dir)) else {
            return Ok(());
        };
        // The begun record is a superset, so the next command can complete ports that had rules. A
        // port that is new gets none.
        let (new, old): (Vec<_>, Vec<_>) =
            wanted.iter().zip(plan.recorded()).partition(|(wanted, _)| !wanted.status.complete);
        if !old.is_empty() {
            return Err(BindingError::Unrecorded(error));
        }
        let set: Vec<PortRecorded> = new.iter().map(|(_, recorded)| (*recorded).clone()).collect();
        let nothing = PortPlan::new(&[], self.extras()).map_err(of_port)?;
        nothing.apply(tools, &set, others).await.map_err(failed)?;
        for (wanted, _) in new {
            if let Err(error) = wanted.status.remove(dir) {
                tracing::warn!("{error}");
            }
        }
        Err(error.into())
    }

    /// Writes the statuses of before a change that did nothing.
    fn put_back(&self, wanted: &[Wanted], gone: &[Status]) {
        let dir = &self.dir();
        for wanted in wanted {
            let stale = gone.iter().find(|status| status.port == wanted.status.port);
            // The status of before stays; a port that had nothing has nothing.
            let back = match (wanted.status.complete, stale) {
                (true, _) => wanted.status.write(dir),
                (false, Some(stale)) => stale.write(dir),
                (false, None) => wanted.status.remove(dir),
            };
            if let Err(error) = back {
                tracing::warn!("{error}");
            }
        }
    }
}

impl Wanted {
    pub(super) fn new(
        status: Status,
        rules: Arc<PortRules>,
        to_come: Option<Arc<PortRules>>,
        known: Known,
    ) -> Self {
        let address = match known {
            Known::Is(address) => Some(address),
            Known::Unlearnt | Known::NotYet => None,
        };
        Wanted { status, rules, to_come, address }
    }

    fn all_rules(&self) -> impl Iterator<Item = &PortRules> {
        [&self.rules].into_iter().chain(&self.to_come).map(Arc::as_ref)
    }
}

/// Whether not every kernel or backend can do it: tracking connections, and address sets.
fn is_special(rules: &PortRules) -> bool {
    let set = |test: &Test| matches!(test, Test::Set { .. });
    rules.is_stateful() || rules.rules().any(|rule| rule.tests.iter().any(set))
}

/// Whether iptables sees what a bridge of this port forwards: br_netfilter is on for all bridges or
/// for this one. Without the module there is no setting yet; iptables' physdev match loads it, and
/// then it is on (kernel, Documentation/networking/ip-sysctl.rst).
fn iptables_is_called(port: &InterfaceName) -> bool {
    let on = |path: String| fs::read_to_string(path).ok().map(|text| text.trim() == "1");
    let all = |tool: &str| on(format!("/proc/sys/net/bridge/bridge-nf-call-{tool}"));
    let one = |tool: &str| on(format!("/sys/class/net/{port}/brport/bridge/bridge/nf_call_{tool}"));
    ["iptables", "ip6tables"]
        .into_iter()
        .all(|tool| all(tool).unwrap_or(true) || one(tool).unwrap_or(false))
}
