//! Waits for signals to this process and for the end of its parent.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getppid};
use tokio::io::unix::AsyncFd;

use super::pidfd::pidfd_open;

/// The signals that a supervisor handles also if its caller ignores them.
const ALWAYS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// The further signals that end a program by default (signal(7)). Not among them are SIGKILL, which
/// no program can handle, the signals of a fault, which hide a crash if they are handled, and
/// SIGPIPE and SIGXFSZ, which netlaunch ignores ([`ignore_write_signals`]).
const ENDING: [Signal; 10] = [
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGSTKFLT,
    Signal::SIGXCPU,
    Signal::SIGABRT,
];

/// The number of a signal, also of a real-time signal, which has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignalNumber(i32);

impl SignalNumber {
    /// Returns the number.
    pub(crate) fn as_raw(self) -> i32 {
        self.0
    }

    /// Returns the signal with a name; `None` for a real-time signal.
    pub(crate) fn named(self) -> Option<Signal> {
        Signal::try_from(self.0).ok()
    }

    /// Returns whether a key of the terminal, or its end, sends this signal.
    pub(crate) fn is_of_terminal(self) -> bool {
        matches!(self.named(), Some(Signal::SIGINT | Signal::SIGQUIT | Signal::SIGHUP))
    }
}

impl From<Signal> for SignalNumber {
    fn from(signal: Signal) -> Self {
        SignalNumber(signal as i32)
    }
}

impl TryFrom<i32> for SignalNumber {
    type Error = io::Error;

    /// Fails for a number that no signal has, or that the C library keeps for itself.
    fn try_from(number: i32) -> io::Result<Self> {
        let is_real_time = (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number);
        if !is_real_time {
            Signal::try_from(number)?;
        }
        Ok(SignalNumber(number))
    }
}

impl fmt::Display for SignalNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.named() {
            Some(signal) => f.write_str(signal.as_str()),
            None => write!(f, "SIGRTMIN+{}", self.0 - libc::SIGRTMIN()),
        }
    }
}

/// A signal sent to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    /// The signal.
    pub signal: SignalNumber,
    /// Whether the kernel sent the signal, as it does for a key of the terminal. Then every process
    /// of this process group got the signal, too.
    pub from_kernel: bool,
}

/// The signals to this process that end a program by default, in a queue.
///
/// SIGTERM, SIGINT, SIGHUP and SIGQUIT come even if the process ignores them, as under nohup(1).
/// Any other signal that the process ignores stays ignored: the program inherits that.
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
                && let Ok(signal) = SignalNumber::try_from(info.ssi_signo as i32)
            {
                return Received { signal, from_kernel: info.ssi_code == libc::SI_KERNEL };
            }
        }
    }
}

/// Sends a signal to a process, as kill(2) does.
pub(super) fn send_signal(pid: Pid, signal: SignalNumber) -> nix::Result<()> {
    // SAFETY: the call takes two numbers.
    Errno::result(unsafe { libc::kill(pid.as_raw(), signal.as_raw()) }).map(drop)
}

/// Returns the signals that a supervisor handles for its program, as a set.
pub(super) fn taken() -> SigSet {
    let always = ALWAYS.map(SignalNumber::from).into_iter();
    let real_time = (libc::SIGRTMIN()..=libc::SIGRTMAX()).map(SignalNumber);
    let further = ENDING.map(SignalNumber::from).into_iter().chain(real_time);
    set(always.chain(further.filter(|signal| !ignored(*signal))))
}

/// Returns the set of these signals.
pub(super) fn set(signals: impl IntoIterator<Item = SignalNumber>) -> SigSet {
    let mut set = *SigSet::empty().as_ref();
    for signal in signals {
        // SAFETY: the set is initialized, and the number is that of a signal.
        unsafe { libc::sigaddset(&mut set, signal.as_raw()) };
    }
    // SAFETY: the set is initialized.
    unsafe { SigSet::from_sigset_t_unchecked(set) }
}

fn ignored(signal: impl Into<SignalNumber>) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, sigaction only fills in the old one.
    unsafe {
        libc::sigaction(signal.into().as_raw(), std::ptr::null(), now.as_mut_ptr()) == 0
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The signals that do not end a program by default, those of a fault, SIGKILL, and those that
    /// netlaunch ignores.
    const LEFT: [Signal; 17] = [
        Signal::SIGBUS,
        Signal::SIGCHLD,
        Signal::SIGCONT,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGKILL,
        Signal::SIGPIPE,
        Signal::SIGSEGV,
        Signal::SIGSTOP,
        Signal::SIGSYS,
        Signal::SIGTRAP,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGURG,
        Signal::SIGWINCH,
        Signal::SIGXFSZ,
    ];

    #[test]
    fn each_signal_that_ends_a_program_is_taken_also_a_real_time_signal() {
        let taken = taken();
        // The program that runs the tests may ignore some.
        for signal in Signal::iterator().filter(|signal| !ignored(*signal)) {
            assert_eq!(taken.contains(signal), !LEFT.contains(&signal), "{signal}");
        }
        let is_free = |number: &i32| !ignored(SignalNumber(*number));
        for number in (libc::SIGRTMIN()..=libc::SIGRTMAX()).filter(is_free) {
            // SAFETY: the set is initialized, and the number is that of a signal.
            assert_eq!(unsafe { libc::sigismember(taken.as_ref(), number) }, 1, "{number}");
        }
    }

    #[test]
    fn a_signal_has_its_name_and_a_number_without_a_signal_is_refused() {
        let said = |number| SignalNumber::try_from(number).map(|signal| signal.to_string()).ok();
        assert_eq!(said(15).as_deref(), Some("SIGTERM"));
        assert_eq!(said(libc::SIGRTMIN() + 2).as_deref(), Some("SIGRTMIN+2"));
        assert_eq!([said(0), said(-1), said(libc::SIGRTMAX() + 1)], [None, None, None]);
    }
}
