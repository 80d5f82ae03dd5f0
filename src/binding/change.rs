//! One change of any number of ports, in the order that [`super`] describes.

use std::fs;
use std::sync::Arc;

use super::{BindingError, Bindings, Status};
use crate::firewall::{Backend, PortError, PortFilter, PortPlan, PortRecorded};
use crate::rules::port::{PortRules, Test};
use crate::types::InterfaceName;

/// The rules that a port is to have.
pub(super) struct Wanted {
    pub(super) status: Status,
    pub(super) rules: Arc<PortRules>,
}

impl Bindings {
    /// Gives ports the rules they are to have, and removes those of `gone`. `others` are ports that
    /// stay as they are.
    pub(super) async fn change(
        &self,
        wanted: Vec<Wanted>,
        gone: &[Status],
        others: &[Status],
    ) -> Result<(), BindingError> {
        let dir = self.dir();
        let ports: Vec<_> = wanted.iter().map(|wanted| wanted.status.port.clone()).collect();
        let removed: Vec<PortRecorded> = wanted
            .iter()
            .map(|wanted| &wanted.status)
            .chain(gone)
            .flat_map(|status| status.recorded.iter().cloned())
            .collect();
        let others = others
            .iter()
            .any(|status| status.recorded.iter().any(|r| r.backend() == Backend::Nftables));
        let mut tried = Vec::new();
        for backends in self.choices(&wanted) {
            match self.attempt(&wanted, &backends, gone, &removed, others).await {
                Ok(()) => {
                    for status in gone {
                        // One of the same port was replaced.
                        if !ports.contains(&status.port) {
                            status.remove(&dir)?;
                        }
                    }
                    return Ok(());
                }
                Err(BindingError::Firewall { error, .. })
                    if self.settings.firewall_backend.is_none() && error.is_backends() =>
                {
                    let backend = if backends.contains(&Backend::Nftables) {
                        Backend::Nftables
                    } else {
                        Backend::Iptables
                    };
                    tried.push((backend, error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(BindingError::NoBackend { ports, tried })
    }

    /// The backends to try for each port, the best first: the one that is set, else nftables, else
    /// iptables for the ports that nftables may not be able to serve, else for all.
    fn choices(&self, wanted: &[Wanted]) -> Vec<Vec<Backend>> {
        if let Some(backend) = self.settings.firewall_backend {
            return vec![vec![backend; wanted.len()]];
        }
        let special = |rules: &PortRules| {
            let set = |test: &Test| matches!(test, Test::Set { .. });
            rules.is_stateful() || rules.rules().any(|rule| rule.tests.iter().any(set))
        };
        let mixed = wanted.iter().map(|wanted| match special(&wanted.rules) {
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
        wanted: &[Wanted],
        backends: &[Backend],
        gone: &[Status],
        removed: &[PortRecorded],
        others: bool,
    ) -> Result<(), BindingError> {
        let dir = &self.dir();
        let ports = || wanted.iter().map(|wanted| wanted.status.port.clone()).collect();
        let filters: Vec<_> = wanted
            .iter()
            .zip(backends)
            .map(|(wanted, backend)| PortFilter {
                index: wanted.status.index,
                port: wanted.status.port.clone(),
                rules: wanted.rules.clone(),
                backend: *backend,
            })
            .collect();
        for filter in filters.iter().filter(|filter| filter.backend == Backend::Iptables) {
            let has_packets = !filter.rules.from_guest.packets.is_empty()
                || !filter.rules.to_guest.packets.is_empty();
            if has_packets && !iptables_is_called(&filter.port) {
                return Err(BindingError::NotCalled(filter.port.clone()));
            }
        }
        let failed = |error| BindingError::Firewall { ports: ports(), error };
        let plan = PortPlan::new(&filters, self.extras()).map_err(failed)?;
        // What an earlier interface of the name left is removed by the same transaction.
        let stale = |port: &InterfaceName| gone.iter().find(|status| status.port == *port);
        let (mut begun, mut complete) = (Vec::new(), Vec::new());
        for ((wanted, recorded), backend) in wanted.iter().zip(plan.recorded()).zip(backends) {
            let status = &wanted.status;
            let stale = stale(&status.port);
            let same = status.complete && status.backend == *backend && stale.is_none();
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
            complete.push(Status { recorded, complete: true, backend: *backend, ..status.clone() });
        }
        for status in &begun {
            status.write(dir)?;
        }
        if let Err(error) = plan.apply(&self.tools, removed, others).await {
            // Of a change that could not be undone, the statuses know both sides.
            let undone = !matches!(error, PortError::HalfDone { .. });
            for wanted in wanted.iter().filter(|_| undone) {
                // What was there before stays; a port that had nothing has nothing.
                let back = match (wanted.status.complete, stale(&wanted.status.port)) {
                    (true, _) => wanted.status.write(dir),
                    (false, Some(stale)) => stale.write(dir),
                    (false, None) => wanted.status.remove(dir),
                };
                if let Err(error) = back {
                    tracing::warn!("{error}");
                }
            }
            return Err(failed(error));
        }
        for status in &complete {
            status.write(dir)?;
        }
        Ok(())
    }
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
