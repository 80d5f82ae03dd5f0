//! Finds the dnsmasq program.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::sys::program::find;
use crate::types::facts::Problem;

/// Advice on how to install dnsmasq.
pub const INSTALL: &str =
    "install dnsmasq-base (Debian, Ubuntu) or dnsmasq (Fedora, Arch, SUSE, Alpine)";

/// Returns the path of dnsmasq, which networks start.
///
/// # Errors
/// Returns the reason why there is none.
pub fn find_dnsmasq(path: &[PathBuf]) -> Result<PathBuf, Problem> {
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let dirs: Vec<PathBuf> = path.iter().cloned().chain(system).collect();
    let name = OsStr::new("dnsmasq");
    let lookup = find(name, &dirs);
    match lookup.problem(name, INSTALL) {
        Some(problem) => Err(problem),
        None => Ok(lookup.found().unwrap_or_else(|| name.into())),
    }
}
