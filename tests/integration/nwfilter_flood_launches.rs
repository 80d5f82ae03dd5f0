//! Never open through whole launches: a guest that floods its tap from its first moment to its last
//! sees nothing come out that its filter refuses.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;
#[path = "common/flood.rs"]
mod flood;
#[path = "common/flood_launch.rs"]
mod flood_launch;
#[path = "common/flood_learning.rs"]
mod flood_learning;
#[path = "common/flood_scene.rs"]
mod flood_scene;
#[path = "common/flood_watch.rs"]
mod flood_watch;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use common::frame::VM;
use common::{Reaped, have_root, start, text, wait_until};
use flood::{flood, write};
use flood_launch::LaunchScene;
use flood_learning::Method;
use flood_scene::{IP, RUNS, usual};
use netlaunch::process::inherited;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// What has to come comes within this.
const LIMIT: Duration = Duration::from_secs(30);
/// What netlaunch says when it has learnt an address, unless it ends before, and when it has made
/// rules anew.
const NOTES: [&str; 2] = [
    "netlaunch: the guest has the address 10.2.3.4",
    "netlaunch: the filter of the port nltap0 is there",
];
/// The variable with the arguments of the QEMU that a launch starts.
const GUEST: &str = "NETLAUNCH_TEST_FLOOD_GUEST";

/// Not a test of its own: the guest of a launch, which floods the tap of its QEMU.
#[test]
fn the_guest_of_a_launch() {
    let Ok(args) = std::env::var(GUEST) else {
        eprintln!("skipped the_guest_of_a_launch: the tests of launches run it in place of QEMU");
        return;
    };
    let value = |key| args.split([' ', ',']).find_map(|word| word.strip_prefix(key));
    let number = |key| value(key).unwrap().parse::<u32>().unwrap();
    let tap = inherited::take_writable(number("fd=") as i32).unwrap().into();
    let run = number("run=");
    let Some(method) = value("learns=") else { return flood(&usual(VM), run, &tap, || false) };
    let method = Method::ALL.into_iter().find(|one| one.name() == method).unwrap();
    let told = PathBuf::from(value("told=").unwrap());
    flood(&method.load(), run, &tap, || told.exists());
    assert!(write(&tap, &method.says(run)));
    fs::remove_file(told).unwrap();
    flood(&usual(VM), learnt_run(run), &tap, || false);
}

/// The run that a guest's frames say once it has spoken for its address.
fn learnt_run(run: u32) -> u32 {
    RUNS + run
}

/// What is run in place of QEMU. `guest` is how it runs the command of its guest.
fn stand_in(scene: &LaunchScene, guest: impl Fn(&str) -> String) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let log = scene.sandbox.path("guest.log");
    let command = format!(
        "{} --nocapture --exact the_guest_of_a_launch {} >> {log} 2>&1",
        own.display(),
        scene.sandbox.path("").display(),
        log = log.display()
    );
    let help = "case $* in *'-netdev help'*) echo tap; exit;; esac";
    let script = format!("{help}\nexport {GUEST}=\"$*\"\n{}", guest(&command));
    scene.sandbox.script("qemu", &script)
}

/// netlaunch gets `signal`; then nothing of the launch is left, and nothing has come out.
fn ends(scene: &LaunchScene, netlaunch: Reaped, signal: Signal, about: &str) {
    kill(Pid::from_raw(netlaunch.pid()), signal).unwrap();
    let output = netlaunch.output(LIMIT);
    let code = if signal == Signal::SIGKILL { None } else { Some(128 + signal as i32) };
    let said = text(&output.stderr);
    // With iptables a launch says what the filter cannot reach.
    let is_note =
        |line: &str| NOTES.contains(&line) || line.contains("ebtables has no hook before");
    let said: Vec<_> = said.lines().filter(|line| !is_note(line)).collect();
    assert_eq!((output.status.code(), said), (code, Vec::new()), "{about}");
    scene.gone();
    scene.watch.holds(about);
}

/// Whole launches, from the tap's first moment to its last. `guest` is how QEMU's stand-in runs the
/// command of its guest, and `end` what netlaunch gets.
fn launched(backend: &str, case: &str, guest: impl Fn(&str) -> String, end: Signal) {
    let what = format!("launch, {case}, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = LaunchScene::new(backend);
    let qemu = stand_in(&scene, guest);
    let mut sent = 0;
    for run in 1..=RUNS {
        let netlaunch = start(scene.launch(IP, &qemu, &format!("run={run}")));
        sent += u64::from(scene.watch.passes(run));
        ends(&scene, netlaunch, end, &format!("{what}, run {run}"));
    }
    scene.report(&what, sent);
}

fn floods(guest: &str) -> String {
    format!("exec {guest}")
}

/// What QEMU has started may still have the tap when QEMU is gone.
fn leaves_a_helper(guest: &str) -> String {
    format!("{guest} &\nexec sleep 600")
}

#[test]
fn launches_with_nftables() {
    launched("nftables", "QEMU floods", floods, Signal::SIGTERM);
}

#[test]
fn launches_with_iptables() {
    launched("iptables", "QEMU floods", floods, Signal::SIGTERM);
}

#[test]
fn killed_launches_with_nftables() {
    launched("nftables", "QEMU floods and netlaunch is killed", floods, Signal::SIGKILL);
}

#[test]
fn killed_launches_with_iptables() {
    launched("iptables", "QEMU floods and netlaunch is killed", floods, Signal::SIGKILL);
}

#[test]
fn launches_whose_qemu_leaves_a_helper_with_nftables() {
    launched("nftables", "a helper outlives QEMU", leaves_a_helper, Signal::SIGTERM);
}

#[test]
fn launches_whose_qemu_leaves_a_helper_with_iptables() {
    launched("iptables", "a helper outlives QEMU", leaves_a_helper, Signal::SIGTERM);
}

/// Whole launches whose filter lacks the address: netlaunch learns it while QEMU floods.
fn learnt(backend: &str) {
    let what = format!("launch that learns, QEMU floods, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = LaunchScene::new(backend);
    let qemu = stand_in(&scene, floods);
    let server = scene.server();
    let told = scene.sandbox.path("told");
    let mut sent = 0;
    for run in 1..=RUNS {
        let method = Method::ALL[run as usize % 2];
        let name = format!("run={run},learns={},told={}", method.name(), told.display());
        let netlaunch = start(scene.launch(method.parameter(), &qemu, &name));
        sent += u64::from(scene.watch.passes(run));
        // The guest speaks for its address, and says so by taking the file away.
        fs::write(&told, "").unwrap();
        assert!(wait_until(LIMIT, || !told.exists()), "{what}, run {run}: it does not speak");
        method.answer(&server, run);
        sent += u64::from(scene.watch.passes(learnt_run(run)));
        ends(&scene, netlaunch, Signal::SIGTERM, &format!("{what}, run {run}"));
    }
    scene.report(&what, sent);
}

#[test]
fn launches_that_learn_with_nftables() {
    learnt("nftables");
}

#[test]
fn launches_that_learn_with_iptables() {
    learnt("iptables");
}

/// A launch that is told to read its settings again does what a reload does.
#[test]
fn switching_the_backend_to_and_fro_by_sighup() {
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
    for run in 1..=RUNS {
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
