//! Tests that launches leave nothing behind, when netlaunch is killed at any moment, when a start
//! fails, and when many run at once.
//!
//! Each trial has its own directory, which is in the command line of every process of the trial:
//! of netlaunch and its guards, of QEMU and passt (both are called through links there), and of the
//! probes of both.

mod failed_starts;
mod killed;
mod parts_killed;
mod side_by_side;
mod signals;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::scene::{Heard, passt_path};
use crate::common::{
    As, Guest, Netns, Reaped, Sandbox, USER, extent, have_root, processes_with, start, text,
    wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::RngExt;
use serde_json::Value;

/// Every so many random kills, one meets a launch that has to probe its programs first.
const COLD_EVERY: usize = 10;
/// How long a start may be under way when it is hit.
const WINDOW: Duration = Duration::from_millis(60);
/// By when everything must be gone.
const GONE: Duration = Duration::from_secs(1);
/// Launches that are started at the same time in the random trials.
const AT_ONCE: usize = 4;
/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);
/// Far more than a guest's boot takes beside another one.
const BOOT: Duration = Duration::from_secs(120);

/// A QEMU that is up soon and does nothing.
const QEMU: [&str; 6] = ["-M", "none", "-nodefaults", "-display", "none", "-S"];

const BOTH: [As; 2] = [As::Root, As::User];

/// A host for launches.
struct Site {
    netns: Netns,
    sandbox: Sandbox,
}

/// A directory of its own for one launch or for several.
struct Place {
    dir: PathBuf,
    user: bool,
}

impl Site {
    fn new(who: As) -> Self {
        let netns = Netns::routed();
        let sandbox = Sandbox::new(who, Some(&netns));
        let site = Site { netns, sandbox };
        // Fills the cache of the programs' features, which all places but cold ones share.
        site.warm();
        site
    }

    fn warm(&self) {
        for place in [self.place("warm"), self.place("cold")] {
            let output = self.finish(place.netlaunch(&[], &["-no-such-option"]));
            assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        }
    }

    /// A place with links to the real programs and a launch root of its own. One that is called
    /// `cold...` has no cache yet.
    fn place(&self, name: &str) -> Place {
        let user = self.sandbox.who == As::User;
        let place = Place { dir: self.sandbox.path(name), user };
        for dir in [place.dir.clone(), place.state(), place.dir.join("cache")] {
            fs::create_dir(&dir).unwrap();
            if user {
                chown(&dir, Some(USER), Some(USER)).unwrap();
            }
        }
        // As a runtime directory has to be.
        fs::set_permissions(place.state(), fs::Permissions::from_mode(0o700)).unwrap();
        if !name.starts_with("cold") {
            let cache = place.dir.join("cache");
            fs::remove_dir(&cache).unwrap();
            symlink(self.sandbox.path("home"), cache).unwrap();
        }
        symlink("/usr/bin/qemu-system-x86_64", place.qemu()).unwrap();
        symlink(passt_path(), place.dir.join("passt")).unwrap();
        symlink(self.sandbox.path("bin/netlaunch"), place.dir.join("netlaunch")).unwrap();
        place
    }

    /// Starts a command in the namespace; its process number is netlaunch's own from the start.
    fn start(&self, command: Command) -> Reaped {
        self.netns.inside(|| start(command))
    }

    fn finish(&self, command: Command) -> Output {
        self.start(command).output(LIMIT)
    }
}

impl Place {
    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn qemu(&self) -> PathBuf {
        self.dir.join("qemu")
    }

    /// Returns the text that is in the command line of every process of this place. With the slash
    /// `t1` is not taken for `t12`.
    fn marker(&self) -> String {
        format!("{}/", self.dir.display())
    }

    fn processes(&self) -> Vec<(i32, String)> {
        processes_with(&self.marker())
    }

    /// The directories of launches, live or left.
    fn launches(&self) -> Vec<PathBuf> {
        fs::read_dir(self.state()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// Returns the records of the launches here.
    fn records(&self) -> Vec<Value> {
        self.launches().iter().filter_map(|dir| record(dir)).collect()
    }

    fn bare<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(self.dir.join("netlaunch"));
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &self.dir)
            .env("XDG_CACHE_HOME", self.dir.join("cache"))
            .env("NETLAUNCH_STATE_DIR", self.state())
            .env("NETLAUNCH_CONFIG_DIR", self.dir.join("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if self.user {
            command.uid(USER).gid(USER);
        }
        command
    }

    /// netlaunch with the place's passt and QEMU, `options` before and `qemu_args` behind.
    fn netlaunch(&self, options: &[&str], qemu_args: &[&str]) -> Command {
        let mut args: Vec<String> = options.iter().map(|s| (*s).to_owned()).collect();
        let path = |name: &str| self.dir.join(name).display().to_string();
        if !options.contains(&"--passt") {
            args.extend(["--passt".to_owned(), path("passt")]);
        }
        args.extend(["--device", "none", "--"].map(str::to_owned));
        args.push(path("qemu"));
        args.extend(QEMU.map(str::to_owned));
        args.extend(["-name".to_owned(), self.marker()]);
        args.extend(qemu_args.iter().map(|s| (*s).to_owned()));
        self.bare(&args)
    }

    /// The same, started and mute.
    fn launch(&self, site: &Site, options: &[&str]) -> Reaped {
        let mut command = self.netlaunch(options, &[]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        site.start(command)
    }

    /// netlaunch for a trial, up to QEMU's program.
    fn trial(&self, kind: Kind) -> Vec<String> {
        let mut args: Vec<String> = kind.options.split(' ').map(str::to_owned).collect();
        args.extend(["--passt".into(), self.dir.join("passt").display().to_string(), "--".into()]);
        args.push(self.qemu().display().to_string());
        args
    }

    /// A launch whose real guest has its lease by the time this returns.
    fn launch_guest(&self, site: &Site, kind: Kind, guest: &Guest) -> Reaped {
        let mut args = self.trial(kind);
        // The guest has a card, and with more than one of them the first has the lease.
        args.retain(|word| word != "--device" && word != "none");
        // QEMU refuses to daemonize with a console on its standard output.
        let log = self.dir.join("console");
        fs::write(&log, "").unwrap();
        chown(&log, self.user.then_some(USER), self.user.then_some(USER)).unwrap();
        let to_file = |word: String| match word.as_str() {
            "stdio" => format!("file:{}", log.display()),
            _ => word,
        };
        args.extend(guest.qemu("sleep 600").into_iter().skip(1).map(to_file));
        args.extend(["-name".to_owned(), self.marker()]);
        let more = kind.qemu_args.split(' ').skip_while(|word| *word != "-nic");
        let more = more.chain(kind.qemu_args.split(' ').filter(|word| *word == "-daemonize"));
        args.extend(more.map(str::to_owned));
        let mut launch = site.start(self.bare(&args));
        let messages = Heard::of(launch.0.stderr.take().unwrap());
        let console = || fs::read_to_string(&log).unwrap_or_default();
        let leased = wait_until(BOOT, || console().contains("LEASE ip="));
        assert!(leased, "no lease: {}{}", console(), messages.text());
        launch
    }

    /// Starts the launch of a trial. QEMU of a daemon's foreground trial waits for a connection
    /// and never becomes ready.
    fn launch_trial(&self, site: &Site, kind: Kind, n: usize) -> Reaped {
        let mut args = self.trial(kind);
        args.extend(kind.qemu_args.split(' ').map(str::to_owned));
        args.extend(["-name".to_owned(), self.marker()]);
        if kind.hits_foreground(n) {
            let path = self.dir.join("wait").display().to_string();
            args.push("-chardev".into());
            args.push(format!("socket,id=wait,path={path},server=on,wait=on"));
        }
        let mut command = self.bare(&args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        site.start(command)
    }

    /// Kills the process of netlaunch that supervises the launch, or the foreground process of a
    /// daemon.
    fn kill_netlaunch(&self, launch: &mut Reaped, kind: Kind, n: usize) {
        let ended = launch.0.try_wait().unwrap();
        let is_ready = kind.daemonizes() && ended.is_some_and(|status| status.success());
        assert!(ended.is_none() || is_ready, "{n}: it ended by itself: {ended:?}");
        let supervisor = match (is_ready, kind.daemonizes() && !kind.hits_foreground(n)) {
            (true, _) => self.supervisor(),
            // The foreground process has no other child.
            (false, true) => {
                let list = format!("/proc/{0}/task/{0}/children", launch.pid());
                let list = fs::read_to_string(list).unwrap_or_default();
                list.split(' ').find_map(|number| number.parse().ok())
            }
            (false, false) => None,
        };
        signal(supervisor.unwrap_or(launch.pid()), Signal::SIGKILL);
        if supervisor.is_none() && launch.0.wait().unwrap().success() {
            // The foreground process ended in between, and the daemon goes on.
            signal(self.supervisor().unwrap(), Signal::SIGKILL);
        }
    }

    /// Returns the supervisor of the launch here.
    fn supervisor(&self) -> Option<i32> {
        self.records().first().map(|record| record["pid"].as_i64().unwrap() as i32)
    }

    /// Nothing runs and nothing is left.
    fn assert_clean(&self, what: &str) {
        assert_eq!(self.processes(), [], "{what}: processes");
        assert_eq!(self.launches(), [] as [PathBuf; 0], "{what}: directories");
    }

    /// A start that ends by itself; it must clear up behind all that were before.
    fn next_start(&self, site: &Site) {
        let output = site.finish(self.netlaunch(&[], &["-no-such-option"]));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    }

    fn script(&self, name: &str, body: &str) -> String {
        let path = self.dir.join(name);
        let write = "printf '%s\\n' '#!/bin/sh' \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let status = Command::new("sh").args(["-c", write, "sh"]).arg(&path).arg(body).status();
        assert!(status.unwrap().success());
        path.display().to_string()
    }
}

fn record(dir: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(dir.join("launch.json")).ok()?).ok()
}

fn pid(record: &Value, program: &str) -> i32 {
    record[program]["pid"].as_i64().unwrap() as i32
}

/// Waits until this launch of the place has QEMU up, and returns its record.
fn up(place: &Place, launch: i32) -> Value {
    let mut found = None;
    let there = wait_until(LIMIT, || {
        let mut records = place.records().into_iter();
        found = records.find(|record| record["pid"] == launch && !record["qemu"].is_null());
        found.is_some() || !alive(launch)
    });
    assert!(there && found.is_some(), "QEMU does not come up: {:?}", place.processes());
    found.unwrap()
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn alive(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

fn parent(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

/// QEMU makes an orderly end of SIGTERM once it is far enough to know of it; before that it dies.
fn ended_by_sigterm(launch: Reaped) {
    let output = launch.output(LIMIT);
    let code = output.status.code();
    assert!([Some(0), Some(143)].contains(&code), "{code:?}: {}", text(&output.stderr));
}

/// Does `work` for 0 to `count`, `at_once` at the same time.
fn each(count: usize, at_once: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    work(n);
                }
            });
        }
    });
}

/// A kind of launch in the trials.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    /// netlaunch's command and its options.
    options: &'static str,
    /// The arguments of a QEMU that does nothing.
    qemu_args: &'static str,
}

impl Kind {
    const UNIX: Kind = Kind {
        name: "unix",
        options: "--transport unix --device none",
        qemu_args: "-M none -nodefaults -display none -S",
    };
    const FD: Kind = Kind { name: "fd", options: "--transport fd --device none", ..Kind::UNIX };
    const DAEMON_UNIX: Kind = Kind {
        name: "unix, daemon",
        qemu_args: "-M none -nodefaults -display none -S -daemonize",
        ..Kind::UNIX
    };
    const DAEMON_FD: Kind =
        Kind { name: "fd, daemon", qemu_args: Kind::DAEMON_UNIX.qemu_args, ..Kind::FD };
    const STAND_IN: Kind = Kind {
        name: "stand-in",
        options: "wrap --transport unix",
        qemu_args: "-M q35 -accel tcg -m 64 -nodefaults -display none -S -nic user,model=virtio-net-pci",
    };
    const TWO_NICS: Kind = Kind {
        name: "two NICs",
        options: "--net passt,id=one --net passt,id=two",
        qemu_args: "-M q35 -accel tcg -m 64 -nodefaults -display none -S",
    };

    /// Returns whether a short run has the full number of trials of this kind.
    fn is_basic(self) -> bool {
        ["unix", "fd"].contains(&self.name)
    }

    fn daemonizes(self) -> bool {
        self.qemu_args.ends_with(" -daemonize")
    }

    /// Returns whether trial `n` kills the foreground process, and not the supervisor.
    fn hits_foreground(self, n: usize) -> bool {
        self.daemonizes() && n % 2 == 1
    }

    /// How long a start may be under way when it is hit. A kind with few trials is hit after its
    /// start, too.
    fn window(self) -> Duration {
        if self.is_basic() { WINDOW } else { WINDOW * 6 }
    }
}
