//! Changing the tables of ebtables, iptables and ip6tables for ports, as one change that is undone
//! when a part of it fails.
//!
//! Between the parts a frame could pass that neither the old filter nor the new one lets through.
//! So ebtables closes ports that already had a filter until all parts are done.

use std::collections::BTreeSet;

use super::iptables_change::Pair;
use super::iptables_state::Present;
use super::port_apply::PortRecorded;
use super::port_error::PortError;
use super::port_iptables::{self, Part, PortTables};
use super::tools::Tools;
use crate::types::InterfaceName;

/// The tools of a part.
pub(super) fn pair(part: Part) -> Pair {
    match part {
        Part::Ethernet => Pair::ETHERNET,
        Part::Ip(version) => Pair::ip(version),
    }
}

/// The state of a part with the chains of these ports.
pub(super) fn with(present: Present, part: Part, ports: &[PortTables]) -> Present {
    ports.iter().fold(present, |present, port| port_iptables::with(present, part, port))
}

/// A part that is to change: its state of before and the wanted one.
type Change = (Part, Present, Present);

/// Removes and adds ports' chains; returns the states of before.
///
/// # Errors
/// Everything is as it was before, or [`PortError::HalfDone`].
pub(super) async fn change(
    tools: &Tools,
    remove: &[&PortRecorded],
    add: &[PortTables],
) -> Result<Vec<(Part, Present)>, PortError> {
    let mut changes = changes(tools, remove, add).await?;
    let added: BTreeSet<u32> = add.iter().map(|port| port.index).collect();
    let replaced: Vec<(u32, &InterfaceName)> = remove
        .iter()
        .filter_map(|recorded| match recorded {
            PortRecorded::Iptables { index, port, .. } if added.contains(index) => {
                Some((*index, port))
            }
            _ => None,
        })
        .collect();
    let close = changes.len() > 1 && !replaced.is_empty();
    let mut done = Vec::new();
    if close {
        let before = match changes.iter().find(|(part, ..)| *part == Part::Ethernet) {
            Some((_, before, _)) => before.clone(),
            None => Pair::ETHERNET.present(tools).await?,
        };
        let closed = port_iptables::closed(&before, replaced.iter().copied());
        done.push((Part::Ethernet, before.clone()));
        if let Err(error) = Pair::ETHERNET.change(tools, &before, &closed).await {
            return Err(undo(tools, &done, error.into()).await);
        }
        // Opened again when the other parts are done.
        let wanted = match changes.iter().position(|(part, ..)| *part == Part::Ethernet) {
            Some(at) => changes.remove(at).2,
            None => before,
        };
        changes.push((Part::Ethernet, closed, wanted));
    }
    for (part, before, wanted) in changes {
        if !done.iter().any(|(other, _)| *other == part) {
            done.push((part, before.clone()));
        }
        if let Err(error) = pair(part).change(tools, &before, &wanted).await {
            return Err(undo(tools, &done, error.into()).await);
        }
    }
    Ok(done)
}

/// The parts in which something is to change.
async fn changes(
    tools: &Tools,
    remove: &[&PortRecorded],
    add: &[PortTables],
) -> Result<Vec<Change>, PortError> {
    let mut changes = Vec::new();
    for part in Part::ALL {
        // An interrupted change may have left any port closed.
        let had = |recorded: &&PortRecorded| match recorded {
            PortRecorded::Iptables { parts, .. } => part == Part::Ethernet || parts.contains(&part),
            PortRecorded::Nftables(_) => false,
        };
        if !remove.iter().any(had) && !add.iter().any(|port| port.needs(part)) {
            continue;
        }
        let before = pair(part).present(tools).await?;
        // Chains of an added number that were not recorded are from an interrupted start.
        let old = remove.iter().map(|recorded| recorded.index());
        let old = old.chain(add.iter().map(|port| port.index)).collect();
        let rest = port_iptables::without(before.clone(), part, &old);
        let wanted = with(rest, part, add);
        if before != wanted {
            changes.push((part, before, wanted));
        }
    }
    Ok(changes)
}

/// Brings back the states of before, the first part last, because of `error`.
pub(super) async fn undo(tools: &Tools, done: &[(Part, Present)], error: PortError) -> PortError {
    let mut failed = Vec::new();
    for (part, before) in done.iter().rev() {
        failed.extend(pair(*part).bring_back(tools, before).await.err());
    }
    match error {
        PortError::Tool(error) if !failed.is_empty() => PortError::HalfDone { error, undo: failed },
        other => other,
    }
}
