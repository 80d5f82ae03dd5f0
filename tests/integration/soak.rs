//! Tests that what a host does for days leaves nothing behind and makes nothing grow: launches,
//! binds, and ports under `nwfilter watch`.
//!
//! Each test repeats its case 40 times, or as many times as NETLAUNCH_TEST_SOAK says. 10,000 stand
//! for a busy host's 72 hours, and take half an hour with an optimised build:
//!
//! ```text
//! NETLAUNCH_TEST_SOAK=10000 cargo nextest run --release -E 'test(/^soak::/)'
//! ```
//!
//! The first tenth of the rounds fills caches and allocators. What counts is the growth after it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::frame::{VM, mac_text};
use crate::common::port_scene::{PortScene, Station};
use crate::common::ruleset::ruleset;
use crate::common::{As, Netns, Sandbox, have_root, processes_with, start, text, wait_until};
use crate::memory::kibibytes;

const LIMIT: Duration = Duration::from_secs(60);
/// How long a process must stay the same to be idle.
const PAUSE: Duration = Duration::from_millis(200);
/// The growth of a process that is no growth, in KiB: an allocator may take some pages more.
const SOME_PAGES: u64 = 256;

/// Returns the number of rounds.
fn rounds() -> usize {
    let named = std::env::var("NETLAUNCH_TEST_SOAK").ok();
    let rounds = named.map(|text| text.parse().expect("NETLAUNCH_TEST_SOAK is no number"));
    rounds.unwrap_or(40)
}

/// Returns the sizes of all files below a directory; a directory counts as a file without a size.
fn files(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut all = BTreeMap::new();
    let mut next = vec![dir.to_owned()];
    while let Some(dir) = next.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            // A program that still works may have removed it.
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                next.push(path.clone());
            }
            all.insert(path, if meta.is_file() { meta.len() } else { 0 });
        }
    }
    all
}

/// Runs `round` for each round. Returns the results of `look` after the first tenth, and at the
/// end.
fn soak<T>(mut round: impl FnMut(usize), look: impl Fn() -> T) -> (T, T) {
    let rounds = rounds();
    let (first, rest) = (0..rounds).partition::<Vec<_>, _>(|round| round * 10 < rounds);
    first.into_iter().for_each(&mut round);
    let before = look();
    rest.into_iter().for_each(&mut round);
    (before, look())
}

#[test]
fn launches_leave_no_file_and_no_process() {
    const QUIT: &[u8] = b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}\n";
    if !have_root("launches_leave_no_file_and_no_process") {
        return;
    }
    let netns = Netns::routed();
    for who in [As::Root, As::User] {
        let sandbox = Sandbox::new(who, Some(&netns));
        let round = |round: usize| {
            let options: &[&str] = match round % 4 {
                0 => &["--backend", "slirp"],
                1 => &["--backend", "passt", "--transport", "unix"],
                2 => &["--backend", "passt", "--transport", "fd"],
                _ => &["--name", "soak"],
            };
            let qemu = "qemu-system-x86_64 -M none -nodefaults -display none -S -qmp stdio";
            let mut command = sandbox.netlaunch(options);
            command.args(["--device", "none", "--"]).args(qemu.split(' '));
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
            let mut launch = start(command);
            launch.0.stdin.take().unwrap().write_all(QUIT).unwrap();
            let output = launch.output(LIMIT);
            assert!(output.status.success(), "{who:?} {round}: {}", text(&output.stderr));
        };
        let dir = sandbox.path("");
        let (before, after) = soak(round, || files(&dir));
        assert!(before.keys().eq(after.keys()), "{who:?}: {before:?}, then {after:?}");
        for (path, size) in after {
            // The log of the last run names processes, whose numbers become longer.
            let most = before[&path] + 100;
            assert!(size <= most, "{who:?}: {} grows to {size} bytes", path.display());
        }
        let marker = dir.display().to_string();
        let left = || processes_with(&marker);
        assert!(wait_until(LIMIT, || left().is_empty()), "{who:?}: {:?}", left());
    }
}

/// Binds a filter to a port and removes it: once with the guest's address, and once with a learner.
fn binds(backend: &str) {
    let scene = PortScene::new(Some(backend));
    let round = |round: usize| {
        let parameters: &[(&str, &str)] =
            if round.is_multiple_of(2) { &[("IP", "10.2.3.4")] } else { &[] };
        scene.bind(Station::Vnet0, "clean-traffic", parameters).unwrap();
        scene.unbind(Station::Vnet0);
    };
    let marker = scene.sandbox.path("").display().to_string();
    let look = || {
        let left = || processes_with(&marker);
        assert!(wait_until(LIMIT, || left().is_empty()), "{:?}", left());
        (files(&scene.sandbox.path("state")), ruleset(&scene.netns))
    };
    let (before, after) = soak(round, look);
    assert_eq!(before, after, "{backend}");
}

#[test]
fn binds_leave_no_file_no_process_and_no_rule_with_nftables() {
    if have_root("binds_leave_no_file_no_process_and_no_rule_with_nftables") {
        binds("nftables");
    }
}

#[test]
fn binds_leave_no_file_no_process_and_no_rule_with_iptables() {
    if have_root("binds_leave_no_file_no_process_and_no_rule_with_iptables") {
        binds("iptables");
    }
}

/// The resources of a process: its memory in KiB and its number of descriptors.
fn resources(pid: i32) -> (u64, usize) {
    (kibibytes(pid, "VmRSS"), fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
}

#[test]
fn a_watcher_of_ports_that_come_and_go_does_not_grow() {
    if !have_root("a_watcher_of_ports_that_come_and_go_does_not_grow") {
        return;
    }
    let scene = PortScene::new(None);
    scene.unplug(Station::Vnet0);
    scene.settings(&format!(
        "firewall_backend = \"nftables\"\n[[watch]]\nport = \"vnet0\"\nfilter = \"clean-traffic\"\n\
         mac = \"{}\"\nparameters = {{ IP = \"10.2.3.4\" }}\n",
        mac_text(VM.mac)
    ));
    let watcher = start(scene.sandbox.netlaunch(&["nwfilter", "watch"]));
    let pid = watcher.pid();
    let status = scene.sandbox.path("state/nwfilter/bindings/vnet0.json");
    let is_bound = || {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let status: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        status["complete"] == true
    };
    let guard = scene.sandbox.path("state/nwfilter/guard.json");
    assert!(wait_until(LIMIT, || guard.exists()), "no guard");
    let round = |round: usize| {
        scene.plug(Station::Vnet0);
        assert!(wait_until(LIMIT, is_bound), "round {round}: no filter");
        scene.unplug(Station::Vnet0);
        assert!(wait_until(LIMIT, || !status.exists()), "round {round}: the status file stays");
    };
    // The status file goes before the watcher has done its work for the port.
    let look = || {
        let now = || (resources(pid), files(&scene.sandbox.path("state")));
        let mut seen = now();
        let is_idle = || {
            thread::sleep(PAUSE);
            let before = std::mem::replace(&mut seen, now());
            before.0.1 == seen.0.1 && before.1 == seen.1
        };
        assert!(wait_until(LIMIT, is_idle), "the watcher is never idle");
        seen
    };
    let (((before, descriptors), kept), ((after, descriptors_after), kept_after)) =
        soak(round, look);
    eprintln!("nwfilter watch: {before} KiB after a tenth of the rounds, {after} KiB at the end");
    assert_eq!((descriptors, kept), (descriptors_after, kept_after));
    assert!(after <= before + SOME_PAGES, "{before} KiB, then {after} KiB");
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    watcher.output(LIMIT);
}
