//! Tests DHCP through the stricter stock filters, with a real dnsmasq behind the bridge: a guest
//! leases addresses for its own MAC address alone, and cannot be a server.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::common::dhcp_frame::{self, DhcpFrame};
use crate::common::frame::{Frame, PEER, VM};
use crate::common::port_scene::{PortScene, Station};
use crate::common::{AT_MOST, have_root, wait_until};

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;

/// dnsmasq on the bridge, with 21 addresses.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(scene: &PortScene) -> Server {
    let leases = scene.sandbox.path("leases");
    let mut command = scene.sandbox.program(Path::new("/usr/sbin/dnsmasq"));
    command
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping"])
        .args(["--interface=br0", "--bind-interfaces", "--user=root", "--pid-file="])
        .args(["--dhcp-authoritative", "--dhcp-range=10.2.3.100,10.2.3.120,1h"])
        .arg(format!("--dhcp-leasefile={}", leases.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let server = Server(command.spawn().unwrap());
    let listens = || scene.sh("ss -lun").contains(":67 ");
    assert!(wait_until(AT_MOST, listens), "dnsmasq does not serve");
    server
}

/// The addresses that the server has given away.
fn leases(scene: &PortScene) -> usize {
    let text = std::fs::read_to_string(scene.sandbox.path("leases")).unwrap_or_default();
    text.lines().filter(|line| line.contains("10.2.3.")).count()
}

fn asks(message: u8, client: [u8; 6]) -> DhcpFrame {
    let mut question = DhcpFrame::asks(message);
    (question.from, question.chaddr) = (VM.mac, client);
    question
}

/// Takes an address in the name of each of 30 clients, as one guest.
fn starve(scene: &PortScene) {
    for number in 0..30 {
        let client = [2, 0, 0, 0, 1, number];
        let address = [10, 2, 3, 100 + number];
        scene.write(Station::Vnet0, &asks(DISCOVER, client).bytes());
        let request = asks(REQUEST, client).options(&[
            &[53, 1, REQUEST],
            &[50, 4],
            &address,
            &[54, 4, 10, 2, 3, 254],
        ]);
        scene.write(Station::Vnet0, &request.bytes());
    }
    std::thread::sleep(Duration::from_millis(500));
}

/// Asks for an address with the guest's own MAC address in `chaddr`, but of this type and length
/// and with further bytes behind it, and through this relay.
fn starve_with(scene: &PortScene, number: u8, kind: u8, length: u8, relay: [u8; 4]) {
    /// Ethernet's, IPv4's and UDP's headers.
    const MESSAGE: usize = 14 + 20 + 8;
    let options = [53, 1, REQUEST, 50, 4, 10, 2, 3, 100 + number, 54, 4, 10, 2, 3, 254];
    let request = asks(REQUEST, VM.mac).options(&[&options]);
    for frame in [asks(DISCOVER, VM.mac), request] {
        let mut bytes = frame.bytes();
        let message = &mut bytes[MESSAGE..];
        (message[1], message[2]) = (kind, length);
        message[24..28].copy_from_slice(&relay);
        message[34..44].fill(number + 1);
        scene.write(Station::Vnet0, &bytes);
    }
}

/// Clients that dnsmasq tells from the guest, though they have its MAC address.
const OTHER_TYPES: [(u8, u8); 7] = [(1, 5), (1, 8), (1, 10), (1, 16), (0, 6), (6, 6), (32, 6)];

/// Tries all of [`OTHER_TYPES`], and a relay in the bridge's network.
fn starve_with_other_types(scene: &PortScene) {
    for ((kind, length), number) in OTHER_TYPES.into_iter().zip(0..) {
        starve_with(scene, number, kind, length, [0; 4]);
    }
    starve_with(scene, 15, 1, 6, [10, 2, 3, 4]);
    std::thread::sleep(Duration::from_millis(500));
}

/// Takes an address for the guest itself.
fn lease(scene: &PortScene) -> bool {
    let request = asks(REQUEST, VM.mac).options(&[
        &[53, 1, REQUEST],
        &[50, 4, 10, 2, 3, 111],
        &[54, 4, 10, 2, 3, 254],
    ]);
    scene.write(Station::Vnet0, &asks(DISCOVER, VM.mac).bytes());
    scene.write(Station::Vnet0, &request.bytes());
    wait_until(Duration::from_secs(3), || leases(scene) == 1)
}

#[test]
fn a_strictly_filtered_guest_leases_addresses_for_its_own_mac_alone() {
    if !have_root("a_strictly_filtered_guest_leases_addresses_for_its_own_mac_alone") {
        return;
    }
    for backend in ["nftables", "iptables"] {
        println!("{backend}");
        let scene = PortScene::new(Some(backend));
        let _server = serve(&scene);
        scene
            .bind(Station::Vnet0, "clean-traffic-strict", &[("IP", VM.v4.to_string().as_str())])
            .unwrap();
        starve(&scene);
        assert_eq!(leases(&scene), 0, "leases of forged clients");
        starve_with_other_types(&scene);
        assert_eq!(leases(&scene), 0, "leases of other hardware types, lengths and relays");
        // The begin of a packet that ends before the client's address, and the rest.
        let whole = asks(DISCOVER, [2, 0, 0, 0, 2, 1]).bytes();
        let (head, message) = (&whole[..34], &whole[34..]);
        for (part, flags) in [(&message[..8], 0x2000_u16), (&message[8..], 1)] {
            let mut head = head.to_vec();
            head[16..18].copy_from_slice(&((20 + part.len()) as u16).to_be_bytes());
            head[20..22].copy_from_slice(&flags.to_be_bytes());
            head[24..26].fill(0);
            dhcp_frame::set_checksum(&mut head[14..34]);
            scene.write(Station::Vnet0, &[&head, part].concat());
        }
        assert!(lease(&scene), "a lease for the guest's own address");
        scene.unbind(Station::Vnet0);
        scene.bind(Station::Vnet0, "clean-traffic", &[("IP", "10.2.3.4")]).unwrap();
        starve_with_other_types(&scene);
        let count = leases(&scene);
        assert!(count > 3, "the attack by types works through clean-traffic: {count}");
        starve(&scene);
        assert!(leases(&scene) > 15, "the attack works through clean-traffic: {}", leases(&scene));
    }
}

#[test]
fn a_guest_that_is_learned_leases_no_addresses_of_forged_clients() {
    if !have_root("a_guest_that_is_learned_leases_no_addresses_of_forged_clients") {
        return;
    }
    for backend in ["nftables", "iptables"] {
        println!("{backend}");
        let scene = PortScene::new(Some(backend));
        let _server = serve(&scene);
        scene.bind(Station::Vnet0, "clean-traffic-strict", &[]).unwrap();
        starve(&scene);
        starve_with_other_types(&scene);
        assert_eq!(leases(&scene), 0, "leases of forged clients");
        assert!(lease(&scene), "a lease for the guest's own address");
        scene.unbind(Station::Vnet0);
    }
}

#[test]
fn a_strictly_filtered_guest_is_no_dhcp_server_and_no_router() {
    if !have_root("a_strictly_filtered_guest_is_no_dhcp_server_and_no_router") {
        return;
    }
    for backend in ["nftables", "iptables"] {
        let scene = PortScene::new(Some(backend));
        let answers = [Frame::udp(VM, PEER, 67, 68), Frame::udp(VM, PEER, 1067, 68)];
        let answer_v6 = Frame::udp6(VM, PEER, 547, 546);
        scene.bind(Station::Vnet0, "netlaunch-no-rogue-server", &[]).unwrap();
        for answer in answers.iter().chain([&answer_v6]) {
            assert!(!scene.leaves(answer), "{backend}");
            assert!(
                scene.enters(&Frame::udp(PEER, VM, 67, 68)),
                "{backend}: the guest's own server"
            );
        }
        assert!(scene.leaves(&Frame::udp(VM, PEER, 68, 67)), "{backend}");
        assert!(scene.leaves(&Frame::udp6(VM, PEER, 546, 547)), "{backend}");
        scene.unbind(Station::Vnet0);
        scene.bind(Station::Vnet0, "clean-traffic", &[("IP", "10.2.3.4")]).unwrap();
        assert!(scene.leaves(&answers[0]), "{backend}: clean-traffic is libvirt's");
    }
}

#[test]
fn a_control_variable_of_another_value_is_refused() {
    if !have_root("a_control_variable_of_another_value_is_refused") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let refusal = scene
        .bind(Station::Vnet0, "netlaunch-dhcp-client", &[("CTRL_DHCP_CLIENT", "mine")])
        .unwrap_err();
    assert!(refusal.contains("CTRL_DHCP_CLIENT cannot be \"mine\": use own or any"), "{refusal}");
}
