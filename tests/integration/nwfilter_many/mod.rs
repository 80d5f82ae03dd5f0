//! Runs a hundred processes for some time that bind, redefine and unbind filters at the same time.
//! The final definitions, statuses and kernel rules must be the result of the last changes, and
//! each process must succeed or report a clear reason.
//!
//! There are 40 ports and 5 filters that refer to each other. Each thread runs one netlaunch after
//! another, with random requests. The order in which processes held the lock is unknown, but the
//! begin and end of each process are known, and they determine the possible last changes
//! ([`history`]). The test compares the kernel's rules with those after a reload, and with those
//! after it unbinds everything and binds the final documents again ([`kernel`]).
//!
//! NETLAUNCH_TEST_SECONDS changes the duration; NETLAUNCH_TEST_SEED selects the requests.

mod history;
mod kernel;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::port_scene::PortScene;
use crate::common::{Sandbox, extent, have_root, text};
use history::{Event, History, Is};
use kernel::{Kernel, rules_of};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use words::{FILTERS, PORTS, Request, is_expected_note, is_refusal};

const WORKERS: u64 = 100;
/// The time limit of a process in seconds: all others may get the lock before it.
const LIMIT: &str = "600";

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// A host with ports, and the history of its changes.
struct Host {
    scene: PortScene,
    history: Mutex<History>,
}

/// The part of the host that a thread needs.
#[derive(Clone, Copy)]
struct Worker<'a> {
    sandbox: &'a Sandbox,
    history: &'a Mutex<History>,
    serials: &'a AtomicU32,
    number: u64,
}

/// The numbers of successful and of refused requests of each kind.
type Tally = BTreeMap<&'static str, (u32, u32)>;

fn netlaunch(sandbox: &Sandbox, args: &[String]) -> Output {
    let mut command = sandbox.program(Path::new("/usr/bin/timeout"));
    command.arg(LIMIT).arg(sandbox.path("bin/netlaunch"));
    command.args(["--lock-timeout", LIMIT]).args(args);
    command.output().unwrap()
}

impl Worker<'_> {
    fn run(self, seed: u64, end: Instant) -> Tally {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1000) + self.number);
        let mut tally = Tally::new();
        while Instant::now() < end {
            let serial = self.serials.fetch_add(1, Ordering::Relaxed);
            let request = Request::random(&mut rng, serial);
            let done = self.execute(&request);
            let (yes, no) = tally.entry(request.kind()).or_default();
            *if done { yes } else { no } += 1;
        }
        tally
    }

    /// Runs netlaunch with a request. Returns whether it succeeded.
    fn execute(self, request: &Request) -> bool {
        let file = self.sandbox.path(&format!("document-{}.xml", self.number));
        if let Some(document) = request.document() {
            fs::write(&file, document).unwrap();
        }
        let start = Instant::now();
        let output = netlaunch(self.sandbox, &request.args(&file));
        let end = Instant::now();
        let said = text(&output.stderr);
        match output.status.code() {
            Some(0) => {
                let strange: Vec<_> = said.lines().filter(|line| !is_expected_note(line)).collect();
                assert!(strange.is_empty(), "{request:?} is done, and says {strange:?}");
                if let Some((target, is)) = request.makes() {
                    self.history.lock().unwrap().add(Event { target, is, start, end });
                }
                true
            }
            Some(2) => {
                let refusals: Vec<_> =
                    said.lines().filter(|line| !is_expected_note(line)).collect();
                let refused = matches!(refusals[..], [line] if is_refusal(request, line));
                assert!(refused, "{request:?}: {said}");
                false
            }
            _ => panic!("{request:?}: {}: {said}", output.status),
        }
    }
}

impl Host {
    fn new(backend: &str) -> Self {
        let scene = PortScene::new(Some(backend));
        for pair in 0..PORTS / 2 {
            let (one, other) = (2 * pair, 2 * pair + 1);
            scene.netns.ip(&format!("link add port{one} type veth peer name port{other}"));
            for port in [one, other] {
                scene.netns.ip(&format!("link set port{port} master br0"));
            }
        }
        scene.foreign_rules();
        Host { scene, history: Mutex::default() }
    }

    fn worker<'a>(&'a self, serials: &'a AtomicU32, number: u64) -> Worker<'a> {
        Worker { sandbox: &self.scene.sandbox, history: &self.history, serials, number }
    }

    fn good(&self, args: &[&str]) -> String {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let output = netlaunch(&self.scene.sandbox, &args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Returns the interface numbers of the ports that have a filter, by name.
    fn bound(&self) -> BTreeMap<String, u64> {
        let list = self.good(&["nwfilter", "binding-list", "--json"]);
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        let port = |row: &serde_json::Value| {
            (row["port"].as_str().unwrap().to_owned(), row["index"].as_u64().unwrap())
        };
        list["bindings"].as_array().unwrap().iter().map(port).collect()
    }

    fn kernel(&self, backend: &str) -> Kernel {
        rules_of(backend, |line| self.scene.sh(line))
    }

    /// Returns the names in a directory, without lock files and the texts of the last reload.
    fn files(&self, dir: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(self.scene.sandbox.path(dir)).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name != ".lock" && name != ".applied").collect()
    }

    /// Returns the final state of each port and filter.
    fn final_state(&self, documents: &BTreeMap<String, String>) -> BTreeMap<String, Is> {
        let mut state = BTreeMap::new();
        for port in (0..PORTS).map(words::port) {
            let is = documents.get(&port).map_or(Is::Gone, |xml| Is::there(xml));
            state.insert(port, is);
        }
        for filter in FILTERS {
            let file = self.scene.sandbox.path(&format!("config/nwfilter/{filter}.xml"));
            let is = fs::read_to_string(file).map_or(Is::Gone, |xml| Is::there(&xml));
            state.insert(filter.to_owned(), is);
        }
        state
    }
}

fn run_concurrent_commands(name: &str, backend: &str) {
    if !have_root(name) {
        return;
    }
    let host = Host::new(backend);
    let before = host.scene.ruleset();
    let seed = number("NETLAUNCH_TEST_SEED", rand::rng().next_u64() >> 20);
    println!("{backend}: NETLAUNCH_TEST_SEED={seed}");
    let serials = AtomicU32::new(1);
    let mut rng = StdRng::seed_from_u64(seed);
    for filter in FILTERS {
        let serial = serials.fetch_add(1, Ordering::Relaxed);
        let first = Request::define(filter, &mut rng, serial, false);
        assert!(host.worker(&serials, 0).execute(&first));
    }
    let end = Instant::now() + Duration::from_secs(number("NETLAUNCH_TEST_SECONDS", extent(8, 60)));
    let mut tally = Tally::new();
    std::thread::scope(|scope| {
        let start = |number| {
            let worker = host.worker(&serials, number);
            scope.spawn(move || worker.run(seed, end))
        };
        let threads: Vec<_> = (0..WORKERS).map(start).collect();
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        for one in ended {
            // The thread has printed the reason.
            for (kind, (yes, no)) in one.unwrap_or_else(|_| panic!("{name}: see above")) {
                let (all_yes, all_no) = tally.entry(kind).or_default();
                (*all_yes, *all_no) = (*all_yes + yes, *all_no + no);
            }
        }
    });
    for (kind, (yes, no)) in &tally {
        println!("{backend}: {kind}: {yes} done, {no} refused");
    }

    let bound = host.bound();
    let documents: BTreeMap<String, String> = bound
        .keys()
        .map(|port| (port.clone(), host.good(&["nwfilter", "binding-dumpxml", port])))
        .collect();
    println!("{backend}: {} of {PORTS} ports have a filter in the end", bound.len());
    assert!(!bound.is_empty(), "nothing to look at");
    // No change was lost.
    host.history.lock().unwrap().check(&host.final_state(&documents));
    // No file is left over.
    let statuses: BTreeSet<_> = bound.keys().map(|port| format!("{port}.json")).collect();
    assert_eq!(host.files("state/nwfilter/bindings"), statuses);
    let of_filters = |name: &String| FILTERS.iter().any(|f| *name == format!("{f}.xml"));
    let definitions = host.files("config/nwfilter");
    assert!(definitions.iter().all(of_filters), "{definitions:?}");
    // The kernel has rules for each binding, and no other rules.
    let there = host.kernel(backend);
    let indices: BTreeSet<u64> = bound.values().copied().collect();
    assert_eq!(there.owners(), indices, "chains\n{there}");
    assert_eq!(there.led_to(), indices, "chains that frames come to\n{there}");
    // The rules are the result of the final definitions.
    host.good(&["firewall", "reload"]);
    let rebuilt = host.kernel(backend);
    assert_eq!(there.to_string(), rebuilt.to_string(), "firewall reload");
    for port in bound.keys() {
        host.good(&["nwfilter", "binding-delete", port]);
    }
    assert_eq!(host.scene.ruleset(), before, "the host's rules after the last port");
    assert_eq!(host.files("state/nwfilter/bindings"), BTreeSet::new());
    fs::remove_dir_all(host.scene.sandbox.path("state/nwfilter")).unwrap();
    for (port, xml) in &documents {
        let file = host.scene.sandbox.path(&format!("again-{port}.xml"));
        fs::write(&file, xml).unwrap();
        host.good(&["nwfilter", "binding-create", file.to_str().unwrap()]);
    }
    assert_eq!(there.to_string(), host.kernel(backend).to_string(), "all bound anew");
    for port in bound.keys() {
        host.good(&["nwfilter", "binding-delete", port]);
    }
    assert_eq!(host.scene.ruleset(), before);
}

#[test]
fn concurrent_commands_lose_no_change_on_nftables() {
    run_concurrent_commands("concurrent_commands_lose_no_change_on_nftables", "nftables");
}

#[test]
fn concurrent_commands_lose_no_change_on_iptables() {
    run_concurrent_commands("concurrent_commands_lose_no_change_on_iptables", "iptables");
}
