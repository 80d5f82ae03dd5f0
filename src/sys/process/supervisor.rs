//! Forks this process into a foreground process and a supervisor of a daemon.
//!
//! The caller of a program that daemonizes waits until the program's first process ends, and then
//! goes on while the daemon runs. So the caller waits for the *foreground process*, and the
//! *supervisor*, a child of it in a session of its own, starts the program and supervises it:
//!
//! ```text
//! caller ── foreground process ── socket ── supervisor ── ...
//! ```
//!
//! The supervisor has the caller's standard descriptors until the daemon is ready. Then
//! [`WatchedForeground::release`] directs them to /dev/null, so that a pipe of the caller ends, and
//! sends the exit status, with which the foreground process ends. A supervisor that ends before
//! that gives the foreground process its own status. Meanwhile the foreground process passes
//! signals on. If it is killed before the release, the supervisor sees the end of the socket
//! ([`WatchedForeground::ended`]) and must end the program.
//!
//! A caller may ignore SIGCHLD, and then the kernel would discard the status of the supervisor. So
//! the foreground process does not ignore it, while the supervisor and the program have the
//! caller's action.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use tokio::io::unix::AsyncFd;

use super::process_identity::check_one_thread;
use super::signals::{SignalNumber, send_signal, taken, watch};

/// The time between two looks at a supervisor whose socket has ended, in milliseconds. It ends at
/// once, or executes the program without netlaunch.
const STEP: u16 = 5;

/// The two processes after the fork.
#[derive(Debug)]
pub(crate) enum Side {
    /// This is the foreground process, which waits for the other one.
    Foreground(Foreground),
    /// This is the supervisor.
    Supervisor(ForegroundLink),
}

/// The foreground process's knowledge of the supervisor.
#[derive(Debug)]
pub(crate) struct Foreground {
    supervisor: Pid,
    socket: OwnedFd,
    signals: SignalFd,
}

/// The supervisor's end of the socket, before the process has a tokio runtime.
#[derive(Debug)]
pub(crate) struct ForegroundLink {
    socket: OwnedFd,
    null: File,
}

/// Forks this process. The supervisor is in a new session, without a terminal.
///
/// # Errors
/// The kernel's error, or this process has another thread. In the supervisor, the caller must end
/// the process then, as in every other case.
pub(crate) fn fork_supervisor() -> io::Result<Side> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let (mine, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let mask = taken();
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    check_one_thread()?;
    // From here on a signal waits in the queue of one of the two processes.
    let before = mask.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let callers = set_child_action(&default_action())?;
    // SAFETY: the process has one thread, this one, so no other thread can hold a lock or be in the
    // middle of a change that the child would never see completed. The child may therefore do
    // everything that its parent may do.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => {
            drop(theirs);
            Ok(Side::Foreground(Foreground { supervisor: child, socket: mine, signals }))
        }
        Ok(ForkResult::Child) => {
            drop((mine, signals));
            set_child_action(&callers)?;
            before.thread_set_mask()?;
            setsid()?;
            Ok(Side::Supervisor(ForegroundLink { socket: theirs, null }))
        }
        Err(errno) => {
            set_child_action(&callers)?;
            before.thread_set_mask()?;
            Err(errno.into())
        }
    }
}

/// Returns the action of a signal that no process has changed.
fn default_action() -> SigAction {
    SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty())
}

/// Sets the action of SIGCHLD, and returns the former one.
fn set_child_action(action: &SigAction) -> nix::Result<SigAction> {
    // SAFETY: the action is the default, or the one that this process had before. netlaunch
    // installs no handler, and a program inherits none, so it is SIG_DFL or SIG_IGN.
    unsafe { sigaction(Signal::SIGCHLD, action) }
}

impl Foreground {
    /// Waits until the supervisor releases this process or has ended, and passes signals on to it.
    /// Returns the exit status: that of the release, else that of the supervisor, or of the program
    /// that the supervisor has executed.
    pub(crate) fn wait(self) -> ExitStatus {
        loop {
            let mut polled = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            let _ = poll(&mut polled, PollTimeout::NONE);
            self.pass_signals();
            let mut status = [0u8];
            match recv(self.socket.as_raw_fd(), &mut status, MsgFlags::MSG_DONTWAIT) {
                Ok(1..) => return ExitStatus::from_raw(i32::from(status[0]) << 8),
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM) => {}
                Ok(0) | Err(_) => break,
            }
        }
        loop {
            match waitpid(self.supervisor, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => return ExitStatus::from_raw(code << 8),
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    return ExitStatus::from_raw(signal as i32);
                }
                Ok(_) | Err(Errno::EINTR) => {}
                // No status is known.
                Err(_) => return ExitStatus::from_raw(libc::SIGKILL),
            }
            let _ = poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], STEP);
            self.pass_signals();
        }
    }

    /// Passes on the signals that wait in the queue.
    fn pass_signals(&self) {
        // The supervisor has not been waited for, so no other process has its number.
        while let Ok(Some(received)) = self.signals.read_signal() {
            if let Ok(signal) = SignalNumber::try_from(received.ssi_signo as i32) {
                let _ = send_signal(self.supervisor, signal);
            }
        }
    }
}

impl ForegroundLink {
    /// Watches the foreground process in this tokio runtime.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn watch(self) -> io::Result<WatchedForeground> {
        let socket = watch(self.socket)?;
        Ok(WatchedForeground { socket, null: self.null, released: AtomicBool::new(false) })
    }
}

/// The foreground process, as the supervisor watches it.
#[derive(Debug)]
pub(crate) struct WatchedForeground {
    socket: AsyncFd<OwnedFd>,
    null: File,
    released: AtomicBool,
}

impl WatchedForeground {
    /// Waits until the foreground process has ended without a release. Never returns after one.
    pub(crate) async fn ended(&self) {
        while !self.released.load(Ordering::Relaxed) {
            let Ok(mut ready) = self.socket.readable().await else { break };
            let mut byte = [0u8];
            let ended = ready
                .try_io(|socket| Ok(recv(socket.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT)?));
            // The foreground process sends nothing: every answer but "try again" is its end.
            if ended.is_ok() && !self.released.load(Ordering::Relaxed) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Directs the standard descriptors to /dev/null, and ends the foreground process with
    /// `status`.
    ///
    /// # Errors
    /// The kernel's error; the foreground process ends with `status` all the same.
    pub(crate) fn release(&self, status: u8) -> io::Result<()> {
        let directed = dup2_stdin(&self.null)
            .and_then(|()| dup2_stdout(&self.null))
            .and_then(|()| dup2_stderr(&self.null));
        self.released.store(true, Ordering::Relaxed);
        let sent = send(self.socket.as_raw_fd(), &[status], MsgFlags::MSG_NOSIGNAL);
        Ok(directed.and(sent.map(drop))?)
    }
}
