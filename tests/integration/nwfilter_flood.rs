//! Never open: a guest that sends forbidden frames without end sees none of them come out, whatever
//! happens to its filter at that moment. In the same runs the allowed frames between them come out
//! as soon as the filter's rules are in force.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;
#[path = "common/flood.rs"]
mod flood;
#[path = "common/flood_scene.rs"]
mod flood_scene;
#[path = "common/flood_watch.rs"]
mod flood_watch;

use common::frame::{OTHER, VM};
use common::have_root;
use flood_scene::{FloodScene, IP, LINKS, RUNS, links_of_redefinition, plug, usual};

/// A scene whose port has clean-traffic in force.
fn bound(backend: &str, links: &[&str]) -> FloodScene {
    let scene = FloodScene::new(backend, links, usual(VM));
    scene.bind("clean-traffic", &[IP]);
    scene.up();
    scene.watch.passes(0);
    scene
}

/// The port is down while it has no filter, as in a launch; each run has a new port of the old name.
fn bound_and_torn_down(backend: &str) {
    let what = format!("bind and teardown, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = FloodScene::new(backend, &LINKS, usual(VM));
    for run in 1..=RUNS {
        scene.flood.run(run);
        scene.bind("clean-traffic", &[IP]);
        scene.up();
        scene.watch.passes(run);
        scene.replace();
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(&what, RUNS);
}

#[test]
fn binding_and_teardown_with_nftables() {
    bound_and_torn_down("nftables");
}

#[test]
fn binding_and_teardown_with_iptables() {
    bound_and_torn_down("iptables");
}

/// A filter that the bound one refers to changes between two definitions that refuse the same.
fn redefined(backend: &str) {
    let what = format!("redefinition, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = bound(backend, links_of_redefinition(backend));
    for run in 1..=RUNS {
        scene.flood.run(run);
        scene.netlaunch(&scene.redefinition(run));
        scene.watch.passes(run);
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(&what, RUNS);
}

#[test]
fn redefinition_with_nftables() {
    redefined("nftables");
}

#[test]
fn redefinition_with_iptables() {
    redefined("iptables");
}

fn reloaded(backend: &str) {
    let what = format!("reload, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = bound(backend, &LINKS);
    for run in 1..=RUNS {
        scene.flood.run(run);
        scene.netlaunch(&scene.reload());
        scene.watch.passes(run);
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(&what, RUNS);
}

#[test]
fn reload_with_nftables() {
    reloaded("nftables");
}

#[test]
fn reload_with_iptables() {
    reloaded("iptables");
}

/// Another port has its filter and loses it, of which it may share parts with the flooded one.
fn beside_another(backend: &str) {
    let what = format!("bind and unbind of another port, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = bound(backend, &LINKS);
    let _other = plug(&scene.netns, "vnet1", "br0");
    for run in 1..=RUNS {
        scene.flood.run(run);
        scene.bind_other("vnet1", OTHER, "clean-traffic", &[("IP", "10.2.3.5")]);
        scene.netlaunch(&["nwfilter", "binding-delete", "vnet1"]);
        scene.watch.passes(run);
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(&what, RUNS);
}

#[test]
fn another_port_with_nftables() {
    beside_another("nftables");
}

#[test]
fn another_port_with_iptables() {
    beside_another("iptables");
}

/// To each backend as often as a case is run.
#[test]
fn switching_the_backend_to_and_fro() {
    let what = "backend switch, to and fro";
    if !have_root(what) {
        return;
    }
    let scene = bound("nftables", &LINKS);
    for run in 1..=RUNS {
        scene.flood.run(run);
        for backend in ["iptables", "nftables"] {
            scene.backend(backend);
            scene.netlaunch(&scene.reload());
            scene.watch.passes(run);
            scene.watch.holds(&format!("{what} to {backend}, run {run}"));
        }
    }
    scene.report(what, 2 * RUNS);
}
