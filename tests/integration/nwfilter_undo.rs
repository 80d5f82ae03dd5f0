//! Tests rules whose rollback fails: they stay recorded until a command has removed them.

use std::fs;

use crate::common::frame::{Frame, PEER, VM};
use crate::common::have_root;
use crate::common::port_scene::{PortScene, Station, done};

/// Rules of all three tools of iptables.
const RULES: &str = "<rule action='drop' direction='out'><all-ipv6/></rule>\
                     <rule action='drop' direction='out'><mac protocolid='0x1234'/></rule>";

/// A tool that works so many times and fails afterwards.
fn works(scene: &PortScene, tool: &str, times: u32) {
    let count = scene.sandbox.path(&format!("run/{tool}"));
    let count = count.display();
    let body = format!(
        "n=$(cat {count} 2>/dev/null || echo 0); echo $((n + 1)) > {count}\n\
         [ $n -lt {times} ] && PATH=/usr/sbin:/usr/bin:/sbin:/bin exec {tool} \"$@\"\n\
         echo broken >&2; exit 1"
    );
    scene.sandbox.script(tool, &body);
}

fn works_again(scene: &PortScene, tool: &str) {
    fs::remove_file(scene.sandbox.path(&format!("bin/{tool}"))).unwrap();
}

/// Runs `netlaunch` with the tools of the test; returns what it says.
fn fails(scene: &PortScene, args: &[&str]) -> String {
    done(scene.nwfilter_with_path(&scene.sandbox.path("bin"), args)).unwrap_err()
}

fn reload(scene: &PortScene) -> String {
    scene.sandbox.good(&["firewall", "reload"])
}

fn has_ours(scene: &PortScene) -> bool {
    let ruleset = scene.ruleset();
    ruleset.contains("netlaunch") || ruleset.contains("nlp")
}

/// The rules of before go last, and some stay: both sides are recorded.
#[test]
fn a_move_to_another_backend_whose_end_fails_forgets_neither_side() {
    if !have_root("a_move_to_another_backend_whose_end_fails_forgets_neither_side") {
        return;
    }
    for end in ["reload", "unbind"] {
        let scene = PortScene::new(Some("iptables"));
        scene.define("test", RULES).unwrap();
        scene.foreign_rules();
        let before = scene.ruleset();
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        scene.settings("firewall_backend = \"nftables\"\n");
        works(&scene, "ebtables-restore", 0);
        let mut command = scene.sandbox.netlaunch(&["firewall", "reload"]);
        let bin = scene.sandbox.path("bin");
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
        let said = done(crate::common::finish(command)).unwrap_err();
        assert!(said.contains("ebtables-restore failed: broken"), "{said}");
        works_again(&scene, "ebtables-restore");
        if end == "reload" {
            reload(&scene);
            assert_eq!(scene.backend_of(Station::Vnet0), "nftables");
            assert!(!scene.leaves(&Frame::udp6(VM, PEER, 1, 2)));
        }
        scene.unbind(Station::Vnet0);
        assert_eq!(scene.ruleset(), before, "{end}");
    }
}

#[test]
fn a_bind_whose_undo_fails_is_undone_by_the_next_command() {
    if !have_root("a_bind_whose_undo_fails_is_undone_by_the_next_command") {
        return;
    }
    let scene = PortScene::new(Some("iptables"));
    scene.define("test", RULES).unwrap();
    scene.foreign_rules();
    let before = scene.ruleset();
    works(&scene, "ebtables-restore", 1);
    works(&scene, "ip6tables-restore", 0);
    let binding = scene.binding(Station::Vnet0, "test", &[]);
    let said = fails(&scene, &["binding-create", &binding]);
    assert!(said.contains("undoing it failed, too"), "{said}");
    assert_ne!(scene.ruleset(), before);
    works_again(&scene, "ebtables-restore");
    works_again(&scene, "ip6tables-restore");
    reload(&scene);
    assert_eq!(scene.ruleset(), before);
    assert!(!scene.sandbox.path("state/nwfilter/bindings/vnet0.json").exists());
}

#[test]
fn an_unbind_that_fails_leaves_the_port_bound_and_can_be_repeated() {
    if !have_root("an_unbind_that_fails_leaves_the_port_bound_and_can_be_repeated") {
        return;
    }
    for (backend, tool) in [("nftables", "nft"), ("iptables", "ebtables-restore")] {
        let scene = PortScene::new(Some(backend));
        scene.define("test", RULES).unwrap();
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        works(&scene, tool, 0);
        let said = fails(&scene, &["binding-delete", "vnet0"]);
        assert!(said.contains(&format!("{tool} failed: broken")), "{said}");
        works_again(&scene, tool);
        assert_eq!(scene.list()["bindings"][0]["port"], "vnet0");
        assert!(!scene.leaves(&Frame::udp6(VM, PEER, 1, 2)));
        scene.unbind(Station::Vnet0);
        assert!(scene.leaves(&Frame::udp6(VM, PEER, 1, 2)));
        assert!(!has_ours(&scene) || backend == "iptables", "{}", scene.ruleset());
    }
}
