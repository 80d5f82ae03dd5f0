//! Whether a virtual processor really runs under KVM, by running one.
//!
//! # Theory of operation
//!
//! Opening /dev/kvm, and even making a virtual machine, succeeds on hosts where no guest boots. So
//! the test is a tiny guest: one page of memory with three instructions and room for their result,
//! one virtual processor in real mode. The guest loads 1 with the floating-point unit, stores it as
//! an integer and halts. A host that works gives it back with `KVM_EXIT_HLT` and a 1 in the page;
//! everything else counts as not usable.
//!
//! Why not `hlt` alone: KVM can interpret some instructions in software, `hlt` among them, and does
//! so on hosts without hardware virtualization (measured with the kvm_pvm module of Linux 6.18:
//! `hlt` halts in real and in 64-bit mode, while no ordinary kernel boots). Its interpreter leaves
//! arithmetic of the floating-point unit out, so a guest that got through it was run by a processor.
//!
//! The test runs in a fork of us, since a host that does not work may also hang or crash whoever
//! tries. The fork writes one message to a pipe and leaves; it uses nothing but system calls on
//! memory that was set up before, so it does not matter which locks other threads held. When no
//! message arrives in time it is killed.
//!
//! The guest is for x86-64; elsewhere nothing is tried.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::io;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

/// How far the test got before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum KvmStep {
    /// Making a virtual machine.
    Machine = 1,
    /// Giving it memory.
    Memory = 2,
    /// Making a virtual processor.
    Processor = 3,
    /// Setting the processor's registers.
    Registers = 4,
    /// Running it.
    Run = 5,
}

impl KvmStep {
    /// The step with this number.
    fn from_number(number: u32) -> Option<Self> {
        [KvmStep::Machine, KvmStep::Memory, KvmStep::Processor, KvmStep::Registers, KvmStep::Run]
            .into_iter()
            .find(|step| *step as u32 == number)
    }
}

/// What came of the test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvmOutcome {
    /// The guest ran, left its result and halted: KVM works.
    Halted,
    /// The device is there but could not be opened, or is not there (ENOENT).
    Unopened(Errno),
    /// The kernel refused a step.
    Refused(KvmStep, Errno),
    /// The guest stopped for this reason (`KVM_EXIT_*`) without having done its work.
    Stopped(u32),
    /// The test process ended without an answer.
    Crashed,
    /// No answer within the limit.
    Hung,
    /// This architecture is not tested.
    Untested,
}

/// Runs a guest of three instructions on the KVM device `device` (normally /dev/kvm).
///
/// Blocks for at most `limit`, and a quarter second more where the test process cannot be killed at
/// once.
///
/// # Errors
/// The test itself could not be started: no pipe, no process.
pub fn try_kvm(device: &Path, limit: Duration) -> io::Result<KvmOutcome> {
    #[cfg(target_arch = "x86_64")]
    return x86::try_kvm(device, limit);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (device, limit);
        Ok(KvmOutcome::Untested)
    }
}

/// Length of the test process's message: the step, errno, the exit reason, the guest's result; all
/// in native order.
const MESSAGE_LEN: usize = 16;
/// The step's number in a message about a guest that ran until it stopped.
const STOPPED: u32 = 0;
/// `KVM_EXIT_HLT`.
const EXIT_HLT: u32 = 5;
/// What a guest that ran has left.
const RESULT: u32 = 1;

/// What a message means.
fn outcome(message: [u8; MESSAGE_LEN]) -> KvmOutcome {
    let number = |at: usize| {
        u32::from_ne_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]])
    };
    match (number(0), number(8), number(12)) {
        (STOPPED, EXIT_HLT, RESULT) => KvmOutcome::Halted,
        (STOPPED, reason, _) => KvmOutcome::Stopped(reason),
        (step, _, _) => match KvmStep::from_number(step) {
            Some(step) => KvmOutcome::Refused(step, Errno::from_raw(number(4) as i32)),
            None => KvmOutcome::Crashed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn message(step: u32, errno: u32, reason: u32, result: u32) -> [u8; MESSAGE_LEN] {
        let mut bytes = [0; MESSAGE_LEN];
        for (to, number) in bytes.chunks_mut(4).zip([step, errno, reason, result]) {
            to.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn messages() {
        for (step, errno, reason, result, expected) in [
            (0, 0, 5, 1, KvmOutcome::Halted),
            (0, 14, 5, 1, KvmOutcome::Halted),
            (0, 0, 5, 0, KvmOutcome::Stopped(5)),
            (0, 0, 17, 0, KvmOutcome::Stopped(17)),
            (1, 16, 0, 0, KvmOutcome::Refused(KvmStep::Machine, Errno::EBUSY)),
            (5, 14, 0, 0, KvmOutcome::Refused(KvmStep::Run, Errno::EFAULT)),
            (99, 0, 0, 0, KvmOutcome::Crashed),
        ] {
            assert_eq!(outcome(message(step, errno, reason, result)), expected);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_missing_device_and_one_that_is_not_kvm() {
        let limit = Duration::from_secs(2);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            try_kvm(&dir.path().join("kvm"), limit).unwrap(),
            KvmOutcome::Unopened(Errno::ENOENT)
        );
        assert_eq!(
            try_kvm(Path::new("/dev/null"), limit).unwrap(),
            KvmOutcome::Refused(KvmStep::Machine, Errno::ENOTTY)
        );
    }

    #[test]
    fn the_answer_comes_in_time_and_twice_the_same() {
        let limit = Duration::from_secs(2);
        let start = Instant::now();
        let first = try_kvm(Path::new("/dev/kvm"), limit).unwrap();
        assert!(start.elapsed() < limit + Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(first, try_kvm(Path::new("/dev/kvm"), limit).unwrap());
    }
}
