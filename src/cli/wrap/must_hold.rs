//! Decides whether a call may run without netlaunch's part.
//!
//! A stand-in is never worse than QEMU, so it runs the caller's line untouched when its own part
//! fails. That must not drop what the user relies on: an option of a call by hand, and the setting
//! that keeps guests from the host's loopback services.

use std::path::Path;

use toml::{Table, Value};

use super::super::args::LaunchArgs;
use super::super::config::{Config, ConfigError, MAX_BYTES};
use crate::sys::input::{self, Pipes};

/// Returns the setting that must hold, in words; `None` if the caller's line may run untouched.
/// `options` are those of a call by hand, and `config` the settings.
pub(super) fn must_hold(
    options: Option<&LaunchArgs>,
    config: Result<&Config, &ConfigError>,
) -> Option<&'static str> {
    if options.is_some_and(LaunchArgs::has_options) {
        return Some("the options of wrap");
    }
    let closes = match config {
        Ok(config) => config.wrap.as_ref().is_some_and(|wrap| wrap.host_loopback == Some(false)),
        Err(ConfigError::Content { path, .. }) => closes_despite_mistake(path),
        Err(_) => false,
    };
    closes.then_some("host_loopback = false in netlaunch.conf")
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
