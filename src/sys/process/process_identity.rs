//! Distinguishes a process from a later process of the same number, by the start time.

#[cfg(feature = "cli")]
use std::io;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use procfs::process::Process;

/// Returns the start time of a process in clock ticks since boot, or `None` if it has ended.
///
/// A process that is about to end counts as running: it has lost its arguments, but it still has
/// its sockets until it is a zombie (do_exit() in the kernel).
pub(crate) fn started(pid: Pid) -> Option<u64> {
    let stat = Process::new(pid.as_raw()).and_then(|process| process.stat()).ok()?;
    (!matches!(stat.state, 'Z' | 'X')).then_some(stat.starttime)
}

/// Returns whether the process of this number that was started at the time `at` ([`started`]) still
/// runs.
///
/// If /proc hides the processes of other users (`hidepid`, proc(5)), every process of another user
/// with this number counts as the same one.
pub(crate) fn still_runs(pid: Pid, at: u64) -> bool {
    match Process::new(pid.as_raw()) {
        Ok(_) => started(pid) == Some(at),
        Err(_) => kill(pid, None) == Err(Errno::EPERM),
    }
}

/// Checks that this process has one thread, the condition for a fork whose child goes on as a full
/// process.
///
/// # Errors
/// It has another thread, or /proc cannot be read.
#[cfg(feature = "cli")]
pub(super) fn check_one_thread() -> io::Result<()> {
    let stat = Process::myself().and_then(|process| process.stat());
    if stat.map_err(|_| proc_unreadable())?.num_threads == 1 {
        Ok(())
    } else {
        Err(io::Error::other("this process has more than one thread"))
    }
}

/// Returns the error of a host without /proc.
#[cfg(feature = "cli")]
pub(super) fn proc_unreadable() -> io::Error {
    io::Error::other("/proc cannot be read; mount it")
}
