//! Tests `network autostart`: all networks start together, with one transaction for their rules.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use serde_json::Value;

use crate::common::{As, Netns, Sandbox, finish, have_root, text};

const COUNT: u8 = 4;

/// A host with some networks that start with it.
struct Host {
    // Dropped first, since what it ends lives in the namespace.
    sandbox: Sandbox,
    netns: Netns,
}

impl Host {
    fn new(backend: &str) -> Self {
        let netns = Netns::routed();
        let host = Host { sandbox: Sandbox::new(As::Root, Some(&netns)), netns };
        let config = host.sandbox.path("config");
        fs::create_dir_all(config.join("networks")).unwrap();
        fs::set_permissions(host.sandbox.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        let setting = format!("firewall_backend = \"{backend}\"\n");
        fs::write(config.join("network.conf"), setting).unwrap();
        for number in 1..=COUNT {
            host.define(number, &format!("10.98.{number}.1"));
        }
        host
    }

    fn define(&self, number: u8, address: &str) {
        let xml = format!(
            "<network><name>boot{number}</name>\
             <uuid>0f8dd1a4-5d5c-4f6a-9d2e-0000000003{number:02}</uuid><forward mode='nat'/>\
             <bridge name='nlb{number}' delay='0'/><mac address='52:54:00:00:03:{number:02}'/>\
             <ip address='{address}' netmask='255.255.255.0'><dhcp>\
             <range start='{address}00' end='{address}50'/></dhcp></ip></network>"
        );
        let file = self.sandbox.path(&format!("config/networks/boot{number}.xml"));
        fs::write(file, xml).unwrap();
        self.sandbox.good(&["network", "autostart", &format!("boot{number}")]);
    }

    /// Puts a counter before a tool.
    fn count(&self, tool: &str) {
        let log = self.sandbox.path("run/ran");
        let body = format!("echo {tool} >> {}; exec /usr/sbin/{tool} \"$@\"", log.display());
        self.sandbox.script(tool, &body);
    }

    /// Starts the networks; returns the exit status, the messages, and the tools that ran.
    fn autostart(&self) -> (i32, String, Vec<String>) {
        let log = self.sandbox.path("run/ran");
        fs::write(&log, "").unwrap();
        fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
        let mut command = self.sandbox.netlaunch(&["-v", "network", "autostart"]);
        let bin = self.sandbox.path("bin");
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
        let output = finish(command);
        let ran = fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
        (output.status.code().unwrap(), text(&output.stderr), ran)
    }

    /// Returns the names of the active networks, and those of the networks that have lost a part.
    fn active(&self) -> (Vec<String>, Vec<String>) {
        let list = self.sandbox.good(&["network", "list", "--json"]);
        let list: Value = serde_json::from_str(&list).unwrap();
        let all = list["networks"].as_array().unwrap();
        let named = |wanted: &dyn Fn(&Value) -> bool| {
            let wanted = all.iter().filter(|one| wanted(one));
            wanted.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
        };
        let is_active = |one: &Value| one["state"] == "active";
        (
            named(&is_active),
            named(&|one| one["faults"].as_array().is_some_and(|all| !all.is_empty())),
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for number in 1..=COUNT {
            let name = format!("boot{number}");
            let _ = finish(self.sandbox.netlaunch(&["network", "destroy", &name]));
        }
    }
}

#[test]
fn all_networks_start_with_one_run_of_the_firewall_tool() {
    if !have_root("all_networks_start_with_one_run_of_the_firewall_tool") {
        return;
    }
    let host = Host::new("nftables");
    ["nft", "dnsmasq"].iter().for_each(|tool| host.count(tool));
    let (status, said, ran) = host.autostart();
    assert_eq!(status, 0, "{said}");
    let count = |tool: &str| ran.iter().filter(|one| *one == tool).count();
    assert_eq!((count("nft"), count("dnsmasq")), (1, usize::from(COUNT)), "{ran:?}");
    let names: Vec<String> = (1..=COUNT).map(|number| format!("boot{number}")).collect();
    assert_eq!(host.active(), (names, Vec::new()));
    // A second call finds all of them running.
    let (status, said, ran) = host.autostart();
    assert_eq!((status, ran.len()), (0, 0), "{said}");
}

#[test]
fn a_network_that_cannot_start_keeps_no_other_from_starting() {
    if !have_root("a_network_that_cannot_start_keeps_no_other_from_starting") {
        return;
    }
    for backend in ["nftables", "iptables"] {
        let host = Host::new(backend);
        // The first network changes the kernel settings and fails at its last step: its dnsmasq
        // finds the port for DHCP in use. The second one has the subnet of an interface of the
        // host.
        host.netns.ip("link add name other type veth peer name more");
        host.netns.ip("addr add 10.98.2.77/24 dev other");
        let fail = "case \"$*\" in *boot1*) echo 'dnsmasq: broken' >&2; exit 2;; esac\n\
                    exec /usr/sbin/dnsmasq \"$@\"";
        host.sandbox.script("dnsmasq", fail);
        let (status, said, _) = host.autostart();
        assert_eq!(status, 125, "{said}");
        let errors: Vec<&str> = said.lines().filter(|line| line.contains("error:")).collect();
        assert_eq!(errors.len(), 2, "{said}");
        assert!(said.contains("broken") && said.contains("10.98.2.0/24"), "{said}");
        let running: Vec<String> = (3..=COUNT).map(|number| format!("boot{number}")).collect();
        assert_eq!(host.active(), (running, Vec::new()), "{backend}");
        let forwards = host.netns.inside(|| fs::read_to_string("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(forwards.unwrap().trim(), "1", "the setting of the failed network is kept");
        let links = crate::common::run("ip", &["-n", &host.netns.name, "link", "show", "nlb1"]);
        assert!(!links.status.success(), "the bridge of the failed network is left");
    }
}

#[test]
fn forwarding_is_turned_off_after_a_killed_start_of_several_networks() {
    if !have_root("forwarding_is_turned_off_after_a_killed_start_of_several_networks") {
        return;
    }
    let host = Host::new("nftables");
    let file = "/proc/sys/net/ipv4/ip_forward";
    let forwards = || host.netns.inside(|| fs::read_to_string(file)).unwrap().trim().to_owned();
    host.netns.inside(|| fs::write(file, "0")).unwrap();
    // The first network has the record of the setting, and all bridges are up with addresses.
    // The tool's parent is the process between netlaunch and the tool.
    host.sandbox.script("nft", "kill -KILL $(ps -o ppid= -p $PPID); exit 1");
    let mut command = host.sandbox.netlaunch(&["network", "autostart"]);
    let bin = host.sandbox.path("bin");
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
    let output = finish(command);
    assert_eq!(output.status.signal(), Some(9), "{}", text(&output.stderr));
    assert_eq!(forwards(), "1");
    let output = finish(host.sandbox.netlaunch(&["firewall", "reload"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("forwarding stays on"), "{}", text(&output.stderr));
    assert_eq!(forwards(), "0");
}
