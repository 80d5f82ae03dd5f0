//! Tests the index of the ports: a command that uses it decides as a command that reads all status
//! files.
//!
//! Two scenes go through the same events. In one of them the index is removed before each command.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::frame::{OTHER, PEER, VM, mac_text};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{finish, have_root, start, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
const RULE: &str = "<rule action='drop' direction='out'><all-ipv6/></rule>";
const OTHER_RULE: &str = "<rule action='drop' direction='out'><arp/></rule>";

/// A scene whose commands use the index, or find none.
struct Host {
    scene: PortScene,
    has_index: bool,
    /// A program that changes rules.
    tool: &'static str,
}

impl Host {
    fn new(backend: &str, has_index: bool) -> Self {
        let scene = PortScene::new(Some(backend));
        scene.define("one", RULE).unwrap();
        scene.define("two", OTHER_RULE).unwrap();
        let tool = if backend == "nftables" { "nft" } else { "ip6tables-restore" };
        Host { scene, has_index, tool }
    }

    fn state(&self, name: &str) -> std::path::PathBuf {
        self.scene.sandbox.path(&format!("state/nwfilter/{name}"))
    }

    fn file(&self, port: &str) -> std::path::PathBuf {
        self.state(&format!("bindings/{port}.json"))
    }

    /// Replaces a status file like an editor: the file is a new one.
    fn edit(&self, port: &str, edit: impl FnOnce(&mut Value)) {
        let mut status = serde_json::from_slice(&fs::read(self.file(port)).unwrap()).unwrap();
        edit(&mut status);
        let new = self.state("bindings/edited");
        fs::write(&new, serde_json::to_vec_pretty(&status).unwrap()).unwrap();
        fs::rename(new, self.file(port)).unwrap();
    }

    fn run(&self, args: &[&str]) -> Result<(), String> {
        if !self.has_index {
            let _ = fs::remove_file(self.state("ports.index"));
        }
        done(self.scene.nwfilter(args))
    }

    fn bind(&self, port: &str, filter: &str, mac: [u8; 6], more: &[&str]) -> Result<(), String> {
        let mac = mac_text(mac);
        self.run(&[&["bind", port, filter, "--mac", mac.as_str()], more].concat())
    }

    /// Kills netlaunch while it binds this port.
    fn is_killed_in_bind(&self, port: &str) {
        let (sandbox, tool) = (&self.scene.sandbox, self.tool);
        let runs = sandbox.path("run/runs");
        let script = sandbox.script(tool, &format!("touch {}; sleep 60", runs.display()));
        let mac = mac_text(VM.mac);
        let mut bind = sandbox.netlaunch(&["nwfilter", "bind", port, "one", "--mac", &mac]);
        bind.env("PATH", format!("{}:/usr/sbin:/usr/bin", sandbox.path("bin").display()));
        let bind = start(bind);
        assert!(wait_until(LIMIT, || runs.exists()), "no {tool} runs");
        drop(bind);
        fs::remove_file(script).unwrap();
        fs::remove_file(runs).unwrap();
    }

    /// Binds and unbinds peer0, and returns everything that the commands decided.
    fn decisions(&self) -> Vec<String> {
        let ip = format!("IP={}", PEER.v4);
        let mut decided = Vec::new();
        for args in [vec![], vec!["--replace"]] {
            let more = [args, vec!["-p", &ip]].concat();
            decided.push(format!("{:?}", self.bind("peer0", "clean-traffic", PEER.mac, &more)));
            decided.push(self.scene.ruleset());
            decided.push(self.scene.list().to_string());
        }
        decided.push(format!("{:?}", self.run(&["unbind", "peer0"])));
        decided.push(self.scene.ruleset());
        decided.push(self.scene.list().to_string());
        let files = fs::read_dir(self.state("bindings")).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        names.sort();
        decided.push(format!("{names:?}"));
        let root = self.scene.sandbox.path("");
        decided.iter().map(|decided| decided.replace(root.to_str().unwrap(), "/")).collect()
    }
}

fn rename(scene: &PortScene, from: &str, to: &str) {
    scene.netns.ip(&format!("link set {from} down"));
    scene.netns.ip(&format!("link set {from} name {to}"));
    scene.netns.ip(&format!("link set {to} up"));
}

type Event = (&'static str, fn(&Host));

const EVENTS: [Event; 14] = [
    ("bind", |host| {
        host.bind("vnet0", "one", VM.mac, &[]).unwrap();
        host.bind("vnet1", "two", OTHER.mac, &[]).unwrap();
    }),
    ("swap", |host| host.bind("vnet0", "two", VM.mac, &["--replace"]).unwrap()),
    ("redefinition", |host| host.scene.define("two", RULE).unwrap()),
    ("rename", |host| rename(&host.scene, "vnet1", "third")),
    ("rename back", |host| rename(&host.scene, "third", "vnet1")),
    ("reload", |host| {
        done(finish(host.scene.sandbox.netlaunch(&["firewall", "reload"]))).unwrap();
    }),
    ("an address comes into a file", |host| {
        host.edit("vnet0", |status| status["address"] = PEER.v4.to_string().into());
    }),
    ("the address goes", |host| host.edit("vnet0", |status| status["address"] = Value::Null)),
    ("a damaged file", |host| {
        fs::remove_file(host.file("vnet1")).unwrap();
        fs::write(host.file("vnet1"), "{").unwrap();
    }),
    ("the damaged file goes", |host| fs::remove_file(host.file("vnet1")).unwrap()),
    ("bind again", |host| host.bind("vnet1", "two", OTHER.mac, &[]).unwrap()),
    ("an interface goes and comes", |host| {
        host.scene.unplug(Station::Vnet1);
        host.scene.plug(Station::Vnet1);
    }),
    ("a killed bind", |host| host.is_killed_in_bind("vnet1")),
    ("unbind", |host| host.run(&["unbind", "vnet0"]).unwrap()),
];

fn commands_decide_alike(backend: &str) {
    let hosts = [true, false].map(|has_index| Host::new(backend, has_index));
    for (what, event) in EVENTS {
        for host in &hosts {
            event(host);
        }
        let [with, without] = hosts.each_ref().map(Host::decisions);
        assert_eq!(with, without, "{backend}: {what}");
        let is_refused = with[0].contains(&PEER.v4.to_string());
        assert_eq!(is_refused, what == "an address comes into a file", "{with:#?}");
    }
}

#[test]
fn nftables_commands_decide_alike_with_and_without_the_index() {
    if have_root("nftables_commands_decide_alike_with_and_without_the_index") {
        commands_decide_alike("nftables");
    }
}

#[test]
fn iptables_commands_decide_alike_with_and_without_the_index() {
    if have_root("iptables_commands_decide_alike_with_and_without_the_index") {
        commands_decide_alike("iptables");
    }
}

/// Returns the ports whose status files a command opened, by strace.
fn opened(host: &Host, args: &[&str]) -> Vec<String> {
    let trace = host.scene.sandbox.path("run/trace");
    let mut strace = host.scene.sandbox.program(Path::new("/usr/bin/strace"));
    strace.args(["-f", "-e", "trace=openat", "-o", trace.to_str().unwrap()]);
    strace.arg(host.scene.sandbox.path("bin/netlaunch")).arg("nwfilter").args(args);
    done(finish(strace)).unwrap();
    let text = fs::read_to_string(&trace).unwrap();
    let ports = ["vnet0", "vnet1", "peer0"];
    let is_open = |port: &&str| text.contains(&format!("\"{port}.json\", O_RDONLY"));
    ports.iter().filter(|port| is_open(port)).map(|port| (*port).to_owned()).collect()
}

#[test]
fn a_change_of_one_port_reads_the_status_files_of_no_other() {
    if !have_root("a_change_of_one_port_reads_the_status_files_of_no_other") {
        return;
    }
    let host = Host::new("nftables", true);
    host.bind("vnet0", "one", VM.mac, &[]).unwrap();
    host.bind("vnet1", "one", OTHER.mac, &[]).unwrap();
    let mac = mac_text(PEER.mac);
    for args in [
        vec!["bind", "peer0", "two", "--mac", &mac],
        vec!["bind", "peer0", "one", "--mac", &mac, "--replace"],
        vec!["unbind", "peer0"],
    ] {
        assert_eq!(opened(&host, &args), ["peer0"], "{args:?}");
    }
    // After a change by another program all of them are read once.
    fs::write(host.state("bindings/note"), "").unwrap();
    assert_eq!(
        opened(&host, &["bind", "peer0", "two", "--mac", &mac]),
        ["vnet0", "vnet1", "peer0"]
    );
    assert_eq!(opened(&host, &["unbind", "peer0"]), ["peer0"]);
    for port in ["vnet0", "vnet1"] {
        host.run(&["unbind", port]).unwrap();
    }
    assert!(!host.state("ports.index").exists(), "an index without ports");
}
