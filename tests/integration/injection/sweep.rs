//! A sweep over one scenario: a run without a fault counts the calls, a sample of faults is injected,
//! and each is judged.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cases::{Case, sample};
use crate::common::scene::Heard;
use crate::common::{Sandbox, have_root, processes_with, wait_until};
use crate::judge::{Finding, Kind, ended, finding};
use crate::tracer::{Traced, Tracer};

/// A command may take this long, on a machine that runs all tests at the same time.
pub const BOUND: Duration = Duration::from_secs(20);
/// The sample's seed where NETLAUNCH_INJECT_SEED names no other.
const SEED: u64 = 10;
/// The injections of a long sweep of one scenario where NETLAUNCH_INJECT_LIMIT names no other
/// number.
const LONG: usize = 250;

/// netlaunch while a fault is injected into it.
pub struct Live {
    pub pid: Pid,
    pub out: Heard,
    stdin: Option<ChildStdin>,
}

impl Live {
    /// Writes to its standard input and closes that.
    pub fn say(&mut self, text: &str) {
        if let Some(mut stdin) = self.stdin.take() {
            let _ = stdin.write_all(text.as_bytes());
        }
    }
}

/// Kills a process when it is dropped.
struct Killed(Pid);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

/// How a traced run ended.
pub struct Ended {
    pub success: bool,
    /// The scenario ended it, since it runs until it is told to end.
    pub stopped: bool,
    pub said: String,
}

/// A command, what is there before it, and what must hold after it.
pub trait Scenario {
    fn sandbox(&self) -> &Sandbox;

    /// netlaunch's arguments; what must be there before it is made here.
    fn prepare(&mut self) -> Vec<String>;

    /// Called again and again while netlaunch runs. Returns whether it has been told to end.
    fn during(&mut self, _live: &mut Live) -> bool {
        false
    }

    /// What success says is there.
    ///
    /// # Errors
    /// It is not.
    fn is_true(&mut self, ended: &Ended) -> Result<(), String>;

    /// The next command, which `number` chooses, after which nothing may be left behind.
    ///
    /// # Errors
    /// What is.
    fn next(&mut self, number: usize, ended: &Ended) -> Result<(), String>;

    /// Whether an exit status of 1 can be QEMU's.
    fn has_qemu(&self) -> bool {
        false
    }
}

/// Runs netlaunch with these arguments under the tracer.
fn traced(
    scenario: &mut dyn Scenario,
    args: &[String],
    case: Option<&Case>,
) -> (Traced, Ended, bool) {
    let sandbox = scenario.sandbox();
    let mut command: Command = sandbox.program(Path::new("/bin/sh"));
    command.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]);
    command.arg(sandbox.path("bin/netlaunch")).args(args).stdin(Stdio::piped());
    let mine = sandbox.path("").to_string_lossy().into_owned();
    #[expect(clippy::zombie_processes, reason = "the tracer waits for it")]
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_raw(child.id() as i32);
    let out = Heard::of(child.stdout.take().unwrap());
    let err = Heard::of(child.stderr.take().unwrap());
    let mut live = Live { pid, out, stdin: child.stdin.take() };
    let (mut hung, mut stopped) = (false, false);
    let traced = thread::scope(|scope| {
        // Where the scenario panics, the tracer would wait for the process.
        let killed = Killed(pid);
        let tracer = scope.spawn(|| Tracer::run(pid, case));
        let begin = Instant::now();
        while !tracer.is_finished() {
            stopped |= scenario.during(&mut live);
            if begin.elapsed() > BOUND {
                hung = true;
                for (pid, _) in processes_with(&mine) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                let _ = kill(pid, Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(1));
        }
        std::mem::forget(killed);
        tracer.join().unwrap()
    });
    // Guards end after netlaunch, and may still say something.
    let quiet = || !err.text().is_empty() || traced.code == Some(0);
    wait_until(Duration::from_millis(200), quiet);
    let success = traced.code == Some(0);
    let ended = Ended { success, stopped, said: err.text() };
    (traced, ended, hung)
}

/// One case: the command with its fault, then the next one.
fn one(scenario: &mut dyn Scenario, case: &Case) -> (Traced, Vec<Finding>) {
    if std::env::var_os("NETLAUNCH_INJECT_SHOW").is_some() {
        println!("{case}");
    }
    let number = case.number();
    let args = scenario.prepare();
    let (traced, ended_how, hung) = traced(scenario, &args, Some(case));
    let mut found = Vec::new();
    if hung {
        found.push(finding(Kind::Hang, format!("no end within {BOUND:?}: {}", ended_how.said)));
    } else if !ended_how.stopped || ended_how.said.contains("panicked") {
        found.extend(ended(&traced, &ended_how.said, scenario.has_qemu()));
    }
    // A daemon that is killed after it has told that it serves was there.
    let daemon = ["dnsmasq", "passt", "qemu"].iter().any(|name| case.role.starts_with(name));
    if (ended_how.success || ended_how.stopped)
        && !daemon
        && let Err(what) = scenario.is_true(&ended_how)
    {
        found.push(finding(Kind::Lie, format!("{what}\nsaid: {}", ended_how.said)));
    }
    if let Err(what) = scenario.next(number, &ended_how) {
        found.push(finding(Kind::Leak, format!("{what}\nsaid: {}", ended_how.said)));
    }
    (traced, found)
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Sweeps over a scenario with `limit` injections, or with many, or with the one case that
/// NETLAUNCH_INJECT_CASE names (SCENARIO:ROLE:CALL:ERROR:N).
///
/// # Panics
/// When something was found.
pub fn sweep(name: &str, make: &dyn Fn() -> Box<dyn Scenario>, limit: Option<usize>) {
    if !have_root(name) {
        return;
    }
    if cfg!(not(target_arch = "x86_64")) {
        eprintln!("skipped {name}: the tracer knows the registers of x86_64 only");
        return;
    }
    let only = std::env::var("NETLAUNCH_INJECT_CASE").ok();
    let only = only.as_ref().map(|case| case.split_once(':').unwrap());
    if only.is_some_and(|(scenario, _)| scenario != name) {
        eprintln!("skipped {name}: NETLAUNCH_INJECT_CASE names another scenario");
        return;
    }
    let seed = number_from("NETLAUNCH_INJECT_SEED").unwrap_or(SEED);
    let long = || number_from("NETLAUNCH_INJECT_LIMIT").map_or(LONG, |n| n as usize);
    let limit = limit.unwrap_or_else(long);
    let mut scenario = make();
    let cases = match only {
        Some((_, case)) => {
            vec![Case::parse(case).unwrap_or_else(|| panic!("no such case: {case}"))]
        }
        None => {
            let args = scenario.prepare();
            let (counted, ended, hung) = traced(&mut *scenario, &args, None);
            assert!(!hung && (ended.success || ended.stopped), "without a fault: {}", ended.said);
            scenario.is_true(&ended).unwrap_or_else(|what| panic!("without a fault: {what}"));
            scenario.next(0, &ended).unwrap_or_else(|what| panic!("without a fault: {what}"));
            sample(&counted.counts, seed, limit)
        }
    };
    let (mut hits, mut kinds): (usize, BTreeMap<Kind, usize>) = Default::default();
    let mut all = String::new();
    let begin = Instant::now();
    for case in &cases {
        let (traced, found) = one(&mut *scenario, case);
        hits += usize::from(traced.hit.is_some());
        if found.is_empty() {
            continue;
        }
        let hit = traced.hit.unwrap_or_else(|| "the call did not come".to_owned());
        let mut report = format!("{name}:{case} at {hit}\n");
        for finding in &found {
            *kinds.entry(finding.kind).or_default() += 1;
            report.push_str(&format!("    {finding}\n"));
        }
        // At once, so that a long sweep shows what it finds.
        println!("{report}");
        all.push_str(&format!("{name}:{case}\n"));
        // What is left would be found again after each further case.
        drop(scenario);
        scenario = make();
    }
    let of = |kind| kinds.get(&kind).copied().unwrap_or_default();
    println!(
        "{name}: {hits} injections of {} cases, seed {seed}, {:.0?}: {} panics, {} hung, {} unclear, {} wrong statuses, {} untrue successes, {} leaks (calls before netlaunch's first fcntl are the loader's and are left out)",
        cases.len(),
        begin.elapsed(),
        of(Kind::Panic),
        of(Kind::Hang),
        of(Kind::Unclear),
        of(Kind::Status),
        of(Kind::Lie),
        of(Kind::Leak),
    );
    assert!(all.is_empty(), "rerun a case with NETLAUNCH_INJECT_CASE=CASE:\n{all}");
    assert!(hits > 0, "no call of the sample came");
}
