use std::ffi::OsString;
use std::path::Path;

use super::*;
use crate::sys::process::{Isolation, Spawn, SpawnError, Stdio};

fn shell(script: &str) -> Spawn {
    let argv = ["sh", "-c", script].map(OsString::from);
    Spawn::new(Path::new("/bin/sh"), &argv).stdio(Stdio::Null, Stdio::Null, Stdio::Null)
}

/// Returns whether a process, or one of its process group, still runs. A zombie does not run:
/// the process that adopts orphans may collect them late.
pub(in crate::sys::process) fn alive(pid: Pid) -> bool {
    procfs::process::all_processes().unwrap().flatten().any(|process| {
        let Ok(stat) = process.stat() else { return false };
        (stat.pid == pid.as_raw() || stat.pgrp == pid.as_raw()) && !"ZX".contains(stat.state)
    })
}

/// Returns whether a process and its process group end within 1 s.
pub(in crate::sys::process) async fn dies(pid: Pid) -> bool {
    for _ in 0..100 {
        if !alive(pid) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

/// Returns whether the process executes `name` within 5 s.
pub(in crate::sys::process) async fn becomes(pid: Pid, name: &str) -> bool {
    for _ in 0..500 {
        let now = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if now.trim() == name {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn the_status_comes_through_the_guard() {
    assert_eq!(shell("exit 7").start().unwrap().wait().await.code(), Some(7));
    let mut child = shell("kill -TERM $$").start().unwrap();
    assert_eq!(child.wait().await.signal(), Some(15));
    assert_eq!(child.wait().await.signal(), Some(15), "asking again gives the same");
}

#[tokio::test]
async fn the_number_is_the_programs_own() {
    let mut child = shell("exec sleep 60").start().unwrap();
    assert!(becomes(child.pid(), "sleep").await);
    assert_eq!(child.stop(Signal::SIGTERM, Duration::from_secs(5)).await.signal(), Some(15));
    assert!(!alive(child.pid()));
}

#[tokio::test]
async fn a_program_that_ignores_the_signal_is_killed() {
    let (ready, end) = nix::unistd::pipe().unwrap();
    let argv = ["sh", "-c", "trap '' TERM; echo; while :; do sleep 60 & wait; done"];
    let mut child = Spawn::new(Path::new("/bin/sh"), &argv.map(OsString::from))
        .stdio(Stdio::Null, Stdio::Fd(end), Stdio::Null)
        .own_group()
        .start()
        .unwrap();
    assert_eq!(nix::unistd::read(&ready, &mut [0u8; 1]), Ok(1));
    let status = child.stop(Signal::SIGTERM, Duration::from_millis(50)).await;
    assert_eq!(status.signal(), Some(9));
}

#[tokio::test]
async fn kept_output_is_whole_at_the_end_and_never_blocks_the_program() {
    for isolation in [Isolation::Guard, Isolation::PidNamespace] {
        let script = "yes | head -c 40000000 >&2; echo last words >&2; exit 3";
        let spawn = shell(script).isolation(isolation).keep_output(None);
        // This thread does not run meanwhile, so only the guard reads the pipe.
        let Ok(mut child) = spawn.start() else {
            assert_eq!(isolation, Isolation::PidNamespace, "needs root");
            continue;
        };
        while alive(child.pid()) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(child.wait().await.code(), Some(3));
        let text = child.output();
        assert!(text.starts_with(b"y\ny\n") && text.ends_with(b"y\nlast words\n"));
        assert!(text.len() <= output::LIMIT, "{}", text.len());
    }
}

#[tokio::test]
async fn a_closed_output_does_not_keep_the_guard_busy() {
    let child = shell("exec sleep 60 2>&-").keep_output(None).start().unwrap();
    assert!(becomes(child.pid(), "sleep").await);
    // The first number is the time on a processor in nanoseconds (proc_pid_schedstat(5)).
    let time = || -> u64 {
        let path = format!("/proc/{}/schedstat", child.guard);
        let text = std::fs::read_to_string(path).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    let before = time();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(time() - before < 50_000_000);
    assert_eq!(child.output(), b"");
}

#[tokio::test]
async fn dropping_kills_the_program_and_its_helpers() {
    let child = shell("sleep 60 & sleep 60").own_group().start().unwrap();
    let (pid, guard) = (child.pid(), child.guard);
    drop(child);
    assert!(dies(guard).await);
    // SIGKILL goes to the helpers, too, and the guard does not wait for their end.
    assert!(dies(pid).await);
}

/// Starts a program in a thread that ends at once.
fn start_in_a_thread(script: &'static str) -> Child {
    let runtime = tokio::runtime::Handle::current();
    let start = move || {
        let _context = runtime.enter();
        shell(script).start().unwrap()
    };
    std::thread::spawn(start).join().unwrap()
}

#[tokio::test]
async fn a_program_outlives_the_thread_that_started_it() {
    let mut child = start_in_a_thread("exec sleep 60");
    assert!(becomes(child.pid(), "sleep").await);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(alive(child.pid()) && alive(child.guard));
    assert_eq!(child.stop(Signal::SIGTERM, Duration::from_secs(5)).await.signal(), Some(15));
}

#[tokio::test]
async fn a_killed_caller_ends_the_program_of_a_thread_that_has_ended() {
    const CALLER: &str = "NETLAUNCH_TEST_KILLED_CALLER";
    if std::env::var_os(CALLER).is_some() {
        let child = start_in_a_thread("exec sleep 60");
        println!("\npid {}", child.pid());
        return std::future::pending().await;
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let test = format!("{module}::a_killed_caller_ends_the_program_of_a_thread_that_has_ended");
    let mut caller = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(CALLER, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(caller.stdout.take().unwrap());
    let mut numbers = std::io::BufRead::lines(output)
        .filter_map(|line| line.unwrap().strip_prefix("pid ")?.parse().ok());
    let pid = Pid::from_raw(numbers.next().unwrap());
    assert!(becomes(pid, "sleep").await);
    caller.kill().unwrap();
    caller.wait().unwrap();
    assert!(dies(pid).await);
}

#[test]
fn the_end_of_the_runtime_ends_the_program_and_does_not_block_its_waiter() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let mut child = first.block_on(async { shell("exec sleep 60").start().unwrap() });
    drop(first);
    assert_eq!(runtime().block_on(child.wait()).signal(), Some(9));
    assert!(!alive(child.pid()));
}

#[tokio::test]
async fn killing_the_guard_kills_the_program() {
    for isolation in [Isolation::Guard, Isolation::PidNamespace] {
        let mut child = shell("exec sleep 60").isolation(isolation).start().unwrap();
        let pid = child.pid();
        nix::sys::signal::kill(child.guard, Signal::SIGKILL).unwrap();
        assert_eq!(child.wait().await.signal(), Some(9));
        assert!(dies(pid).await, "{isolation:?}");
    }
}

#[tokio::test]
async fn a_pid_namespace_has_its_own_proc_and_the_caller_knows_the_outer_number() {
    let script = "test $$ = 2 && test \"$(cat /proc/self/stat | cut -d' ' -f5)\" -lt 9 && exec sleep 60; exit 1";
    let mut child = shell(script).isolation(Isolation::PidNamespace).start().unwrap();
    assert!(becomes(child.pid(), "sleep").await);
    assert_eq!(child.stop(Signal::SIGTERM, Duration::from_secs(5)).await.signal(), Some(15));
}

#[tokio::test]
async fn a_failed_execve_says_so() {
    for (program, errno) in [("/nonexistent/x", libc::ENOENT), ("/etc/passwd", libc::EACCES)] {
        match Spawn::new(Path::new(program), &["x".into()]).start() {
            Err(SpawnError::Exec { source, .. }) => {
                assert_eq!(source.raw_os_error(), Some(errno));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn only_a_program_that_inherits_gets_the_callers_descriptors() {
    let (read, _write) = nix::unistd::pipe().unwrap();
    // Without close-on-exec, like a descriptor that netlaunch inherits.
    let inherited = nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_DUPFD(70)).unwrap();
    let script = format!("test -e /proc/self/fd/{inherited}");
    assert!(shell(&script).inherit().start().unwrap().wait().await.success());
    for isolation in [Isolation::Guard, Isolation::PidNamespace] {
        let Ok(mut child) = shell(&script).isolation(isolation).start() else {
            assert_eq!(isolation, Isolation::PidNamespace, "needs root");
            continue;
        };
        assert_eq!(child.wait().await.code(), Some(1), "{isolation:?}");
    }
    nix::unistd::close(inherited).unwrap();
}

#[tokio::test]
async fn descriptors_arrive_under_their_numbers() {
    // This process probably uses these numbers for other files.
    for number in [3, 4, 5, 9] {
        let (read, write) = nix::unistd::pipe().unwrap();
        let mut child =
            shell(&format!("printf hello >&{number}")).fd(write, number).start().unwrap();
        assert!(child.wait().await.success());
        let mut text = [0u8; 16];
        assert_eq!(nix::unistd::read(&read, &mut text), Ok(5));
        assert_eq!(nix::unistd::read(&read, &mut text), Ok(0), "no copy is left open");
    }
}
