//! Tests the command line: what netlaunch refuses, with which message and status, and what it
//! prints. A refusal is one line; it starts nothing and leaves nothing.

mod printed;
mod refused;

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::common::schema::{faults, valid};
use crate::common::{
    As, Netns, Sandbox, USER, finish, have_root, processes_with, start, text, wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const USAGE: i32 = 2;
const FAILED: i32 = 125;

/// A sandbox whose passt and QEMU tell when they are started for more than to be asked.
struct Bench {
    sandbox: Sandbox,
    netns: Netns,
}

impl Bench {
    fn new(who: As) -> Self {
        let netns = Netns::routed();
        let sandbox = Sandbox::new(who, Some(&netns));
        let started = sandbox.path("home/started");
        for (name, real, question) in
            [("qemu", QEMU, "*-netdev\\ help*|*-qmp*"), ("passt", "/usr/bin/passt", "*--help*")]
        {
            sandbox.script(
                name,
                &format!(
                    "case $* in {question}) ;; *) echo {name} >>{};; esac\nexec {real} \"$@\"",
                    started.display()
                ),
            );
        }
        Bench { sandbox, netns }
    }

    /// netlaunch with the bench's programs first in its PATH.
    fn netlaunch(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox.netlaunch(args);
        let bin = self.sandbox.path("bin").display().to_string();
        command.env("PATH", format!("{bin}:/usr/sbin:/usr/bin:/sbin:/bin"));
        command
    }

    fn bin(&self, name: &str) -> String {
        self.sandbox.path("bin").join(name).display().to_string()
    }

    /// The command is refused with this status and one line that has all of the words.
    fn refuses(&self, command: Command, status: i32, words: &[&str]) {
        let what = format!("{command:?}");
        let output = finish(command);
        let line = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{what}: {line}");
        assert!(line.starts_with("netlaunch: ") && line.ends_with('\n'), "{what}: {line:?}");
        assert_eq!(line.lines().count(), 1, "{what}: {line}");
        for word in words {
            assert!(line.contains(word), "{what}: no {word:?} in {line}");
        }
        // Each message has a fix: behind a semicolon, a colon or in brackets.
        assert!(line.contains([';', '(']) || line.matches(": ").count() > 1, "{what}: {line}");
        assert_eq!(text(&output.stdout), "", "{what}");
        self.untouched(&what);
    }

    /// Nothing was started, nothing runs, nothing is left.
    fn untouched(&self, what: &str) {
        assert!(!self.sandbox.path("home/started").exists(), "{what}: something was started");
        assert_eq!(self.sandbox.launch_dirs(), [] as [String; 0], "{what}");
        assert_eq!(processes_with(&self.sandbox.path("").display().to_string()), [], "{what}");
    }

    /// A probe has started passt, and nothing else.
    fn passt_was_tried(&self) {
        let started = self.sandbox.path("home/started");
        let programs = fs::read_to_string(&started).unwrap();
        assert!(programs.lines().all(|program| program == "passt"), "{programs}");
        fs::remove_file(started).unwrap();
    }

    /// Writes a file into the sandbox, for its user.
    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.sandbox.path(name);
        fs::write(&path, content).unwrap();
        self.give(&path);
        path
    }

    fn give(&self, path: &Path) {
        if self.sandbox.who == As::User {
            chown(path, Some(USER), Some(USER)).unwrap();
        }
    }

    fn make_dir(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.sandbox.path(name);
        fs::create_dir(&path).unwrap();
        self.give(&path);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

const Q: [&str; 6] = ["--", "qemu", "-M", "none", "-display", "none"];

fn with<'a>(options: &[&'a str]) -> Vec<&'a str> {
    [options, &Q].concat()
}

/// A shell of the sandbox's user.
fn shell(bench: &Bench, line: &str) -> Command {
    let mut command = bench.sandbox.program(Path::new("/bin/sh"));
    command.args(["-c", line]);
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bench.bin("")));
    command
}

#[test]
fn a_closed_pipe_on_stdout_is_no_failure() {
    if !have_root("a_closed_pipe_on_stdout_is_no_failure") {
        return;
    }
    let bench = Bench::new(As::User);
    let netlaunch = bench.bin("netlaunch");
    for args in ["probe", "probe --json", "ps", "completions zsh", "--help", "--print -- qemu"] {
        for reader in ["head -1", "true"] {
            let line = format!("{{ {netlaunch} {args}; echo \"status $?\" >&2; }} | {reader}");
            let output = finish(shell(&bench, &line));
            let said = text(&output.stderr);
            // 141 is SIGPIPE, which other programs end by as well.
            assert!(["status 0\n", "status 141\n"].contains(&said.as_str()), "{args}: {said}");
        }
    }
    // A closed pipe for its messages does not change the end either.
    let line = format!(
        "{{ {netlaunch} -v --backend passt --passt nopasst -- qemu 2>&1 >&3; }} 3>&1 | true"
    );
    let said = text(&finish(shell(&bench, &line)).stderr);
    assert_eq!(said, "");
    bench.passt_was_tried();
    bench.untouched("closed pipes");
}
