//! Waits for signals to this process and for the end of its parent.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::getppid;
use tokio::io::unix::AsyncFd;

use super::pidfd::pidfd_open;

/// The signals that a supervisor handles for its program.
const TAKEN: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// A signal sent to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    /// The signal.
    pub signal: Signal,
    /// Whether the kernel sent the signal, as it does for a key of the terminal. Then every process
    /// of this process group got the signal, too.
    pub from_kernel: bool,
}

/// The signals SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 to this process, in a queue.
///
/// A SIGHUP comes even if the process ignores it (nohup).
#[derive(Debug)]
pub(crate) struct Signals {
    fd: AsyncFd<SignalFd>,
    before: SigSet,
    ignores_hangup: bool,
}

impl Signals {
    /// Blocks the signals and queues them from now on. Call it while the process has one thread,
    /// because the signal mask belongs to a thread.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn take() -> io::Result<Self> {
        let ignores_hangup = ignored(Signal::SIGHUP);
        let mask = taken();
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), Some(&mut before))?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals { fd: watch(fd)?, before, ignores_hangup })
    }

    /// Returns the signal mask before [`Signals::take`].
    pub(crate) fn mask_before(&self) -> SigSet {
        self.before
    }

    /// Returns whether this process ignored SIGHUP at its start, as under nohup(1).
    pub(crate) fn ignores_hangup(&self) -> bool {
        self.ignores_hangup
    }

    /// Waits for the next signal. Never returns if the runtime shuts down.
    pub(crate) async fn next(&mut self) -> Received {
        loop {
            let Ok(mut ready) = self.fd.readable().await else {
                return std::future::pending().await;
            };
            let got = ready.try_io(|fd| {
                fd.get_ref().read_signal()?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
            });
            if let Ok(Ok(info)) = got
                && let Ok(signal) = Signal::try_from(info.ssi_signo as i32)
            {
                return Received { signal, from_kernel: info.ssi_code == libc::SI_KERNEL };
            }
        }
    }
}

/// Returns the signals that a supervisor handles for its program, as a set.
pub(super) fn taken() -> SigSet {
    TAKEN.into_iter().collect()
}

fn ignored(signal: Signal) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, sigaction only fills in the old one.
    unsafe {
        libc::sigaction(signal as i32, std::ptr::null(), now.as_mut_ptr()) == 0
            && now.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Makes a write to a closed pipe, or beyond the limit of a file's size (`ulimit -f`), fail instead
/// of killing this process, because a supervisor must clean up. The programs that it starts get the
/// default action.
pub(crate) fn ignore_write_signals() {
    // SAFETY: SIG_IGN installs no handler, so no code can run at a bad moment.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// The parent of this process.
#[derive(Debug)]
pub(crate) struct Parent(AsyncFd<OwnedFd>);

impl Parent {
    /// Returns the parent, or `None` if it has ended or the kernel has no pidfds (before 5.3).
    pub(crate) fn watch() -> Option<Self> {
        let parent = getppid();
        let fd = pidfd_open(parent).ok()?;
        // If the parent ended in between, the number may belong to another process by now.
        if getppid() != parent {
            return None;
        }
        Some(Parent(watch(fd).ok()?))
    }

    /// Waits until the parent has ended.
    pub(crate) async fn ended(&self) {
        if self.0.readable().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Registers a descriptor with the tokio runtime.
pub(crate) fn watch<T: AsFd + AsRawFd>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: all callers pass a type that owns its descriptor, so the descriptor stays open and
    // the same until the AsyncFd has deregistered it.
    unsafe { AsyncFd::register(fd) }.map_err(|error| error.into_parts().1)
}
