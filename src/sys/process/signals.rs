//! Signals and the parent's end, as things to wait for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::unix::AsyncFd;

/// The signals a supervisor takes for its program.
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
pub struct Received {
    /// Which.
    pub signal: Signal,
    /// Whether the kernel sent it, as it does for keys of the terminal: then every process in our
    /// process group got it as well.
    pub from_kernel: bool,
}

/// SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 of this process, one after the other, also
/// a SIGHUP that was ignored (nohup).
#[derive(Debug)]
pub struct Signals {
    fd: AsyncFd<SignalFd>,
    before: SigSet,
    ignores_hangup: bool,
}

impl Signals {
    /// Blocks the signals and takes them from now on. Call it while the process has one thread.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn take() -> io::Result<Self> {
        let ignores_hangup = ignored(Signal::SIGHUP);
        let mut mask = SigSet::empty();
        for signal in TAKEN {
            mask.add(signal);
        }
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), Some(&mut before))?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals { fd: watch(fd)?, before, ignores_hangup })
    }

    /// The signal mask from before.
    pub fn mask_before(&self) -> SigSet {
        self.before
    }

    /// Whether SIGHUP was ignored when this process started, as nohup(1) does.
    pub fn ignores_hangup(&self) -> bool {
        self.ignores_hangup
    }

    /// The next signal; never returns when the kernel takes the descriptor away.
    pub async fn next(&mut self) -> Received {
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

fn ignored(signal: Signal) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with a NULL new action sigaction only fills in the old one.
    unsafe {
        libc::sigaction(signal as i32, std::ptr::null(), now.as_mut_ptr()) == 0
            && now.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Makes writes to a closed pipe fail instead of killing us: a supervisor has to clean up.
pub fn ignore_sigpipe() {
    // SAFETY: SIG_IGN is no handler of ours that could run at a bad moment.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// The process that started us.
#[derive(Debug)]
pub struct Parent(AsyncFd<OwnedFd>);

impl Parent {
    /// Our parent, if it can be watched: it still is our parent, and the kernel has pidfds (5.3).
    pub fn watch() -> Option<Self> {
        // SAFETY: getppid cannot fail; pidfd_open takes numbers; a result that is not negative is
        // a new descriptor that nobody else owns.
        let fd = unsafe {
            let parent = libc::getppid();
            let fd = libc::syscall(libc::SYS_pidfd_open, parent, 0);
            if fd < 0 {
                return None;
            }
            let fd = OwnedFd::from_raw_fd(fd as RawFd);
            // Gone in between: the number may be somebody else's by now.
            if libc::getppid() != parent {
                return None;
            }
            fd
        };
        Some(Parent(watch(fd).ok()?))
    }

    /// Returns when the parent has ended.
    pub async fn ended(&self) {
        if self.0.readable().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Registers a descriptor with the runtime.
pub(super) fn watch<T: AsFd + AsRawFd>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: all callers hand over a type that owns its descriptor, so it stays open, and the
    // same, until the AsyncFd has deregistered it.
    unsafe { AsyncFd::register(fd) }.map_err(|error| error.into_parts().1)
}
