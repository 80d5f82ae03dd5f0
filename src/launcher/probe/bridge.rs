//! Finds the means for bridged networks: CAP_NET_ADMIN, the tap device, QEMU's bridge helper and
//! its access control list.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use nix::libc;

use crate::sys::input::{self, Pipes};
use crate::sys::privileges::has_file_capabilities;
use crate::types::facts::{Acl, AclRule, AclState, BridgeAccess, KernelFeature, Problem};

/// The paths of QEMU's bridge helper: on Debian; on Fedora and SUSE; on Arch and Alpine.
const HELPERS: [&str; 3] = [
    "usr/lib/qemu/qemu-bridge-helper",
    "usr/libexec/qemu-bridge-helper",
    "usr/lib/qemu-bridge-helper",
];

/// The path of the helper's access control list; all distributions build QEMU for /etc.
const ACL: &str = "etc/qemu/bridge.conf";

/// The size of the largest access control list that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The deepest nesting of `include` lines.
///
/// The helper itself has no limit, and a file that includes itself makes it fail.
const MAX_DEPTH: usize = 8;

/// Probes all of these means. Every path is below `root`.
pub(super) fn probe(root: &Path) -> BridgeAccess {
    let helper =
        HELPERS.map(|helper| root.join(helper)).into_iter().find(|path: &PathBuf| path.is_file());
    BridgeAccess {
        net_admin: caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN)
            .unwrap_or(false),
        tun: open(&root.join("dev/net/tun")).is_ok(),
        vhost_net: vhost_net(open(&root.join("dev/vhost-net"))),
        helper_problem: helper.as_deref().and_then(unprivileged),
        helper,
        acl: acl(&root.join(ACL), root),
    }
}

/// Returns the problem of a helper that has no privilege to make taps.
fn unprivileged(helper: &Path) -> Option<Problem> {
    let setuid = fs::metadata(helper).is_ok_and(|m| m.mode() & 0o4000 != 0 && m.uid() == 0);
    if setuid || has_file_capabilities(helper) {
        return None;
    }
    let helper = helper.display();
    Some(Problem::new(
        format!("{helper} is neither setuid root nor has cap_net_admin"),
        format!("have root run 'chmod u+s {helper}', which lets users join the bridges it allows"),
    ))
}

/// Reads an access control list and the files that it includes.
fn acl(file: &Path, root: &Path) -> Acl {
    let mut rules = Vec::new();
    let state = match read_acl(file, root, 0, &mut rules) {
        Ok(()) => AclState::Read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => AclState::Missing,
        Err(_) => AclState::Unreadable,
    };
    Acl { file: file.to_owned(), state, rules }
}

fn read_acl(file: &Path, root: &Path, depth: usize, rules: &mut Vec<AclRule>) -> io::Result<()> {
    let list = input::read(file, MAX_BYTES, Pipes::Refused)?;
    for line in String::from_utf8_lossy(&list).lines() {
        let (word, rest) = line.trim().split_once(char::is_whitespace).unwrap_or_default();
        let name = rest.trim();
        match word {
            "allow" | "deny" => {
                let bridge = Some(name.to_owned()).filter(|name| name != "all");
                rules.push(AclRule { allow: word == "allow", bridge });
            }
            "include" if depth < MAX_DEPTH => {
                let inner = root.join(name.trim_start_matches('/'));
                match read_acl(&inner, root, depth + 1, rules) {
                    // The helper ignores an included file that does not exist.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    result => result?,
                }
            }
            // A comment, or a line that makes the helper fail with its own error.
            _ => {}
        }
    }
    Ok(())
}

/// Opens a device for reading and writing.
///
/// Opening the tap device has no effect until the process requests an interface, nor has opening
/// vhost-net until the process becomes its owner. The kernel loads the module if it can.
fn open(device: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(device).map(drop)
}

/// Decides from the attempt to open its device whether the kernel has vhost-net for this user.
fn vhost_net(opened: io::Result<()>) -> KernelFeature {
    let (why, fix) = match opened {
        Ok(()) => {
            let why = "/dev/vhost-net can be opened".to_owned();
            return KernelFeature { usable: true, why, fix: None };
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => (
            "/dev/vhost-net is closed to this user".to_owned(),
            "run as root: netlaunch then makes the tap, too",
        ),
        Err(error) => (
            format!("/dev/vhost-net cannot be opened: {error}"),
            "load the kernel module with 'modprobe vhost_net'; without it, QEMU moves the frames",
        ),
    };
    KernelFeature { usable: false, why, fix: Some(fix.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_first_existing_helper_of_the_list_is_used() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!((probe(root.path()).helper, probe(root.path()).tun), (None, false));
        for helper in HELPERS.iter().rev() {
            let path = root.path().join(helper);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            assert_eq!(probe(root.path()).helper, Some(path));
        }
    }

    #[test]
    fn a_helper_that_is_not_setuid_root_is_a_problem() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(HELPERS[0]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        let problem = probe(root.path()).helper_problem.unwrap();
        assert!(problem.fix.contains(&format!("chmod u+s {}", path.display())), "{problem:?}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
        let not_root = fs::metadata(&path).unwrap().uid() != 0;
        assert_eq!(probe(root.path()).helper_problem.is_some(), not_root, "setuid to its owner");
    }

    #[test]
    fn an_access_control_list_is_read_with_the_files_that_it_includes() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(probe(root.path()).acl.state, AclState::Missing);
        let dir = root.path().join("etc/qemu");
        fs::create_dir_all(&dir).unwrap();
        let text =
            "# bridges\n\n  allow br0 \ninclude /etc/qemu/more.conf\ninclude /none\ndeny\tall\n";
        fs::write(dir.join("bridge.conf"), text).unwrap();
        fs::write(dir.join("more.conf"), "allow br1\ninclude /etc/qemu/more.conf\nallow\n")
            .unwrap();
        let acl = probe(root.path()).acl;
        assert_eq!((acl.state, acl.file), (AclState::Read, dir.join("bridge.conf")));
        let rules: Vec<_> = acl.rules.iter().map(|r| (r.allow, r.bridge.as_deref())).collect();
        assert_eq!(rules.first(), Some(&(true, Some("br0"))));
        assert_eq!(rules.get(1), Some(&(true, Some("br1"))));
        assert_eq!(rules.last(), Some(&(false, None)));
        fs::remove_file(dir.join("bridge.conf")).unwrap();
        fs::create_dir(dir.join("bridge.conf")).unwrap();
        assert_eq!(probe(root.path()).acl.state, AclState::Unreadable);
    }

    #[test]
    fn a_device_is_usable_if_it_can_be_opened() {
        assert!(open(Path::new("/dev/null")).is_ok());
        let missing = vhost_net(open(Path::new("/dev/nonexistent")));
        assert!(!missing.usable && missing.why.contains("cannot be opened"), "{missing:?}");
    }

    #[test]
    fn net_admin_matches_the_effective_capabilities_in_proc() {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let effective = u64::from_str_radix(line.trim(), 16).unwrap();
        assert_eq!(probe(Path::new("/")).net_admin, effective & 1 << 12 != 0);
    }
}
