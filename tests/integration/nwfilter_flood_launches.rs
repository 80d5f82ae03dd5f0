//! Tests that the port of a launch is never open: its guest floods the tap from the first moment to
//! the last, and no forbidden frame passes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::common::flood::{flood, write};
use crate::common::flood_launch::LaunchScene;
use crate::common::flood_learning::Method;
use crate::common::flood_scene::{IP, runs, usual};
use crate::common::frame::VM;
use crate::common::{Reaped, have_root, start, text, wait_until};
use netlaunch::sys::process::InheritedFds;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The time limit for an expected event.
const LIMIT: Duration = Duration::from_secs(60);
/// The messages of netlaunch when it has learned an address (unless it ends before) and when it has
/// made the rules again.
const NOTES: [&str; 2] = [
    "netlaunch: the guest has the address 10.2.3.4",
    "netlaunch: the filter of the port nltap0 is there",
];
/// The environment variable with the arguments of the QEMU that a launch starts.
const GUEST: &str = "NETLAUNCH_TEST_FLOOD_GUEST";

/// Not a test: the guest of a launch, which floods the tap of its QEMU.
#[test]
#[ignore = "the tests of launches run it in place of QEMU"]
fn the_guest_of_a_launch() {
    let Ok(args) = std::env::var(GUEST) else { return };
    let value = |key| args.split([' ', ',']).find_map(|word| word.strip_prefix(key));
    let number = |key| value(key).unwrap().parse::<u32>().unwrap();
    let words: Vec<_> = args.split([' ', ',']).map(Into::into).collect();
    #[expect(unsafe_code, reason = "QEMU's stand-in gets its tap as a number")]
    // SAFETY: this process runs one test, which takes the tap of the launch once.
    let mut inherited = unsafe { InheritedFds::at_start(&words) };
    let tap = inherited.take_writable(number("fd=") as i32).unwrap().into();
    let run = number("run=");
    let Some(method) = value("learns=") else { return flood(&usual(VM), run, &tap, || false) };
    let method = Method::ALL.into_iter().find(|one| one.name() == method).unwrap();
    let claim_file = PathBuf::from(value("claim_file=").unwrap());
    flood(&method.load(), run, &tap, || claim_file.exists());
    assert!(write(&tap, &method.says(run)));
    fs::remove_file(claim_file).unwrap();
    flood(&usual(VM), learned_run(run), &tap, || false);
}

/// Returns the run number in a guest's frames after it has claimed its address: none of the
/// launches has it.
fn learned_run(run: u32) -> u32 {
    1000 + run
}

/// Makes the program that a launch starts as QEMU. `guest` turns the command of the guest into a
/// shell line.
fn stand_in(scene: &LaunchScene, guest: impl Fn(&str) -> String) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let log = scene.sandbox.path("guest.log");
    let command = format!(
        "{} --nocapture --ignored --exact {}::the_guest_of_a_launch {} >> {log} 2>&1",
        own.display(),
        module_path!().split_once("::").unwrap().1,
        scene.sandbox.path("").display(),
        log = log.display()
    );
    let help = "case $* in *'-netdev help'*) echo tap; exit;; esac";
    let script = format!("{help}\nexport {GUEST}=\"$*\"\n{}", guest(&command));
    scene.sandbox.script("qemu", &script)
}

/// Sends `signal` to netlaunch. Then nothing of the launch may be left, and no forbidden frame may
/// have passed.
fn ends(scene: &LaunchScene, netlaunch: Reaped, signal: Signal, about: &str) {
    kill(Pid::from_raw(netlaunch.pid()), signal).unwrap();
    let output = netlaunch.output(LIMIT);
    let code = if signal == Signal::SIGKILL { None } else { Some(128 + signal as i32) };
    let said = text(&output.stderr);
    // With iptables, a launch reports the frames that the filter cannot reach.
    let is_note =
        |line: &str| NOTES.contains(&line) || line.contains("ebtables has no hook before");
    let said: Vec<_> = said.lines().filter(|line| !is_note(line)).collect();
    assert_eq!((output.status.code(), said), (code, Vec::new()), "{about}");
    scene.gone();
    scene.watch.holds(about);
}

/// Runs whole launches, from the tap's first moment to its last. `guest` turns the command of the
/// guest into a shell line, and `end` is the signal for netlaunch.
fn launched(backend: &str, case: &str, guest: impl Fn(&str) -> String, end: Signal) {
    let what = format!("launch, {case}, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = LaunchScene::new(backend);
    let qemu = stand_in(&scene, guest);
    let mut sent = 0;
    for run in 1..=runs() {
        let netlaunch = start(scene.launch(IP, &qemu, &format!("run={run}")));
        sent += u64::from(scene.watch.passes(run));
        ends(&scene, netlaunch, end, &format!("{what}, run {run}"));
    }
    scene.report(&what, sent);
}

fn floods(guest: &str) -> String {
    format!("exec {guest}")
}

/// A helper that QEMU started can still hold the tap after QEMU has ended.
fn leaves_a_helper(guest: &str) -> String {
    format!("{guest} &\nexec sleep 600")
}

#[test]
fn no_forbidden_frame_passes_a_launch_with_nftables() {
    launched("nftables", "QEMU floods", floods, Signal::SIGTERM);
}

#[test]
fn no_forbidden_frame_passes_a_launch_with_iptables() {
    launched("iptables", "QEMU floods", floods, Signal::SIGTERM);
}

#[test]
fn no_forbidden_frame_passes_a_killed_launch_with_nftables() {
    launched("nftables", "QEMU floods and netlaunch is killed", floods, Signal::SIGKILL);
}

#[test]
fn no_forbidden_frame_passes_a_killed_launch_with_iptables() {
    launched("iptables", "QEMU floods and netlaunch is killed", floods, Signal::SIGKILL);
}

#[test]
fn no_forbidden_frame_passes_if_a_helper_outlives_qemu_with_nftables() {
    launched("nftables", "a helper outlives QEMU", leaves_a_helper, Signal::SIGTERM);
}

#[test]
fn no_forbidden_frame_passes_if_a_helper_outlives_qemu_with_iptables() {
    launched("iptables", "a helper outlives QEMU", leaves_a_helper, Signal::SIGTERM);
}

/// Runs launches whose filter lacks the address: netlaunch learns it while QEMU floods.
fn learned(backend: &str) {
    let what = format!("launch that learns, QEMU floods, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = LaunchScene::new(backend);
    let qemu = stand_in(&scene, floods);
    let server = scene.server();
    let claim_file = scene.sandbox.path("claim_file");
    let mut sent = 0;
    for run in 1..=runs() {
        let method = Method::ALL[run as usize % 2];
        let name =
            format!("run={run},learns={},claim_file={}", method.name(), claim_file.display());
        let netlaunch = start(scene.launch(method.parameter(), &qemu, &name));
        sent += u64::from(scene.watch.passes(run));
        // When the file exists, the guest claims its address and then removes the file.
        fs::write(&claim_file, "").unwrap();
        assert!(wait_until(LIMIT, || !claim_file.exists()), "{what}, run {run}: no claim");
        method.answer(&server, run);
        sent += u64::from(scene.watch.passes(learned_run(run)));
        ends(&scene, netlaunch, Signal::SIGTERM, &format!("{what}, run {run}"));
    }
    scene.report(&what, sent);
}

#[test]
fn no_forbidden_frame_passes_a_learning_launch_with_nftables() {
    learned("nftables");
}

#[test]
fn no_forbidden_frame_passes_a_learning_launch_with_iptables() {
    learned("iptables");
}

/// SIGHUP makes a launch read its configuration again, with the same effect as a reload.
#[test]
fn no_forbidden_frame_passes_a_switch_of_the_backend_by_sighup() {
    let what = "launch, backend switch by SIGHUP, to and fro";
    if !have_root(what) {
        return;
    }
    let scene = LaunchScene::new("nftables");
    let qemu = stand_in(&scene, floods);
    let netlaunch = start(scene.launch(IP, &qemu, "run=1"));
    let mut sent = scene.watch.passes(1);
    let port = || {
        let list = scene.sandbox.good(&["nwfilter", "binding-list", "--json"]);
        serde_json::from_str::<Value>(&list).unwrap()["bindings"][0].take()
    };
    for run in 1..=runs() {
        let backend = if run % 2 == 0 { "nftables" } else { "iptables" };
        scene.backend(backend);
        kill(Pid::from_raw(netlaunch.pid()), Signal::SIGHUP).unwrap();
        let switched = wait_until(LIMIT, || port()["backend"] == backend);
        assert!(switched, "{what}, run {run}: {}", port());
        sent = scene.watch.passes(1);
        scene.watch.holds(&format!("{what} to {backend}, run {run}"));
    }
    ends(&scene, netlaunch, Signal::SIGTERM, what);
    scene.report(what, sent.into());
}
