//! netlaunch killed at each of its moments: strace kills the real program before the Nth of a
//! system call that changes something. Between two of those nothing changes, so these are all
//! moments that there are.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use super::{Sandbox, finish, text};

/// The system calls that change something: messages to the kernel and to tools, files, processes.
const CALLS: [&str; 20] = [
    "sendto",
    "sendmsg",
    "write",
    "pwrite64",
    "openat",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "fork",
    "clone",
    "clone3",
    "vfork",
    "kill",
    "pidfd_send_signal",
    "ioctl",
];
/// Those that only some processors' kernels have.
const NOT_EVERYWHERE: [&str; 6] = ["rename", "unlink", "rmdir", "mkdir", "fork", "vfork"];

/// The value that tokio writes into its eventfd(2).
const WAKE: &str = r#", "\1\0\0\0\0\0\0\0", 8)"#;

/// Right before the Nth call of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    pub call: String,
    pub n: usize,
}

impl Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.call, self.n)
    }
}

/// netlaunch under strace, which notes its calls, and kills it at a moment where one is given.
pub fn traced(sandbox: &Sandbox, args: &[&str], kill_at: Option<&Moment>) -> Command {
    let all = || CALLS.into_iter().filter(|call| cfg!(target_arch = "x86_64") || everywhere(call));
    let traced = kill_at.map_or_else(|| all().collect(), |moment| vec![moment.call.as_str()]);
    let mut command = sandbox.program(Path::new("/usr/bin/strace"));
    command.args(["-qq", "-e", "signal=none", "-e", &format!("trace={}", traced.join(","))]);
    if let Some(Moment { call, n }) = kill_at {
        command.args(["-e", &format!("inject={call}:signal=KILL:when={n}")]);
    }
    command.arg("-o").arg(log(sandbox)).arg(sandbox.path("bin/netlaunch")).args(args);
    command
}

fn everywhere(call: &&str) -> bool {
    !NOT_EVERYWHERE.contains(call)
}

fn log(sandbox: &Sandbox) -> std::path::PathBuf {
    sandbox.path("run/calls")
}

/// The moments of the netlaunch that was traced last. Opening a file that is there, or not there,
/// changes nothing, and is none; nor does the runtime that wakes itself, as often as it waits.
pub fn noted(sandbox: &Sandbox) -> Vec<Moment> {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    let mut moments = Vec::new();
    for line in fs::read_to_string(log(sandbox)).unwrap().lines() {
        let Some((call, rest)) = line.split_once('(') else { continue };
        // The kernel restarts a write to a network's setting as often as its lock is taken, which
        // was seen 5,000 times on a busy host.
        if rest.contains("ERESTARTNOINTR") {
            continue;
        }
        let n = count.entry(call.to_owned()).or_default();
        *n += 1;
        let changes = match call {
            "openat" => rest.contains("O_CREAT"),
            "write" => !rest.contains(WAKE),
            _ => true,
        };
        if changes {
            moments.push(Moment { call: call.to_owned(), n: *n });
        }
    }
    moments
}

/// Runs a command to its good end, and returns its moments.
pub fn moments(sandbox: &Sandbox, args: &[&str]) -> Vec<Moment> {
    let output = finish(traced(sandbox, args, None));
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    noted(sandbox)
}

/// Runs a command up to this moment, and kills it. Returns whether it came so far.
pub fn killed(sandbox: &Sandbox, args: &[&str], at: &Moment) -> bool {
    was_killed(finish(traced(sandbox, args, Some(at))).status)
}

/// Whether what strace ran was killed.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9) || status.code() == Some(137)
}
