//! Where the firewall tools are. Whether they work is tried only where they are used.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::program::find;
use crate::facts::Firewall;

/// Directories that hold the tools although the PATH of ordinary users leaves them out.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Looks for the tools in `path`, then in the system's directories.
pub(super) fn firewall(path: &[PathBuf]) -> Firewall {
    let dirs: Vec<_> = path.iter().cloned().chain(SYSTEM.map(PathBuf::from)).collect();
    let tool = |name: &str| find(OsStr::new(name), &dirs).found();
    Firewall { nft: tool("nft"), iptables: tool("iptables"), ebtables: tool("ebtables") }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Host;
    use super::*;

    #[test]
    fn the_path_comes_first() {
        let host = Host::new();
        let nft = host.script("nft", "exit 0");
        assert_eq!(firewall(&host.prober.path).nft, Some(nft));
    }
}
