//! Starts a described program: prepares its strings and descriptors, forks the guard, and waits
//! until the program has been executed.
//!
//! The guard and the program's process are forks of a process that may have other threads, and one
//! of those threads may hold the lock of the allocator at that moment. So everything that the forks
//! need is made before the fork ([`Prepared`]), and they make system calls only.
//!
//! The calling thread may end at once after a start: no part of a started program depends on it.
//! The guard is a child of the process and has no `PR_SET_PDEATHSIG`.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use libc::{c_char, gid_t};
use nix::fcntl::OFlag;
use nix::sys::signal::SigSet;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::unistd::{Pid, pipe2};

use super::child::Child;
use super::descriptors::{above, open_program, place};
use super::fork::{Prepared, Stage, raw_fork};
use super::guard::guard_main;
use super::output::Output;
use super::pidfd::pidfd_open;
use super::report::{read_report, sender};
use super::spawn::{Isolation, Reveal, Spawn, Stdio};
use super::spawn_error::SpawnError;
use crate::sys::privileges::TargetUser;
use crate::types::shell_line;

/// The strings of a program, each of which ends with a NUL byte.
struct Strings {
    program: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
    covered: Vec<CString>,
    cleanup: Vec<CString>,
}

impl Strings {
    /// Copies the strings of a description; returns `None` if one of them contains a NUL byte.
    fn new(spawn: &Spawn) -> Option<Self> {
        let variables = spawn.env.iter().map(|(name, value)| {
            let parts = [name.as_bytes(), b"=", value.as_bytes()];
            CString::new(parts.concat()).ok()
        });
        Some(Strings {
            program: c_string(spawn.program.as_os_str())?,
            argv: spawn.argv.iter().map(|argument| c_string(argument)).collect::<Option<_>>()?,
            env: variables.collect::<Option<_>>()?,
            covered: covered(spawn.reveal.as_ref())?,
            cleanup: spawn
                .cleanup
                .iter()
                .flatten()
                .map(|argument| c_string(argument))
                .collect::<Option<_>>()?,
        })
    }
}

/// The descriptors of a guard, of its program, and of the caller.
struct Descriptors {
    /// The descriptors of the program, and the number of each in the program.
    program: Vec<(OwnedFd, RawFd)>,
    /// The caller's end of the socket.
    socket: OwnedFd,
    /// The guard's end of the socket.
    guard_socket: OwnedFd,
    /// The caller's end of the pipe that reports a failed start.
    report: OwnedFd,
    /// The guard's end of that pipe.
    guard_report: OwnedFd,
    /// A pidfd of this process, for the guard. Another fork of this process may hold a copy of the
    /// caller's end of the socket, and the copy would hide the end of this process.
    parent: Option<OwnedFd>,
    /// The kept output.
    output: Option<Output>,
    /// The program file, if its path may lead to nothing in the program's mount namespace.
    program_file: Option<OwnedFd>,
}

impl Descriptors {
    /// Opens the descriptors; takes the program's own ones out of `spawn`.
    fn open(spawn: &mut Spawn) -> io::Result<Self> {
        let mut output = None;
        if let Some(log) = spawn.output.take() {
            let (kept, end) = Output::new(log)?;
            if spawn.keeps_stdout {
                spawn.stdio[1] = Stdio::Fd(end.try_clone()?);
            }
            spawn.stdio[2] = Stdio::Fd(end);
            output = Some(kept);
        }
        let stdio = std::mem::replace(&mut spawn.stdio, [Stdio::Null, Stdio::Null, Stdio::Null]);
        let program = place(stdio, std::mem::take(&mut spawn.fds))?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (socket, guard_socket) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        let (report, guard_report) = pipe2(OFlag::O_CLOEXEC)?;
        let program_file = match &spawn.reveal {
            Some(_) => open_program(&spawn.program, &program)?,
            None => None,
        };
        Ok(Descriptors {
            // The program may get the numbers that these two have now.
            guard_socket: above(guard_socket, &program)?,
            guard_report: above(guard_report, &program)?,
            parent: pidfd_open(Pid::this()).ok(),
            program,
            socket,
            report,
            output,
            program_file,
        })
    }

    /// Returns the moves in the program's process: the present number of each descriptor, and its
    /// number in the program.
    fn moves(&self) -> Vec<(RawFd, RawFd)> {
        self.program.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)).collect()
    }

    /// Closes the descriptors of the guard and of the program, and returns the caller's: the
    /// socket, the report, and the file with the kept standard error.
    fn into_callers(self) -> (OwnedFd, OwnedFd, Option<File>) {
        (self.socket, self.report, self.output.map(|output| output.memory))
    }
}

impl Spawn {
    /// Starts the program, and returns when it has been executed.
    ///
    /// The calling thread may end at any time afterwards. Call it in a tokio runtime whose I/O
    /// driver is enabled; the runtime must live as long as the [`Child`].
    ///
    /// # Errors
    /// [`SpawnError`]; then the program does not run.
    pub fn start(mut self) -> Result<Child, SpawnError> {
        tracing::trace!("runs {}", shell_line(&self.argv));
        let program = self.program.clone();
        let system = |source| SpawnError::System { program: program.clone(), source };
        let strings =
            Strings::new(&self).ok_or_else(|| SpawnError::Nul { program: program.clone() })?;
        let mask = match self.mask {
            Some(mask) => mask,
            None => SigSet::thread_get_mask().map_err(|errno| system(errno.into()))?,
        };
        let fds = Descriptors::open(&mut self).map_err(system)?;
        let (argv, env) = (pointers(&strings.argv), pointers(&strings.env));
        let (covered, moves, groups) = (pointers(&strings.covered), fds.moves(), self.groups());
        let cleanup = pointers(&strings.cleanup);
        let prepared = Prepared {
            program: strings.program.as_ptr(),
            argv: argv.as_ptr(),
            envp: env.as_ptr(),
            fds: moves.as_ptr(),
            fds_len: moves.len(),
            socket: fds.guard_socket.as_raw_fd(),
            report: fds.guard_report.as_raw_fd(),
            parent: fds.parent.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            output: fds.output.as_ref().map_or([-1; 3], Output::descriptors),
            inherit: self.inherit,
            own_group: self.own_group,
            namespace: self.isolation == Isolation::PidNamespace,
            daemonizes: self.daemonizes,
            mask: *mask.as_ref(),
            covered: covered.as_ptr(),
            program_fd: fds.program_file.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            cleanup: if strings.cleanup.is_empty() { ptr::null() } else { cleanup.as_ptr() },
            user: self.target_user(&groups),
            file_limit: self
                .file_limit
                .map(|limit| libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard }),
        };
        let guard = fork_guard(&prepared).map_err(|source| match self.isolation {
            Isolation::PidNamespace => SpawnError::Namespace { program: program.clone(), source },
            Isolation::Guard => system(source),
        })?;
        let (socket, report, memory) = fds.into_callers();
        // From here on the guard exists, and dropping the Child ends it.
        let lost = |source| SpawnError::Lost { program: program.clone(), source };
        let mut child = Child::new(guard, socket, memory).map_err(lost)?;
        let started = match read_report(&report) {
            Ok(None) => child.with_socket(sender).map_err(lost),
            Ok(Some((stage, source))) => Err(self.failed_at(stage, source)),
            Err(error) => Err(lost(error)),
        };
        match started {
            Ok(pid) => {
                child.set_pid(pid);
                Ok(child)
            }
            Err(error) => {
                child.end_now();
                Err(error)
            }
        }
    }

    /// Returns the ids of the groups of the program's user.
    fn groups(&self) -> Vec<gid_t> {
        self.account.iter().flat_map(|user| &user.groups).map(|group| group.as_raw()).collect()
    }

    /// Returns the user that the program's process becomes; it points to `groups`.
    fn target_user(&self, groups: &[gid_t]) -> Option<TargetUser> {
        let user = |uid, gid, keeps| TargetUser {
            uid,
            gid,
            groups: groups.as_ptr(),
            groups_len: groups.len(),
            keeps,
        };
        let account = self.account.as_ref().map(|to| user(to.uid.as_raw(), to.gid.as_raw(), 0));
        account.or(self.transient.map(|(to, keeps)| user(to.uid, to.gid, keeps)))
    }

    /// Returns the error for a start that failed at `stage`.
    fn failed_at(self, stage: Stage, source: io::Error) -> SpawnError {
        let program: PathBuf = self.program;
        match stage {
            Stage::Exec => SpawnError::Exec { program, source },
            Stage::Mount => SpawnError::Namespace { program, source },
            Stage::User => {
                let account = self.account.map(|account| account.name.to_string());
                let transient = self.transient.map(|(user, _)| user.to_string());
                let user = account.or(transient).unwrap_or_default();
                SpawnError::User { program, user, source }
            }
            Stage::Children => SpawnError::Daemon { program, source },
            Stage::Fork | Stage::Descriptors => SpawnError::System { program, source },
        }
    }
}

/// Forks the guard with all signals blocked, so that no signal handler of this process runs in it.
fn fork_guard(prepared: &Prepared) -> io::Result<Pid> {
    let flags = if prepared.namespace { libc::CLONE_NEWPID | libc::CLONE_NEWNS } else { 0 };
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises `all`, and pthread_sigmask initialises `before`. The forked
    // process only runs guard_main, which never returns and makes system calls only. `prepared`
    // and the memory that it points to outlive this call, and the forked process has a copy.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let pid = raw_fork(flags);
        if pid == 0 {
            guard_main(prepared);
        }
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
        if pid < 0 { Err(error) } else { Ok(Pid::from_raw(pid as libc::pid_t)) }
    }
}

fn c_string(text: &OsStr) -> Option<CString> {
    CString::new(text.as_bytes()).ok()
}

/// Returns pointers to the strings, and a null pointer at the end.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// Returns the closed directory, then each directory below it down to the one to reach.
fn covered(reveal: Option<&Reveal>) -> Option<Vec<CString>> {
    let Some(Reveal { top, dir }) = reveal else { return Some(Vec::new()) };
    let mut paths: Vec<&Path> = dir.ancestors().take_while(|path| path != top).collect();
    paths.push(top);
    paths.reverse();
    paths.into_iter().map(|path| c_string(path.as_os_str())).collect()
}
