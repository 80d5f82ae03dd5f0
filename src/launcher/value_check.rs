//! Checks the parts of a request that have no type of their own.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::error::LaunchError;
use super::plan::{Command, NicRequest, Request};

/// The reason why a text cannot be a part of a command line.
const NUL: &str = "it holds a NUL byte, at which the text would end";
/// The reason why the library refuses a NIC on a bridge or a network. Only the command line finds
/// the facts about bridges, and gives a launch the maker of its ports.
const NO_PORTS: &str = "this library makes no port of a bridge or a network: use passt or slirp, \
    or make a tap and name it in QEMU's arguments";

/// Checks that the library can carry the request out.
///
/// # Errors
/// QEMU's command line cannot be executed, or a NIC is on a bridge.
pub(super) fn check_request(request: &Request) -> Result<(), LaunchError> {
    if let Some(command) = &request.command {
        check_command(command)?;
    }
    let mut nics = std::iter::once(&request.nic).chain(&request.nics);
    if nics.any(NicRequest::is_on_bridge) {
        return Err(invalid("NIC", NO_PORTS));
    }
    Ok(())
}

fn check_command(command: &Command) -> Result<(), LaunchError> {
    let has_nul = |text: &OsString| text.as_bytes().contains(&0);
    if command.program.is_empty() {
        return Err(invalid("QEMU program", "it is empty: name a program or its path"));
    }
    if has_nul(&command.program) {
        return Err(invalid("QEMU program", NUL));
    }
    if command.args.iter().any(has_nul) {
        return Err(invalid("QEMU argument", NUL));
    }
    Ok(())
}

/// Returns the error of a value that has no type of its own.
pub(super) fn invalid(what: &'static str, why: &'static str) -> LaunchError {
    LaunchError::Value { what, source: why.into() }
}
