//! `netlaunch firewall`: puts back the rules that other programs removed, and finds the causes that
//! stop the traffic of guests.

use serde_json::{Value, json};

use super::args::FirewallVerb;
use super::environment::Environment;
use super::firewall_ports::PortFindings;
use super::follow;
use super::hint;
use super::network::manager;
use super::network_error::NetworkError;
use super::reload::reload;
use super::{Failure, firewall_ports, print_json, print_text, runtime};
use crate::firewall::conflicts::Finding;
use crate::network::manager::{Checked, Fault};

/// The version of the JSON output of `check`, described by conf/schema/firewall-check.schema.json.
const CHECK_VERSION: u32 = 1;
/// Exit status of a check that found a cause.
const FOUND: u8 = 1;

/// Carries out a verb of `netlaunch firewall` and returns the exit status.
pub(super) fn firewall(verb: &FirewallVerb, environment: &Environment) -> Result<u8, Failure> {
    let config_dir = environment.config_dir()?.ok_or(NetworkError::NoDirectory)?;
    environment.say_directories(&config_dir);
    match verb {
        FirewallVerb::Reload { follow: true } => {
            runtime()?.block_on(follow::follow(&config_dir, environment))?;
            Ok(0)
        }
        FirewallVerb::Reload { follow: false } => {
            let done = runtime()?.block_on(reload(&config_dir, environment))?;
            let text: String = done.iter().map(|note| format!("{note}\n")).collect();
            print_text(&text)?;
            Ok(0)
        }
        FirewallVerb::Check { json, bridges } => {
            let manager = manager(&config_dir, environment)?;
            let runtime = runtime()?;
            let checked = runtime.block_on(manager.conflicts(bridges))?;
            let ports =
                runtime.block_on(firewall_ports::problems(&config_dir, environment, bridges));
            if *json {
                print_json(&as_json(&checked, &ports))?;
            } else {
                print_text(&(as_text(&checked) + &firewall_ports::as_text(&ports)))?;
            }
            let is_clean = ports.is_empty() && checked.iter().all(is_clean);
            Ok(if is_clean { 0 } else { FOUND })
        }
    }
}

/// Returns whether the check found no cause at a bridge.
fn is_clean(checked: &Checked) -> bool {
    checked.findings.is_empty() && checked.faults.is_empty()
}

fn as_json(checked: &[Checked], ports: &PortFindings) -> Value {
    let bridge = |one: &Checked| {
        let row = |found: &Finding| {
            json!({
                "kind": "chain",
                "table": found.table,
                "chain": found.chain,
                "why": found.why,
                "fix": found.fix(),
                "commands": found.commands,
                "note": hint::with_files(found.note.clone()),
            })
        };
        let lost = |fault: &Fault| {
            let (kind, about) = fault.subject();
            json!({
                "kind": fault.short(),
                "table": kind,
                "chain": about,
                "why": fault.to_string(),
                "fix": fix(fault),
                "commands": fault.commands(),
                "note": fault.note(),
            })
        };
        let findings = one.faults.iter().map(lost).chain(one.findings.iter().map(row));
        json!({
            "network": one.network,
            "bridge": one.bridge,
            "findings": findings.collect::<Vec<_>>(),
        })
    };
    let bridges: Vec<_> = checked.iter().map(bridge).collect();
    json!({
        "version": CHECK_VERSION,
        "bridges": bridges,
        "ports": firewall_ports::as_json(&ports.ports),
        "guard": ports.guard,
    })
}

fn as_text(checked: &[Checked]) -> String {
    let mut text = String::new();
    for one in checked {
        let place = match &one.network {
            Some(network) => format!("network {network} ({})", one.bridge),
            None => format!("bridge {}", one.bridge),
        };
        if is_clean(one) {
            text.push_str(&format!("{place}: nothing stops its guests\n"));
        }
        for fault in &one.faults {
            let (fix, note) = (fix(fault), fault.note());
            text.push_str(&format!("{place}: {fault}\n  fix:  {fix}\n  note: {note}\n"));
        }
        for found in &one.findings {
            text.push_str(&format!(
                "{place}: {}, chain {}: {}\n  fix:  {}\n  note: {}\n",
                found.table,
                found.chain,
                found.why,
                found.fix(),
                hint::with_files(found.note.clone())
            ));
        }
    }
    text
}

/// Returns the commands that mend a fault, as a line for a shell.
fn fix(fault: &Fault) -> String {
    let lines: Vec<_> = fault.commands().iter().map(shell_words::join).collect();
    lines.join(" && ")
}
