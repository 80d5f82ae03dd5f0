//! Runs the guest for x86-64 in a process of its own.
//!
//! The numbers and layouts are those of the kernel's interface (Documentation/virt/kvm/api.rst and
//! linux/kvm.h).

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::{self, c_int, c_ulong, c_void};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, pipe2};

use super::super::process::fork::raw_fork;
use super::{KvmOutcome, KvmStep, MESSAGE_LEN, STOPPED, outcome};

/// A page of guest memory, aligned as KVM requires it.
#[repr(C, align(4096))]
struct Page([u8; PAGE]);
const PAGE: usize = 4096;
/// The guest's address of the page.
const GUEST_ADDRESS: u64 = 0x1000;
/// `fld1`, `fistp word [0x1100]`, `hlt`.
const PROGRAM: [u8; 7] = [0xd9, 0xe8, 0xdf, 0x1e, 0x00, 0x11, 0xf4];
/// The offset in the page at which the program stores its result, two bytes.
const RESULT_AT: usize = 0x100;
/// Three free pages below the 4 GiB border, for Intel processors without unrestricted guests.
const TASK_STATE: c_ulong = 0xfffb_d000;

/// `struct kvm_userspace_memory_region`.
#[repr(C)]
struct Region {
    slot: u32,
    flags: u32,
    guest_address: u64,
    size: u64,
    host_address: u64,
}

/// `struct kvm_regs`: rax to r15, then rip and rflags.
#[repr(C)]
struct Registers([u64; 18]);
const RIP: usize = 16;
const RFLAGS: usize = 17;

/// `struct kvm_sregs`, which starts with the code segment: its base (8 bytes), its limit (4)
/// and its selector (2).
#[repr(C, align(8))]
struct Special([u8; 312]);

const fn request(direction: c_ulong, number: c_ulong, size: usize) -> c_ulong {
    direction << 30 | (size as c_ulong) << 16 | 0xae << 8 | number
}
const NONE: c_ulong = 0;
const WRITE: c_ulong = 1;
const READ: c_ulong = 2;
const CREATE_VM: c_ulong = request(NONE, 0x01, 0);
const GET_VCPU_MMAP_SIZE: c_ulong = request(NONE, 0x04, 0);
const CREATE_VCPU: c_ulong = request(NONE, 0x41, 0);
const SET_MEMORY: c_ulong = request(WRITE, 0x46, size_of::<Region>());
const SET_TSS_ADDR: c_ulong = request(NONE, 0x47, 0);
const RUN: c_ulong = request(NONE, 0x80, 0);
const SET_REGS: c_ulong = request(WRITE, 0x82, size_of::<Registers>());
const GET_SREGS: c_ulong = request(READ, 0x83, size_of::<Special>());
const SET_SREGS: c_ulong = request(WRITE, 0x84, size_of::<Special>());

pub(super) fn try_kvm(device: &Path, limit: Duration) -> io::Result<KvmOutcome> {
    let opened =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(device);
    let kvm = match opened {
        Ok(kvm) => kvm,
        Err(error) => {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
            return Ok(KvmOutcome::Unopened(errno));
        }
    };
    let mut page = Box::new(Page([0; PAGE]));
    page.0[..PROGRAM.len()].copy_from_slice(&PROGRAM);
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    let us = getpid();
    // SAFETY: the fork only runs `test`, which makes system calls only and never returns. The
    // descriptors and the page exist in the fork as well.
    let pid = unsafe {
        let pid = raw_fork(0);
        if pid == 0 {
            test(us.as_raw(), kvm.as_raw_fd(), write.as_raw_fd(), &raw mut *page);
        }
        pid
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    drop(write);
    let pid = Pid::from_raw(pid as c_int);
    let answer = await_message(read.into(), limit);
    end(pid);
    answer
}

/// Waits for the test process's message.
fn await_message(mut pipe: std::fs::File, limit: Duration) -> io::Result<KvmOutcome> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut waiting = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, timeout) {
            Ok(0) if left.is_zero() => return Ok(KvmOutcome::Hung),
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    let mut message = [0; MESSAGE_LEN];
    // The message is shorter than PIPE_BUF, so a write is whole or has no effect (pipe(7)).
    match pipe.read_exact(&mut message) {
        Ok(()) => Ok(outcome(message)),
        Err(_) => Ok(KvmOutcome::Crashed),
    }
}

/// Kills the test process and waits for its end, for at most a quarter of a second: a process that
/// hangs inside the kernel cannot be killed.
fn end(pid: Pid) {
    let _ = kill(pid, Signal::SIGKILL);
    for _ in 0..250 {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            _ => return,
        }
    }
    tracing::debug!(%pid, "the process that tested KVM could not be killed");
}

/// Writes the message and ends the process.
///
/// # Safety
/// `report` is the pipe, and this process is the test process.
unsafe fn send_message(report: c_int, step: u32, reason: u32, result: u32) -> ! {
    // SAFETY: __errno_location always returns a valid address, and write reads a local buffer of
    // the given length.
    unsafe {
        let message = [step, *libc::__errno_location() as u32, reason, result];
        libc::write(report, message.as_ptr().cast(), size_of_val(&message));
        libc::_exit(0);
    }
}

/// Runs the test, writes its message, and ends the process.
///
/// # Safety
/// The process is a new fork of `parent`, `kvm` and `report` are open descriptors, and `page` is
/// valid.
unsafe fn test(parent: c_int, kvm: c_int, report: c_int, page: *mut Page) -> ! {
    let mut registers = Registers([0; 18]);
    registers.0[RIP] = GUEST_ADDRESS;
    registers.0[RFLAGS] = 2; // The bit that is always one.
    let mut special = Special([0; 312]);
    let region = Region {
        slot: 0,
        flags: 0,
        guest_address: GUEST_ADDRESS,
        size: PAGE as u64,
        host_address: page as u64,
    };
    // SAFETY: each request gets the structure that the kernel expects for it; the sizes are in the
    // request numbers, and the structures are local. `page` is a whole page that exists as long as
    // this process. The run area is read after the kernel has written it, inside its mapped size,
    // which is at least a page.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong);
        if libc::getppid() != parent {
            libc::_exit(0);
        }
        let zero: c_ulong = 0;
        let machine = libc::ioctl(kvm, CREATE_VM as _, zero);
        if machine < 0 {
            send_message(report, KvmStep::Machine as u32, 0, 0);
        }
        libc::ioctl(machine, SET_TSS_ADDR as _, TASK_STATE);
        if libc::ioctl(machine, SET_MEMORY as _, &raw const region) < 0 {
            send_message(report, KvmStep::Memory as u32, 0, 0);
        }
        let processor = libc::ioctl(machine, CREATE_VCPU as _, zero);
        let size = libc::ioctl(kvm, GET_VCPU_MMAP_SIZE as _, zero);
        if processor < 0 || size < PAGE as c_int {
            send_message(report, KvmStep::Processor as u32, 0, 0);
        }
        let run: *mut c_void = libc::mmap(
            std::ptr::null_mut(),
            size as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            processor,
            0,
        );
        if run == libc::MAP_FAILED {
            send_message(report, KvmStep::Processor as u32, 0, 0);
        }
        if libc::ioctl(processor, GET_SREGS as _, &raw mut special) < 0 {
            send_message(report, KvmStep::Registers as u32, 0, 0);
        }
        // The code segment starts at address 0: its base and its selector.
        std::ptr::write_bytes((&raw mut special).cast::<u8>(), 0, 8);
        std::ptr::write_bytes((&raw mut special).cast::<u8>().add(12), 0, 2);
        if libc::ioctl(processor, SET_SREGS as _, &raw const special) < 0
            || libc::ioctl(processor, SET_REGS as _, &raw const registers) < 0
        {
            send_message(report, KvmStep::Registers as u32, 0, 0);
        }
        if libc::ioctl(processor, RUN as _, zero) < 0 {
            send_message(report, KvmStep::Run as u32, 0, 0);
        }
        // `struct kvm_run` has eight bytes of input for the kernel, then the exit reason.
        let reason = run.cast::<u32>().add(2).read_volatile();
        let result = page.cast::<u8>().add(RESULT_AT).cast::<u16>().read_volatile();
        send_message(report, STOPPED, reason, u32::from(result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_for_a_message_is_bounded_and_ends_at_the_end_of_the_process() {
        let limit = Duration::from_millis(50);
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let start = Instant::now();
        assert_eq!(await_message(read.into(), limit).unwrap(), KvmOutcome::Hung);
        assert!(start.elapsed() >= limit);
        drop(write);
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        nix::unistd::write(&write, &[0; 3]).unwrap();
        drop(write);
        let answer = await_message(read.into(), Duration::from_secs(5)).unwrap();
        assert_eq!(answer, KvmOutcome::Crashed);
    }

    #[test]
    fn a_test_process_that_never_answers_is_killed() {
        let us = getpid();
        // SAFETY: the fork makes system calls only.
        let pid = unsafe {
            let pid = raw_fork(0);
            if pid == 0 {
                loop {
                    libc::pause();
                }
            }
            Pid::from_raw(pid as c_int)
        };
        assert_ne!(pid, us);
        end(pid);
        assert_eq!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Err(Errno::ECHILD));
    }
}
