//! The rules and the data for code that runs in a fork: in a guard and, until the program is
//! executed, in the program's process.
//!
//! Both processes are forks of a process that may have other threads, and in a fork no other thread
//! exists that could release a lock. So between clone(2) and execve(2) or _exit(2) nothing here
//! allocates, locks or panics. The code makes system calls, through thin wrappers of the C library,
//! on memory that [`super::start`] prepared before the fork. Beyond the list in
//! signal-safety(7) it relies on the wrappers of prctl, mount, signalfd, close_range and the like,
//! which do nothing but the system call.
//!
//! Signal handlers of the forked process must not run either, because they may lock, or write to
//! a pipe that is shared with the caller. All signals are blocked in a guard for its whole life.
//! The program's process unblocks signals just before execve(2), and before that it sets every
//! handler back to the default action, as execve itself would do.

use libc::{c_char, c_int, c_ulong};

use crate::sys::privileges::TargetUser;

/// The data for both processes, prepared before the fork.
///
/// The pointers stay valid: a forked process has a copy of the whole memory, and never returns to
/// the code that owns it.
pub(super) struct Prepared {
    /// The program's path, which ends with a NUL byte.
    pub(super) program: *const c_char,
    /// The arguments, with a null pointer at the end.
    pub(super) argv: *const *const c_char,
    /// The environment, with a null pointer at the end.
    pub(super) envp: *const *const c_char,
    /// `(from, to)`: the descriptors of the program; every `from` is above every `to`.
    pub(super) fds: *const (c_int, c_int),
    /// The number of entries in `fds`.
    pub(super) fds_len: usize,
    /// The guard's end of the socket.
    pub(super) socket: c_int,
    /// The write end of the pipe that reports a failed start. A successful execve(2) closes it.
    pub(super) report: c_int,
    /// A pidfd of the caller's process, or -1.
    pub(super) parent: c_int,
    /// The pipe, the file in memory and the log of [`super::output`], each of them or -1.
    pub(super) output: [c_int; 3],
    /// Whether the program also gets every descriptor without the close-on-exec flag.
    pub(super) inherit: bool,
    /// Whether guard and program each get their own process group, away from the terminal.
    pub(super) own_group: bool,
    /// Whether the guard is the init process of new PID and mount namespaces.
    pub(super) namespace: bool,
    /// Whether the program daemonizes, and so has two guards ([`super::daemon`]).
    pub(super) daemonizes: bool,
    /// The program's signal mask.
    pub(super) mask: libc::sigset_t,
    /// The paths of a [`super::Reveal`], with a null pointer at the end: the covered directory,
    /// then each directory below it down to the revealed one. No path if there is nothing to
    /// reveal.
    pub(super) covered: *const *const c_char,
    /// The program file, opened before a directory above it is covered; or -1.
    pub(super) program_fd: c_int,
    /// The command that the guard executes if the caller is gone, its path first and a null pointer
    /// at the end; null if there is none.
    pub(super) cleanup: *const *const c_char,
    /// The user that the program's process becomes, if there is one.
    pub(super) user: Option<TargetUser>,
    /// The limit of open files that the program gets; `None` is that of the caller.
    pub(super) file_limit: Option<libc::rlimit>,
}

/// The step at which a start failed. The report pipe carries it together with errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// The mounts in new namespaces.
    Mount = 1,
    /// The preparation of the guard, or the fork of the program's process.
    Fork = 2,
    /// The moves of the program's descriptors.
    Descriptors = 3,
    /// The execution of the program.
    Exec = 4,
    /// The change to another user.
    User = 5,
    /// The list of a guard's children in /proc.
    Children = 6,
}

impl Stage {
    /// Returns the stage with this number.
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        use Stage::{Children, Descriptors, Exec, Fork, Mount, User};
        let all = [Mount, Fork, Descriptors, Exec, User, Children];
        all.into_iter().find(|stage| *stage as u8 == byte)
    }
}

/// The length of a report: the stage, then errno in native byte order.
pub(super) const REPORT_LEN: usize = 5;
/// The first byte of the message that the program's process sends before it executes the program.
pub(super) const STARTED: u8 = b's';
/// The first byte of the message with the program's wait status, in four more bytes in native
/// order.
pub(super) const EXITED: u8 = b'x';
/// The first byte of the message with the number of the daemon, in the same form. The first process
/// of the program has ended with status 0.
pub(super) const DAEMONIZED: u8 = b'd';

/// Forks like fork(2), but without the C library's fork handlers, and into the new namespaces that
/// `flags` name.
///
/// # Safety
/// Until it ends or executes a program, the new process may only make system calls: it must not
/// allocate, lock, panic or return to the caller's code.
pub(in crate::sys) unsafe fn raw_fork(flags: c_int) -> libc::c_long {
    let flags = c_ulong::from((flags | libc::SIGCHLD) as u32);
    let zero: c_ulong = 0;
    // SAFETY: with a null pointer for the stack, the new process runs on a copy of this stack, as
    // after fork(2). The other arguments have no meaning with these flags. s390x takes the stack
    // first (clone(2)).
    unsafe {
        if cfg!(target_arch = "s390x") {
            libc::syscall(libc::SYS_clone, zero, flags, zero, zero, zero)
        } else {
            libc::syscall(libc::SYS_clone, flags, zero, zero, zero, zero)
        }
    }
}

pub(in crate::sys) fn errno() -> c_int {
    // SAFETY: __errno_location always returns a valid address.
    unsafe { *libc::__errno_location() }
}

/// Reports a failed start and ends the process.
pub(super) fn fail(report: c_int, stage: Stage) -> ! {
    let mut message = [0u8; REPORT_LEN];
    message[0] = stage as u8;
    message[1..].copy_from_slice(&errno().to_ne_bytes());
    // SAFETY: write reads a local buffer of the given length.
    unsafe {
        libc::write(report, message.as_ptr().cast(), message.len());
        libc::_exit(127)
    }
}
