//! The program's process: a fork of the guard, until it executes the program.
//!
//! The rules of [`super::fork`] apply to all code here.

use libc::{c_ulong, pid_t};

use super::fork::{Prepared, STARTED, Stage, errno, fail};
use super::inherited_fd::close_on_exec;
use crate::sys::privileges::become_user;

/// Runs the program's process until it executes the program.
///
/// # Safety
/// The conditions of [`super::guard::guard_main`].
pub(super) unsafe fn program_main(p: &Prepared, guard: pid_t) -> ! {
    // SAFETY: system calls; the pointers of `p` are valid, and a null pointer ends each list.
    unsafe {
        if p.own_group {
            libc::setpgid(0, 0);
        }
        die_with(guard);
        // This process may ignore these two (`ignore_write_signals`); the program must not.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::signal(libc::SIGXFSZ, libc::SIG_DFL);
        libc::send(p.socket, [STARTED].as_ptr().cast(), 1, libc::MSG_NOSIGNAL);
        if !p.inherit {
            // dup2 clears the flag for the descriptors of the program.
            close_on_exec();
        }
        for i in 0..p.fds_len {
            let (from, to) = *p.fds.add(i);
            if libc::dup2(from, to) < 0 {
                fail(p.report, Stage::Descriptors);
            }
        }
        if let Some(user) = &p.user {
            if !become_user(user) {
                fail(p.report, Stage::User);
            }
            // The change of credentials has cleared PR_SET_PDEATHSIG (prctl(2)).
            die_with(guard);
        }
        if let Some(limit) = &p.file_limit {
            // This cannot fail: the hard limit stays. Descriptors above the limit stay open.
            libc::setrlimit(libc::RLIMIT_NOFILE, limit);
        }
        reset_handlers();
        libc::sigprocmask(libc::SIG_SETMASK, &p.mask, std::ptr::null_mut());
        libc::execve(p.program, p.argv, p.envp);
        if p.program_fd >= 0 && errno() == libc::ENOENT {
            // The program lies below the covered directory, and its descriptor still leads to it.
            let flags = libc::AT_EMPTY_PATH;
            libc::syscall(libc::SYS_execveat, p.program_fd, c"".as_ptr(), p.argv, p.envp, flags);
        }
        fail(p.report, Stage::Exec)
    }
}

/// Makes the kernel kill this process when its parent, the guard, ends.
///
/// # Safety
/// The conditions of [`super::guard::guard_main`]; the process is the guard's child.
unsafe fn die_with(guard: pid_t) {
    // SAFETY: system calls on numbers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong);
        if libc::getppid() != guard {
            libc::_exit(127); // the guard ended before the prctl call
        }
    }
}

/// Sets every signal handler back to the default action; an ignored signal stays ignored.
///
/// Without this, a handler of the caller could run in the program's process between the change of
/// the signal mask and execve(2), which also sets handlers back.
///
/// # Safety
/// The conditions of [`super::guard::guard_main`].
unsafe fn reset_handlers() {
    // SAFETY: system calls on numbers and on local memory; an action of zero bytes is a valid one.
    unsafe {
        for signal in 1..=libc::SIGRTMAX() {
            let mut action: libc::sigaction = std::mem::zeroed();
            // The C library reserves some numbers and refuses them.
            let known = libc::sigaction(signal, std::ptr::null(), &mut action) == 0;
            if known && ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction) {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use libc::c_int;

    use super::*;
    use crate::sys::process::fork::raw_fork;

    #[test]
    fn handlers_are_reset_and_ignored_signals_stay_ignored() {
        extern "C" fn handler(_: c_int) {}
        let handler = handler as extern "C" fn(c_int) as libc::sighandler_t;
        // SAFETY: the fork makes system calls only and ends with _exit.
        let status = unsafe {
            let pid = raw_fork(0);
            if pid == 0 {
                libc::signal(libc::SIGUSR1, handler);
                libc::signal(libc::SIGUSR2, libc::SIG_IGN);
                reset_handlers();
                let was_default = libc::signal(libc::SIGUSR1, libc::SIG_DFL) == libc::SIG_DFL;
                let was_ignored = libc::signal(libc::SIGUSR2, libc::SIG_DFL) == libc::SIG_IGN;
                libc::_exit(c_int::from(!(was_default && was_ignored)));
            }
            let mut status = -1;
            assert_eq!(libc::waitpid(pid as pid_t, &mut status, 0), pid as pid_t);
            status
        };
        assert_eq!(status, 0);
    }
}
