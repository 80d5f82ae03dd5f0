//! The part of `netlaunch firewall check` about ports: finds the ports whose filters are not in
//! force.

use std::path::Path;

use serde_json::{Value, json};

use super::environment::Environment;
use super::nwfilter;
use super::nwfilter_error::NwfilterError;
use crate::firewall::RulesKnown;
use crate::nwfilter::port::{BindingError, PortProblem};
use crate::types::facts::Problem;
use crate::types::{InterfaceName, error_text};

/// The findings about ports.
#[derive(Debug, Default)]
pub(super) struct PortFindings {
    /// The ports whose filters are not in force.
    pub(super) ports: Vec<PortProblem>,
    /// Why the guard of ports is not in force, and the fix.
    pub(super) guard: Option<Problem>,
}

impl PortFindings {
    /// Returns whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.guard.is_none()
    }
}

/// Returns the ports whose filters are not in force, on these bridges or, if `bridges` is empty, on
/// all. A port whose bridge is not known is always included. If the ports cannot be read, the
/// function warns and returns none, so that the rest of the check goes on. The guard of ports is
/// checked for any bridges.
pub(super) async fn problems(
    config_dir: &Path,
    environment: &Environment,
    bridges: &[InterfaceName],
) -> PortFindings {
    let found = async {
        let bindings = nwfilter::bindings(config_dir, environment)?;
        let (live, damaged) = match bindings.list_all() {
            // This network namespace has no ports with filters.
            Err(BindingError::OtherNamespace(_)) => return Ok(PortFindings::default()),
            all => all?,
        };
        damaged.iter().for_each(|one| tracing::warn!("{}", error_text(&one.error)));
        let guard = match bindings.missing_guard().await {
            Ok(missing) => missing.map(|why| Problem::new(why, "netlaunch firewall reload")),
            Err(error) => {
                tracing::warn!("cannot check the guard of ports: {}", error_text(&error));
                None
            }
        };
        let ports = bindings.not_in_force(live, None, RulesKnown::Nothing).await?;
        Ok::<_, NwfilterError>(PortFindings { ports, guard })
    };
    let mut found = found.await.unwrap_or_else(|error| {
        tracing::warn!("cannot check the filters of ports: {}", error_text(&error));
        PortFindings::default()
    });
    let of = |port: &PortProblem| port.check.bridge.as_ref().is_none_or(|is| bridges.contains(is));
    found.ports.retain(|port| bridges.is_empty() || of(port));
    found
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
pub(super) fn as_text(found: &PortFindings) -> String {
    let mut text = String::new();
    if let Some(Problem { why, fix, .. }) = &found.guard {
        text.push_str(&format!(
            "guard of ports: ports without a filter may be open: {why}\n  fix:  {fix}\n"
        ));
    }
    for port in &found.ports {
        for problem in &port.check.problems {
            text.push_str(&format!(
                "port {} (filter {}): not in force: {}\n  fix:  {}\n",
                port.port, port.filter, problem.why, problem.fix
            ));
        }
    }
    text
}
