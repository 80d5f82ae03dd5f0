//! Tests a port in a further table of nftables: the first table is full.
//!
//! ```text
//! z0 … z999 [brz]    these fill the first table
//! vnet0 [br0] …      comes into the second one
//! ```

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::common::crowd::{self, TABLE};
use crate::common::flood_scene::{FloodScene, IP, LINKS, usual};
use crate::common::frame::{Frame, PEER, VM};
use crate::common::port_scene::{PortScene, Station};
use crate::common::ruleset::ruleset;
use crate::common::{extent, finish, have_root, start, text, wait_until};
use crate::nwfilter_watch::{port, rule, settings, watched};

/// Refuses frames in both stages, each way, frames to the host, and link-local frames.
const RULES: &str = "<rule action='drop' direction='out'><arp opcode='1'/></rule>
    <rule action='drop' direction='out'><udp dstportstart='53'/></rule>
    <rule action='drop' direction='in'><udp dstportstart='53'/></rule>";

/// Makes a scene whose first table is full.
fn crowded() -> PortScene {
    let scene = PortScene::new(Some("nftables"));
    crowd::fill_first_table(&scene.netns, &scene.sandbox);
    scene
}

/// Makes such a scene whose guard closes vnet0. No process watches it.
fn guarded() -> PortScene {
    let scene = crowded();
    scene.unplug(Station::Vnet0);
    drop(watched(&scene, "nftables", &rule("").replace("vnet*", "vnet0")));
    scene.plug(Station::Vnet0);
    scene
}

/// The names of the tables of a family.
fn tables_of(scene: &PortScene, family: &str) -> Vec<String> {
    let listed = scene.sh(&format!("nft list tables {family}"));
    let name = |line: &str| Some(line.strip_prefix("table ")?.split_once(' ')?.1.to_owned());
    let mut tables: Vec<String> = listed.lines().filter_map(name).collect();
    tables.sort();
    tables
}

/// The names of the tables of the family bridge.
fn tables(scene: &PortScene) -> Vec<String> {
    tables_of(scene, "bridge")
}

fn filters(scene: &PortScene) {
    assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 53)));
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 54)));
    assert!(!scene.leaves(&Frame::arp(VM, PEER, 1)));
    assert!(scene.leaves(&Frame::arp(VM, PEER, 2)));
    assert!(!scene.enters(&Frame::udp(PEER, VM, 1, 53)));
    assert!(scene.enters(&Frame::udp(PEER, VM, 1, 54)));
}

fn reload(scene: &PortScene) -> String {
    let output = finish(scene.sandbox.netlaunch(&["firewall", "reload"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

const BOTH: [&str; 2] = ["netlaunch_nwfilter", TABLE];

#[test]
fn a_port_of_a_further_table_has_its_filter_until_its_table_goes_with_it() {
    if !have_root("a_port_of_a_further_table_has_its_filter_until_its_table_goes_with_it") {
        return;
    }
    let scene = crowded();
    assert_eq!(tables(&scene), [BOTH[0]]);
    scene.filter(RULES).unwrap();
    assert_eq!(tables(&scene), BOTH);
    filters(&scene);
    let index = port(&scene, "vnet0")["index"].to_string();
    let first = || scene.sh("nft list map bridge netlaunch_nwfilter from_guest");
    assert!(first().contains("\"vnet0\" : accept"), "{}", first());
    // A swap and a redefinition leave the port in its table.
    scene.define("test", &RULES.replace("53", "55")).unwrap();
    assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 55)));
    scene.define("test", RULES).unwrap();
    filters(&scene);
    assert_eq!(tables(&scene), BOTH);
    assert!(
        scene.sh(&format!("nft list table bridge {TABLE}")).contains(&format!("p{index}-from"))
    );
    // A second port of this table, and the last one.
    scene.bind(Station::Vnet1, "test", &[]).unwrap();
    scene.unbind(Station::Vnet0);
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 53)));
    assert!(!first().contains("vnet0"), "{}", first());
    assert_eq!(tables(&scene), BOTH);
    scene.unbind(Station::Vnet1);
    assert_eq!(tables(&scene), [BOTH[0]]);
    // A port of the first table makes room.
    scene.netns.ip("link delete z7");
    scene.filter(RULES).unwrap();
    assert_eq!(tables(&scene), [BOTH[0]]);
    filters(&scene);
}

#[test]
fn the_last_port_of_all_tables_takes_all_tables_with_it() {
    if !have_root("the_last_port_of_all_tables_takes_all_tables_with_it") {
        return;
    }
    let scene = crowded();
    scene.filter(RULES).unwrap();
    crowd::remove(&scene.netns, &scene.sandbox);
    // Without its first table, the filter works on.
    assert!(reload(&scene).contains("the filter of the port vnet0 is there"));
    filters(&scene);
    assert_eq!(tables(&scene), BOTH);
    scene.unbind(Station::Vnet0);
    for family in ["bridge", "netdev"] {
        assert!(tables_of(&scene, family).is_empty(), "{:?}", tables_of(&scene, family));
    }
}

#[test]
fn lost_rules_of_a_further_table_are_missed_and_a_reload_restores_them() {
    if !have_root("lost_rules_of_a_further_table_are_missed_and_a_reload_restores_them") {
        return;
    }
    let scene = crowded();
    scene.filter(RULES).unwrap();
    let index = port(&scene, "vnet0")["index"].to_string();
    let applied = scene.sandbox.path("state/nwfilter/bindings/.applied");
    for change in [
        "nft flush ruleset",
        "nft delete table bridge netlaunch_nwfilter_2",
        "nft delete table netdev netlaunch_nwfilter",
        "nft flush chain bridge netlaunch_nwfilter_2 postrouting",
        "nft flush chain bridge netlaunch_nwfilter_2 p{n}-from",
        "nft 'delete element bridge netlaunch_nwfilter_2 to_guest { {n} }'",
        "nft 'delete element bridge netlaunch_nwfilter to_guest { {n} }'",
        "nft 'add table bridge netlaunch_nwfilter_2 { flags dormant; }'",
        "nft 'add table netdev netlaunch_nwfilter { flags dormant; }'",
    ] {
        scene.sh(&change.replace("{n}", &index));
        assert_eq!(port(&scene, "vnet0")["state"], "rules-missing", "{change}");
        let check = finish(scene.sandbox.netlaunch(&["firewall", "check"]));
        assert_eq!(check.status.code(), Some(1), "{change}");
        let said = reload(&scene);
        assert!(said.contains("the filter of the port vnet0 is there; before, the "), "{said}");
        assert_eq!(port(&scene, "vnet0")["state"], "in-force", "{change}");
        filters(&scene);
    }
    let generation = || -> Value {
        let texts: Value = serde_json::from_slice(&fs::read(&applied).unwrap()).unwrap();
        texts["generation"].clone()
    };
    reload(&scene);
    let before = generation();
    reload(&scene);
    assert_eq!(generation(), before, "the second reload changed rules");
}

#[test]
fn the_guard_lets_a_port_of_a_further_table_to_its_filter_only() {
    if !have_root("the_guard_lets_a_port_of_a_further_table_to_its_filter_only") {
        return;
    }
    let scene = guarded();
    let to_host = |scene: &PortScene| scene.reaches_host(4000);
    assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 54)) && !to_host(&scene), "closed");
    scene.filter(RULES).unwrap();
    assert!(tables(&scene).contains(&BOTH[1].to_owned()));
    filters(&scene);
    assert!(to_host(&scene));
    scene.unbind(Station::Vnet0);
    assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 54)) && !to_host(&scene), "closed again");
    assert!(!tables(&scene).contains(&BOTH[1].to_owned()));
}

#[test]
fn a_port_stays_closed_if_netlaunch_is_killed_while_its_filter_is_removed() {
    if !have_root("a_port_stays_closed_if_netlaunch_is_killed_while_its_filter_is_removed") {
        return;
    }
    let scene = guarded();
    scene.filter(RULES).unwrap();
    // nft kills netlaunch, the parent of its parent, after its first transaction.
    scene.sandbox.script(
        "nft",
        "/usr/sbin/nft \"$@\"; status=$?\n\
         read -r _ _ _ netlaunch _ < /proc/$PPID/stat\n\
         [ \"$*\" != '-f -' ] || kill -9 $netlaunch; exit $status",
    );
    let output = scene.nwfilter_with_path(&scene.sandbox.path("bin"), &["unbind", "vnet0"]);
    assert!(!output.status.success(), "{}", text(&output.stderr));
    assert_eq!(tables(&scene), BOTH);
    for port in [53, 54] {
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, port)), "{port}");
    }
    reload(&scene);
    assert_eq!(tables(&scene), [BOTH[0]]);
    assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 54)));
}

/// Binds and unbinds a flooding port that is closed without its filter.
fn bound_and_unbound(what: &str, prepare: impl Fn(&FloodScene)) {
    if !have_root(what) {
        return;
    }
    let scene = FloodScene::new("nftables", &LINKS, usual(VM));
    scene.settings(&settings("nftables", &rule("")));
    scene.netns.ip("link set vnet0 name other0");
    prepare(&scene);
    let watcher = start(scene.sandbox.netlaunch(&["nwfilter", "watch"]));
    let is_guarded = || ruleset(&scene.netns).contains("iifname \"vnet*\" drop");
    assert!(wait_until(Duration::from_secs(30), is_guarded));
    drop(watcher);
    scene.netns.ip("link set other0 name vnet0");
    scene.up();
    let runs = extent(16, 200);
    for run in 1..=runs {
        scene.flood.run(run);
        scene.bind("clean-traffic", &[IP]);
        scene.watch.passes(run);
        scene.netlaunch(&["nwfilter", "binding-delete", "vnet0"]);
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(what, runs);
}

#[test]
fn no_forbidden_frame_passes_between_the_guard_and_the_filter() {
    bound_and_unbound("no_forbidden_frame_passes_between_the_guard_and_the_filter", |_| {});
}

#[test]
fn no_forbidden_frame_passes_between_the_guard_and_a_filter_in_a_further_table() {
    let what = "no_forbidden_frame_passes_between_the_guard_and_a_filter_in_a_further_table";
    bound_and_unbound(what, |scene| crowd::fill_first_table(&scene.netns, &scene.sandbox));
}

#[test]
fn a_port_whose_status_was_lost_is_bound_again_in_its_further_table() {
    if !have_root("a_port_whose_status_was_lost_is_bound_again_in_its_further_table") {
        return;
    }
    let scene = crowded();
    scene.filter(&RULES.replace("53", "54")).unwrap();
    fs::remove_dir_all(scene.sandbox.path("state/nwfilter/bindings")).unwrap();
    scene.define("test", RULES).unwrap();
    scene.bind(Station::Vnet0, "test", &[]).unwrap();
    filters(&scene);
    scene.unbind(Station::Vnet0);
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 53)));
}

/// Changes the status file of a port.
fn rewrite(scene: &PortScene, port: &str, change: impl FnOnce(&mut Value)) {
    let file = scene.sandbox.path(&format!("state/nwfilter/bindings/{port}.json"));
    let mut status = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut status);
    fs::write(file, status.to_string()).unwrap();
}

#[test]
fn a_port_stays_in_the_table_that_has_its_rules_whatever_its_record_says() {
    if !have_root("a_port_stays_in_the_table_that_has_its_rules_whatever_its_record_says") {
        return;
    }
    let scene = crowded();
    let chain = |port: &str, table: &str| {
        let index = crate::nwfilter_watch::port(&scene, port)["index"].to_string();
        scene
            .sh(&format!("nft list table bridge {table}"))
            .contains(&format!("chain p{index}-from"))
    };
    let bind = |port: &str| {
        let args = ["nwfilter", "bind", port, "test", "--replace", "--mac", "52:54:00:00:0a:0a"];
        let output = finish(scene.sandbox.netlaunch(&args));
        assert!(output.status.success(), "{port}: {}", text(&output.stderr));
    };
    // The status file is lost, and another port takes its room in the first table.
    fs::remove_file(scene.sandbox.path("state/nwfilter/bindings/z5.json")).unwrap();
    scene.filter(RULES).unwrap();
    bind("z5");
    assert_eq!(tables(&scene), [BOTH[0]]);
    assert!(chain("z5", "netlaunch_nwfilter"));
    // The status files are of a time when the ports were in other tables.
    scene.unbind(Station::Vnet0);
    scene.bind(Station::Vnet1, "test", &[]).unwrap();
    scene.bind(Station::Vnet0, "test", &[]).unwrap();
    assert!(chain("vnet0", TABLE));
    rewrite(&scene, "z6", |status| status["recorded"][0]["table"] = 2.into());
    rewrite(&scene, "z7", |status| status["recorded"][0]["table"] = 2.into());
    rewrite(&scene, "vnet0", |status| status["recorded"][0]["table"] = 1.into());
    bind("z6");
    reload(&scene);
    assert!(chain("z6", "netlaunch_nwfilter") && chain("z7", "netlaunch_nwfilter"));
    assert!(chain("vnet0", TABLE) && !chain("vnet0", "netlaunch_nwfilter"));
    filters(&scene);
    for port in ["z6", "z7", "vnet0", "vnet1"] {
        let output = finish(scene.sandbox.netlaunch(&["nwfilter", "unbind", port]));
        assert!(output.status.success(), "{port}: {}", text(&output.stderr));
    }
    assert_eq!(tables(&scene), [BOTH[0]]);
}

#[test]
fn distant_interfaces_have_their_netdev_tables_until_their_filters_go() {
    if !have_root("distant_interfaces_have_their_netdev_tables_until_their_filters_go") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    scene.define("test", RULES).unwrap();
    for index in [200, 201, 300] {
        scene.netns.ip(&format!("link add x{index} index {index} type veth"));
        scene.netns.ip(&format!("link set x{index} master br0"));
    }
    let run = |args: &[&str]| {
        let output = finish(scene.sandbox.netlaunch(args));
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let bind = |port: &str| {
        run(&["nwfilter", "bind", port, "test", "--replace", "--mac", "52:54:00:00:0a:0a"]);
    };
    let netdev = || tables_of(&scene, "netdev");
    scene.filter(RULES).unwrap();
    for port in ["x200", "x201", "x300", "x200"] {
        bind(port);
    }
    let names = ["netlaunch_nwfilter", "netlaunch_nwfilter_4", "netlaunch_nwfilter_5"];
    assert_eq!(netdev(), names);
    scene.sh("nft delete table netdev netlaunch_nwfilter_5");
    assert_eq!(port(&scene, "x300")["state"], "rules-missing");
    assert_eq!(port(&scene, "x200")["state"], "in-force");
    reload(&scene);
    assert_eq!(port(&scene, "x300")["state"], "in-force");
    // The record of a version that had one table of the family netdev.
    run(&["nwfilter", "unbind", "x300"]);
    assert_eq!(netdev(), names);
    bind("x300");
    rewrite(&scene, "x300", |status| {
        status["recorded"][0]["ingress"].as_object_mut().unwrap().remove("table");
    });
    scene.sh("nft delete table netdev netlaunch_nwfilter_5");
    reload(&scene);
    bind("x300");
    assert!(scene.sh("nft list table netdev netlaunch_nwfilter").contains("p300-from"));
    assert_eq!(netdev(), names[..2]);
    assert_eq!(port(&scene, "x300")["state"], "in-force");
    for port in ["x300", "x200", "x201"] {
        run(&["nwfilter", "unbind", port]);
    }
    filters(&scene);
    scene.unbind(Station::Vnet0);
    assert_eq!(netdev(), [""; 0]);
    assert_eq!(tables(&scene), [""; 0]);
}

/// Returns the nft of a host that another process kills when it removes tables.
const KILLED: &str = "case $(cat /dev/stdin) in *'delete table'*) kill -9 $$;; esac\n\
    exec /usr/sbin/nft \"$@\"";

#[test]
fn a_killed_removal_of_the_last_port_without_a_bridge_is_no_success() {
    if !have_root("a_killed_removal_of_the_last_port_without_a_bridge_is_no_success") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    scene.define("test", "<rule action='drop' direction='out'><arp/></rule>").unwrap();
    scene.netns.ip("link add low0 type veth peer name low1");
    scene.netns.ip("link add link low0 name m300 index 300 type macvtap mode bridge");
    let nwfilter = |args: &[&str]| finish(scene.sandbox.netlaunch(&[&["nwfilter"], args].concat()));
    let bound = nwfilter(&["bind", "m300", "test", "--mac", "52:54:00:00:0a:0a"]);
    assert!(bound.status.success(), "{}", text(&bound.stderr));
    let table = ["netlaunch_nwfilter_5".to_owned()];
    assert_eq!(tables_of(&scene, "netdev"), table);
    scene.sandbox.script("nft", KILLED);
    let unbound = scene.nwfilter_with_path(&scene.sandbox.path("bin"), &["unbind", "m300"]);
    assert!(!unbound.status.success(), "{}", text(&unbound.stderr));
    assert_eq!(tables_of(&scene, "netdev"), table);
    assert_eq!(port(&scene, "m300")["state"], "in-force");
    let unbound = nwfilter(&["unbind", "m300"]);
    assert!(unbound.status.success(), "{}", text(&unbound.stderr));
    assert_eq!(tables_of(&scene, "netdev"), [""; 0]);
}
