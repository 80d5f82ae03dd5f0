//! Decides whether a call may run without netlaunch's part.
//!
//! A stand-in is never worse than QEMU, so it runs the caller's line untouched when its own part
//! fails. That must not drop what the user relies on: an option of a call by hand, and the setting
//! that keeps guests from the host's loopback services. A settings file that exists and cannot be
//! read, or is in a directory that another user can change, may have this setting. Without a file
//! there is nothing to hold.

use std::fs;
use std::io;
use std::path::Path;

use toml::{Table, Value};

use super::super::args::LaunchArgs;
use super::super::config::{Config, ConfigError, FILE_NAME, MAX_BYTES};
use crate::sys::input::{self, Pipes};

/// The setting that must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MustHold {
    /// An option of a call by hand.
    Options,
    /// `host_loopback = false` of the settings file.
    ClosedLoopback,
    /// The settings file cannot be read, for this reason, and may close the host's loopback
    /// services.
    Unknown(String),
}

impl MustHold {
    /// Returns the error of a call whose part of netlaunch failed for the reason `why`.
    pub(super) fn refusal(&self, why: &str) -> String {
        let setting = match self {
            MustHold::Options => "the options of wrap",
            MustHold::ClosedLoopback => "host_loopback = false in netlaunch.conf",
            MustHold::Unknown(unread) => {
                return format!(
                    "QEMU does not run, because netlaunch.conf may have host_loopback = false: {unread}"
                );
            }
        };
        format!("{setting} cannot hold, so QEMU does not run: {why}")
    }
}

/// Returns the setting that must hold; `None` if the caller's line may run untouched. `options` are
/// those of a call by hand, and `config` the settings.
pub(super) fn must_hold(
    options: Option<&LaunchArgs>,
    config: Result<&Config, &ConfigError>,
) -> Option<MustHold> {
    if options.is_some_and(LaunchArgs::has_options) {
        return Some(MustHold::Options);
    }
    let closes = match config {
        Ok(config) => config.wrap.as_ref().is_some_and(|wrap| wrap.host_loopback == Some(false)),
        Err(ConfigError::Content { path, .. }) => closes_despite_mistake(path),
        Err(ConfigError::Untrusted { dir, .. }) if is_absent(&dir.join(FILE_NAME)) => false,
        Err(error @ (ConfigError::Untrusted { .. } | ConfigError::Read { .. })) => {
            return Some(MustHold::Unknown(error.to_string()));
        }
    };
    closes.then_some(MustHold::ClosedLoopback)
}

/// Returns whether there is no file at `path`. A directory that this user cannot search may have
/// it.
fn is_absent(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Returns whether a settings file with a mistake closes the host's loopback services to stand-ins.
///
/// A mistake in another key must not open them. If the file is not TOML, its tables are not known,
/// and each line with the key counts.
fn closes_despite_mistake(path: &Path) -> bool {
    let Ok(bytes) = input::read(path, MAX_BYTES, Pipes::Refused) else { return false };
    let text = String::from_utf8_lossy(&bytes);
    match text.parse::<Table>() {
        Ok(table) => table
            .get("wrap")
            .and_then(|wrap| wrap.get("host_loopback"))
            .is_some_and(|value| *value != Value::Boolean(true)),
        Err(_) => text.lines().any(|line| line.trim_start().starts_with("host_loopback")),
    }
}
