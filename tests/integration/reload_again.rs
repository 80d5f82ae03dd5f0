//! Tests a reload after a reload: nft does not run if nothing has changed a rule since, and it runs
//! after every change, by whichever program.

use std::collections::BTreeSet;
use std::fs;

use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{finish, have_root, text};

const RULES: &str = "<rule action='drop' direction='out'><arp opcode='1'/></rule>
    <rule action='drop' direction='in'><udp dstportstart='53'/></rule>";

/// A host with a filtered port and an active network.
struct Reloads {
    scene: PortScene,
}

impl Reloads {
    fn new() -> Self {
        let scene = PortScene::new(Some("nftables"));
        fs::write(scene.sandbox.path("config/network.conf"), "firewall_backend = \"nftables\"\n")
            .unwrap();
        let network = scene.sandbox.path("network.xml");
        let xml = "<network><name>n</name><bridge name='nlt0'/>\
                   <ip address='10.9.8.1' prefix='24'/></network>";
        fs::write(&network, xml).unwrap();
        scene.sandbox.good(&["network", "define", network.to_str().unwrap()]);
        scene.sandbox.good(&["network", "start", "n"]);
        scene.filter(RULES).unwrap();
        let log = scene.sandbox.path("runs").display().to_string();
        scene.sandbox.script("nft", &format!("echo \"$*\" >> {log}; exec /usr/sbin/nft \"$@\""));
        Reloads { scene }
    }

    /// Reloads, and returns how often nft changed rules.
    fn reload(&self) -> usize {
        let log = self.scene.sandbox.path("runs");
        fs::write(&log, "").unwrap();
        let mut command = self.scene.sandbox.netlaunch(&["firewall", "reload"]);
        let first = self.scene.sandbox.path("bin").display().to_string();
        command.env("PATH", format!("{first}:/usr/sbin:/usr/bin:/sbin:/bin"));
        let output = finish(command);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("the filter of the port vnet0 is there"), "{said}");
        let runs = fs::read_to_string(&log).unwrap();
        runs.lines().filter(|args| *args == "-f -").count()
    }

    /// Returns all tables in one order: a table that was made again is listed last.
    fn rules(&self) -> BTreeSet<String> {
        let rules = format!("\n{}", self.scene.ruleset().trim_end());
        rules.split("\ntable ").map(str::to_owned).collect()
    }

    /// Reloads until a reload changes nothing, which the second one does.
    fn calm(&self) -> BTreeSet<String> {
        assert!(self.reload() > 0);
        let rules = self.rules();
        assert_eq!(self.reload(), 0);
        assert_eq!(self.rules(), rules);
        rules
    }
}

#[test]
fn a_second_reload_runs_no_nft_and_one_after_a_change_does() {
    if !have_root("a_second_reload_runs_no_nft_and_one_after_a_change_does") {
        return;
    }
    let reloads = Reloads::new();
    let scene = &reloads.scene;
    let rules = reloads.calm();
    let index = scene.sh("cat /sys/class/net/vnet0/ifindex");
    let index = index.trim();
    // By another program: rules are gone, or only something else is there.
    for change in [
        format!("nft flush chain bridge netlaunch_nwfilter p{index}-from"),
        format!("nft add rule bridge netlaunch_nwfilter p{index}-from accept"),
        "nft delete table bridge netlaunch_nwfilter".to_owned(),
        "nft delete table netdev netlaunch_nwfilter".to_owned(),
        "nft flush ruleset".to_owned(),
        "nft add table inet other && nft delete table inet other".to_owned(),
    ] {
        scene.sh(&change);
        assert!(reloads.reload() > 0, "{change}");
        assert_eq!(reloads.rules(), rules, "{change}");
        assert_eq!(reloads.reload(), 0, "after {change}");
    }
    // The kernel removes the hook of an interface that leaves the namespace.
    let other = crate::common::Netns::bare();
    scene.sh(&format!(
        "ip link set vnet0 netns {other}; ip -n {other} link set vnet0 netns {own}; \
         ip link set vnet0 master br0 up",
        other = other.name,
        own = scene.netns.name
    ));
    if scene.sh("cat /sys/class/net/vnet0/ifindex").trim() == index {
        reloads.reload();
        assert_eq!(reloads.rules(), rules, "an interface that came back");
    }
}

#[test]
fn a_reload_after_a_command_of_netlaunch_sets_the_rules() {
    if !have_root("a_reload_after_a_command_of_netlaunch_sets_the_rules") {
        return;
    }
    let reloads = Reloads::new();
    let scene = &reloads.scene;
    let rules = reloads.calm();
    // A definition that is changed and changed back.
    for (number, is_same) in [(2, false), (1, true)] {
        scene.define("test", &RULES.replace("opcode='1'", &format!("opcode='{number}'"))).unwrap();
        assert_eq!(reloads.calm() == rules, is_same, "{number}");
    }
    let bind =
        ["bind", "vnet1", "clean-traffic", "--mac", "52:54:00:00:00:09", "-p", "IP=10.2.3.9"];
    done(scene.nwfilter(&bind)).unwrap();
    assert_ne!(reloads.calm(), rules);
    // A change removes the file, and so does a reload without ports.
    let file = scene.sandbox.path("state/nwfilter/bindings/.applied");
    assert!(file.exists());
    scene.unbind(Station::Vnet1);
    assert!(!file.exists());
    assert_eq!(reloads.calm(), rules);
    scene.settings("firewall_backend = \"nftables\"\nenable_counters = true\n");
    assert_ne!(reloads.calm(), rules);
    // A file that cannot be used counts as missing.
    for content in ["", "{\"version\": 2}", "[]"] {
        fs::write(&file, content).unwrap();
        reloads.calm();
    }
    scene.unbind(Station::Vnet0);
    scene.sandbox.good(&["firewall", "reload"]);
    assert!(!file.exists());
}
