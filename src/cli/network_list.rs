//! The output of `netlaunch network list`.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;

use super::table::table;
use super::{Failure, print_json, print_text};
use crate::network::manager::{Active, Damaged, Fault, NetworkStatus};
use crate::network::{BrokenFile, Definition, NetworkName, Origin};
use crate::types::{InterfaceName, error_text};

/// The version of the JSON output, described by conf/schema/networks.schema.json.
const LIST_VERSION: u32 = 1;

/// One network in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    name: NetworkName,
    /// `None` if the definition cannot be read.
    uuid: Option<String>,
    state: State,
    /// Whether the network is active in another network namespace.
    elsewhere: bool,
    /// The parts that the network has lost since its start, two or three words each.
    faults: Vec<&'static str>,
    autostart: bool,
    bridge: Option<InterfaceName>,
    /// The forward mode; `None` if no definition can be read.
    mode: Option<&'static str>,
    /// The file of the definition; `None` for the built-in network, and for an active network that
    /// is no longer defined.
    file: Option<PathBuf>,
    /// The reason why the definition cannot be used.
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Active,
    Inactive,
    Broken,
    Unknown,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Inactive => "inactive",
            State::Broken => "broken",
            State::Unknown => "unknown",
        }
    }
}

/// Returns all networks by name: the defined ones, the files without a usable definition, and the
/// active networks without a definition. `active` is `None` if the state cannot be read.
pub(super) fn rows(
    definitions: &[Definition],
    broken: &[BrokenFile],
    active: Option<&[Active]>,
) -> Vec<Row> {
    let inactive = if active.is_some() { State::Inactive } else { State::Unknown };
    let active = active.unwrap_or_default();
    let found = |name: &NetworkName| active.iter().find(|one| one.status.name == *name);
    let elsewhere = |name: &NetworkName| found(name).is_some_and(|one| one.elsewhere);
    let faults =
        |name: &NetworkName| found(name).map(|one| short_texts(&one.faults)).unwrap_or_default();
    let status = |name: &NetworkName| found(name).map(|one| &one.status);
    let defined = definitions.iter().map(|definition| {
        let network = &definition.network;
        let status = status(&network.name);
        Row {
            name: network.name.clone(),
            uuid: Some(network.uuid.to_string()),
            state: if status.is_some() { State::Active } else { inactive },
            elsewhere: elsewhere(&network.name),
            faults: faults(&network.name),
            autostart: definition.autostart,
            // The bridge of the running network, even if the definition has changed since its
            // start.
            bridge: Some(status.map_or(&network.bridge.name, |status| &status.bridge).clone()),
            mode: status.and_then(mode).or(Some(network.forward.name())),
            file: match &definition.origin {
                Origin::BuiltIn => None,
                Origin::File(path) => Some(path.clone()),
            },
            error: None,
        }
    });
    let unusable = broken.iter().map(|broken| {
        let status = status(&broken.name);
        Row {
            name: broken.name.clone(),
            uuid: status.map(|status| status.uuid.to_string()),
            state: if status.is_some() { State::Active } else { State::Broken },
            elsewhere: elsewhere(&broken.name),
            faults: faults(&broken.name),
            autostart: false,
            bridge: status.map(|status| status.bridge.clone()),
            mode: status.and_then(mode),
            file: None,
            error: Some(error_text(&broken.error)),
        }
    });
    let mut rows: Vec<Row> = defined.chain(unusable).collect();
    for Active { status, elsewhere, faults } in active {
        if rows.iter().all(|row| row.name != status.name) {
            rows.push(Row {
                name: status.name.clone(),
                uuid: Some(status.uuid.to_string()),
                state: State::Active,
                elsewhere: *elsewhere,
                faults: short_texts(faults),
                autostart: false,
                bridge: Some(status.bridge.clone()),
                mode: mode(status),
                file: None,
                error: None,
            });
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

/// Adds the networks whose status is damaged to the rows.
pub(super) fn with_damaged(mut rows: Vec<Row>, damaged: Vec<Damaged>) -> Vec<Row> {
    for Damaged { name, error } in damaged {
        let Some(name) = name else {
            tracing::warn!("{}", error_text(&error));
            continue;
        };
        let error = Some(error_text(&error));
        match rows.iter_mut().find(|row| row.name == name) {
            Some(row) => (row.state, row.error) = (State::Unknown, error),
            None => rows.push(Row {
                name,
                uuid: None,
                state: State::Unknown,
                elsewhere: false,
                faults: Vec::new(),
                autostart: false,
                bridge: None,
                mode: None,
                file: None,
                error,
            }),
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

/// Returns the short texts of the faults, each once.
fn short_texts(faults: &[Fault]) -> Vec<&'static str> {
    let mut shorts = Vec::new();
    for short in faults.iter().map(Fault::short) {
        if !shorts.contains(&short) {
            shorts.push(short);
        }
    }
    shorts
}

/// Returns the forward mode of an active network at its start.
fn mode(status: &NetworkStatus) -> Option<&'static str> {
    status.network().map(|network| network.forward.name())
}

/// Prints the networks as a table, or as one JSON object.
pub(super) fn list(json: bool, rows: Vec<Row>) -> Result<(), Failure> {
    if json {
        let all = json!({ "version": LIST_VERSION, "networks": rows });
        return print_json(&all);
    }
    let row = |row: &Row| {
        let state = if row.elsewhere { "elsewhere" } else { row.state.name() };
        let state = [&[state], &row.faults[..]].concat().join(", ");
        [
            row.name.as_str(),
            &state,
            if row.autostart { "yes" } else { "no" },
            row.bridge.as_ref().map_or("-", |bridge| bridge.as_str()),
            row.mode.unwrap_or("-"),
        ]
        .map(str::to_owned)
    };
    let header = ["NAME", "STATE", "AUTOSTART", "BRIDGE", "MODE"];
    let text = table(header, &rows.iter().map(row).collect::<Vec<_>>(), &[1], &[0]);
    print_text(&text)?;
    for error in rows.iter().filter_map(|row| row.error.as_ref()) {
        tracing::warn!("{error}");
    }
    Ok(())
}
