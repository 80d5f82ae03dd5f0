//! Starts programs that outlive the caller: the opposite of a [`Spawn`](super::Spawn).
//!
//! Such a program must not keep the caller's descriptors open, for example a lock or a terminal:
//! they would stay in use for as long as the program runs.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::inherited_fd::close_on_exec;

/// Starts a program in a new session, so that it has no terminal, with the caller's environment and
/// working directory.
///
/// The program inherits `fds` under their present numbers, and no other descriptor. Its standard
/// output is `output` or /dev/null; its standard input and error are /dev/null.
///
/// Returns when the program has been executed. The caller does not wait for its end: the caller
/// ends first, and then init becomes the program's parent.
///
/// # Errors
/// The kernel's error; then the program does not run.
pub(crate) fn detach(
    program: &Path,
    args: &[OsString],
    fds: &[BorrowedFd<'_>],
    output: Option<OwnedFd>,
) -> io::Result<()> {
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stderr(Stdio::null());
    command.stdout(output.map_or_else(Stdio::null, Stdio::from));
    // SAFETY: between fork and execve the closure makes system calls on numbers and allocates
    // nothing; `last_os_error` reads errno. `fds` borrows the descriptors, so they are open until
    // spawn() has returned.
    unsafe {
        command.pre_exec(move || {
            close_on_exec();
            let inherited = numbers.iter().all(|fd| libc::fcntl(*fd, libc::F_SETFD, 0) == 0);
            if inherited && libc::setsid() >= 0 {
                return Ok(());
            }
            Err(io::Error::last_os_error())
        });
    }
    command.spawn().map(drop)
}
