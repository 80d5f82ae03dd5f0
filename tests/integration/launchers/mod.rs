//! Real, unmodified launchers of QEMU guests: each runs twice, with plain QEMU and with netlaunch's
//! stand-in in QEMU's place, and must not notice a difference.
//!
//! tests/launchers/build makes the launchers and their guests. Each launcher is told to do without
//! KVM in the way that its manual gives. The guest fetches a page from its namespace's loopback, so
//! a run whose guest has no network fails in both ways.

mod autopkgtest;
mod debvm;
mod libguestfs;
mod quickemu;
mod virtme_ng;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::common::scene::{HOST, netns_with_resolver, nothing_left};
use super::common::{
    As, Netns, Sandbox, finish, have_root, processes_with, skipped, text, wait_until,
};

/// The page that the guests fetch, at port 8000 of the namespace's loopback.
const PAGE: &str = "page of the host";
const PAGE_PORT: u16 = 8000;
const QEMU: &str = "qemu-system-x86_64";
/// How long the end of a launch may take after QEMU's.
const TIDY_UP: Duration = Duration::from_secs(5);

/// The QEMU of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Qemu {
    Plain,
    StandIn,
}

/// The launchers, and a namespace and a sandbox for one of them.
struct Bench {
    _netns: Netns,
    sandbox: Sandbox,
    /// The directory that tests/launchers/build made.
    made: PathBuf,
}

/// The result of a run that a launcher's caller sees.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Bench {
    /// A bench with the stand-in, if the launcher was made; `tests/run` names the directory in
    /// NETLAUNCH_TEST_LAUNCHERS.
    fn new(test: &str, launcher: &str, who: As) -> Option<Self> {
        if !have_root(test) {
            return None;
        }
        let made = std::env::var_os("NETLAUNCH_TEST_LAUNCHERS")
            .map_or_else(|| "/var/cache/netlaunch-tests/launchers".into(), PathBuf::from);
        if !made.join("made").exists() {
            let made = made.display();
            skipped(test, format_args!("no launchers in {made} (run tests/launchers/build)"));
            return None;
        }
        if let Ok(why) = fs::read_to_string(made.join(format!("{launcher}.missing"))) {
            skipped(test, why.trim_end());
            return None;
        }
        let netns = netns_with_resolver(HOST);
        netns.serve_http(PAGE_PORT, PAGE);
        let sandbox = Sandbox::new(who, Some(&netns));
        let bench = Bench { _netns: netns, sandbox, made };
        if let Some(passt) = std::env::var_os("NETLAUNCH_TEST_PASST") {
            bench.use_passt(Path::new(&passt));
        }
        let dir = bench.stand_ins().display().to_string();
        let installed = finish(bench.sandbox.netlaunch(&["wrap", "--install", &dir, QEMU]));
        assert!(installed.status.success(), "{}", text(&installed.stderr));
        Some(bench)
    }

    fn use_passt(&self, passt: &Path) {
        let conf = format!("passt = {passt:?}\n");
        fs::write(self.sandbox.path("config/netlaunch.conf"), conf).unwrap();
    }

    /// Uses the passt beside the launchers, which is newer than that of this machine, unless there
    /// is none.
    fn use_newer_passt(&self) {
        let passt = self.made.join("passt");
        if std::env::var_os("NETLAUNCH_TEST_PASST").is_none() && passt.exists() {
            self.use_passt(&passt);
        }
    }

    /// The directory with the stand-in.
    fn stand_ins(&self) -> PathBuf {
        self.sandbox.path("run/stand-ins")
    }

    /// A new, empty directory of one run, in the launcher's words: `$TMPDIR`.
    fn directory(&self, qemu: Qemu) -> PathBuf {
        let dir = self.sandbox.path("home").join(format!("{qemu:?}"));
        if !dir.exists() {
            let mut make = self.sandbox.program(Path::new("/bin/mkdir"));
            make.arg(&dir);
            assert!(finish(make).status.success());
        }
        dir
    }

    /// A launcher's program in an environment with this QEMU.
    fn launcher(&self, program: &str, qemu: Qemu) -> Command {
        let path = self.made.join(program);
        let mut command = self.sandbox.program(&path);
        let programs = self.made.join("root/usr/bin");
        let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let usual = format!("{}:{usual}", programs.display());
        let path = match qemu {
            Qemu::Plain => usual,
            Qemu::StandIn => format!("{}:{usual}", self.stand_ins().display()),
        };
        command
            .env("PATH", path)
            .env("TMPDIR", self.directory(qemu))
            .env("NETLAUNCH_WRAP_LOG", self.log_path());
        command
    }

    /// Whether `netlaunch probe` lists this option of the passt under test.
    fn passt_lists(&self, option: &str) -> bool {
        let output = finish(self.sandbox.netlaunch(&["probe", "--json"]));
        let probe: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        probe["passt"]["options"].as_array().unwrap().iter().any(|listed| listed == option)
    }

    fn log_path(&self) -> PathBuf {
        self.sandbox.path("home/wrap.log")
    }

    /// The log's lines from QEMU's name on: each call, and what became of it.
    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let start = format!(" {QEMU}: ");
        let lines = text.lines().map(|line| line.split_once(&start).map_or(line, |(_, rest)| rest));
        lines.map(str::to_owned).collect()
    }

    /// Runs the launcher in both ways, and returns what both gave.
    fn compare(&self, run: impl Fn(Qemu) -> Seen) -> Seen {
        let plain = run(Qemu::Plain);
        assert_eq!(self.log(), [] as [String; 0]);
        let stand_in = run(Qemu::StandIn);
        assert_eq!(
            plain,
            stand_in,
            "plain QEMU, then the stand-in, whose log is {:#?}",
            self.log()
        );
        // The stand-in's sidecar ends after QEMU, and the launcher does not wait for it.
        let place = word(&self.sandbox.path(""));
        wait_until(TIDY_UP, || processes_with(&place).is_empty());
        nothing_left(&self.sandbox);
        stand_in
    }

    /// Returns the result without the names that differ from run to run.
    fn seen(&self, qemu: Qemu, status: Option<i32>, out: &str, err: &str) -> Seen {
        let dir = self.directory(qemu).display().to_string();
        let same = |text: &str| {
            let text = text.replace(&dir, "/tmp");
            let lines = text.lines().filter(|line| !is_of_the_kernel(line));
            lines.map(without_random_names).map(|line| line + "\n").collect()
        };
        Seen { status, out: same(out), err: same(err) }
    }
}

/// Whether a line of a console is the kernel's: `[    1.234567] text`.
fn is_of_the_kernel(line: &str) -> bool {
    let time = line.trim_start().strip_prefix('[').and_then(|line| line.split_once(']'));
    time.is_some_and(|(time, _)| time.trim().parse::<f64>().is_ok())
}

/// Removes what mktemp made up: the end of each name in /tmp from its first dot on. Removes the
/// process that QEMU names when a signal ends it, too.
fn without_random_names(line: &str) -> String {
    let line = line.split_once(" from pid ").map_or(line, |(before, _)| before);
    let mut parts = line.split("/tmp/");
    let mut same = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find([' ', ',', '/']).unwrap_or(part.len());
        let stem = part[..end].split_once('.').map_or(&part[..end], |(stem, _)| stem);
        same = format!("{same}/tmp/{stem}{}", &part[end..]);
    }
    same
}

/// Checks the stand-in's log of one run: so many calls went to QEMU untouched, and one guest had
/// its network `written` moved to passt.
fn moved_to_passt(log: &[String], probes: usize, written: &str) {
    let (passed, moved): (Vec<&String>, Vec<&String>) =
        log.iter().partition(|line| line.contains(" runs without netlaunch: "));
    assert_eq!((passed.len(), moved.len()), (probes, 1), "{log:#?}");
    assert!(moved[0].contains(&format!("{written} moved to passt")), "{log:#?}");
}

/// The same for a guest whose network has a TCP forward, with `PORT` in `written` for any port. A
/// passt that does not deliver the first words of a server, such as Debian 12's, does not get it:
/// the guest runs untouched, and the log says why. The probe tells by an option that came later.
fn forward_moved(bench: &Bench, written: &str) {
    let log: Vec<String> = bench.log().iter().map(|line| without_port(line)).collect();
    if bench.passt_lists("map-host-loopback") {
        return moved_to_passt(&log, 0, written);
    }
    assert_eq!(log.len(), 1, "{log:#?}");
    assert!(log[0].contains(" runs without netlaunch: "), "{log:#?}");
    assert!(log[0].contains(&format!("{written} stays on slirp: ")), "{log:#?}");
}

/// Writes `PORT` for the port of the first forward.
fn without_port(line: &str) -> String {
    let forward = "hostfwd=tcp:127.0.0.1:";
    let Some((before, after)) = line.split_once(forward) else { return line.to_owned() };
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}{forward}PORT{rest}")
}

/// A path as one word of a command line.
fn word(path: &Path) -> String {
    path.display().to_string()
}
