//! The output of `netlaunch nwfilter binding-list`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::nwfilter_error::NwfilterError;
use super::table::table;
use super::{Failure, print_json, print_text};
use crate::firewall::PortCounts;
use crate::nwfilter::Binding;
use crate::nwfilter::port::{
    Bindings, Damaged, LearnerReport, PortCheck, PortStatus, ShownAddress6,
};
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
                "addresses6": learner.addresses6.map(|all| all.iter().map(address6).collect::<Vec<_>>()),
                "refused6": learner.refused6,
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

fn address6(shown: &ShownAddress6) -> Value {
    json!({ "address": shown.address, "until": shown.until })
}

/// Returns the addresses that were learned, or the state of the learner.
fn learned(learner: Option<LearnerReport>) -> String {
    let Some(learner) = learner else { return "-".to_owned() };
    if learner.failed.is_some() {
        return "failed, off".to_owned();
    }
    if learner.pid.is_none() {
        return "no learner".to_owned();
    }
    let v6 = learner.addresses6.unwrap_or_default().into_iter().map(|shown| shown.address);
    let v6 = v6.filter(|address| !address.is_unicast_link_local()).map(|a| a.to_string());
    let all: Vec<String> = learner.address.iter().map(Ipv4Addr::to_string).chain(v6).collect();
    match (all.as_slice(), learner.refused.or(learner.refused6)) {
        ([], Some(refused)) => format!("learning; {refused}"),
        ([], None) => "learning".to_owned(),
        ([one, two, rest @ ..], _) if !rest.is_empty() => {
            format!("{one}, {two} and {} more", rest.len())
        }
        (all, _) => all.join(", "),
    }
}

/// Warns of each reason why the filter of a port is not in force.
pub(super) fn warn_of_problems(port: &InterfaceName, problems: &[Problem]) {
    for Problem { why, fix, .. } in problems {
        tracing::warn!("the filter of the port {port} is not in force: {why}; {fix}");
    }
}
