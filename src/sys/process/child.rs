//! A program that runs under a guard: its process number, its signals, its output and its end.

use std::any::Any;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use procfs::process::Process;
use tokio::io::unix::AsyncFd;

use super::fork::{DAEMONIZED, EXITED};
use super::output;
use super::pidfd::ProcessHandle;
use super::process_identity::started;
use super::reap::reap;
use super::signals::SignalNumber;

/// A change of a program under its guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The first process has ended with status 0, and the program is now a daemon. [`Child::pid`]
    /// returns the daemon's number from now on.
    Daemonized,
    /// The program has ended.
    Ended(ExitStatus),
}

/// A program under its guard.
///
/// Dropping it makes the guard kill the program. In a tokio runtime the drop waits for nothing
/// ([`super::reap`]); elsewhere it waits until the program has ended.
#[derive(Debug)]
pub struct Child {
    guard: Pid,
    pid: Pid,
    socket: AsyncFd<OwnedFd>,
    status: Option<ExitStatus>,
    /// The daemon, once it is the program.
    daemon: Option<ProcessHandle>,
    /// The file in memory with the kept part of the program's standard error.
    output: Option<File>,
    /// A value that is dropped after the program has ended.
    held: Option<Arc<dyn Any + Send + Sync>>,
}

impl Child {
    /// Takes over a guard, the caller's end of its socket, and its file in memory.
    pub(super) fn new(guard: Pid, socket: OwnedFd, output: Option<File>) -> io::Result<Self> {
        // SAFETY: the AsyncFd owns the descriptor from now on, so it stays open and the same.
        match unsafe { AsyncFd::register(socket) } {
            Ok(socket) => Ok(Child {
                guard,
                pid: guard,
                socket,
                status: None,
                daemon: None,
                output,
                held: None,
            }),
            Err(error) => {
                let (socket, error) = error.into_parts();
                drop(socket); // ends the guard
                let _ = waitpid(guard, None);
                Err(error)
            }
        }
    }

    pub(super) fn with_socket<T>(&self, read: impl FnOnce(&OwnedFd) -> T) -> T {
        read(self.socket.get_ref())
    }

    pub(super) fn set_pid(&mut self, pid: Pid) {
        self.pid = pid;
    }

    /// Keeps `held` until the program has ended, even if this value is dropped before.
    pub(crate) fn hold(&mut self, held: Arc<dyn Any + Send + Sync>) {
        self.held = Some(held);
    }

    #[cfg(test)]
    pub(super) fn guard(&self) -> Pid {
        self.guard
    }

    /// Kills the program and blocks the thread until it has ended: for an error at the start, when
    /// the guard is about to end.
    pub(super) fn end_now(mut self) {
        self.disconnect();
        let _ = waitpid(self.guard, None);
        self.status = Some(lost());
    }

    /// Returns the program's process number in the caller's PID namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns the beginning and the end of the program's standard error, if the guard keeps it
    /// ([`Spawn::keep_output`](super::Spawn)). The end is complete after [`Child::wait`].
    pub fn output(&self) -> Vec<u8> {
        self.output.as_ref().map(output::text).unwrap_or_default()
    }

    /// Sends a signal to the program, without effect if the program has ended.
    pub(crate) fn signal(&self, signal: impl Into<SignalNumber>) {
        if self.status.is_none() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let number = [signal.into().as_raw() as u8];
            let _ = again(|| send(self.socket.as_raw_fd(), &number, flags));
        }
    }

    /// Waits for the program's end. The future may be dropped, and the call repeated.
    ///
    /// If the tokio runtime of the start shuts down meanwhile, this ends the program.
    pub async fn wait(&mut self) -> ExitStatus {
        loop {
            if let Progress::Ended(status) = self.next().await {
                return status;
            }
        }
    }

    /// Waits for the next change of the program, like [`Child::wait`].
    pub(crate) async fn next(&mut self) -> Progress {
        if let Some(status) = self.status {
            return Progress::Ended(status);
        }
        let status = loop {
            let Ok(mut ready) = self.socket.readable().await else {
                // The guard lives on, and `waitpid` below would block until the program ends.
                self.disconnect();
                break lost();
            };
            let mut message = [0u8; 8];
            let got = ready.try_io(|socket| {
                let flags = MsgFlags::MSG_DONTWAIT;
                Ok(again(|| recv(socket.as_raw_fd(), &mut message, flags))?)
            });
            let [kind, a, b, c, d, ..] = message;
            let number = i32::from_ne_bytes([a, b, c, d]);
            match got {
                Ok(Ok(5)) if kind == EXITED => break ExitStatus::from_raw(number),
                Ok(Ok(5)) if kind == DAEMONIZED => {
                    self.pid = Pid::from_raw(number);
                    self.daemon = descendant(self.guard, self.pid);
                    return Progress::Daemonized;
                }
                // The guard was killed, and the program with it.
                Ok(Ok(0) | Err(_)) => {
                    if let Some(daemon) = &self.daemon {
                        // No PR_SET_PDEATHSIG ends a daemon whose two guards were killed.
                        let _ = daemon.signal(Signal::SIGKILL);
                    }
                    break lost();
                }
                Ok(Ok(_)) | Err(_) => {}
            }
        };
        let _ = waitpid(self.guard, None);
        self.status = Some(status);
        Progress::Ended(status)
    }

    /// Sends `signal` to the program, and SIGKILL if the program still runs after `patience`.
    pub async fn stop(&mut self, signal: Signal, patience: Duration) -> ExitStatus {
        self.signal(signal);
        match tokio::time::timeout(patience, self.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.signal(Signal::SIGKILL);
                self.wait().await
            }
        }
    }

    /// Ends the connection, which makes the guard kill the program and end. In contrast to a
    /// message, the end of the connection cannot be lost.
    fn disconnect(&self) {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }
}

/// Repeats a call on a guard's socket if the kernel is short of memory for it, or a signal
/// interrupted it. A message that cannot be read now is still queued, and its sender still runs. If
/// the caller took the error for the sender's end, it would kill a tool in the middle of its work.
pub(super) fn again<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    const ATTEMPTS: usize = 100;
    for _ in 0..ATTEMPTS {
        match call() {
            Err(Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM) => {}
            other => return other,
        }
    }
    call()
}

/// Returns a handle of the process `pid` if it still is a child of a child of `guard`; its number
/// may belong to another process by now.
fn descendant(guard: Pid, pid: Pid) -> Option<ProcessHandle> {
    let handle = ProcessHandle::open(pid, started(pid)?).ok()??;
    let parent = |pid: i32| Some(Process::new(pid).ok()?.stat().ok()?.ppid);
    (parent(parent(pid.as_raw())?)? == guard.as_raw()).then_some(handle)
}

/// Returns the status of a program whose guard was killed.
fn lost() -> ExitStatus {
    ExitStatus::from_raw(libc::SIGKILL)
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.disconnect();
            reap(self.guard, self.held.take());
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
