//! Tests that a port is never open: a guest sends forbidden frames without end, and none of them
//! passes while its filter is bound, changed, reloaded or removed.
//!
//! The guest also sends allowed frames between them, and these pass as soon as the rules of the
//! filter are in force.

use crate::common::flood_scene::{FloodScene, IP, LINKS, links_of_redefinition, plug, runs, usual};
use crate::common::frame::{OTHER, VM};
use crate::common::have_root;

/// Makes a scene whose port has clean-traffic in force.
fn bound(backend: &str, links: &[&str]) -> FloodScene {
    let scene = FloodScene::new(backend, links, usual(VM));
    scene.bind("clean-traffic", &[IP]);
    scene.up();
    scene.watch.passes(0);
    scene
}

/// As in a launch, the port is down while it has no filter. Each run has a new port of the same
/// name.
fn bound_and_torn_down(backend: &str) {
    let what = format!("bind and teardown, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = FloodScene::new(backend, &LINKS, usual(VM));
    for run in 1..=runs() {
        scene.flood.run(run);
        scene.bind("clean-traffic", &[IP]);
        scene.up();
        scene.watch.passes(run);
        scene.replace();
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(&what, runs());
}

#[test]
fn no_forbidden_frame_passes_a_bind_or_teardown_with_nftables() {
    bound_and_torn_down("nftables");
}

#[test]
fn no_forbidden_frame_passes_a_bind_or_teardown_with_iptables() {
    bound_and_torn_down("iptables");
}

/// The bound filter refers to another filter, which changes between two definitions that forbid the
/// same frames.
fn redefined(backend: &str) {
    let what = format!("redefinition, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = bound(backend, links_of_redefinition(backend));
    for run in 1..=runs() {
        scene.flood.run(run);
        scene.netlaunch(&scene.redefinition(run));
        scene.watch.passes(run);
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(&what, runs());
}

#[test]
fn no_forbidden_frame_passes_a_redefinition_with_nftables() {
    redefined("nftables");
}

#[test]
fn no_forbidden_frame_passes_a_redefinition_with_iptables() {
    redefined("iptables");
}

fn reloaded(backend: &str) {
    let what = format!("reload, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = bound(backend, &LINKS);
    for run in 1..=runs() {
        scene.flood.run(run);
        scene.netlaunch(&scene.reload());
        scene.watch.passes(run);
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(&what, runs());
}

#[test]
fn no_forbidden_frame_passes_a_reload_with_nftables() {
    reloaded("nftables");
}

#[test]
fn no_forbidden_frame_passes_a_reload_with_iptables() {
    reloaded("iptables");
}

/// Binds and unbinds another port, which may share rules with the flooded port.
fn beside_another(backend: &str) {
    let what = format!("bind and unbind of another port, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = bound(backend, &LINKS);
    let _other = plug(&scene.netns, "vnet1", "br0");
    for run in 1..=runs() {
        scene.flood.run(run);
        scene.bind_other("vnet1", OTHER, "clean-traffic", &[("IP", "10.2.3.5")]);
        scene.netlaunch(&["nwfilter", "binding-delete", "vnet1"]);
        scene.watch.passes(run);
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(&what, runs());
}

#[test]
fn no_forbidden_frame_passes_a_bind_of_another_port_with_nftables() {
    beside_another("nftables");
}

#[test]
fn no_forbidden_frame_passes_a_bind_of_another_port_with_iptables() {
    beside_another("iptables");
}

/// Switches to each backend as often as the other tests run their case.
#[test]
fn no_forbidden_frame_passes_a_switch_of_the_backend() {
    let what = "backend switch, to and fro";
    if !have_root(what) {
        return;
    }
    let scene = bound("nftables", &LINKS);
    for run in 1..=runs() {
        scene.flood.run(run);
        for backend in ["iptables", "nftables"] {
            scene.backend(backend);
            scene.netlaunch(&scene.reload());
            scene.watch.passes(run);
            scene.watch.holds(&format!("{what} to {backend}, run {run}"));
        }
    }
    scene.report(what, 2 * runs());
}

/// The two filters of the swaps, which forbid the same frames of the flood.
const SWAPPED: [&str; 2] = ["clean-traffic", "clean-traffic-strict"];

/// Returns the command that gives the port the filter of this run.
fn swap(run: u32) -> [&'static str; 7] {
    let filter = SWAPPED[run as usize % 2];
    ["nwfilter", "bind", "vnet0", filter, "--replace", "-p", "IP=10.2.3.4"]
}

fn swapped(backend: &str) {
    let what = format!("swap, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = bound(backend, &LINKS);
    for run in 1..=runs() {
        scene.flood.run(run);
        scene.netlaunch(&swap(run));
        scene.watch.passes(run);
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(&what, runs());
}

#[test]
fn no_forbidden_frame_passes_a_swap_with_nftables() {
    swapped("nftables");
}

#[test]
fn no_forbidden_frame_passes_a_swap_with_iptables() {
    swapped("iptables");
}

#[test]
fn no_forbidden_frame_passes_a_swap_that_changes_the_backend() {
    let what = "swap and backend switch";
    if !have_root(what) {
        return;
    }
    let scene = bound("nftables", &LINKS);
    for run in 1..=runs() {
        scene.flood.run(run);
        scene.backend(["nftables", "iptables"][run as usize % 2]);
        scene.netlaunch(&swap(run));
        scene.watch.passes(run);
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(what, runs());
}
