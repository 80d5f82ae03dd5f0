//! `netlaunch ps`: what runs now.

use serde_json::json;

use super::args::PsArgs;
use super::environment::Environment;
use super::table::table;
use super::{Failure, print_json, print_text};
use crate::launch::record::{Learnt, RECORD_VERSION, Record, running};
use crate::printable::printable;

/// Lists the live launches of this user.
pub(super) fn ps(args: &PsArgs, environment: &Environment) -> Result<u8, Failure> {
    let records = running(&environment.launch_root()).map_err(Failure::Runtime)?;
    if args.json {
        let all = json!({ "version": RECORD_VERSION, "launches": records });
        print_json(&all)?;
    } else {
        print_text(&text(&records))?;
    }
    Ok(0)
}

/// The guest's address: the one it is given, or the learnt one.
fn address(record: &Record) -> String {
    if let Some(address) = record.guest.address {
        return address.address().to_string();
    }
    match record.bridge.as_ref().and_then(|bridge| bridge.learning.as_ref()) {
        Some(Learnt { address: Some(address) }) => address.to_string(),
        Some(Learnt { address: None }) => "learning".to_owned(),
        None => "-".to_owned(),
    }
}

fn text(records: &[Record]) -> String {
    let pid = |pid: Option<i32>| pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let row = |record: &Record| {
        let transport = record.transport.map(|t| format!("/{}", t.name()));
        let bridge = record.bridge.as_ref();
        let joined = bridge.map(|bridge| match &bridge.network {
            Some(network) => format!("/{network}"),
            None => format!("/{}", bridge.bridge),
        });
        let by = transport.or(joined).unwrap_or_default();
        let ports: Vec<String> = record.publish.iter().map(|p| p.to_string()).collect();
        [
            printable(&record.name).into_owned(),
            record.pid.to_string(),
            format!("{}{by}", record.backend),
            pid(record.qemu.as_ref().map(|p| p.pid)),
            pid(record.passt.as_ref().map(|p| p.pid)),
            bridge
                .and_then(|bridge| bridge.tap.as_ref())
                .map_or_else(|| "-".to_owned(), ToString::to_string),
            address(record),
            if ports.is_empty() { "-".to_owned() } else { ports.join(" ") },
        ]
    };
    let header = ["NAME", "PID", "BACKEND", "QEMU", "PASST", "TAP", "ADDRESS", "PORTS"];
    table(header, &records.iter().map(row).collect::<Vec<_>>(), &[7], &[0, 2])
}
