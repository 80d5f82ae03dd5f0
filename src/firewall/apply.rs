//! Handing rules to the tools: whole transactions.
//!
//! nft takes one text whole or not at all. iptables takes a table at a time, and IPv6's tables
//! through another tool; so what ours held before is read first, and brought back when any part
//! fails. Where both backends have a part, because the setting was changed, the new rules are there
//! before the old ones go, unless that could not be undone.

use super::backend::Backend;
use super::commit::{Uncommitted, commit};
use super::iptables_change::Pair;
use super::iptables_state::TableRemoval;
use super::recorded::Recorded;
use super::tool_error::ToolError;
use super::tools::{Tool, Tools};
use super::{Present, render_iptables, render_nft};
use crate::facts::FirewallScript;
use crate::rules::{Ruleset, Version};

/// What is to change at once.
#[derive(Debug, Clone, Copy)]
pub struct Transaction<'a> {
    /// What was added before and is to go, or to be replaced. Whether it is still there does not
    /// matter.
    pub remove: &'a [Recorded],
    /// What is to be added: each owner's rulesets.
    pub add: &'a [Vec<Ruleset>],
    /// Whether owners that are not named here have rules; where none has, nothing of ours is left
    /// when nothing is added.
    pub others: bool,
}

/// Why a transaction was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A tool failed; everything is as it was, which the kernel was asked about.
    #[error("the firewall was not changed: {0}")]
    Tool(#[from] ToolError),
    /// nft failed, and whether its transaction was committed could not be found out.
    #[error(
        "whether the firewall was changed is not known: {error}, and the kernel did not answer: {asked}; run `netlaunch firewall reload`"
    )]
    Unknown {
        /// How nft failed.
        error: ToolError,
        /// Why the kernel did not answer.
        asked: std::io::Error,
    },
    /// A tool failed, and so did what was to bring back the state of before.
    #[error(
        "the firewall is half changed: {error}; undoing it failed, too: {}; run `netlaunch firewall reload` once that works",
        .undo.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    HalfDone {
        /// The failure.
        error: ToolError,
        /// The errors of undoing it.
        undo: Vec<ToolError>,
    },
}

/// One tool's input, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The tool.
    pub program: &'static str,
    /// Its arguments.
    pub args: &'static [&'static str],
    /// Its input.
    pub input: String,
}

impl From<Script> for FirewallScript {
    fn from(script: Script) -> Self {
        FirewallScript {
            program: script.program.to_owned(),
            args: script.args.iter().map(|arg| (*arg).to_owned()).collect(),
            input: script.input,
        }
    }
}

pub(super) fn script(tool: Tool, input: String) -> Script {
    Script { program: tool.name(), args: tool.args(), input }
}

/// What adding these rulesets runs on a host where nothing of ours is there yet. Runs nothing.
pub fn scripts(backend: Backend, rulesets: &[Ruleset]) -> Vec<Script> {
    let all = match backend {
        Backend::Nftables => vec![script(Tool::Nft, render_nft::apply(rulesets))],
        Backend::Iptables => [Version::V4, Version::V6]
            .map(|version| {
                let nothing = Present::default();
                let wanted = render_iptables::with(&nothing, version, rulesets);
                script(Tool::Restore(version), nothing.change_to(&wanted))
            })
            .into(),
    };
    all.into_iter().filter(|script| !script.input.is_empty()).collect()
}

/// Carries out a transaction with this backend, and with the other one, too, where something is to
/// be removed that it added. Returns what is to be recorded for each added owner, in their order.
///
/// nft runs at most once; for iptables, each of the two versions that is concerned costs one
/// `-save` and, where something changes, one `-restore`.
///
/// # Errors
/// Everything is as it was before ([`ApplyError::Tool`]), or not: then the caller keeps the record
/// of both sides.
pub async fn transact(
    tools: &Tools,
    backend: Backend,
    transaction: &Transaction<'_>,
) -> Result<Vec<Recorded>, ApplyError> {
    let recorded: Vec<_> =
        transaction.add.iter().map(|rulesets| Recorded::new(backend, rulesets)).collect();
    let nft = nft_text(backend, transaction);
    let rules: Vec<Ruleset> = match backend {
        Backend::Nftables => Vec::new(),
        Backend::Iptables => transaction.add.concat(),
    };
    let removals = iptables_removals(transaction.remove);
    if backend == Backend::Nftables && !removes_nft(transaction.remove) {
        commit(tools, &nft).await?;
        if let Err(error) = change_iptables(tools, &removals, &rules).await {
            let undo = Transaction { remove: &recorded, add: &[], ..*transaction };
            let undo = commit(tools, &nft_text(backend, &undo)).await.err();
            return Err(error.and(undo.map(Uncommitted::into_error).into_iter().collect()));
        }
    } else {
        let changed = change_iptables(tools, &removals, &rules).await?;
        match commit(tools, &nft).await {
            Ok(()) => {}
            Err(Uncommitted::Nothing(error)) => {
                return Err(restore(tools, &changed, error).await);
            }
            // Rules of both sides, and a record of both, are better than of none.
            Err(unknown) => return Err(unknown.into()),
        }
    }
    Ok(recorded)
}

impl From<Uncommitted> for ApplyError {
    fn from(error: Uncommitted) -> Self {
        match error {
            Uncommitted::Nothing(error) => ApplyError::Tool(error),
            Uncommitted::Unknown { error, asked } => ApplyError::Unknown { error, asked },
        }
    }
}

impl ApplyError {
    /// This error, with what undoing another part said.
    fn and(self, more: Vec<ToolError>) -> Self {
        match self {
            ApplyError::Tool(error) if more.is_empty() => ApplyError::Tool(error),
            ApplyError::Tool(error) => ApplyError::HalfDone { error, undo: more },
            ApplyError::HalfDone { error, mut undo } => {
                undo.extend(more);
                ApplyError::HalfDone { error, undo }
            }
            unknown @ ApplyError::Unknown { .. } => unknown,
        }
    }
}

fn removes_nft(remove: &[Recorded]) -> bool {
    remove.iter().any(|recorded| recorded.backend() == Backend::Nftables)
}

/// The transaction's part for nft; empty where it has none.
fn nft_text(backend: Backend, transaction: &Transaction<'_>) -> String {
    let mut text = String::new();
    let mut all = None;
    for recorded in transaction.remove {
        if let Recorded::Nftables { own, tables } = recorded {
            text.push_str(own);
            all = Some(tables);
        }
    }
    let added = match backend {
        Backend::Nftables => render_nft::apply(&transaction.add.concat()),
        Backend::Iptables => String::new(),
    };
    match all {
        Some(tables) if added.is_empty() && !transaction.others => tables.clone(),
        _ => text + &added,
    }
}

fn iptables_removals(remove: &[Recorded]) -> Vec<TableRemoval> {
    let removals = |recorded: &Recorded| match recorded {
        Recorded::Nftables { .. } => Vec::new(),
        Recorded::Iptables { removals } => removals.clone(),
    };
    remove.iter().flat_map(removals).collect()
}

/// Removes and adds in iptables' tables; returns the states of before.
async fn change_iptables(
    tools: &Tools,
    removals: &[TableRemoval],
    rules: &[Ruleset],
) -> Result<Vec<(Version, Present)>, ApplyError> {
    let mut changes = Vec::new();
    for version in [Version::V4, Version::V6] {
        let concerned = removals.iter().any(|r| r.version == version)
            || rules.iter().any(|r| r.version == version);
        if concerned {
            let before = Pair::ip(version).present(tools).await?;
            let rest = render_iptables::without(&before, version, removals);
            let wanted = render_iptables::with(&rest, version, rules);
            changes.push((version, before, wanted));
        }
    }
    let mut changed = Vec::new();
    for (version, before, wanted) in changes {
        changed.push((version, before.clone()));
        if let Err(error) = Pair::ip(version).change(tools, &before, &wanted).await {
            return Err(restore(tools, &changed, error).await);
        }
    }
    Ok(changed)
}

/// Brings back the states of before, last first, because of `error`.
async fn restore(tools: &Tools, changed: &[(Version, Present)], error: ToolError) -> ApplyError {
    let mut undo = Vec::new();
    for (version, before) in changed.iter().rev() {
        undo.extend(Pair::ip(*version).bring_back(tools, before).await.err());
    }
    ApplyError::Tool(error).and(undo)
}
