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

use std::time::Duration;

use common::dhcp_frame::{ACK, DhcpFrame, REQUEST};
use common::frame::{Frame, OTHER, PEER, VM};
use common::{have_root, start, text, wait_until};
use flood::{Load, asking, flood, foreign, own, refused, write};
use flood_scene::{FloodScene, IP, LaunchScene, RUNS, plug, usual};
use netlaunch::process::inherited;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a bridge sends to another port, and what it gives to the host.
const LINKS: [&str; 2] = ["peer0", "br0"];

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

/// Refuses what no-ip-spoofing of the stock does: there in the link layer, here among IPv4 packets.
const ELSEWHERE: &str = "<filter name='no-ip-spoofing' chain='ipv4-ip' priority='-710'>
  <rule action='drop' direction='out' priority='500'><all match='no' srcipaddr='$IP'/></rule>
</filter>";

/// A filter that the bound one refers to changes between two definitions that refuse the same.
fn redefined(backend: &str) {
    let what = format!("redefinition, {backend}");
    if !have_root(&what) {
        return;
    }
    // iptables refuses packets for the host only behind br0.
    let scene = bound(backend, &LINKS[..if backend == "iptables" { 1 } else { 2 }]);
    let stock = scene.netlaunch(&["nwfilter", "dumpxml", "no-ip-spoofing"]);
    for run in 1..=RUNS {
        scene.flood.run(run);
        let file = scene.sandbox.path("filter.xml");
        std::fs::write(&file, if run % 2 == 0 { stock.as_str() } else { ELSEWHERE }).unwrap();
        scene.netlaunch(&["nwfilter", "define", &file.to_string_lossy()]);
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
        scene.netlaunch(&["firewall", "reload"]);
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
            scene.netlaunch(&["firewall", "reload"]);
            scene.watch.passes(run);
            scene.watch.holds(&format!("{what} to {backend}, run {run}"));
        }
    }
    scene.report(what, 2 * RUNS);
}

/// What a guest may send while its address is learnt, and what teaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    /// The first packet teaches. So before it there is only what teaches nothing.
    Any,
    /// A server's acknowledgement teaches; the guest's own address must not pass before it.
    Dhcp,
}

impl Method {
    fn load(self) -> Load {
        let [dhcp, probe] = asking(VM);
        match self {
            Method::Any => Load { forbidden: foreign(VM), allowed: vec![dhcp, probe] },
            Method::Dhcp => {
                let forbidden = refused(VM).into_iter().chain(own(VM)).chain([probe]).collect();
                Load { forbidden, allowed: vec![dhcp] }
            }
        }
    }
}

/// The port learns its guest's address while that floods it: before, only what asks for an address
/// comes out, and then only what has the address.
fn learnt(backend: &str, method: Method) {
    let what = format!("learning by {method:?}, {backend}");
    if !have_root(&what) {
        return;
    }
    // The one that may pass first at last.
    let first = if method == Method::Any { usual(VM) } else { method.load() };
    let scene = FloodScene::new(backend, &LINKS, first);
    let server = plug(&scene.netns, "server0", "br0");
    scene.netns.ip("link set server0 up");
    for run in 1..=RUNS {
        scene.flood.load(method.load());
        scene.flood.run(run);
        let learning = if method == Method::Any { "any" } else { "dhcp" };
        scene.bind("clean-traffic", &[("CTRL_IP_LEARNING", learning)]);
        scene.up();
        scene.watch.passes(run);
        match method {
            Method::Any => {
                assert!(scene.flood.send(&Frame::arp(VM, PEER, 1).bytes(b"")));
                scene.flood.load(usual(VM));
            }
            Method::Dhcp => {
                let asks = DhcpFrame { transaction: run, ..DhcpFrame::asks(REQUEST) };
                let answers = DhcpFrame { transaction: run, ..DhcpFrame::answers(ACK, VM.v4) };
                assert!(scene.flood.send(&asks.bytes()));
                scene.flood.load(usual(VM));
                assert!(write(&server, &answers.bytes()));
            }
        }
        let address = || {
            let list = scene.netlaunch(&["nwfilter", "binding-list", "--json"]);
            let list: serde_json::Value = serde_json::from_str(&list).unwrap();
            list["bindings"][0]["learning"]["address"].clone()
        };
        let learnt = wait_until(Duration::from_secs(20), || address() == VM.v4.to_string());
        assert!(learnt, "run {run}: it has learnt {}", address());
        scene.watch.passes(run);
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

/// The variable with the arguments of the QEMU that a launch starts.
const GUEST: &str = "NETLAUNCH_TEST_FLOOD_GUEST";

/// Not a test of its own: the guest of a launch, which floods the tap of its QEMU.
#[test]
fn the_guest_of_a_launch() {
    let Ok(args) = std::env::var(GUEST) else {
        eprintln!("skipped the_guest_of_a_launch: the tests of launches run it in place of QEMU");
        return;
    };
    let words = || args.split([' ', ',']);
    let number = |key| words().find_map(|word| word.strip_prefix(key)).unwrap().parse::<u32>();
    let tap = inherited::take_writable(number("fd=").unwrap() as i32).unwrap();
    flood(&usual(VM), number("run=").unwrap(), &tap.into());
}

/// Whole launches, from the tap's first moment to its last. `guest` is how QEMU's stand-in runs the
/// command of its guest, and `end` what netlaunch gets.
fn launched(backend: &str, case: &str, guest: impl Fn(&str) -> String, end: Signal) {
    let what = format!("launch, {case}, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = LaunchScene::new(backend);
    let own = std::env::current_exe().unwrap();
    let log = scene.sandbox.path("guest.log");
    let command = format!(
        "{} --nocapture --exact the_guest_of_a_launch {} >> {log} 2>&1",
        own.display(),
        scene.sandbox.path("").display(),
        log = log.display()
    );
    let qemu = scene.sandbox.script(
        "qemu",
        &format!(
            "case $* in *'-netdev help'*) echo tap; exit;; esac\nexport {GUEST}=\"$*\"\n{}",
            guest(&command)
        ),
    );
    let mut sent = 0;
    for run in 1..=RUNS {
        let netlaunch = start(scene.launch(&qemu, &format!("run={run}")));
        sent += u64::from(scene.watch.passes(run));
        kill(Pid::from_raw(netlaunch.pid()), end).unwrap();
        let output = netlaunch.output(Duration::from_secs(30));
        let code = if end == Signal::SIGKILL { None } else { Some(128 + end as i32) };
        assert_eq!(
            (output.status.code(), text(&output.stderr)),
            (code, String::new()),
            "run {run}"
        );
        scene.gone();
        scene.watch.holds(&format!("{what}, run {run}"));
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
