//! A stand-in for QEMU in a directory of its own, and its log.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{As, Netns, Sandbox, skipped};

/// The name of the stand-in.
pub const NAME: &str = "qemu-system-x86_64";

/// Returns the installed QEMU; reports the test as skipped if there is none.
pub fn qemu(test: &str) -> Option<PathBuf> {
    let qemu = PathBuf::from("/usr/bin").join(NAME);
    let exists = qemu.exists();
    if !exists {
        skipped(test, "QEMU is not installed (./tests/setup)");
    }
    exists.then_some(qemu)
}

/// A sandbox with a stand-in.
pub struct Wrapped {
    pub sandbox: Sandbox,
}

impl Wrapped {
    /// A stand-in for the user that runs the tests.
    pub fn new() -> Self {
        Wrapped::of(Sandbox::new(As::Root, None))
    }

    /// A stand-in for `who` in a network namespace.
    pub fn inside(who: As, netns: &Netns) -> Self {
        Wrapped::of(Sandbox::new(who, Some(netns)))
    }

    fn of(sandbox: Sandbox) -> Self {
        let wrapped = Wrapped { sandbox };
        fs::create_dir(wrapped.dir()).unwrap();
        let netlaunch = wrapped.sandbox.path("bin/netlaunch");
        fs::hard_link(netlaunch, wrapped.program()).unwrap();
        wrapped
    }

    /// The directory of the stand-in.
    pub fn dir(&self) -> PathBuf {
        self.sandbox.path("bin/stand-in")
    }

    /// The stand-in.
    pub fn program(&self) -> PathBuf {
        self.dir().join(NAME)
    }

    /// A call of the stand-in by its path, with its directory in PATH and with a log. Its `argv[0]`
    /// is the name alone, as from a shell, unless a tool runs it in a namespace.
    pub fn command(&self) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = self.sandbox.program(&self.program());
        if Path::new(command.get_program()) == self.program() {
            command.arg0(NAME);
        }
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.dir().display());
        command.env("PATH", path).env("NETLAUNCH_WRAP_LOG", self.log_path());
        command
    }

    /// Makes a script that is the real program in a directory `real`.
    pub fn real(&self, body: &str) -> PathBuf {
        fs::create_dir_all(self.sandbox.path("bin/real")).unwrap();
        self.sandbox.script(&format!("real/{NAME}"), body)
    }

    /// The path of the log.
    pub fn log_path(&self) -> PathBuf {
        self.sandbox.path("run/log")
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}
