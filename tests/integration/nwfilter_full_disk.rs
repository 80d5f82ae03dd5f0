//! Tests the filters of ports while the state directory is full or cannot be written.

use std::fs;
use std::path::PathBuf;

use crate::common::frame::{Frame, OTHER, PEER, VM};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::small_disk::Small;
use crate::common::tree::files_below;
use crate::common::{finish, have_root};

const BACKENDS: [&str; 2] = ["nftables", "iptables"];
const RULE: &str = "<rule action='drop' direction='out'><all-ipv6/></rule>";

/// Every file below the state directory, the lock files and the filler aside.
fn files(scene: &PortScene) -> Vec<PathBuf> {
    let mut files = files_below(&scene.sandbox.state());
    files.retain(|path| !path.ends_with(".lock") && !path.ends_with("filler"));
    files
}

fn reload(scene: &PortScene) -> Result<(), String> {
    done(finish(scene.sandbox.netlaunch(&["firewall", "reload"])))
}

#[test]
fn filters_are_removed_while_the_disk_is_full() {
    for backend in BACKENDS {
        if !have_root("filters_are_removed_while_the_disk_is_full") {
            return;
        }
        let scene = PortScene::new(Some(backend));
        let disk = Small::over(scene.sandbox.state());
        scene.define("test", RULE).unwrap();
        scene.foreign_rules();
        let before = scene.ruleset();
        let blocked = Frame::udp6(VM, PEER, 1, 2);
        let leaves = || scene.send(Station::Vnet0, &blocked).contains(&Station::Vnet1);
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        scene.bind(Station::Vnet1, "test", &[]).unwrap();
        scene.bind(Station::Peer, "clean-traffic", &[]).unwrap();
        disk.fill_up();
        // Rules that others removed come back.
        if backend == "nftables" {
            scene.sh("nft delete table bridge netlaunch_nwfilter");
        }
        reload(&scene).unwrap();
        assert!(!leaves(), "{backend}");
        // Unbind, and garbage collection of a port that is gone.
        scene.unbind(Station::Vnet0);
        assert!(leaves(), "{backend}");
        scene.unplug(Station::Vnet1);
        reload(&scene).unwrap();
        scene.unbind(Station::Peer);
        if backend == "iptables" {
            assert_eq!(scene.ruleset(), before, "{backend}");
        }
        assert!(!scene.ruleset().contains("netlaunch"), "{backend}: {}", scene.ruleset());
        // Nothing can be put on a port, and nothing of the attempt is left. (What was removed made
        // room.)
        disk.fill_up();
        let ruleset = scene.ruleset();
        for (filter, parameters) in
            [("test", &[][..]), ("clean-traffic", &[]), ("clean-traffic", &[("IP", "10.2.3.4")])]
        {
            let said = scene.bind(Station::Vnet0, filter, parameters).unwrap_err();
            assert!(said.contains("No space left"), "{backend}: {said}");
            assert_eq!(scene.ruleset(), ruleset, "{backend}");
        }
        let none: [PathBuf; 0] = [];
        assert_eq!(files(&scene), none, "{backend}");
        fs::remove_file(disk.filler()).unwrap();
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        scene.unbind(Station::Vnet0);
    }
}

/// However little room there is when a port is bound, it is bound wholly or not at all.
#[test]
fn a_port_is_bound_wholly_or_not_at_all_in_little_room() {
    for backend in BACKENDS {
        if !have_root("a_port_is_bound_wholly_or_not_at_all_in_little_room") {
            return;
        }
        let scene = PortScene::new(Some(backend));
        let disk = Small::over(scene.sandbox.state());
        scene.foreign_rules();
        scene.bind(Station::Vnet0, "clean-traffic", &[("IP", "10.2.3.4")]).unwrap();
        scene.unbind(Station::Vnet0);
        let ruleset = scene.ruleset();
        let before = files(&scene);
        let mut outcomes = Vec::new();
        for pages in 0..6 {
            disk.fill_up();
            let filler = fs::OpenOptions::new().write(true).open(disk.filler()).unwrap();
            filler.set_len(filler.metadata().unwrap().len() - 4096 * pages).unwrap();
            let parameters = [("IP", "10.2.3.4")];
            let bound = scene.bind(Station::Vnet0, "clean-traffic", &parameters);
            match &bound {
                Ok(()) => scene.unbind(Station::Vnet0),
                Err(said) => assert!(said.contains("No space left"), "{backend} {pages}: {said}"),
            }
            outcomes.push(bound.is_ok());
            assert_eq!(scene.ruleset(), ruleset, "{backend} {pages}");
            assert_eq!(files(&scene), before, "{backend} {pages}");
            fs::remove_file(disk.filler()).unwrap();
        }
        println!("{backend}: {outcomes:?}");
        assert!(!outcomes[0] && outcomes[5], "{outcomes:?}");
    }
}

#[test]
fn filters_are_removed_while_the_state_directory_is_read_only() {
    for backend in BACKENDS {
        if !have_root("filters_are_removed_while_the_state_directory_is_read_only") {
            return;
        }
        let scene = PortScene::new(Some(backend));
        let disk = Small::over(scene.sandbox.state());
        scene.define("test", RULE).unwrap();
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        scene.bind(Station::Vnet1, "test", &[]).unwrap();
        scene.bind(Station::Peer, "clean-traffic", &[]).unwrap();
        let blocked = Frame::udp6(VM, PEER, 1, 2);
        let leaves = || scene.send(Station::Vnet0, &blocked).contains(&Station::Vnet1);
        assert!(!leaves());
        disk.read_only(true);
        // The rules go; the record stays, and the command says so.
        let said = done(scene.nwfilter(&["binding-delete", "vnet0"])).unwrap_err();
        assert!(said.contains("vnet0.json") && said.contains("Read-only"), "{said}");
        assert!(leaves(), "{backend}");
        assert!(scene.send(Station::Vnet1, &Frame::udp6(OTHER, PEER, 1, 2)).is_empty());
        // One whose address is learned, too.
        let said = done(scene.nwfilter(&["binding-delete", "peer0"])).unwrap_err();
        assert!(said.contains("Read-only"), "{said}");
        assert_eq!(scene.send(Station::Vnet0, &blocked), [Station::Vnet1, Station::Peer]);
        disk.read_only(false);
        for station in [Station::Vnet0, Station::Vnet1, Station::Peer] {
            scene.unbind(station);
        }
        assert!(!scene.ruleset().contains("netlaunch"), "{}", scene.ruleset());
    }
}
