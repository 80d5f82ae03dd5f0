//! Plans QEMU's QMP socket, through which a guest that runs gets further NICs.
//!
//! netlaunch makes the listening socket in the launch directory, and QEMU inherits it. So QEMU
//! needs no access to the directory, whichever user it runs as, and the socket has mode 0600 before
//! a process can connect.
//!
//! QEMU reads the monitor from a configuration file, an inherited file in memory. `-mon` and `-qmp`
//! would take away the monitor that QEMU makes by default: with `-nographic`, the caller's terminal
//! would lose its monitor (measured with 10.0.2).

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::draft::MAX_SOCKET_PATH;
use super::model::NicPlan;

/// The name of the socket in a launch directory.
const SOCKET: &str = "qmp.sock";
/// The start of the id of the monitor and of its character device; the name of the launch directory
/// follows. If netlaunch runs a stand-in of netlaunch, QEMU has two such sockets.
const ID: &str = "netlaunch-qmp";

/// QEMU's QMP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QmpPlan {
    /// The path of the socket.
    pub socket: PathBuf,
    /// The descriptor number at which QEMU expects the listening socket.
    pub socket_fd: RawFd,
    /// The descriptor number at which QEMU expects the configuration file.
    pub config_fd: RawFd,
}

impl QmpPlan {
    /// Plans the socket in the launch directory `dir`, with two of the `free` descriptor numbers
    /// that no NIC has. `None` if the path is too long for a socket, or no number is left.
    pub(super) fn new(dir: &Path, free: &[RawFd], nics: &[NicPlan]) -> Option<Self> {
        let socket = dir.join(SOCKET);
        if socket.as_os_str().as_bytes().len() > MAX_SOCKET_PATH {
            return None;
        }
        let is_used = |number: &RawFd| {
            nics.iter().any(|nic| {
                let of_tap =
                    nic.bridge.iter().flat_map(|tap| tap.queue_fds.iter().chain(&tap.vhost_fds));
                nic.fd.iter().chain(of_tap).any(|used| used == number)
            })
        };
        let mut left = free.iter().copied().filter(|number| !is_used(number));
        Some(QmpPlan { socket, socket_fd: left.next()?, config_fd: left.next()? })
    }

    /// Returns the arguments that netlaunch adds behind all others.
    pub fn args(&self) -> [OsString; 2] {
        ["-readconfig".into(), format!("/dev/fd/{}", self.config_fd).into()]
    }

    /// Returns the text of the configuration file.
    pub fn config(&self) -> String {
        let dir = self.socket.parent().and_then(Path::file_name).unwrap_or_default();
        let dir = dir.to_string_lossy();
        let plain = dir.strip_prefix("launch-").unwrap_or_default();
        let plain: String = plain.chars().filter(char::is_ascii_alphanumeric).collect();
        let id = format!("{ID}-{plain}");
        format!(
            "[chardev \"{id}\"]\n  backend = \"socket\"\n  fd = \"{}\"\n  server = \"on\"\n  \
             wait = \"off\"\n[mon \"{id}\"]\n  chardev = \"{id}\"\n  mode = \"control\"\n",
            self.socket_fd
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_has_numbers_that_no_nic_has() {
        let plan = QmpPlan::new(Path::new("/run/n/launch-a"), &[3, 4, 5], &[]).unwrap();
        assert_eq!((plan.socket_fd, plan.config_fd), (3, 4));
        assert_eq!(plan.socket, Path::new("/run/n/launch-a/qmp.sock"));
        assert_eq!(plan.args(), ["-readconfig", "/dev/fd/4"]);
        assert_eq!(
            plan.config(),
            "[chardev \"netlaunch-qmp-a\"]\n  backend = \"socket\"\n  fd = \"3\"\n  server = \"on\"\n  \
             wait = \"off\"\n[mon \"netlaunch-qmp-a\"]\n  chardev = \"netlaunch-qmp-a\"\n  \
             mode = \"control\"\n"
        );
    }

    #[test]
    fn there_is_no_socket_without_numbers_or_with_a_long_path() {
        assert_eq!(QmpPlan::new(Path::new("/run"), &[3], &[]), None);
        let long = "x".repeat(MAX_SOCKET_PATH);
        assert_eq!(QmpPlan::new(Path::new(&long), &[3, 4], &[]), None);
    }
}
