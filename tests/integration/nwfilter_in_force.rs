//! Tests filters that another program took out of force, by removing their rules or taking the port
//! off its bridge: `binding-list` and `firewall check` show them with a fix, and `firewall reload`
//! restores the rules and names what was missing.

use crate::common::frame::{Frame, PEER, VM};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::schema::valid;
use crate::common::{finish, have_root, text};
use serde_json::{Value, json};

/// Refuses frames in both stages, each way, and link-local frames.
const RULES: &str = "<rule action='drop' direction='out'><arp opcode='1'/></rule>
    <rule action='drop' direction='out'><udp dstportstart='53'/></rule>
    <rule action='drop' direction='in'><udp dstportstart='53'/></rule>
    <rule action='drop' direction='out'><udp-ipv6 dstportstart='53'/></rule>";

/// `netlaunch firewall` with these arguments: the exit status, output and messages.
fn firewall(scene: &PortScene, args: &[&str]) -> (Option<i32>, String, String) {
    let output = finish(scene.sandbox.netlaunch(&[&["firewall"], args].concat()));
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Returns the row of vnet0 in `binding-list --json`, and checks that the text agrees with it.
fn listed(scene: &PortScene) -> Value {
    let list = scene.list();
    valid("bindings", &list);
    let port = list["bindings"][0].clone();
    let shown = scene.nwfilter(&["binding-list"]);
    let words = port["state"].as_str().unwrap().replace('-', " ");
    assert!(text(&shown.stdout).contains(&words), "{words}: {}", text(&shown.stdout));
    for problem in port["problems"].as_array().unwrap() {
        let fix = problem["fix"].as_str().unwrap();
        assert!(text(&shown.stderr).contains(fix), "{fix}: {}", text(&shown.stderr));
    }
    port
}

/// vnet0 is shown as `state`, and `firewall check` reports it with `fix`. Returns why.
fn shown_as(scene: &PortScene, state: &str, fix: &str) -> String {
    let port = listed(scene);
    assert_eq!((&port["state"], &port["bridge"]), (&state.into(), &"br0".into()), "{port}");
    assert_eq!(port["problems"][0]["fix"], fix, "{port}");
    let (status, found, said) = firewall(scene, &["check", "--json"]);
    assert_eq!(status, Some(1), "{said}");
    let found: Value = serde_json::from_str(&found).unwrap();
    valid("firewall-check", &found);
    let of_port = json!([{
        "port": "vnet0",
        "filter": port["filter"],
        "bridge": "br0",
        "state": state,
        "problems": port["problems"],
    }]);
    assert_eq!(found["ports"], of_port);
    let (status, found, _) = firewall(scene, &["check"]);
    assert_eq!(status, Some(1));
    let why = port["problems"][0]["why"].as_str().unwrap();
    let line = format!("not in force: {why}\n  fix:  {fix}\n");
    assert!(found.contains(&line), "{found}");
    if !fix.starts_with("make the bridge") {
        assert!(firewall(scene, &["check", "br0"]).1.contains(&line));
    }
    why.to_owned()
}

fn in_force(scene: &PortScene) {
    let port = listed(scene);
    assert_eq!((&port["state"], &port["problems"]), (&"in-force".into(), &json!([])), "{port}");
    let (_, found, _) = firewall(scene, &["check", "--json"]);
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["ports"], json!([]), "{found}");
    assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 53)));
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 54)));
}

/// Each of these commands of another program is noticed, and undone by a reload, which says what
/// was missing. `{n}` is the port's number.
fn noticed(backend: &str, commands: &[(&str, &str)]) {
    let scene = PortScene::new(Some(backend));
    scene.filter(RULES).unwrap();
    let number = listed(&scene)["index"].to_string();
    in_force(&scene);
    let rules = scene.ruleset();
    for (command, state) in commands {
        scene.sh(&command.replace("{n}", &number));
        let why = shown_as(&scene, state, "netlaunch firewall reload");
        let (status, put_back, said) = firewall(&scene, &["reload"]);
        assert_eq!((status, said.as_str()), (Some(0), ""), "{command}");
        let line = format!("the filter of the port vnet0 is there; before, {why}\n");
        assert!(put_back.contains(&line), "{command}: {put_back}");
        in_force(&scene);
    }
    if backend == "nftables" {
        assert_eq!(scene.ruleset(), rules);
    }
    let (_, again, _) = firewall(&scene, &["reload"]);
    assert_eq!(again, "the filter of the port vnet0 is there\n");
    // A redefinition records how many rules there are now.
    scene.define("test", &RULES.replace("opcode='1'", "opcode='2'")).unwrap();
    in_force(&scene);
    scene
        .define("test", &format!("{RULES}<rule action='drop' direction='out'><arp/></rule>"))
        .unwrap();
    in_force(&scene);
    scene.unbind(Station::Vnet0);
}

#[test]
fn rules_that_another_program_removes_are_missed_on_nftables() {
    if !have_root("rules_that_another_program_removes_are_missed_on_nftables") {
        return;
    }
    let table = "bridge netlaunch_nwfilter";
    let commands = [
        "nft flush ruleset".to_owned(),
        format!("nft delete table {table}"),
        "nft delete table netdev netlaunch_nwfilter".to_owned(),
        "nft flush table netdev netlaunch_nwfilter".to_owned(),
        format!("nft flush chain {table} postrouting"),
        format!("nft flush chain {table} p{{n}}-from-ip"),
        format!("nft flush map {table} from_guest"),
        format!("nft 'delete element {table} to_guest {{ {{n}} }}'"),
        format!("nft insert rule {table} p{{n}}-from accept"),
        format!("nft 'add table {table} {{ flags dormant; }}'"),
    ];
    let commands: Vec<_> = commands.iter().map(|line| (line.as_str(), "rules-missing")).collect();
    noticed("nftables", &commands);
}

#[test]
fn rules_that_another_program_removes_are_missed_on_iptables() {
    if !have_root("rules_that_another_program_removes_are_missed_on_iptables") {
        return;
    }
    noticed(
        "iptables",
        &[
            ("nft flush ruleset", "rules-missing"),
            ("ebtables -t nat -F", "rules-missing"),
            ("ebtables -t nat -D PREROUTING -j NETLAUNCH_FROM", "rules-missing"),
            ("ebtables -t nat -F nl-{n}:from", "rules-missing"),
            ("iptables -F", "rules-missing"),
            ("iptables -D FORWARD -j NETLAUNCH_PORT_TO", "rules-missing"),
            ("iptables -F NETLAUNCH_PORT_FROM", "rules-missing"),
            ("ip6tables -D nl-{n}:from 1", "rules-missing"),
            ("iptables -I FORWARD -j ACCEPT", "overtaken"),
        ],
    );
}

#[test]
fn a_filter_that_the_kernel_does_not_call_iptables_for_is_shown_as_not_in_force() {
    if !have_root("a_filter_that_the_kernel_does_not_call_iptables_for_is_shown_as_not_in_force") {
        return;
    }
    let scene = PortScene::new(Some("iptables"));
    scene.filter(RULES).unwrap();
    let fix = "sysctl net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1";
    scene.sh("sysctl -qw net.bridge.bridge-nf-call-iptables=0");
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 53)));
    shown_as(&scene, "not-called", fix);
    scene.sh(fix);
    in_force(&scene);
}

#[test]
fn a_renamed_port_is_shown_as_not_in_force_until_its_rules_know_the_name() {
    if !have_root("a_renamed_port_is_shown_as_not_in_force_until_its_rules_know_the_name") {
        return;
    }
    for backend in ["nftables", "iptables"] {
        let scene = PortScene::new(Some(backend));
        scene.filter(RULES).unwrap();
        in_force(&scene);
        for (from, to) in [("vnet0", "other0"), ("other0", "vnet0")] {
            scene.sh(&format!(
                "ip link set {from} down; ip link set {from} name {to}; ip link set {to} up"
            ));
            let port = listed(&scene);
            assert_eq!((&port["port"], &port["state"]), (&to.into(), &"rules-missing".into()));
            let problem = &port["problems"][0];
            assert_eq!(problem["fix"], "netlaunch firewall reload");
            let why = problem["why"].as_str().unwrap();
            assert!(why.contains(&format!("the name {from}, which")), "{why}");
            let (status, found, _) = firewall(&scene, &["check"]);
            assert_eq!(status, Some(1));
            assert!(found.contains(why), "{found}");
            let (status, put_back, said) = firewall(&scene, &["reload"]);
            assert_eq!(status, Some(0), "{said}");
            let line = format!("the filter of the port {to} is there");
            assert!(put_back.contains(&line), "{put_back}");
            assert_eq!(listed(&scene)["state"], "in-force");
        }
        in_force(&scene);
    }
}

#[test]
fn a_port_that_leaves_its_bridge_is_shown_as_not_in_force() {
    if !have_root("a_port_that_leaves_its_bridge_is_shown_as_not_in_force") {
        return;
    }
    for backend in ["nftables", "iptables"] {
        let scene = PortScene::new(Some(backend));
        scene.filter(RULES).unwrap();
        in_force(&scene);
        scene.sh("ip link set vnet0 nomaster");
        let why = shown_as(&scene, "no-bridge", "ip link set vnet0 master br0");
        assert!(why.starts_with("it is on no bridge"), "{why}");
        // Another program's port is not attached again, and a reload says so.
        let (status, _, said) = firewall(&scene, &["reload"]);
        assert_eq!(status, Some(0));
        assert!(said.contains("the port vnet0 is not in force: it is on no bridge"), "{said}");
        scene.sh("ip link set vnet0 master br0");
        in_force(&scene);
        // Both at once: each is reported.
        scene.sh("ip link set vnet0 nomaster; nft flush ruleset");
        assert_eq!(listed(&scene)["problems"].as_array().map(Vec::len), Some(2));
        scene.sh("ip link delete br0");
        let fix = "make the bridge br0, then: ip link set vnet0 master br0";
        shown_as(&scene, "no-bridge", fix);
        done(scene.nwfilter(&["binding-delete", "vnet0"])).unwrap();
        assert_eq!(scene.list()["bindings"], json!([]));
    }
}
