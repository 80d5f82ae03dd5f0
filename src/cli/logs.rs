//! `netlaunch logs`: prints the logs of a launch that runs, or of the last run of a launch.
//!
//! Each file has a heading. The text may have words of the guest, so control characters are
//! escaped.

use std::io;

use super::args::LogsArgs;
use super::environment::Environment;
use super::running_launch::{LaunchNameError, find};
use super::{Failure, print_text};
use crate::launcher::LaunchDirError;

/// Prints the logs of a launch.
pub(super) fn logs(args: &LogsArgs, environment: &Environment) -> Result<u8, Failure> {
    let root = environment.launch_root();
    let record = match find(&args.launch, environment) {
        Ok(record) => Some(record),
        Err(Failure::LaunchName(LaunchNameError::NoLaunch(_))) => None,
        Err(failure) => return Err(failure),
    };
    let (dir, name) = match &record {
        Some(record) => (Some(&*record.dir), record.name.as_str()),
        None => (None, args.launch.as_str()),
    };
    let logs = match root.logs(dir, name) {
        Err(LaunchDirError::Root { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(LaunchNameError::NoLogs(args.launch.clone()).into());
        }
        logs => logs?,
    };
    let text = |(name, text): &(String, Vec<u8>)| {
        let text = String::from_utf8_lossy(text);
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        format!("==> {name} <==\n{text}{end}")
    };
    print_text(&logs.iter().map(text).collect::<Vec<_>>().join("\n"))?;
    Ok(0)
}
