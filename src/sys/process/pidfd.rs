//! Signals a process and waits for its end through a descriptor, which never means another process.
//!
//! The kernel uses a process number again after its process has ended. So [`ProcessHandle::open`]
//! first opens a pidfd (pidfd_open(2)) and then compares the start time. If that is equal, the
//! descriptor means the right process for ever. Signals go through the descriptor, and the end of
//! the process is an event on it.
//!
//! Linux before 5.3, and some containers, refuse pidfd_open. Then the handle compares the start
//! time right before each signal, and polls for the end. Known race: the kernel could use the
//! number again between the comparison and the signal.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
#[cfg(test)]
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use super::process_identity::started;
use super::signals::{SignalNumber, send_signal};

/// The time between two polls for the end of a process without a pidfd.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A process that ran when the handle was opened.
#[derive(Debug)]
pub(crate) struct ProcessHandle {
    pid: Pid,
    started: u64,
    /// `None` if the kernel has no pidfd.
    fd: Option<OwnedFd>,
}

impl ProcessHandle {
    /// Opens the process of this number that was started at the time `at` ([`started`]). Returns
    /// `None` if it has ended.
    ///
    /// # Errors
    /// The kernel's error, for example if this process has too many open files.
    pub(crate) fn open(pid: Pid, at: u64) -> io::Result<Option<Self>> {
        let fd = match pidfd_open(pid) {
            Ok(fd) => Some(fd),
            Err(Errno::ESRCH) => return Ok(None),
            Err(Errno::ENOSYS | Errno::EPERM) => None,
            Err(errno) => return Err(errno.into()),
        };
        // The descriptor is open, so the process with this start time is the one that it means.
        Ok((started(pid) == Some(at)).then_some(ProcessHandle { pid, started: at, fd }))
    }

    /// Returns the process number.
    #[cfg(feature = "cli")]
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns whether the process still runs.
    pub(crate) fn is_running(&self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// Sends a signal. Returns `false` if the process has ended.
    ///
    /// # Errors
    /// The kernel's error, for example if the process belongs to another user.
    pub(crate) fn signal(&self, signal: impl Into<SignalNumber>) -> io::Result<bool> {
        let signal = signal.into();
        let sent = match &self.fd {
            Some(fd) => pidfd_send_signal(fd, signal),
            None if self.is_running() => send_signal(self.pid, signal),
            None => Err(Errno::ESRCH),
        };
        match sent {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until the process has ended, for at most `limit`. Returns whether it has ended. Needs
    /// a tokio runtime with I/O and time enabled.
    pub(crate) async fn ended(&self, limit: Duration) -> bool {
        let watched = self.fd.as_ref().and_then(|fd| fd.try_clone().ok());
        // SAFETY: the AsyncFd owns the descriptor from now on, so its number stays open and valid.
        let watched = watched.and_then(|fd| unsafe { AsyncFd::register(fd) }.ok());
        let wait = async {
            match &watched {
                // A pidfd becomes readable when the process is a zombie or has been reaped.
                Some(fd) => drop(fd.readable().await),
                None => {
                    while self.is_running() {
                        sleep(POLL_INTERVAL).await;
                    }
                }
            }
        };
        timeout(limit, wait).await.is_ok() || !self.is_running()
    }
}

/// Opens a pidfd. Kernels before 5.3 return ENOSYS.
pub(super) fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: pidfd_open takes a process number and flags. A result that is not negative is a new
    // descriptor without another owner, with close-on-exec set.
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

fn pidfd_send_signal(fd: &OwnedFd, signal: SignalNumber) -> nix::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the call takes two numbers, flags, and a null pointer, for which the kernel uses the
    // information of kill(2).
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal.as_raw(), none, 0)
    };
    Errno::result(sent).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handle_means_one_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let at = started(pid).unwrap();
        assert!(ProcessHandle::open(pid, at + 1).unwrap().is_none(), "another start time");
        let handle = ProcessHandle::open(pid, at).unwrap().unwrap();
        assert!(!handle.ended(Duration::from_millis(20)).await && handle.is_running());
        assert!(handle.signal(Signal::SIGKILL).unwrap());
        assert!(handle.ended(Duration::from_secs(10)).await && !handle.is_running());
        child.wait().unwrap();
        assert!(!handle.signal(Signal::SIGKILL).unwrap());
        assert!(ProcessHandle::open(pid, at).unwrap().is_none());
    }

    #[tokio::test]
    async fn without_a_pidfd_the_start_time_decides() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let at = started(pid).unwrap();
        let other = ProcessHandle { pid, started: at + 1, fd: None };
        assert!(!other.signal(Signal::SIGKILL).unwrap() && !other.is_running());
        let handle = ProcessHandle { pid, started: at, fd: None };
        assert!(handle.signal(Signal::SIGKILL).unwrap());
        assert!(handle.ended(Duration::from_secs(10)).await);
        child.wait().unwrap();
    }
}
