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

/// Has execve close every descriptor but the standard ones. (Not before: std reports through one of
/// its own that it failed.) Async-signal-safe.
fn close_on_exec() {
    let (first, last) = (3 as libc::c_ulong, libc::c_ulong::from(u32::MAX));
    let flags = libc::c_ulong::from(libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: both calls change a flag of numbers and no memory; a number that is not open is
    // answered with an error.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, flags) != 0 {
            // Before Linux 5.11: one by one, up to what any default limit allows.
            for fd in 3..65536 {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}
