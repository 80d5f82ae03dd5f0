//! The guards of a program that daemonizes (`Spawn::daemonizes`), such as QEMU with `-daemonize`.
//!
//! QEMU forks twice and starts a session of its own in between. Its first process waits until the
//! guest is ready, and ends with status 0; or it ends with the status of a failed start. From then
//! on only the daemon is left:
//!
//! ```text
//! caller ── socket ── second guard ── first process ── (session leader) ── daemon
//!                └── first guard ─┘
//! ```
//!
//! Both guards are child subreapers (PR_SET_CHILD_SUBREAPER): a process whose parent ends becomes
//! the child of the nearest one. So the daemon is a child of the second guard once the session
//! leader has ended, and every other process that the program leaves behind is so as well. The
//! second guard has the socket and does the work of a guard. At each end it kills its children
//! until it has no child any more; a process that a child started becomes its own child meanwhile.
//!
//! `PR_SET_PDEATHSIG` of the daemon cannot be set, because a fork clears it (prctl(2)). So the
//! guards watch each other. If the second guard is killed, its children become those of the first
//! one, which kills them. If the first guard is killed, the second one gets a signal and kills its
//! children. If both are killed, the caller kills the daemon ([`super::Child`]), whose number it
//! knows once the daemon is ready. One gap is left: the daemon lives on if a killer hits both
//! guards and the caller before one of them is scheduled.
//!
//! The rules of [`super::fork`] apply to all code here. The numbers of children come from
//! /proc/thread-self/children, which is opened before the program is started. Each of them is
//! compared with the kernel's answer to waitid(2) before it is used: a process that is not a child
//! is never signalled.

use libc::{c_int, c_ulong, pid_t};

use super::fork::{DAEMONIZED, Prepared, Stage, fail, raw_fork};
use super::guard::{close_all_but, send};
use crate::sys::privileges::keep_kill;

/// How often the second guard looks for a daemon whose parent has not ended yet.
const ATTEMPTS: u32 = 100;
/// The pause between two of these attempts, in milliseconds.
const PAUSE: c_int = 10;

/// The knowledge of the second guard.
pub(super) struct Daemon {
    /// The first guard, the parent of this process.
    pub(super) first_guard: pid_t,
    /// An open /proc/thread-self/children of this process.
    pub(super) children: c_int,
    /// Whether the first process has ended and the daemon is the program.
    pub(super) is_ready: bool,
}

/// Makes this process the first guard, forks the second guard, and returns in that one.
///
/// # Safety
/// The conditions of [`super::guard::guard_main`].
pub(super) unsafe fn fork_second_guard(p: &Prepared) -> Daemon {
    // SAFETY: system calls on numbers and local memory.
    unsafe {
        let children = become_reaper(p);
        let first_guard = libc::getpid();
        match raw_fork(0) {
            0 => {
                libc::close(children);
                // The signal only wakes this process, which then looks at its parent.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGCHLD as c_ulong);
                Daemon { first_guard, children: become_reaper(p), is_ready: false }
            }
            second if second > 0 => {
                if p.user.is_some() {
                    keep_kill(0);
                }
                close_all_but([children]);
                let mut status = 0;
                while libc::waitpid(second as pid_t, &mut status, 0) < 0
                    && super::fork::errno() == libc::EINTR
                {}
                kill_children(0);
                libc::_exit(0)
            }
            _ => fail(p.report, Stage::Fork),
        }
    }
}

/// Makes this process a child subreaper, and opens the list of its children.
unsafe fn become_reaper(p: &Prepared) -> c_int {
    // SAFETY: system calls on numbers and on strings that end with a NUL byte.
    unsafe {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let list = libc::open(c"/proc/thread-self/children".as_ptr(), flags);
        if list < 0 || !is_own_proc() {
            fail(p.report, Stage::Children);
        }
        if libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1 as c_ulong) != 0 {
            fail(p.report, Stage::Fork);
        }
        list
    }
}

/// Returns whether /proc has the process numbers of this process's PID namespace; else sets errno.
unsafe fn is_own_proc() -> bool {
    let mut target = [0u8; 32];
    // SAFETY: readlink writes at most the given length of a local buffer.
    let (len, own) = unsafe {
        let path = c"/proc/self".as_ptr();
        (libc::readlink(path, target.as_mut_ptr().cast(), target.len()), libc::getpid())
    };
    let mut number: pid_t = 0;
    for byte in target.iter().take(len.max(0) as usize) {
        number = number.wrapping_mul(10).wrapping_add(pid_t::from(byte.wrapping_sub(b'0')));
    }
    if len > 0 && number != own {
        // SAFETY: __errno_location always returns a valid address.
        unsafe { *libc::__errno_location() = libc::ESRCH };
    }
    number == own
}

impl Daemon {
    /// Handles the end of the program, the first process or the daemon, with this wait status.
    /// Returns the daemon if the first process has ended well. Otherwise kills what is left, and
    /// returns `None`.
    ///
    /// # Safety
    /// The conditions of [`super::guard::guard_main`]; descriptor 0 is the socket.
    pub(super) unsafe fn after(&mut self, status: c_int) -> Option<pid_t> {
        // SAFETY: the caller's promise.
        unsafe {
            if status == 0 && !self.is_ready {
                self.is_ready = true;
                if let Some(daemon) = self.find() {
                    send(DAEMONIZED, daemon);
                    return Some(daemon);
                }
            }
            kill_children(self.children);
            None
        }
    }

    /// Returns whether the first guard has ended.
    ///
    /// # Safety
    /// The conditions of [`super::guard::guard_main`].
    pub(super) unsafe fn is_alone(&self) -> bool {
        // SAFETY: a system call without arguments.
        unsafe { libc::getppid() != self.first_guard }
    }

    /// Finds the daemon among the children of this process: the last one in a session of which it
    /// is not the leader, and which is not that of this process. The leader of that session is the
    /// daemon's parent until it ends.
    ///
    /// # Safety
    /// The conditions of [`super::guard::guard_main`].
    unsafe fn find(&self) -> Option<pid_t> {
        // SAFETY: system calls on numbers; poll without descriptors is a pause.
        unsafe {
            let own = libc::getsid(0);
            for _ in 0..ATTEMPTS {
                let (mut daemon, mut any) = (None, false);
                each_child(self.children, |child| {
                    any = true;
                    let session = libc::getsid(child);
                    if session > 0 && session != own && session != child {
                        daemon = Some(child);
                    }
                });
                if daemon.is_some() || !any {
                    return daemon;
                }
                libc::poll(std::ptr::null_mut(), 0, PAUSE);
            }
            None
        }
    }
}

/// Kills the children of this process until it has none. `children` is its open list.
///
/// # Safety
/// The conditions of [`super::guard::guard_main`].
pub(super) unsafe fn kill_children(children: c_int) {
    // SAFETY: system calls on numbers. A child that has not been waited for keeps its number.
    unsafe {
        loop {
            each_child(children, |child| {
                libc::kill(child, libc::SIGKILL);
            });
            // A killed process leaves its own children to this one, so the list is read again
            // after each end.
            let mut status = 0;
            if libc::waitpid(-1, &mut status, 0) < 0 && super::fork::errno() != libc::EINTR {
                return;
            }
        }
    }
}

/// Calls `each` with the number of every child in the list, zombies included. Of a very long list
/// only the beginning is read.
///
/// # Safety
/// `children` is an open /proc/thread-self/children of this process.
unsafe fn each_child(children: c_int, mut each: impl FnMut(pid_t)) {
    let mut text = [0u8; 4096];
    // SAFETY: pread writes at most the given length of a local buffer.
    let len = unsafe { libc::pread(children, text.as_mut_ptr().cast(), text.len(), 0) };
    let mut number: pid_t = 0;
    // A space follows each number.
    for byte in text.iter().take(len.max(0) as usize) {
        if byte.is_ascii_digit() {
            number = number.wrapping_mul(10).wrapping_add(pid_t::from(*byte - b'0'));
            continue;
        }
        // SAFETY: a system call on a number.
        if number > 0 && unsafe { is_child(number) } {
            each(number);
        }
        number = 0;
    }
}

/// Returns whether a process is a child of this one that has not been waited for.
///
/// # Safety
/// The conditions of [`super::guard::guard_main`].
unsafe fn is_child(pid: pid_t) -> bool {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: waitid fills a local structure, for which zero bytes are a valid value. With WNOWAIT
    // the child stays one to wait for.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) == 0
    }
}

#[cfg(test)]
mod tests;
