//! Tests checks that meet a command at work: the status file of a port or network and the kernel
//! differ for a moment, and a check reports only the differences that remain once it has the lock.
//!
//! The test itself is the command at work. It holds the lock, makes a difference, starts a check,
//! waits until the check waits for the lock, and removes the difference before it releases the
//! lock.

use std::fs::{self, File};
use std::path::Path;

use crate::common::network_host::NetworkHost;
use crate::common::port_scene::PortScene;
use crate::common::scene::Scene;
use crate::common::{Sandbox, have_root};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};

/// Takes the lock of `dir` as a command of netlaunch does.
fn lock(dir: &Path) -> Flock<File> {
    let file = fs::OpenOptions::new().write(true).open(dir.join(".lock")).unwrap();
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error).unwrap()
}

/// Runs a check while the kernel differs from the status files in `dir`. Returns its output and its
/// messages, except the one about the wait.
fn check_meanwhile(
    sandbox: &Sandbox,
    dir: &str,
    args: &[&str],
    differ: impl FnOnce(),
    agree: impl FnOnce(),
) -> (String, String) {
    let locked = lock(&sandbox.state().join(dir));
    differ();
    let mut check = Scene::start(sandbox.netlaunch(args));
    check.messages("the check waits for the lock", |said| said.contains("waiting for"));
    agree();
    drop(locked);
    let status = check.end();
    assert!(status.success(), "{args:?}: {}", check.said());
    let messages = check.err.text();
    let rest = messages.lines().filter(|line| !line.contains("waiting for"));
    (check.out.text(), rest.map(|line| format!("{line}\n")).collect())
}

#[test]
fn a_port_that_a_command_changes_meanwhile_is_in_force() {
    if !have_root("a_port_that_a_command_changes_meanwhile_is_in_force") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    scene.filter("<rule action='drop' direction='out'><udp dstportstart='53'/></rule>").unwrap();
    let chain =
        format!("bridge netlaunch_nwfilter p{}-from-ip", scene.list()["bindings"][0]["index"]);
    for args in [
        &["nwfilter", "binding-list", "--json"][..],
        &["firewall", "check", "--json"],
        &["firewall", "check", "br0", "--json"],
    ] {
        let rules = scene.ruleset();
        let differ = || drop(scene.sh(&format!("nft insert rule {chain} counter")));
        let agree = || {
            let last = "nft -a list chain CHAIN | sed -n 's/.*counter.*handle //p' | head -n 1";
            let delete = format!("nft delete rule {chain} handle $({last})");
            scene.sh(&delete.replace("CHAIN", &chain));
            assert_eq!(scene.ruleset(), rules);
        };
        let (shown, said) =
            check_meanwhile(&scene.sandbox, "nwfilter/bindings", args, differ, agree);
        assert_eq!(said, "", "{args:?}");
        let shown: Value = serde_json::from_str(&shown).unwrap();
        match shown.get("bindings") {
            Some(ports) => assert_eq!(ports[0]["state"], "in-force", "{shown:#}"),
            None => assert_eq!(shown["ports"], json!([]), "{shown:#}"),
        }
    }
}

#[test]
fn a_network_that_a_command_changes_meanwhile_has_no_faults() {
    if !have_root("a_network_that_a_command_changes_meanwhile_has_no_faults") {
        return;
    }
    let host = NetworkHost::new(
        "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000098</uuid>\
         <forward mode='nat'/><bridge name='nlt0'/><mac address='52:54:00:00:00:98'/>\
         <ip address='10.98.0.1' prefix='24'/></network>",
    );
    host.good("network start lab");
    for args in [
        &["network", "list", "--json"][..],
        &["firewall", "check", "--json"],
        &["firewall", "check", "nlt0", "--json"],
        &["--print=json", "--network", "lab", "--", "qemu-system-x86_64"],
    ] {
        let rules = host.sh("nft -s list ruleset");
        let differ = || {
            host.sh("nft insert rule ip netlaunch_network nl-nlt0-to drop; ip link set nlt0 down");
        };
        let agree = || {
            host.sh("rule=$(nft -a list chain ip netlaunch_network nl-nlt0-to | sed -n \
                     's/^\\t\\tdrop # handle //p' | head -n 1); \
                     nft delete rule ip netlaunch_network nl-nlt0-to handle $rule; \
                     ip link set nlt0 up");
            assert_eq!(host.sh("nft -s list ruleset"), rules);
        };
        let (shown, said) = check_meanwhile(&host.sandbox, "networks", args, differ, agree);
        assert_eq!(said, "", "{args:?}");
        let shown: Value = serde_json::from_str(&shown).unwrap();
        match (shown.get("networks"), shown.get("bridges")) {
            (Some(networks), _) => assert_eq!(networks[0]["faults"], json!([]), "{shown:#}"),
            (_, Some(bridges)) => assert_eq!(bridges[0]["findings"], json!([]), "{shown:#}"),
            _ => assert_eq!(shown["backend"], "bridge", "{shown:#}"),
        }
    }
}

#[test]
fn a_network_that_a_command_ends_meanwhile_is_not_listed_as_active() {
    if !have_root("a_network_that_a_command_ends_meanwhile_is_not_listed_as_active") {
        return;
    }
    let host = NetworkHost::new(
        "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000098</uuid>\
         <bridge name='nlt0'/><mac address='52:54:00:00:00:98'/>\
         <ip address='10.98.0.1' prefix='24'/></network>",
    );
    host.good("network start lab");
    let status = host.file("status.json");
    let args = ["network", "list", "--json"];
    // A destroy removes the bridge first and the status file last.
    let differ = || drop(host.sh("ip link delete nlt0"));
    let agree = || fs::remove_file(&status).unwrap();
    let (shown, said) = check_meanwhile(&host.sandbox, "networks", &args, differ, agree);
    assert_eq!(said, "");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["networks"][0]["state"], "inactive", "{shown:#}");
}
