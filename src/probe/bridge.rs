//! What bridged networks would need: the right to make links, the tap device, QEMU's helper.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use nix::libc;

use crate::facts::Bridge;

/// Where distributions put QEMU's bridge helper: Debian; Fedora and SUSE; Arch and Alpine.
const HELPERS: [&str; 3] = [
    "usr/lib/qemu/qemu-bridge-helper",
    "usr/libexec/qemu-bridge-helper",
    "usr/lib/qemu-bridge-helper",
];

/// Looks for all three. `root` stands before every path.
pub(super) fn bridge(root: &Path) -> Bridge {
    Bridge {
        net_admin: caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN)
            .unwrap_or(false),
        tun: opens(&root.join("dev/net/tun")),
        helper: HELPERS
            .map(|helper| root.join(helper))
            .into_iter()
            .find(|path: &PathBuf| path.is_file()),
    }
}

/// Whether a device can be opened for reading and writing. For the tap device this has no effect
/// until an interface is asked for.
fn opens(device: &Path) -> bool {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(device).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_first_helper_in_order_is_taken() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!((bridge(root.path()).helper, bridge(root.path()).tun), (None, false));
        for helper in HELPERS.iter().rev() {
            let path = root.path().join(helper);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            assert_eq!(bridge(root.path()).helper, Some(path));
        }
    }

    #[test]
    fn a_device_that_opens() {
        assert!(opens(Path::new("/dev/null")));
        assert!(!opens(Path::new("/dev/nonexistent")));
    }

    #[test]
    fn the_capability_is_that_of_the_kernels_own_list() {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let effective = u64::from_str_radix(line.trim(), 16).unwrap();
        assert_eq!(bridge(Path::new("/")).net_admin, effective & 1 << 12 != 0);
    }
}
