//! Which tool the firewall's rules go through, chosen by trying.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::tool_error::{ToolError, remedy};
use super::tools::{Tool, Tools};
use super::{Present, render_iptables, render_nft};
use crate::facts::Problem;
use crate::rules::{Mode, NetworkRules, Ruleset, Version, for_network};

/// A firewall tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// nft.
    Nftables,
    /// iptables-restore and ip6tables-restore.
    Iptables,
}

/// Not a backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("firewall_backend cannot be {0:?}: write \"nftables\" or \"iptables\"")]
pub struct BackendError(pub String);

impl Backend {
    /// The backends, the one to try first first.
    pub const ORDER: [Backend; 2] = [Backend::Nftables, Backend::Iptables];
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Nftables => "nftables",
            Backend::Iptables => "iptables",
        })
    }
}

impl FromStr for Backend {
    type Err = BackendError;

    fn from_str(text: &str) -> Result<Self, BackendError> {
        Self::ORDER
            .into_iter()
            .find(|backend| backend.to_string() == text)
            .ok_or_else(|| BackendError(text.to_owned()))
    }
}

/// No backend works here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no firewall backend works on this host: {}", reasons(.0))]
pub struct NoBackend(
    /// Each one that was tried, and why it cannot be used.
    pub Vec<(Backend, Problem)>,
);

fn reasons(tried: &[(Backend, Problem)]) -> String {
    let reason = |(backend, problem): &(Backend, Problem)| {
        format!("{backend}: {} ({})", problem.why, problem.fix)
    };
    tried.iter().map(reason).collect::<Vec<_>>().join("; ")
}

/// The backend to use: the one the configuration names, where it does, else the first of
/// [`Backend::ORDER`] that is usable. A named one is never replaced by another, nor is one whose
/// tool was killed or could not be started for want of memory, processes or open files.
///
/// This runs the tools (see [`usable`]); a caller that has recorded its choice need not ask again.
///
/// # Errors
/// Why none can be used.
pub async fn choose(tools: &Tools, configured: Option<Backend>) -> Result<Backend, NoBackend> {
    let mut tried = Vec::new();
    for backend in configured.map_or_else(|| Backend::ORDER.to_vec(), |one| vec![one]) {
        let Err(error) = trial(tools, backend).await else { return Ok(backend) };
        let selects_another = error.selects_another();
        tried.push((backend, problem(error)));
        if !selects_another {
            break;
        }
    }
    Err(NoBackend(tried))
}

/// Tries whether a backend takes rules such as ours, without changing anything: one `nft -c`, or
/// for each of iptables and ip6tables a `-save` and a `-restore --test`.
///
/// # Errors
/// Why it cannot be used.
pub async fn usable(tools: &Tools, backend: Backend) -> Result<(), Problem> {
    trial(tools, backend).await.map_err(problem)
}

async fn trial(tools: &Tools, backend: Backend) -> Result<(), ToolError> {
    let sample = sample();
    match backend {
        Backend::Nftables => {
            tools.run(Tool::Nft, &["-c"], &render_nft::apply(&sample)).await.map(drop)
        }
        Backend::Iptables => iptables(tools, &sample).await,
    }
}

fn problem(error: ToolError) -> Problem {
    match error {
        ToolError::Absent(problem) => problem,
        ToolError::Refused { program, said, .. } => {
            Problem::new(format!("{program} refuses rules such as ours: {said}"), remedy(&said))
        }
        other => Problem::new(other.to_string(), "run it by hand to see what it does"),
    }
}

async fn iptables(tools: &Tools, sample: &[Ruleset]) -> Result<(), ToolError> {
    for version in [Version::V4, Version::V6] {
        tools.run(Tool::Save(version), &[], "").await?;
        let nothing = Present::default();
        let text = nothing.change_to(&render_iptables::with(&nothing, version, sample));
        tools.run(Tool::Restore(version), &["--test"], &text).await?;
    }
    Ok(())
}

/// A network that needs everything our rules are made of.
fn sample() -> Vec<Ruleset> {
    let network = |bridge: &str, v4: &str, v6: &str| {
        Some(NetworkRules {
            bridge: bridge.parse().ok()?,
            mode: Mode::Nat { dev: None, addresses: None, ports: None, ipv6: true },
            subnets: vec![v4.parse().ok()?, v6.parse().ok()?],
            ipv6_between_guests: false,
            dhcp: true,
            dns: true,
            tftp: true,
        })
    };
    // Documentation addresses: a network of the user's has others.
    let network = network("nl-try", "192.0.2.0/24", "2001:db8::/64");
    network.and_then(|network| for_network(&network).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::program::Lookup;

    #[test]
    fn the_configurations_words_are_the_backends() {
        for backend in Backend::ORDER {
            assert_eq!(backend.to_string().parse(), Ok(backend));
        }
        assert_eq!("nft".parse::<Backend>(), Err(BackendError("nft".into())));
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
            ebtables_save: missing.clone(),
            ebtables_restore: missing,
            held: None,
        };
        let error = choose(&tools, None).await.unwrap_err().to_string();
        for word in ["nftables: nft is not installed", "iptables: iptables-save is not installed"] {
            assert!(error.contains(word), "{error}");
        }
        let named = choose(&tools, Some(Backend::Iptables)).await.unwrap_err();
        assert_eq!(named.0.len(), 1);
    }
}
