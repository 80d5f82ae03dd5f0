//! Follows the kernel's trace of the frames of one port.
//!
//! A rule `meta nftrace set 1` marks a frame, and the kernel then reports each rule that the frame
//! meets, in all tables. If the port's own rules mark no frames (`enable_trace`), [`PortTrace`]
//! adds a table that does ([`mark`]). The kernel removes that table when its maker's socket is
//! closed, so the trace ends with the process, also by SIGKILL.
//!
//! The kernel reports a rule by its table, chain and handle. The rules of a chain are read from the
//! kernel ([`super::nft_rules`]), and [`PortRoles`] names the rule of the filter at each place.
//! After each change of rules, both are read again. [`Frames`] joins the reports about one frame.
//!
//! iptables and ebtables over nf_tables have the same trace. The legacy variants report a marked
//! frame in the kernel's log instead, so their ports are refused.

mod event;
mod frames;
#[cfg(all(feature = "cli", any(test, feature = "fuzz")))]
pub(super) mod fuzz;
mod mark;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use super::nft_kernel::{HEADER, first_message};
use super::nft_rules::rules_of;
use super::port_iptables::Part;
use super::port_record::PortRecord;
use super::port_roles::{PortRoles, RuleTable};
use super::tool_error::ToolError;
use super::tools::{Tool, Tools};
use crate::sys::netfilter_events::{Datagram, NetfilterEvents};
use crate::types::InterfaceName;

use event::{NFNLGRP_NFTABLES, NFNLGRP_NFTRACE, TraceMessage};
use frames::Frames;
pub use frames::{DecidedStage, TracedFrame};

/// The reason why a port cannot be traced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The kernel refuses the trace.
    #[error("cannot follow the kernel's trace{}", if .0.raw_os_error() == Some(libc::EPERM) { "; run as root" } else { "" })]
    Kernel(#[source] io::Error),
    /// The kernel cannot tie a table to a process.
    #[error(
        "this kernel cannot remove the rules of a trace when netlaunch ends (Linux 5.12 and later can); set enable_trace = true, and reload the firewall rules"
    )]
    NoOwner,
    /// The rules are those of legacy iptables.
    #[error(
        "{0} is the legacy variant, whose trace goes to the kernel's log; install {0} over nf_tables, or use firewall_backend = \"nftables\""
    )]
    Legacy(&'static str),
    /// A tool that shows its variant failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// The trace of one port.
#[derive(Debug)]
pub struct PortTrace {
    events: NetfilterEvents,
    /// The socket that owns the table with the mark; `None` if the port's own rules mark frames.
    _mark: Option<OwnedFd>,
    roles: PortRoles,
    /// The place of each rule in its chain, by handle; empty until a frame needs it.
    places: BTreeMap<(RuleTable, String), BTreeMap<u64, usize>>,
    frames: Frames,
}

/// The result of one step of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceStep {
    /// Stages of frames of the port were decided.
    Frames(Vec<TracedFrame>),
    /// The kernel's queue was full, and reports of frames are lost.
    Lost,
    /// Rules of the host were changed. The caller reads the port's rules again and calls
    /// [`PortTrace::replace_roles`].
    RulesChanged,
}

impl PortTrace {
    /// Starts the trace of the port with these rules. `marks` says whether the port's own rules
    /// mark its frames. Call it in a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// [`TraceError`]; no rule was added.
    pub async fn open(
        tools: &Tools,
        record: &PortRecord,
        port: &InterfaceName,
        roles: PortRoles,
        marks: bool,
    ) -> Result<Self, TraceError> {
        refuse_legacy(tools, record).await?;
        let groups = [NFNLGRP_NFTABLES, NFNLGRP_NFTRACE];
        let events = NetfilterEvents::join(&groups).map_err(TraceError::Kernel)?;
        let ingress = roles.chains.keys().any(|(table, _)| table.is_netdev());
        let _mark = if marks {
            None
        } else {
            let on_bridge = roles.is_on_bridge();
            Some(mark::add(record.index(), ingress.then_some(port), on_bridge)?)
        };
        let (places, frames) = (BTreeMap::new(), Frames::default());
        Ok(PortTrace { events, _mark, roles, places, frames })
    }

    /// Sets the port's present rules.
    pub fn replace_roles(&mut self, roles: PortRoles) {
        self.roles = roles;
        self.places.clear();
    }

    /// Waits for the next reports of the kernel. Reports about other ports give an empty list.
    ///
    /// # Errors
    /// [`TraceError::Kernel`].
    pub async fn next(&mut self) -> Result<TraceStep, TraceError> {
        let mut messages = Vec::new();
        match self.events.next().await.map_err(TraceError::Kernel)? {
            Datagram::Lost => return Ok(TraceStep::Lost),
            Datagram::Messages(mut rest) => {
                while let Some((message, next)) = first_message(rest) {
                    if event::is_new_generation(message) {
                        return Ok(TraceStep::RulesChanged);
                    }
                    messages.extend(TraceMessage::parse(message, HEADER));
                    rest = next;
                }
            }
        }
        let mut decided = Vec::new();
        for message in messages {
            let place = self.place(&message)?;
            decided.extend(self.frames.add(&self.roles, &message, place));
        }
        Ok(TraceStep::Frames(decided))
    }

    /// Returns the place of the reported rule in its chain; `None` if it is no rule of the port, or
    /// is gone.
    fn place(&mut self, message: &TraceMessage) -> Result<Option<usize>, TraceError> {
        let (Some(table), Some(handle)) = (message.table, message.handle) else { return Ok(None) };
        let chain = (table, message.chain.clone());
        let Some(roles) = self.roles.chains.get(&chain) else { return Ok(None) };
        if !self.places.contains_key(&chain) {
            let rules = rules_of(table, &message.chain).map_err(TraceError::Kernel)?;
            // Other rules than those of the roles have no places.
            let rules = if rules.len() == roles.roles.len() { rules } else { Vec::new() };
            let handles = rules.iter().enumerate().map(|(place, rule)| (rule.handle, place));
            self.places.insert(chain.clone(), handles.collect());
        }
        Ok(self.places.get(&chain).and_then(|places| places.get(&handle)).copied())
    }
}

/// Refuses a port whose rules are in legacy iptables or ebtables, which log the trace.
async fn refuse_legacy(tools: &Tools, record: &PortRecord) -> Result<(), TraceError> {
    let PortRecord::Iptables { parts, .. } = record else { return Ok(()) };
    for part in parts {
        let tool = match part {
            Part::Ethernet => Tool::SaveEthernet,
            Part::Ip(version) => Tool::Save(*version),
        };
        if !tools.run(tool, &[], "").await?.contains("(nf_tables)") {
            return Err(TraceError::Legacy(part.tool()));
        }
    }
    Ok(())
}
