//! Tests the sources that a learning port accepts: the named servers and a suitable saved lease,
//! but not a guest that claims an address of the host.

use std::fs;
use std::net::Ipv4Addr;

use crate::common::dhcp_frame::{DhcpFrame, REQUEST};
use crate::common::frame::{Frame, Host, OTHER, PEER, VM};
use crate::common::learning_scene::{
    LIMIT, STRANGER, acknowledgement, bind, is_in_force, learner, learning, learns, lease, on_both,
    run_netlaunch,
};
use crate::common::port_scene::{Station, done};
use crate::common::wait_until;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

/// With `any`, the guest's packets give the address, too; of the servers, only the named ones do.
#[test]
fn named_servers_also_apply_to_the_method_any() {
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
        // If the binding does not learn an address, DHCPSERVER is an ordinary variable.
        let filter = "<rule action='drop' direction='out'><ipv6 srcipaddr='$DHCPSERVER'/></rule>";
        scene.define("mine", filter).unwrap();
        scene.bind(Station::Vnet0, "mine", &[("DHCPSERVER", "fe80::1")]).unwrap();
    });
}

/// A frame is lost if the learner's queue is full. Frames that the rules drop take no space in the
/// queue.
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

/// The host's addresses at the moment of the check count, not those at the start of learning.
#[test]
fn an_address_that_the_host_gets_before_the_check_is_not_learned() {
    on_both("the test of addresses that the host gets meanwhile", |scene| {
        let hosts = Host { v4: Ipv4Addr::new(10, 9, 9, 1), ..VM };
        bind(scene, "any");
        scene.netns.ip("address add 10.9.9.1/24 dev br0");
        assert!(!scene.leaves(&Frame::arp(hosts, PEER, 1)));
        assert!(!scene.leaves(&Frame::udp(hosts, PEER, 1, 2)));
        // The refused address leaves no trace, so a packet can still give the address.
        let learned = || {
            scene.leaves(&Frame::arp(VM, PEER, 1));
            learning(scene)["address"] == json!(VM.v4)
        };
        assert!(wait_until(LIMIT, learned), "{}", learning(scene));
        is_in_force(scene);
        assert!(!scene.leaves(&Frame::udp(hosts, PEER, 1, 2)));
        // DHCP gives an address of the host while another address is in force.
        scene.netns.ip("address add 10.9.9.2/24 dev br0");
        let hosts = Host { v4: Ipv4Addr::new(10, 9, 9, 2), ..VM };
        lease(scene, hosts.v4, 3600);
        learns(scene, None);
        assert!(!scene.leaves(&Frame::udp(hosts, PEER, 1, 2)));
        lease(scene, VM.v4, 3600);
        learns(scene, Some(VM.v4));
        // An address that the host gets later stays in force, but a new binding does not use the
        // saved lease.
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

/// A binding uses a saved lease only if it would accept the server now.
#[test]
fn a_saved_lease_is_used_only_if_the_binding_accepts_its_server() {
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
