//! The helpers of all tests: network namespaces, sandboxes, users, the real guest. A value that
//! is dropped removes everything that it made, also when a test fails.

pub mod attach_scene;
pub mod bad_tools;
pub mod bpf_machine;
pub mod bridges;
pub mod crowd;
pub mod definitions;
pub mod dhcp_frame;
pub mod dhcp_guest;
pub mod flood;
pub mod flood_launch;
pub mod flood_learning;
pub mod flood_scene;
pub mod flood_watch;
pub mod frame;
pub mod hub;
pub mod ipset;
pub mod killed;
pub mod lab;
pub mod learning_scene;
pub mod macvtap;
pub mod nd_frame;
mod netns;
pub mod network_host;
pub mod observed;
pub mod port_scene;
pub mod rates;
#[path = "../../../src/xml/schema.rs"]
pub mod rng;
pub mod ruleset;
pub mod scene;
pub mod schema;
pub mod small_disk;
pub mod source;
pub mod test_host;
pub mod tree;
pub mod wire;
pub mod wrap_scene;
pub mod wrapped;

use std::fmt::Display;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use base64::prelude::*;

pub use netns::Netns;

/// The ordinary user of the tests; has no entry in /etc/passwd, no capability and no group.
pub const USER: u32 = 12345;

/// The user that runs netlaunch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    Root,
    User,
}

/// Reports a test that cannot run on this machine. tests/run collects these lines and shows them
/// after the summary, so that such a test does not count as passed without a word.
pub fn skipped(test: &str, reason: impl Display) {
    eprintln!("skipped {test}: {reason}");
}

/// Returns whether the tests that need root can run.
pub fn have_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skipped(test, "it makes network namespaces, which needs root (./tests/run)");
    }
    root
}

/// Returns the extent of a test that repeats one case: `long` in .ci/run, which sets
/// NETLAUNCH_TEST_LONG, and otherwise `short`, so that tests/run ends within 20 minutes on two
/// processors.
pub fn extent<T>(short: T, long: T) -> T {
    if std::env::var_os("NETLAUNCH_TEST_LONG").is_some() { long } else { short }
}

/// Directories of one test, and netlaunch as a user with access to only these.
pub struct Sandbox {
    dir: tempfile::TempDir,
    pub who: As,
    netns: Option<String>,
}

impl Sandbox {
    /// A sandbox for `who`, whose programs run in `netns`.
    pub fn new(who: As, netns: Option<&Netns>) -> Self {
        let dir = tempfile::Builder::new().prefix("nltest-").tempdir().unwrap();
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.path(), open.clone()).unwrap();
        for name in ["bin", "state", "config", "home", "run"] {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            if who == As::User && name != "bin" {
                std::os::unix::fs::chown(&path, Some(USER), Some(USER)).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            }
        }
        let built = Path::new(env!("CARGO_BIN_EXE_netlaunch"));
        let here = dir.path().join("bin/netlaunch");
        // A copy of a debug build has some 80 MB. On another file system there has to be one, and
        // another process writes it, as in `script`.
        if fs::hard_link(built, &here).is_err() {
            let copied = Command::new("cp").arg(built).arg(&here).status();
            assert!(copied.unwrap().success());
        }
        fs::set_permissions(&here, open).unwrap();
        Sandbox { dir, who, netns: netns.map(|n| n.name.clone()) }
    }

    /// A path in the sandbox.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The launch directories' root.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Returns the entries of the root of launch directories, without the kept logs of launches
    /// with a name.
    pub fn launch_dirs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state()).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name != ".logs").collect()
    }

    /// netlaunch with these arguments; the child's process number is netlaunch's own.
    pub fn netlaunch<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut command = self.program(&self.path("bin/netlaunch"));
        command.args(args);
        command
    }

    /// Returns the output of netlaunch with these arguments, which succeeds.
    pub fn good(&self, args: &[&str]) -> String {
        let output = finish(self.netlaunch(args));
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Any program as this sandbox's user, in its namespace.
    pub fn program(&self, program: &Path) -> Command {
        let mut argv: Vec<String> = Vec::new();
        if let Some(netns) = &self.netns {
            argv.extend(["ip", "netns", "exec", netns].map(str::to_owned));
        }
        if self.who == As::User {
            let (uid, gid) = (format!("--reuid={USER}"), format!("--regid={USER}"));
            let rest = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"];
            argv.push("setpriv".to_owned());
            argv.extend([uid, gid]);
            argv.extend(rest.map(str::to_owned));
        }
        argv.push(program.to_string_lossy().into_owned());
        let mut command = Command::new(&argv[0]);
        command
            .args(&argv[1..])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path("home"))
            .env("XDG_CACHE_HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("NETLAUNCH_STATE_DIR", self.state())
            .env("NETLAUNCH_CONFIG_DIR", self.path("config"))
            // The system bus of a test that makes one; never the host's.
            .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", self.path("bus").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Writes an executable shell script into `bin` of the sandbox.
    pub fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.path("bin").join(name);
        // A shell writes it: a file that this process has open for writing cannot be executed, and
        // what another test forks at that moment would have it open, too.
        let write = "printf '%s\\n' '#!/bin/sh' \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let status = Command::new("sh").args(["-c", write, "sh"]).arg(&path).arg(body).status();
        assert!(status.unwrap().success());
        path
    }
}

impl Drop for Sandbox {
    /// Ends what a failed test left, so that it cannot disturb the others.
    fn drop(&mut self) {
        for (pid, _) in processes_with(&self.dir.path().to_string_lossy()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// The real guest: its kernel and initramfs, made by tests/guest/build.
pub struct Guest {
    dir: PathBuf,
}

impl Guest {
    /// The guest, if it was built; `tests/run` names it in NETLAUNCH_TEST_GUEST.
    pub fn find(test: &str) -> Option<Self> {
        let dir = std::env::var_os("NETLAUNCH_TEST_GUEST")
            .map(PathBuf::from)
            .unwrap_or_else(|| "/var/cache/netlaunch-tests/guest".into());
        if dir.join("vmlinux").exists() && dir.join("initrd.gz").exists() {
            return Some(Guest { dir });
        }
        let dir = dir.display();
        skipped(test, format_args!("no test guest in {dir} (run ./tests/setup --guest)"));
        None
    }

    /// QEMU and its arguments for a guest that runs `script` once it has its lease.
    pub fn qemu(&self, script: &str) -> Vec<String> {
        let file = |name: &str| self.dir.join(name).to_string_lossy().into_owned();
        // On a busy host the kernel's check of the timer can fail under TCG, and then it panics.
        // The guest has no use for the last three, which take a fifth of the time until it is up.
        let append = format!(
            "console=ttyS0 quiet panic=-1 no_timer_check cryptomgr.notests lsm= audit=0 \
             rodata=off nl.run={}",
            BASE64_STANDARD.encode(script)
        );
        let mut argv: Vec<String> = "qemu-system-x86_64 -M q35 -accel tcg -cpu qemu64 -nodefaults -no-user-config -display none -serial stdio -m 256 -no-reboot -device isa-debug-exit,iobase=0xf4,iosize=0x4"
            .split(' ')
            .map(str::to_owned)
            .collect();
        argv.extend(["-kernel".into(), file("vmlinux"), "-initrd".into(), file("initrd.gz")]);
        argv.extend(["-append".into(), append]);
        argv
    }
}

/// A child that is killed when the test ends, however it ends.
pub struct Reaped(pub Child);

impl Reaped {
    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Waits for the end, at most `limit`, and returns all output.
    pub fn output(mut self, limit: Duration) -> Output {
        let end = Instant::now() + limit;
        let (out, err) = (self.0.stdout.take(), self.0.stderr.take());
        let read = |pipe: Option<Box<dyn Read + Send>>| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut pipe) = pipe {
                    let _ = pipe.read_to_end(&mut bytes);
                }
                bytes
            })
        };
        let out = read(out.map(|p| Box::new(p) as _));
        let err = read(err.map(|p| Box::new(p) as _));
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                let _ = self.0.kill();
                let (out, err) = (out.join().unwrap(), err.join().unwrap());
                panic!("no end within {limit:?}: {}\n{}", text(&out), text(&err));
            }
            thread::sleep(Duration::from_millis(5));
        };
        Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() }
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a command.
pub fn start(mut command: Command) -> Reaped {
    Reaped(command.spawn().unwrap())
}

/// Runs a command to its end, 60 s at most.
pub fn finish(command: Command) -> Output {
    start(command).output(Duration::from_secs(60))
}

/// Runs a system tool to its end.
pub fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The command line of a process, its words with spaces behind them; `None` if it has ended, and
/// empty for a zombie. While a process executes a program, the kernel shows an empty line for it,
/// which a third of all looks saw (measured), so it is read again then.
pub fn command_line(pid: i32) -> Option<String> {
    for _ in 0..1000 {
        let line = text(&fs::read(format!("/proc/{pid}/cmdline")).ok()?);
        if !line.is_empty() || fs::read_link(format!("/proc/{pid}/exe")).is_err() {
            return Some(line.replace('\0', " "));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Some(String::new())
}

/// The processes whose command line mentions `needle` (a path that only this test uses), zombies
/// left out; own processes of the test are not counted.
pub fn processes_with(needle: &str) -> Vec<(i32, String)> {
    let me = std::process::id() as i32;
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok())
        .filter(|pid| *pid != me)
        .filter_map(|pid| {
            let line = command_line(pid)?;
            line.contains(needle).then_some((pid, line))
        })
        .collect()
}

/// A field of /proc/PID/status; empty where the process is gone.
pub fn status_field(pid: i32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let prefix = format!("{name}:");
    let line = status.lines().find_map(|line| line.strip_prefix(&prefix));
    line.unwrap_or_default().trim().to_owned()
}

/// How long a test waits for what must come. Only a test that fails waits to the end, and a busy
/// machine takes many times as long as a quiet one.
pub const AT_MOST: Duration = Duration::from_secs(60);

/// Waits until `done` says so, at most `limit`; returns whether it did.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
