//! Tests that the unit `netlaunch-nwfilter.service` permits what `nwfilter watch` does: with the
//! unit's capabilities, and with its directories read-only, a port gets its filter, its guest's
//! address is learned, and both go with the port.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::common::frame::{Frame, OTHER, PEER, VM};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{have_root, wait_until};
use crate::nwfilter_watch::{port, settings, watched_by};

const LIMIT: Duration = Duration::from_secs(60);

const UNIT: &str = include_str!("../../conf/netlaunch-nwfilter.service");

/// Returns the words of a directive of the unit.
fn directive(name: &str) -> Vec<&'static str> {
    let line = UNIT.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("the unit has no {name}")).split(' ').collect()
}

#[test]
fn the_unit_permits_all_that_the_watcher_does() {
    if !have_root("the_unit_permits_all_that_the_watcher_does") {
        return;
    }
    // The directories that ProtectSystem=full makes read-only (systemd.exec(5)).
    assert_eq!(directive("ProtectSystem"), ["full"]);
    assert_eq!(directive("NoNewPrivileges"), ["yes"]);
    let lower = |capability: &&str| capability.trim_start_matches("CAP_").to_lowercase();
    let capabilities: Vec<String> =
        directive("CapabilityBoundingSet").iter().map(|name| format!("+{}", lower(name))).collect();
    for backend in ["nftables", "iptables"] {
        let scene = PortScene::new(Some(backend));
        let rules = "[[watch]]\nport = \"vnet0\"\nmac = \"52:54\"\nfilter = \"clean-traffic\"\n";
        scene.settings(&settings(backend, rules));
        let line = format!(
            "mount --make-rprivate /
             for dir in /usr /etc {config}; do
                 mount --bind $dir $dir; mount -o remount,bind,ro $dir
             done
             ! touch {config}/file 2>/dev/null
             exec setpriv --bounding-set=-all,{capabilities} --no-new-privs \\
                 {netlaunch} nwfilter watch",
            config = scene.sandbox.path("config").display(),
            capabilities = capabilities.join(","),
            netlaunch = scene.sandbox.path("bin/netlaunch").display(),
        );
        let mut command = scene.sandbox.program(Path::new("/usr/bin/unshare"));
        command.args(["-m", "sh", "-ec", &line]);
        let watcher = watched_by(&scene, command);
        let learned = || {
            scene.send(Station::Vnet0, &Frame::arp(VM, PEER, 1));
            port(&scene, "vnet0")["learning"]["address"] == json!(VM.v4)
        };
        assert!(wait_until(LIMIT, learned), "{backend}: {}", scene.list());
        assert!(wait_until(LIMIT, || scene.leaves(&Frame::udp(VM, PEER, 1, 2))), "{backend}");
        assert!(!scene.leaves(&Frame::udp(OTHER, PEER, 1, 2)), "{backend}");
        scene.unplug(Station::Vnet0);
        let is_gone = || port(&scene, "vnet0").is_null();
        assert!(wait_until(LIMIT, is_gone), "{backend}");
        let refused = done(scene.nwfilter(&["watch", "--stop"])).unwrap_err();
        assert!(refused.contains("a process watches ports"), "{refused}");
        drop(watcher);
        done(scene.nwfilter(&["watch", "--stop"])).unwrap();
    }
}
