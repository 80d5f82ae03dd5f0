//! Telling a process from a later one of the same number.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use procfs::process::Process;

/// When a process was started, in clock ticks since the host was; `None` once it has ended. One on
/// its way there has no arguments any more and its sockets still, until it is a zombie (do_exit()).
pub fn started(pid: Pid) -> Option<u64> {
    let stat = Process::new(pid.as_raw()).and_then(|process| process.stat()).ok()?;
    (!matches!(stat.state, 'Z' | 'X')).then_some(stat.starttime)
}

/// Whether the process of this number that was started `at` this time ([`started`]) still runs.
/// Where /proc hides other users' (`hidepid`, proc(5)), any of theirs with the number is taken for
/// it.
pub fn still_runs(pid: Pid, at: u64) -> bool {
    match Process::new(pid.as_raw()) {
        Ok(_) => started(pid) == Some(at),
        Err(_) => kill(pid, None) == Err(Errno::EPERM),
    }
}
