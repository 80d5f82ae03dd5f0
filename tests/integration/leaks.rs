//! Tests that launches leave nothing behind, when netlaunch is killed at any moment, when a start
//! fails, and when many run at once.
//!
//! Each trial has its own directory, which is in the command line of every process of the trial:
//! of netlaunch and its guards, of QEMU and passt (both are called through links there), and of the
//! probes of both.

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

/// Returns the number of kills at random moments, for each user and kind.
fn kills(kind: Kind) -> usize {
    extent(if kind.is_basic() { 40 } else { 20 }, 100)
}

/// Returns the number of kills after the guest has its lease.
fn kills_up(kind: Kind) -> usize {
    extent(if kind.is_basic() { 4 } else { 1 }, 20)
}

/// Every so many random kills, one meets a launch that has to probe its programs first.
const COLD_EVERY: usize = 10;
/// How long a start may be under way when it is hit.
const WINDOW: Duration = Duration::from_millis(60);
/// By when everything must be gone.
const GONE: Duration = Duration::from_secs(1);
/// Launches that are started at the same time in the random trials.
const AT_ONCE: usize = 4;
/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);
/// Far more than a guest's boot takes beside another one.
const BOOT: Duration = Duration::from_secs(120);

/// A QEMU that is up soon and does nothing.
const QEMU: [&str; 6] = ["-M", "none", "-nodefaults", "-display", "none", "-S"];

const BOTH: [As; 2] = [As::Root, As::User];

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

    /// What is in the command line of every process of this place. With the slash `t1` is not
    /// taken for `t12`.
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

/// How far launches had come when they were killed.
#[derive(Debug, Default)]
struct Phases {
    /// No directory was made.
    before: usize,
    /// A directory, but no passt.
    directory: usize,
    /// passt served.
    passt: usize,
    /// QEMU ran.
    qemu: usize,
}

impl Phases {
    fn add(&mut self, place: &Place) {
        let phase = match place.launches().first().map(|dir| (dir, record(dir))) {
            None => &mut self.before,
            Some((_, Some(record))) if !record["qemu"].is_null() => &mut self.qemu,
            Some((dir, _)) if dir.join("passt.pid").exists() => &mut self.passt,
            Some(_) => &mut self.directory,
        };
        *phase += 1;
    }
}

fn kill_trials(who: As, kind: Kind) {
    let test = format!("leaks of {who:?} by {}", kind.name);
    if !have_root(&test) {
        return;
    }
    let (kills, kills_up) = (kills(kind), kills_up(kind));
    let site = Site::new(who);
    let places: Vec<Place> = (0..kills + kills_up)
        .map(|n| {
            let cold = n < kills && n % COLD_EVERY == 0;
            site.place(&format!("{}{n}", if cold { "cold" } else { "t" }))
        })
        .collect();

    let guest = Guest::find(&format!("the guests of {test}"));
    let (left, phases) = (Mutex::new(Vec::new()), Mutex::new(Phases::default()));
    thread::scope(|scope| {
        let (site, places, left, guest, test) = (&site, &places, &left, &guest, &test);
        let phases = &phases;
        let trial = move |n: usize| {
            let place = &places[n];
            let mut launch = match guest {
                Some(guest) if n >= kills => place.launch_guest(site, kind, guest),
                _ => place.launch_trial(site, kind, n),
            };
            if n < kills {
                thread::sleep(rand::rng().random_range(Duration::ZERO..kind.window()));
            } else {
                let is_up = || place.records().iter().any(|record| !record["qemu"].is_null());
                assert!(wait_until(LIMIT, is_up), "{test} {n}: {:?}", place.processes());
            }
            // A supervisor whose foreground process is killed removes the directory.
            phases.lock().unwrap().add(place);
            place.kill_netlaunch(&mut launch, kind, n);
            drop(launch);
            scope.spawn(move || {
                thread::sleep(GONE);
                left.lock().unwrap().extend(place.processes());
            });
        };
        each(kills, AT_ONCE, trial);
        // A guest keeps a processor busy until it is up.
        each(kills_up, 1, |n| trial(kills + n));
    });
    let left = left.into_inner().unwrap();
    let phases = phases.into_inner().unwrap();
    each(places.len(), AT_ONCE, |n| places[n].next_start(&site));
    let directories: Vec<_> = places.iter().flat_map(Place::launches).collect();
    eprintln!(
        "{test}: {kills} kills within {:?} and {kills_up} with {} up, which hit {phases:?}; {} processes were left after {GONE:?}, {} directories after the next start",
        kind.window(),
        if guest.is_some() { "the guest" } else { "QEMU" },
        left.len(),
        directories.len()
    );
    for (pid, _) in &left {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    assert_eq!((left, directories), (Vec::new(), Vec::new()));
    let caches = places.iter().flat_map(|place| fs::read_dir(place.dir.join("cache/netlaunch")));
    let odd: BTreeSet<_> = caches
        .flatten()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "probe.json")
        .collect();
    assert_eq!(odd, BTreeSet::new(), "in the caches");
}

#[test]
fn nothing_is_left_of_killed_launches_of_root_by_unix() {
    kill_trials(As::Root, Kind::UNIX);
}

#[test]
fn nothing_is_left_of_killed_launches_of_root_by_fd() {
    kill_trials(As::Root, Kind::FD);
}

#[test]
fn nothing_is_left_of_killed_launches_of_a_user_by_unix() {
    kill_trials(As::User, Kind::UNIX);
}

#[test]
fn nothing_is_left_of_killed_launches_of_a_user_by_fd() {
    kill_trials(As::User, Kind::FD);
}

#[test]
fn nothing_is_left_of_killed_daemons_of_root_by_unix() {
    kill_trials(As::Root, Kind::DAEMON_UNIX);
}

#[test]
fn nothing_is_left_of_killed_daemons_of_root_by_fd() {
    kill_trials(As::Root, Kind::DAEMON_FD);
}

#[test]
fn nothing_is_left_of_killed_daemons_of_a_user_by_unix() {
    kill_trials(As::User, Kind::DAEMON_UNIX);
}

#[test]
fn nothing_is_left_of_killed_daemons_of_a_user_by_fd() {
    kill_trials(As::User, Kind::DAEMON_FD);
}

#[test]
fn nothing_is_left_of_killed_stand_ins() {
    kill_trials(As::User, Kind::STAND_IN);
}

#[test]
fn nothing_is_left_of_killed_launches_with_two_nics() {
    kill_trials(As::User, Kind::TWO_NICS);
}

#[test]
fn nothing_is_left_after_a_sigterm_during_the_start() {
    if !have_root("nothing_is_left_after_a_sigterm_during_the_start") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        let places: Vec<_> = (0..50).map(|n| site.place(&format!("t{n}"))).collect();
        let codes = Mutex::new(std::collections::BTreeMap::<i32, usize>::new());
        each(places.len(), AT_ONCE, |n| {
            let place = &places[n];
            let transport = ["unix", "fd"][n % 2];
            let launch = site.start(place.netlaunch(&["--transport", transport], &[]));
            thread::sleep(rand::rng().random_range(Duration::ZERO..WINDOW));
            signal(launch.pid(), Signal::SIGTERM);
            let output = launch.output(LIMIT);
            // Before netlaunch takes its signals, the kernel ends it.
            let status = output.status;
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
            // QEMU makes an orderly end of SIGTERM, once it is far enough to know of it.
            assert!([143, 0].contains(&code), "{status}: {}", text(&output.stderr));
            place.assert_clean(&format!("SIGTERM, {who:?} {transport} {n}"));
            *codes.lock().unwrap().entry(code).or_default() += 1;
        });
        eprintln!("SIGTERM within {WINDOW:?}, {who:?}: exit statuses {:?}", codes.lock().unwrap());
    }
}

#[test]
fn nothing_is_left_if_qemu_cannot_start() {
    if !have_root("nothing_is_left_if_qemu_cannot_start") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        for options in
            [&["--transport", "unix"][..], &["--transport", "fd"], &["--backend", "slirp"]]
        {
            let place = site.place(&format!("refused{}", options[1]));
            let output = site.finish(place.netlaunch(options, &["-no-such-option"]));
            assert_eq!(output.status.code(), Some(1));
            let said = text(&output.stderr);
            assert!(said.contains("-no-such-option: invalid option"), "{said}");
            assert_eq!(said.lines().count(), 1, "QEMU's own message and no other: {said}");
            place.assert_clean(&format!("{who:?} {options:?}"));
        }

        // A passt that makes QEMU go before it serves.
        for (transport, removal, code) in [("unix", "rm", 127), ("fd", "chmod 644", 126)] {
            let place = site.place(&format!("gone{transport}"));
            fs::remove_file(place.qemu()).unwrap();
            place.script("qemu", "exec /usr/bin/qemu-system-x86_64 \"$@\"");
            if who == As::User {
                chown(place.qemu(), Some(USER), Some(USER)).unwrap();
            }
            let real = passt_path().display().to_string();
            let passt = place.script(
                "removing",
                &format!(
                    "case $* in *--help*) ;; *) {removal} {};; esac; exec {real} \"$@\"",
                    place.qemu().display()
                ),
            );
            let options = ["--transport", transport, "--backend", "passt", "--passt", &passt];
            let output = site.finish(place.netlaunch(&options, &[]));
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{said}");
            let start = format!("netlaunch: error: cannot execute {}: ", place.qemu().display());
            assert!(said.starts_with(&start) && said.lines().count() == 1, "{said}");
            place.assert_clean(&format!("{who:?}, QEMU gone"));
        }
    }
}

/// A passt that has all options and does not start.
const BROKEN: &str = "echo 'passt: out of luck' >&2; exit 1";

#[test]
fn nothing_is_left_if_passt_cannot_start() {
    if !have_root("nothing_is_left_if_passt_cannot_start") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        for transport in ["unix", "fd"] {
            let place = site.place(&format!("broken{transport}"));
            let help =
                format!("case $* in *--help*) exec {} --help;; esac", passt_path().display());
            let passt = place.script("broken", &format!("{help}; {BROKEN}"));
            let options = ["--backend", "passt", "--transport", transport, "--passt", &passt];
            let output = site.finish(place.netlaunch(&options, &[]));
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{said}");
            assert!(
                said.contains("exited with status 1") && said.contains("\"passt: out of luck\"")
            );
            assert!(said.starts_with("netlaunch: ") && said.lines().count() == 1, "{said}");
            place.assert_clean(&format!("{who:?} {transport}, passt fails"));

            // The same without a word on the backend: slirp, and why.
            let output = site.finish(place.netlaunch(&["--passt", &passt], &["-no-such-option"]));
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "QEMU's: {said}");
            assert!(said.contains("using slirp") && said.contains("passt: out of luck"), "{said}");
            place.assert_clean(&format!("{who:?} {transport}, passt fails, slirp"));
        }

        // The real passt has words of its own.
        let place = site.place("interface");
        let options = ["--backend", "passt", "--interface", "lo"];
        let output = site.finish(place.netlaunch(&options, &[]));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(
            said.contains("External interface not usable") && said.lines().count() == 1,
            "{said}"
        );
        place.assert_clean(&format!("{who:?}, unusable interface"));
    }
}

/// Starts 30 launches at once, by both transports, in one launch root; returns when all are up.
fn thirty(site: &Site, place: &Place) -> Vec<Reaped> {
    let launches = Mutex::new(Vec::new());
    each(30, 30, |n| {
        let launch = place.launch(site, &["--transport", ["unix", "fd"][n % 2]]);
        launches.lock().unwrap().push(launch);
    });
    let all_up = || place.records().iter().filter(|r| !r["qemu"].is_null()).count() == 30;
    assert!(wait_until(LIMIT, all_up), "{:?}", place.records());
    launches.into_inner().unwrap()
}

#[test]
fn thirty_launches_run_at_once_and_leave_nothing() {
    if !have_root("thirty_launches_run_at_once_and_leave_nothing") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        let place = site.place("thirty");
        let launches = thirty(&site, &place);

        let output = site.finish(place.bare(&["ps", "--json"]));
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
        let listed = listed["launches"].as_array().unwrap();
        for part in ["/dir", "/name", "/pid", "/guest/mac", "/qemu/pid", "/passt/pid"] {
            let all: BTreeSet<String> =
                listed.iter().map(|record| record.pointer(part).unwrap().to_string()).collect();
            assert_eq!(all.len(), 30, "{part}: {all:?}");
        }
        for record in listed {
            let file = Path::new(record["dir"].as_str().unwrap()).join("passt.pid");
            assert_eq!(fs::read_to_string(file).unwrap(), format!("{}\n", pid(record, "passt")));
            assert!(alive(pid(record, "passt")) && alive(pid(record, "qemu")));
        }

        for launch in &launches {
            signal(launch.pid(), Signal::SIGTERM);
        }
        for launch in launches {
            ended_by_sigterm(launch);
        }
        place.assert_clean(&format!("{who:?}, thirty"));
    }
}

#[test]
fn thirty_killed_launches_leave_nothing() {
    if !have_root("thirty_killed_launches_leave_nothing") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        let place = site.place("thirty");
        let launches = thirty(&site, &place);
        // Some more are on their way.
        let more: Vec<_> = (0..6).map(|_| place.launch(&site, &[])).collect();
        for launch in launches.iter().chain(&more) {
            signal(launch.pid(), Signal::SIGKILL);
        }
        let killed = Instant::now();
        drop((launches, more));
        thread::sleep(GONE.saturating_sub(killed.elapsed()));
        assert_eq!(place.processes(), [], "{who:?}");
        assert!(place.launches().len() >= 30);
        place.next_start(&site);
        place.assert_clean(&format!("{who:?}, thirty killed"));
    }
}

#[test]
fn killing_guards_leaves_no_orphan() {
    if !have_root("killing_guards_leaves_no_orphan") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        for transport in ["unix", "fd"] {
            let what = format!("{who:?} {transport}");
            let place = site.place(&format!("passt{transport}"));
            let launch = place.launch(&site, &["--transport", transport]);
            let record = up(&place, launch.pid());
            let (passt, qemu) = (pid(&record, "passt"), pid(&record, "qemu"));
            let guard = parent(passt);
            assert_eq!(parent(guard), launch.pid(), "{what}");
            signal(guard, Signal::SIGKILL);
            assert!(wait_until(GONE, || !alive(passt)), "{what}: passt outlives its guard");
            assert!(alive(qemu), "{what}");
            if transport == "unix" {
                let again = || {
                    let records = place.records();
                    records.first().is_some_and(|r| pid(r, "passt") != passt)
                };
                assert!(wait_until(LIMIT, again), "{what}: passt is not started again");
            }
            signal(launch.pid(), Signal::SIGTERM);
            ended_by_sigterm(launch);
            place.assert_clean(&format!("{what}, guard of passt"));

            let place = site.place(&format!("qemu{transport}"));
            let launch = place.launch(&site, &["--transport", transport]);
            let qemu = pid(&up(&place, launch.pid()), "qemu");
            signal(parent(qemu), Signal::SIGKILL);
            assert!(wait_until(GONE, || !alive(qemu)), "{what}: QEMU outlives its guard");
            assert_eq!(launch.output(LIMIT).status.code(), Some(137), "{what}");
            place.assert_clean(&format!("{what}, guard of QEMU"));

            // The guards and netlaunch, all in the same moment.
            let place = site.place(&format!("all{transport}"));
            let launch = place.launch(&site, &["--transport", transport]);
            let record = up(&place, launch.pid());
            let all = [parent(pid(&record, "passt")), parent(pid(&record, "qemu")), launch.pid()];
            for pid in all {
                signal(pid, Signal::SIGKILL);
            }
            drop(launch);
            let gone = wait_until(GONE, || place.processes().is_empty());
            assert!(gone, "{what}: {:?}", place.processes());
            place.next_start(&site);
            place.assert_clean(&format!("{what}, all"));
        }
    }
}

#[test]
fn a_start_never_removes_the_directory_of_a_live_launch() {
    if !have_root("a_start_never_removes_the_directory_of_a_live_launch") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        let place = site.place("shared");
        let running = place.launch(&site, &[]);
        let before = up(&place, running.pid());
        let dir = PathBuf::from(before["dir"].as_str().unwrap());
        let files = || -> BTreeSet<_> {
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        let were = files();
        let named = |name: &str| were.contains(OsStr::new(name));
        assert!(["launch.json", "passt.log", "passt.pid", "passt.sock"].into_iter().all(named));
        each(20, AT_ONCE, |n| match n % 2 {
            0 => place.next_start(&site),
            _ => {
                let launch = place.launch(&site, &["--transport", ["unix", "fd"][n / 2 % 2]]);
                thread::sleep(rand::rng().random_range(Duration::ZERO..WINDOW));
                drop(launch);
            }
        });
        place.next_start(&site);
        assert_eq!(place.launches(), std::slice::from_ref(&dir), "{who:?}");
        assert_eq!((files(), record(&dir)), (were, Some(before.clone())), "{who:?}");
        assert!(alive(pid(&before, "passt")) && alive(pid(&before, "qemu")));
        signal(running.pid(), Signal::SIGTERM);
        ended_by_sigterm(running);
        place.assert_clean(&format!("{who:?}, survivor"));
    }
}

/// The root is made by the first launch and removed by the last one, so starts and ends meet there.
#[test]
fn launches_that_start_and_end_at_once_share_the_root_directory() {
    if !have_root("launches_that_start_and_end_at_once_share_the_root_directory") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        let place = site.place("meet");
        let failures = Mutex::new(Vec::new());
        each(200, 8, |_| {
            let mut command = place.netlaunch(&["--backend", "slirp"], &["-no-such-option"]);
            command.env_remove("NETLAUNCH_STATE_DIR").env("XDG_RUNTIME_DIR", place.state());
            let output = site.finish(command);
            if output.status.code() != Some(1) {
                failures.lock().unwrap().push(text(&output.stderr));
            }
        });
        assert_eq!(failures.into_inner().unwrap(), [] as [String; 0], "{who:?}");
        place.assert_clean(&format!("{who:?}, meet"));
    }
}

#[test]
fn a_start_after_a_crash_removes_the_remains() {
    if !have_root("a_start_after_a_crash_removes_the_remains") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        let place = site.place("crash");
        let launch = place.launch(&site, &[]);
        let dir = PathBuf::from(up(&place, launch.pid())["dir"].as_str().unwrap());
        drop(launch);
        assert!(wait_until(GONE, || place.processes().is_empty()));
        assert!(dir.exists());
        let listed = site.finish(place.bare(&["ps", "--json"]));
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        assert_eq!(listed["launches"], Value::Array(Vec::new()), "a dead launch is not listed");
        assert!(dir.exists(), "ps changes nothing");

        let launch = place.launch(&site, &[]);
        let record = up(&place, launch.pid());
        assert!(!dir.exists(), "{who:?}");
        assert_eq!(place.launches(), [PathBuf::from(record["dir"].as_str().unwrap())]);
        signal(launch.pid(), Signal::SIGTERM);
        ended_by_sigterm(launch);
        place.assert_clean(&format!("{who:?}, crash"));
    }
}

#[test]
fn the_parents_death_ends_the_launch() {
    if !have_root("the_parents_death_ends_the_launch") {
        return;
    }
    for who in BOTH {
        let site = Site::new(who);
        let place = site.place("parent");
        let launch = place.netlaunch(&[], &[]);
        let mut shell = Command::new("/bin/sh");
        // The shell stays in between: it has something to do afterwards.
        shell
            .args(["-c", "\"$@\"; exit 3", "sh"])
            .arg(launch.get_program())
            .args(launch.get_args());
        shell.env_clear();
        for (name, value) in launch.get_envs() {
            shell.env(name, value.unwrap());
        }
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if who == As::User {
            shell.uid(USER).gid(USER);
        }
        let shell = site.start(shell);
        let is_up = || place.records().iter().any(|record| !record["qemu"].is_null());
        assert!(wait_until(LIMIT, is_up), "{:?}", place.processes());
        drop(shell);
        let gone =
            wait_until(LIMIT, || place.processes().is_empty() && place.launches().is_empty());
        assert!(gone, "{who:?}: {:?} {:?}", place.processes(), place.launches());
    }
}

#[test]
fn passt_works_with_a_launch_directory_below_a_closed_one() {
    if !have_root("passt_works_with_a_launch_directory_below_a_closed_one") {
        return;
    }
    let site = Site::new(As::Root);
    // passt becomes another user, which has no access below a directory of root.
    for (name, root) in [("far", "closed/a/b"), ("near", "closed"), ("passt", "closed/a")] {
        let place = site.place(name);
        fs::create_dir(place.dir.join("closed")).unwrap();
        let closed = fs::Permissions::from_mode(0o700);
        fs::set_permissions(place.dir.join("closed"), closed).unwrap();
        let mut passt = place.dir.join("passt");
        if name == "passt" {
            // Where root has built one, say.
            passt = place.dir.join("closed/passt");
            symlink(passt_path(), &passt).unwrap();
        }
        let passt = passt.display().to_string();
        let mut command = place.netlaunch(&["--backend", "passt", "--passt", &passt], &[]);
        command.env("NETLAUNCH_STATE_DIR", place.dir.join(root));
        let launch = site.start(command);
        let records = || fs::read_dir(place.dir.join(root)).into_iter().flatten().flatten();
        let mut found = None;
        let is_up = wait_until(LIMIT, || {
            found = records().filter_map(|e| record(&e.path())).find(|r| !r["qemu"].is_null());
            found.is_some() || !alive(launch.pid())
        });
        if !is_up || found.is_none() {
            let _ = kill(Pid::from_raw(launch.pid()), Signal::SIGKILL);
            panic!("{name}: {}", text(&launch.output(LIMIT).stderr));
        }
        let passt = pid(&found.clone().unwrap(), "passt");
        let status = fs::read_to_string(format!("/proc/{passt}/status")).unwrap();
        assert!(!status.contains("Uid:\t0\t"), "passt is still root");
        let dir = PathBuf::from(found.unwrap()["dir"].as_str().unwrap());
        let number = fs::read_to_string(dir.join("passt.pid")).unwrap();
        assert_eq!(number, format!("{passt}\n"));
        signal(launch.pid(), Signal::SIGTERM);
        ended_by_sigterm(launch);
        assert_eq!(place.processes(), []);
        assert_eq!(records().count(), 0);
    }
}
