//! Tests SIGHUP to a launch: the supervisor, which has long given up root's privileges, rebuilds
//! the rules of all ports as nwfilter.conf then requires.

use std::fs;
use std::time::Duration;

use crate::common::port_scene::{PortScene, Station};
use crate::common::{have_root, start, text, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The longest wait for an event that must come.
const LIMIT: Duration = Duration::from_secs(60);

/// The backends of all ports.
fn backends(scene: &PortScene) -> Vec<String> {
    let list = scene.list();
    let of = |port: &Value| port["backend"].as_str().unwrap().to_owned();
    list["bindings"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn sighup_moves_all_ports_to_the_configured_backend() {
    if !have_root("sighup_moves_all_ports_to_the_configured_backend") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    scene.bind(Station::Vnet0, "clean-traffic", &[("IP", "10.2.3.4")]).unwrap();
    let stand_in = "case $* in *'-netdev help'*) echo tap; exit;; esac\nexec sleep 600";
    let qemu = scene.sandbox.script("qemu", stand_in);
    let options = ["--bridge", "br0", "--filter", "clean-traffic", "--filter-param", "IP=10.2.3.5"];
    let args = [&options[..], &["--", qemu.to_str().unwrap()]].concat();
    let mut netlaunch = start(scene.sandbox.netlaunch(&args));
    let log = scene.sandbox.path("log");
    let pipe = netlaunch.0.stderr.take().unwrap();
    let copy = log.clone();
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::BufReader::new(pipe), &mut fs::File::create(copy).unwrap())
    });
    let said = || fs::read(&log).map_or_else(|_| String::new(), |bytes| text(&bytes));
    assert!(wait_until(LIMIT, || backends(&scene) == ["nftables"; 2]), "{}", said());
    // From when a port has its filter on, also before QEMU runs.
    let pid = Pid::from_raw(netlaunch.pid());
    let hang_up = || kill(pid, Signal::SIGHUP).unwrap();
    let becomes = |backend: &str| {
        scene.settings(&format!("firewall_backend = \"{backend}\"\n"));
        hang_up();
        let all = || backends(&scene) == [backend; 2];
        assert!(wait_until(LIMIT, all), "{backend}: {:?} {}", backends(&scene), said());
    };
    becomes("iptables");
    let rules = scene.ruleset();
    // A mistake is reported, and changes nothing.
    scene.settings("firewall_backend = \"nft\"\n");
    hang_up();
    let told = || said().contains("nwfilter.conf:1:20: ");
    assert!(wait_until(LIMIT, told), "{}", said());
    assert_eq!(scene.ruleset(), rules);
    becomes("nftables");
    assert!(netlaunch.0.try_wait().unwrap().is_none(), "{}", said());
    kill(pid, Signal::SIGTERM).unwrap();
    netlaunch.output(LIMIT);
    assert_eq!(backends(&scene), ["nftables"]);
}
