//! Tests the addresses that a learning port refuses, because another port, the host, a router or a
//! server has them.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::common::dhcp_frame::{DhcpFrame, REQUEST};
use crate::common::frame::{Frame, Host, OTHER, PEER, VM};
use crate::common::learning_scene::{
    LIMIT, STRANGER, acknowledgement, bind, is_in_force, learner, learning, learns, lease, on_both,
};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{finish, have_root, text, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Returns `learning` in the output of `binding-list` for a port.
fn learning_of(scene: &PortScene, station: Station) -> Value {
    let list = scene.list();
    let all = list["bindings"].as_array().unwrap().clone();
    let found = all.into_iter().find(|binding| binding["port"] == station.port());
    found.map_or(Value::Null, |binding| binding["learning"].clone())
}

fn bind_other(scene: &PortScene, parameters: &[(&str, &str)]) -> Result<(), String> {
    scene.bind(Station::Vnet1, "clean-traffic", parameters)
}

/// The guest behind vnet0 claims an address by ARP and by an IPv4 packet.
fn claims(scene: &PortScene, address: Ipv4Addr) {
    let claimed = Host { v4: address, ..VM };
    assert!(!scene.leaves(&Frame::arp(claimed, PEER, 1)));
    assert!(!scene.leaves(&Frame::udp(claimed, PEER, 1, 2)));
}

/// Checks that `binding-list` shows no address of vnet0, but this refusal.
fn is_refused(scene: &PortScene, address: Ipv4Addr, why: &str) {
    let refused = || {
        let said = learning(scene)["refused"].as_str().unwrap_or_default().to_owned();
        said.starts_with(&format!("{address} is refused")) && said.contains(why)
    };
    assert!(wait_until(LIMIT, refused), "{address}, {why}: {}", learning(scene));
    assert_eq!(learning(scene)["address"], Value::Null);
}

/// Checks that the port learns a permitted address after any number of refusals.
fn then_learns(scene: &PortScene) {
    let learned = || {
        scene.leaves(&Frame::arp(VM, PEER, 1));
        learning(scene)["address"] == json!(VM.v4)
    };
    assert!(wait_until(LIMIT, learned), "{}", learning(scene));
    assert_eq!(learning(scene)["refused"], Value::Null);
    is_in_force(scene);
    scene.unbind(Station::Vnet0);
    std::fs::remove_file(scene.sandbox.path("state/nwfilter/leases/vnet0.json")).ok();
}

#[test]
fn an_address_of_another_port_is_refused_until_that_port_is_removed() {
    on_both("an_address_that_another_port_learned", |scene| {
        bind_other(scene, &[]).unwrap();
        scene.send(Station::Vnet1, &Frame::arp(OTHER, PEER, 1));
        let other = || learning_of(scene, Station::Vnet1)["address"] == json!(OTHER.v4);
        assert!(wait_until(LIMIT, other), "{}", scene.list());
        for method in ["any", "dhcp"] {
            bind(scene, method);
            claims(scene, OTHER.v4);
            lease(scene, OTHER.v4, 3600);
            is_refused(scene, OTHER.v4, "the port vnet1");
            assert!(!scene.leaves(&Frame::udp(Host { v4: OTHER.v4, ..VM }, PEER, 1, 2)));
            assert!(other(), "the other port lost its address: {}", scene.list());
            lease(scene, VM.v4, 3600);
            then_learns(scene);
        }
        let list = scene.nwfilter(&["binding-list"]);
        assert!(list.status.success());
        // The removal of the other port frees the address.
        bind(scene, "any");
        claims(scene, OTHER.v4);
        is_refused(scene, OTHER.v4, "the port vnet1");
        scene.unplug(Station::Vnet1);
        scene.plug(Station::Vnet1);
        let mac = Host { v4: OTHER.v4, ..VM };
        let learned = || {
            scene.leaves(&Frame::arp(mac, PEER, 1));
            learning(scene)["address"] == json!(OTHER.v4)
        };
        assert!(wait_until(LIMIT, learned), "{}", learning(scene));
    });
}

#[test]
fn an_address_that_another_binding_names_is_refused() {
    on_both("an_address_that_another_binding_names", |scene| {
        bind_other(scene, &[("IP", "10.2.3.77"), ("IP", "10.2.3.78")]).unwrap();
        for last in [77, 78] {
            bind(scene, "any");
            claims(scene, Ipv4Addr::new(10, 2, 3, last));
            is_refused(scene, Ipv4Addr::new(10, 2, 3, last), "the port vnet1");
            then_learns(scene);
        }
    });
}

#[test]
fn an_address_in_the_prefix_of_another_binding_is_refused() {
    on_both("an_address_in_the_prefix_of_another_binding", |scene| {
        bind_other(scene, &[("IP", "10.2.3.77/32"), ("IP", "10.2.3.96/27")]).unwrap();
        for last in [77, 100] {
            bind(scene, "any");
            claims(scene, Ipv4Addr::new(10, 2, 3, last));
            is_refused(scene, Ipv4Addr::new(10, 2, 3, last), "the port vnet1");
            then_learns(scene);
        }
    });
}

/// Each port learns the address on a bridge of its own, and then one of them joins the other.
#[test]
fn a_reload_names_two_ports_of_a_bridge_that_learned_the_same_address() {
    on_both("two_ports_of_a_bridge_that_learned_the_same_address", |scene| {
        scene.netns.ip("link add br1 type bridge");
        scene.netns.ip("link set br1 up");
        scene.netns.ip("link set vnet1 master br1");
        bind(scene, "any");
        scene.leaves(&Frame::arp(VM, PEER, 1));
        learns(scene, Some(VM.v4));
        bind_other(scene, &[]).unwrap();
        scene.send(Station::Vnet1, &Frame::arp(Host { v4: VM.v4, ..OTHER }, PEER, 1));
        let other = || learning_of(scene, Station::Vnet1)["address"] == json!(VM.v4);
        assert!(wait_until(LIMIT, other), "{}", scene.list());
        let reload = || text(&finish(scene.sandbox.netlaunch(&["firewall", "reload"])).stderr);
        assert!(!reload().contains("both have"), "{}", reload());
        scene.netns.ip("link set vnet1 master br0");
        let said = reload();
        let both = "the ports vnet0 and vnet1 of the same bridge both have the address 10.2.3.4";
        assert_eq!(said.matches(both).count(), 1, "{said}");
        // The new binding does not get the address.
        scene.unbind(Station::Vnet1);
        bind_other(scene, &[]).unwrap();
        assert_eq!(learning_of(scene, Station::Vnet1)["address"], Value::Null);
    });
}

#[test]
fn a_binding_cannot_name_an_address_that_another_port_learned() {
    on_both("a_binding_cannot_name_a_learned_address", |scene| {
        bind(scene, "any");
        scene.leaves(&Frame::arp(VM, PEER, 1));
        learns(scene, Some(VM.v4));
        let before = scene.ruleset();
        let said = bind_other(scene, &[("IP", "10.2.3.4")]).unwrap_err();
        assert!(said.contains("the port vnet0 of the same bridge learned it"), "{said}");
        assert_eq!(scene.ruleset(), before);
        let file = scene.binding(Station::Vnet1, "clean-traffic", &[("IP", "10.2.3.0/24")]);
        let refused = scene.nwfilter(&["binding-create", &file]);
        let said = text(&refused.stderr);
        assert!(said.contains("cannot have the address 10.2.3.4"), "{said}");
        assert_eq!(refused.status.code(), Some(2), "the state of a port forbids the command");
        bind_other(scene, &[("IP", "10.2.3.5")]).unwrap();
        scene.unbind(Station::Vnet1);
        scene.unbind(Station::Vnet0);
        bind_other(scene, &[("IP", "10.2.3.4")]).unwrap();
    });
}

#[test]
fn the_same_address_is_allowed_on_another_bridge() {
    on_both("the_same_address_on_another_bridge", |scene| {
        scene.netns.ip("link add br1 type bridge");
        scene.netns.ip("link set vnet1 master br1");
        bind_other(scene, &[("IP", "10.2.3.4")]).unwrap();
        bind(scene, "any");
        scene.leaves(&Frame::arp(VM, PEER, 1));
        learns(scene, Some(VM.v4));
    });
}

#[test]
fn addresses_of_the_host_its_routers_and_servers_are_refused() {
    on_both("addresses_of_the_host_its_routers_and_servers", |scene| {
        scene.netns.ip("route add default via 10.2.3.100");
        scene
            .netns
            .ip("route add 10.9.0.0/16 table 7 nexthop via 10.2.3.101 nexthop via 10.2.3.102");
        bind_other(scene, &[("CTRL_IP_LEARNING", "dhcp"), ("DHCPSERVER", "10.2.3.103")]).unwrap();
        let address = |last| Ipv4Addr::new(10, 2, 3, last);
        for (last, why) in [
            (254, "an address of this host"),
            (0, "the network or broadcast address of 10.2.3.0/24"),
            (255, "the network or broadcast address of 10.2.3.0/24"),
            (100, "router"),
            (101, "router"),
            (102, "router"),
            (103, "DHCP server"),
        ] {
            bind(scene, "any");
            claims(scene, address(last));
            is_refused(scene, address(last), why);
            then_learns(scene);
        }
        // The server of the lease cannot give its own address.
        bind(scene, "dhcp");
        let request = DhcpFrame { from: VM.mac, chaddr: VM.mac, ..DhcpFrame::asks(REQUEST) };
        scene.write(Station::Vnet0, &request.bytes());
        scene.write(Station::Peer, &acknowledgement(PEER.v4, 3600, PEER).bytes());
        is_refused(scene, PEER.v4, "DHCP server");
        lease(scene, STRANGER.v4, 3600);
        learns(scene, Some(STRANGER.v4));
    });
}

/// Both learners are stopped while the guests claim the address, and continue at the same time.
#[test]
fn if_two_guests_claim_an_address_at_once_one_gets_it() {
    if !have_root("if_two_guests_claim_an_address_at_once_one_gets_it") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let other_learner = || {
        let pid = learning_of(&scene, Station::Vnet1)["pid"].as_i64().unwrap();
        Pid::from_raw(pid as i32)
    };
    let wanted = Ipv4Addr::new(10, 2, 3, 66);
    for round in 0..5 {
        bind(&scene, "any");
        bind_other(&scene, &[]).unwrap();
        let pids = [learner(&scene), other_learner()];
        pids.iter().for_each(|pid| kill(*pid, Signal::SIGSTOP).unwrap());
        for (station, host) in [(Station::Vnet0, VM), (Station::Vnet1, OTHER)] {
            let claim = Frame::arp(Host { v4: wanted, ..host }, PEER, 1);
            scene.write(station, &claim.bytes(b"nltest-claim"));
        }
        pids.iter().for_each(|pid| kill(*pid, Signal::SIGCONT).unwrap());
        let both = || [learning_of(&scene, Station::Vnet0), learning_of(&scene, Station::Vnet1)];
        let decided = || {
            let got = both().iter().filter(|one| one["address"] == json!(wanted)).count();
            let refused = both().iter().filter(|one| one["refused"] != Value::Null).count();
            assert!(got < 2, "round {round}: both have the address");
            (got, refused) == (1, 1)
        };
        assert!(wait_until(LIMIT, decided), "round {round}: {:?}", both());
        std::thread::sleep(Duration::from_millis(500));
        assert!(decided(), "round {round}: {:?}", both());
        done(finish(scene.sandbox.netlaunch(&["firewall", "reload"]))).unwrap();
        assert!(decided(), "round {round}: {:?}", both());
        for (station, port) in [(Station::Vnet0, "vnet0"), (Station::Vnet1, "vnet1")] {
            scene.unbind(station);
            std::fs::remove_file(scene.sandbox.path(&format!("state/nwfilter/leases/{port}.json")))
                .ok();
        }
    }
}

/// The lease was saved when its filter was unbound, and another guest has the address since then.
#[test]
fn a_saved_lease_is_not_used_if_another_port_has_its_address() {
    on_both("a_kept_lease_whose_address_another_port_has", |scene| {
        bind(scene, "dhcp");
        lease(scene, VM.v4, 3600);
        learns(scene, Some(VM.v4));
        scene.unbind(Station::Vnet0);
        bind_other(scene, &[("IP", "10.2.3.4")]).unwrap();
        bind(scene, "dhcp");
        learns(scene, None);
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
    });
}
