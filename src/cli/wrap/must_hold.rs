//! Decides whether a call may run without netlaunch's part.
//!
//! A stand-in is never worse than QEMU, so it runs the caller's line untouched when its own part
//! fails. That must not drop what the user relies on: an option of a call by hand, and the setting
//! that keeps guests from the host's loopback services.

use super::super::args::LaunchArgs;
use super::super::configuration;
use super::super::environment::Environment;

/// Returns the setting that must hold, in words; `None` if the caller's line may run untouched.
pub(super) fn must_hold(
    options: Option<&LaunchArgs>,
    environment: &Environment,
) -> Option<&'static str> {
    if options.is_some_and(LaunchArgs::has_options) {
        return Some("the options of wrap");
    }
    let wrap = configuration(environment).ok()?.wrap?;
    (wrap.host_loopback == Some(false)).then_some("host_loopback = false in netlaunch.conf")
}
