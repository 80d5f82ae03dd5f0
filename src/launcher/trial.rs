//! Tries passt out, for `netlaunch probe`.
//!
//! passt starts as in a launch, with a launch directory, its user, its namespaces and its socket,
//! and ends at once. The steps are those of a launch, so that the probe promises nothing that a
//! launch cannot have.

use super::context::LaunchContext;
use super::error::LaunchError;
use super::start::start;
use crate::launcher::plan::{Backend, Command, NicRequest, Request, plan};
use crate::types::facts::Facts;

/// Starts passt for `request` and ends it again.
///
/// # Errors
/// Why a launch would not have passt. Nothing is left running and no file is left.
pub(crate) async fn try_passt(
    request: &Request,
    facts: &Facts,
    context: &LaunchContext,
) -> Result<(), LaunchError> {
    // A launch with a QEMU command may choose another transport than one without.
    let command = facts.qemu.path.as_ref();
    let command = command.map(|path| Command { program: path.into(), args: Vec::new() });
    let nic = NicRequest { backend: Some(Backend::Passt), ..request.nic.clone() };
    let request = Request { nic, command, ..request.clone() };
    let mut plan = plan(&request, facts, &context.launch_ids(&request)?)?;
    plan.qemu.program = None;
    start(plan, context).await?.stop().await;
    Ok(())
}
