//! Never open while an address is learnt: a guest that sends forbidden frames without end sees none
//! of them come out before its address is known, when it is learnt, and when its filter's rules
//! change at that time.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;
#[path = "common/flood.rs"]
mod flood;
#[path = "common/flood_learning.rs"]
mod flood_learning;
#[path = "common/flood_scene.rs"]
mod flood_scene;
#[path = "common/flood_watch.rs"]
mod flood_watch;

use std::fs::File;
use std::thread::sleep;
use std::time::Duration;

use common::frame::VM;
use common::port_scene::done;
use common::ruleset::ruleset;
use common::{have_root, start, wait_until};
use flood_learning::Method;
use flood_scene::{FloodScene, LINKS, RUNS, links_of_redefinition, plug, usual};
use serde_json::{Value, json};

/// A scene whose port has no filter yet, and a port behind which there is a DHCP server.
fn scene(backend: &str, links: &[&str]) -> (FloodScene, File) {
    // Of all that follows, every kind that may not come out.
    let scene = FloodScene::new(backend, links, Method::Dhcp.load());
    let server = plug(&scene.netns, "server0", "br0");
    scene.netns.ip("link set server0 up");
    (scene, server)
}

/// The port gets a filter that has to learn the address, and only what asks for one comes out.
fn begin(scene: &FloodScene, method: Method, run: u32) {
    scene.flood.load(method.load());
    scene.flood.run(run);
    scene.bind("clean-traffic", &[method.parameter()]);
    scene.up();
    scene.watch.passes(run);
}

/// The guest comes to its address; from now on it floods as one that has it.
fn teach(scene: &FloodScene, server: &File, method: Method, run: u32) {
    assert!(scene.flood.send(&method.says(run)));
    scene.flood.load(usual(VM));
    method.answer(server, run);
}

/// What is known about the port.
fn port(scene: &FloodScene) -> Value {
    let list = scene.netlaunch(&["nwfilter", "binding-list", "--json"]);
    serde_json::from_str::<Value>(&list).unwrap()["bindings"][0].take()
}

fn is_learnt(port: &Value) -> bool {
    port["learning"]["address"] == json!(VM.v4)
}

/// Waits for the address; then what has it comes out.
fn ends(scene: &FloodScene, run: u32) {
    let learnt = wait_until(Duration::from_secs(20), || is_learnt(&port(scene)));
    assert!(learnt, "run {run}: {}", port(scene));
    scene.watch.passes(run);
}

/// The port learns its guest's address while that floods it: before, only what asks for an address
/// comes out, and then only what has the address.
fn learnt(backend: &str, method: Method) {
    let what = format!("learning by {}, {backend}", method.name());
    if !have_root(&what) {
        return;
    }
    let (scene, server) = scene(backend, &LINKS);
    for run in 1..=RUNS {
        begin(&scene, method, run);
        teach(&scene, &server, method, run);
        ends(&scene, run);
        scene.replace();
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(&what, RUNS);
}

#[test]
fn learning_from_the_first_packet_with_nftables() {
    learnt("nftables", Method::Any);
}

#[test]
fn learning_from_the_first_packet_with_iptables() {
    learnt("iptables", Method::Any);
}

#[test]
fn learning_from_dhcp_with_nftables() {
    learnt("nftables", Method::Dhcp);
}

#[test]
fn learning_from_dhcp_with_iptables() {
    learnt("iptables", Method::Dhcp);
}

/// How often the rules of a port change until its address is learnt in the middle of a change.
const CHANGES: u32 = 5;
/// How much later than before the guest speaks, from one such change to another, and how often:
/// before the change holds the lock, while it does, and behind it.
const LATER: Duration = Duration::from_millis(3);
const MOMENTS: u32 = 10;

/// The rules change while the address is learnt, by a command that `change` gives for each run; in
/// each last one of a port the learner's own change races with the command's. Whoever is first, the
/// rules are in the end those that a reload would make, with the address.
fn changed(
    what: &str,
    (scene, server): (FloodScene, File),
    runs: u32,
    change: impl Fn(&FloodScene, u32) -> Vec<String>,
) {
    let (mut races, mut won) = (0, 0);
    for run in 1..=runs {
        // Each method meets each other change, and both meet every moment.
        let port_number = (run - 1) / CHANGES;
        let method = Method::ALL[port_number as usize / 2 % 2];
        if run % CHANGES == 1 {
            begin(&scene, method, run);
        }
        scene.flood.run(run);
        let command = start(scene.sandbox.netlaunch(&change(&scene, run)));
        let races_now = run % CHANGES == 0;
        if races_now {
            sleep(LATER * (port_number / 4 % MOMENTS));
            teach(&scene, &server, method, run);
        }
        done(command.output(Duration::from_secs(60))).unwrap();
        if races_now {
            races += 1;
            won += u32::from(is_learnt(&port(&scene)));
            ends(&scene, run);
            let rules = ruleset(&scene.netns);
            scene.netlaunch(&scene.reload());
            assert_eq!(rules, ruleset(&scene.netns), "{what}, run {run}");
            scene.replace();
        } else {
            scene.watch.passes(run);
        }
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    let races = format!("{races} addresses learnt amid a change, {won} in force right after it");
    scene.report(&format!("{what}, {races}"), runs);
}

fn redefined(backend: &str) {
    let what = format!("redefinition while learning, {backend}");
    if have_root(&what) {
        let scene = scene(backend, links_of_redefinition(backend));
        changed(&what, scene, RUNS, FloodScene::redefinition);
    }
}

#[test]
fn redefinition_while_learning_with_nftables() {
    redefined("nftables");
}

#[test]
fn redefinition_while_learning_with_iptables() {
    redefined("iptables");
}

fn reloaded(backend: &str) {
    let what = format!("reload while learning, {backend}");
    if have_root(&what) {
        changed(&what, scene(backend, &LINKS), RUNS, |scene, _| scene.reload());
    }
}

#[test]
fn reload_while_learning_with_nftables() {
    reloaded("nftables");
}

#[test]
fn reload_while_learning_with_iptables() {
    reloaded("iptables");
}

/// To each backend as often as a case is run.
#[test]
fn switching_the_backend_to_and_fro_while_learning() {
    let what = "backend switch while learning, to and fro";
    if have_root(what) {
        changed(what, scene("nftables", &LINKS), 2 * RUNS, |scene, run| {
            match run % 4 {
                0 => scene.backend("nftables"),
                2 => scene.settings("firewall_backend = \"nftables\"\nenable_counters = true\n"),
                _ => scene.backend("iptables"),
            }
            scene.reload()
        });
    }
}
