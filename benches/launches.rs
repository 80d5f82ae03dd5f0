//! Measures what running launches cost: the memory of all processes of one launch, the number of
//! times that an idle launch wakes up, and `netlaunch ps` with 300 launches.
//!
//! Run `cargo bench --bench launches` as root: it makes its own network namespace. The launches
//! serve, so there is no QEMU. A wake-up is a voluntary context switch of any thread of netlaunch
//! or of its guards (proc_pid_status(5)); passt wakes up once per second by itself. The benchmark
//! has no pass or fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench stops by panicking")]

#[allow(dead_code, unreachable_pub, reason = "a bench uses some of the helpers")]
#[path = "../tests/integration/common/mod.rs"]
mod common;
#[path = "shared/goal.rs"]
mod goal;
#[path = "shared/place.rs"]
mod place;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{As, Netns, Sandbox, finish, have_root};
use goal::{Goal, median, row};

const IDLE: Duration = Duration::from_secs(60);
const LAUNCHES: usize = 300;
const ROUNDS: usize = 15;

fn main() {
    place::in_memory();
    if !have_root("the benchmark of launches") {
        return;
    }
    let netns = Netns::routed();
    let sandbox = Sandbox::new(As::Root, Some(&netns));
    let mut launches = vec![Launch::start(&sandbox)];
    memory_and_wake_ups(&launches[0]);
    launches.extend((1..LAUNCHES).map(|_| Launch::start(&sandbox)));
    ps(&sandbox);
}

/// A launch that serves. It ends when this value is dropped.
struct Launch(Child);

impl Launch {
    /// Starts a launch, and returns when it serves.
    fn start(sandbox: &Sandbox) -> Self {
        let mut command = sandbox.netlaunch(&["-q", "--backend", "passt"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // netlaunch prints the arguments for QEMU when passt serves.
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("-netdev"), "{line}");
        Launch(child)
    }

    /// Returns the processes of the launch, without passt.
    fn processes(&self) -> Vec<i32> {
        let mut all = vec![i32::try_from(self.0.id()).unwrap()];
        let mut next = 0;
        while let Some(pid) = all.get(next) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            all.extend(children.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()));
            next += 1;
        }
        let is_ours = |pid: &i32| {
            let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            !exe.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"passt"))
        };
        all.into_iter().filter(is_ours).collect()
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Measures one launch: the proportional memory of its processes, and their wake-ups.
fn memory_and_wake_ups(launch: &Launch) {
    sleep(Duration::from_secs(1));
    let processes = launch.processes();
    let proportional: u64 = processes.iter().map(|pid| proportional(*pid)).sum();
    let work = format!("proportional memory of a launch's {} processes", processes.len());
    row(&work, "passt aside", proportional as f64 / 1024.0, "MiB", Goal::AtMost(8.0));
    let switches = || processes.iter().map(|pid| switches(*pid)).sum::<u64>();
    let before = switches();
    sleep(IDLE);
    let woken = switches() - before;
    row("wake-ups of an idle launch in 60 s", "", woken as f64, "wake-ups", Goal::AtMost(0.0));
}

/// Returns the proportional memory of a process in KiB (proc_pid_smaps(5)).
fn proportional(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Returns the number of voluntary context switches of all threads of a process.
fn switches(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .map(|task| {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let field = "voluntary_ctxt_switches:";
            let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            line.trim().parse::<u64>().unwrap()
        })
        .sum()
}

/// Measures `netlaunch ps`, compared with cat(1) and the record of each launch.
fn ps(sandbox: &Sandbox) {
    let list = || {
        let output = finish(sandbox.netlaunch(&["ps", "--json"]));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let listed = list();
    let records: Vec<PathBuf> = listed["launches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|launch| PathBuf::from(launch["dir"].as_str().unwrap()).join("launch.json"))
        .collect();
    assert_eq!(records.len(), LAUNCHES);
    let mut ratios = Vec::new();
    for round in 0..=ROUNDS {
        let begun = Instant::now();
        let again = list();
        let ours = begun.elapsed();
        assert_eq!(again, listed);
        let mut cat = sandbox.program("/usr/bin/cat".as_ref());
        cat.args(&records).stdout(Stdio::piped());
        let begun = Instant::now();
        assert!(finish(cat).status.success());
        let theirs = begun.elapsed();
        if round > 0 {
            ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
        }
    }
    let work = format!("ps with {LAUNCHES} launches");
    row(&work, "cat of their records", median(&mut ratios), "×", Goal::AtMost(2.0));
}
