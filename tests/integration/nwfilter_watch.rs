//! Tests `nwfilter watch`: a port that another program makes is closed from its first frame until
//! it has its filter, also if the watcher is killed at any time.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use netlaunch::sys::tap::{TUN, Tap, TapName};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::flood_scene::{FloodScene, LINKS, PORT, usual};
use crate::common::frame::{Frame, OTHER, PEER, VM, mac_text};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{Reaped, extent, finish, have_root, start, text, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// Returns a rule for the guest [`VM`].
pub fn rule(more: &str) -> String {
    format!(
        "[[watch]]\nport = \"vnet*\"\nfilter = \"clean-traffic\"\nmac = \"{}\"\n\
         parameters = {{ IP = \"10.2.3.4\" }}\n{more}",
        mac_text(VM.mac)
    )
}

pub fn settings(backend: &str, rules: &str) -> String {
    format!("firewall_backend = \"{backend}\"\n{rules}")
}

/// Makes the tap of a run, which the flood uses from the moment that the tap exists.
fn make_tap(scene: &FloodScene) {
    let exact = TapName::Exact(PORT.parse().unwrap());
    let tap = scene.netns.inside(|| Tap::open(Path::new(TUN), &exact).unwrap().into_fd());
    scene.flood.port(File::from(tap));
    // The kernel turns the tap on first. Until the tap is on the bridge, its frames come to the
    // host directly, past every hook of bridges.
    scene.netns.ip("link set vnet0 master br0 up");
}

fn guard_is_there(scene: &FloodScene) -> bool {
    scene.sandbox.path("state/nwfilter/guard.json").exists()
        && crate::common::ruleset::ruleset(&scene.netns).to_lowercase().contains("guard")
}

fn start_watch(scene: &FloodScene) -> Reaped {
    start(scene.sandbox.netlaunch(&["nwfilter", "watch"]))
}

/// Another program makes and removes the tap of a flooding guest again and again.
fn taps_in_a_loop(backend: &str) {
    let what = format!("taps of another program, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = FloodScene::new(backend, &LINKS, usual(VM));
    scene.settings(&settings(backend, &rule("")));
    let _watcher = start_watch(&scene);
    assert!(wait_until(LIMIT, || guard_is_there(&scene)));
    scene.up();
    scene.watch.passes(0);
    let runs = extent(10, 200);
    for run in 1..=runs {
        scene.netns.ip("link delete vnet0");
        scene.flood.run(run);
        make_tap(&scene);
        scene.watch.passes(run);
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(&what, runs);
}

#[test]
fn no_forbidden_frame_of_a_new_tap_passes_with_nftables() {
    taps_in_a_loop("nftables");
}

#[test]
fn no_forbidden_frame_of_a_new_tap_passes_with_iptables() {
    taps_in_a_loop("iptables");
}

/// The watcher is killed while it binds, or before or after that.
fn killed_at_any_time(backend: &str) {
    let what = format!("killed watcher, {backend}");
    if !have_root(&what) {
        return;
    }
    let scene = FloodScene::new(backend, &LINKS, usual(VM));
    scene.settings(&settings(backend, &rule("")));
    let mut watcher = start_watch(&scene);
    assert!(wait_until(LIMIT, || guard_is_there(&scene)));
    let runs = extent(10, 200);
    for run in 1..=runs {
        scene.netns.ip("link delete vnet0");
        scene.flood.run(run);
        make_tap(&scene);
        sleep(Duration::from_millis(u64::from(rand::random_range(0..150_u8))));
        kill(Pid::from_raw(watcher.pid()), Signal::SIGKILL).unwrap();
        watcher.0.wait().unwrap();
        // Nothing of the flood passes without a watcher, except what the filter permits.
        sleep(Duration::from_millis(20));
        scene.watch.holds(&format!("{what}, run {run}, dead"));
        watcher = start_watch(&scene);
        scene.watch.passes(run);
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(&what, runs);
}

#[test]
fn no_forbidden_frame_passes_when_the_watcher_is_killed_with_nftables() {
    killed_at_any_time("nftables");
}

#[test]
fn no_forbidden_frame_passes_when_the_watcher_is_killed_with_iptables() {
    killed_at_any_time("iptables");
}

/// Starts a watcher of the scene's ports; `rules` is without the backend. The guard is set when
/// this returns.
pub fn watched(scene: &PortScene, backend: &str, rules: &str) -> Reaped {
    scene.settings(&settings(backend, rules));
    watched_by(scene, scene.sandbox.netlaunch(&["nwfilter", "watch"]))
}

/// Starts this watcher. The guard is set when this returns.
pub fn watched_by(scene: &PortScene, mut command: Command) -> Reaped {
    let ready = scene.sandbox.path("ready.sock");
    let _ = std::fs::remove_file(&ready);
    let socket = UnixDatagram::bind(&ready).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    command.env("NOTIFY_SOCKET", &ready);
    let watcher = start(command);
    let mut buffer = [0; 100];
    let length = socket.recv(&mut buffer).expect("the watcher reports readiness");
    assert!(buffer[..length].starts_with(b"READY=1"), "{:?}", &buffer[..length]);
    watcher
}

/// A scene whose ports are watched; `rules` is without the backend.
fn watched_scene(backend: &str, rules: &str) -> (PortScene, Reaped) {
    let scene = PortScene::new(Some(backend));
    let watcher = watched(&scene, backend, rules);
    (scene, watcher)
}

pub fn port(scene: &PortScene, name: &str) -> Value {
    let list = scene.list();
    let bindings = list["bindings"].as_array().unwrap();
    bindings.iter().find(|binding| binding["port"] == name).cloned().unwrap_or_default()
}

pub fn is_bound(scene: &PortScene, name: &str) -> bool {
    wait_until(LIMIT, || port(scene, name) != Value::Null)
}

const ANY: &str = "[[watch]]\nport = \"vnet*\"\nfilter = \"no-mac-spoofing\"\n";

#[test]
fn the_first_frame_names_the_guest_and_two_guests_never_share_an_address() {
    if !have_root("the_first_frame_names_the_guest_and_two_guests_never_share_an_address") {
        return;
    }
    for backend in ["nftables", "iptables"] {
        let (scene, _watcher) = watched_scene(backend, ANY);
        let sends = || {
            scene.send(Station::Vnet0, &Frame::udp(VM, PEER, 1, 2));
            port(&scene, "vnet0") != Value::Null
        };
        assert!(wait_until(LIMIT, sends), "{backend}");
        assert_eq!(port(&scene, "vnet0")["mac"], mac_text(VM.mac));
        assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)), "{backend}");
        assert!(!scene.leaves(&Frame::udp(OTHER, PEER, 1, 2)), "{backend}");
        // The other guest claims the address of the first one, and stays closed.
        for _ in 0..20 {
            let reached = scene.send(Station::Vnet1, &Frame::udp(VM, PEER, 1, 2));
            assert_eq!(reached, [], "{backend}");
            sleep(Duration::from_millis(20));
        }
        assert_eq!(port(&scene, "vnet1"), Value::Null);
        let sends = || {
            scene.send(Station::Vnet1, &Frame::udp(OTHER, PEER, 1, 2));
            port(&scene, "vnet1") != Value::Null
        };
        assert!(wait_until(LIMIT, sends), "{backend}");
        assert_eq!(port(&scene, "vnet1")["mac"], mac_text(OTHER.mac));
        // A port that no rule names is as before.
        assert!(scene.enters(&Frame::udp(PEER, VM, 1, 2)), "{backend}");
    }
}

#[test]
fn the_guard_stays_after_the_watcher_and_a_reload_and_a_switch_and_goes_on_request() {
    if !have_root("the_guard_stays_after_the_watcher_and_a_reload_and_a_switch_and_goes_on_request")
    {
        return;
    }
    for (backend, other) in [("nftables", "iptables"), ("iptables", "nftables")] {
        let (scene, watcher) = watched_scene(backend, &rule(""));
        let reload = || done(finish(scene.sandbox.netlaunch(&["firewall", "reload"])));
        let check = || {
            let output = finish(scene.sandbox.netlaunch(&["firewall", "check"]));
            text(&output.stdout) + &text(&output.stderr)
        };
        assert!(is_bound(&scene, "vnet0"), "{backend}");
        kill(Pid::from_raw(watcher.pid()), Signal::SIGTERM).unwrap();
        let output = watcher.output(LIMIT);
        assert!(text(&output.stderr).contains("ports vnet* are closed"), "{output:?}");
        let closed = |about: &str| {
            let from = scene.send(Station::Vnet1, &Frame::udp(OTHER, PEER, 1, 2));
            assert_eq!(from, [], "{about}");
            let to = scene.send(Station::Peer, &Frame::udp(PEER, OTHER, 1, 2));
            assert!(!to.contains(&Station::Vnet1), "{about}");
            assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)), "{about}");
        };
        // vnet1 has the address of no rule: the one of vnet0 is in use.
        closed(backend);
        reload().unwrap();
        closed(backend);
        assert!(!check().contains("guard"), "{}", check());
        scene.settings(&settings(other, &rule("")));
        reload().unwrap();
        closed(other);
        assert_eq!(scene.backend_of(Station::Vnet0), other);
        // Another program flushes the rules.
        for flush in ["nft flush ruleset", "ebtables -t nat -F", "ebtables -t nat -X"] {
            scene.sh(flush);
        }
        assert!(check().contains("guard"), "{}", check());
        reload().unwrap();
        closed(other);
        // An unbound port is closed again.
        scene.unbind(Station::Vnet0);
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)), "{other}");
        let stopped = scene.nwfilter(&["watch", "--stop"]);
        assert!(text(&stopped.stderr).contains("are open"), "{}", text(&stopped.stderr));
        assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)), "{other}");
        let rules = scene.ruleset().to_lowercase();
        assert!(!rules.contains("guard") && !rules.contains("netlaunch"), "{rules}");
        assert!(!scene.sandbox.path("state/nwfilter/guard.json").exists());
    }
}

#[test]
fn a_port_that_comes_after_the_watcher_learns_the_address_of_its_guest() {
    if !have_root("a_port_that_comes_after_the_watcher_learns_the_address_of_its_guest") {
        return;
    }
    let rules = "[[watch]]\nport = \"vnet0\"\nmac = \"52:54\"\nfilter = \"clean-traffic\"\n";
    let (scene, _watcher) = watched_scene("nftables", rules);
    scene.unplug(Station::Vnet0);
    scene.plug(Station::Vnet0);
    let learned = || {
        scene.send(Station::Vnet0, &Frame::arp(VM, PEER, 1));
        port(&scene, "vnet0")["learning"]["address"] == json!(VM.v4)
    };
    assert!(wait_until(LIMIT, learned), "{}", scene.list());
    assert!(wait_until(LIMIT, || scene.leaves(&Frame::udp(VM, PEER, 1, 2))));
    // Its filter goes with it.
    scene.unplug(Station::Vnet0);
    let file = scene.sandbox.path("state/nwfilter/bindings/vnet0.json");
    assert!(wait_until(LIMIT, || !file.exists()));
}

#[test]
fn a_rule_that_cannot_be_guarded_is_refused_at_the_start() {
    if !have_root("a_rule_that_cannot_be_guarded_is_refused_at_the_start") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let said = done(scene.nwfilter(&["watch"])).unwrap_err();
    assert!(said.contains("nwfilter.conf has no rule for ports"), "{said}");
    scene.settings("[[watch]]\nmac = \"52:54:00\"\nfilter = \"clean-traffic\"\n");
    let said = done(scene.nwfilter(&["watch"])).unwrap_err();
    assert!(said.contains("nwfilter.conf:1:1") && said.contains("port"), "{said}");
    let bridge = rule("bridge = \"br0\"\n");
    let names_bridges = scene.sh(
        "nft --check 'add table bridge t; add chain bridge t c; add rule bridge t c meta ibrname \"br0\"' 2>&1 || echo refused",
    );
    if names_bridges.contains("refused") {
        for backend in ["nftables", "iptables"] {
            scene.settings(&settings(backend, &bridge));
            let said = done(scene.nwfilter(&["watch"])).unwrap_err();
            assert!(said.contains("CONFIG_NFT_BRIDGE_META"), "{said}");
            assert!(!scene.sandbox.path("state/nwfilter/guard.json").exists());
            assert!(!scene.ruleset().to_lowercase().contains("guard"), "{}", scene.ruleset());
            assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
        }
        return;
    }
    for backend in ["nftables", "iptables"] {
        a_bridge_narrows_the_guard(backend, &bridge);
    }
}

/// The guard closes the port on br0, and not the same port on another bridge.
fn a_bridge_narrows_the_guard(backend: &str, rule: &str) {
    let (scene, _watcher) = watched_scene(backend, rule);
    assert!(is_bound(&scene, "vnet0"));
    assert!(!scene.leaves(&Frame::udp(OTHER, PEER, 1, 2)));
    assert_eq!(scene.send(Station::Vnet1, &Frame::udp(OTHER, PEER, 1, 2)), []);
    scene.netns.ip("link add br1 type bridge");
    scene.netns.ip("link set br1 up");
    for station in ["vnet1", "peer0"] {
        scene.netns.ip(&format!("link set {station} master br1"));
    }
    let reaches = || scene.send(Station::Vnet1, &Frame::udp(OTHER, PEER, 1, 2));
    assert!(wait_until(LIMIT, || reaches().contains(&Station::Peer)));
}
