//! Tests that a guest gets no IPv6 address by a test that other machines do not get.

use std::fs;
use std::net::Ipv6Addr;
use std::thread::sleep;
use std::time::Duration;

use crate::common::dhcp_frame::GUEST;
use crate::common::frame::{VM, mac_text};
use crate::common::learning_scene::{LIMIT, learning, on_both};
use crate::common::nd_frame::NdFrame;
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{finish, have_root, start, wait_until};

const FIRST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x51);
const SECOND: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x52);
const THIRD: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53);

fn addresses(scene: &PortScene) -> Vec<Ipv6Addr> {
    let learning = learning(scene);
    let all = learning["addresses6"].as_array().unwrap_or_else(|| panic!("{learning}"));
    all.iter().map(|one| one["address"].as_str().unwrap().parse().unwrap()).collect()
}

/// The guest tests this address last, and gets it and no other.
fn learns_only(scene: &PortScene, address: Ipv6Addr) {
    scene.write(Station::Vnet0, &NdFrame::test(GUEST, address).bytes());
    let learned = || !addresses(scene).is_empty();
    assert!(wait_until(LIMIT, learned), "{}", learning(scene));
    assert_eq!(addresses(scene), [address]);
}

fn refuses(scene: &PortScene, address: Ipv6Addr, reason: &str) {
    let refused = || {
        let learning = learning(scene);
        let refused = learning["refused6"].as_str().unwrap_or_default();
        refused.starts_with(&format!("{address} ")) && refused.contains(reason)
    };
    assert!(wait_until(LIMIT, refused), "{address}: {}", learning(scene));
}

#[test]
fn a_test_that_is_longer_than_the_mtu_of_other_ports_teaches_no_address() {
    on_both("a_test_that_is_longer_than_the_mtu_of_other_ports_teaches_no_address", |scene| {
        scene.bind(Station::Vnet0, "clean-traffic-v6", &[]).unwrap();
        let long = [NdFrame::test(GUEST, FIRST).bytes(), vec![0; 2000]].concat();
        scene.write(Station::Vnet0, &long);
        learns_only(scene, SECOND);
    });
}

#[test]
fn a_test_teaches_no_address_while_the_bridge_does_not_forward_the_port() {
    on_both("a_test_teaches_no_address_while_the_bridge_does_not_forward_the_port", |scene| {
        const REASON: &str = "the bridge did not forward";
        scene.bind(Station::Vnet0, "clean-traffic-v6", &[]).unwrap();
        let state = |number: u8| scene.sh(&format!("bridge link set dev vnet0 state {number}"));
        // Disabled, listening and learning. Without STP the kernel forwards a blocked port at once.
        for (number, address) in [(0, FIRST), (1, SECOND), (2, THIRD)] {
            state(number);
            scene.write(Station::Vnet0, &NdFrame::test(GUEST, address).bytes());
            refuses(scene, address, REASON);
            state(3);
        }
        // Not forwarding any more when the test ends.
        scene.write(Station::Vnet0, &NdFrame::test(GUEST, FIRST).bytes());
        state(1);
        refuses(scene, FIRST, REASON);
        state(3);
        // A test in the second after a refused one does not count.
        sleep(Duration::from_secs(2));
        learns_only(scene, SECOND);
    });
}

#[test]
fn a_test_before_the_rules_are_set_teaches_no_address() {
    if !have_root("a_test_before_the_rules_are_set_teaches_no_address") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let (begun, go) = (scene.sandbox.path("begun"), scene.sandbox.path("go"));
    // The tool waits before it sets the rules. The capture is open by then.
    let body = format!(
        "case \"$*\" in *-f*) touch {}; while [ ! -e {} ]; do sleep 0.02; done;; esac\n\
         exec /usr/sbin/nft \"$@\"",
        begun.display(),
        go.display()
    );
    scene.sandbox.script("nft", &body);
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", scene.sandbox.path("bin").display());
    let mac = mac_text(VM.mac);
    let bind = ["nwfilter", "bind", "vnet0", "clean-traffic-v6", "--mac", mac.as_str()];
    let replace = [&bind[..], &["--replace"]].concat();
    for args in [&bind[..], &replace] {
        println!("{args:?}");
        for file in [&begun, &go] {
            let _ = fs::remove_file(file);
        }
        let mut command = scene.sandbox.netlaunch(args);
        command.env("PATH", &path);
        let mut child = start(command);
        assert!(wait_until(LIMIT, || begun.exists()));
        scene.write(Station::Vnet0, &NdFrame::test(GUEST, FIRST).bytes());
        fs::write(&go, "").unwrap();
        assert!(child.0.wait().unwrap().success());
        learns_only(&scene, SECOND);
        // The binding for the replacement learns nothing, and drops the tests.
        scene.unbind(Station::Vnet0);
        scene.unplug(Station::Vnet0);
        scene.plug(Station::Vnet0);
        scene.define("closed", "<rule action='drop' direction='inout'><all/></rule>").unwrap();
        let closed = ["nwfilter", "bind", "vnet0", "closed", "--mac", mac.as_str()];
        done(finish(scene.sandbox.netlaunch(&closed))).unwrap();
    }
}
