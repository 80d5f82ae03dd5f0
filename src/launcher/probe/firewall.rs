//! Finds the programs of the firewall tools.
//!
//! The probe only looks for the files. A tool is tried by the code that uses it, because a trial
//! needs root.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::sys::program::find;
use crate::types::facts::Firewall;

/// The directories of the tools, which the PATH of ordinary users often does not contain.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Looks for the tools in `path`, then in the system's directories.
pub(super) fn probe(path: &[PathBuf]) -> Firewall {
    let dirs: Vec<_> = path.iter().cloned().chain(SYSTEM.map(PathBuf::from)).collect();
    let tool = |name: &str| find(OsStr::new(name), &dirs).found();
    Firewall { nft: tool("nft"), iptables: tool("iptables"), ebtables: tool("ebtables") }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Host;
    use super::*;

    #[test]
    fn a_tool_in_path_is_preferred_to_the_system_directories() {
        let host = Host::new();
        let nft = host.script("nft", "exit 0");
        assert_eq!(probe(&host.prober.path).nft, Some(nft));
    }
}
