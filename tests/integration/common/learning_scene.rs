//! A port bound by hand whose guest's address is learned: what the guest and servers say, what is
//! known of it, and what must hold.

use std::net::Ipv4Addr;
use std::time::Duration;

use nix::unistd::Pid;
use serde_json::{Value, json};

use super::dhcp_frame::{ACK, DhcpFrame, EVERYONE, REQUEST};
use super::frame::{BRIDGE, Frame, Host, OTHER, PEER, VM};
use super::port_scene::{PortScene, Station};
use super::{finish, have_root, wait_until};

/// The limit for each expected event.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Another address than the guest's.
pub const STRANGER: Host = Host { v4: Ipv4Addr::new(10, 2, 3, 200), ..VM };
/// The guest while it has none.
pub const NOBODY: Host = Host { v4: Ipv4Addr::UNSPECIFIED, ..VM };
/// The server that it asks for a lease.
pub const SERVERS: Host = Host { mac: EVERYONE, v4: Ipv4Addr::BROADCAST, ..PEER };

/// Runs a test on each backend.
pub fn on_both(name: &str, test: impl Fn(&PortScene)) {
    if !have_root(name) {
        return;
    }
    for backend in ["nftables", "iptables"] {
        println!("{backend}");
        test(&PortScene::new(Some(backend)));
    }
}

/// Returns the learning of vnet0 in `binding-list`.
pub fn learning(scene: &PortScene) -> Value {
    let list = scene.list();
    let bindings = list["bindings"].as_array().unwrap();
    let found = bindings.iter().find(|binding| binding["port"] == "vnet0");
    found.map_or(Value::Null, |binding| binding["learning"].clone())
}

pub fn learns(scene: &PortScene, address: Option<Ipv4Addr>) {
    let expected = address.map_or(Value::Null, |address| json!(address));
    let learned = || learning(scene)["address"] == expected;
    assert!(wait_until(LIMIT, learned), "{address:?}: {}", learning(scene));
}

pub fn learner(scene: &PortScene) -> Pid {
    let pid = learning(scene)["pid"].as_i64().unwrap_or_else(|| panic!("{}", learning(scene)));
    Pid::from_raw(pid as i32)
}

pub fn bind(scene: &PortScene, method: &str) {
    scene.bind(Station::Vnet0, "clean-traffic", &[("CTRL_IP_LEARNING", method)]).unwrap();
}

/// The guest asks for an address, and a server behind peer0 gives it for this long.
pub fn lease(scene: &PortScene, address: Ipv4Addr, seconds: u32) {
    let request = DhcpFrame { from: VM.mac, chaddr: VM.mac, ..DhcpFrame::asks(REQUEST) };
    scene.write(Station::Vnet0, &request.bytes());
    scene.write(Station::Peer, &acknowledgement(address, seconds, PEER).bytes());
}

pub fn acknowledgement(address: Ipv4Addr, seconds: u32, server: Host) -> DhcpFrame {
    let answer = DhcpFrame {
        to: EVERYONE,
        from: server.mac,
        source: server.v4,
        chaddr: VM.mac,
        ..DhcpFrame::answers(ACK, address)
    };
    let time = [&[51, 4][..], &seconds.to_be_bytes()].concat();
    answer.options(&[&[53, 1, ACK], &[54, 4], &server.v4.octets(), &time])
}

/// Checks that the frames that the guest may send with its address come out, and no others.
pub fn is_in_force(scene: &PortScene) {
    assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
    assert!(scene.leaves(&Frame::arp(VM, PEER, 1)));
    is_not_deceived(scene);
}

pub fn is_not_deceived(scene: &PortScene) {
    for forbidden in [
        Frame::udp(STRANGER, PEER, 1, 2),
        Frame::arp(STRANGER, PEER, 1),
        Frame::udp(VM, PEER, 1, 2).sent_by(OTHER.mac),
        Frame::udp6(VM, PEER, 1, 2),
        Frame::udp(STRANGER, PEER, 68, 67),
        Frame::udp(STRANGER, SERVERS, 68, 67),
        Frame::udp(Host { mac: VM.mac, ..BRIDGE }, PEER, 68, 67),
    ] {
        assert!(!scene.leaves(&forbidden), "{forbidden:?}");
    }
}

pub fn run_netlaunch(scene: &PortScene, args: &[&str]) -> std::process::Output {
    finish(scene.sandbox.netlaunch(args))
}
