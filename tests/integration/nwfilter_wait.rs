//! `binding-create --wait`: that it ends, whatever becomes of the address, and says which it is.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use common::dhcp_frame::{ACK, DhcpFrame, EVERYONE, REQUEST};
use common::frame::{Frame, PEER, VM};
use common::port_scene::{PortScene, Station, done};
use common::{Reaped, finish, have_root, start, text, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// What has to come comes within this.
const LIMIT: Duration = Duration::from_secs(20);

/// A scene, where there is root.
fn scene(test: &str) -> Option<PortScene> {
    have_root(test).then(|| PortScene::new(Some("nftables")))
}

/// What `binding-list` says of the learning of the only port with a filter.
fn learning(scene: &PortScene) -> Value {
    let list = scene.list();
    list["bindings"].get(0).map_or(Value::Null, |binding| binding["learning"].clone())
}

/// A command that waits for the address of vnet0's guest, once another process has taken over and
/// learns it.
fn waiting(scene: &PortScene, parameters: &[(&str, &str)]) -> Reaped {
    let file = scene.binding(Station::Vnet0, "clean-traffic", parameters);
    let args = ["nwfilter", "binding-create", "--wait", &file];
    let waits = start(scene.sandbox.netlaunch(&args));
    let begun = || learning(scene)["pid"].as_i64().is_some_and(has_given_up);
    assert!(wait_until(LIMIT, begun), "{}", learning(scene));
    waits
}

/// Whether a process is without CAP_SYS_ADMIN, as who learns is from when it has taken over.
fn has_given_up(pid: i64) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
    effective.is_some_and(|digits| u64::from_str_radix(digits, 16).unwrap() & 1 << 21 == 0)
}

/// That it has ended with this address.
fn prints(waits: Reaped, address: Ipv4Addr) {
    let output = waits.output(LIMIT);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), format!("{address}\n"));
}

/// The one line that it has ended with in place of an address.
fn complains(waits: Reaped) -> String {
    let output = waits.output(LIMIT);
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn it_prints_the_address_once_that_is_in_force() {
    let Some(scene) = scene("it_prints_the_address_once_that_is_in_force") else { return };
    let mut waits = waiting(&scene, &[]);
    assert!(waits.0.try_wait().unwrap().is_none());
    scene.leaves(&Frame::arp(VM, PEER, 1));
    prints(waits, VM.v4);
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)), "the rules are there, too");
}

#[test]
fn nothing_to_wait_for() {
    let Some(scene) = scene("nothing_to_wait_for") else { return };
    let file = scene.binding(Station::Vnet0, "clean-traffic", &[("IP", "10.2.3.4")]);
    let output = scene.nwfilter(&["binding-create", "--wait", &file]);
    assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output.stderr));
}

/// What a server gave an earlier binding is in force from the start, and nobody teaches it again.
#[test]
fn an_address_that_was_kept_is_not_waited_for() {
    let Some(scene) = scene("an_address_that_was_kept_is_not_waited_for") else { return };
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
    // It is still somebody's to renew.
    assert_eq!(learning(&scene)["address"], json!(VM.v4));
}

#[test]
fn a_port_or_a_filter_that_goes() {
    let Some(scene) = scene("a_port_or_a_filter_that_goes") else { return };
    let waits = waiting(&scene, &[]);
    scene.unbind(Station::Vnet0);
    let said = complains(waits);
    assert!(said.contains("the port vnet0 is gone, or its filter"), "{said}");
    let waits = waiting(&scene, &[]);
    scene.unplug(Station::Vnet0);
    let said = complains(waits);
    assert!(said.contains("the port vnet0 is gone, or its filter"), "{said}");
}

/// As on a full disk: what was learnt cannot be written down, and so is not in force.
#[test]
fn an_address_that_cannot_be_kept() {
    let Some(scene) = scene("an_address_that_cannot_be_kept") else { return };
    let waits = waiting(&scene, &[]);
    let leases = scene.sandbox.path("state/nwfilter/leases");
    let _ = fs::remove_dir(&leases);
    fs::write(&leases, "").unwrap();
    scene.leaves(&Frame::arp(VM, PEER, 1));
    let said = complains(waits);
    for part in
        ["the port vnet0", "cannot write", "leases/vnet0.json", "permissions and free space"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
    fs::remove_file(&leases).unwrap();
    // It goes on by itself.
    let in_force = || learning(&scene)["address"] == json!(VM.v4);
    assert!(wait_until(2 * LIMIT, in_force), "{}", learning(&scene));
}

#[test]
fn a_process_that_is_killed() {
    let Some(scene) = scene("a_process_that_is_killed") else { return };
    let waits = waiting(&scene, &[]);
    let pid = learning(&scene)["pid"].as_i64().unwrap();
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    let said = complains(waits);
    for part in ["the port vnet0", "was killed", "netlaunch firewall reload"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // What it names mends it.
    done(finish(scene.sandbox.netlaunch(&["firewall", "reload"]))).unwrap();
    let again = || learning(&scene)["pid"] != Value::Null;
    assert!(wait_until(LIMIT, again), "{}", learning(&scene));
    scene.leaves(&Frame::arp(VM, PEER, 1));
    let in_force = || learning(&scene)["address"] == json!(VM.v4);
    assert!(wait_until(LIMIT, in_force), "{}", learning(&scene));
}
