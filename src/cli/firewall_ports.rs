//! The part of `netlaunch firewall check` about ports: finds the ports whose filters are not in
//! force.

use std::path::Path;

use serde_json::{Value, json};

use super::environment::Environment;
use super::nwfilter;
use super::nwfilter_error::NwfilterError;
use crate::firewall::RulesKnown;
use crate::nwfilter::port::{BindingError, PortProblem};
use crate::types::{InterfaceName, error_text};

/// Returns the ports whose filters are not in force, on these bridges or, if `bridges` is empty, on
/// all. A port whose bridge is not known is always included. If the ports cannot be read, the
/// function warns and returns none, so that the rest of the check goes on.
pub(super) async fn problems(
    config_dir: &Path,
    environment: &Environment,
    bridges: &[InterfaceName],
) -> Vec<PortProblem> {
    let found = async {
        let bindings = nwfilter::bindings(config_dir, environment)?;
        let (live, damaged) = match bindings.list_all() {
            // This network namespace has no ports with filters.
            Err(BindingError::OtherNamespace(_)) => return Ok(Vec::new()),
            all => all?,
        };
        damaged.iter().for_each(|one| tracing::warn!("{}", error_text(&one.error)));
        Ok::<_, NwfilterError>(bindings.not_in_force(live, RulesKnown::Nothing).await?)
    };
    let mut ports = found.await.unwrap_or_else(|error| {
        tracing::warn!("cannot check the filters of ports: {}", error_text(&error));
        Vec::new()
    });
    let of = |port: &PortProblem| port.check.bridge.as_ref().is_none_or(|is| bridges.contains(is));
    ports.retain(|port| bridges.is_empty() || of(port));
    ports
}

/// Returns the ports as JSON.
pub(super) fn as_json(ports: &[PortProblem]) -> Value {
    let row = |port: &PortProblem| {
        json!({
            "port": port.port,
            "filter": port.filter,
            "bridge": port.check.bridge,
            "state": port.check.state,
            "problems": port.check.problems,
        })
    };
    Value::Array(ports.iter().map(row).collect())
}

/// Returns the ports as lines for people.
pub(super) fn as_text(ports: &[PortProblem]) -> String {
    let mut text = String::new();
    for port in ports {
        for problem in &port.check.problems {
            text.push_str(&format!(
                "port {} (filter {}): not in force: {}\n  fix:  {}\n",
                port.port, port.filter, problem.why, problem.fix
            ));
        }
    }
    text
}
