//! `netlaunch network info`: the state of one network.

use std::fmt::Write;

use serde_json::{Value, json};

use super::network_error::NetworkError;
use super::{Failure, network_leases, print_json, print_text, runtime};
use crate::network::manager::{Fault, Manager, ManagerError, NetworkLocation, NetworkStatus};
use crate::network::{Definition, Network, NetworkName, NetworkStore};
use crate::types::error_text;

/// The version of the JSON output, described by conf/schema/network-info.schema.json.
const INFO_VERSION: u32 = 1;

/// The facts about a network.
struct Facts {
    /// `None` if no definition can be used.
    definition: Option<Definition>,
    status: Option<NetworkStatus>,
    elsewhere: bool,
    faults: Vec<Fault>,
    pid: Option<i32>,
    /// `None` if they cannot be read, and for a network that does not run here.
    leases: Option<usize>,
    ports: Option<usize>,
}

/// Prints the state of a network.
pub(super) fn info(
    manager: &Manager,
    store: &NetworkStore,
    name: &NetworkName,
    json: bool,
) -> Result<(), Failure> {
    let facts = facts(manager, store, name)?;
    // An active network has the values of its start, and not those of a later definition.
    let started = facts.status.as_ref().and_then(NetworkStatus::network);
    let defined = facts.definition.as_ref().map(|definition| definition.network.clone());
    let Some(network) = started.or(defined) else {
        return Err(NetworkError::from(ManagerError::Inactive(name.clone())).into());
    };
    if json { print_json(&as_json(&facts, &network)) } else { print_text(&text(&facts, &network)) }
}

fn facts(
    manager: &Manager,
    store: &NetworkStore,
    name: &NetworkName,
) -> Result<Facts, NetworkError> {
    let active = manager.active()?;
    let damaged = manager.damaged()?.into_iter().find(|one| one.name.as_ref() == Some(name));
    if let Some(damaged) = damaged {
        return Err(ManagerError::from(damaged.error).into());
    }
    let status = active.into_iter().find(|status| status.name == *name);
    let definition = match (store.get(name), &status) {
        (Ok(definition), _) => Some(definition),
        (Err(error), None) => return Err(error.into()),
        (Err(_), Some(_)) => None,
    };
    let elsewhere =
        status.as_ref().is_some_and(|status| status.location() != NetworkLocation::Here);
    let mut facts = Facts {
        definition,
        elsewhere,
        faults: Vec::new(),
        pid: None,
        leases: None,
        ports: None,
        status,
    };
    let Some(status) = facts.status.as_ref().filter(|_| !elsewhere) else { return Ok(facts) };
    let Ok(runtime) = runtime() else { return Ok(facts) };
    let unknown = |what: &str, error: &dyn std::error::Error| {
        tracing::warn!("{what} of the network {name} are not known: {}", error_text(&error));
    };
    match runtime.block_on(manager.faults_of(name)) {
        Ok(faults) => facts.faults = faults,
        Err(error) => unknown("the lost parts", &error),
    }
    match runtime.block_on(manager.ports(status)) {
        Ok(ports) => facts.ports = Some(ports.ports.len()),
        Err(error) => unknown("the ports", &error),
    }
    match network_leases::read(status) {
        Ok(leases) => facts.leases = Some(leases.len()),
        Err(error) => unknown("the leases", &error),
    }
    facts.pid = status.server().map(|server| server.pid());
    Ok(facts)
}

fn as_json(facts: &Facts, network: &Network) -> Value {
    let status = facts.status.as_ref();
    let fault = |fault: &Fault| json!({ "kind": fault.short(), "why": fault.to_string() });
    json!({
        "version": INFO_VERSION,
        "name": network.name,
        "uuid": network.uuid.to_string(),
        "state": if status.is_some() { "active" } else { "inactive" },
        "elsewhere": facts.elsewhere,
        "autostart": facts.definition.as_ref().is_some_and(|definition| definition.autostart),
        "persistent": facts.definition.is_some(),
        "changed": changed(facts),
        "bridge": network.bridge.name,
        "mode": network.forward.name(),
        "mac": network.mac,
        "addresses": network.ips.iter().map(|ip| ip.net).collect::<Vec<_>>(),
        "mtu": network.mtu,
        "domain": network.domain.as_ref().map(|domain| domain.name.to_string()),
        "firewall_backend": status.and_then(|status| status.backend),
        "dnsmasq_pid": facts.pid,
        "leases": facts.leases,
        "ports": facts.ports,
        "faults": facts.faults.iter().map(fault).collect::<Vec<_>>(),
    })
}

/// Returns whether the definition differs from the network that runs.
fn changed(facts: &Facts) -> bool {
    let started = facts.status.as_ref().and_then(NetworkStatus::network);
    match (&facts.definition, started) {
        (Some(definition), Some(started)) => definition.network != started,
        _ => false,
    }
}

fn text(facts: &Facts, network: &Network) -> String {
    let status = facts.status.as_ref();
    let yes = |value: bool| if value { "yes" } else { "no" }.to_owned();
    let count = |count: Option<usize>| count.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let state = match status {
        Some(_) if facts.elsewhere => "active in another network namespace",
        Some(_) if changed(facts) => "active, differs from the definition",
        Some(_) => "active",
        None => "inactive",
    };
    let addresses: Vec<String> = network.ips.iter().map(|ip| ip.net.to_string()).collect();
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let rows = [
        ("Name", network.name.to_string()),
        ("UUID", network.uuid.to_string()),
        ("State", state.to_owned()),
        ("Autostart", yes(facts.definition.as_ref().is_some_and(|one| one.autostart))),
        ("Bridge", network.bridge.name.to_string()),
        ("Mode", network.forward.name().to_owned()),
        ("Addresses", or_dash(addresses.join(" "))),
        ("MTU", network.mtu.map_or_else(|| "-".to_owned(), |mtu| mtu.to_string())),
        ("Domain", network.domain.as_ref().map_or("-".to_owned(), |one| one.name.to_string())),
        (
            "Firewall",
            status
                .and_then(|status| status.backend)
                .map_or_else(|| "-".to_owned(), |backend| backend.to_string()),
        ),
        ("dnsmasq", facts.pid.map_or_else(|| "-".to_owned(), |pid| format!("process {pid}"))),
        ("Leases", count(facts.leases)),
        ("Ports", count(facts.ports)),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<10} {value}");
    }
    for fault in &facts.faults {
        let _ = writeln!(text, "{:<10} {fault}", "Fault");
    }
    text
}
