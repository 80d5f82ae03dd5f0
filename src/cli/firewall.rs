//! `netlaunch firewall`: the rules of networks put back, and those of others that are in the way.

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::args::FirewallVerb;
use super::environment::Environment;
use super::follow;
use super::network::{NetworkError, driver};
use super::reload::reload;
use super::{Failure, print_json, print_text};
use crate::driver::Checked;
use crate::firewall::conflicts::Finding;

/// The version of what `check --json` prints, described by conf/schema/firewall-check.schema.json.
const CHECK_VERSION: u32 = 1;
/// Exit status of a check that found something.
const FOUND: u8 = 1;

/// Does what `netlaunch firewall` is asked for.
pub(super) fn firewall(
    verb: &FirewallVerb,
    environment: &Environment,
    runtime: impl FnOnce() -> Result<Runtime, Failure>,
) -> Result<u8, Failure> {
    let config_dir = environment.config_dir()?.ok_or(NetworkError::NoDirectory)?;
    match verb {
        FirewallVerb::Reload { follow: true } => {
            runtime()?.block_on(follow::follow(&config_dir, environment))?;
            Ok(0)
        }
        FirewallVerb::Reload { follow: false } => {
            let done = runtime()?.block_on(reload(&config_dir, environment))?;
            let text: String = done.iter().map(|what| format!("{what}\n")).collect();
            print_text(&text)?;
            Ok(0)
        }
        FirewallVerb::Check { json, bridges } => {
            let driver = driver(&config_dir, environment)?;
            let checked = runtime()?.block_on(driver.conflicts(bridges));
            let checked = checked.map_err(NetworkError::from)?;
            match json {
                true => print_json(&as_json(&checked))?,
                false => print_text(&as_text(&checked))?,
            }
            let found = checked.iter().any(|checked| !checked.findings.is_empty());
            Ok(if found { FOUND } else { 0 })
        }
    }
}

fn as_json(checked: &[Checked]) -> Value {
    let bridge = |one: &Checked| {
        let row = |found: &Finding| {
            json!({
                "table": found.table,
                "chain": found.chain,
                "why": found.why,
                "fix": found.fix(),
                "commands": found.commands,
                "note": found.note,
            })
        };
        json!({
            "network": one.network,
            "bridge": one.bridge,
            "findings": one.findings.iter().map(row).collect::<Vec<_>>(),
        })
    };
    let bridges: Vec<_> = checked.iter().map(bridge).collect();
    json!({ "version": CHECK_VERSION, "bridges": bridges })
}

fn as_text(checked: &[Checked]) -> String {
    let mut text = String::new();
    for one in checked {
        let who = match &one.network {
            Some(network) => format!("network {network} ({})", one.bridge),
            None => format!("bridge {}", one.bridge),
        };
        if one.findings.is_empty() {
            text.push_str(&format!("{who}: nothing stops its guests\n"));
        }
        for found in &one.findings {
            text.push_str(&format!(
                "{who}: {}, chain {}: {}\n  fix:  {}\n  note: {}\n",
                found.table,
                found.chain,
                found.why,
                found.fix(),
                found.note
            ));
        }
    }
    text
}
