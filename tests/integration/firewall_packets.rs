//! Tests by real packets which of the guests of two networks, the host and an outside host reach
//! each other. The result is the same on every backend.

mod guests;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::{AT_MOST, Netns, have_root, run, skipped, text, wait_until};
use netlaunch::firewall::rules::{AddressRange, Mode, NetworkRules, for_network};
use netlaunch::firewall::{FirewallBackend, RemovalRecord, Tools, Transaction, transact};
use netlaunch::sys::program::Lookup;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

/// The port everyone serves.
const PORT: u16 = 7777;

/// Two bridges with a guest each, and an outside host, around a host that forwards.
struct Scene {
    host: Netns,
    guest_a: Netns,
    guest_b: Netns,
    outside: Netns,
    /// Each connection comes from another port below 1024, which no translation keeps.
    next_port: AtomicU16,
    heard: Heard,
}

/// The datagrams that arrived anywhere, by the port they were sent from.
type Heard = Arc<Mutex<BTreeSet<u16>>>;

impl Scene {
    fn new() -> Self {
        let [host, guest_a, guest_b, outside] = [(); 4].map(|()| Netns::bare());
        for (bridge, guest, n) in [("br-a", &guest_a, 10), ("br-b", &guest_b, 20)] {
            host.ip(&format!("link add {bridge} type bridge"));
            host.ip(&format!("link add port{n} type veth peer name eth0 netns {}", guest.name));
            host.ip(&format!("link set port{n} master {bridge} up"));
            host.ip(&format!("link set {bridge} up"));
            host.ip(&format!("address add 192.168.{n}.1/24 dev {bridge}"));
            host.ip(&format!("address add fd00:{n}::1/64 dev {bridge} nodad"));
            guest.ip("link set eth0 up");
            guest.ip(&format!("address add 192.168.{n}.2/24 dev eth0"));
            guest.ip(&format!("address add fd00:{n}::2/64 dev eth0 nodad"));
            guest.ip(&format!("route add default via 192.168.{n}.1"));
            guest.ip(&format!("-6 route add default via fd00:{n}::1"));
        }
        host.ip(&format!("link add up0 type veth peer name eth0 netns {}", outside.name));
        host.ip("link set up0 up");
        host.ip("address add 203.0.113.1/24 dev up0");
        host.ip("address add 203.0.113.7/24 dev up0"); // for address ranges
        host.ip("address add 2001:db8:f::1/64 dev up0 nodad");
        outside.ip("link set eth0 up");
        outside.ip("address add 203.0.113.2/24 dev eth0");
        outside.ip("address add 2001:db8:f::2/64 dev eth0 nodad");
        // The outside knows the way to the guests: what does not come in is refused, not lost.
        outside.ip("route add default via 203.0.113.1");
        outside.ip("-6 route add default via 2001:db8:f::1");
        host.inside(|| {
            for (file, value) in [
                ("ipv4/ip_forward", "1"),
                ("ipv6/conf/all/forwarding", "1"),
                // The kernel reports every refusal.
                ("ipv4/icmp_ratelimit", "0"),
                ("ipv6/icmp/ratelimit", "0"),
            ] {
                std::fs::write(format!("/proc/sys/net/{file}"), value).unwrap();
            }
        });
        let heard = Heard::default();
        for netns in [&host, &guest_a, &guest_b, &outside] {
            serve(netns, PORT, &heard);
            // Link-local addresses, which neighbours are asked from, are not used at once.
            let addresses = ["-n", &netns.name, "-6", "address"];
            let ready = || !text(&run("ip", &addresses).stdout).contains("tentative");
            assert!(wait_until(AT_MOST, ready));
        }
        Scene { host, guest_a, guest_b, outside, next_port: AtomicU16::new(200), heard }
    }

    fn transact(
        &self,
        tools: &Tools,
        backend: FirewallBackend,
        remove: &[RemovalRecord],
        networks: &[NetworkRules],
    ) -> Vec<RemovalRecord> {
        let add: Vec<_> = networks.iter().map(|n| for_network(n).unwrap()).collect();
        let transaction = Transaction { remove, add: &add, others: false };
        self.host.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(transact(tools, backend, &transaction)).unwrap()
        })
    }

    /// Returns the answer of the server at `to` to a connection from `from`: the source address and
    /// whether the port was kept, or `-` if the server is not reached.
    fn reach(&self, from: &Netns, to: IpAddr, port: u16, wait: Duration) -> String {
        let ways: Vec<String> = [SockType::Stream, SockType::Datagram]
            .into_iter()
            .map(|kind| {
                let own = self.next_port.fetch_add(1, Ordering::Relaxed);
                let Some(seen) = from.inside(|| ask(kind, own, (to, port).into(), wait)) else {
                    // Refused is what did not even arrive, not only what got no answer.
                    assert!(!self.heard.lock().unwrap().contains(&own), "{to} heard {}", from.name);
                    return "-".to_owned();
                };
                let seen: SocketAddr = seen.parse().unwrap();
                let port = match seen.port() {
                    port if port == own => "",
                    4000..=4100 if seen.ip() == IpAddr::from([203, 0, 113, 7]) => " 4000-4100",
                    1024.. => " 1024+",
                    other => panic!("a translated connection from port {other}"),
                };
                format!("{}{port}", seen.ip())
            })
            .collect();
        assert_eq!(ways[0], ways[1], "TCP and UDP differ: {} to {to}", from.name);
        ways[0].clone()
    }

    /// Everyone to everyone, for both IP versions, all at the same time: a refused connection takes
    /// a second, because TCP does not believe the first refusal.
    fn table(&self) -> String {
        let mut ways = Vec::new();
        for (version, a, b, outside, host) in [
            ("IPv4", "192.168.10.2", "192.168.20.2", "203.0.113.2", "192.168.10.1"),
            ("IPv6", "fd00:10::2", "fd00:20::2", "2001:db8:f::2", "fd00:10::1"),
        ] {
            ways.extend([
                (version, "A to outside", &self.guest_a, outside),
                (version, "outside to A", &self.outside, a),
                (version, "A to B", &self.guest_a, b),
                (version, "B to A", &self.guest_b, a),
                (version, "A to host", &self.guest_a, host),
            ]);
        }
        thread::scope(|scope| {
            let asked: Vec<_> = ways
                .into_iter()
                .map(|(version, name, from, to)| {
                    let (to, wait) = (to.parse().unwrap(), Duration::from_secs(2));
                    let seen = scope.spawn(move || self.reach(from, to, PORT, wait));
                    (version, name, seen)
                })
                .collect();
            let line = |(version, name, seen): (_, _, thread::ScopedJoinHandle<'_, String>)| {
                format!("{version} {name}: {}\n", seen.join().unwrap())
            };
            asked.into_iter().map(line).collect()
        })
    }
}

/// Answers each client with the client's address and port, for as long as the test runs.
fn serve(netns: &Netns, port: u16, heard: &Heard) {
    let heard = heard.clone();
    let (tcp, udp) = netns.inside(|| {
        (TcpListener::bind(("::", port)).unwrap(), UdpSocket::bind(("::", port)).unwrap())
    });
    let plain = |peer: SocketAddr| SocketAddr::new(peer.ip().to_canonical(), peer.port());
    thread::spawn(move || {
        while let Ok((mut stream, peer)) = tcp.accept() {
            let _ = stream.write_all(plain(peer).to_string().as_bytes());
        }
    });
    thread::spawn(move || {
        let mut port = [0; 2];
        while let Ok((_, peer)) = udp.recv_from(&mut port) {
            heard.lock().unwrap().insert(u16::from_be_bytes(port));
            let _ = udp.send_to(plain(peer).to_string().as_bytes(), peer);
        }
    });
}

/// Asks from a port of our own.
fn ask(kind: SockType, own: u16, to: SocketAddr, wait: Duration) -> Option<String> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::empty(), None).unwrap();
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &SockaddrStorage::from(SocketAddr::new(any, own)),
    )
    .unwrap();
    let limit = nix::sys::time::TimeVal::new(wait.as_secs() as i64, wait.subsec_micros() as i64);
    use nix::sys::socket::{setsockopt, sockopt};
    setsockopt(&socket.as_fd(), sockopt::SendTimeout, &limit).unwrap();
    setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &limit).unwrap();
    connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrStorage::from(to)).ok()?;
    let mut bytes = [0; 100];
    let n = match kind {
        SockType::Stream => TcpStream::from(socket).read(&mut bytes).ok()?,
        _ => {
            let socket = UdpSocket::from(socket);
            socket.send(&own.to_be_bytes()).ok()?;
            socket.recv(&mut bytes).ok()?
        }
    };
    Some(text(&bytes[..n])).filter(|seen| !seen.is_empty())
}

fn network(bridge: &str, n: u8, mode: Mode) -> NetworkRules {
    NetworkRules {
        bridge: bridge.parse().unwrap(),
        mode,
        subnets: vec![
            format!("192.168.{n}.1/24").parse().unwrap(),
            format!("fd00:{n}::1/64").parse().unwrap(),
        ],
        ipv6_between_guests: false,
        dhcp: true,
        dns: true,
        tftp: true,
    }
}

fn nat() -> Mode {
    Mode::Nat { devs: Vec::new(), addresses: None, ports: None, ipv6: true }
}

fn route() -> Mode {
    Mode::Route { devs: Vec::new() }
}

/// The backends of this machine, each with the tools for it: iptables in both its builds.
fn backends() -> Vec<(&'static str, FirewallBackend, Tools)> {
    let found = Tools::find(&[]);
    let legacy = |name: &str| Lookup::Found(PathBuf::from(format!("/usr/sbin/{name}")));
    let old = Tools {
        iptables_save: legacy("iptables-legacy-save"),
        iptables_restore: legacy("iptables-legacy-restore"),
        ip6tables_save: legacy("ip6tables-legacy-save"),
        ip6tables_restore: legacy("ip6tables-legacy-restore"),
        ..found.clone()
    };
    let mut all = vec![
        ("nftables", FirewallBackend::Nftables, found.clone()),
        ("iptables", FirewallBackend::Iptables, found),
    ];
    if std::path::Path::new("/usr/sbin/iptables-legacy-restore").exists() {
        all.push(("iptables-legacy", FirewallBackend::Iptables, old));
    }
    all
}

#[test]
fn each_forward_mode_passes_its_packets_and_no_others_on_nftables() {
    modes_let_through_what_they_say("nftables");
}

#[test]
fn each_forward_mode_passes_its_packets_and_no_others_on_iptables() {
    modes_let_through_what_they_say("iptables");
}

#[test]
fn each_forward_mode_passes_its_packets_and_no_others_on_legacy_iptables() {
    modes_let_through_what_they_say("iptables-legacy");
}

/// NAT that forwards through these interfaces only.
fn only(devs: &[&str]) -> Mode {
    let devs = devs.iter().map(|dev| dev.parse().unwrap()).collect();
    Mode::Nat { devs, addresses: None, ports: None, ipv6: true }
}

/// Routing through these interfaces only.
fn by(devs: &[&str]) -> Mode {
    Mode::Route { devs: devs.iter().map(|dev| dev.parse().unwrap()).collect() }
}

/// The same table for every backend.
fn modes_let_through_what_they_say(backend: &str) {
    let test = format!("modes_let_through_what_they_say_on_{backend}");
    if !have_root(&test) {
        return;
    }
    let Some((_, backend, tools)) = backends().into_iter().find(|b| b.0 == backend) else {
        skipped(&test, format_args!("there is no {backend} on this machine"));
        return;
    };
    let scene = Scene::new();
    let ranged = Mode::Nat {
        devs: Vec::new(),
        addresses: Some(AddressRange::V4([203, 0, 113, 7].into(), [203, 0, 113, 7].into())),
        ports: Some(4000..=4100),
        ipv6: false,
    };
    let (own4, own6) = ("192.168.10.2", "fd00:10::2");
    let (nat4, nat6) = ("203.0.113.1 1024+", "2001:db8:f::1 1024+");
    let (b4, b6) = ("192.168.20.2", "fd00:20::2");
    let (out4, out6) = ("203.0.113.2", "2001:db8:f::2");
    // Translated by the way they leave: by the bridge of B.
    let (hop4, hop6) = ("192.168.20.1 1024+", "fd00:20::1 1024+");
    let (hob4, hob6) = ("192.168.10.1 1024+", "fd00:10::1 1024+");
    // A to outside, outside to A, A to B, B to A, A to host; IPv4, then IPv6.
    for (a, b, expected) in [
        (Mode::Open, Mode::Open, [[own4, out4, own4, b4, own4], [own6, out6, own6, b6, own6]]),
        (Mode::Isolated, route(), [["-", "-", "-", "-", own4], ["-", "-", "-", "-", own6]]),
        (Mode::Isolated, Mode::Open, [["-", "-", "-", "-", own4], ["-", "-", "-", "-", own6]]),
        (Mode::Isolated, nat(), [["-", "-", "-", "-", own4], ["-", "-", "-", "-", own6]]),
        (nat(), nat(), [[nat4, "-", "-", "-", own4], [nat6, "-", "-", "-", own6]]),
        (nat(), route(), [[nat4, "-", hop4, "-", own4], [nat6, "-", hop6, "-", own6]]),
        (nat(), Mode::Isolated, [[nat4, "-", "-", "-", own4], [nat6, "-", "-", "-", own6]]),
        (
            ranged,
            nat(),
            [["203.0.113.7 4000-4100", "-", "-", "-", own4], [own6, out6, "-", hob6, own6]],
        ),
        (route(), route(), [[own4, out4, own4, b4, own4], [own6, out6, own6, b6, own6]]),
        (route(), nat(), [[own4, out4, "-", hob4, own4], [own6, out6, "-", hob6, own6]]),
        (route(), Mode::Isolated, [[own4, out4, "-", "-", own4], [own6, out6, "-", "-", own6]]),
        (only(&["up0"]), route(), [[nat4, "-", "-", "-", own4], [nat6, "-", "-", "-", own6]]),
        (only(&["up1"]), route(), [["-", "-", "-", "-", own4], ["-", "-", "-", "-", own6]]),
        (
            only(&["up1", "up0"]),
            route(),
            [[nat4, "-", "-", "-", own4], [nat6, "-", "-", "-", own6]],
        ),
        (
            only(&["br-b", "up0"]),
            route(),
            [[nat4, "-", hop4, "-", own4], [nat6, "-", hop6, "-", own6]],
        ),
        (
            by(&["up0", "br-b"]),
            route(),
            [[own4, out4, own4, b4, own4], [own6, out6, own6, b6, own6]],
        ),
        (by(&["up0"]), route(), [[own4, out4, "-", "-", own4], [own6, out6, "-", "-", own6]]),
        (by(&["br-b"]), route(), [["-", "-", own4, b4, own4], ["-", "-", own6, b6, own6]]),
    ] {
        let names = ["A to outside", "outside to A", "A to B", "B to A", "A to host"];
        let expected: String = ["IPv4", "IPv6"]
            .iter()
            .zip(expected)
            .flat_map(|(version, seen)| {
                names
                    .iter()
                    .zip(seen)
                    .map(move |(name, seen)| format!("{version} {name}: {seen}\n"))
            })
            .collect();
        let networks = [network("br-a", 10, a), network("br-b", 20, b)];
        let recorded = scene.transact(&tools, backend, &[], &networks);
        let (a, b) = (&networks[0].mode, &networks[1].mode);
        assert_eq!(scene.table(), expected, "A {a:?}, B {b:?}");
        scene.transact(&tools, backend, &recorded, &[]);
    }
}
