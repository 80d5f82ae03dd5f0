//! A stand-in whose networks can move, in a network namespace of its own.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::wrapped::Wrapped;
use super::{As, Netns, Reaped, have_root, processes_with, start, status_field, wait_until};

pub const LIMIT: Duration = Duration::from_secs(60);
/// A guest that starts no processor and has a user-mode network.
pub const STOPPED: &str =
    "-M pc -accel tcg -display none -nodefaults -S -nic user,model=virtio-net-pci";
pub const QUIT: &str =
    "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-status\"}\n{\"execute\":\"quit\"}\n";

/// A stand-in whose networks can move.
pub struct Scene {
    // The fields drop in this order.
    pub wrapped: Wrapped,
    pub netns: Netns,
}

impl Scene {
    pub fn new(test: &str, who: As) -> Option<Self> {
        if !have_root(test) {
            return None;
        }
        let netns = Netns::routed();
        Some(Scene { wrapped: Wrapped::inside(who, &netns), netns })
    }

    /// A call of the stand-in with these arguments.
    pub fn command(&self, line: &str) -> Command {
        let mut command = self.wrapped.command();
        command.args(line.split(' '));
        command
    }

    /// Starts a stopped guest with further arguments, and waits for its pid file. Returns QEMU's
    /// process number.
    pub fn stopped(&self, more: &str) -> (Reaped, i32) {
        let (pidfile, child) = self.with_pidfile(self.command(&format!("{STOPPED}{more}")));
        let pid = wait_for_pid(&pidfile);
        (child, pid)
    }

    pub fn with_pidfile(&self, mut command: Command) -> (PathBuf, Reaped) {
        let pidfile = self.wrapped.sandbox.path("run/pid");
        command.arg("-pidfile").arg(&pidfile);
        (pidfile, start(command))
    }

    /// Writes the table of settings for stand-ins.
    pub fn settings(&self, lines: &str) {
        let path = self.wrapped.sandbox.path("config/netlaunch.conf");
        fs::write(path, format!("[wrap]\n{lines}\n")).unwrap();
    }

    /// Sets a passt that answers questions and does not start.
    pub fn broken_passt(&self) {
        let passt = self.wrapped.sandbox.script(
            "broken-passt",
            "case \"$1\" in --help|-h|--version) exec passt \"$@\";; esac; echo no luck >&2; exit 1",
        );
        self.settings(&format!("passt = \"{}\"", passt.display()));
    }

    /// Waits until the sidecar has removed everything, which is after QEMU's end.
    pub fn wait_for_nothing(&self) {
        assert!(wait_until(LIMIT, || !self.anything_runs()));
        assert!(wait_until(LIMIT, || self.wrapped.sandbox.launch_dirs().is_empty()));
    }

    /// Returns the record of the only launch.
    pub fn record(&self) -> Value {
        let dirs = self.wrapped.sandbox.launch_dirs();
        let path = self.wrapped.sandbox.state().join(&dirs[0]).join("launch.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// Whether a process of this launch runs.
    pub fn anything_runs(&self) -> bool {
        let state = self.wrapped.sandbox.state().display().to_string();
        !processes_with(&state).is_empty()
    }
}

/// Returns the process number in QEMU's pid file once QEMU handles SIGTERM, which is later.
pub fn wait_for_pid(pidfile: &Path) -> i32 {
    let mut pid: Option<i32> = None;
    let handles_sigterm = |pid: i32| {
        let caught = u64::from_str_radix(&status_field(pid, "SigCgt"), 16).unwrap_or(0);
        caught & (1 << (Signal::SIGTERM as i32 - 1)) != 0
    };
    assert!(wait_until(LIMIT, || {
        pid = fs::read_to_string(pidfile).ok().and_then(|text| text.trim().parse().ok());
        pid.is_some_and(handles_sigterm)
    }));
    pid.unwrap()
}

/// Runs a command with this text on its standard input.
pub fn fed(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}
