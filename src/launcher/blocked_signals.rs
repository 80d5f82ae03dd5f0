//! Blocks the signals of a thread for a while.

use std::io;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// The signals that the kernel sends to a thread for its own faults. Blocking them hides a crash
/// from the program's handlers and saves nothing: the kernel then kills the process
/// (sigprocmask(2)).
const FAULTS: [Signal; 6] = [
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

/// All signals but those of faults are blocked in this thread until this value is dropped in it. A
/// thread that is made meanwhile inherits the mask.
#[derive(Debug)]
pub(crate) struct BlockedSignals {
    before: SigSet,
}

impl BlockedSignals {
    /// Blocks the signals.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn block() -> io::Result<Self> {
        let mut signals = SigSet::all();
        for fault in FAULTS {
            signals.remove(fault);
        }
        Ok(BlockedSignals { before: signals.thread_swap_mask(SigmaskHow::SIG_BLOCK)? })
    }

    /// Returns the mask of the thread before.
    pub(crate) fn mask_before(&self) -> SigSet {
        self.before
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // It fails only for a bad address or a bad `how` (pthread_sigmask(3)).
        let _ = self.before.thread_set_mask();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_its_mask_back_and_a_new_thread_has_the_signals_blocked() {
        let mask = || SigSet::thread_get_mask().unwrap();
        let before = mask();
        let blocked = BlockedSignals::block().unwrap();
        assert_eq!(blocked.mask_before(), before);
        let of_thread = std::thread::spawn(mask).join().unwrap();
        assert!(of_thread.contains(Signal::SIGTERM) && !of_thread.contains(Signal::SIGSEGV));
        drop(blocked);
        assert_eq!(mask(), before);
    }
}
