//! Handing ports' filters to the tools: any number of ports, each with its backend, in one
//! transaction.
//!
//! nft takes its part whole or not at all, in one process. For iptables the three tools each take a
//! part, and what they held before is brought back when one fails. Between the parts a frame could
//! pass that neither the old filter nor the new one lets through (the old one refuses it in the
//! second stage, the new one in the first); so ports that already had a filter are closed until
//! all parts are done. A port that changes its backend has the new filter before the old one goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::backend::Backend;
use super::iptables_state::{Dialect, Present};
use super::port_iptables::{self, Part, PortTables, Unexpressible};
use super::port_nft::{self, Extras, NoIpset, PortObjects, PortText};
use super::tools::{Tool, ToolError, Tools};
use super::{Script, apply};
use crate::rules::port::{PortRules, PortVerdict};
use crate::types::InterfaceName;

/// What a port is to have.
#[derive(Debug, Clone)]
pub struct PortFilter {
    /// The interface's number.
    pub index: u32,
    /// The interface's name.
    pub port: InterfaceName,
    /// Its rules; ports with the same share them.
    pub rules: Arc<PortRules>,
    /// The backend that carries them out.
    pub backend: Backend,
}

/// What a port's status keeps, so that exactly what was added can be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "backend", rename_all = "lowercase")]
pub enum PortRecorded {
    /// By nft.
    Nftables(PortObjects),
    /// By ebtables, iptables and ip6tables: all chains of this number.
    Iptables {
        /// The interface's number.
        index: u32,
        /// The interface's name.
        port: InterfaceName,
        /// The tools that have something of it.
        parts: Vec<Part>,
    },
}

impl PortRecorded {
    /// The interface's number.
    pub fn index(&self) -> u32 {
        match self {
            PortRecorded::Nftables(objects) => objects.index,
            PortRecorded::Iptables { index, .. } => *index,
        }
    }

    /// The backend that added it and removes it.
    pub fn backend(&self) -> Backend {
        match self {
            PortRecorded::Nftables(_) => Backend::Nftables,
            PortRecorded::Iptables { .. } => Backend::Iptables,
        }
    }
}

/// Why a backend cannot carry a filter out.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// nftables has no words for it.
    #[error(transparent)]
    NoIpset(#[from] NoIpset),
    /// ebtables has no words for it.
    #[error(transparent)]
    Unexpressible(#[from] Unexpressible),
    /// The kernel does not track connections of bridges.
    #[error(
        "the kernel cannot track connections in the bridge family (nf_conntrack_bridge), which the filter's stateful rules need; use firewall_backend = \"iptables\" in nwfilter.conf, or another kernel"
    )]
    NoConntrack,
    /// A tool failed; everything is as it was.
    #[error("the filter was not changed: {0}")]
    Tool(#[from] ToolError),
    /// A tool failed, and so did what was to bring back the state of before.
    #[error(
        "the filter is half changed and its ports may drop what they should not: {error}{}; run `netlaunch firewall reload` once that works",
        undoing(.undo)
    )]
    HalfDone {
        /// The failure.
        error: ToolError,
        /// What undoing it said.
        undo: Vec<ToolError>,
    },
}

/// The part of a message that says why a change could not be undone.
fn undoing(errors: &[ToolError]) -> String {
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    if errors.is_empty() {
        String::new()
    } else {
        format!("; undoing it failed, too: {}", errors.join("; "))
    }
}

impl PortError {
    /// Whether a tool was to carry it out, as opposed to what a backend is known not to do.
    pub fn was_tried(&self) -> bool {
        matches!(self, PortError::Tool(_) | PortError::HalfDone { .. })
    }

    /// Whether another backend may do what this one cannot.
    pub fn is_backends(&self) -> bool {
        !matches!(self, PortError::HalfDone { .. })
    }
}

/// Why a port's filter cannot be written for its backend.
#[derive(Debug, thiserror::Error)]
#[error("the port {port}: {error}")]
pub struct Unwritable {
    /// The port.
    pub port: InterfaceName,
    /// Why.
    pub error: PortError,
}

/// Ports' filters, rendered and ready to be applied.
#[derive(Debug)]
pub struct PortPlan {
    texts: Vec<PortText>,
    /// The same without ICMP answers, for kernels that have none in the bridge family.
    silent: Option<Vec<PortText>>,
    tables: Vec<PortTables>,
    recorded: Vec<PortRecorded>,
}

impl PortPlan {
    /// Renders the filters of ports.
    ///
    /// # Errors
    /// [`Unwritable`] when a backend has no words for a rule.
    pub fn new(filters: &[PortFilter], extras: Extras) -> Result<Self, Unwritable> {
        fn of_port(filter: &PortFilter) -> impl Fn(PortError) -> Unwritable {
            |error| Unwritable { port: filter.port.clone(), error }
        }
        let mut plan = PortPlan { texts: vec![], silent: None, tables: vec![], recorded: vec![] };
        let of = |backend| filters.iter().filter(move |filter| filter.backend == backend);
        let rendered = |extras| {
            of(Backend::Nftables)
                .map(|filter| {
                    let text = port_nft::port(filter.index, &filter.rules, extras);
                    text.map_err(PortError::from).map_err(of_port(filter))
                })
                .collect::<Result<Vec<_>, Unwritable>>()
        };
        plan.texts = rendered(extras)?;
        let refuses = of(Backend::Nftables).any(|filter| {
            filter.rules.from_guest.packets.iter().any(|r| r.verdict == PortVerdict::Reject)
        });
        if refuses && extras.reject {
            plan.silent = Some(rendered(Extras { reject: false, ..extras })?);
        }
        for filter in of(Backend::Iptables) {
            let tables = port_iptables::port(filter.index, &filter.port, &filter.rules);
            plan.tables.push(tables.map_err(PortError::from).map_err(of_port(filter))?);
        }
        let (mut texts, mut tables) = (plan.texts.iter(), plan.tables.iter());
        for filter in filters {
            let recorded = match filter.backend {
                Backend::Nftables => {
                    texts.next().map(|text| PortRecorded::Nftables(text.objects.clone()))
                }
                Backend::Iptables => tables.next().map(|tables| PortRecorded::Iptables {
                    index: filter.index,
                    port: filter.port.clone(),
                    parts: Part::ALL.into_iter().filter(|part| tables.needs(*part)).collect(),
                }),
            };
            plan.recorded.extend(recorded);
        }
        Ok(plan)
    }

    /// What is to be recorded, in the order of the filters.
    pub fn recorded(&self) -> &[PortRecorded] {
        &self.recorded
    }

    /// What applying it runs on a host where nothing of ours is there yet. Runs nothing.
    pub fn scripts(&self) -> Vec<Script> {
        let mut scripts = Vec::new();
        if !self.texts.is_empty() {
            let all: Vec<_> = self.texts.iter().collect();
            scripts.push(apply::script(Tool::Nft, port_nft::change(&[], &all)));
        }
        for part in Part::ALL {
            let nothing = Present::default();
            let text =
                nothing.change_in(&with(Present::default(), part, &self.tables), dialect(part));
            if !text.is_empty() {
                scripts.push(apply::script(restore_tool(part), text));
            }
        }
        scripts
    }

    /// Whether nft and the kernel can do its part of it; nothing is changed.
    ///
    /// # Errors
    /// What [`apply`](Self::apply) would fail with.
    pub async fn check(&self, tools: &Tools) -> Result<(), PortError> {
        if self.texts.is_empty() {
            return Ok(());
        }
        self.nft(tools, &["--check"], &|texts| {
            port_nft::change(&[], &texts.iter().collect::<Vec<_>>())
        })
        .await
    }

    /// Puts the filters in force in place of what was recorded; ports that are only recorded lose
    /// theirs. `others` says whether ports that are not named here have rules of nft's: else its
    /// table goes with the last of them.
    ///
    /// # Errors
    /// Everything is as it was before, or [`PortError::HalfDone`].
    pub async fn apply(
        &self,
        tools: &Tools,
        remove: &[PortRecorded],
        others: bool,
    ) -> Result<(), PortError> {
        let old: Vec<&PortObjects> = remove
            .iter()
            .filter_map(|recorded| match recorded {
                PortRecorded::Nftables(objects) => Some(objects),
                PortRecorded::Iptables { .. } => None,
            })
            .collect();
        // Ports that go from iptables to nft keep their old rules until the new ones are there.
        let to_nft: BTreeSet<u32> = self.texts.iter().map(|text| text.objects.index).collect();
        let moves = |recorded: &PortRecorded| {
            recorded.backend() == Backend::Iptables && to_nft.contains(&recorded.index())
        };
        let (later, now): (Vec<_>, Vec<_>) = remove.iter().partition(|recorded| moves(recorded));
        let done = self.change_iptables(tools, &now, &self.tables).await?;
        if let Err(error) = self.run_nft(tools, &old, others).await {
            return Err(undo(tools, &done, error).await);
        }
        if !later.is_empty() {
            // The new rules are there, and some of the old ones may be: both sides stay recorded.
            let error = match self.change_iptables(tools, &later, &[]).await {
                Err(PortError::Tool(error)) => error,
                done => return done.map(drop),
            };
            return Err(PortError::HalfDone { error, undo: Vec::new() });
        }
        Ok(())
    }

    async fn run_nft(
        &self,
        tools: &Tools,
        old: &[&PortObjects],
        others: bool,
    ) -> Result<(), PortError> {
        if old.is_empty() && self.texts.is_empty() {
            return Ok(());
        }
        let last = self.texts.is_empty() && !others && !holds_more(tools, old).await;
        let text = |texts: &[PortText]| match last {
            true => port_nft::remove_table(),
            false => port_nft::change(old, &texts.iter().collect::<Vec<_>>()),
        };
        self.nft(tools, &[], &text).await
    }

    /// Runs nft on what `script` makes of the ports, without ICMP answers where the kernel has none.
    async fn nft(
        &self,
        tools: &Tools,
        extra: &[&str],
        script: &dyn Fn(&[PortText]) -> String,
    ) -> Result<(), PortError> {
        let error = match tools.run(Tool::Nft, extra, &script(&self.texts)).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        match (&error, &self.silent) {
            (ToolError::Refused { line: Some(line), .. }, Some(silent))
                if line.contains(" reject") =>
            {
                tools.run(Tool::Nft, extra, &script(silent)).await?;
                Ok(())
            }
            (ToolError::Refused { line: Some(line), .. }, _)
                if ["ct state", "ct count", "ct direction"].iter().any(|ct| line.contains(ct)) =>
            {
                Err(PortError::NoConntrack)
            }
            _ => Err(error.into()),
        }
    }

    /// Changes the three tools' tables; returns their states of before.
    async fn change_iptables(
        &self,
        tools: &Tools,
        remove: &[&PortRecorded],
        add: &[PortTables],
    ) -> Result<Vec<(Part, Present)>, PortError> {
        let mut changes = Vec::new();
        for part in Part::ALL {
            // A change that was cut short may have left any port closed.
            let had = |recorded: &&PortRecorded| {
                let parts = match recorded {
                    PortRecorded::Iptables { parts, .. } => parts,
                    PortRecorded::Nftables(_) => return false,
                };
                part == Part::Ethernet || parts.contains(&part)
            };
            if !remove.iter().any(had) && !add.iter().any(|port| port.needs(part)) {
                continue;
            }
            let before = present(tools, part).await?;
            // Chains of an added number that were not recorded are from a start that was cut short.
            let old = remove.iter().map(|recorded| recorded.index());
            let old = old.chain(add.iter().map(|port| port.index)).collect();
            let rest = port_iptables::without(before.clone(), part, &old);
            let wanted = with(rest, part, add);
            if before != wanted {
                changes.push((part, before, wanted));
            }
        }
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
                None => present(tools, Part::Ethernet).await?,
            };
            let closed = port_iptables::closed(&before, replaced.iter().copied());
            done.push((Part::Ethernet, before.clone()));
            let result = restore(tools, Part::Ethernet, &before, &closed).await;
            if let Err(error) = result {
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
            if let Err(error) = restore(tools, part, &before, &wanted).await {
                return Err(undo(tools, &done, error.into()).await);
            }
        }
        Ok(done)
    }
}

/// Whether the table holds other ports than these: those of another state directory.
async fn holds_more(tools: &Tools, ports: &[&PortObjects]) -> bool {
    let question = port_nft::question();
    let question: Vec<&str> = question.iter().map(String::as_str).collect();
    let ours: BTreeSet<u32> = ports.iter().map(|objects| objects.index).collect();
    match tools.run(Tool::NftAsk, &question, "").await {
        Ok(listing) => !port_nft::held(&listing).is_subset(&ours),
        // There is no table: somebody flushed the rules.
        Err(ToolError::Refused { .. }) => false,
        Err(_) => true,
    }
}

fn with(present: Present, part: Part, ports: &[PortTables]) -> Present {
    ports.iter().fold(present, |present, port| port_iptables::with(present, part, port))
}

fn dialect(part: Part) -> Dialect {
    match part {
        Part::Ethernet => Dialect::Ebtables,
        Part::Ip(_) => Dialect::Iptables,
    }
}

fn restore_tool(part: Part) -> Tool {
    match part {
        Part::Ethernet => Tool::RestoreEthernet,
        Part::Ip(version) => Tool::Restore(version),
    }
}

async fn present(tools: &Tools, part: Part) -> Result<Present, ToolError> {
    let tool = match part {
        Part::Ethernet => Tool::SaveEthernet,
        Part::Ip(version) => Tool::Save(version),
    };
    Ok(Present::parse(&tools.run(tool, &[], "").await?))
}

async fn restore(
    tools: &Tools,
    part: Part,
    before: &Present,
    wanted: &Present,
) -> Result<(), ToolError> {
    let text = before.change_in(wanted, dialect(part));
    if !text.is_empty() {
        tools.run(restore_tool(part), &[], &text).await?;
    }
    Ok(())
}

/// Brings back the states of before, the first part last, because of `error`.
async fn undo(tools: &Tools, done: &[(Part, Present)], error: PortError) -> PortError {
    let mut failed = Vec::new();
    for (part, before) in done.iter().rev() {
        let back = async {
            // A tool that failed may have changed something, too.
            let now = present(tools, *part).await?;
            restore(tools, *part, &now, before).await
        };
        failed.extend(back.await.err());
    }
    match error {
        PortError::Tool(error) if !failed.is_empty() => PortError::HalfDone { error, undo: failed },
        other => other,
    }
}
