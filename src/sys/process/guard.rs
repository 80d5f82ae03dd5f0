//! The guard of a program: a fork of the caller that executes no program, except the cleanup
//! command after its program has ended.
//!
//! It mounts the file systems of a new namespace if there is one, forks the program's process, and
//! then waits in [`watch`]. The rules of [`super::fork`] apply to all code here.

use caps::Capability;
use libc::{c_char, c_int, c_ulong, pid_t};

use super::daemon::{Daemon, fork_second_guard, kill_children};
use super::fork::{EXITED, Prepared, Stage, errno, fail, raw_fork};
use super::output::Drain;
use super::program_process::program_main;
use crate::sys::privileges::keep_kill;

/// The number of the list of children ([`Daemon::children`]) in a guard.
const CHILDREN: c_int = 6;
/// How long a caller that has closed its socket may take to end, in milliseconds.
const CALLER_LIMIT: c_int = 1000;

/// Runs a guard: starts the program, then waits for its end, for signals to pass on, and for the
/// caller's end.
///
/// # Safety
/// The process is a new fork in which all signals are blocked, and the pointers of `p` are valid.
pub(super) unsafe fn guard_main(p: &Prepared) -> ! {
    // SAFETY: system calls on numbers, on constants that end with a NUL byte, on local memory, and
    // on the strings of `p`, which the caller vouches for.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"netlaunch-guard".as_ptr());
        if p.own_group {
            libc::setpgid(0, 0);
        }
        if p.namespace {
            let none = std::ptr::null();
            let slave = libc::MS_REC | libc::MS_SLAVE;
            let quiet = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            let proc = c"proc".as_ptr();
            if libc::mount(none, c"/".as_ptr(), none, slave, none.cast()) != 0
                || libc::mount(proc, c"/proc".as_ptr(), proc, quiet, none.cast()) != 0
            {
                fail(p.report, Stage::Mount);
            }
            if !(*p.covered).is_null() && !reveal(p.covered) {
                fail(p.report, Stage::Mount);
            }
        }
        // If the caller ignores SIGCHLD, the kernel would reap the program before the guard.
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut daemon = p.daemonizes.then(|| fork_second_guard(p));
        let guard = libc::getpid();
        let mut child_only: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut child_only);
        libc::sigaddset(&mut child_only, libc::SIGCHLD);
        let ended = libc::signalfd(-1, &child_only, libc::SFD_CLOEXEC);
        if ended < 0 {
            fail(p.report, Stage::Fork);
        }
        let program = match raw_fork(0) {
            0 => program_main(p, guard),
            pid if pid > 0 => pid as pid_t,
            _ => fail(p.report, Stage::Fork),
        };
        if p.user.is_some() {
            // If this fails, the guard only has more capabilities than it needs.
            keep_kill(bounding(p));
        }
        let [pipe, memory, log] = p.output;
        let children = daemon.as_ref().map_or(-1, |daemon| daemon.children);
        close_all_but([p.socket, ended, p.parent, pipe, memory, log, children]);
        if let Some(daemon) = &mut daemon {
            daemon.children = CHILDREN;
        }
        watch(p, program, daemon)
    }
}

/// Returns the capabilities that the command of [`Prepared::cleanup`] can get: those for changes of
/// firewall rules and their state files. Bit N is capability N.
fn bounding(p: &Prepared) -> u32 {
    let for_rules =
        [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW, Capability::CAP_DAC_OVERRIDE];
    if p.cleanup.is_null() {
        0
    } else {
        for_rules.into_iter().fold(0, |all, one| all | 1 << one.index())
    }
}

/// Covers the first path with an empty directory, and mounts the directory of the last path at the
/// same path below.
///
/// # Safety
/// The conditions of [`guard_main`], and the process has its own mount namespace. `paths` has at
/// least one path and then a null pointer.
unsafe fn reveal(paths: *const *const c_char) -> bool {
    // SAFETY: system calls on numbers and on strings that end with a NUL byte; the loop stops at
    // the null pointer.
    unsafe {
        let mut last = 0;
        while !(*paths.add(last + 1)).is_null() {
            last += 1;
        }
        let clone = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
        let tree = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, *paths.add(last), clone);
        let tmpfs = c"tmpfs".as_ptr();
        let options = c"mode=0711,size=64k".as_ptr();
        let quiet = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        if tree < 0 || libc::mount(tmpfs, *paths, tmpfs, quiet, options.cast()) != 0 {
            return false;
        }
        let umask = libc::umask(0);
        let mut made = true;
        for i in 1..=last {
            made = made && libc::mkdir(*paths.add(i), 0o711) == 0;
        }
        libc::umask(umask);
        if !made {
            return false;
        }
        let empty = c"".as_ptr();
        let from_fd: libc::c_uint = 4; // MOVE_MOUNT_F_EMPTY_PATH
        let moved = libc::syscall(
            libc::SYS_move_mount,
            tree as c_int,
            empty,
            libc::AT_FDCWD,
            *paths.add(last),
            from_fd,
        );
        libc::close(tree as c_int);
        moved == 0
    }
}

/// Moves descriptors to 0, 1, 2 and so on, and closes all others: a guard must not keep open a
/// terminal, a pipe, or an end of another process's socket. For a negative descriptor the number
/// stays closed.
///
/// # Safety
/// No code in this process uses another descriptor afterwards.
pub(super) unsafe fn close_all_but<const N: usize>(fds: [c_int; N]) {
    // SAFETY: system calls on numbers; a number that is not open gives an error.
    unsafe {
        let first = N as c_int;
        let mut high = [-1; N];
        for (i, fd) in fds.into_iter().enumerate() {
            if fd >= 0 {
                high[i] = libc::fcntl(fd, libc::F_DUPFD, first);
            }
        }
        for (i, fd) in high.into_iter().enumerate() {
            if fd < 0 || libc::dup2(fd, i as c_int) < 0 {
                libc::close(i as c_int);
            }
        }
        let last = u32::MAX as c_ulong;
        if libc::syscall(libc::SYS_close_range, N as c_ulong, last, 0 as c_ulong) != 0 {
            // Before Linux 5.9 there is no such call: the loop closes one by one, up to a number
            // above every default limit.
            for fd in first..65536 {
                libc::close(fd);
            }
        }
    }
}

/// Waits until the program or the caller has ended, passes signals on, and keeps the program's
/// standard error.
///
/// # Safety
/// Descriptor 0 is the socket, 1 is the signalfd for SIGCHLD, 2 is the pidfd of the caller or
/// closed; 3, 4 and 5 are those of [`Prepared::output`] or closed; the last is that of `daemon`.
/// `program` is a child of this process that has not been waited for.
unsafe fn watch(p: &Prepared, mut program: pid_t, mut daemon: Option<Daemon>) -> ! {
    let own_group = p.own_group;
    const SOCKET: usize = 0;
    const PARENT: usize = 2;
    const OUTPUT: usize = 3;
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut polled = [entry(0), entry(1), entry(2), entry(3)];
    // SAFETY: system calls on numbers and local memory. `program` stays a child to wait for until
    // `waitpid` returns it. Then this process ends, or the program is a daemon to wait for.
    unsafe {
        // poll would always return POLLNVAL for a closed number, and it skips a negative one.
        for optional in [PARENT, OUTPUT] {
            if libc::fcntl(optional as c_int, libc::F_GETFD) < 0 {
                polled[optional].fd = -1;
            }
        }
        let mut output = Drain::new([3, 4, 5]);
        loop {
            let mut status = 0;
            loop {
                match libc::waitpid(-1, &mut status, libc::WNOHANG) {
                    pid if pid == program => {
                        // The caller must find the whole output when it learns of the end.
                        output.all();
                        match daemon.as_mut().and_then(|daemon| daemon.after(status)) {
                            Some(daemon) => program = daemon,
                            None => report_end(p, status),
                        }
                    }
                    // An orphan: this guard is the init process of a namespace, or a subreaper.
                    pid if pid > 0 => {}
                    _ => break,
                }
            }
            if daemon.as_ref().is_some_and(|daemon| daemon.is_alone()) {
                end(p, program, daemon.as_ref());
            }
            libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1);
            let mut gone = polled[PARENT].revents != 0;
            if polled[SOCKET].revents != 0 {
                let mut signal = [0u8; 1];
                match libc::recv(0, signal.as_mut_ptr().cast(), 1, libc::MSG_DONTWAIT) {
                    1 => deliver(program, c_int::from(signal[0]), own_group),
                    0 => gone = true,
                    _ => gone |= !matches!(errno(), libc::EAGAIN | libc::EINTR),
                }
            }
            if gone {
                end(p, program, daemon.as_ref());
            }
            if polled[OUTPUT].revents != 0 && !output.some() {
                polled[OUTPUT].fd = -1;
            }
            let mut drained = [0u8; 128];
            if polled[1].revents != 0 {
                libc::read(1, drained.as_mut_ptr().cast(), drained.len());
            }
        }
    }
}

/// Sends a signal to the program. SIGKILL also goes to its helpers if it has its own process group.
///
/// # Safety
/// `program` is a child of this process that has not been waited for.
unsafe fn deliver(program: pid_t, signal: c_int, own_group: bool) {
    // SAFETY: no other process can have the number before the child has been waited for.
    unsafe {
        libc::kill(program, signal);
        if own_group && signal == libc::SIGKILL {
            libc::kill(-program, signal);
        }
    }
}

/// Kills the program, executes the command of [`Prepared::cleanup`] and ends the process.
///
/// # Safety
/// The descriptors are those of [`watch`], and `program` is a child of this process that has not
/// been waited for.
unsafe fn end(p: &Prepared, program: pid_t, daemon: Option<&Daemon>) -> ! {
    let mut status = 0;
    // SAFETY: system calls on numbers and local memory.
    unsafe {
        match daemon {
            Some(daemon) => kill_children(daemon.children),
            None => {
                deliver(program, libc::SIGKILL, p.own_group);
                libc::waitpid(program, &mut status, 0);
            }
        }
        clean_up(p)
    }
}

/// Executes the command of [`Prepared::cleanup`], if there is one, and ends the process. The caller
/// has ended by then, or it has only given the program up, and goes on.
///
/// # Safety
/// Descriptor 2 is the pidfd of the caller or closed, and the pointers of `p` are valid.
unsafe fn clean_up(p: &Prepared) -> ! {
    // SAFETY: system calls on numbers, on local memory, and on the strings of `p`.
    unsafe {
        if !p.cleanup.is_null() {
            // The kernel closes the tap of a killed caller later than its socket.
            let mut parent = libc::pollfd { fd: 2, events: libc::POLLIN, revents: 0 };
            libc::poll(&mut parent, 1, CALLER_LIMIT);
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            if null >= 0 {
                (0..3).for_each(|number| {
                    libc::dup2(null, number);
                });
                close_all_but([0, 1, 2]);
                let mut none: libc::sigset_t = std::mem::zeroed();
                libc::sigemptyset(&mut none);
                libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
                libc::execve(*p.cleanup, p.cleanup, p.envp);
            }
        }
        libc::_exit(0)
    }
}

/// Reports the program's wait status and ends the process.
///
/// # Safety
/// The descriptors are those of [`watch`], and the pointers of `p` are valid.
unsafe fn report_end(p: &Prepared, status: c_int) -> ! {
    // SAFETY: the caller's promise.
    unsafe {
        // Without this message the caller takes the program for killed.
        if !send(EXITED, status) {
            clean_up(p)
        }
        libc::_exit(0)
    }
}

/// Sends a message to the caller, and returns whether the caller can get it. If the kernel is short
/// of memory, the message is sent again, for at most one second.
///
/// # Safety
/// Descriptor 0 is the socket.
pub(super) unsafe fn send(kind: u8, number: c_int) -> bool {
    let mut message = [kind, 0, 0, 0, 0];
    message[1..].copy_from_slice(&number.to_ne_bytes());
    // SAFETY: send reads a local buffer of the given length; poll without descriptors is a pause.
    unsafe {
        for _ in 0..100 {
            let sent = libc::send(0, message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL);
            if sent >= 0 || !matches!(errno(), libc::ENOBUFS | libc::ENOMEM) {
                return sent >= 0;
            }
            libc::poll(std::ptr::null_mut(), 0, 10);
        }
        false
    }
}
