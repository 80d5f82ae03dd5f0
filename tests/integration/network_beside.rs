//! Tests launches and changes beside things that run already: another launch with the same MAC
//! address, a network without VLANs, and published ports that need many open files. QEMU runs with
//! a stopped processor.

use std::fs;
use std::process::{Command, Stdio};

use crate::common::bridges::{QEMU, end, host, taps, up, waiting};
use crate::common::network_host::NetworkHost;
use crate::common::{As, Sandbox, finish, have_root, text};

const LAB: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000074</uuid>\
    <bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:74'/>\
    <ip address='10.74.0.1' netmask='255.255.255.0'/></network>";

#[test]
fn a_launch_names_the_launch_that_has_its_mac_address() {
    if !have_root("a_launch_names_the_launch_that_has_its_mac_address") {
        return;
    }
    let host = host();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let mark = sandbox.path("").to_string_lossy().into_owned();
    let options = |mac| ["--bridge", "br0", "--mac", mac];
    let mac = "02:00:00:00:00:07";
    let first = [&options(mac)[..], &["--name", "first"]].concat();
    let (scene, _) = up(&sandbox, sandbox.netlaunch(&waiting(&first, &mark)));
    for (mac, warned) in [(mac, true), ("02:00:00:00:00:08", false)] {
        let args = [&options(mac)[..], &["--", QEMU, "-version"]].concat();
        let output = finish(sandbox.netlaunch(&args));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let warning = format!("the guest of the launch first has the MAC address {mac} on br0 too");
        assert_eq!(said.contains(&warning), warned, "{mac}: {said}");
    }
    end(scene);
}

/// Returns the command with these limits of open files.
fn limited(command: &Command, soft: u32, hard: u32) -> Command {
    let mut shell = Command::new("sh");
    let script = format!("ulimit -S -n {soft}; ulimit -H -n {hard}; exec \"$@\"");
    shell.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

#[test]
fn many_published_ports_raise_the_limit_of_netlaunch_and_not_that_of_qemu() {
    if !have_root("many_published_ports_raise_the_limit_of_netlaunch_and_not_that_of_qemu") {
        return;
    }
    let host = NetworkHost::new(LAB);
    host.good("network start lab");
    let mark = host.sandbox.path("").to_string_lossy().into_owned();
    let options = ["--network", "lab", "-p", "20000-20499:20000"];
    let args = waiting(&options, &mark);
    let output = finish(limited(&host.sandbox.netlaunch(&args), 256, 1024));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("open files, and at most 1024 are allowed: publish fewer"), "{said}");
    assert_eq!(taps(&host.netns), "");

    // A newer QEMU raises its own limit, so the script reads the one that it starts with.
    let limits = host.sandbox.path("limits");
    let script = format!("ulimit -S -n >> {}; exec {QEMU} \"$@\"", limits.display());
    let script = host.sandbox.script("qemu-system-x86_64", &script);
    let script = script.to_string_lossy();
    let mut args = args;
    for word in args.iter_mut().filter(|word| **word == QEMU) {
        *word = &script;
    }
    let (scene, shown) = up(&host.sandbox, limited(&host.sandbox.netlaunch(&args), 256, 4096));
    let limit = fs::read_to_string(format!("/proc/{}/limits", shown["pid"])).unwrap();
    let line = limit.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[3..5], ["4096", "4096"], "{line}");
    assert_eq!(fs::read_to_string(&limits).unwrap().lines().next_back(), Some("256"));
    end(scene);
    host.good("network destroy lab");
}

#[test]
fn a_running_network_without_vlans_gets_none_before_its_next_start() {
    if !have_root("a_running_network_without_vlans_gets_none_before_its_next_start") {
        return;
    }
    let host = NetworkHost::new(LAB);
    host.good("network start lab");
    let group = "<portgroup name='Trunk Core'><vlan><tag id='5'/></vlan></portgroup>";
    let update = |options: &[&str]| {
        let words = ["network", "update", "lab", "add", "portgroup", group];
        let output = finish(host.sandbox.netlaunch(&[&words[..], options].concat()));
        (output.status.code(), text(&output.stderr))
    };
    for options in [&[][..], &["--live"], &["--live", "--config"]] {
        let (code, said) = update(options);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("was started without VLANs") && said.contains("--config"), "{said}");
    }
    assert_eq!(update(&["--config", "--parent-index", "-1"]).0, Some(0));
    let document = host.sandbox.path("lab.xml");
    fs::write(&document, host.good("network dumpxml lab")).unwrap();
    let output = host.netlaunch(&format!("network define {}", document.display()));
    let said = text(&output.stderr);
    let waits = "wait for its next start: the port groups with a VLAN";
    assert!(output.status.success() && said.contains(waits), "{said}");
    let info = host.good("network info lab");
    assert!(info.contains("active, differs from the definition"), "{info}");
    assert!(!info.contains("Fault"), "{info}");
    host.good("network destroy lab");
}
