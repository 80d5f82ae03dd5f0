//! The settings of the ports of launches, from port groups and from options. QEMU runs with a
//! stopped processor.

use super::*;
use crate::common::bridges::{end, refused, up, waiting};
use crate::common::scene::{Scene, alive, launch, pid_of};
use crate::common::schema::valid;
use crate::common::{AT_MOST, As, Sandbox, finish};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A host with the active network lab, whose bridge is nl0.
pub(super) struct Lab {
    pub(super) host: Netns,
    pub(super) sandbox: Sandbox,
}

/// Defines and starts the network; `inside` are its elements besides name and bridge.
pub(super) fn lab(inside: &str) -> Lab {
    lab_of(Netns::bare(), inside)
}

fn lab_of(host: Netns, inside: &str) -> Lab {
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let file = sandbox.path("lab.xml");
    let xml = format!("<network><name>lab</name><bridge name='nl0'/>{inside}</network>");
    std::fs::write(&file, xml).unwrap();
    for args in [["network", "define", file.to_str().unwrap()], ["network", "start", "lab"]] {
        let output = finish(sandbox.netlaunch(&args));
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    }
    Lab { host, sandbox }
}

/// Starts a launch. Returns it with the name of its tap.
pub(super) fn begin(sandbox: &Sandbox, options: &[&str]) -> (Scene, String) {
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let (scene, shown) = up(sandbox, sandbox.netlaunch(&waiting(options, &mark)));
    valid("ps", &serde_json::json!({ "version": 1, "launches": [shown] }));
    let tap = shown["bridge"]["tap"].as_str().unwrap().to_owned();
    (scene, tap)
}

/// The class of the frames that leave a device, as tc lists it.
fn class(host: &Netns, device: &str) -> String {
    host.says("tc", &["class", "show", "dev", device])
}

fn ifbs(host: &Netns) -> usize {
    host.says("ip", &["-o", "link", "show", "type", "ifb"]).lines().count()
}

const GROUPS: &str = "<bandwidth><inbound average='5000'/><outbound average='6000'/></bandwidth>
    <portgroup name='apart' default='yes'>
      <port isolated='yes'/>
      <bandwidth><inbound average='1000' peak='2000' burst='512'/>
        <outbound average='300'/></bandwidth>
    </portgroup>
    <portgroup name='open'/>";

#[test]
fn a_port_group_sets_the_port_of_a_launch_and_a_reload_puts_it_back() {
    if !have_root("a_port_group_sets_the_port_of_a_launch_and_a_reload_puts_it_back") {
        return;
    }
    let Lab { host, sandbox } = lab(GROUPS);
    // The network's own limits are on the bridge, 5000 KiB/s being 40.96 Mbit/s.
    assert!(class(&host, "nl0").contains(" rate 40960Kbit "), "{}", class(&host, "nl0"));
    assert_eq!(ifbs(&host), 1);
    let link = |tap: &str| host.says("ip", &["-d", "-o", "link", "show", "dev", tap]);
    for (network, is_apart) in [("lab", true), ("lab:apart", true), ("lab:open", false)] {
        let (scene, tap) = begin(&sandbox, &["--network", network]);
        let isolated = if is_apart { " isolated on" } else { " isolated off" };
        assert!(link(&tap).contains(isolated), "{}", link(&tap));
        let limits = class(&host, &tap);
        let expected = " rate 8192Kbit ceil 16384Kbit burst 512Kb ";
        assert_eq!(limits.contains(expected), is_apart, "{network}: {limits}");
        assert_eq!(ifbs(&host), if is_apart { 2 } else { 1 });
        let shown = launch(&sandbox)["bridge"].clone();
        assert_eq!(shown["isolated"], is_apart);
        let rate = serde_json::json!({ "average": 300, "peak": null, "burst": null });
        let rate = if is_apart { rate } else { serde_json::Value::Null };
        assert_eq!(shown["bandwidth"]["outbound"], rate);

        host.ip(&format!("link set {tap} nomaster"));
        assert!(finish(sandbox.netlaunch(&["firewall", "reload"])).status.success());
        let put_back = link(&tap);
        for word in ["master nl0", isolated, ",UP"] {
            assert!(put_back.contains(word), "{word}: {put_back}");
        }
        end(scene);
        assert_eq!(ifbs(&host), 1, "the launch leaves none");
    }
    assert!(finish(sandbox.netlaunch(&["network", "destroy", "lab"])).status.success());
    assert_eq!(ifbs(&host), 0);
}

#[test]
fn an_unknown_port_group_is_refused_with_those_there() {
    if !have_root("an_unknown_port_group_is_refused_with_those_there") {
        return;
    }
    let Lab { host: _host, sandbox } = lab(GROUPS);
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let launch = sandbox.netlaunch(&waiting(&["--network", "lab:blue"], &mark));
    let expected = "the network lab has no port group blue; it has apart, open";
    let (code, said) = refused(launch);
    assert!(said.contains(expected), "{said}");
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn the_bandwidth_of_a_launch_replaces_that_of_its_group() {
    if !have_root("the_bandwidth_of_a_launch_replaces_that_of_its_group") {
        return;
    }
    let Lab { host, sandbox } = lab(GROUPS);
    let limits = ["--network", "lab", "--bandwidth", "outbound=700"];
    let (scene, tap) = begin(&sandbox, &limits);
    assert_eq!(class(&host, &tap), "");
    let index = host.says("cat", &[&format!("/sys/class/net/{tap}/ifindex")]);
    let ifb = format!("nlout{}", index.trim());
    assert!(class(&host, &ifb).contains(" rate 5734Kbit "), "{}", class(&host, &ifb));
    let nic = "network=lab:open,bandwidth=inbound=10,,outbound=20";
    let print = [&["--net", nic, "--print=json"][..], &["--", "qemu-system-x86_64"]].concat();
    let output = finish(sandbox.netlaunch(&print));
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    valid("plan", &plan);
    assert_eq!(plan["bridge"]["bandwidth"]["outbound"]["average"], 20);
    assert_eq!(plan["bridge"]["isolated"], false);
    end(scene);
}

#[test]
fn a_killed_launch_leaves_a_device_that_the_next_one_removes() {
    if !have_root("a_killed_launch_leaves_a_device_that_the_next_one_removes") {
        return;
    }
    let Lab { host, sandbox } = lab("");
    let limits = ["--network", "lab", "--bandwidth", "outbound=700"];
    let (mut scene, _) = begin(&sandbox, &limits);
    let qemu = pid_of(&launch(&sandbox), "qemu");
    kill(Pid::from_raw(scene.pid()), Signal::SIGKILL).unwrap();
    scene.end();
    assert!(wait_until(AT_MOST, || !alive(qemu)));
    let tap = || host.says("ip", &["-o", "link", "show", "type", "tun"]);
    assert!(wait_until(AT_MOST, || tap().is_empty()));
    assert_eq!(ifbs(&host), 1);
    let (scene, _) = begin(&sandbox, &["--network", "lab"]);
    assert_eq!(ifbs(&host), 0);
    end(scene);
}

#[test]
fn a_network_on_a_bridge_of_the_host_has_port_groups_too() {
    if !have_root("a_network_on_a_bridge_of_the_host_has_port_groups_too") {
        return;
    }
    let host = Netns::bare();
    host.ip("link add nl0 type bridge");
    host.ip("link set nl0 up");
    let groups = "<forward mode='bridge'/>
        <portgroup name='apart' default='yes'><port isolated='yes'/>
          <bandwidth><outbound average='300'/></bandwidth></portgroup>
        <portgroup name='office'><vlan><tag id='42'/></vlan>
          <bandwidth><outbound average='300'/></bandwidth></portgroup>";
    let Lab { host, sandbox } = lab_of(host, groups);
    assert_eq!(class(&host, "nl0"), "");
    let (scene, tap) = begin(&sandbox, &["--network", "lab"]);
    let link = host.says("ip", &["-d", "-o", "link", "show", "dev", &tap]);
    assert!(link.contains(" isolated on"), "{link}");
    assert_eq!(ifbs(&host), 1);
    end(scene);
    // A bridge that does not filter VLANs is refused with the fix, and nothing is left.
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let launch = waiting(&["--network", "lab:office"], &mark);
    let (code, said) = refused(sandbox.netlaunch(&launch));
    assert_eq!(code, Some(125), "{said}");
    assert!(said.contains("'ip link set nl0 type bridge vlan_filtering 1'"), "{said}");
    assert_eq!(host.says("ip", &["-o", "link", "show", "type", "tun"]), "");
    assert_eq!(ifbs(&host), 0);
}
