//! Makes a plan and shows it.

use serde_json::Value;

use super::error::CallError;
use super::request;
use crate::launcher::plan;

/// Returns the plan for a request as `netlaunch --print=json` shows it; starts nothing. A thread of
/// the launcher does the work, so no tokio runtime runs in the caller's.
///
/// # Errors
/// There is no plan for the request on this host.
pub(super) fn plan(request: &str) -> Result<Value, CallError> {
    Ok(plan::json(&request::launcher(request)?.plan_blocking()?))
}
