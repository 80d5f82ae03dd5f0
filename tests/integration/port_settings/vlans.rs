//! VLANs of ports, on kernels that have bridges with VLANs. `vlan_debian_kernel` runs these tests
//! on Debian's kernel.

use super::launches::{Lab, lab};
use super::*;
use crate::common::bridges::end;
use crate::common::{finish, skipped};

/// Whether root runs the test, on a kernel that has bridges with VLANs.
fn have_vlans(test: &str) -> bool {
    if !have_root(test) {
        return false;
    }
    let has = Netns::filters_vlans();
    if !has {
        skipped(test, "this kernel has no bridges that filter VLANs");
    }
    has
}

/// Adds a VLAN interface to the guest's eth0.
fn tagged(guest: &Netns, vlan: u16, address: &str) {
    guest.ip(&format!("link add link eth0 name eth0.{vlan} type vlan id {vlan}"));
    guest.ip(&format!("link set eth0.{vlan} up"));
    guest.ip(&format!("address add {address}/24 dev eth0.{vlan}"));
}

#[test]
fn a_port_has_only_its_vlans() {
    if !have_vlans("a_port_has_only_its_vlans") {
        return;
    }
    let host = host();
    host.ip("link set br0 type bridge vlan_filtering 1");
    let access = guest(&host, "p1", "10.10.0.1");
    let trunk = guest(&host, "p2", "10.20.0.2");
    let without_native = guest(&host, "p3", "10.20.0.3");
    let with_tagged_native = guest(&host, "p4", "10.20.0.4");
    let default = guest(&host, "p5", "10.77.0.15");
    tagged(&trunk, 10, "10.10.0.2");
    tagged(&without_native, 10, "10.10.0.3");
    tagged(&without_native, 20, "10.30.0.3");
    tagged(&with_tagged_native, 20, "10.30.0.4");
    within(&host, async |links| {
        for (port, vlan) in [
            ("p1", "10"),
            ("p2", "trunk 10,20 native 20"),
            ("p3", "trunk 9-12"),
            ("p4", "trunk 10,20 native 20 tagged"),
        ] {
            links.set_vlans(&name(port), &name("br0"), &vlan.parse().unwrap()).await.unwrap();
        }
    });
    // Access port and tagged frames of a trunk.
    assert!(reaches(&access, &trunk, "10.10.0.2"));
    assert!(reaches(&trunk, &access, "10.10.0.1"));
    assert!(reaches(&access, &without_native, "10.10.0.3"));
    // A trunk without a native VLAN drops frames without a tag, and has no other VLAN.
    assert!(!reaches(&without_native, &trunk, "10.20.0.2"));
    assert!(!reaches(&without_native, &with_tagged_native, "10.30.0.4"));
    // The port p4 takes frames without a tag and gives them to the guest with one.
    let neighbour = "neigh replace 10.20.0.2 dev eth0 lladdr";
    let mac = trunk.says("cat", &["/sys/class/net/eth0/address"]);
    with_tagged_native.ip(&format!("{neighbour} {}", mac.trim()));
    assert!(reaches(&with_tagged_native, &trunk, "10.20.0.2"));
    let tagged_frames = || {
        let counter = "/sys/class/net/eth0.20/statistics/rx_packets";
        with_tagged_native.says("cat", &[counter]).trim().parse::<u64>().unwrap()
    };
    let before = tagged_frames();
    assert!(reaches(&trunk, &with_tagged_native, "10.20.0.4"));
    assert!(tagged_frames() > before);
    // No port is left in the bridge's own VLAN.
    access.ip("address add 10.77.0.11/24 dev eth0");
    assert!(reaches(&default, &host, "10.77.0.1"));
    assert!(!reaches(&access, &host, "10.77.0.1"));
}

/// A network whose guests are in the VLAN 42, or as their port group says.
const VLANS: &str = "<vlan><tag id='42'/></vlan>
    <portgroup name='trunk'>
      <port isolated='yes'/>
      <vlan trunk='yes'><tag id='10'/><tag id='11'/><tag id='42' nativeMode='untagged'/></vlan>
    </portgroup>";

#[test]
fn a_launch_on_a_network_has_the_vlans_of_its_group_also_after_a_reload() {
    let test = "a_launch_on_a_network_has_the_vlans_of_its_group_also_after_a_reload";
    if !have_vlans(test) {
        return;
    }
    let Lab { host, sandbox } = lab(VLANS);
    let vlans = |port: &str| {
        let listed = host.says("bridge", &["-j", "vlan", "show", "dev", port]);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let vlans = listed[0]["vlans"].as_array().unwrap().iter();
        let one = |vlan: &serde_json::Value| {
            let flags = vlan["flags"].as_array().map(|flags| format!("{flags:?}"));
            format!("{}{}", vlan["vlan"], flags.unwrap_or_default())
        };
        vlans.map(one).collect::<Vec<_>>().join(" ").replace("String", "")
    };
    assert_eq!(vlans("nl0"), r#"42[("PVID"), ("Egress Untagged")]"#);
    for (group, expected) in [
        ("lab", r#"42[("PVID"), ("Egress Untagged")]"#),
        ("lab:trunk", r#"10 11 42[("PVID"), ("Egress Untagged")]"#),
    ] {
        let (scene, tap) = super::launches::begin(&sandbox, &["--network", group]);
        assert_eq!(vlans(&tap), expected);
        host.ip(&format!("link set {tap} nomaster"));
        assert!(finish(sandbox.netlaunch(&["firewall", "reload"])).status.success());
        assert_eq!(vlans(&tap), expected, "after a reload");
        let link = host.says("ip", &["-d", "-o", "link", "show", "dev", &tap]);
        let isolated = if group == "lab" { " isolated off" } else { " isolated on" };
        assert!(link.contains("master nl0") && link.contains(isolated), "{link}");
        assert!(link.contains(",UP"), "{link}");
        // A bridge that another program has made mix the VLANs keeps them apart again.
        host.ip("link set nl0 type bridge vlan_filtering 0");
        let said = text(&finish(sandbox.netlaunch(&["firewall", "check"])).stdout);
        assert!(said.contains("no VLANs, and all guests are together"), "{said}");
        assert!(finish(sandbox.netlaunch(&["firewall", "reload"])).status.success());
        let bridge = host.says("ip", &["-d", "-o", "link", "show", "dev", "nl0"]);
        assert!(bridge.contains(" vlan_filtering 1 "), "{bridge}");
        end(scene);
    }
}
