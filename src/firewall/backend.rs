//! The firewall backends, and a trial that shows which of them works.
//!
//! A trial gives the tool rules of the kinds that netlaunch uses, without changing a rule. The
//! start of a network makes no trial, because its own transaction shows whether the backend works
//! ([`super::NoUsableBackend`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::tool_error::{ToolError, remedy};
use super::tools::{Tool, Tools};
use super::{TableState, render_iptables, render_nft};
use crate::firewall::rules::{Mode, NetworkRules, Ruleset, Version, for_network};
use crate::types::error_text;
use crate::types::facts::Problem;

/// A program family that changes the firewall. Exhaustive, because each use decides for each of the
/// two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirewallBackend {
    /// The program nft.
    Nftables,
    /// The programs iptables-restore and ip6tables-restore.
    Iptables,
}

/// The text is not the name of a backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("firewall_backend cannot be {0:?}: write \"nftables\" or \"iptables\"")]
pub struct BackendError(pub String);

impl FirewallBackend {
    /// All backends, in the order in which [`choose`] tries them.
    pub const ORDER: [FirewallBackend; 2] = [FirewallBackend::Nftables, FirewallBackend::Iptables];
}

impl fmt::Display for FirewallBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FirewallBackend::Nftables => "nftables",
            FirewallBackend::Iptables => "iptables",
        })
    }
}

impl FromStr for FirewallBackend {
    type Err = BackendError;

    fn from_str(text: &str) -> Result<Self, BackendError> {
        Self::ORDER
            .into_iter()
            .find(|backend| backend.to_string() == text)
            .ok_or_else(|| BackendError(text.to_owned()))
    }
}

/// No backend works on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no firewall backend works on this host: {}", reasons(.0))]
pub struct NoBackend(
    /// Each backend that was tried, and the reason why it cannot be used.
    pub Vec<(FirewallBackend, Problem)>,
);

fn reasons(tried: &[(FirewallBackend, Problem)]) -> String {
    let reason = |(backend, problem): &(FirewallBackend, Problem)| {
        format!("{backend}: {} ({})", problem.why, problem.fix)
    };
    tried.iter().map(reason).collect::<Vec<_>>().join("; ")
}

/// Returns the backend to use: the configured one, or else the first usable one of
/// [`FirewallBackend::ORDER`]. A configured backend is never replaced by another. Trying also stops
/// at a backend whose tool was killed, or which the host could not start because it lacks memory,
/// processes or open files: such a failure says nothing about the tool.
///
/// The function runs the tools (see [`usable`]). A caller that has recorded its choice need not
/// call it again.
///
/// # Errors
/// Returns the reason for each backend that was tried.
pub async fn choose(
    tools: &Tools,
    configured: Option<FirewallBackend>,
) -> Result<FirewallBackend, NoBackend> {
    let mut tried = Vec::new();
    for backend in configured.map_or_else(|| FirewallBackend::ORDER.to_vec(), |one| vec![one]) {
        let Err(error) = trial(tools, backend).await else { return Ok(backend) };
        let selects_another = error.selects_another();
        tried.push((backend, problem(error)));
        if !selects_another {
            break;
        }
    }
    Err(NoBackend(tried))
}

/// Tries whether a backend accepts the kinds of rules that netlaunch uses, without changing a rule.
/// It costs one `nft -c`, or one `-save` and one `-restore --test` for each of iptables and
/// ip6tables.
///
/// # Errors
/// Returns the reason why the backend cannot be used.
pub async fn usable(tools: &Tools, backend: FirewallBackend) -> Result<(), Problem> {
    trial(tools, backend).await.map_err(problem)
}

async fn trial(tools: &Tools, backend: FirewallBackend) -> Result<(), ToolError> {
    let sample = sample();
    match backend {
        FirewallBackend::Nftables => {
            tools.run(Tool::Nft, &["-c"], &render_nft::apply(&sample)).await.map(drop)
        }
        FirewallBackend::Iptables => iptables(tools, &sample).await,
    }
}

/// Returns the reason why a backend whose tool failed cannot be used.
pub(super) fn problem(error: ToolError) -> Problem {
    match error {
        ToolError::Absent(problem) => *problem,
        ToolError::Refused { program, said, .. } => Problem::new(
            format!("{program} refuses rules of the kinds that netlaunch uses: {said}"),
            remedy(&said),
        ),
        other => Problem::new(error_text(&other), "run it by hand to see what it does"),
    }
}

async fn iptables(tools: &Tools, sample: &[Ruleset]) -> Result<(), ToolError> {
    for version in [Version::V4, Version::V6] {
        tools.run(Tool::Save(version), &[], "").await?;
        let nothing = TableState::default();
        let text = nothing.change_to(&render_iptables::with(&nothing, version, sample));
        tools.run(Tool::Restore(version), &["--test"], &text).await?;
    }
    Ok(())
}

/// Returns the rulesets of a network that uses every kind of rule.
pub(super) fn sample() -> Vec<Ruleset> {
    let network = |bridge: &str, v4: &str, v6: &str| {
        Some(NetworkRules {
            bridge: bridge.parse().ok()?,
            mode: Mode::Nat { devs: Vec::new(), addresses: None, ports: None, ipv6: true },
            subnets: vec![v4.parse().ok()?, v6.parse().ok()?],
            ipv6_between_guests: false,
            dhcp: true,
            dns: true,
            tftp: true,
        })
    };
    // These are documentation addresses, so they differ from those of the user's networks.
    let network = network("nl-try", "192.0.2.0/24", "2001:db8::/64");
    network.and_then(|network| for_network(&network).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::program::Lookup;

    #[test]
    fn the_configurations_words_are_the_backends() {
        for backend in FirewallBackend::ORDER {
            assert_eq!(backend.to_string().parse(), Ok(backend));
        }
        assert_eq!("nft".parse::<FirewallBackend>(), Err(BackendError("nft".into())));
    }

    #[test]
    fn the_sample_has_everything() {
        let text = render_nft::apply(&sample());
        for word in ["masquerade to :", "ct state", "reject", "ip6 saddr", "0-255"] {
            assert!(text.contains(word), "{word}");
        }
    }

    #[tokio::test]
    async fn no_backend_says_why_for_each() {
        let missing = Lookup::Missing(vec!["/usr/sbin".into()]);
        let tools = Tools {
            nft: missing.clone(),
            iptables_save: missing.clone(),
            iptables_restore: missing.clone(),
            ip6tables_save: missing.clone(),
            ip6tables_restore: missing.clone(),
            iptables_legacy_save: missing.clone(),
            ip6tables_legacy_save: missing.clone(),
            ebtables: missing.clone(),
            ebtables_save: missing.clone(),
            ebtables_restore: missing,
            held: None,
            applied: None,
        };
        let error = choose(&tools, None).await.unwrap_err().to_string();
        for word in ["nftables: nft is not installed", "iptables: iptables-save is not installed"] {
            assert!(error.contains(word), "{error}");
        }
        let named = choose(&tools, Some(FirewallBackend::Iptables)).await.unwrap_err();
        assert_eq!(named.0.len(), 1);
    }
}
