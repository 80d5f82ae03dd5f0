//! Decides whether a call may run without netlaunch's part.
//!
//! A stand-in is never worse than QEMU, so it runs the caller's line untouched when its own part
//! fails. That must not drop what the user relies on: an option of a call by hand, and the setting
//! that keeps guests from the host's loopback services.

use super::super::args::LaunchArgs;
use super::super::config::Config;

/// Returns the setting that must hold, in words; `None` if the caller's line may run untouched.
/// `options` are those of a call by hand, and `config` the settings, if the file can be used.
pub(super) fn must_hold(
    options: Option<&LaunchArgs>,
    config: Option<&Config>,
) -> Option<&'static str> {
    if options.is_some_and(LaunchArgs::has_options) {
        return Some("the options of wrap");
    }
    let wrap = config?.wrap.as_ref()?;
    (wrap.host_loopback == Some(false)).then_some("host_loopback = false in netlaunch.conf")
}
