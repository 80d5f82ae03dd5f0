//! Tests ports that are bound by hand and whose guests' IPv6 addresses are learned: by the guest's
//! own test of the address and by DHCPv6, against neighbors, floods and restarts.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use netlaunch::nwfilter::learn::MOST_ADDRESSES;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::common::dhcp_frame::{GUEST, OTHER, arp, ethernet, udp};
use crate::common::frame::{BRIDGE, Frame, PEER, VM};
use crate::common::learning_scene::{LIMIT, learner, learning, learns, on_both, run_netlaunch};
use crate::common::nd_frame::{
    Dhcp6Frame, NdFrame, REQUEST6, association, given, ipv6, link_option,
};
use crate::common::port_scene::{PortScene, Station};
use crate::common::schema::valid;
use crate::common::{text, wait_until};

const LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe11, 0x2233);
const PRIVATE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0x1234, 0x5678, 0x9abc, 0xdef0);
const SERVER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x547);

/// A packet from an address; `mark` distinguishes the frames of a test.
fn says(from: Ipv6Addr, mark: u16) -> Vec<u8> {
    ethernet(OTHER, GUEST, 0x86dd, &ipv6(from, PEER.v6, 17, 64, &udp(1000, mark, b"nltest")))
}

fn addresses(scene: &PortScene) -> Vec<Ipv6Addr> {
    let learning = learning(scene);
    let all = learning["addresses6"].as_array().unwrap_or_else(|| panic!("{learning}"));
    all.iter().map(|one| one["address"].as_str().unwrap().parse().unwrap()).collect()
}

fn learns6(scene: &PortScene, expected: &[Ipv6Addr]) {
    let learned = || addresses(scene) == expected;
    assert!(wait_until(LIMIT, learned), "{expected:?}: {}", learning(scene));
}

/// The guest tests an address; the test leaves the port.
fn tests(scene: &PortScene, address: Ipv6Addr) {
    assert!(scene.leaves_bytes(&NdFrame::test(GUEST, address).bytes()), "the test does not leave");
}

/// Checks that the guest speaks with these addresses and no others.
fn is_in_force(scene: &PortScene, own: &[Ipv6Addr]) {
    let own_option = link_option(2, GUEST);
    for address in own {
        assert!(scene.leaves_bytes(&says(*address, 1)), "{address}");
        let advertises = NdFrame::advertise(GUEST, *address, *address, &own_option);
        assert!(scene.leaves_bytes(&advertises.bytes()), "{address}");
    }
    for address in [PEER.v6, BRIDGE.v6, SERVER, "2001:db8::77".parse().unwrap()] {
        assert!(!scene.leaves_bytes(&says(address, 2)), "{address}");
        for from in own.iter().chain([&address]) {
            let advertises = NdFrame::advertise(GUEST, *from, address, &own_option);
            assert!(!scene.leaves_bytes(&advertises.bytes()), "{address}");
        }
    }
    let router = NdFrame::router(GUEST, own.first().copied().unwrap_or(LINK), VM.v6, 600);
    assert!(!scene.leaves_bytes(&router.bytes()));
}

fn bind(scene: &PortScene, filter: &str, parameters: &[(&str, &str)]) {
    scene.bind(Station::Vnet0, filter, parameters).unwrap();
    valid("bindings", &scene.list());
}

#[test]
fn a_tested_address_passes_after_its_test_and_not_before() {
    on_both("a_tested_address_passes_after_its_test_and_not_before", |scene| {
        bind(scene, "clean-traffic-v6", &[]);
        is_in_force(scene, &[]);
        let mut own = Vec::new();
        for address in [LINK, VM.v6, PRIVATE] {
            let start = Instant::now();
            tests(scene, address);
            let passes = || scene.leaves_bytes(&says(address, 3));
            assert!(wait_until(LIMIT, passes), "{address}: {}", learning(scene));
            let late = start.elapsed().as_secs_f64() - 1.0;
            println!("{address} passes {late:.3} s after the end of its test");
            assert!(late > -0.05, "{address} passed before the end of its test: {late}");
            own.push(address);
            learns6(scene, &own);
        }
        is_in_force(scene, &own);
        valid("bindings", &scene.list());
    });
}

#[test]
fn an_address_of_another_machine_is_refused() {
    on_both("an_address_of_another_machine_is_refused", |scene| {
        let other = "2001:db8::55";
        let parameters = [("IPV6", other), ("IPV6", "2001:db8:0:5::/64")];
        scene.bind(Station::Vnet1, "clean-traffic-v6", &parameters).unwrap();
        bind(scene, "clean-traffic-v6", &[]);
        tests(scene, LINK);
        learns6(scene, &[LINK]);
        tests(scene, PEER.v6);
        scene.write(Station::Peer, &NdFrame::advertise(PEER.mac, PEER.v6, PEER.v6, &[]).bytes());
        let is_refused = |address: &str, reason: &str| {
            let refused = || {
                let learning = learning(scene);
                let refused = learning["refused6"].as_str().unwrap_or_default();
                refused.starts_with(address) && refused.contains(reason)
            };
            assert!(wait_until(LIMIT, refused), "{address}: {}", learning(scene));
        };
        is_refused("2001:db8::9 ", "another machine has it");
        // The host's own address, and that of another port.
        scene.write(Station::Vnet0, &NdFrame::test(GUEST, BRIDGE.v6).bytes());
        is_refused("2001:db8::fe ", "");
        scene.write(Station::Vnet0, &NdFrame::test(GUEST, other.parse().unwrap()).bytes());
        is_refused("2001:db8::55 ", "the port vnet1 of the same bridge has it");
        let in_prefix = "2001:db8:0:5::7".parse().unwrap();
        scene.write(Station::Vnet0, &NdFrame::test(GUEST, in_prefix).bytes());
        is_refused("2001:db8:0:5::7 ", "the port vnet1 of the same bridge has it");
        assert_eq!(addresses(scene), [LINK]);
        is_in_force(scene, &[LINK]);
        // A binding cannot set an address that another port learned.
        scene.unbind(Station::Vnet1);
        let link = LINK.to_string();
        let error = scene.bind(Station::Vnet1, "clean-traffic-v6", &[("IPV6", &link)]).unwrap_err();
        assert!(error.contains("the port vnet0 of the same bridge learned it"), "{error}");
    });
}

/// The server behind peer0 gives the guest an address for this long.
fn lease(scene: &PortScene, address: Ipv6Addr, valid: u32) {
    let request = Dhcp6Frame::asks(REQUEST6, GUEST, LINK);
    let options = association(3, &given(address, valid, &[]));
    assert!(scene.leaves_bytes(&request.bytes()), "the request does not leave");
    scene.write(Station::Peer, &request.replies(PEER.mac, SERVER, &options).bytes());
}

#[test]
fn dhcpv6_gives_addresses_until_their_lifetime_ends() {
    on_both("dhcpv6_gives_addresses_until_their_lifetime_ends", |scene| {
        let parameters = [("CTRL_IP_LEARNING", "dhcp"), ("DHCPV6SERVER", "fe80::547")];
        bind(scene, "clean-traffic-v6", &parameters);
        tests(scene, LINK);
        tests(scene, PRIVATE);
        learns6(scene, &[LINK]);
        lease(scene, VM.v6, 3600);
        learns6(scene, &[LINK, VM.v6]);
        is_in_force(scene, &[LINK, VM.v6]);
        assert!(!scene.leaves_bytes(&says(PRIVATE, 4)));
        lease(scene, VM.v6, 2);
        let ends = || addresses(scene) == [LINK];
        assert!(wait_until(LIMIT, ends), "{}", learning(scene));
        assert!(!scene.leaves_bytes(&says(VM.v6, 5)));
        let error = scene.bind(Station::Vnet1, "clean-traffic-v6", &[("DHCPV6SERVER", "10.2.3.9")]);
        let error = error.unwrap_err();
        let expected =
            "DHCPV6SERVER cannot be \"10.2.3.9\": write the IPv6 address of a DHCPv6 server";
        assert!(error.contains(expected), "{error}");
    });
}

#[test]
fn each_version_of_ip_waits_for_its_own_address() {
    on_both("each_version_of_ip_waits_for_its_own_address", |scene| {
        bind(scene, "clean-traffic-dual", &[]);
        let v4 = Frame::udp(VM, PEER, 1, 2);
        tests(scene, LINK);
        tests(scene, VM.v6);
        learns6(scene, &[LINK, VM.v6]);
        is_in_force(scene, &[LINK, VM.v6]);
        // The packet from which the IPv4 address is learned does not leave.
        assert!(!scene.leaves(&v4));
        learns(scene, Some(VM.v4));
        assert!(scene.leaves(&v4));
        is_in_force(scene, &[LINK, VM.v6]);

        scene.unbind(Station::Vnet0);
        scene.unplug(Station::Vnet0);
        scene.plug(Station::Vnet0);
        bind(scene, "clean-traffic-dual", &[]);
        scene.write(Station::Vnet0, &arp(GUEST, GUEST, VM.v4, 1));
        learns(scene, Some(VM.v4));
        assert!(scene.leaves(&v4));
        is_in_force(scene, &[]);
        tests(scene, VM.v6);
        learns6(scene, &[VM.v6]);
        assert!(scene.leaves(&v4));
        is_in_force(scene, &[VM.v6]);
    });
}

#[test]
fn restarts_and_redefinitions_keep_ipv6_addresses() {
    on_both("restarts_and_redefinitions_keep_ipv6_addresses", |scene| {
        scene.define("mine", "<filterref filter='clean-traffic-v6'/>").unwrap();
        bind(scene, "mine", &[]);
        let own = [LINK, VM.v6, PRIVATE];
        own.iter().for_each(|address| tests(scene, *address));
        learns6(scene, &own);
        let reloads = || {
            let output = run_netlaunch(scene, &["firewall", "reload"]);
            assert!(output.status.success(), "{}", text(&output.stderr));
        };
        reloads();
        is_in_force(scene, &own);
        // A killed learner.
        kill(learner(scene), Signal::SIGKILL).unwrap();
        assert!(wait_until(LIMIT, || learning(scene)["pid"] == Value::Null));
        is_in_force(scene, &own);
        reloads();
        assert!(wait_until(LIMIT, || learning(scene)["pid"] != Value::Null));
        assert_eq!(addresses(scene), own);
        is_in_force(scene, &own);
        scene
            .define(
                "mine",
                "<rule action='drop' direction='out' priority='-900'>\
                 <ipv6 protocol='udp' dstportstart='7'/></rule>\
                 <filterref filter='clean-traffic-v6'/>",
            )
            .unwrap();
        is_in_force(scene, &own);
        assert!(!scene.leaves_bytes(&says(VM.v6, 7)));
        // The port does not learn an IPv4 address, so its filter cannot begin to need one.
        let error = scene.define("mine", "<filterref filter='clean-traffic-dual'/>").unwrap_err();
        assert!(error.contains("needs values for IP"), "{error}");
        // Another binding of the same guest: a guest tests its addresses only once.
        scene.unbind(Station::Vnet0);
        bind(scene, "clean-traffic-v6", &[]);
        learns6(scene, &own);
        is_in_force(scene, &own);
    });
}

#[test]
fn ten_thousand_made_up_addresses_leave_the_guests_own_ones_in_force() {
    on_both("ten_thousand_made_up_addresses_leave_the_guests_own_ones_in_force", |scene| {
        bind(scene, "clean-traffic-v6", &[]);
        let own = [LINK, VM.v6];
        own.iter().for_each(|address| tests(scene, *address));
        learns6(scene, &own);
        let start = Instant::now();
        for number in 0..10_000 {
            let address = (u128::from(VM.v6) + (1 << 40) + number).into();
            scene.write(Station::Vnet0, &NdFrame::test(GUEST, address).bytes());
            if number % 1000 == 0 {
                assert!(own.iter().all(|address| scene.leaves_bytes(&says(*address, 6))));
                std::thread::sleep(Duration::from_millis(300));
            }
        }
        let took = start.elapsed();
        let now = addresses(scene);
        println!("10,000 addresses in {took:?}: the table has {}", now.len());
        assert!(now.len() <= MOST_ADDRESSES, "{now:?}");
        assert_eq!(now[..2], own);
        for address in own {
            assert!(scene.leaves_bytes(&says(address, 7)));
        }
        assert!(!scene.leaves_bytes(&says(PEER.v6, 8)));
    });
}

#[test]
fn a_filter_that_fails_with_many_ipv6_addresses_is_refused_at_once() {
    on_both("a_filter_that_fails_with_many_ipv6_addresses_is_refused_at_once", |scene| {
        let rule = |attributes: &str| {
            format!("<rule action='accept' direction='out'><udp-ipv6 {attributes}/></rule>")
        };
        for (attributes, expected) in [
            ("srcipaddr='$IPV6[1]'", "needs values for IPV6[1]"),
            ("srcipaddr='$IPV6' dstportstart='$PORT'", "go together in a rule"),
        ] {
            scene.define("mine", &rule(attributes)).unwrap();
            let error = scene.bind(Station::Vnet0, "mine", &[("PORT", "53")]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    });
}
