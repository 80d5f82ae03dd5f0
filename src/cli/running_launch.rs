//! Finds a launch that runs, by the name that a command line has.

use std::path::PathBuf;

use super::Failure;
use super::environment::Environment;
use crate::launcher::record::{Record, running};
use crate::types::LaunchName;

/// Why no launch is meant. Each one is a mistake of the caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchNameError {
    #[error("no launch of this user has the name {0}; netlaunch ps shows their names")]
    NoLaunch(LaunchName),
    #[error(
        "several launches have the name {name}: use the name of a launch directory: {}",
        names(dirs)
    )]
    Ambiguous { name: LaunchName, dirs: Vec<PathBuf> },
    #[error(
        "no launch of this user has the name {0}, and no logs of an earlier one are kept: only a launch with a name leaves its logs, for seven days"
    )]
    NoLogs(LaunchName),
}

fn names(dirs: &[PathBuf]) -> String {
    let name = |dir: &PathBuf| dir.file_name().unwrap_or_default().display().to_string();
    dirs.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Finds the launch with this name, or with a launch directory of this name.
///
/// # Errors
/// [`LaunchNameError`]: there is none or several.
pub(super) fn find(name: &LaunchName, environment: &Environment) -> Result<Record, Failure> {
    let mut found = running(&environment.launch_root())?;
    let is_dir = |record: &Record| record.dir.file_name().is_some_and(|dir| dir == name.as_str());
    found.retain(|record| record.name == name.as_str() || is_dir(record));
    let Some(record) = found.pop() else {
        return Err(LaunchNameError::NoLaunch(name.clone()).into());
    };
    if !found.is_empty() {
        let dirs = found.into_iter().chain([record]).map(|record| record.dir).collect();
        return Err(LaunchNameError::Ambiguous { name: name.clone(), dirs }.into());
    }
    Ok(record)
}
