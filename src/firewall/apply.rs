//! Gives the rules of networks to the tools as whole transactions.
//!
//! nft carries out all of one text or none of it. iptables changes one table at a time, and another
//! tool changes the tables of IPv6. So netlaunch reads the present state of its own chains first,
//! and restores it when a part fails. When the configured backend has changed, one transaction has
//! a part for each backend, and the new rules exist before the old ones are removed. nft's part
//! runs last if it removes nftables rules, because netlaunch cannot undo that removal.

use super::backend::FirewallBackend;
use super::commit::{Uncommitted, commit};
use super::iptables_change::TableTools;
use super::iptables_state::TableRemoval;
use super::own_rules::OwnRules;
use super::removal_record::RemovalRecord;
use super::tool_error::{ToolError, texts};
use super::tools::{Tool, Tools};
use super::{TableState, render_iptables, render_nft};
use crate::firewall::rules::{Ruleset, Version};
use crate::types::error_text;
use crate::types::facts::{FirewallScript, RulesOf};

/// One transaction: the rules to remove and the rules to add.
#[derive(Debug, Clone, Copy)]
pub struct Transaction<'a> {
    /// The records of rules to remove or to replace. The rules need not exist any more.
    pub remove: &'a [RemovalRecord],
    /// The rulesets to add, one list for each owner.
    pub add: &'a [Vec<Ruleset>],
    /// Whether owners that this transaction does not name have rules. If none has and the
    /// transaction adds no rule, netlaunch's tables are removed as well.
    pub others: bool,
}

/// The reason why a transaction was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A tool failed, and the firewall is in the state from before the transaction.
    #[error("the firewall was not changed")]
    Tool(#[from] ToolError),
    /// nft failed, and the kernel did not say whether it committed the transaction.
    #[error(
        "whether the firewall was changed is not known: {}, and the kernel did not answer: {asked}; reload the firewall rules",
        error_text(error)
    )]
    Unknown {
        /// The error of nft.
        error: ToolError,
        /// The reason why the kernel did not answer.
        asked: std::io::Error,
    },
    /// A tool failed, and the rollback failed as well.
    #[error(
        "the firewall is partly changed: {}; undoing it failed, too: {}; reload the firewall rules once that works",
        error_text(error), texts(.undo)
    )]
    HalfDone {
        /// The error of the transaction.
        error: ToolError,
        /// The errors of the rollback.
        undo: Vec<ToolError>,
    },
}

/// The input of one tool, in the form in which a plan shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The name of the tool.
    pub program: &'static str,
    /// The arguments of the tool.
    pub args: &'static [&'static str],
    /// The input of the tool.
    pub input: String,
}

impl Script {
    /// Converts the script to the form that a plan contains.
    pub fn shown(self, of: RulesOf) -> FirewallScript {
        FirewallScript {
            of,
            program: self.program.to_owned(),
            args: self.args.iter().map(|arg| (*arg).to_owned()).collect(),
            input: self.input,
        }
    }
}

pub(super) fn script(tool: Tool, input: String) -> Script {
    Script { program: tool.name(), args: tool.args(), input }
}

/// Returns the scripts that add these rulesets on a host without rules of netlaunch. Runs no
/// program.
pub fn scripts(backend: FirewallBackend, rulesets: &[Ruleset]) -> Vec<Script> {
    let all = match backend {
        FirewallBackend::Nftables => vec![script(Tool::Nft, render_nft::apply(rulesets))],
        FirewallBackend::Iptables => [Version::V4, Version::V6]
            .map(|version| {
                let nothing = TableState::default();
                let wanted = render_iptables::with(&nothing, version, rulesets);
                script(Tool::Restore(version), nothing.change_to(&wanted))
            })
            .into(),
    };
    all.into_iter().filter(|script| !script.input.is_empty()).collect()
}

/// Carries out a transaction with this backend, and also with the other backend if that one added
/// rules that the transaction removes. Returns the record for each added owner, in the order of
/// `transaction.add`.
///
/// nft changes the rules at most once if it succeeds. iptables and ip6tables each run one `-save`
/// if the transaction concerns their IP version, and one `-restore` if their tables change.
///
/// # Errors
/// [`ApplyError::Tool`] means that the firewall is in the state from before. After any other error
/// the caller keeps the records of both the old and the new rules.
pub async fn transact(
    tools: &Tools,
    backend: FirewallBackend,
    transaction: &Transaction<'_>,
) -> Result<Vec<RemovalRecord>, ApplyError> {
    transact_reading(tools, backend, transaction, &mut OwnRules::default()).await
}

/// Does the same as [`transact`], and stores the iptables state from before in `earlier`, since the
/// transaction reads that state anyway.
///
/// # Errors
/// Returns the errors of [`transact`].
pub async fn transact_reading(
    tools: &Tools,
    backend: FirewallBackend,
    transaction: &Transaction<'_>,
    earlier: &mut OwnRules,
) -> Result<Vec<RemovalRecord>, ApplyError> {
    let recorded: Vec<_> =
        transaction.add.iter().map(|rulesets| RemovalRecord::new(backend, rulesets)).collect();
    tracing::debug!(
        "firewall rules of networks by {backend}: {} added, {} removed",
        transaction.add.len(),
        transaction.remove.len()
    );
    let nft = nft_text(backend, transaction);
    let rules: Vec<Ruleset> = match backend {
        FirewallBackend::Nftables => Vec::new(),
        FirewallBackend::Iptables => transaction.add.concat(),
    };
    let removals = iptables_removals(transaction.remove);
    if backend == FirewallBackend::Nftables && !removes_nft(transaction.remove) {
        commit(tools, &nft).await?;
        if let Err(error) = change_iptables(tools, &removals, &rules, earlier).await {
            let undo = Transaction { remove: &recorded, add: &[], ..*transaction };
            let undo = commit(tools, &nft_text(backend, &undo)).await.err();
            return Err(error.and(undo.map(Uncommitted::into_error).into_iter().collect()));
        }
    } else {
        let changed = change_iptables(tools, &removals, &rules, earlier).await?;
        match commit(tools, &nft).await {
            Ok(()) => {}
            Err(Uncommitted::Nothing(error)) => {
                return Err(restore(tools, &changed, error).await);
            }
            // Rules of both backends with a record of both are better than no rules.
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
    /// Returns this error together with the errors of undoing another part.
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

fn removes_nft(remove: &[RemovalRecord]) -> bool {
    remove.iter().any(|recorded| recorded.backend() == FirewallBackend::Nftables)
}

/// Returns the part of the transaction for nft, or an empty text if there is none.
fn nft_text(backend: FirewallBackend, transaction: &Transaction<'_>) -> String {
    let mut text = String::new();
    let mut all = None;
    for recorded in transaction.remove {
        if let RemovalRecord::Nftables { own, tables } = recorded {
            text.push_str(own);
            all = Some(tables);
        }
    }
    let added = match backend {
        FirewallBackend::Nftables => render_nft::apply(&transaction.add.concat()),
        FirewallBackend::Iptables => String::new(),
    };
    match all {
        Some(tables) if added.is_empty() && !transaction.others => tables.clone(),
        _ => text + &added,
    }
}

fn iptables_removals(remove: &[RemovalRecord]) -> Vec<TableRemoval> {
    let removals = |recorded: &RemovalRecord| match recorded {
        RemovalRecord::Nftables { .. } => Vec::new(),
        RemovalRecord::Iptables { removals } => removals.clone(),
    };
    remove.iter().flat_map(removals).collect()
}

/// Removes and adds rules in the tables of iptables; returns the states from before.
async fn change_iptables(
    tools: &Tools,
    removals: &[TableRemoval],
    rules: &[Ruleset],
    earlier: &mut OwnRules,
) -> Result<Vec<(Version, TableState)>, ApplyError> {
    let mut changes = Vec::new();
    for version in [Version::V4, Version::V6] {
        let concerned = removals.iter().any(|r| r.version == version)
            || rules.iter().any(|r| r.version == version);
        if concerned {
            let before = TableTools::ip(version).present(tools).await?;
            earlier.iptables.insert(version, before.clone());
            let rest = render_iptables::without(&before, version, removals);
            let wanted = render_iptables::with(&rest, version, rules);
            changes.push((version, before, wanted));
        }
    }
    let mut changed = Vec::new();
    for (version, before, wanted) in changes {
        changed.push((version, before.clone()));
        if let Err(error) = TableTools::ip(version).change(tools, &before, &wanted).await {
            return Err(restore(tools, &changed, error).await);
        }
    }
    Ok(changed)
}

/// Restores the earlier states, the last one first, because of `error`.
async fn restore(tools: &Tools, changed: &[(Version, TableState)], error: ToolError) -> ApplyError {
    let mut undo = Vec::new();
    for (version, before) in changed.iter().rev() {
        undo.extend(TableTools::ip(*version).bring_back(tools, before).await.err());
    }
    ApplyError::Tool(error).and(undo)
}
