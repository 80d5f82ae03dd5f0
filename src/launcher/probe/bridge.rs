//! What bridged networks would need: the right to make links, the tap device, QEMU's helper and
//! its access control list.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use nix::libc;

use crate::facts::{Acl, AclRule, AclState, Bridge, Problem};
use crate::input::{self, Pipes};
use crate::process::has_file_capabilities;

/// Where distributions put QEMU's bridge helper: Debian; Fedora and SUSE; Arch and Alpine.
const HELPERS: [&str; 3] = [
    "usr/lib/qemu/qemu-bridge-helper",
    "usr/libexec/qemu-bridge-helper",
    "usr/lib/qemu-bridge-helper",
];

/// The helper's access control list, where QEMU is built for /etc (all distributions).
const ACL: &str = "etc/qemu/bridge.conf";

/// The most bytes of an access control list.
const MAX_BYTES: u64 = 1 << 20;

/// How deep files may include others: the helper has no limit, and a circle is its end.
const MAX_DEPTH: usize = 8;

/// Looks for all of it. `root` stands before every path.
pub(super) fn bridge(root: &Path) -> Bridge {
    let helper =
        HELPERS.map(|helper| root.join(helper)).into_iter().find(|path: &PathBuf| path.is_file());
    Bridge {
        net_admin: caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN)
            .unwrap_or(false),
        tun: opens(&root.join("dev/net/tun")),
        helper_problem: helper.as_deref().and_then(unprivileged),
        helper,
        acl: acl(&root.join(ACL), root),
    }
}

/// Why the helper has no privilege to make taps with, unless it has.
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

/// Reads an access control list.
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
                    // The helper goes on without it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    result => result?,
                }
            }
            // Comments; and what the helper stops at, with words of its own.
            _ => {}
        }
    }
    Ok(())
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
    fn a_helper_needs_a_privilege() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(HELPERS[0]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        let problem = bridge(root.path()).helper_problem.unwrap();
        assert!(problem.fix.contains(&format!("chmod u+s {}", path.display())), "{problem:?}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
        let ours = fs::metadata(&path).unwrap().uid() != 0;
        assert_eq!(bridge(root.path()).helper_problem.is_some(), ours, "setuid, but to whom");
    }

    #[test]
    fn the_list_is_read_with_what_it_includes() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(bridge(root.path()).acl.state, AclState::Missing);
        let dir = root.path().join("etc/qemu");
        fs::create_dir_all(&dir).unwrap();
        let text =
            "# bridges\n\n  allow br0 \ninclude /etc/qemu/more.conf\ninclude /none\ndeny\tall\n";
        fs::write(dir.join("bridge.conf"), text).unwrap();
        fs::write(dir.join("more.conf"), "allow br1\ninclude /etc/qemu/more.conf\nallow\n")
            .unwrap();
        let acl = bridge(root.path()).acl;
        assert_eq!((acl.state, acl.file), (AclState::Read, dir.join("bridge.conf")));
        let said: Vec<_> = acl.rules.iter().map(|r| (r.allow, r.bridge.as_deref())).collect();
        assert_eq!(said.first(), Some(&(true, Some("br0"))));
        assert_eq!(said.get(1), Some(&(true, Some("br1"))));
        assert_eq!(said.last(), Some(&(false, None)));
        fs::remove_file(dir.join("bridge.conf")).unwrap();
        fs::create_dir(dir.join("bridge.conf")).unwrap();
        assert_eq!(bridge(root.path()).acl.state, AclState::Unreadable);
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
