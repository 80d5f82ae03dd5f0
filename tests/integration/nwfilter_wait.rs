//! Tests `binding-create --wait`: it always ends, and reports the address or the reason why there
//! is none.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use crate::common::dhcp_frame::{ACK, DhcpFrame, EVERYONE, REQUEST};
use crate::common::frame::{Frame, PEER, VM};
use crate::common::nd_frame::NdFrame;
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{Reaped, finish, have_root, start, text, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// The time limit for an expected event.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes a scene, or returns `None` without root.
fn scene(test: &str) -> Option<PortScene> {
    have_root(test).then(|| PortScene::new(Some("nftables")))
}

/// Returns `learning` in the output of `binding-list` for the only port with a filter.
fn learning(scene: &PortScene) -> Value {
    let list = scene.list();
    list["bindings"].get(0).map_or(Value::Null, |binding| binding["learning"].clone())
}

/// Starts a command that waits for the address of vnet0's guest, and returns once the learner
/// process has taken over.
fn waiting(scene: &PortScene, parameters: &[(&str, &str)]) -> Reaped {
    let file = scene.binding(Station::Vnet0, "clean-traffic", parameters);
    let args = ["nwfilter", "binding-create", "--wait", &file];
    let waits = start(scene.sandbox.netlaunch(&args));
    let begun = || learning(scene)["pid"].as_i64().is_some_and(has_dropped_sys_admin);
    assert!(wait_until(LIMIT, begun), "{}", learning(scene));
    waits
}

/// Returns whether a process has dropped CAP_SYS_ADMIN, as the learner process does once it has
/// taken over.
fn has_dropped_sys_admin(pid: i64) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
    effective.is_some_and(|digits| u64::from_str_radix(digits, 16).unwrap() & 1 << 21 == 0)
}

/// Checks that the command succeeds and prints this address.
fn prints(waits: Reaped, address: Ipv4Addr) {
    let output = waits.output(LIMIT);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), format!("{address}\n"));
}

/// Checks that the command fails without an address, and returns its error of one line.
fn fails(waits: Reaped) -> String {
    let output = waits.output(LIMIT);
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn the_address_is_printed_once_its_rules_are_in_force() {
    let Some(scene) = scene("the_address_is_printed_once_its_rules_are_in_force") else { return };
    let mut waits = waiting(&scene, &[]);
    assert!(waits.0.try_wait().unwrap().is_none());
    scene.leaves(&Frame::arp(VM, PEER, 1));
    prints(waits, VM.v4);
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)), "the rules are in force");
}

#[test]
fn a_binding_with_an_address_does_not_wait() {
    let Some(scene) = scene("a_binding_with_an_address_does_not_wait") else { return };
    let file = scene.binding(Station::Vnet0, "clean-traffic", &[("IP", "10.2.3.4")]);
    let output = scene.nwfilter(&["binding-create", "--wait", &file]);
    assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output.stderr));
}

/// The address of a saved lease is in force from the start, although no frame gives it again.
#[test]
fn the_address_of_a_saved_lease_is_printed_without_waiting() {
    let Some(scene) = scene("the_address_of_a_saved_lease_is_printed_without_waiting") else {
        return;
    };
    let by_dhcp = [("CTRL_IP_LEARNING", "dhcp")];
    let waits = waiting(&scene, &by_dhcp);
    let asks = DhcpFrame { from: VM.mac, chaddr: VM.mac, ..DhcpFrame::asks(REQUEST) };
    let answers = DhcpFrame { to: EVERYONE, chaddr: VM.mac, ..DhcpFrame::answers(ACK, VM.v4) };
    scene.write(Station::Vnet0, &asks.bytes());
    scene.write(Station::Peer, &answers.bytes());
    prints(waits, VM.v4);
    scene.unbind(Station::Vnet0);
    prints(waiting(&scene, &by_dhcp), VM.v4);
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
    // The learner process still manages the lease.
    assert_eq!(learning(&scene)["address"], json!(VM.v4));
}

#[test]
fn the_wait_fails_if_the_port_or_its_filter_is_removed() {
    let Some(scene) = scene("the_wait_fails_if_the_port_or_its_filter_is_removed") else { return };
    let waits = waiting(&scene, &[]);
    scene.unbind(Station::Vnet0);
    let said = fails(waits);
    assert!(said.contains("the port vnet0 or its filter was removed before"), "{said}");
    let waits = waiting(&scene, &[]);
    scene.unplug(Station::Vnet0);
    let said = fails(waits);
    assert!(said.contains("the port vnet0 or its filter was removed before"), "{said}");
}

/// As on a full disk: the lease cannot be saved, so its rules are not set.
#[test]
fn the_wait_fails_if_the_lease_cannot_be_saved() {
    let Some(scene) = scene("the_wait_fails_if_the_lease_cannot_be_saved") else { return };
    let waits = waiting(&scene, &[]);
    let leases = scene.sandbox.path("state/nwfilter/leases");
    let _ = fs::remove_dir(&leases);
    fs::write(&leases, "").unwrap();
    scene.leaves(&Frame::arp(VM, PEER, 1));
    let said = fails(waits);
    for part in
        ["the port vnet0", "cannot write", "leases/vnet0.json", "permissions and free space"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
    fs::remove_file(&leases).unwrap();
    // The learner process tries again by itself.
    let in_force = || learning(&scene)["address"] == json!(VM.v4);
    assert!(wait_until(2 * LIMIT, in_force), "{}", learning(&scene));
}

#[test]
fn the_wait_fails_if_the_learner_process_is_killed() {
    let Some(scene) = scene("the_wait_fails_if_the_learner_process_is_killed") else { return };
    let waits = waiting(&scene, &[]);
    let pid = learning(&scene)["pid"].as_i64().unwrap();
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    let said = fails(waits);
    for part in ["the port vnet0", "was killed", "netlaunch firewall reload"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // The command that the error names starts the learner process again.
    done(finish(scene.sandbox.netlaunch(&["firewall", "reload"]))).unwrap();
    let again = || learning(&scene)["pid"] != Value::Null;
    assert!(wait_until(LIMIT, again), "{}", learning(&scene));
    scene.leaves(&Frame::arp(VM, PEER, 1));
    let in_force = || learning(&scene)["address"] == json!(VM.v4);
    assert!(wait_until(LIMIT, in_force), "{}", learning(&scene));
}

/// The learner goes on, and its IPv6 address is in force before the wait begins.
#[test]
fn a_replaced_binding_that_learns_ipv6_alone_prints_its_address() {
    let Some(scene) = scene("a_replaced_binding_that_learns_ipv6_alone_prints_its_address") else {
        return;
    };
    scene.bind(Station::Vnet0, "clean-traffic-v6", &[]).unwrap();
    assert!(scene.leaves_bytes(&NdFrame::test(VM.mac, VM.v6).bytes()));
    let learned = || learning(&scene)["addresses6"][0]["address"] == json!(VM.v6);
    assert!(wait_until(LIMIT, learned), "{}", learning(&scene));
    let args = ["nwfilter", "bind", "vnet0", "clean-traffic-v6", "--replace", "--wait"];
    let output = start(scene.sandbox.netlaunch(&args)).output(LIMIT);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), format!("{}\n", VM.v6));
}

/// Nothing of this can change when the port comes.
#[test]
fn a_bind_that_can_never_succeed_does_not_wait_for_its_port() {
    let Some(scene) = scene("a_bind_that_can_never_succeed_does_not_wait_for_its_port") else {
        return;
    };
    for (filter, parameter, words) in [
        ("nosuchfilter", "A=b", "nosuchfilter"),
        ("clean-traffic", "CTRL_IP_LEARNING=none", "IP"),
        ("clean-traffic", "IP=nonsense", "nonsense"),
        ("clean-traffic", "MAC=52:54:00:00:00:09", "the variable MAC is 52:54:00:00:00:09"),
    ] {
        let args = ["nwfilter", "bind", "late9", filter, "--wait", "-p", parameter];
        let args = [&args[..], &["--mac", "52:54:00:00:00:01"]].concat();
        let output = start(scene.sandbox.netlaunch(&args)).output(LIMIT);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(words) && !said.contains("waiting"), "{args:?}: {said}");
    }
    // An ordinary user cannot change ports.
    let mut command = scene.sandbox.program(Path::new("/usr/bin/setpriv"));
    command.args(["--reuid=12345", "--regid=12345", "--clear-groups"]);
    command.arg(scene.sandbox.path("bin/netlaunch"));
    command.args(["nwfilter", "bind", "late9", "clean-traffic", "--wait"]);
    let said = text(&start(command).output(LIMIT).stderr);
    assert!(said.contains("run as root") && !said.contains("waiting"), "{said}");
}
