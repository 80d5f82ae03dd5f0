//! Who is believed when an address is learnt for a port bound by hand: which servers, what is kept of
//! earlier bindings, and not the guest about the host's own addresses.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod common;
#[path = "common/learning_scene.rs"]
mod learning_scene;

use std::fs;
use std::net::Ipv4Addr;

use common::dhcp_frame::{DhcpFrame, REQUEST};
use common::frame::{Frame, Host, OTHER, PEER, VM};
use common::port_scene::{Station, done};
use common::wait_until;
use learning_scene::{
    LIMIT, STRANGER, acknowledgement, bind, is_in_force, learner, learning, learns, lease, on_both,
    run_netlaunch,
};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

/// The guest's own packets teach then, and of servers those that are named.
#[test]
fn servers_are_named_for_learning_from_anything_too() {
    on_both("the test of servers that are named", |scene| {
        for method in ["any", "dhcp"] {
            let bind = |server| {
                let parameters = [("CTRL_IP_LEARNING", method), ("DHCPSERVER", server)];
                scene.bind(Station::Vnet0, "clean-traffic", &parameters)
            };
            for none in ["dhcp.example", "10.2.3.0/24", "fe80::1"] {
                let said = bind(none).unwrap_err();
                let mistake = format!("DHCPSERVER cannot be \"{none}\": write the IPv4 address");
                assert!(said.contains(&mistake) && said.lines().count() == 1, "{said}");
            }
            bind("10.2.3.9").unwrap();
            let request = DhcpFrame { from: VM.mac, chaddr: VM.mac, ..DhcpFrame::asks(REQUEST) };
            scene.write(Station::Vnet0, &request.bytes());
            scene.write(Station::Vnet1, &acknowledgement(STRANGER.v4, 3600, OTHER).bytes());
            scene.write(Station::Peer, &acknowledgement(VM.v4, 3600, PEER).bytes());
            learns(scene, Some(VM.v4));
            is_in_force(scene);
            scene.unbind(Station::Vnet0);
            fs::remove_file(scene.sandbox.path("state/nwfilter/leases/vnet0.json")).unwrap();
        }
        // Where no address is learnt it is a variable like others.
        let filter = "<rule action='drop' direction='out'><ipv6 srcipaddr='$DHCPSERVER'/></rule>";
        scene.define("mine", filter).unwrap();
        scene.bind(Station::Vnet0, "mine", &[("DHCPSERVER", "fe80::1")]).unwrap();
    });
}

/// Frames that the learner has no room for are lost, and those that the rules drop take none.
#[test]
fn a_flood_of_answers_delays_learning_unless_servers_are_named() {
    on_both("the test of floods of answers", |scene| {
        for named in [true, false] {
            let server = named.then_some(("DHCPSERVER", "10.2.3.9"));
            let parameters: Vec<_> =
                [("CTRL_IP_LEARNING", "dhcp")].into_iter().chain(server).collect();
            scene.bind(Station::Vnet0, "clean-traffic", &parameters).unwrap();
            let pid = learner(scene);
            kill(pid, Signal::SIGSTOP).unwrap();
            let mut answer = acknowledgement(STRANGER.v4, 3600, OTHER);
            answer.transaction = 99;
            for _ in 0..1000 {
                scene.write(Station::Vnet1, &answer.bytes());
            }
            lease(scene, VM.v4, 3600);
            kill(pid, Signal::SIGCONT).unwrap();
            if !named {
                let again = || {
                    lease(scene, VM.v4, 3600);
                    learning(scene)["address"] == json!(VM.v4)
                };
                assert!(wait_until(LIMIT, again), "{}", learning(scene));
            }
            learns(scene, Some(VM.v4));
            is_in_force(scene);
            scene.unbind(Station::Vnet0);
            fs::remove_file(scene.sandbox.path("state/nwfilter/leases/vnet0.json")).unwrap();
        }
    });
}

/// The host's addresses are those that it has when one is put in force, not when learning began.
#[test]
fn an_address_that_the_host_has_by_then_is_not_learnt() {
    on_both("the test of addresses that the host gets meanwhile", |scene| {
        let hosts = Host { v4: Ipv4Addr::new(10, 9, 9, 1), ..VM };
        bind(scene, "any");
        scene.netns.ip("address add 10.9.9.1/24 dev br0");
        assert!(!scene.leaves(&Frame::arp(hosts, PEER, 1)));
        assert!(!scene.leaves(&Frame::udp(hosts, PEER, 1, 2)));
        // It has taught nothing, not even that something was taught.
        let learnt = || {
            scene.leaves(&Frame::arp(VM, PEER, 1));
            learning(scene)["address"] == json!(VM.v4)
        };
        assert!(wait_until(LIMIT, learnt), "{}", learning(scene));
        is_in_force(scene);
        assert!(!scene.leaves(&Frame::udp(hosts, PEER, 1, 2)));
        // One that is given while another is in force.
        scene.netns.ip("address add 10.9.9.2/24 dev br0");
        let hosts = Host { v4: Ipv4Addr::new(10, 9, 9, 2), ..VM };
        lease(scene, hosts.v4, 3600);
        learns(scene, None);
        assert!(!scene.leaves(&Frame::udp(hosts, PEER, 1, 2)));
        lease(scene, VM.v4, 3600);
        learns(scene, Some(VM.v4));
        // One that is in force stays, and is not kept for a guest that comes back.
        scene.netns.ip(&format!("address add {}/32 dev br0", VM.v4));
        done(run_netlaunch(scene, &["firewall", "reload"])).unwrap();
        assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
        scene.unbind(Station::Vnet0);
        bind(scene, "dhcp");
        assert_eq!(learning(scene)["address"], Value::Null);
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
        done(run_netlaunch(scene, &["firewall", "reload"])).unwrap();
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
        lease(scene, STRANGER.v4, 3600);
        learns(scene, Some(STRANGER.v4));
    });
}

/// A binding believes of what is kept what it would believe now.
#[test]
fn a_kept_lease_is_of_a_server_that_the_binding_names() {
    on_both("the test of leases of other servers", |scene| {
        let bind_to = |servers: &[&str]| {
            let servers = servers.iter().map(|server| ("DHCPSERVER", *server));
            let parameters: Vec<_> =
                [("CTRL_IP_LEARNING", "dhcp")].into_iter().chain(servers).collect();
            scene.bind(Station::Vnet0, "clean-traffic", &parameters).unwrap();
            learning(scene)["address"].clone()
        };
        assert_eq!(bind_to(&[]), Value::Null);
        lease(scene, STRANGER.v4, 3600);
        learns(scene, Some(STRANGER.v4));
        for (servers, kept) in [
            (&["10.2.3.1"][..], false),
            (&["10.2.3.1", "10.2.3.9"], true),
            (&["10.2.3.1"], false),
            (&[], true),
        ] {
            scene.unbind(Station::Vnet0);
            let expected = if kept { json!(STRANGER.v4) } else { Value::Null };
            assert_eq!(bind_to(servers), expected, "{servers:?}");
            assert_eq!(scene.leaves(&Frame::udp(STRANGER, PEER, 1, 2)), kept, "{servers:?}");
            done(run_netlaunch(scene, &["firewall", "reload"])).unwrap();
            assert_eq!(learning(scene)["address"], expected, "{servers:?}");
        }
    });
}
