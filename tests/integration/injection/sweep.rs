//! Sweeps over one scenario: a run without a fault counts the calls, and then each fault of a
//! sample is injected and its effects are checked.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cases::{Case, sample};
use super::judge::{Finding, Kind, ended, finding, is_clear, needs_error};
use super::tracer::{Traced, Tracer};
use crate::common::scene::Heard;
use crate::common::{Sandbox, have_root, processes_with, skipped, wait_until};

/// The time limit of a command on a machine that runs all tests at the same time.
pub const BOUND: Duration = Duration::from_secs(20);
/// The seed of the sample if NETLAUNCH_INJECT_SEED is not set.
const SEED: u64 = 10;
/// The number of injections in a long sweep of one scenario if NETLAUNCH_INJECT_LIMIT is not set.
const LONG: usize = 250;

/// A running netlaunch with an injected fault.
pub struct Live {
    pub pid: Pid,
    pub out: Heard,
    stdin: Option<ChildStdin>,
}

impl Live {
    /// Writes to netlaunch's standard input and closes it.
    pub fn say(&mut self, text: &str) {
        if let Some(mut stdin) = self.stdin.take() {
            let _ = stdin.write_all(text.as_bytes());
        }
    }
}

/// Kills a process on drop.
struct Killed(Pid);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

/// The end of a traced run.
pub struct Ended {
    pub success: bool,
    /// Whether the scenario ended netlaunch, which would otherwise continue.
    pub stopped: bool,
    pub said: String,
}

/// A command with the state before it and the conditions after it.
pub trait Scenario {
    fn sandbox(&self) -> &Sandbox;

    /// Makes the state before the command, and returns netlaunch's arguments.
    fn prepare(&mut self) -> Vec<String>;

    /// Acts while netlaunch runs; the sweep calls it repeatedly. Returns whether it has ended
    /// netlaunch.
    fn during(&mut self, _live: &mut Live) -> bool {
        false
    }

    /// Checks the result of a successful command.
    ///
    /// # Errors
    /// The difference, if the result is missing.
    fn check_success(&mut self, ended: &Ended) -> Result<(), String>;

    /// Runs the next command, selected by `number`. After it, nothing may be left.
    ///
    /// # Errors
    /// The remains, if there are any.
    fn next(&mut self, number: usize, ended: &Ended) -> Result<(), String>;

    /// Returns whether an exit status of 1 can come from QEMU.
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
        // If the scenario panics, this ends the process, because the tracer would wait for it.
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
    // Guards end after netlaunch and may still write messages, and the last line of netlaunch may
    // not be read yet.
    let whole = || {
        let said = err.text();
        traced.code == Some(0)
            || if needs_error(&traced) { is_clear(&said) } else { !said.is_empty() }
    };
    wait_until(Duration::from_millis(500), whole);
    let success = traced.code == Some(0);
    let ended = Ended { success, stopped, said: err.text() };
    (traced, ended, hung)
}

/// Runs one case: the command with its fault, and then the next one.
fn one(scenario: &mut dyn Scenario, case: &Case) -> (Traced, Vec<Finding>) {
    if std::env::var_os("NETLAUNCH_INJECT_SHOW").is_some() {
        println!("{case}");
    }
    let number = case.number();
    let args = scenario.prepare();
    let (traced, end, hung) = traced(scenario, &args, Some(case));
    let mut found = Vec::new();
    if hung {
        found.push(finding(Kind::Hang, format!("no end within {BOUND:?}: {}", end.said)));
    } else if !end.stopped || end.said.contains("panicked") {
        found.extend(ended(&traced, &end.said, scenario.has_qemu()));
    }
    // A daemon that is killed after it reported that it serves is not a false success.
    let daemon = ["dnsmasq", "passt", "qemu"].iter().any(|name| case.role.starts_with(name));
    if (end.success || end.stopped)
        && !daemon
        && let Err(what) = scenario.check_success(&end)
    {
        found.push(finding(Kind::FalseSuccess, format!("{what}\nsaid: {}", end.said)));
    }
    if let Err(what) = scenario.next(number, &end) {
        found.push(finding(Kind::Leak, format!("{what}\nsaid: {}", end.said)));
    }
    (traced, found)
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Sweeps over a scenario with `limit` injections, or with the number of a long sweep, or with the
/// one case in NETLAUNCH_INJECT_CASE (SCENARIO:ROLE:CALL:ERROR:N).
///
/// # Panics
/// Panics if a case breaks a rule.
pub fn sweep(name: &str, make: &dyn Fn() -> Box<dyn Scenario>, limit: Option<usize>) {
    if !have_root(name) {
        return;
    }
    if cfg!(not(target_arch = "x86_64")) {
        skipped(name, "the tracer knows the registers of x86_64 only");
        return;
    }
    let only = std::env::var("NETLAUNCH_INJECT_CASE").ok();
    let only = only.as_ref().map(|case| case.split_once(':').unwrap());
    if only.is_some_and(|(scenario, _)| scenario != name) {
        skipped(name, "NETLAUNCH_INJECT_CASE names another scenario");
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
            scenario.check_success(&ended).unwrap_or_else(|what| panic!("without a fault: {what}"));
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
        let hit = traced.hit.unwrap_or_else(|| "a call that did not occur".to_owned());
        let mut report = format!("{name}:{case} at {hit}\n");
        for finding in &found {
            *kinds.entry(finding.kind).or_default() += 1;
            report.push_str(&format!("    {finding}\n"));
        }
        // Printed at once, so that a long sweep shows its findings early.
        println!("{report}");
        all.push_str(&format!("{name}:{case}\n"));
        // Otherwise the remains would be found again after each later case.
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
        of(Kind::FalseSuccess),
        of(Kind::Leak),
    );
    assert!(all.is_empty(), "rerun a case with NETLAUNCH_INJECT_CASE=CASE:\n{all}");
    assert!(hits > 0, "no fault of the sample was injected");
}
