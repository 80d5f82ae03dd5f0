//! A process by a descriptor, which a later process of the same number never matches.
//!
//! A process number is used again after its process has ended. [`Handle::open`] therefore opens a
//! pidfd (pidfd_open(2)) first and compares the start time afterwards: if both fit, the descriptor
//! is about that process for good. Signals go through the descriptor, and its end is an event on
//! the descriptor.
//!
//! Linux before 5.3, and some containers, refuse pidfd_open. There the start time is compared right
//! before each signal, and the end is polled for; between comparison and signal the number could be
//! used again.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use super::started::started;

/// How often a process without a pidfd is looked at.
const STEP: Duration = Duration::from_millis(10);

/// A process that ran when the handle was opened.
#[derive(Debug)]
pub struct Handle {
    pid: Pid,
    started: u64,
    /// `None` where the kernel has no pidfd.
    fd: Option<OwnedFd>,
}

impl Handle {
    /// Opens the process of this number that was started at this time ([`started`]); `None` if it
    /// has ended.
    ///
    /// # Errors
    /// Descriptors ran out.
    pub fn open(pid: Pid, at: u64) -> io::Result<Option<Self>> {
        let fd = match pidfd_open(pid) {
            Ok(fd) => Some(fd),
            Err(Errno::ESRCH) => return Ok(None),
            Err(Errno::ENOSYS | Errno::EPERM) => None,
            Err(errno) => return Err(errno.into()),
        };
        // After the descriptor, which from then on is about the process that has this start time.
        Ok((started(pid) == Some(at)).then_some(Handle { pid, started: at, fd }))
    }

    /// The process number.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether the process still runs.
    pub fn is_running(&self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// Sends a signal; returns whether the process was there to get it.
    ///
    /// # Errors
    /// The process belongs to another user.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let sent = match &self.fd {
            Some(fd) => pidfd_send_signal(fd, signal),
            None if self.is_running() => kill(self.pid, signal),
            None => Err(Errno::ESRCH),
        };
        match sent {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until the process has ended, at most `limit`; returns whether it has. Needs a tokio
    /// runtime with I/O and time enabled.
    pub async fn ended(&self, limit: Duration) -> bool {
        let watched = self.fd.as_ref().and_then(|fd| fd.try_clone().ok());
        // SAFETY: the descriptor is owned by the AsyncFd from here to its end.
        let watched = watched.and_then(|fd| unsafe { AsyncFd::register(fd) }.ok());
        let wait = async {
            match &watched {
                // A pidfd becomes readable when the process is a zombie or gone.
                Some(fd) => drop(fd.readable().await),
                None => {
                    while self.is_running() {
                        sleep(STEP).await;
                    }
                }
            }
        };
        timeout(limit, wait).await.is_ok() || !self.is_running()
    }
}

fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: pidfd_open takes a process number and flags; a result that is not negative is a new
    // descriptor that no one else owns, with close-on-exec set.
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

fn pidfd_send_signal(fd: &OwnedFd, signal: Signal) -> nix::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the call takes two numbers, a null pointer, for which the kernel fills in what kill(2)
    // sends, and flags.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal as libc::c_int, none, 0)
    };
    Errno::result(sent).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handle_is_about_one_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let at = started(pid).unwrap();
        assert!(Handle::open(pid, at + 1).unwrap().is_none(), "another start time");
        let handle = Handle::open(pid, at).unwrap().unwrap();
        assert!(!handle.ended(Duration::from_millis(20)).await && handle.is_running());
        assert!(handle.signal(Signal::SIGKILL).unwrap());
        assert!(handle.ended(Duration::from_secs(10)).await && !handle.is_running());
        child.wait().unwrap();
        assert!(!handle.signal(Signal::SIGKILL).unwrap());
        assert!(Handle::open(pid, at).unwrap().is_none());
    }

    #[tokio::test]
    async fn without_a_pidfd_the_start_time_decides() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let at = started(pid).unwrap();
        let other = Handle { pid, started: at + 1, fd: None };
        assert!(!other.signal(Signal::SIGKILL).unwrap() && !other.is_running());
        let handle = Handle { pid, started: at, fd: None };
        assert!(handle.signal(Signal::SIGKILL).unwrap());
        assert!(handle.ended(Duration::from_secs(10)).await);
        child.wait().unwrap();
    }
}
