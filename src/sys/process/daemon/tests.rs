use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::{Process, all_processes};

use crate::sys::process::child::Progress;
use crate::sys::process::child::tests::{alive, becomes, dies};
use crate::sys::process::{Child, Spawn, Stdio};

/// A daemon as QEMU makes it: its parent leads its session, and ends at once. The word `marker` is
/// in the arguments of each process but the daemon.
const DAEMON: &str = "setsid sh -c 'sleep 60 & :' marker";

fn start(script: &str) -> Child {
    let argv = ["sh", "-c", script].map(OsString::from);
    let spawn = Spawn::new(Path::new("/bin/sh"), &argv).daemonizes();
    spawn
        .env(&[("PATH".into(), "/usr/bin:/bin".into())])
        .stdio(Stdio::Null, Stdio::Null, Stdio::Null)
        .start()
        .unwrap()
}

async fn started(script: &str) -> Child {
    let mut child = start(script);
    assert_eq!(child.next().await, Progress::Daemonized);
    assert!(becomes(child.pid(), "sleep").await);
    child
}

fn parent(pid: Pid) -> Pid {
    Pid::from_raw(Process::new(pid.as_raw()).unwrap().stat().unwrap().ppid)
}

/// Returns the processes whose command line contains `word`.
fn with_word(word: &str) -> Vec<Pid> {
    let has = |process: &Process| {
        let words = process.cmdline().unwrap_or_default();
        words.iter().any(|of| of.contains(word)) && alive(Pid::from_raw(process.pid))
    };
    let all = all_processes().unwrap().flatten().filter(has);
    all.map(|process| Pid::from_raw(process.pid)).collect()
}

async fn within_a_second(done: impl Fn() -> bool) -> bool {
    for _ in 0..100 {
        if done() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn the_daemon_is_the_program_after_the_first_process() {
    let mut child = start(&format!("{DAEMON}; sleep 0.2"));
    let first = child.pid();
    assert_eq!(child.next().await, Progress::Daemonized);
    let daemon = child.pid();
    assert!(first != daemon && !alive(first));
    assert!(becomes(daemon, "sleep").await);
    assert_eq!(parent(parent(daemon)), child.guard());
    child.signal(Signal::SIGTERM);
    assert_eq!(child.wait().await.signal(), Some(15));
}

#[tokio::test]
async fn a_first_process_that_fails_or_leaves_no_daemon_is_the_program() {
    let ended = |code: i32| Progress::Ended(ExitStatus::from_raw(code << 8));
    assert_eq!(start("exit 7").next().await, ended(7));
    assert_eq!(start("exit 0").next().await, ended(0));
    let mut child = start("setsid sh -c 'sleep 77.1 & :'; exit 3");
    assert_eq!(child.next().await, ended(3));
    assert_eq!(with_word("77.1"), [], "nothing is left of a failed start");
}

#[tokio::test]
async fn the_end_of_the_daemon_ends_everything_that_the_program_started() {
    let helper = "(setsid setsid sleep 77.2 &)";
    let mut child = started(&format!("{helper}; {DAEMON}; sleep 0.2")).await;
    assert_eq!(with_word("77.2").len(), 1);
    assert!(!child.stop(Signal::SIGTERM, Duration::from_secs(5)).await.success());
    assert_eq!(with_word("77.2"), []);
}

#[tokio::test]
async fn a_daemon_whose_parent_ends_late_is_found() {
    let late = "setsid sh -c 'sleep 77.3 & sleep 0.3; exit 0' & sleep 0.1; exit 0";
    let mut child = start(late);
    assert_eq!(child.next().await, Progress::Daemonized);
    assert_eq!(with_word("77.3").last(), Some(&child.pid()));
    drop(child);
}

#[tokio::test]
async fn dropping_kills_the_daemon() {
    let child = started(DAEMON).await;
    let (daemon, guard) = (child.pid(), child.guard());
    drop(child);
    assert!(dies(daemon).await && dies(guard).await);
}

#[tokio::test]
async fn a_daemon_does_not_outlive_its_guards() {
    for (first, second) in [(true, false), (false, true), (true, true)] {
        let mut child = started(DAEMON).await;
        let daemon = child.pid();
        let guards = [(first, child.guard()), (second, parent(daemon))];
        for (_, guard) in guards.iter().filter(|(killed, _)| *killed) {
            kill(*guard, Signal::SIGKILL).unwrap();
        }
        let status: ExitStatus = child.wait().await;
        assert_eq!(status.signal(), Some(9));
        for (_, guard) in guards {
            assert!(dies(guard).await, "{first} {second}");
        }
        assert!(dies(daemon).await, "{first} {second}");
    }
}

#[tokio::test]
async fn nothing_is_left_if_a_guard_or_the_caller_ends_during_the_start() {
    // The program has forked twice, and its first process waits for the daemon.
    let script = "setsid sh -c 'sleep 77.4 & :'; : 77.4; while :; do sleep 1; done";
    for victim in ["first guard", "second guard", "first process", "caller"] {
        let mut child = start(script);
        assert!(within_a_second(|| with_word("77.4").len() == 2).await, "{victim}");
        let (program, guard) = (child.pid(), child.guard());
        let victim_pid = match victim {
            "first guard" => guard,
            "second guard" => parent(program),
            _ => program,
        };
        match victim {
            "caller" => drop(child),
            _ => {
                kill(victim_pid, Signal::SIGKILL).unwrap();
                let ended: ExitStatus = child.wait().await;
                assert_eq!(ended.signal(), Some(9));
            }
        }
        assert!(within_a_second(|| with_word("77.4").is_empty()).await, "{victim}");
        assert!(dies(guard).await, "{victim}");
    }
}
