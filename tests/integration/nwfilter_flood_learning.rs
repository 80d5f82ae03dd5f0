//! Tests that a port is never open while it learns: a guest sends forbidden frames without end, and
//! none of them passes before its address is known, when it is learned, or when the rules of its
//! filter change at that time.

use std::fs::File;
use std::thread::sleep;
use std::time::Duration;

use crate::common::flood::{Load, asking, never};
use crate::common::flood_learning::Method;
use crate::common::flood_scene::{FloodScene, LINKS, links_of_redefinition, plug, runs, usual};
use crate::common::frame::VM;
use crate::common::port_scene::done;
use crate::common::ruleset::ruleset;
use crate::common::{AT_MOST, extent, have_root, start, wait_until};
use serde_json::{Value, json};

/// Makes a scene with a port without a filter, and with a second port for a DHCP server.
fn scene(backend: &str, links: &[&str]) -> (FloodScene, File) {
    // This load has every kind of frame that the tests forbid.
    let scene = FloodScene::new(backend, links, Method::Dhcp.load());
    let server = plug(&scene.netns, "server0", "br0");
    scene.netns.ip("link set server0 up");
    (scene, server)
}

/// Binds a filter that must learn the address. Only frames that ask for an address may pass.
fn begin(scene: &FloodScene, method: Method, run: u32) {
    scene.flood.load(method.load());
    scene.flood.run(run);
    scene.bind("clean-traffic", &[method.parameter()]);
    scene.up();
    scene.watch.passes(run);
}

/// Gives the guest its address. From now on it floods with that address.
fn give_address(scene: &FloodScene, server: &File, method: Method, run: u32) {
    assert!(scene.flood.send(&method.says(run)));
    scene.flood.load(usual(VM));
    method.answer(server, run);
}

/// Returns the port in the output of `binding-list`.
fn port(scene: &FloodScene) -> Value {
    let list = scene.netlaunch(&["nwfilter", "binding-list", "--json"]);
    serde_json::from_str::<Value>(&list).unwrap()["bindings"][0].take()
}

fn is_learned(port: &Value) -> bool {
    port["learning"]["address"] == json!(VM.v4)
}

/// Waits for the address. Then frames with that address pass.
fn ends(scene: &FloodScene, run: u32) {
    let learned = wait_until(AT_MOST, || is_learned(&port(scene)));
    assert!(learned, "run {run}: {}", port(scene));
    scene.watch.passes(run);
}

/// The port learns the address during a flood: first only frames that ask for an address pass, and
/// then only frames with the address.
fn learned(backend: &str, method: Method) {
    let what = format!("learning by {}, {backend}", method.name());
    if !have_root(&what) {
        return;
    }
    let (scene, server) = scene(backend, &LINKS);
    for run in 1..=runs() {
        begin(&scene, method, run);
        give_address(&scene, &server, method, run);
        ends(&scene, run);
        scene.replace();
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(&what, runs());
}

#[test]
fn no_forbidden_frame_passes_learning_by_packet_with_nftables() {
    learned("nftables", Method::Any);
}

#[test]
fn no_forbidden_frame_passes_learning_by_packet_with_iptables() {
    learned("iptables", Method::Any);
}

#[test]
fn no_forbidden_frame_passes_learning_by_dhcp_with_nftables() {
    learned("nftables", Method::Dhcp);
}

#[test]
fn no_forbidden_frame_passes_learning_by_dhcp_with_iptables() {
    learned("iptables", Method::Dhcp);
}

/// The number of changes of a port's rules until its address is learned during a change.
fn changes() -> u32 {
    extent(2, 5)
}

/// The greatest delay of a race, and the number of delays from zero: the guest claims its address
/// before the change holds the lock, during the change, and after it.
const LATEST: Duration = Duration::from_millis(27);
fn moments() -> u32 {
    extent(5, 10)
}

/// The rules change while the address is learned. `change` returns the command for each run.
///
/// In the last run of each port, the learner's own change races with the command. Independent of
/// the order, the final rules must be those that a reload makes, with the address.
fn changed(
    what: &str,
    (scene, server): (FloodScene, File),
    runs: u32,
    change: impl Fn(&FloodScene, u32) -> Vec<String>,
) {
    let (mut races, mut won) = (0, 0);
    for run in 1..=runs {
        // Each method occurs in each race, and both methods occur at every delay.
        let port_number = (run - 1) / changes();
        let method = Method::ALL[port_number as usize / 2 % 2];
        if run % changes() == 1 {
            begin(&scene, method, run);
        }
        scene.flood.run(run);
        let command = start(scene.sandbox.netlaunch(&change(&scene, run)));
        let races_now = run % changes() == 0;
        if races_now {
            sleep(LATEST * (port_number / 4 % moments()) / (moments() - 1));
            give_address(&scene, &server, method, run);
        }
        done(command.output(Duration::from_secs(60))).unwrap();
        if races_now {
            races += 1;
            won += u32::from(is_learned(&port(&scene)));
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
    let races = format!("{races} addresses learned amid a change, {won} in force right after it");
    scene.report(&format!("{what}, {races}"), runs);
}

fn redefined(backend: &str) {
    let what = format!("redefinition while learning, {backend}");
    if have_root(&what) {
        let scene = scene(backend, links_of_redefinition(backend));
        changed(&what, scene, runs(), FloodScene::redefinition);
    }
}

#[test]
fn no_forbidden_frame_passes_a_redefinition_while_learning_with_nftables() {
    redefined("nftables");
}

#[test]
fn no_forbidden_frame_passes_a_redefinition_while_learning_with_iptables() {
    redefined("iptables");
}

fn reloaded(backend: &str) {
    let what = format!("reload while learning, {backend}");
    if have_root(&what) {
        changed(&what, scene(backend, &LINKS), runs(), |scene, _| scene.reload());
    }
}

#[test]
fn no_forbidden_frame_passes_a_reload_while_learning_with_nftables() {
    reloaded("nftables");
}

#[test]
fn no_forbidden_frame_passes_a_reload_while_learning_with_iptables() {
    reloaded("iptables");
}

/// Switches to each backend as often as the other tests run their case.
#[test]
fn no_forbidden_frame_passes_a_switch_of_the_backend_while_learning() {
    let what = "backend switch while learning, to and fro";
    if have_root(what) {
        changed(what, scene("nftables", &LINKS), 2 * runs(), |scene, run| {
            match run % 4 {
                0 => scene.backend("nftables"),
                2 => scene.settings("firewall_backend = \"nftables\"\nenable_counters = true\n"),
                _ => scene.backend("iptables"),
            }
            scene.reload()
        });
    }
}

/// The port gets another filter that learns the address in the same way, so its learner goes on.
fn swapped(backend: &str) {
    let what = format!("swap while learning, {backend}");
    if have_root(&what) {
        let (scene, server) = scene(backend, &LINKS);
        let file = scene.sandbox.path("other.xml");
        let other = "<filter name='other'><filterref filter='clean-traffic'/></filter>";
        std::fs::write(&file, other).unwrap();
        scene.netlaunch(&["nwfilter", "define", &file.to_string_lossy()]);
        changed(&what, (scene, server), runs(), |_, run| {
            let filter = ["clean-traffic", "other"][run as usize % 2];
            let method = Method::ALL[((run - 1) / changes()) as usize / 2 % 2];
            let (name, value) = method.parameter();
            let args = ["nwfilter", "bind", "vnet0", filter, "--replace", "-p"];
            args.into_iter().map(str::to_owned).chain([format!("{name}={value}")]).collect()
        });
    }
}

#[test]
fn no_forbidden_frame_passes_a_swap_while_learning_with_nftables() {
    swapped("nftables");
}

#[test]
fn no_forbidden_frame_passes_a_swap_while_learning_with_iptables() {
    swapped("iptables");
}

/// The port has a learned address, and its next binding learns in another way: the address goes,
/// and another learner begins.
#[test]
fn no_forbidden_frame_passes_a_swap_to_another_method() {
    let what = "swap to another method";
    if !have_root(what) {
        return;
    }
    for backend in ["nftables", "iptables"] {
        let (scene, server) = scene(backend, &LINKS);
        begin(&scene, Method::Any, 0);
        for run in 1..=extent(5, 50) {
            give_address(&scene, &server, Method::Any, run);
            ends(&scene, 0);
            let [dhcp, _probe] = asking(VM);
            scene.flood.load(Load { forbidden: never(VM), allowed: vec![dhcp] });
            scene.flood.run(run);
            for method in [Method::Dhcp, Method::Any] {
                let parameter = format!("CTRL_IP_LEARNING={}", method.name());
                let bind = ["nwfilter", "bind", "vnet0", "clean-traffic", "--replace", "-p"];
                scene.netlaunch(&[&bind[..], &[parameter.as_str()]].concat());
                assert_eq!(port(&scene)["learning"]["address"], Value::Null, "{what}, run {run}");
                scene.watch.passes(run);
                scene.watch.holds(&format!("{what}, {backend}, run {run}"));
            }
            scene.flood.run(0);
        }
        scene.report(what, extent(5, 50));
    }
}
