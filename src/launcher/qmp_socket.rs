//! Makes QEMU's QMP socket and the configuration file that names it.
//!
//! The socket is in the launch directory, which other users cannot enter, and has mode 0600. No
//! process can connect before it listens, so the mode is set in time.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};

use super::plan::QmpPlan;

/// Makes both. Returns the descriptors that QEMU inherits, each with its number.
///
/// # Errors
/// The kernel's error.
pub(super) fn make(plan: &QmpPlan) -> io::Result<Vec<(OwnedFd, RawFd)>> {
    let listening = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(listening.as_raw_fd(), &UnixAddr::new(&plan.socket)?)?;
    fs::set_permissions(&plan.socket, Permissions::from_mode(0o600))?;
    // QEMU talks to one client at a time, and a lock serializes those of netlaunch.
    listen(&listening, Backlog::new(1)?)?;
    let mut config = File::from(memfd_create(c"netlaunch-qmp.conf", MFdFlags::MFD_CLOEXEC)?);
    config.write_all(plan.config().as_bytes())?;
    Ok(vec![(listening, plan.socket_fd), (config.into(), plan.config_fd)])
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_the_owner_can_connect_to_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qmp.sock");
        let plan = QmpPlan { socket: socket.clone(), socket_fd: 3, config_fd: 4 };
        let made = make(&plan).unwrap();
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&socket).unwrap();
        // QEMU opens the file by its number, and so reads it from the beginning.
        let text = fs::read_to_string(format!("/proc/self/fd/{}", made[1].0.as_raw_fd())).unwrap();
        assert_eq!(text, plan.config());
        assert!(make(&plan).is_err(), "the name is in use");
    }
}
