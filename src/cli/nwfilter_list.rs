//! The output of `netlaunch nwfilter list`.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;

use super::failure::Failure;
use super::table::table;
use super::{print_json, print_text};
use crate::nwfilter::{BrokenFile, Definition, FilterName};
use crate::types::{Uuid, error_text};
use crate::xml::store::Origin;

/// The version of the JSON output.
const LIST_VERSION: u32 = 1;

/// One filter in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    name: FilterName,
    origin: &'static str,
    /// `None` if the definition cannot be read, as are the chain and the priority.
    uuid: Option<Uuid>,
    chain: Option<String>,
    priority: Option<i32>,
    /// The definition's file; `None` for a stock filter.
    file: Option<PathBuf>,
    /// The reason why the definition cannot be used.
    error: Option<String>,
}

/// Returns all filters by name, also those whose definition cannot be read.
pub(super) fn rows(definitions: &[Definition], broken: &[BrokenFile]) -> Vec<Row> {
    let defined = definitions.iter().map(|Definition { filter, origin }| {
        let (origin, file) = match origin {
            Origin::BuiltIn => ("stock", None),
            Origin::File(path) => ("user", Some(path.clone())),
        };
        Row {
            name: filter.name.clone(),
            origin,
            uuid: Some(filter.uuid),
            chain: Some(filter.chain.to_string()),
            priority: Some(filter.priority),
            file,
            error: None,
        }
    });
    let unusable = broken.iter().map(|broken| Row {
        name: broken.name.clone(),
        origin: "broken",
        uuid: None,
        chain: None,
        priority: None,
        file: None,
        error: Some(error_text(&broken.error)),
    });
    let mut rows: Vec<Row> = defined.chain(unusable).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

/// Prints the filters as a table, or as one JSON object.
pub(super) fn list(json: bool, rows: &[Row]) -> Result<(), Failure> {
    if json {
        let all = json!({ "version": LIST_VERSION, "filters": rows });
        return print_json(&all);
    }
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let row = |row: &Row| {
        [
            row.name.to_string(),
            row.origin.to_owned(),
            or_dash(row.chain.clone()),
            or_dash(row.uuid.map(|uuid| uuid.to_string())),
        ]
    };
    // Without the priority each stock filter fits on one line. The JSON output has it.
    let header = ["NAME", "FROM", "CHAIN", "UUID"];
    let text = table(header, &rows.iter().map(row).collect::<Vec<_>>(), &[], &[0, 3]);
    print_text(&text)?;
    for error in rows.iter().filter_map(|row| row.error.as_ref()) {
        tracing::warn!("{error}");
    }
    Ok(())
}
