//! Tests ports that learn an address after `binding-create`, from outside: the frames that pass
//! before and after, the learner process, the state that survives, and what is removed at the end.

mod learner_process;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::common::dhcp_frame::{DhcpFrame, OFFER, RELEASE, REQUEST};
use crate::common::frame::{BRIDGE, Frame, Host, OTHER, PEER, VM};
use crate::common::learning_scene::{
    LIMIT, NOBODY, SERVERS, STRANGER, acknowledgement, bind, is_in_force, is_not_deceived, learner,
    learning, learns, lease, on_both, run_netlaunch,
};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{USER, have_root, text, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Returns whether a process runs. A zombie does not run.
fn runs(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Checks that no rule, no process and no file of a port is left. `pid` is its learner process.
fn nothing_is_left(scene: &PortScene, before: &str, pid: Pid) {
    assert!(wait_until(LIMIT, || !runs(pid)), "the learner {pid} still runs");
    assert!(wait_until(LIMIT, || scene.ruleset() == before), "{}", scene.ruleset());
    for dir in ["bindings", "learners", "leases"] {
        let dir = scene.sandbox.path(&format!("state/nwfilter/{dir}"));
        let left = || -> Vec<_> {
            let entries = fs::read_dir(&dir).into_iter().flatten();
            let names = entries.map(|entry| entry.unwrap().file_name());
            names.filter(|name| name != ".lock").collect()
        };
        let none = || left().is_empty();
        assert!(wait_until(LIMIT, none), "{}: {:?}", dir.display(), left());
    }
}

/// Returns the rules of a scene after the tools have made the tables that they never remove.
fn before(scene: &PortScene) -> String {
    scene.foreign_rules();
    scene.ruleset()
}

#[test]
fn the_first_packet_gives_the_address_and_only_that_address_passes() {
    on_both("the test of learning by any packet", |scene| {
        let before = before(scene);
        bind(scene, "any");
        assert_eq!(learning(scene)["address"], Value::Null);
        let probe = Frame::arp(NOBODY, PEER, 1);
        assert!(scene.leaves(&probe), "a guest without an address may send a probe");
        assert!(scene.leaves(&Frame::udp(NOBODY, SERVERS, 68, 67)));
        for forbidden in [
            Frame::udp(VM, SERVERS, 68, 67),
            Frame::udp(VM, PEER, 68, 67),
            Frame::udp(STRANGER, PEER, 68, 67),
            Frame::udp(Host { v4: BRIDGE.v4, ..VM }, PEER, 68, 67),
            Frame::udp(VM, PEER, 1, 2).sent_by(OTHER.mac),
            Frame::udp(Host { v4: BRIDGE.v4, ..VM }, PEER, 1, 2),
            Frame::udp(Host { v4: Ipv4Addr::new(224, 0, 0, 5), ..VM }, PEER, 1, 2),
            Frame::udp6(VM, PEER, 1, 2),
        ] {
            assert!(!scene.leaves(&forbidden), "{forbidden:?}");
        }
        assert_eq!(learning(scene)["address"], Value::Null);
        // The frame may pass or not: the learner may see it before or after the rules judge it.
        scene.leaves(&Frame::arp(VM, PEER, 1));
        learns(scene, Some(VM.v4));
        is_in_force(scene);
        // Later packets do not change the address.
        for _ in 0..3 {
            is_not_deceived(scene);
        }
        assert_eq!(learning(scene)["address"], json!(VM.v4));
        let pid = learner(scene);
        scene.unbind(Station::Vnet0);
        nothing_is_left(scene, &before, pid);
    });
}

#[test]
fn an_address_from_dhcp_passes_until_its_lease_ends() {
    on_both("the test of learning by DHCP", |scene| {
        let parameters = [("CTRL_IP_LEARNING", "dhcp"), ("DHCPSERVER", "10.2.3.9")];
        scene.bind(Station::Vnet0, "clean-traffic", &parameters).unwrap();
        // Only DHCP gives an address, and only DHCP passes.
        is_not_deceived(scene);
        assert!(!scene.leaves(&Frame::arp(VM, PEER, 1)));
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
        assert!(scene.leaves(&Frame::udp(NOBODY, SERVERS, 68, 67)));
        assert!(
            !scene.leaves(&Frame::udp(VM, SERVERS, 68, 67)),
            "the guest may not have this address"
        );
        // An answer from another machine, and an answer without a request.
        let request = DhcpFrame { from: VM.mac, chaddr: VM.mac, ..DhcpFrame::asks(REQUEST) };
        scene.write(Station::Peer, &acknowledgement(STRANGER.v4, 3600, PEER).bytes());
        scene.write(Station::Vnet0, &request.bytes());
        scene.write(Station::Vnet1, &acknowledgement(STRANGER.v4, 3600, OTHER).bytes());
        // An offer gives no address.
        let mut offer = acknowledgement(STRANGER.v4, 3600, PEER);
        offer.options[2] = OFFER;
        scene.write(Station::Peer, &offer.bytes());
        lease(scene, VM.v4, 3);
        learns(scene, Some(VM.v4));
        is_in_force(scene);
        let until = learning(scene)["until"].as_u64().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!((now.as_secs()..now.as_secs() + 4).contains(&until), "{until}");
        // The lease ends.
        learns(scene, None);
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
        // The guest gets another address and releases it.
        lease(scene, STRANGER.v4, 3600);
        learns(scene, Some(STRANGER.v4));
        assert!(scene.leaves(&Frame::udp(STRANGER, PEER, 1, 2)));
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
        let release = DhcpFrame {
            from: VM.mac,
            chaddr: VM.mac,
            source: STRANGER.v4,
            ciaddr: STRANGER.v4,
            ..DhcpFrame::asks(RELEASE)
        };
        scene.write(Station::Vnet0, &release.bytes());
        learns(scene, None);
        assert!(!scene.leaves(&Frame::udp(STRANGER, PEER, 1, 2)));
    });
}

#[test]
fn a_lease_survives_its_learner_process() {
    on_both("the test of learners that are killed", |scene| {
        let before = before(scene);
        bind(scene, "dhcp");
        lease(scene, VM.v4, 3600);
        learns(scene, Some(VM.v4));
        let first = learner(scene);
        kill(first, Signal::SIGKILL).unwrap();
        assert!(wait_until(LIMIT, || learning(scene)["pid"] == Value::Null));
        is_in_force(scene);
        // Every command that makes a change starts a missing learner.
        scene.define("unrelated", "").unwrap();
        assert!(wait_until(LIMIT, || learning(scene)["pid"] != Value::Null));
        let second = learner(scene);
        assert_ne!(first, second);
        is_in_force(scene);
        // The new learner renews and replaces a lease that another one learned.
        done(run_netlaunch(scene, &["firewall", "reload"])).unwrap();
        is_in_force(scene);
        lease(scene, STRANGER.v4, 3600);
        learns(scene, Some(STRANGER.v4));
        // A new binding uses the saved lease. Without the file, the port learns from a packet
        // again.
        scene.unbind(Station::Vnet0);
        bind(scene, "dhcp");
        assert_eq!(learning(scene)["address"], json!(STRANGER.v4));
        assert!(scene.leaves(&Frame::udp(STRANGER, PEER, 1, 2)));
        scene.unbind(Station::Vnet0);
        fs::remove_file(scene.sandbox.path("state/nwfilter/leases/vnet0.json")).unwrap();
        bind(scene, "any");
        scene.leaves(&Frame::arp(VM, PEER, 1));
        learns(scene, Some(VM.v4));
        let third = learner(scene);
        scene.unbind(Station::Vnet0);
        nothing_is_left(scene, &before, third);
    });
}

#[test]
fn the_rules_and_the_learner_of_a_removed_port_are_removed() {
    on_both("the test of ports that go", |scene| {
        let before = before(scene);
        bind(scene, "any");
        scene.leaves(&Frame::arp(VM, PEER, 1));
        learns(scene, Some(VM.v4));
        let pid = learner(scene);
        scene.unplug(Station::Vnet0);
        nothing_is_left(scene, &before, pid);
        // A new interface of the same name has another guest.
        scene.plug(Station::Vnet0);
        bind(scene, "any");
        assert_eq!(learning(scene)["address"], Value::Null);
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
    });
}

#[test]
fn a_filter_can_change_before_and_after_the_address_is_learned() {
    on_both("the test of changes while learning", |scene| {
        let rules = |more: &str| {
            format!(
                "{more}<rule action='accept' direction='out'><ip srcipaddr='$IP'/></rule>\
                 <rule action='drop' direction='out'><mac/></rule>"
            )
        };
        scene.define("test", &rules("")).unwrap();
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        let no_telnet = rules(
            "<rule action='drop' direction='out' priority='1'><ip protocol='tcp' dstportstart='23'/></rule>",
        );
        scene.define("test", &no_telnet).unwrap();
        assert!(!scene.leaves(&Frame::tcp(VM, PEER, 1, 22, 2)), "the address is not known yet");
        learns(scene, Some(VM.v4));
        assert!(scene.leaves(&Frame::tcp(VM, PEER, 1, 22, 2)));
        assert!(!scene.leaves(&Frame::tcp(VM, PEER, 1, 23, 2)));
        // The filter also changes after the address is learned.
        scene.define("test", &rules("")).unwrap();
        assert!(scene.leaves(&Frame::tcp(VM, PEER, 1, 23, 2)));
        assert!(!scene.leaves(&Frame::tcp(STRANGER, PEER, 1, 23, 2)));
        // A definition is refused if it needs a value that netlaunch does not learn.
        let file = scene.sandbox.path("state/nwfilter/bindings/vnet0.json");
        let status = fs::read_to_string(&file).unwrap();
        let said = scene
            .define(
                "test",
                &rules("<rule action='drop' direction='out'><ip dstipaddr='$WHO'/></rule>"),
            )
            .unwrap_err();
        assert!(said.contains("the port vnet0: the filter test needs values for WHO"), "{said}");
        assert_eq!(fs::read_to_string(&file).unwrap(), status);
        assert!(scene.leaves(&Frame::tcp(VM, PEER, 1, 23, 2)));
        scene.unbind(Station::Vnet0);

        // A definition that needs the address is refused, too, if the port was bound without
        // learning.
        scene.define("test", "<rule action='drop' direction='out'><mac/></rule>").unwrap();
        scene.bind(Station::Vnet0, "test", &[]).unwrap();
        let said = scene.define("test", &rules("")).unwrap_err();
        assert!(said.contains("the port vnet0: the filter test needs values for IP"), "{said}");
        assert!(!scene.leaves(&Frame::tcp(VM, PEER, 1, 22, 2)));
    });
}

/// Makes a directory with failing firewall tools, and returns it with a file: each tool fails while
/// the file exists.
fn failing_tools(scene: &PortScene) -> (PathBuf, PathBuf) {
    let dir = scene.sandbox.path("failing");
    let switch = scene.sandbox.path("fail");
    fs::create_dir_all(&dir).unwrap();
    for tool in ["nft", "ebtables-restore", "iptables-restore", "ip6tables-restore"] {
        let script = format!(
            "#!/bin/sh\nif [ -e {} ]; then echo broken on purpose >&2; exit 1; fi\nexec /usr/sbin/{tool} \"$@\"\n",
            switch.display()
        );
        let file = dir.join(tool);
        fs::write(&file, script).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    (dir, switch)
}

fn is_up(scene: &PortScene, port: &str) -> bool {
    scene.netns.says("ip", &["-o", "link", "show", "dev", port]).contains(",UP")
}

#[test]
fn a_port_whose_rules_cannot_be_set_is_turned_off() {
    on_both("the test of rules that cannot be set", |scene| {
        let before = before(scene);
        let (tools, switch) = failing_tools(scene);
        let file = scene.binding(Station::Vnet0, "clean-traffic", &[]);
        let create = || done(scene.nwfilter_with_path(&tools, &["binding-create", &file]));
        // The learning rules cannot be set.
        fs::write(&switch, "").unwrap();
        let said = create().unwrap_err();
        assert!(
            said.contains("broken on purpose") && said.contains("vnet0 was turned off"),
            "{said}"
        );
        assert!(!is_up(scene, "vnet0"));
        assert_eq!(scene.ruleset(), before);
        assert!(learning(scene)["error"].to_string().contains("broken on purpose"));
        scene.unbind(Station::Vnet0);
        assert!(is_up(scene, "vnet0"), "the port is up after the unbind");
        create().unwrap_err();
        assert!(!is_up(scene, "vnet0"));
        fs::remove_file(&switch).unwrap();
        done(run_netlaunch(scene, &["firewall", "reload"])).unwrap();
        assert!(is_up(scene, "vnet0"), "the port is up with its rules");
        scene.unbind(Station::Vnet0);
        // The rules with the address cannot be set.
        create().unwrap();
        fs::write(&switch, "").unwrap();
        scene.leaves(&Frame::arp(VM, PEER, 1));
        assert!(wait_until(LIMIT, || learning(scene)["error"] != Value::Null));
        let error = learning(scene)["error"].to_string();
        assert!(error.contains("broken on purpose") && error.contains("turned off"), "{error}");
        assert!(!is_up(scene, "vnet0"));
        let shown = text(&scene.nwfilter(&["binding-list"]).stdout);
        assert!(shown.contains("failed, off"), "{shown}");
        // The tools work again.
        fs::remove_file(&switch).unwrap();
        done(run_netlaunch(scene, &["firewall", "reload"])).unwrap();
        assert!(is_up(scene, "vnet0"));
        assert_eq!(learning(scene)["error"], Value::Null);
        learns(scene, Some(VM.v4));
        is_in_force(scene);
    });
}

/// A state directory may be relative to the command's working directory. The learner process still
/// finds it.
#[test]
fn a_state_directory_may_be_relative() {
    if !have_root("a_state_directory_may_be_relative") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let file = scene.binding(Station::Vnet0, "clean-traffic", &[]);
    let state = scene.sandbox.state();
    let mut command = scene.sandbox.netlaunch(&["nwfilter", "binding-create", &file]);
    command.current_dir(state.parent().unwrap());
    command.env("NETLAUNCH_STATE_DIR", state.file_name().unwrap());
    done(crate::common::finish(command)).unwrap();
    assert!(runs(learner(&scene)));
    scene.leaves(&Frame::arp(VM, PEER, 1));
    learns(&scene, Some(VM.v4));
}
