//! The output of `netlaunch network list`.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;

use super::table::table;
use super::{Failure, print_json, print_text};
use crate::driver::{Damaged, Status, Whereabouts};
use crate::network::{Broken, Definition, NetworkName, Origin};
use crate::types::InterfaceName;

/// The version of what `list --json` prints, described by conf/schema/networks.schema.json.
const LIST_VERSION: u32 = 1;

/// One network in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    name: NetworkName,
    /// `None` where the definition cannot be read.
    uuid: Option<String>,
    state: State,
    /// Whether it is active in another network namespace.
    elsewhere: bool,
    autostart: bool,
    bridge: Option<InterfaceName>,
    /// `None` where no definition can be read that says it.
    mode: Option<&'static str>,
    /// The definition's file; `None` for the network that is compiled in, and for one that is
    /// active and no longer defined.
    file: Option<PathBuf>,
    /// Why the definition cannot be used.
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

/// All networks by name: the defined ones, the files that define none, and what is active without
/// a definition. `active` is `None` where that cannot be known.
pub(super) fn rows(
    definitions: &[Definition],
    broken: &[Broken],
    active: Option<&[Status]>,
) -> Vec<Row> {
    let inactive = if active.is_some() { State::Inactive } else { State::Unknown };
    let active = active.unwrap_or_default();
    let status = |name: &NetworkName| active.iter().find(|status| status.name == *name);
    let defined = definitions.iter().map(|definition| {
        let network = &definition.network;
        let status = status(&network.name);
        Row {
            name: network.name.clone(),
            uuid: Some(network.uuid.to_string()),
            state: if status.is_some() { State::Active } else { inactive },
            elsewhere: status.is_some_and(elsewhere),
            autostart: definition.autostart,
            // What runs counts, where a definition was changed since.
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
            elsewhere: status.is_some_and(elsewhere),
            autostart: false,
            bridge: status.map(|status| status.bridge.clone()),
            mode: status.and_then(mode),
            file: None,
            error: Some(broken.error.to_string()),
        }
    });
    let mut rows: Vec<Row> = defined.chain(unusable).collect();
    for status in active {
        if rows.iter().all(|row| row.name != status.name) {
            rows.push(Row {
                name: status.name.clone(),
                uuid: Some(status.uuid.to_string()),
                state: State::Active,
                elsewhere: elsewhere(status),
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

/// The rows with what is known of networks whose status cannot be used.
pub(super) fn with_damaged(mut rows: Vec<Row>, damaged: Vec<Damaged>) -> Vec<Row> {
    for Damaged { name, error } in damaged {
        let Some(name) = name else {
            tracing::warn!("{error}");
            continue;
        };
        let error = Some(error.to_string());
        match rows.iter_mut().find(|row| row.name == name) {
            Some(row) => (row.state, row.error) = (State::Unknown, error),
            None => rows.push(Row {
                name,
                uuid: None,
                state: State::Unknown,
                elsewhere: false,
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

/// Whether a network is active in another network namespace than this.
fn elsewhere(status: &Status) -> bool {
    status.whereabouts() != Whereabouts::Here
}

/// The forward mode that an active network was started with.
fn mode(status: &Status) -> Option<&'static str> {
    status.network().map(|network| network.forward.name())
}

pub(super) fn list(json: bool, rows: Vec<Row>) -> Result<(), Failure> {
    if json {
        let all = json!({ "version": LIST_VERSION, "networks": rows });
        return print_json(&all);
    }
    let row = |row: &Row| {
        [
            row.name.as_str(),
            if row.elsewhere { "elsewhere" } else { row.state.name() },
            if row.autostart { "yes" } else { "no" },
            row.bridge.as_ref().map_or("-", |bridge| bridge.as_str()),
            row.mode.unwrap_or("-"),
        ]
        .map(str::to_owned)
    };
    let header = ["NAME", "STATE", "AUTOSTART", "BRIDGE", "MODE"];
    let text = table(header, &rows.iter().map(row).collect::<Vec<_>>(), &[], &[0]);
    print_text(&text)?;
    for error in rows.iter().filter_map(|row| row.error.as_ref()) {
        tracing::warn!("{error}");
    }
    Ok(())
}
