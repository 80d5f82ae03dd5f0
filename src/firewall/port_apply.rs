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
use super::commit::commit;
use super::iptables_state::Present;
use super::port_change::{self, pair, with};
use super::port_error::{PortError, Unwritable};
use super::port_iptables::{self, Part, PortTables};
use super::port_nft::{self, Attempt, Extras, Families, PortObjects, PortText};
use super::tool_error::ToolError;
use super::tools::{Tool, Tools};
use super::{Script, apply, nft_kernel};
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
                    let text = port_nft::port(filter.index, &filter.port, &filter.rules, extras);
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
            scripts.push(apply::script(Tool::Nft, port_nft::change(&[], &all, Families::All)));
        }
        for part in Part::ALL {
            let nothing = Present::default();
            let text = nothing
                .change_in(&with(Present::default(), part, &self.tables), pair(part).dialect);
            if !text.is_empty() {
                scripts.push(apply::script(pair(part).restore, text));
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
        let script = |texts: &[PortText], families| {
            port_nft::change(&[], &texts.iter().collect::<Vec<_>>(), families)
        };
        let check = |text: String| async move {
            tools.run(Tool::Nft, &["--check"], &text).await?;
            Ok(())
        };
        self.nft(&script, check).await
    }

    /// Puts the filters in force in place of what was recorded; ports that are only recorded lose
    /// theirs. `others` says whether ports that are not named here have rules of nft's: else its
    /// table goes with the last of them.
    ///
    /// # Errors
    /// [`PortError::left_as_before`] says whether everything is as it was; else the caller keeps the
    /// record of both sides.
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
        let done = port_change::change(tools, &now, &self.tables).await?;
        if let Err(error) = self.run_nft(tools, &old, others).await {
            return Err(match error {
                // Rules of both sides, and a record of both, are better than of none.
                error @ PortError::Unknown { .. } => error,
                error => port_change::undo(tools, &done, error).await,
            });
        }
        if later.is_empty() {
            return Ok(());
        }
        // nft has the new rules by now, and the old ones that they replaced are gone.
        port_change::change(tools, &later, &[]).await.map(drop).map_err(PortError::after_another)
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
        let last = self.texts.is_empty() && !others && !holds_more(tools, old).await?;
        let text = |texts: &[PortText], families| match last {
            true => port_nft::remove_tables(families),
            false => port_nft::change(old, &texts.iter().collect::<Vec<_>>(), families),
        };
        self.nft(&text, |text| async move { Ok(commit(tools, &text).await?) }).await
    }

    /// Has `run` run nft on what `script` makes of the ports. If the kernel lacks something that the
    /// filters can do without ([`Attempt::adapt`]), nft runs again without that.
    async fn nft<R: Future<Output = Result<(), PortError>>>(
        &self,
        script: &dyn Fn(&[PortText], Families) -> String,
        run: impl Fn(String) -> R,
    ) -> Result<(), PortError> {
        let mut attempt = Attempt::new(&self.texts, self.silent.as_ref());
        loop {
            let text = script(&attempt.texts, attempt.families);
            let Err(error) = run(text).await else { return Ok(()) };
            let PortError::Tool(ToolError::Refused { line: Some(line), said, .. }) = &error else {
                return Err(error);
            };
            if !attempt.adapt(line, said) {
                let needs_ct = ["ct state", "ct count", "ct direction"];
                return match needs_ct.iter().any(|ct| line.contains(ct)) {
                    true => Err(PortError::NoConntrack),
                    false => Err(error),
                };
            }
        }
    }
}

/// Whether the table holds other ports than these: those of another state directory.
///
/// # Errors
/// The question was not asked, so that an empty table could stay. If nft cannot answer it, the table
/// is taken to hold others and stays.
async fn holds_more(tools: &Tools, ports: &[&PortObjects]) -> Result<bool, PortError> {
    let question = port_nft::question();
    let question: Vec<&str> = question.iter().map(String::as_str).collect();
    let ours: BTreeSet<u32> = ports.iter().map(|objects| objects.index).collect();
    let error = match tools.run(Tool::NftAsk, &question, "").await {
        Ok(listing) => return Ok(!port_nft::held(&listing).is_subset(&ours)),
        Err(error) => error,
    };
    // Without a table no port is in it: another program flushed the rules.
    if let Ok(false) = nft_kernel::has_bridge_table(port_nft::TABLE) {
        return Ok(false);
    }
    match error {
        ToolError::Refused { .. } | ToolError::Slow { .. } => {
            tracing::warn!("the table {} stays, and may be empty: {error}", port_nft::TABLE);
            Ok(true)
        }
        error => Err(error.into()),
    }
}
