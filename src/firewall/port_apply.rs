//! Gives the filters of ports to the tools: any number of ports, each with its own backend, in one
//! transaction.
//!
//! nft carries out all of its part or none of it, in one process. For iptables each of the three
//! tools carries out a part, and the earlier state is restored when a part fails. Between the
//! parts, a frame could pass that both the old and the new filter refuse (the old one in the second
//! stage, the new one in the first). So a port that already had a filter is closed until all parts
//! are done. A port that changes its backend gets the new filter before the old one is removed.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::backend::FirewallBackend;
use super::commit::commit_with;
use super::iptables_shape::Shape;
use super::iptables_state::TableState;
use super::port_change::{self, table_tools, with};
use super::port_error::{PortError, Unwritable};
use super::port_hooks::PortHooks;
use super::port_iptables::{self, IptablesText, Part};
use super::port_nft::{
    self, Attempt, Extras, Families, FurtherTables, PortObjects, PortTable, PortTables, PortText,
    TableUse,
};
use super::port_record::PortRecord;
use super::tool_error::ToolError;
use super::tools::{Tool, Tools};
use super::{Script, apply, nft_kernel};
use crate::firewall::rules::port::{PortRules, PortVerdict};
use crate::types::InterfaceName;

/// The filter that a port gets.
#[derive(Debug, Clone)]
pub struct PortFilter {
    /// The interface's number.
    pub index: u32,
    /// The interface's name.
    pub port: InterfaceName,
    /// The rules of the port; ports with the same rules share the value.
    pub rules: Arc<PortRules>,
    /// The backend that carries out the rules.
    pub backend: FirewallBackend,
    /// The hooks that see the port's frames.
    pub hooks: PortHooks,
    /// The tables of nftables for the rules.
    pub tables: PortTables,
}

/// The rules beside those of a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beside {
    /// Whether nft's first table stays without a port of the transaction: other ports on bridges
    /// have rules of nftables, or the guard is there. Other ports without a bridge are found in the
    /// kernel.
    pub needs_table: bool,
    /// The number of other ports in each of nft's tables of the family bridge.
    pub tables: TableUse,
    /// Whether a guard closes ports without a filter ([`super::port_guard`]).
    pub guarded: bool,
}

/// The rendered filters of ports.
#[derive(Debug)]
pub struct PortPlan {
    texts: Vec<PortText>,
    /// The same texts without ICMP answers, for kernels that cannot reject in the bridge family.
    silent: Option<Vec<PortText>>,
    tables: Vec<IptablesText>,
    recorded: Vec<PortRecord>,
}

impl PortPlan {
    /// Renders the filters of ports.
    ///
    /// # Errors
    /// Returns [`Unwritable`] if a backend cannot express a rule.
    pub fn new(filters: &[PortFilter], extras: Extras) -> Result<Self, Unwritable> {
        fn of_port<E: Into<PortError>>(filter: &PortFilter) -> impl Fn(E) -> Unwritable {
            |error| Unwritable { port: filter.port.clone(), error: error.into() }
        }
        let mut plan = PortPlan { texts: vec![], silent: None, tables: vec![], recorded: vec![] };
        let of = |backend| filters.iter().filter(move |filter| filter.backend == backend);
        let rendered = |extras| {
            of(FirewallBackend::Nftables)
                .map(|filter| {
                    let PortFilter { index, port, rules, .. } = filter;
                    let text = match filter.hooks {
                        PortHooks::Bridge => {
                            port_nft::port(*index, port, rules, extras).map_err(of_port(filter))
                        }
                        PortHooks::Interface => {
                            port_nft::interface_port(*index, port, rules, extras)
                                .map_err(of_port(filter))
                        }
                    };
                    Ok(text?.in_tables(filter.tables))
                })
                .collect::<Result<Vec<_>, Unwritable>>()
        };
        plan.texts = rendered(extras)?;
        let refuses = of(FirewallBackend::Nftables).filter(|f| f.hooks.is_bridge()).any(|filter| {
            filter.rules.from_guest.packets.iter().any(|r| r.verdict == PortVerdict::Reject)
        });
        if refuses && extras.reject {
            plan.silent = Some(rendered(Extras { reject: false, ..extras })?);
        }
        for filter in of(FirewallBackend::Iptables) {
            filter.hooks.check(&filter.rules).map_err(of_port(filter))?;
            if filter.hooks == PortHooks::Interface {
                return Err(of_port(filter)(PortError::OnlyBridges));
            }
            let tables = port_iptables::port(filter.index, &filter.port, &filter.rules);
            plan.tables.push(tables.map_err(of_port(filter))?);
        }
        let (mut texts, mut tables) = (plan.texts.iter_mut(), plan.tables.iter());
        for filter in filters {
            let recorded = match filter.backend {
                FirewallBackend::Nftables => texts.next().map(|text| {
                    Arc::make_mut(&mut text.objects).digest = Some(filter.rules.digest());
                    PortRecord::Nftables(text.objects.clone())
                }),
                FirewallBackend::Iptables => tables.next().map(|tables| {
                    let needed = Part::ALL.into_iter().filter(|part| tables.needs(*part));
                    let parts: Vec<Part> = needed.collect();
                    let shape = |part: &Part| {
                        let alone = port_iptables::with(TableState::default(), *part, tables);
                        (*part, Shape::of(&alone))
                    };
                    PortRecord::Iptables {
                        index: filter.index,
                        port: filter.port.clone(),
                        shapes: parts.iter().map(shape).collect(),
                        parts,
                        digest: Some(filter.rules.digest()),
                    }
                }),
            };
            plan.recorded.extend(recorded);
        }
        Ok(plan)
    }

    /// Returns the records of the ports, in the order of the filters.
    pub fn recorded(&self) -> &[PortRecord] {
        &self.recorded
    }

    /// Returns the scripts that apply the filters on a host without rules of netlaunch. Runs no
    /// program.
    pub fn scripts(&self) -> Vec<Script> {
        let mut scripts = Vec::new();
        if !self.texts.is_empty() {
            let all: Vec<_> = self.texts.iter().collect();
            let text = port_nft::change(&[], &all, Families::All, &BTreeSet::new());
            scripts.push(apply::script(Tool::Nft, text));
        }
        for part in Part::ALL {
            let nothing = TableState::default();
            let text = nothing.change_in(
                &with(TableState::default(), part, &self.tables),
                table_tools(part).dialect,
            );
            if !text.is_empty() {
                scripts.push(apply::script(table_tools(part).restore, text));
            }
        }
        scripts
    }

    /// Checks whether nft and the kernel accept nft's part of the plan, without changing a rule.
    ///
    /// # Errors
    /// Returns the error with which [`apply`](Self::apply) would fail.
    pub async fn check(&self, tools: &Tools) -> Result<(), PortError> {
        if self.texts.is_empty() {
            return Ok(());
        }
        let none = BTreeSet::new();
        let script = |texts: &[&PortText], families| port_nft::change(&[], texts, families, &none);
        let check = |text: String| async move {
            tools.run(Tool::Nft, &["--check"], &text).await?;
            Ok(())
        };
        self.nft(&script, check).await
    }

    /// Replaces the recorded filters with the filters of this plan; a port that is only in `remove`
    /// loses its filter.
    ///
    /// # Errors
    /// [`PortError::left_as_before`] says whether the rules are as before. If not, the caller keeps
    /// the records of both the old and the new rules.
    pub async fn apply(
        &self,
        tools: &Tools,
        remove: &[&PortRecord],
        beside: &Beside,
    ) -> Result<(), PortError> {
        let old: Vec<_> = remove.iter().filter_map(|recorded| recorded.objects()).collect();
        // A port that changes from iptables to nft keeps its old rules until the new ones exist.
        let to_nft: BTreeSet<u32> = self.texts.iter().map(|text| text.objects.index).collect();
        let moves = |recorded: &PortRecord| {
            recorded.backend() == FirewallBackend::Iptables && to_nft.contains(&recorded.index())
        };
        let (later, now): (Vec<_>, Vec<_>) =
            remove.iter().copied().partition(|recorded| moves(recorded));
        let done = port_change::change(tools, &now, &self.tables, beside.guarded).await?;
        if let Err(error) = self.run_nft(tools, &old, beside).await {
            return Err(match error {
                // Rules of both backends with a record of both are better than no rules.
                error @ PortError::Unknown { .. } => error,
                error => port_change::undo(tools, &done, error).await,
            });
        }
        if later.is_empty() {
            return Ok(());
        }
        // nft has committed the new rules, and the rules that they replaced are gone.
        port_change::change(tools, &later, &[], beside.guarded)
            .await
            .map(drop)
            .map_err(PortError::after_another)
    }

    async fn run_nft(
        &self,
        tools: &Tools,
        old: &[&PortObjects],
        beside: &Beside,
    ) -> Result<(), PortError> {
        if old.is_empty() && self.texts.is_empty() {
            return Ok(());
        }
        let is_last = self.texts.is_empty() && !beside.needs_table && !holds_more(old)?;
        let unread = |source| PortError::Unread { source };
        let (mut further, mut emptied) = (FurtherTables::default(), BTreeSet::new());
        if is_last {
            further = FurtherTables::read().map_err(unread)?;
        } else {
            emptied = self.emptied(old, beside).map_err(unread)?;
        }
        // A kernel may have no tables of the family bridge.
        let is_netdev_alone = is_last
            && !old.iter().any(|objects| objects.is_on_bridge())
            && matches!(nft_kernel::has_bridge_table(&PortTable::FIRST.to_string()), Ok(false));
        let text = |texts: &[&PortText], families| {
            let families: &[&str] = match families {
                _ if !is_last => return port_nft::change(old, texts, families, &emptied),
                _ if is_netdev_alone => &["netdev"],
                Families::All => &["bridge", "netdev"],
                Families::Bridge => &["bridge"],
            };
            port_nft::remove_tables(families, &further)
        };
        // Beside the ports of a transaction there may be thousands of chains.
        let fetches_less = beside.needs_table && emptied.is_empty();
        let run = |text: String| async move {
            let table = text.lines().next().and_then(|line| line.strip_prefix("add table bridge "));
            let table = table.and_then(PortTable::named).filter(|_| fetches_less);
            let last = table.map_or_else(String::new, port_nft::fetch_less);
            Ok::<(), PortError>(commit_with(tools, &text, &last).await?)
        };
        // See port_nft::further.
        let stays: BTreeSet<u32> = self.texts.iter().map(|text| text.objects.index).collect();
        let leaving: Vec<&PortObjects> = old
            .iter()
            .copied()
            .filter(|old| beside.guarded && !stays.contains(&old.index))
            .collect();
        run(port_nft::close_ports(&leaving)).await?;
        let Err(error) = self.nft(&text, &run).await else { return Ok(()) };
        if !error.left_as_before() {
            return Err(error);
        }
        Err(match (error, run(port_nft::open_ports(&leaving)).await) {
            (PortError::Tool(error), Err(PortError::Tool(undo))) => {
                PortError::HalfDone { error, undo: vec![undo] }
            }
            (error, Err(_)) => error.after_another(),
            (error, Ok(())) => error,
        })
    }

    /// Returns the further tables of the family bridge in the kernel whose last ports are in `old`.
    fn emptied(&self, old: &[&PortObjects], beside: &Beside) -> io::Result<BTreeSet<PortTable>> {
        let on_bridge = |port: &PortObjects| Some(port.table).filter(|_| port.is_on_bridge());
        let is_used = |table: &PortTable| {
            beside.tables.count(*table) > 0
                || self.texts.iter().any(|text| on_bridge(&text.objects) == Some(*table))
        };
        let mut left: BTreeSet<PortTable> = old.iter().filter_map(|old| on_bridge(old)).collect();
        left.retain(|table| !table.is_first() && !is_used(table));
        if left.is_empty() {
            return Ok(left);
        }
        let named = old.iter().map(|old| old.index).collect();
        let mut emptied = FurtherTables::read()?.bridge;
        emptied.retain(|table| left.contains(table));
        for table in left {
            // Ports of another state directory may be in the table.
            if !port_nft::ports_in_bridge(table)?.is_subset(&named) {
                emptied.remove(&table);
            }
        }
        Ok(emptied)
    }

    /// Gives the script of the ports to `run`, which runs nft. If the kernel lacks a feature that
    /// the filters can do without ([`Attempt::adapt`]), nft runs again without that feature.
    async fn nft<R: Future<Output = Result<(), PortError>>>(
        &self,
        script: &(dyn Fn(&[&PortText], Families) -> String + Sync),
        run: impl Fn(String) -> R,
    ) -> Result<(), PortError> {
        let mut attempt = Attempt::new(&self.texts, self.silent.as_deref());
        loop {
            if let Some(table) = attempt.wakes_netdev.take() {
                run(format!("add table netdev {table}\n")).await?;
            }
            let text = script(&attempt.texts(), attempt.families);
            let Err(error) = run(text).await else { return Ok(()) };
            let PortError::Tool(ToolError::Refused { line: Some(line), said, .. }) = &error else {
                return Err(error);
            };
            if !attempt.adapt(line, said) {
                return Err(error.named());
            }
        }
    }
}

/// Returns whether the tables contain ports other than these, such as those of another state
/// directory.
///
/// # Errors
/// Returns the error if the kernel does not show its rules.
pub(super) fn holds_more(ports: &[&PortObjects]) -> Result<bool, PortError> {
    let listed = || {
        let FurtherTables { bridge, netdev } = FurtherTables::read()?;
        let mut listed = BTreeSet::new();
        for table in bridge.into_iter().chain([PortTable::FIRST]) {
            listed.extend(port_nft::ports_in_bridge(table)?);
        }
        for table in netdev.into_iter().chain([PortTable::FIRST]) {
            listed.extend(port_nft::ports_without_bridge(table)?);
        }
        Ok(listed)
    };
    let listed: BTreeSet<u32> = listed().map_err(|source| PortError::Unread { source })?;
    let named: BTreeSet<u32> = ports.iter().map(|objects| objects.index).collect();
    Ok(!listed.is_subset(&named))
}
