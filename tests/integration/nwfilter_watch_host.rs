//! Tests that an interface whose name a watch rule has cannot reach the host, and the host cannot
//! reach it, while it is on and on no bridge.
//!
//! ```text
//! vnet9 ── the host ── out9      vnet9 has the name of the rule, out9 has not; both are taps,
//!                                and neither is on a bridge
//! ```

use std::cell::Cell;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use netlaunch::sys::tap::{TUN, Tap, TapName};

use crate::common::frame::{BRIDGE, Frame, Host, OTHER, PEER, VM, mac_text};
use crate::common::port_scene::{PortScene, Station, VNET_HEADER, done};
use crate::common::{AT_MOST, finish, have_root, text, wait_until};
use crate::nwfilter_watch::{is_bound, port, rule, watched};

/// The station behind vnet9, and the one behind out9.
const NEAR: Host = Host {
    mac: [0x52, 0x54, 0, 0, 9, 1],
    v4: Ipv4Addr::new(10, 9, 9, 9),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9),
};
const FAR: Host = Host {
    mac: [0x52, 0x54, 0, 0, 8, 1],
    v4: Ipv4Addr::new(10, 8, 8, 8),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 8, 0, 0, 0, 0, 8),
};
/// The host's MAC address on both interfaces.
const HOST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 9, 0xfe];
/// A port of the host.
const UDP: u16 = 4000;

/// The two interfaces, and the sockets of the host.
struct Loose<'a> {
    scene: &'a PortScene,
    near: File,
    far: File,
    sockets: [UdpSocket; 2],
    /// Each frame has another number.
    number: Cell<u32>,
}

impl<'a> Loose<'a> {
    fn new(scene: &'a PortScene) -> Self {
        let tap = |name: &str, host: Host| -> File {
            let exact = TapName::Exact(name.parse().unwrap());
            let tap = scene.netns.inside(|| Tap::open(Path::new(TUN), &exact).unwrap().into_fd());
            let netns = &scene.netns;
            netns.ip(&format!("link set {name} address {} up", mac_text(HOST_MAC)));
            let mac = mac_text(host.mac);
            for (address, length) in [(IpAddr::V4(host.v4), 32), (IpAddr::V6(host.v6), 128)] {
                netns.ip(&format!("route add {address}/{length} dev {name}"));
                netns.ip(&format!("neighbour add {address} lladdr {mac} dev {name}"));
            }
            tap.into()
        };
        let (near, far) = (tap("vnet9", NEAR), tap("out9", FAR));
        let sockets = scene.netns.inside(|| {
            for version in ["ipv4", "ipv6"] {
                let file = format!("/proc/sys/net/{version}/conf/all/forwarding");
                std::fs::write(file, "1").unwrap();
            }
            let hosts = [IpAddr::V4(BRIDGE.v4), IpAddr::V6(BRIDGE.v6)];
            hosts.map(|host| UdpSocket::bind((host, UDP)).unwrap())
        });
        sockets.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        Loose { scene, near, far, sockets, number: Cell::new(0) }
    }

    /// Returns the ways between the station behind vnet9 and the host that are open.
    fn ways(&self) -> Vec<&'static str> {
        let host = Host { mac: HOST_MAC, ..BRIDGE };
        let through = |to: Host| Host { mac: HOST_MAC, ..to };
        let [socket4, socket6] = &self.sockets;
        let to_host4 = |number: &[u8]| self.hears(socket4, Frame::udp(NEAR, host, 1, UDP), number);
        let to_host6 = |number: &[u8]| self.hears(socket6, Frame::udp6(NEAR, host, 1, UDP), number);
        let arp = |_: &[u8]| {
            write(&self.near, &Frame::arp(NEAR, BRIDGE, 1).bytes(&[]));
            // The operation of an answer is 2.
            came(&self.near, |frame| frame[12..14] == [0x08, 0x06] && frame[20..22] == [0, 2])
        };
        let between = |from: &File, to: &File, frame: Frame, number: &[u8]| {
            write(from, &frame.bytes(number));
            came(to, |frame| frame.windows(number.len()).any(|bytes| bytes == number))
        };
        let from_host = |socket: &UdpSocket, to: IpAddr, number: &[u8]| {
            // A packet that the firewall drops can be an error of the sender.
            let _ = socket.send_to(number, (to, 9));
            came(&self.near, |frame| frame.windows(number.len()).any(|bytes| bytes == number))
        };
        type Way<'b> = (&'static str, &'b dyn Fn(&[u8]) -> bool);
        let ways: [Way<'_>; 9] = [
            ("to the host, IPv4", &to_host4),
            ("to the host, IPv6", &to_host6),
            ("ARP", &arp),
            ("from the host, IPv4", &|n| from_host(socket4, NEAR.v4.into(), n)),
            ("from the host, IPv6", &|n| from_host(socket6, NEAR.v6.into(), n)),
            ("routed out, IPv4", &|n| {
                between(&self.near, &self.far, Frame::udp(NEAR, through(FAR), 1, 2), n)
            }),
            ("routed out, IPv6", &|n| {
                between(&self.near, &self.far, Frame::udp6(NEAR, through(FAR), 1, 2), n)
            }),
            ("routed in, IPv4", &|n| {
                between(&self.far, &self.near, Frame::udp(FAR, through(NEAR), 1, 2), n)
            }),
            ("routed in, IPv6", &|n| {
                between(&self.far, &self.near, Frame::udp6(FAR, through(NEAR), 1, 2), n)
            }),
        ];
        let open = ways.into_iter().filter(|(_, is_open)| {
            self.number.set(self.number.get() + 1);
            is_open(&[b"nlloose-".as_slice(), &self.number.get().to_be_bytes()].concat())
        });
        open.map(|(name, _)| name).collect()
    }

    fn hears(&self, socket: &UdpSocket, frame: Frame, number: &[u8]) -> bool {
        write(&self.near, &frame.bytes(number));
        let mut buffer = [0; 100];
        wait_until(PATIENCE, || {
            socket.recv(&mut buffer).is_ok_and(|length| buffer[..length].ends_with(number))
        })
    }

    /// Returns whether the station behind out9, whose name no rule has, reaches the host.
    fn others_reach_the_host(&self) -> bool {
        let host = Host { mac: HOST_MAC, ..BRIDGE };
        write(&self.far, &Frame::udp(FAR, host, 1, UDP).bytes(b"nlother"));
        let mut buffer = [0; 100];
        wait_until(PATIENCE, || self.sockets[0].recv(&mut buffer).is_ok())
    }

    fn netlaunch(&self, args: &[&str]) -> String {
        let output = finish(self.scene.sandbox.netlaunch(args));
        text(&output.stdout) + &text(&output.stderr)
    }
}

/// The time in which a frame passes the host, or does not.
const PATIENCE: Duration = Duration::from_millis(300);

fn write(mut tap: &File, frame: &[u8]) {
    let bytes = [&[0; VNET_HEADER], frame].concat();
    assert_eq!(tap.write(&bytes).unwrap(), bytes.len());
}

/// Returns whether a frame of this kind comes out of a tap.
fn came(mut tap: &File, is_it: impl Fn(&[u8]) -> bool) -> bool {
    let mut buffer = vec![0; 65_600];
    wait_until(PATIENCE, || {
        loop {
            match tap.read(&mut buffer) {
                Ok(length) if is_it(&buffer[VNET_HEADER..length]) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("{error}"),
            }
        }
    })
}

#[test]
fn an_interface_that_is_on_before_it_joins_its_bridge_does_not_reach_the_host() {
    let test = "an_interface_that_is_on_before_it_joins_its_bridge_does_not_reach_the_host";
    if !have_root(test) {
        return;
    }
    // iptables and ip6tables see no ARP.
    for (backend, left) in [("nftables", &[][..]), ("iptables", &["ARP"][..])] {
        let scene = PortScene::new(Some(backend));
        let loose = Loose::new(&scene);
        let all = loose.ways();
        assert_eq!(all.len(), 9, "{backend}: {all:?}");
        let watcher = watched(&scene, backend, &rule(""));
        assert_eq!(loose.ways(), left, "{backend}");
        assert!(loose.others_reach_the_host(), "{backend}");
        if backend == "nftables" {
            // A bridge with the name of the rule is no port.
            scene.netns.ip("link add vnetbr0 type bridge forward_delay 0");
            scene.netns.ip("link set vnetbr0 up");
            scene.netns.ip("link set out9 master vnetbr0");
            assert!(wait_until(PATIENCE, || loose.others_reach_the_host()));
            scene.netns.ip("link delete vnetbr0");
        }
        // A bound port of a bridge reaches the host as before.
        assert!(is_bound(&scene, "vnet0"), "{backend}");
        assert!(scene.reaches_host(67) && scene.leaves(&Frame::udp(VM, PEER, 1, 2)), "{backend}");
        drop(watcher);
        assert_eq!(loose.ways(), left, "{backend}, without the watcher");
        assert!(!loose.netlaunch(&["firewall", "check"]).contains("guard"), "{backend}");
        let tables: &[&str] = match backend {
            "nftables" => &["nft delete table ip", "nft delete table ip6", "nft delete table arp"],
            _ => &["iptables -t mangle -F", "ip6tables -t mangle -F"],
        };
        for table in tables {
            let own = if backend == "nftables" { " netlaunch_nwfilter" } else { "" };
            scene.sh(&format!("{table}{own}"));
            let said = loose.netlaunch(&["firewall", "check"]);
            assert!(said.contains("guard"), "{table}: {said}");
            done(finish(scene.sandbox.netlaunch(&["firewall", "reload"]))).unwrap();
            assert_eq!(loose.ways(), left, "{table}");
        }
        done(scene.nwfilter(&["watch", "--stop"])).unwrap();
        assert_eq!(loose.ways(), all, "{backend}");
        // The table of the family bridge stays for vnet0, with empty chains of the guard.
        let rules = scene.ruleset();
        for part in ["table ip netlaunch", "table ip6 netlaunch", "table arp", "NETLAUNCH_GUARD"] {
            assert!(!rules.contains(part), "{backend}: {part}: {rules}");
        }
    }
}

#[test]
fn an_interface_that_joins_its_bridge_later_has_its_filter_and_the_host_again() {
    let test = "an_interface_that_joins_its_bridge_later_has_its_filter_and_the_host_again";
    if !have_root(test) {
        return;
    }
    for backend in ["nftables", "iptables"] {
        let scene = PortScene::new(Some(backend));
        let _watcher = watched(&scene, backend, &rule("").replace("vnet*", "vnet0"));
        assert!(is_bound(&scene, "vnet0"), "{backend}");
        scene.unplug(Station::Vnet0);
        let is_gone = || port(&scene, "vnet0").is_null();
        assert!(wait_until(AT_MOST, is_gone), "{backend}");
        // `plug` turns the tap on before it is on the bridge.
        scene.plug(Station::Vnet0);
        assert!(is_bound(&scene, "vnet0"), "{backend}");
        assert!(scene.reaches_host(67), "{backend}");
        assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)), "{backend}");
        assert!(!scene.leaves(&Frame::udp(OTHER, PEER, 1, 2)), "{backend}");
    }
}
