//! Whether this process may make namespaces, by making one.

use std::io;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::guard::raw_fork;

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// User namespaces, as an ordinary program makes them.
    User,
    /// PID and mount namespaces, as [`super::Isolation::PidNamespace`] makes them.
    Pid,
}

/// Makes a namespace of this kind in a child that ends at once.
///
/// # Errors
/// What the kernel answered: EPERM where the namespace is not allowed, ENOSPC where too many exist.
pub fn try_namespace(kind: Namespace) -> io::Result<()> {
    let flags = match kind {
        Namespace::User => libc::CLONE_NEWUSER,
        Namespace::Pid => libc::CLONE_NEWPID | libc::CLONE_NEWNS,
    };
    // SAFETY: the child only calls _exit.
    let pid = unsafe {
        let pid = raw_fork(flags);
        if pid == 0 {
            libc::_exit(0);
        }
        pid
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    match waitpid(Pid::from_raw(pid as i32), None) {
        Ok(WaitStatus::Exited(_, 0)) => Ok(()),
        Ok(other) => Err(io::Error::other(format!("the test process ended with {other:?}"))),
        Err(error) => Err(error.into()),
    }
}
