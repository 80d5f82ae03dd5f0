//! The output of `netlaunch nwfilter binding-list`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::nwfilter_error::NwfilterError;
use super::table::table;
use super::{Failure, print_json, print_text};
use crate::firewall::PortCounts;
use crate::nwfilter::Binding;
use crate::nwfilter::port::{Bindings, Damaged, LearnerReport, PortCheck, PortStatus};
use crate::types::facts::Problem;
use crate::types::{InterfaceName, error_text};

/// The version of the JSON output, described by conf/schema/bindings.schema.json.
const LIST_VERSION: u32 = 1;

/// All ports that have a filter.
pub(super) struct PortBindings {
    /// The ports whose status can be used, with their bindings and checks.
    ports: Vec<(PortStatus, Binding, PortCheck)>,
    /// The statuses that are damaged.
    damaged: Vec<Damaged>,
}

impl PortBindings {
    pub(super) async fn read(bindings: &Bindings) -> Result<Self, NwfilterError> {
        let (all, mut damaged) = bindings.list_all()?;
        let mut ports = Vec::new();
        for (status, check) in bindings.check_ports(all).await? {
            match bindings.binding(&status) {
                Ok(binding) => ports.push((status, binding, check)),
                Err(error) => damaged.push(bindings.damaged(&status, error)),
            }
        }
        Ok(PortBindings { ports, damaged })
    }
}

/// Prints the ports that have a filter as a table, or as one JSON object.
pub(super) fn list_bindings(
    json: bool,
    bindings: &Bindings,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let read = runtime.block_on(PortBindings::read(bindings))?;
    if !json {
        return print_table(&read, bindings);
    }
    let counts = runtime.block_on(bindings.counts(read.ports.iter().map(|(status, ..)| status)));
    print_json(&as_json(&read, bindings, &counts))
}

/// Returns the JSON object of all ports.
pub(super) fn as_json(
    read: &PortBindings,
    bindings: &Bindings,
    counts: &BTreeMap<u32, PortCounts>,
) -> Value {
    let port = |(status, binding, check): &(PortStatus, Binding, PortCheck)| {
        json!({
            "port": status.port,
            "index": status.index,
            "filter": binding.filter,
            "mac": binding.mac,
            "owner": binding.owner.as_ref().map(|owner| owner.name.to_string()),
            "backend": status.backend,
            "bridge": check.bridge,
            "lower": status.lower,
            "state": check.state,
            "problems": check.problems,
            "learning": bindings.learner(status).map(|learner| json!({
                "address": learner.address,
                "until": learner.until,
                "pid": learner.pid,
                "error": learner.failed,
                "refused": learner.refused,
            })),
            "counters": counts.get(&status.index),
        })
    };
    let damaged = |damaged: &Damaged| {
        json!({
            "port": damaged.port,
            "file": damaged.path,
            "error": error_text(&damaged.error),
        })
    };
    json!({
        "version": LIST_VERSION,
        "bindings": read.ports.iter().map(port).collect::<Vec<_>>(),
        "damaged": read.damaged.iter().map(damaged).collect::<Vec<_>>(),
    })
}

fn print_table(read: &PortBindings, bindings: &Bindings) -> Result<(), Failure> {
    let row = |(status, binding, check): &(PortStatus, Binding, PortCheck)| {
        [
            status.port.to_string(),
            binding.filter.to_string(),
            binding.mac.to_string(),
            status.backend.to_string(),
            check.state.words().to_owned(),
            learned(bindings.learner(status)),
        ]
    };
    let mut rows: Vec<_> = read.ports.iter().map(row).collect();
    rows.extend(read.damaged.iter().map(|damaged| {
        let port = damaged.port.as_ref().map_or("?", |port| port.as_str());
        [port, "damaged", "-", "-", "-", "-"].map(str::to_owned)
    }));
    let header = ["PORT", "FILTER", "MAC", "BACKEND", "STATE", "LEARNED"];
    print_text(&table(header, &rows, &[4, 5], &[1]))?;
    for (status, _, check) in &read.ports {
        warn_of_problems(&status.port, &check.problems);
    }
    for damaged in &read.damaged {
        tracing::warn!("{}", error_text(&damaged.error));
    }
    Ok(())
}

/// Returns the address that was learned, or the state of the learner.
fn learned(learner: Option<LearnerReport>) -> String {
    match learner {
        None => "-".to_owned(),
        Some(LearnerReport { failed: Some(_), .. }) => "failed, off".to_owned(),
        Some(LearnerReport { pid: None, .. }) => "no learner".to_owned(),
        Some(LearnerReport { address: Some(address), .. }) => address.to_string(),
        Some(LearnerReport { refused: Some(refused), .. }) => format!("learning; {refused}"),
        Some(LearnerReport { address: None, .. }) => "learning".to_owned(),
    }
}

/// Warns of each reason why the filter of a port is not in force.
pub(super) fn warn_of_problems(port: &InterfaceName, problems: &[Problem]) {
    for Problem { why, fix, .. } in problems {
        tracing::warn!("the filter of the port {port} is not in force: {why}; {fix}");
    }
}
