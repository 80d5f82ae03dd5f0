//! Finds out whether KVM works, by running a virtual processor.
//!
//! On some hosts /dev/kvm opens, and a virtual machine can be made, but no guest boots. So the test
//! runs a tiny guest: one page of memory with three instructions and space for their result, and
//! one virtual processor in real mode. The guest loads 1 with the floating-point unit, stores it as
//! an integer, and halts. KVM works if the result is `KVM_EXIT_HLT` and a 1 in the page. Every
//! other result means that KVM is not usable.
//!
//! A lone `hlt` is not enough: KVM can interpret some instructions in software, among them `hlt`,
//! and does so on hosts without hardware virtualization. Measured with the kvm_pvm module of Linux
//! 6.18: `hlt` halts in real and in 64-bit mode, while no ordinary kernel boots. The interpreter
//! lacks floating-point arithmetic, so a real processor has run a guest that has the result.
//!
//! The test runs in a fork, because a host with a broken KVM may hang or crash the process. The
//! fork writes one message to a pipe and ends. It makes system calls only, on memory that was
//! prepared before, so locks of other threads do not matter. If no message comes in time, the fork
//! is killed.
//!
//! The guest is for x86-64. On other architectures there is no test.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::io;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

/// The step at which the test failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum KvmStep {
    /// A virtual machine is made.
    Machine = 1,
    /// The machine gets memory.
    Memory = 2,
    /// A virtual processor is made.
    Processor = 3,
    /// The processor's registers are set.
    Registers = 4,
    /// The processor runs.
    Run = 5,
}

impl KvmStep {
    /// Returns the step with this number.
    fn from_number(number: u32) -> Option<Self> {
        [KvmStep::Machine, KvmStep::Memory, KvmStep::Processor, KvmStep::Registers, KvmStep::Run]
            .into_iter()
            .find(|step| *step as u32 == number)
    }
}

/// The result of the test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KvmOutcome {
    /// The guest stored its result and halted: KVM works.
    Halted,
    /// The device could not be opened; ENOENT if it does not exist.
    Unopened(Errno),
    /// The kernel refused a step.
    Refused(KvmStep, Errno),
    /// The guest stopped for this reason (`KVM_EXIT_*`) without its result.
    Stopped(u32),
    /// The test process ended without a message.
    Crashed,
    /// No message came within the limit.
    Hung,
    /// There is no test for this architecture.
    #[cfg_attr(target_arch = "x86_64", allow(dead_code, reason = "x86-64 has a test"))]
    Untested,
}

/// Runs a guest of three instructions on the KVM device `device` (normally /dev/kvm).
///
/// Blocks for at most `limit`, and for up to a quarter of a second more if the test process cannot
/// be killed at once.
///
/// # Errors
/// The test could not be started, because the pipe or the process could not be made.
pub(crate) fn try_kvm(device: &Path, limit: Duration) -> io::Result<KvmOutcome> {
    #[cfg(target_arch = "x86_64")]
    return x86::try_kvm(device, limit);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (device, limit);
        Ok(KvmOutcome::Untested)
    }
}

/// The length of the test process's message: the step, errno, the exit reason and the guest's
/// result, each a number of four bytes in native order.
const MESSAGE_LEN: usize = 16;
/// The number in place of a step, in a message about a guest that ran until it stopped.
const STOPPED: u32 = 0;
/// `KVM_EXIT_HLT`.
const EXIT_HLT: u32 = 5;
/// The result of a guest that really ran.
const RESULT: u32 = 1;

/// Returns the meaning of a message.
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
    fn a_message_is_read_as_its_outcome() {
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
    fn a_missing_device_and_another_device_are_not_usable() {
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
    fn the_same_result_comes_twice_and_in_time() {
        let limit = Duration::from_secs(2);
        let start = Instant::now();
        let first = try_kvm(Path::new("/dev/kvm"), limit).unwrap();
        assert!(start.elapsed() < limit + Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(first, try_kvm(Path::new("/dev/kvm"), limit).unwrap());
    }
}
