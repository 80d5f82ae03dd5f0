//! Tests the ends of a launch that netlaunch does not choose: the end of its parent, and its own by
//! SIGKILL.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::scene::{
    HOST, LIMIT, alive, command_line, launch, launches, netns_with_resolver, nothing_left,
    passt_option, pid_of, with,
};
use crate::common::{
    AT_MOST, As, Guest, Netns, Reaped, Sandbox, have_root, processes_with, start, wait_until,
};

const SCRIPT: &str = "\
serve_tcp 80 tcp-answer
echo 'UP .'
sleep 1000";

/// A shell that has started netlaunch in the background and waits.
struct Started {
    netns: Netns,
    shell: Reaped,
    sandbox: Sandbox,
    netlaunch: i32,
    qemu: i32,
    passt: i32,
}

impl Started {
    /// The output of the guest and netlaunch, in a file that stays open after their end.
    fn said(&self) -> String {
        fs::read_to_string(self.sandbox.path("run/log")).unwrap_or_default()
    }

    /// No process of the launch.
    fn ended(&self) -> bool {
        let path = self.sandbox.path("").to_string_lossy().into_owned();
        let known = [self.netlaunch, self.qemu, self.passt];
        !known.into_iter().any(alive) && processes_with(&path).is_empty()
    }
}

/// Starts netlaunch with a guest as a child of a shell, by way of `prefix` (nohup, setsid).
fn started(test: &str, who: As, prefix: &str, qemu: &[&str]) -> Option<Started> {
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return None };
    let netns = netns_with_resolver(HOST);
    let sandbox = Sandbox::new(who, Some(&netns));
    let passt = passt_option();
    let mut options = vec!["-p", "2280:80", "--backend", "passt"];
    options.extend(passt.iter().map(String::as_str));
    let mut args = command_line(&sandbox, &guest, &options, SCRIPT);
    args.extend(qemu.iter().map(|s| (*s).to_owned()));
    let script = format!("log=$1; shift; {prefix} \"$@\" </dev/null >>\"$log\" 2>&1 & wait");
    let command = sandbox.program(Path::new("/bin/sh"));
    let command = with(command, ["-c", &script, "sh"]);
    let command = with(command, [sandbox.path("run/log"), sandbox.path("bin/netlaunch")]);
    let shell = start(with(command, args));
    let mut started = Started { netns, shell, sandbox, netlaunch: 0, qemu: 0, passt: 0 };
    let up = wait_until(LIMIT, || started.said().contains("UP ."));
    assert!(up, "the guest is not up within {LIMIT:?}:\n{}", started.said());
    let shown = launch(&started.sandbox);
    started.netlaunch = shown["pid"].as_i64().unwrap() as i32;
    (started.qemu, started.passt) = (pid_of(&shown, "qemu"), pid_of(&shown, "passt"));
    assert!(!started.ended());
    Some(started)
}

fn kill_now(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

fn ends_with_its_parent(who: As) {
    let Some(mut launch) = started("ends_with_its_parent", who, "", &[]) else { return };
    let killed = Instant::now();
    kill_now(launch.shell.pid());
    launch.shell.0.wait().unwrap();
    let ended = wait_until(AT_MOST, || launch.ended());
    eprintln!("{who:?}: ended {} ms after its parent", killed.elapsed().as_millis());
    assert!(ended, "{}", launch.said());
    nothing_left(&launch.sandbox);
}

#[test]
fn a_launch_of_root_ends_with_its_parent() {
    ends_with_its_parent(As::Root);
}

#[test]
fn a_launch_of_a_user_ends_with_its_parent() {
    ends_with_its_parent(As::User);
}

fn lives_on(prefix: &str) {
    let Some(mut launch) = started(prefix, As::User, prefix, &[]) else { return };
    kill_now(launch.shell.pid());
    launch.shell.0.wait().unwrap();
    sleep(Duration::from_secs(1));
    let answer = launch.netns.ask_tcp(2280, AT_MOST);
    assert_eq!(answer, "tcp-answer\n", "{}", launch.said());
    assert_eq!(launches(&launch.sandbox).len(), 1);
    for pid in [launch.netlaunch, launch.qemu, launch.passt] {
        assert!(alive(pid));
    }
    kill(Pid::from_raw(launch.netlaunch), Signal::SIGTERM).unwrap();
    assert!(wait_until(AT_MOST, || launch.ended()), "{}", launch.said());
    nothing_left(&launch.sandbox);
}

#[test]
fn a_launch_under_nohup_outlives_its_parent() {
    lives_on("nohup");
}

#[test]
fn a_launch_under_setsid_outlives_its_parent() {
    lives_on("setsid");
}

/// QEMU changes its user, and with that the kernel forgets PR_SET_PDEATHSIG; the guard does not.
#[test]
fn a_qemu_that_changes_its_user_dies_with_netlaunch() {
    let test = "a_qemu_that_changes_its_user_dies_with_netlaunch";
    let qemu = ["-run-with", "user=nobody"];
    let Some(launch) = started(test, As::Root, "", &qemu) else { return };
    let status = fs::read_to_string(format!("/proc/{}/status", launch.qemu)).unwrap();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
    assert!(!user.starts_with("0\t"), "QEMU has changed its user: {user}");
    let killed = Instant::now();
    kill_now(launch.netlaunch);
    let ended = wait_until(AT_MOST, || launch.ended());
    eprintln!("all gone {} ms after the SIGKILL", killed.elapsed().as_millis());
    assert!(ended, "{}", launch.said());
    // The directory stays, and the next start removes it.
    assert_eq!(launch.sandbox.launch_dirs().len(), 1);
    let next = ["--backend", "slirp", "--", "qemu-system-x86_64", "-M", "help"];
    assert!(crate::common::finish(launch.sandbox.netlaunch(&next)).status.success());
    nothing_left(&launch.sandbox);
}
