//! Answers `netlaunch probe --require`: whether the host has an ability, and how to get it.

use serde::Serialize;

use super::args::Ability;
use super::probe_trials::Trials;
use crate::launcher::plan::{Backend, Candidate};
use crate::launcher::probe::Survey;
use crate::types::facts::{Facts, KernelFeature};

/// The answer for one ability.
#[derive(Debug, Serialize)]
pub(super) struct Requirement {
    name: &'static str,
    /// Whether the host has it.
    pub(super) usable: bool,
    why: String,
    fix: Option<String>,
}

impl Requirement {
    /// Returns the line for an ability that is missing.
    pub(super) fn line(&self) -> String {
        let fix = self.fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
        format!("{} is missing: {}{fix}\n", self.name, self.why)
    }
}

/// Returns whether an ability needs the trials of the firewall's tools and of dnsmasq.
pub(super) fn needs_trials(ability: Ability) -> bool {
    use Ability::{Dnsmasq, Firewall, Iptables, Nftables};
    matches!(ability, Dnsmasq | Firewall | Nftables | Iptables)
}

/// Returns the answer for each ability, each ability once. `trials` are needed for those of
/// [`needs_trials`].
pub(super) fn requirements(
    wanted: &[Ability],
    facts: &Facts,
    candidates: &[Candidate],
    survey: &Survey,
    trials: &Trials,
) -> Vec<Requirement> {
    let mut answers: Vec<Requirement> = Vec::new();
    for ability in wanted {
        if answers.iter().any(|answer| answer.name == ability.name()) {
            continue;
        }
        let KernelFeature { usable, why, fix } = match ability {
            Ability::Passt => backend(candidates, Backend::Passt),
            Ability::Slirp => backend(candidates, Backend::Slirp),
            Ability::Bridge => backend(candidates, Backend::Bridge),
            Ability::Qemu => qemu(facts),
            Ability::Kvm => survey.kernel.kvm.clone(),
            Ability::VhostNet => survey.bridge.vhost_net.clone(),
            Ability::Ping => survey.kernel.ping.clone(),
            Ability::Dnsmasq => trials.dnsmasq.clone(),
            Ability::Firewall => trials.firewall(),
            Ability::Nftables => trials.nftables.clone(),
            Ability::Iptables => trials.iptables.clone(),
        };
        answers.push(Requirement { name: ability.name(), usable, why, fix });
    }
    answers
}

fn backend(candidates: &[Candidate], backend: Backend) -> KernelFeature {
    let found = candidates.iter().find(|candidate| candidate.backend == backend);
    found.map_or_else(KernelFeature::default, |candidate| KernelFeature {
        usable: candidate.usable,
        why: candidate.why.clone(),
        fix: candidate.fix.clone(),
    })
}

fn qemu(facts: &Facts) -> KernelFeature {
    match &facts.qemu.problem {
        Some(problem) => KernelFeature {
            usable: false,
            why: problem.why.clone(),
            fix: Some(problem.fix.clone()),
        },
        None => KernelFeature { usable: true, why: "it answers".to_owned(), fix: None },
    }
}
