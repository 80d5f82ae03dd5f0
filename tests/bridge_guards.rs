//! Bridges of netlaunch's own networks: what guests without a filter cannot do to them by frames
//! that a bridge keeps to itself (01:80:c2:00:00:00 to 0f).

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::os::fd::AsRawFd;

use common::bridges::{end, host, up, waiting};
use common::{As, Netns, Sandbox, finish, have_root, text};
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, bind, send, socket};

/// A network without addresses; `bridge` are more attributes of its bridge.
fn network(sandbox: &Sandbox, bridge: &str) -> impl Fn(&[&str]) -> String {
    let file = sandbox.path("lab.xml");
    let xml = format!("<network><name>lab</name><bridge name='nl0' {bridge}/></network>");
    std::fs::write(&file, xml).unwrap();
    let ours = |args: &[&str]| {
        let output = finish(sandbox.netlaunch(&[&["network"], args].concat()));
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    ours(&["define", file.to_str().unwrap()]);
    ours(&["start", "lab"]);
    ours
}

/// Sends a frame from an interface of the namespace.
fn transmit(netns: &Netns, interface: &str, frame: &[u8]) {
    netns.inside(|| {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).unwrap();
        let of = |found: &nix::ifaddrs::InterfaceAddress| found.interface_name == interface;
        let address: LinkAddr = nix::ifaddrs::getifaddrs()
            .unwrap()
            .filter(of)
            .find_map(|found| found.address?.as_link_addr().copied())
            .unwrap();
        bind(socket.as_raw_fd(), &address).unwrap();
        send(socket.as_raw_fd(), frame, MsgFlags::empty()).unwrap();
    });
}

#[test]
fn a_networks_bridge_learns_no_address_from_link_local_frames() {
    if !have_root("a_networks_bridge_learns_no_address_from_link_local_frames") {
        return;
    }
    let host = Netns::bare();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let ours = network(&sandbox, "");
    for (port, guest) in [("v0", "g0"), ("v1", "g1")] {
        host.ip(&format!("link add {port} type veth peer name {guest}"));
        host.ip(&format!("link set {port} master nl0 up"));
        host.ip(&format!("link set {guest} up"));
    }
    let victim = [2, 0, 0, 0, 0, 0x99];
    let frame = |to: [u8; 6]| [&to, victim.as_slice(), &[0x88, 0xb5], &[0; 46]].concat();
    let learnt = || host.says("bridge", &["fdb", "show", "br", "nl0"]);
    transmit(&host, "g1", &frame([0xff; 6]));
    assert!(learnt().contains("02:00:00:00:00:99 dev v1"), "{}", learnt());
    for last in 0..16 {
        transmit(&host, "g0", &frame([0x01, 0x80, 0xc2, 0, 0, last]));
        // A frame to the group address is one like others where STP is off.
        if last == 0 {
            transmit(&host, "g1", &frame([0xff; 6]));
        }
        let now = learnt();
        assert!(now.contains("02:00:00:00:00:99 dev v1"), "{last:x}: {now}");
    }
    ours(&["destroy", "lab"]);
}

#[test]
fn guests_of_a_network_stay_out_of_its_spanning_tree() {
    if !have_root("guests_of_a_network_stay_out_of_its_spanning_tree") {
        return;
    }
    let host = host();
    let sandbox = Sandbox::new(As::Root, Some(&host));
    let ours = network(&sandbox, "stp='on'");
    let mark = sandbox.path("").to_string_lossy().into_owned();
    for (options, state) in [(["--network", "lab"], "on"), (["--bridge", "br0"], "off")] {
        let (scene, shown) = up(&sandbox, sandbox.netlaunch(&waiting(&options, &mark)));
        let tap = shown["bridge"]["tap"].as_str().unwrap().to_owned();
        let flags = host.says("bridge", &["-d", "link", "show", "dev", &tap]);
        for guard in ["guard", "root_block"] {
            assert!(flags.contains(&format!(" {guard} {state} ")), "{options:?}: {flags}");
        }
        end(scene);
    }
    ours(&["destroy", "lab"]);
}

#[test]
fn a_network_speaks_stp_if_its_document_says_so_and_else_not() {
    if !have_root("a_network_speaks_stp_if_its_document_says_so_and_else_not") {
        return;
    }
    for (attribute, xml, state) in
        [("", "stp='off'", "0"), ("stp='on'", "stp='on'", "1"), ("stp='off'", "stp='off'", "0")]
    {
        let host = Netns::bare();
        let sandbox = Sandbox::new(As::Root, Some(&host));
        let ours = network(&sandbox, attribute);
        assert!(ours(&["dumpxml", "lab"]).contains(xml), "{attribute}");
        let shown = host.says("ip", &["-d", "link", "show", "dev", "nl0"]);
        assert!(shown.contains(&format!("stp_state {state} ")), "{attribute}: {shown}");
        ours(&["destroy", "lab"]);
    }
}
