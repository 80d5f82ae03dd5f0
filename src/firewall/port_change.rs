//! Changes the tables of ebtables, iptables and ip6tables for ports as one change, with a rollback
//! when a part of it fails.
//!
//! Between the parts, a frame could pass that both the old and the new filter refuse. So ebtables
//! closes ports that already had a filter until all parts are done.

use std::collections::BTreeSet;

use super::iptables_change::TableTools;
use super::iptables_state::TableState;
use super::port_error::PortError;
use super::port_iptables::{self, IptablesText, Part};
use super::port_record::PortRecord;
use super::tools::Tools;
use crate::types::InterfaceName;

/// Returns the tools of a part.
pub(super) fn table_tools(part: Part) -> TableTools {
    match part {
        Part::Ethernet => TableTools::ETHERNET,
        Part::Ip(version) => TableTools::ip(version),
    }
}

/// Returns the state of a part with the chains of these ports added.
pub(super) fn with(present: TableState, part: Part, ports: &[IptablesText]) -> TableState {
    ports.iter().fold(present, |present, port| port_iptables::with(present, part, port))
}

/// A part that changes: the part, its state from before and the wanted state.
type PartChange = (Part, TableState, TableState);

/// Removes and adds the chains of ports; returns the states from before.
///
/// `guarded` says whether a guard closes ports without a filter.
///
/// # Errors
/// After [`PortError::HalfDone`] the tables are partly changed. After any other error they are as
/// before.
pub(super) async fn change(
    tools: &Tools,
    remove: &[&PortRecord],
    add: &[IptablesText],
    guarded: bool,
) -> Result<Vec<(Part, TableState)>, PortError> {
    let mut changes = changes(tools, remove, add, guarded).await?;
    let added: BTreeSet<u32> = add.iter().map(|port| port.index).collect();
    let replaced: Vec<(u32, &InterfaceName)> = remove
        .iter()
        .filter_map(|recorded| match recorded {
            PortRecord::Iptables { index, port, .. } if added.contains(index) => {
                Some((*index, port))
            }
            _ => None,
        })
        .collect();
    let close = changes.len() > 1 && !replaced.is_empty();
    if guarded && !add.is_empty() {
        changes = ethernet_last(changes);
    }
    let mut done = Vec::new();
    if close {
        let before = match changes.iter().find(|(part, ..)| *part == Part::Ethernet) {
            Some((_, before, _)) => before.clone(),
            None => TableTools::ETHERNET.present(tools).await?,
        };
        let closed = port_iptables::closed(&before, replaced.iter().copied());
        done.push((Part::Ethernet, before.clone()));
        if let Err(error) = TableTools::ETHERNET.change(tools, &before, &closed).await {
            return Err(undo(tools, &done, error.into()).await);
        }
        // The last step replaces the closed state, when the other parts are done.
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
        if let Err(error) = table_tools(part).change(tools, &before, &wanted).await {
            return Err(undo(tools, &done, error.into()).await);
        }
    }
    Ok(done)
}

/// Returns the changes with that of ebtables at the end: it opens a new port in the guard, so the
/// other parts of the port's filter must be there before.
fn ethernet_last(changes: Vec<PartChange>) -> Vec<PartChange> {
    let (last, mut first): (Vec<_>, Vec<_>) =
        changes.into_iter().partition(|(part, ..)| *part == Part::Ethernet);
    first.extend(last);
    first
}

/// Returns the parts whose tables change.
async fn changes(
    tools: &Tools,
    remove: &[&PortRecord],
    add: &[IptablesText],
    guarded: bool,
) -> Result<Vec<PartChange>, PortError> {
    let names = |recorded: &&PortRecord| match recorded {
        PortRecord::Iptables { port, .. } => Some(port.clone()),
        PortRecord::Nftables(_) => None,
    };
    let removed: Vec<InterfaceName> = remove.iter().filter_map(names).collect();
    let added: Vec<&InterfaceName> = add.iter().map(IptablesText::port).collect();
    // An interrupted change may have left any port closed in ebtables, so that part always counts.
    let is_concerned = |part: Part| {
        let had = |recorded: &&PortRecord| match recorded {
            PortRecord::Iptables { parts, .. } => part == Part::Ethernet || parts.contains(&part),
            PortRecord::Nftables(_) => false,
        };
        // The guard must know each port, also one without rules of ebtables.
        let opens = part == Part::Ethernet && guarded && !add.is_empty();
        opens || remove.iter().any(had) || add.iter().any(|port| port.needs(part))
    };
    let present = async |part: Part| {
        if is_concerned(part) { table_tools(part).present(tools).await.map(Some) } else { Ok(None) }
    };
    // The tools that read run at the same time.
    let [ethernet, v4, v6] = Part::ALL;
    let read = tokio::try_join!(present(ethernet), present(v4), present(v6))?;
    let mut changes = Vec::new();
    for (part, before) in Part::ALL.into_iter().zip(<[_; 3]>::from(read)) {
        let Some(before) = before else { continue };
        // If chains of an added number were not recorded, an interrupted start left them.
        let old = remove.iter().map(|recorded| recorded.index());
        let old = old.chain(add.iter().map(|port| port.index)).collect();
        let rest = port_iptables::without(before.clone(), part, &old);
        let mut wanted = with(rest, part, add);
        if part == Part::Ethernet {
            wanted = port_iptables::with_bound(wanted, &removed.iter().collect(), &added);
        }
        if before != wanted {
            changes.push((part, before, wanted));
        }
    }
    Ok(changes)
}

/// Restores the states from before, in reverse order, because of `error`.
pub(super) async fn undo(
    tools: &Tools,
    done: &[(Part, TableState)],
    error: PortError,
) -> PortError {
    let mut failed = Vec::new();
    for (part, before) in done.iter().rev() {
        failed.extend(table_tools(*part).bring_back(tools, before).await.err());
    }
    match error {
        PortError::Tool(error) if !failed.is_empty() => PortError::HalfDone { error, undo: failed },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::rules::Version;

    #[test]
    fn ebtables_opens_a_port_in_the_guard_after_the_other_tools() {
        let change = |part| (part, TableState::default(), TableState::default());
        let changes = ethernet_last(Part::ALL.map(change).into());
        let parts: Vec<Part> = changes.into_iter().map(|(part, ..)| part).collect();
        assert_eq!(parts, [Part::Ip(Version::V4), Part::Ip(Version::V6), Part::Ethernet]);
    }
}
