//! `binding-create --wait`: that it ends, whatever becomes of the address, and says which it is.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::net::Ipv4Addr;
use std::time::Duration;

use common::dhcp_frame::{ACK, DhcpFrame, EVERYONE, REQUEST};
use common::frame::{Frame, PEER, VM};
use common::port_scene::{PortScene, Station};
use common::{Reaped, have_root, start, text, wait_until};
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

/// A command that waits for the address of vnet0's guest, once somebody learns it.
fn waiting(scene: &PortScene, parameters: &[(&str, &str)]) -> Reaped {
    let file = scene.binding(Station::Vnet0, "clean-traffic", parameters);
    let args = ["nwfilter", "binding-create", "--wait", &file];
    let waits = start(scene.sandbox.netlaunch(&args));
    let begun = || learning(scene)["pid"] != Value::Null;
    assert!(wait_until(LIMIT, begun), "{}", learning(scene));
    waits
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
