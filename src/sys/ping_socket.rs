//! Tries whether a process of a group may make an ICMP echo socket, by which passt and slirp carry
//! the pings of a guest (icmp(7)).

use std::io;

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::process::fork::{errno, raw_fork};

/// The exit status of the test process if it cannot become the group.
const NO_GROUP: i32 = 255;

/// The answer of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PingSocket {
    /// A socket was made.
    Made,
    /// The kernel refuses the socket with this error.
    Refused(Errno),
    /// The test process could not become the group, so the answer is unknown.
    Unknown,
}

/// Tries to make an ICMP echo socket in a child process: as this process, or with `group` as its
/// only group.
///
/// # Errors
/// The child process could not be started, or was killed.
pub(crate) fn try_ping_socket(group: Option<u32>) -> io::Result<PingSocket> {
    // SAFETY: the fork makes system calls on numbers only: setgroups with no groups, setresgid,
    // socket and _exit. The raw calls of the groups change this process alone, without the C
    // library's signals to other threads.
    let pid = unsafe {
        let pid = raw_fork(0);
        if pid == 0 {
            if let Some(group) = group
                && (libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) != 0
                    || libc::syscall(libc::SYS_setresgid, group, group, group) != 0)
            {
                libc::_exit(NO_GROUP);
            }
            let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
            let made = libc::socket(libc::AF_INET, kind, libc::IPPROTO_ICMP) >= 0;
            libc::_exit(if made { 0 } else { errno() });
        }
        pid
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    match waitpid(Pid::from_raw(pid as i32), None) {
        Ok(WaitStatus::Exited(_, 0)) => Ok(PingSocket::Made),
        Ok(WaitStatus::Exited(_, NO_GROUP)) => Ok(PingSocket::Unknown),
        Ok(WaitStatus::Exited(_, errno)) => Ok(PingSocket::Refused(Errno::from_raw(errno))),
        Ok(other) => Err(io::Error::other(format!("the test process ended with {other:?}"))),
        Err(error) => Err(error.into()),
    }
}
