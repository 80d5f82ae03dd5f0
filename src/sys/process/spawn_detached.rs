//! Programs that outlive us: the opposite of a [`Spawn`](super::Spawn).
//!
//! They must not keep open what our caller happens to have open, a lock or a terminal: it would be
//! in use for as long as they run.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::inherited::close_on_exec;

/// Starts a program in a session of its own, away from our terminal and our standard descriptors,
/// with our environment and directory. It inherits `fds` under the numbers that they have here, and
/// nothing else; its standard output is `output`, or nothing.
///
/// Returns once it is really executing. Nobody waits for its end: that is init's, since we are to
/// end before.
///
/// # Errors
/// The kernel's error; then it does not run.
pub fn detach(
    program: &Path,
    args: &[OsString],
    fds: &[BorrowedFd<'_>],
    output: Option<OwnedFd>,
) -> io::Result<()> {
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stderr(Stdio::null());
    command.stdout(output.map_or_else(Stdio::null, Stdio::from));
    // SAFETY: between fork and execve the closure makes async-signal-safe calls only, on numbers:
    // those of `numbers` are of descriptors that stay open here, and so in the fork, until spawn()
    // has returned.
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
