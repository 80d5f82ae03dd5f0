//! Describes a program that runs under a guard. [`Spawn::start`] starts it.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use caps::Capability;
use nix::sys::signal::SigSet;

use crate::sys::file_limit::FileLimit;
use crate::sys::privileges::Account;
use crate::types::TransientUser;

/// The target of one of a program's standard descriptors.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's own descriptor of that number.
    Inherit,
    /// /dev/null.
    Null,
    /// This file, pipe or socket.
    Fd(OwnedFd),
}

/// The means by which a program cannot outlive the caller; see the [module](super).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// A guard.
    Guard,
    /// A guard that is the init process of a PID namespace with a fresh /proc. This needs
    /// CAP_SYS_ADMIN.
    PidNamespace,
}

/// A directory that the program must reach although a directory above it is closed to the program's
/// user.
///
/// In the program's own mount namespace, an empty directory that every user may pass through covers
/// `top`, and the real `dir` is mounted at its usual path below. The host's mounts do not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reveal {
    /// The closed directory.
    pub(crate) top: PathBuf,
    /// The absolute path of the directory that the program must reach, below `top`.
    pub(crate) dir: PathBuf,
}

/// A program to start.
#[derive(Debug)]
pub struct Spawn {
    pub(super) program: PathBuf,
    pub(super) argv: Vec<OsString>,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) stdio: [Stdio; 3],
    pub(super) fds: Vec<(OwnedFd, RawFd)>,
    pub(super) mask: Option<SigSet>,
    pub(super) own_group: bool,
    pub(super) inherit: bool,
    pub(super) daemonizes: bool,
    pub(super) isolation: Isolation,
    pub(super) reveal: Option<Reveal>,
    pub(super) account: Option<Account>,
    pub(super) output: Option<Option<File>>,
    pub(super) keeps_stdout: bool,
    pub(super) transient: Option<(TransientUser, u32)>,
    pub(super) cleanup: Option<Vec<OsString>>,
    pub(super) file_limit: Option<FileLimit>,
}

impl Spawn {
    /// Describes the program at the path `program`, which is not looked up in PATH, with the
    /// arguments `argv`, the program's own name first.
    ///
    /// By default the program has an empty environment, the caller's standard descriptors and no
    /// other ones, the calling thread's signal mask, and the caller's process group.
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
            daemonizes: false,
            isolation: Isolation::Guard,
            reveal: None,
            account: None,
            output: None,
            keeps_stdout: false,
            transient: None,
            cleanup: None,
            file_limit: None,
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

    /// Makes the guard read the program's standard error and keep a bounded part of it.
    ///
    /// [`Child::output`](super::Child::output) returns the kept part. The guard also writes it to
    /// `log`, which must be open for reading and writing, and may be on a full disk
    /// ([`super::output`]).
    pub(crate) fn keep_output(mut self, log: Option<File>) -> Self {
        self.output = Some(log);
        self
    }

    /// As [`Spawn::keep_output`], for standard output and standard error together.
    pub(crate) fn keep_both_outputs(mut self, log: File) -> Self {
        self.keeps_stdout = true;
        self.keep_output(Some(log))
    }

    /// Gives the program an open file under the descriptor `number`, which is 3 or more.
    pub fn fd(mut self, fd: OwnedFd, number: RawFd) -> Self {
        self.fds.push((fd, number));
        self
    }

    /// Also passes on every descriptor that this process inherited: its caller can name them on
    /// QEMU's command line (`-add-fd`, `fd=`).
    pub(crate) fn inherit(mut self) -> Self {
        self.inherit = true;
        self
    }

    /// Sets the signal mask.
    pub(crate) fn mask(mut self, mask: SigSet) -> Self {
        self.mask = Some(mask);
        self
    }

    /// Puts the program into its own process group, so that the terminal's signals do not reach it.
    pub fn own_group(mut self) -> Self {
        self.own_group = true;
        self
    }

    /// Lets the daemon that the program leaves behind count as the program, once the program's
    /// first process has ended with status 0. Only for [`Isolation::Guard`].
    ///
    /// [`Child::next`](super::Child::next) reports when that is so, and the daemon's end is then
    /// the end of the program. If the first process ends with another status, or leaves no daemon,
    /// its end is the end of the program. At the end no process is left that the program started.
    pub fn daemonizes(mut self) -> Self {
        self.daemonizes = true;
        self
    }

    /// Sets the means by which the program cannot outlive the caller.
    pub(crate) fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Makes a directory reachable; only for [`Isolation::PidNamespace`].
    pub(crate) fn reveal(mut self, reveal: Reveal) -> Self {
        self.reveal = Some(reveal);
        self
    }

    /// Runs the program as another user without any capability; only for root.
    pub(crate) fn account(mut self, account: Account) -> Self {
        self.account = Some(account);
        self
    }

    /// Makes the guard execute a command, its path first, if this process is gone before the
    /// program has ended. The guard has killed the program by then. The command gets the
    /// environment of the program, /dev/null as its standard descriptors, and no signals blocked.
    pub(crate) fn cleanup(mut self, argv: &[OsString]) -> Self {
        self.cleanup = Some(argv.to_vec());
        self
    }

    /// Sets the limit of open files; without one, the program inherits that of this process.
    pub(crate) fn file_limit(mut self, limit: Option<FileLimit>) -> Self {
        self.file_limit = limit;
        self
    }

    /// Runs the program as a user of its own that has these capabilities and can get no other ones;
    /// only for root.
    ///
    /// Each capability must be one of the first 32. A capability that this process lacks is left
    /// out.
    pub(crate) fn transient(mut self, user: TransientUser, keeps: &[Capability]) -> Self {
        let bits = keeps.iter().map(|keep| 1u32.checked_shl(keep.index().into()).unwrap_or(0));
        self.transient = Some((user, bits.fold(0, |all, bit| all | bit)));
        self
    }
}
