//! Lists the system calls with an injected error, and the errors that each of them can return.
//!
//! The list leaves out calls that cannot fail: brk(2) returns the old end instead of an error, and
//! rt_sigprocmask(2) only refuses wrong arguments.

use nix::errno::Errno;

/// The fault of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The call does nothing and returns this error.
    Error(i32),
    /// The process is killed before the call.
    Kill,
}

impl Fault {
    /// Returns the name, such as `ENOSPC` or `KILL`.
    pub fn name(self) -> String {
        match self {
            Fault::Error(errno) => format!("{:?}", Errno::from_raw(errno)),
            Fault::Kill => "KILL".to_owned(),
        }
    }
}

/// A system call and its possible errors.
pub struct Call {
    pub name: &'static str,
    pub number: i64,
    errors: &'static [Errno],
}

impl Call {
    /// Returns the faults for this call of a process with this role.
    ///
    /// A tool is killed, or its messages to the kernel are lost. The reaction of a tool to other
    /// errors is not netlaunch's.
    ///
    /// NETLAUNCH_INJECT_ERRORS=all gives each call the errors of [`COMMON`], also those that the
    /// kernel never returns from this call.
    pub fn faults(&self, role: &str) -> Vec<Fault> {
        let all = std::env::var("NETLAUNCH_INJECT_ERRORS").is_ok_and(|which| which == "all");
        let errors = if all && !INFALLIBLE.contains(&self.name) { COMMON } else { self.errors };
        let errors = || errors.iter().map(|errno| Fault::Error(*errno as i32));
        match role {
            "main" | "learner" => errors().collect(),
            // A forked process that has not executed a program yet, mostly a guard. Its signals are
            // blocked, so EINTR is impossible, and it does not ignore SIGCHLD, so ECHILD is
            // impossible.
            "fork" => {
                let never = [Errno::EINTR, Errno::ECHILD].map(|errno| Fault::Error(errno as i32));
                errors().filter(|fault| !never.contains(fault)).collect()
            }
            _ if ["sendmsg", "sendto"].contains(&self.name) => {
                vec![Fault::Kill, Fault::Error(Errno::ENOBUFS as i32)]
            }
            _ if KILLED_BEFORE.contains(&self.name) => vec![Fault::Kill],
            _ => Vec::new(),
        }
    }
}

/// The errors of a host that lacks a resource, of a broken disk, and of a signal.
const COMMON: &[Errno] = &[Errno::ENOSPC, Errno::EIO, Errno::EMFILE, Errno::ENOMEM, Errno::EINTR];

/// The calls for which the standard library and tokio panic at an error that the kernel cannot
/// return from them.
const INFALLIBLE: [&str; 3] = ["getrandom", "epoll_wait", "epoll_pwait"];

/// The calls before which a tool is killed.
const KILLED_BEFORE: [&str; 7] =
    ["openat", "recvmsg", "recvfrom", "write", "setsockopt", "renameat", "socket"];

macro_rules! calls {
    ($($name:ident: $($errno:ident)*;)*) => {
        /// All calls with injected errors.
        pub const CALLS: &[Call] = &[$(Call {
            name: stringify!($name),
            number: calls!(@ $name),
            errors: &[$(Errno::$errno),*],
        }),*];
    };
    (@ $name:ident) => { numbers::$name };
}

#[cfg(target_arch = "x86_64")]
#[allow(non_upper_case_globals, reason = "the names are those of the calls")]
mod numbers {
    macro_rules! numbers {
        ($($name:ident = $number:ident;)*) => {
            $(pub(super) const $name: i64 = libc::$number;)*
        };
    }
    numbers! {
        openat = SYS_openat; read = SYS_read; pread64 = SYS_pread64; write = SYS_write;
        writev = SYS_writev; mmap = SYS_mmap; mprotect = SYS_mprotect;
        clone = SYS_clone; clone3 = SYS_clone3; fork = SYS_fork; vfork = SYS_vfork;
        execve = SYS_execve; execveat = SYS_execveat; socket = SYS_socket;
        socketpair = SYS_socketpair; bind = SYS_bind; listen = SYS_listen;
        connect = SYS_connect; sendto = SYS_sendto; sendmsg = SYS_sendmsg;
        recvfrom = SYS_recvfrom; recvmsg = SYS_recvmsg; setsockopt = SYS_setsockopt;
        getsockopt = SYS_getsockopt; getsockname = SYS_getsockname; ioctl = SYS_ioctl;
        flock = SYS_flock; fcntl = SYS_fcntl; rename = SYS_rename; renameat = SYS_renameat;
        renameat2 = SYS_renameat2; unlink = SYS_unlink; unlinkat = SYS_unlinkat;
        rmdir = SYS_rmdir; mkdir = SYS_mkdir; mkdirat = SYS_mkdirat; mknodat = SYS_mknodat;
        chmod = SYS_chmod; fchmod = SYS_fchmod; fchmodat = SYS_fchmodat; chown = SYS_chown;
        fchown = SYS_fchown; fchownat = SYS_fchownat; fsync = SYS_fsync;
        fdatasync = SYS_fdatasync; ftruncate = SYS_ftruncate; lseek = SYS_lseek;
        getdents64 = SYS_getdents64; statx = SYS_statx; newfstatat = SYS_newfstatat;
        fstat = SYS_fstat; access = SYS_access; faccessat2 = SYS_faccessat2;
        readlink = SYS_readlink; readlinkat = SYS_readlinkat; getcwd = SYS_getcwd;
        epoll_create1 = SYS_epoll_create1; epoll_ctl = SYS_epoll_ctl;
        epoll_wait = SYS_epoll_wait; epoll_pwait = SYS_epoll_pwait; poll = SYS_poll;
        ppoll = SYS_ppoll; pipe2 = SYS_pipe2; eventfd2 = SYS_eventfd2;
        signalfd4 = SYS_signalfd4; timerfd_create = SYS_timerfd_create;
        memfd_create = SYS_memfd_create; inotify_init1 = SYS_inotify_init1;
        dup = SYS_dup; dup2 = SYS_dup2; dup3 = SYS_dup3; close_range = SYS_close_range;
        prctl = SYS_prctl; capget = SYS_capget; capset = SYS_capset;
        setresuid = SYS_setresuid; setresgid = SYS_setresgid; setgroups = SYS_setgroups;
        setsid = SYS_setsid; setpgid = SYS_setpgid; mount = SYS_mount; umount2 = SYS_umount2;
        unshare = SYS_unshare; setns = SYS_setns; pivot_root = SYS_pivot_root;
        chdir = SYS_chdir; pidfd_open = SYS_pidfd_open;
        pidfd_send_signal = SYS_pidfd_send_signal; kill = SYS_kill; waitid = SYS_waitid;
        wait4 = SYS_wait4; getrandom = SYS_getrandom; sigaltstack = SYS_sigaltstack;
        prlimit64 = SYS_prlimit64;
        getxattr = SYS_getxattr; openat2 = SYS_openat2; linkat = SYS_linkat;
        symlinkat = SYS_symlinkat; fallocate = SYS_fallocate;
    }
}

#[cfg(target_arch = "x86_64")]
calls! {
    openat: EMFILE ENFILE ENOENT EACCES EIO; openat2: EMFILE EACCES ENOSYS;
    read: EIO EINTR; pread64: EIO; write: ENOSPC EIO EINTR; writev: ENOSPC;
    mmap: ENOMEM; mprotect: ENOMEM;
    clone: EAGAIN ENOMEM; clone3: EAGAIN ENOMEM ENOSYS; fork: EAGAIN; vfork: EAGAIN ENOMEM;
    execve: ENOENT EACCES ENOMEM ETXTBSY; execveat: EACCES ENOMEM;
    socket: EMFILE EAFNOSUPPORT ENOBUFS; socketpair: EMFILE; bind: EADDRINUSE EPERM;
    listen: EADDRINUSE; connect: ECONNREFUSED EAGAIN; sendto: ENOBUFS EINTR;
    sendmsg: ENOBUFS EINTR; recvfrom: ENOBUFS EINTR; recvmsg: ENOBUFS EINTR;
    setsockopt: ENOMEM EPERM; getsockopt: ENOBUFS; getsockname: ENOBUFS;
    ioctl: EBUSY EPERM; flock: EINTR ENOLCK; fcntl: EMFILE;
    rename: ENOSPC EIO; renameat: ENOSPC EIO; renameat2: ENOSPC EINVAL;
    unlink: EIO EBUSY; unlinkat: EIO EBUSY; rmdir: EIO EBUSY; mkdir: ENOSPC EROFS;
    mkdirat: ENOSPC EROFS; mknodat: ENOSPC; chmod: EPERM; fchmod: EPERM; fchmodat: EPERM;
    chown: EPERM; fchown: EPERM; fchownat: EPERM; fsync: EIO; fdatasync: EIO;
    ftruncate: EIO ENOSPC; fallocate: ENOSPC EOPNOTSUPP; lseek: EIO; getdents64: EIO;
    statx: EIO; newfstatat: EIO; fstat: EIO; access: EACCES; faccessat2: EACCES;
    readlink: EACCES; readlinkat: EACCES; getcwd: ENOENT; getxattr: EACCES;
    linkat: ENOSPC; symlinkat: ENOSPC;
    epoll_create1: EMFILE; epoll_ctl: ENOMEM ENOSPC; epoll_wait: EINTR; epoll_pwait: EINTR;
    poll: EINTR ENOMEM; ppoll: EINTR ENOMEM; pipe2: EMFILE ENFILE; eventfd2: EMFILE;
    signalfd4: EMFILE; timerfd_create: EMFILE; memfd_create: EMFILE ENOSPC;
    inotify_init1: EMFILE; dup: EMFILE; dup2: EBUSY; dup3: EBUSY; close_range: ENOSYS EMFILE;
    prctl: EPERM; capget: EPERM; capset: EPERM; setresuid: EAGAIN EPERM; setresgid: EPERM;
    setgroups: EPERM; setsid: EPERM; setpgid: EPERM; mount: EPERM ENOSPC; umount2: EBUSY;
    unshare: EPERM ENOSPC; setns: EPERM; pivot_root: EPERM; chdir: EACCES;
    pidfd_open: EMFILE ENOSYS; pidfd_send_signal: ESRCH EPERM; kill: ESRCH EPERM;
    waitid: ECHILD EINTR; wait4: ECHILD EINTR; getrandom: EINTR; sigaltstack: ENOMEM;
    prlimit64: EPERM;
}

/// The tracer writes registers, and supports only those of x86_64.
#[cfg(not(target_arch = "x86_64"))]
pub const CALLS: &[Call] = &[];
