//! Tests networks of mode bridge: they run on a bridge that the host made, and no command on them
//! changes anything of the host.

use crate::common::network_host::NetworkHost;
use crate::common::schema::valid;
use crate::common::{have_root, text};
use serde_json::Value;

const LAB: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-0000000000b0</uuid>\
    <forward mode='bridge'/><bridge name='br0'/><portgroup name='fast' default='yes'/></network>";

/// The parts of the state of a host that exist only while the network is active.
fn active(host: &NetworkHost) -> String {
    format!("left: {:?}\n", host.file("")).replace("/\"", "\"")
}

/// The faults of the network, as `network list` has them.
fn faults(host: &NetworkHost) -> Vec<String> {
    let value: Value = serde_json::from_str(&host.good("network list --json")).unwrap();
    valid("networks", &value);
    let networks = value["networks"].as_array().unwrap();
    let lab = networks.iter().find(|network| network["name"] == "lab").unwrap();
    assert_eq!(lab["state"], "active");
    lab["faults"].as_array().unwrap().iter().map(|f| f.as_str().unwrap().to_owned()).collect()
}

/// The findings of `firewall check`: the kind and the commands of each.
fn findings(host: &NetworkHost) -> Vec<(String, String)> {
    let output = host.netlaunch("firewall check --json");
    let value: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    valid("firewall-check", &value);
    let findings = value["bridges"][0]["findings"].as_array().unwrap();
    let found = findings.iter().map(|finding| {
        (finding["kind"].as_str().unwrap().to_owned(), finding["commands"].to_string())
    });
    found.collect()
}

#[test]
fn a_network_on_a_bridge_of_the_host_changes_nothing_of_the_host() {
    if !have_root("a_network_on_a_bridge_of_the_host_changes_nothing_of_the_host") {
        return;
    }
    let host = NetworkHost::new(LAB);
    let before = host.state();
    let said = host.bad("network start lab", 125);
    let expected = "the network lab is on the host's own bridge br0, and the host has no interface \
                    of that name; make the bridge";
    assert!(said.contains(expected), "{said}");
    host.sh("ip link add br0 type veth peer name br0-peer");
    let said = host.bad("network start lab", 125);
    assert!(said.contains("br0, and that interface is no Linux bridge; make"), "{said}");
    host.sh("ip link delete br0");
    assert_eq!(host.state(), before);

    host.sh("ip link add br0 address 02:00:00:00:00:b0 type bridge; ip link set br0 up; \
             ip address add 203.0.113.9/24 dev br0");
    let before = host.state();
    host.good("network autostart lab");
    host.good("network autostart");
    assert_eq!(host.state(), before.clone() + &active(&host));
    assert_eq!(host.bad("network start lab", 2).matches("runs already").count(), 1);
    assert_eq!((faults(&host), findings(&host)), (vec![], vec![]));
    let launch = host.netlaunch("--network lab --print=json -- qemu-system-x86_64");
    let plan: Value = serde_json::from_slice(&launch.stdout).unwrap();
    assert!(plan.to_string().contains("br0"), "{plan:#}");
    host.good("firewall reload");
    assert_eq!(host.state(), before.clone() + &active(&host));
    host.good("network destroy lab");
    assert_eq!(host.state(), before);
}

#[test]
fn a_lost_bridge_of_the_host_is_a_fault_that_its_administrator_fixes() {
    if !have_root("a_lost_bridge_of_the_host_is_a_fault_that_its_administrator_fixes") {
        return;
    }
    let host = NetworkHost::new(LAB);
    host.sh("ip link add br0 type bridge; ip link set br0 up");
    host.good("network start lab");
    host.sh("ip link set br0 down");
    assert_eq!(faults(&host), ["bridge down"]);
    let up = r#"["ip","link","set","br0","up"]"#;
    assert_eq!(findings(&host), [("bridge down".to_owned(), format!("[{up}]"))]);
    host.sh("ip link set br0 up");
    assert_eq!(faults(&host), [""; 0]);

    host.sh("ip link delete br0");
    assert_eq!(faults(&host), ["bridge missing"]);
    let add = r#"["ip","link","add","br0","type","bridge"]"#;
    let reload = r#"["netlaunch","firewall","reload"]"#;
    assert_eq!(findings(&host), [("bridge missing".to_owned(), format!("[{add},{up},{reload}]"))]);
    let said = host.bad("firewall reload", 125);
    assert!(said.contains("the network lab is on the host's own bridge br0"), "{said}");
    let launch = host.netlaunch("--network lab --print -- qemu-system-x86_64");
    assert!(!launch.status.success(), "{}", text(&launch.stdout));
    host.sh("ip link add br0 type bridge; ip link set br0 up");
    host.good("firewall reload");
    assert_eq!(faults(&host), [""; 0]);
    host.sh("ip link delete br0");
    let without = host.state();
    host.good("network destroy lab");
    assert_eq!(host.state() + &active(&host), without);
}

#[test]
fn two_networks_cannot_be_on_one_bridge_of_the_host() {
    if !have_root("two_networks_cannot_be_on_one_bridge_of_the_host") {
        return;
    }
    let host = NetworkHost::new(LAB);
    let other = host.sandbox.path("other.xml");
    std::fs::write(
        &other,
        "<network><name>other</name><forward mode='bridge'/><bridge name='br0'/></network>",
    )
    .unwrap();
    let said = host.bad(&format!("network define {}", other.display()), 2);
    assert!(said.contains("1:52: the network lab has the bridge br0 already"), "{said}");
}
