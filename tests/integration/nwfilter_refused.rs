//! Tests that a bind which the filter, the settings or the port forbids ends with status 2 and the
//! reason, and changes no rule.

use crate::common::frame::{VM, mac_text};
use crate::common::port_scene::{PortScene, Station};
use crate::common::{have_root, text};

/// Binds a filter, and checks that the command is refused with these words.
fn is_refused(scene: &PortScene, args: &[&str], words: &str) {
    let before = scene.ruleset();
    let mac = mac_text(VM.mac);
    let args = [&["bind"], args, &["--mac", &mac]].concat();
    let output = scene.nwfilter(&args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert!(said.contains(words) && said.lines().count() == 1, "{args:?}: {said}");
    assert_eq!(scene.ruleset(), before);
}

#[test]
fn the_variable_mac_is_refused_if_it_is_not_the_address_of_the_guest() {
    if !have_root("the_variable_mac_is_refused_if_it_is_not_the_address_of_the_guest") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let port = ["vnet0", "clean-traffic", "-p", "IP=10.2.3.4"];
    let other = [&port[..], &["-p", "MAC=52:54:00:00:00:09"]].concat();
    is_refused(&scene, &other, "the variable MAC is 52:54:00:00:00:09");
    let own = format!("MAC={}", mac_text(VM.mac).to_uppercase());
    let mac = mac_text(VM.mac);
    let bound = [&["bind"], &port[..], &["-p", &own, "--mac", &mac]].concat();
    let output = scene.nwfilter(&bound);
    assert!(output.status.success(), "{}", text(&output.stderr));
    is_refused(&scene, &[&other[..], &["--replace"]].concat(), "the variable MAC is");
    scene.unbind(Station::Vnet0);
}

#[test]
fn a_port_with_a_quotation_mark_is_refused_by_iptables_and_not_by_nftables() {
    if !have_root("a_port_with_a_quotation_mark_is_refused_by_iptables_and_not_by_nftables") {
        return;
    }
    for backend in ["iptables", "nftables"] {
        let scene = PortScene::new(Some(backend));
        scene.sh("ip link add 'a\"b' type veth peer name guest; ip link set 'a\"b' master br0 up");
        let port = ["a\"b", "clean-traffic", "-p", "IP=10.2.3.4"];
        if backend == "iptables" {
            is_refused(&scene, &port, "give the interface a name without quotation marks");
            continue;
        }
        let output = scene.nwfilter(&[&["bind"], &port[..]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

#[test]
fn a_rule_that_the_backend_of_the_settings_cannot_express_has_status_2() {
    if !have_root("a_rule_that_the_backend_of_the_settings_cannot_express_has_status_2") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let rule = "<rule action='accept' direction='out'><all ipset='known' ipsetflags='dst'/></rule>";
    scene.define("sets", rule).unwrap();
    is_refused(&scene, &["vnet0", "sets"], "ipset known");
}
