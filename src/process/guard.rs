//! The code that runs in a guard and, before it executes, in the guarded program's process.
//!
//! Between `clone` and `execve` or `_exit` only async-signal-safe calls are allowed (the caller may
//! have had other threads holding locks), so nothing here allocates, panics or locks: everything
//! needed was laid out by [`super::spawn`] beforehand.

use libc::{c_char, c_int, c_ulong, pid_t};

use super::inherited::close_on_exec;
use super::output::Drain;
use super::privileges::{Become, become_user, keep_kill};

/// What the two processes need, made before the fork; the pointers stay valid because the forked
/// process has a copy of the whole memory and never returns to the code that owns it.
pub(super) struct Prepared {
    /// The program, NUL-terminated.
    pub(super) program: *const c_char,
    /// NULL-terminated argument vector.
    pub(super) argv: *const *const c_char,
    /// NULL-terminated environment.
    pub(super) envp: *const *const c_char,
    /// `(from, to)`: descriptors the program gets; every `from` is above every `to`.
    pub(super) fds: *const (c_int, c_int),
    /// Number of entries in `fds`.
    pub(super) fds_len: usize,
    /// The guard's end of the socket.
    pub(super) socket: c_int,
    /// The write end of the pipe that reports a failed start and closes at a successful one.
    pub(super) report: c_int,
    /// A pidfd of our process, or -1.
    pub(super) parent: c_int,
    /// The pipe, the file in memory and the log of [`super::output`]; -1 for each that is not there.
    pub(super) output: [c_int; 3],
    /// Whether the program also gets every other descriptor that this process would pass on.
    pub(super) inherit: bool,
    /// Whether guard and program leave our process group, and with it our terminal.
    pub(super) own_group: bool,
    /// Whether the guard is the init of new PID and mount namespaces.
    pub(super) namespace: bool,
    /// The signal mask the program starts with.
    pub(super) mask: libc::sigset_t,
    /// NULL-terminated paths of a [`super::Reveal`]: what is covered, then each directory below it
    /// down to the one revealed; empty for none.
    pub(super) covered: *const *const c_char,
    /// The program, opened before a directory above it may be covered; or -1.
    pub(super) program_fd: c_int,
    /// The user whom the program's process becomes, if any.
    pub(super) user: Option<Become>,
}

/// Where a start failed; with an errno this is what travels through the report pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// Making /proc of a new PID namespace.
    Mount = 1,
    /// Forking, or preparing the guard.
    Fork = 2,
    /// Placing the program's descriptors.
    Descriptors = 3,
    /// Executing the program.
    Exec = 4,
    /// Becoming another user.
    User = 5,
}

impl Stage {
    /// The stage with this number.
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Stage::Mount, Stage::Fork, Stage::Descriptors, Stage::Exec, Stage::User]
            .into_iter()
            .find(|stage| *stage as u8 == byte)
    }
}

/// Length of a failure on the report pipe: the stage, then errno in native order.
pub(super) const REPORT_LEN: usize = 5;
/// First byte of the message the program's process sends before it executes.
pub(super) const STARTED: u8 = b's';
/// First byte of the message with the program's wait status (four more bytes, native order).
pub(super) const EXITED: u8 = b'x';

/// Forks like fork(2) but without the C library's handlers, into new namespaces where `flags` say.
///
/// # Safety
/// The new process may only make async-signal-safe calls.
pub(super) unsafe fn raw_fork(flags: c_int) -> libc::c_long {
    let flags = c_ulong::from((flags | libc::SIGCHLD) as u32);
    let zero: c_ulong = 0;
    // SAFETY: a NULL stack makes the child run on a copy of this one, as fork does; the other
    // arguments are unused with these flags. s390x takes the stack first (clone(2)).
    unsafe {
        if cfg!(target_arch = "s390x") {
            libc::syscall(libc::SYS_clone, zero, flags, zero, zero, zero)
        } else {
            libc::syscall(libc::SYS_clone, flags, zero, zero, zero, zero)
        }
    }
}

fn errno() -> c_int {
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() }
}

/// Reports a failed start and leaves.
fn fail(report: c_int, stage: Stage) -> ! {
    let mut message = [0u8; REPORT_LEN];
    message[0] = stage as u8;
    message[1..].copy_from_slice(&errno().to_ne_bytes());
    // SAFETY: the buffer is valid for its length; _exit never returns.
    unsafe {
        libc::write(report, message.as_ptr().cast(), message.len());
        libc::_exit(127)
    }
}

/// The guard: starts the program, then waits for its end, our orders, or our end.
///
/// # Safety
/// Runs in a freshly forked process in which all signals are blocked, with a valid `p`.
pub(super) unsafe fn guard_main(p: &Prepared) -> ! {
    // SAFETY: plain system calls on integers, NUL-terminated constants and local memory.
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
        let guard = libc::getpid();
        let mut child_only: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut child_only);
        libc::sigaddset(&mut child_only, libc::SIGCHLD);
        // A caller that ignores SIGCHLD would have the kernel reap the program before us.
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
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
            // Where this fails the guard can do more than it needs, and its work all the same.
            keep_kill();
        }
        let [pipe, memory, log] = p.output;
        keep_only([p.socket, ended, p.parent, pipe, memory, log]);
        watch(program, p.own_group)
    }
}

/// Covers the first path with an empty directory and mounts the last one again at its place below.
///
/// # Safety
/// As [`guard_main`], in a mount namespace of our own; `paths` is NULL-terminated and not empty.
unsafe fn reveal(paths: *const *const c_char) -> bool {
    // SAFETY: plain system calls on NUL-terminated strings and numbers.
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

/// The program's process up to its `execve`.
///
/// # Safety
/// As [`guard_main`].
unsafe fn program_main(p: &Prepared, guard: pid_t) -> ! {
    // SAFETY: plain system calls; the pointers of `p` are valid, their vectors NULL-terminated.
    unsafe {
        if p.own_group {
            libc::setpgid(0, 0);
        }
        go_with(guard);
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::send(p.socket, [STARTED].as_ptr().cast(), 1, libc::MSG_NOSIGNAL);
        if !p.inherit {
            // dup2 clears the flag again for the descriptors that the program gets.
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
            go_with(guard); // the change has cleared it (prctl(2))
        }
        libc::sigprocmask(libc::SIG_SETMASK, &p.mask, std::ptr::null_mut());
        libc::execve(p.program, p.argv, p.envp);
        if p.program_fd >= 0 && errno() == libc::ENOENT {
            // It lies below the directory that was covered, and can still be reached this way.
            let flags = libc::AT_EMPTY_PATH;
            libc::syscall(libc::SYS_execveat, p.program_fd, c"".as_ptr(), p.argv, p.envp, flags);
        }
        fail(p.report, Stage::Exec)
    }
}

/// Has the kernel kill this process when its parent, the guard, ends.
///
/// # Safety
/// As [`guard_main`], in the guard's child.
unsafe fn go_with(guard: pid_t) {
    // SAFETY: plain system calls on numbers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong);
        if libc::getppid() != guard {
            libc::_exit(127); // the guard went before the kernel knew that we go with it
        }
    }
}

/// Moves descriptors to 0, 1, 2 and so on and closes all others: a guard must not keep a terminal, a
/// pipe or the other end of another process's socket open. A negative one leaves its number closed.
///
/// # Safety
/// Nothing else in this process may use a descriptor afterwards.
unsafe fn keep_only<const N: usize>(fds: [c_int; N]) {
    // SAFETY: numbers only; closing what is not open is harmless.
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
            // Before Linux 5.9: one by one, up to what any default limit allows.
            for fd in first..65536 {
                libc::close(fd);
            }
        }
    }
}

/// Waits until the program has ended or we are gone, and keeps what it prints.
///
/// # Safety
/// Descriptors 0, 1 and 2 are the socket, the signalfd for SIGCHLD and our pidfd (or closed); 3, 4
/// and 5 are those of [`Prepared::output`] (or closed).
unsafe fn watch(program: pid_t, own_group: bool) -> ! {
    const SOCKET: usize = 0;
    const PARENT: usize = 2;
    const OUTPUT: usize = 3;
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut polled = [entry(0), entry(1), entry(2), entry(3)];
    // SAFETY: system calls on local memory; `program` is our child and not yet waited for until
    // `waitpid` returns it, after which this process leaves.
    unsafe {
        // poll would answer POLLNVAL for ever for a closed number; a negative one is skipped.
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
                        // All of it is there before the end is known.
                        output.all();
                        tell_and_leave(status)
                    }
                    pid if pid > 0 => {} // an orphan of the namespace whose init we are
                    _ => break,
                }
            }
            libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1);
            let mut gone = polled[PARENT].revents != 0;
            if polled[SOCKET].revents != 0 {
                let mut order = [0u8; 1];
                match libc::recv(0, order.as_mut_ptr().cast(), 1, libc::MSG_DONTWAIT) {
                    1 => deliver(program, c_int::from(order[0]), own_group),
                    0 => gone = true,
                    _ => gone |= !matches!(errno(), libc::EAGAIN | libc::EINTR),
                }
            }
            if gone {
                deliver(program, libc::SIGKILL, own_group);
                libc::waitpid(program, &mut status, 0);
                libc::_exit(0);
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

/// Sends a signal to the program; SIGKILL reaches its helpers, too, where it has a group of its own.
///
/// # Safety
/// `program` must be an unwaited child of this process.
unsafe fn deliver(program: pid_t, signal: c_int, own_group: bool) {
    // SAFETY: the number cannot have been used again while the child is not waited for.
    unsafe {
        libc::kill(program, signal);
        if own_group && signal == libc::SIGKILL {
            libc::kill(-program, signal);
        }
    }
}

/// Reports the program's wait status and leaves.
///
/// # Safety
/// Descriptor 0 is the socket.
unsafe fn tell_and_leave(status: c_int) -> ! {
    let mut message = [EXITED, 0, 0, 0, 0];
    message[1..].copy_from_slice(&status.to_ne_bytes());
    // SAFETY: the buffer is valid for its length; _exit never returns.
    unsafe {
        // Without this message the program counts as killed: while the kernel is short of memory for
        // it, it is sent again, for a second at most.
        for _ in 0..100 {
            let sent = libc::send(0, message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL);
            if sent >= 0 || !matches!(errno(), libc::ENOBUFS | libc::ENOMEM) {
                break;
            }
            libc::poll(std::ptr::null_mut(), 0, 10);
        }
        libc::_exit(0)
    }
}
