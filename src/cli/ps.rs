//! `netlaunch ps`: lists the running launches.

use serde_json::json;

use super::args::PsArgs;
use super::environment::Environment;
use super::table::table;
use super::{Failure, print_json, print_text};
use crate::launcher::record::{LearnedAddress, NicRecord, RECORD_VERSION, Record, running};
use crate::types::printable::printable;

/// Lists the running launches of this user.
pub(super) fn ps(args: &PsArgs, environment: &Environment) -> Result<u8, Failure> {
    let records = running(&environment.launch_root())?;
    if args.json {
        let all = json!({ "version": RECORD_VERSION, "launches": records });
        print_json(&all)?;
    } else {
        print_text(&text(&records))?;
    }
    Ok(0)
}

/// The guest's address: the address of its plan, or the learned one.
fn address(nic: &NicRecord) -> String {
    if let Some(address) = nic.guest.address {
        return address.address().to_string();
    }
    match nic.bridge.as_ref().and_then(|bridge| bridge.learning.as_ref()) {
        Some(LearnedAddress { address: Some(address) }) => address.to_string(),
        Some(LearnedAddress { address: None }) => "learning".to_owned(),
        None => "-".to_owned(),
    }
}

fn text(records: &[Record]) -> String {
    let pid = |pid: Option<i32>| pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let row = |(record, nic, is_first): (&Record, &NicRecord, bool)| {
        let transport = nic.transport.map(|t| format!("/{}", t.name()));
        let bridge = nic.bridge.as_ref();
        let joined = bridge.map(|bridge| match &bridge.network {
            Some(network) => format!("/{network}"),
            None => format!("/{}", bridge.bridge),
        });
        let by = transport.or(joined).unwrap_or_default();
        let ports: Vec<String> = nic.publish.iter().map(|p| p.to_string()).collect();
        [
            if is_first { printable(&record.name).into_owned() } else { String::new() },
            if is_first { record.pid.to_string() } else { String::new() },
            format!("{}{by}", nic.backend),
            if is_first { pid(record.qemu.as_ref().map(|p| p.pid)) } else { String::new() },
            pid(nic.passt.as_ref().map(|p| p.pid)),
            bridge
                .and_then(|bridge| bridge.tap.as_ref())
                .map_or_else(|| "-".to_owned(), ToString::to_string),
            address(nic),
            if ports.is_empty() { "-".to_owned() } else { ports.join(" ") },
        ]
    };
    let header = ["NAME", "PID", "BACKEND", "QEMU", "PASST", "TAP", "ADDRESS", "PORTS"];
    // A launch has a row for each of its NICs.
    let rows = records.iter().flat_map(|record| {
        record.nics.iter().enumerate().map(move |(place, nic)| (record, nic, place == 0))
    });
    table(header, &rows.map(row).collect::<Vec<_>>(), &[7], &[0, 2])
}
