//! Measures the cost of netlaunch: the time until QEMU's QMP greeting, compared with a shell line
//! that does the same by hand, the resident memory of netlaunch, and a probe: with an empty cache,
//! compared with the calls of QEMU and passt that it makes, and with a full one.
//!
//! Run `cargo bench --bench start` as root: it makes its own network namespace. The two ways start
//! alternately, and each pair gives one ratio, so that a machine that slows down slows both. The
//! figures go to standard output. The benchmark has no pass or fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench stops by panicking")]

#[allow(dead_code, unreachable_pub, reason = "a bench uses some of the helpers")]
#[path = "../tests/integration/common/mod.rs"]
mod common;
#[path = "shared/goal.rs"]
mod goal;
#[path = "shared/place.rs"]
mod place;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{As, Netns, Sandbox, have_root, text};
use goal::{Goal, median, row};

const PAIRS: usize = 40;
const QEMU: &str = "qemu-system-x86_64 -M none -nodefaults -display none -S -qmp stdio";
const QUIT: &[u8] = b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}\n";
/// The commands of a probe.
const PROBE: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-qmp-schema\"}\n\
    {\"execute\":\"qom-list-properties\",\"arguments\":{\"typename\":\"none-machine\"}}\n\
    {\"execute\":\"quit\"}\n";
const PASST: &str = "--address 10.0.2.15 --netmask 24 --gateway 10.0.2.2";

fn main() {
    place::in_memory();
    if !have_root("the start benchmark") {
        return;
    }
    let netns = Netns::routed();
    for who in [As::Root, As::User] {
        let sandbox = Sandbox::new(who, Some(&netns));
        start(&sandbox);
    }
    probe_cold(&Sandbox::new(As::User, Some(&netns)));
    probe(&Sandbox::new(As::User, Some(&netns)));
}

/// Measures the time to the greeting both ways, and the memory.
fn start(sandbox: &Sandbox) {
    let mut ratios = Vec::new();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut memory = 0;
    for pair in 0..=PAIRS {
        // A machine of type `none` has no bus for a network card.
        let options = ["--backend", "passt", "--device", "none", "--"];
        let mut command = sandbox.netlaunch(&options);
        command.args(QEMU.split(' '));
        let a = greeting(command, |pid| memory = memory.max(resident(pid)));
        let dir = sandbox.path(&format!("run/{pair}"));
        std::fs::create_dir(&dir).unwrap();
        // Under root, Debian's passt makes its files as nobody.
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        let b = greeting(by_hand(sandbox, &dir), |_| ());
        // The first pair warms the caches, including the probe's cache.
        if pair > 0 {
            ratios.push(a.as_secs_f64() / b.as_secs_f64());
            ours.push(a.as_secs_f64() * 1e3);
            theirs.push(b.as_secs_f64() * 1e3);
        }
    }
    println!(
        "{:?}: QMP greeting after {:.1} ms, by hand {:.1} ms, ratio {:.3} (medians of {PAIRS}), netlaunch resident {:.1} MiB",
        sandbox.who,
        median(&mut ours),
        median(&mut theirs),
        median(&mut ratios),
        memory as f64 / 1024.0,
    );
    let who = format!("{:?}", sandbox.who).to_lowercase();
    let (work, reference) = (format!("start to the QMP greeting, {who}"), "a shell line");
    row(&work, reference, median(&mut ratios), "×", Goal::AtMost(1.05));
    let resident = memory as f64 / 1024.0;
    row(&format!("resident supervisor, {who}"), "", resident, "MiB", Goal::AtMost(5.3));
}

/// Starts passt in the background, whose parent process returns once passt listens, and then QEMU.
fn by_hand(sandbox: &Sandbox, dir: &Path) -> Command {
    let dir = dir.display();
    let line = format!(
        "passt --one-off --socket {dir}/s --pid {dir}/p {PASST} 2>/dev/null && exec {QEMU} \
         -netdev stream,id=net0,server=off,addr.type=unix,addr.path={dir}/s,reconnect-ms=200"
    );
    let mut command = sandbox.program(Path::new("/bin/sh"));
    command.args(["-c", &line]);
    command
}

/// Measures the time from the start of `command` to the first line of its output. Then it makes
/// QEMU quit.
fn greeting(mut command: Command, look: impl FnOnce(u32)) -> Duration {
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let begun = Instant::now();
    let mut child: Child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let took = begun.elapsed();
    if !line.contains("QMP") {
        let output = child.wait_with_output().unwrap();
        panic!("no greeting: {line}{}", text(&output.stderr));
    }
    look(child.id());
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(QUIT);
    child.wait().unwrap();
    took
}

/// Returns the resident memory of a process in KiB (proc_pid_status(5), VmRSS).
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Measures `netlaunch --print` with an empty cache, compared with the calls of passt and QEMU that
/// it then makes.
fn probe_cold(sandbox: &Sandbox) {
    const CALLS: [&str; 3] = [
        "passt --help",
        "qemu-system-x86_64 -M none -netdev help",
        "qemu-system-x86_64 -M none -nodefaults -display none -S -qmp stdio",
    ];
    let cache = sandbox.path("cold");
    let mut ratios = Vec::new();
    for pair in 0..=PAIRS {
        let _ = std::fs::remove_dir_all(&cache);
        let mut command = sandbox.netlaunch(&["--print", "--", "qemu-system-x86_64"]);
        command.env("XDG_CACHE_HOME", &cache);
        let begun = Instant::now();
        assert!(common::finish(command).status.success());
        let ours = begun.elapsed();
        let begun = Instant::now();
        for call in CALLS {
            let (program, args) = call.split_once(' ').unwrap();
            let mut command = sandbox.program(&Path::new("/usr/bin").join(program));
            command.args(args.split(' ')).stdin(Stdio::piped());
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // Only the last call reads its input.
            let _ = child.stdin.take().unwrap().write_all(PROBE);
            child.wait().unwrap();
        }
        let theirs = begun.elapsed();
        if pair > 0 {
            ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
        }
    }
    let reference = "the calls of passt and QEMU that it makes";
    row("probe, cold", reference, median(&mut ratios), "×", Goal::AtMost(1.2));
}

/// Measures a whole `netlaunch --print` with cached probes, including the start of the process.
fn probe(sandbox: &Sandbox) {
    let mut took = Vec::new();
    for round in 0..=PAIRS {
        let begun = Instant::now();
        let command = sandbox.netlaunch(&["--print", "--", "qemu-system-x86_64"]);
        assert!(common::finish(command).status.success());
        if round > 0 {
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    println!(
        "cached probe: {:.1} ms for a whole `netlaunch --print` (median of {PAIRS})",
        median(&mut took)
    );
    row("probe, cached, with the whole command", "", median(&mut took), "ms", Goal::AtMost(8.0));
}
