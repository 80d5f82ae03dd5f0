//! Describing a program to start, and starting it under a guard.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use caps::Capability;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::SigSet;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixCredentials, recvmsg, setsockopt, socketpair,
    sockopt,
};
use nix::unistd::Pid;

use super::child::Child;
use super::guard::{Prepared, REPORT_LEN, STARTED, Stage, guard_main, raw_fork};
use super::output::Output;
use super::privileges::{Account, Become};
use super::spawn_error::SpawnError;
use crate::types::TransientUser;

/// Where one of a program's standard descriptors leads.
#[derive(Debug)]
pub enum Stdio {
    /// Where ours leads.
    Inherit,
    /// /dev/null.
    Null,
    /// To this file, pipe or socket.
    Fd(OwnedFd),
}

/// How a program is kept from outliving us; see the [module](super).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A guard.
    Guard,
    /// A guard that is the init of a PID namespace with a fresh /proc; needs CAP_SYS_ADMIN.
    PidNamespace,
}

/// A directory that the program shall reach though one above it is closed to its user.
///
/// In the program's own mount namespace an empty directory that everyone may pass through covers
/// `top`, and `dir`, the real one, is mounted at its usual path below. Nothing changes elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reveal {
    /// The closed directory.
    pub top: PathBuf,
    /// The directory below it, absolute, that is to be reached.
    pub dir: PathBuf,
}

/// A program to start.
#[derive(Debug)]
pub struct Spawn {
    program: PathBuf,
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdio: [Stdio; 3],
    fds: Vec<(OwnedFd, RawFd)>,
    mask: Option<SigSet>,
    own_group: bool,
    inherit: bool,
    isolation: Isolation,
    reveal: Option<Reveal>,
    account: Option<Account>,
    output: Option<Option<File>>,
    transient: Option<(TransientUser, u32)>,
}

impl Spawn {
    /// The program at `program`, which is not looked up in PATH, with `argv` (the first entry is
    /// the program's own name). It starts with no environment, our standard descriptors and no
    /// other, our signal mask, in our process group, under a guard.
    pub fn new(program: &Path, argv: &[OsString]) -> Self {
        Spawn {
            program: program.to_owned(),
            argv: argv.to_vec(),
            env: Vec::new(),
            stdio: [Stdio::Inherit, Stdio::Inherit, Stdio::Inherit],
            fds: Vec::new(),
            mask: None,
            own_group: false,
            inherit: false,
            isolation: Isolation::Guard,
            reveal: None,
            account: None,
            output: None,
            transient: None,
        }
    }

    /// Sets the whole environment.
    pub fn env(mut self, env: &[(OsString, OsString)]) -> Self {
        self.env = env.to_vec();
        self
    }

    /// Sets standard input, output and error.
    pub fn stdio(mut self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Self {
        self.stdio = [stdin, stdout, stderr];
        self
    }

    /// Has the guard read standard error and keep a bounded part of it, for [`Child::output`] and in
    /// `log`, which must be open for reading and writing and may be full ([`super::output`]).
    pub fn keep_output(mut self, log: Option<File>) -> Self {
        self.output = Some(log);
        self
    }

    /// Hands over an open file under descriptor `number` (3 or more).
    pub fn fd(mut self, fd: OwnedFd, number: RawFd) -> Self {
        self.fds.push((fd, number));
        self
    }

    /// Passes on every descriptor that this process was started with, too: the caller of netlaunch
    /// can name them on QEMU's command line (`-add-fd`, `fd=`).
    pub fn inherit(mut self) -> Self {
        self.inherit = true;
        self
    }

    /// Sets the signal mask; without it, it is the calling thread's.
    pub fn mask(mut self, mask: SigSet) -> Self {
        self.mask = Some(mask);
        self
    }

    /// Puts the program into a process group of its own, away from the terminal's signals.
    pub fn own_group(mut self) -> Self {
        self.own_group = true;
        self
    }

    /// Sets how the program is kept from outliving us.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Makes a directory reachable; only with [`Isolation::PidNamespace`].
    pub fn reveal(mut self, reveal: Reveal) -> Self {
        self.reveal = Some(reveal);
        self
    }

    /// Runs the program as another user without any capability; only for root.
    pub fn account(mut self, account: Account) -> Self {
        self.account = Some(account);
        self
    }

    /// Runs the program as a user of its own with these capabilities and no way to another one; only
    /// for root. A capability has to be one of the first 32, and one that this process lacks is left
    /// out.
    pub fn transient(mut self, user: TransientUser, keeps: &[Capability]) -> Self {
        let bits = keeps.iter().map(|keep| 1u32.checked_shl(keep.index().into()).unwrap_or(0));
        self.transient = Some((user, bits.fold(0, |all, bit| all | bit)));
        self
    }

    /// Starts the program and returns once it is really executing.
    ///
    /// # Errors
    /// [`SpawnError`]; then nothing runs. Must be called within a tokio runtime whose I/O driver
    /// is enabled.
    pub fn start(mut self) -> Result<Child, SpawnError> {
        let program = self.program.clone();
        let system = |source| SpawnError::System { program: program.clone(), source };
        let nul = || SpawnError::Nul { program: program.clone() };

        let path = c_string(self.program.as_os_str()).ok_or_else(nul)?;
        let argv: Vec<CString> =
            self.argv.iter().map(|a| c_string(a)).collect::<Option<_>>().ok_or_else(nul)?;
        let env: Vec<CString> = self
            .env
            .iter()
            .map(|(name, value)| {
                let mut both = name.clone();
                both.push("=");
                both.push(value);
                c_string(&both)
            })
            .collect::<Option<_>>()
            .ok_or_else(nul)?;
        let covered = covered(self.reveal.as_ref()).ok_or_else(nul)?;
        let covered_pointers = pointers(&covered);
        let argv_pointers = pointers(&argv);
        let env_pointers = pointers(&env);

        let mut output = None;
        if let Some(log) = self.output {
            let (kept, end) = Output::new(log).map_err(system)?;
            self.stdio[2] = Stdio::Fd(end);
            output = Some(kept);
        }
        let files = place(self.stdio, self.fds).map_err(|e| system(e.into()))?;
        let moves: Vec<(RawFd, RawFd)> =
            files.iter().map(|(fd, to)| (fd.as_raw_fd(), *to)).collect();
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .map_err(|e| system(e.into()))?;
        setsockopt(&ours, sockopt::PassCred, &true).map_err(|e| system(e.into()))?;
        let (report, report_end) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| system(e.into()))?;
        // Numbers of ours may be numbers the program is to get: out of their way.
        let theirs = above(theirs, &moves).map_err(|e| system(e.into()))?;
        let report_end = above(report_end, &moves).map_err(|e| system(e.into()))?;
        let parent = own_pidfd();
        let opened = match &self.reveal {
            Some(_) => open_program(&self.program, &moves).map_err(|e| system(e.into()))?,
            None => None,
        };

        let mask = match self.mask {
            Some(mask) => mask,
            None => SigSet::thread_get_mask().map_err(|e| system(e.into()))?,
        };
        let groups: Vec<libc::gid_t> =
            self.account.iter().flat_map(|a| &a.groups).map(|group| group.as_raw()).collect();
        let user = self.account.as_ref().map(|account| Become {
            uid: account.uid.as_raw(),
            gid: account.gid.as_raw(),
            groups: groups.as_ptr(),
            groups_len: groups.len(),
            keeps: 0,
        });
        let transient = self.transient.map(|(TransientUser { uid, gid }, keeps)| Become {
            uid,
            gid,
            groups: groups.as_ptr(),
            groups_len: 0,
            keeps,
        });
        let prepared = Prepared {
            program: path.as_ptr(),
            argv: argv_pointers.as_ptr(),
            envp: env_pointers.as_ptr(),
            fds: moves.as_ptr(),
            fds_len: moves.len(),
            socket: theirs.as_raw_fd(),
            report: report_end.as_raw_fd(),
            parent: parent.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            output: output.as_ref().map_or([-1; 3], Output::descriptors),
            inherit: self.inherit,
            own_group: self.own_group,
            namespace: self.isolation == Isolation::PidNamespace,
            mask: *mask.as_ref(),
            covered: covered_pointers.as_ptr(),
            program_fd: opened.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            user: user.or(transient),
        };
        let guard = match fork_guard(&prepared) {
            Ok(guard) => guard,
            Err(source) if prepared.namespace => {
                return Err(SpawnError::Namespace { program, source });
            }
            Err(source) => return Err(system(source)),
        };
        drop((theirs, report_end, files));

        // From here on the guard exists; a Child that is dropped takes it down.
        let lost = |source| SpawnError::Lost { program: program.clone(), source };
        let memory = output.map(|output| output.memory);
        let mut child = Child::new(guard, ours, memory).map_err(lost)?;
        if let Some((stage, source)) = read_report(&report).map_err(lost)? {
            return Err(match stage {
                Stage::Exec => SpawnError::Exec { program, source },
                Stage::Mount => SpawnError::Namespace { program, source },
                Stage::User => {
                    let transient = self.transient.map(|(user, _)| user.to_string());
                    let name = self.account.map(|account| account.name.to_string());
                    let user = name.or(transient).unwrap_or_default();
                    SpawnError::User { program, user, source }
                }
                Stage::Fork | Stage::Descriptors => system(source),
            });
        }
        let pid = child.with_socket(sender).map_err(lost)?;
        child.set_pid(pid);
        Ok(child)
    }
}

/// Forks the guard with all signals blocked, so that no handler of ours runs in it.
fn fork_guard(prepared: &Prepared) -> io::Result<Pid> {
    let flags = if prepared.namespace { libc::CLONE_NEWPID | libc::CLONE_NEWNS } else { 0 };
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises `all`, pthread_sigmask `before`; the forked process goes
    // straight into guard_main, which makes async-signal-safe calls only and never returns;
    // `prepared` and all it points to outlive the call in the parent and are copied in the child.
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

/// A pidfd of this process: a fork of ours that holds a copy of the socket cannot hide our end.
fn own_pidfd() -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes a process number and flags; a result that is not negative is a
    // descriptor nobody else owns. Kernels before 5.3 answer ENOSYS.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd as RawFd))
    }
}

fn c_string(text: &OsStr) -> Option<CString> {
    CString::new(text.as_bytes()).ok()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
}

/// The closed directory, then every directory below it down to the one to be reached.
fn covered(reveal: Option<&Reveal>) -> Option<Vec<CString>> {
    let Some(Reveal { top, dir }) = reveal else { return Some(Vec::new()) };
    let mut paths: Vec<&Path> = dir.ancestors().take_while(|path| path != top).collect();
    paths.push(top);
    paths.reverse();
    paths.into_iter().map(|path| c_string(path.as_os_str())).collect()
}

/// The descriptors the program gets, each moved above all numbers that are to be filled.
fn place(stdio: [Stdio; 3], fds: Vec<(OwnedFd, RawFd)>) -> nix::Result<Vec<(OwnedFd, RawFd)>> {
    let mut wanted = Vec::new();
    for (number, end) in stdio.into_iter().enumerate() {
        let fd = match end {
            Stdio::Inherit => continue,
            Stdio::Null => nix::fcntl::open(
                "/dev/null",
                OFlag::O_RDWR | OFlag::O_CLOEXEC,
                nix::sys::stat::Mode::empty(),
            )?,
            Stdio::Fd(fd) => fd,
        };
        wanted.push((fd, number as RawFd));
    }
    wanted.extend(fds);
    let top = wanted.iter().map(|(_, to)| *to).max().unwrap_or(2).max(2);
    wanted.into_iter().map(|(fd, to)| Ok((dup_above(fd, top)?, to))).collect()
}

/// Moves `fd` above every number to be filled; it is closed on execve.
fn above(fd: OwnedFd, moves: &[(RawFd, RawFd)]) -> nix::Result<OwnedFd> {
    dup_above(fd, moves.iter().map(|(_, to)| *to).max().unwrap_or(2).max(2))
}

/// The program as a descriptor, for when its path leads nowhere any more; nothing where it cannot
/// be opened, which its execution will tell.
fn open_program(path: &Path, moves: &[(RawFd, RawFd)]) -> nix::Result<Option<OwnedFd>> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    match nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty()) {
        Ok(fd) => above(fd, moves).map(Some),
        Err(_) => Ok(None),
    }
}

fn dup_above(fd: OwnedFd, top: RawFd) -> nix::Result<OwnedFd> {
    let copy = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(top + 1))?;
    // SAFETY: fcntl just returned this new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Waits for the report pipe's end: `None` when the program executes, else where it failed.
fn read_report(report: &OwnedFd) -> io::Result<Option<(Stage, io::Error)>> {
    let mut message = [0u8; REPORT_LEN];
    let mut got = 0;
    while got < REPORT_LEN {
        match nix::unistd::read(report, &mut message[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if got < REPORT_LEN {
        return Ok(None);
    }
    let [stage, errno @ ..] = message;
    let error = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
    Ok(Some((Stage::from_byte(stage).unwrap_or(Stage::Fork), error)))
}

/// How often a message that could not be received is asked for again.
const ATTEMPTS: usize = 100;

/// The process number of whoever sent the first message, as we see it.
fn sender(socket: &OwnedFd) -> io::Result<Pid> {
    let mut byte = [0u8; 8];
    let mut iov = [io::IoSliceMut::new(&mut byte)];
    let mut control = nix::cmsg_space!(UnixCredentials);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let gone = || io::Error::other("it was killed before it could start");
    // A message that could not be received for now is still there, and its sender runs: to take that
    // for its death would end a tool in the middle of its work.
    let mut attempts = 0;
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags) {
            Err(Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM) if attempts < ATTEMPTS => {
                attempts += 1;
            }
            Err(Errno::EAGAIN | Errno::ECONNRESET) => return Err(gone()),
            other => break other?,
        }
    };
    let pid = message.cmsgs()?.find_map(|c| match c {
        nix::sys::socket::ControlMessageOwned::ScmCredentials(c) => Some(Pid::from_raw(c.pid())),
        _ => None,
    });
    if byte[0] != STARTED {
        return Err(gone());
    }
    pid.filter(|pid| pid.as_raw() > 0).ok_or_else(gone)
}
