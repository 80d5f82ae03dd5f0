//! The relay of a launch, and the tests that it needs no setting and no rule of the host.

use super::*;
use std::os::fd::OwnedFd;

use netlaunch::network::relay::Relay;
use netlaunch::types::{Protocol, Publish};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// A relay in a thread, with the sockets that keep the ports. Dropping it ends both.
pub(super) struct Relayed {
    pub(super) publish: Vec<Publish>,
    addresses: Option<UnboundedSender<GuestAddress>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Relayed {
    pub(super) fn new(host: &Netns, publish: &[Publish], address: GuestAddress) -> Self {
        let (addresses, mut changed) = unbounded_channel();
        let ports = publish.to_vec();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = host.inside(|| {
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async {
                    let held: Vec<OwnedFd> = ports.iter().flat_map(hold).collect();
                    let relay = Relay::start(&ports, &held, address).unwrap();
                    ready.send(()).unwrap();
                    while let Some(address) = changed.recv().await {
                        relay.lead_to(address);
                    }
                });
            })
        });
        is_ready.recv().unwrap();
        let publish = publish.to_vec();
        Relayed { publish, addresses: Some(addresses), thread: Some(thread) }
    }

    pub(super) fn lead_to(&self, address: GuestAddress) {
        self.addresses.as_ref().unwrap().send(address).unwrap();
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.addresses.take();
        let _ = self.thread.take().unwrap().join();
    }
}

/// Keeps the ports of a range, as `launcher::ports` does.
fn hold(one: &Publish) -> impl Iterator<Item = OwnedFd> {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
    };
    use std::os::fd::AsRawFd;
    let (address, protocol) = (one.address, one.protocol);
    one.host.ports().map(move |port| {
        let v6 = address.is_ipv6();
        let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let kind = match protocol {
            Protocol::Tcp => SockType::Stream,
            Protocol::Udp => SockType::Datagram,
        };
        let held = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        if v6 {
            setsockopt(&held, sockopt::Ipv6V6Only, &true).unwrap();
        }
        setsockopt(&held, sockopt::ReuseAddr, &(protocol == Protocol::Tcp)).unwrap();
        bind(held.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, port))).unwrap();
        held
    })
}

/// CVE-2020-8558: a guest sends packets to 127.0.0.1 over its card.
#[test]
fn loopback_services_of_the_host_stay_closed_to_guests_without_any_rule() {
    let test = "loopback_services_of_the_host_stay_closed_to_guests_without_any_rule";
    for tools in [Tools::Nftables, Tools::Iptables] {
        let Some(scene) = Scene::new(test, tools, "<forward mode='nat'/>") else { return };
        let listener = scene.host.inside(|| TcpListener::bind("127.0.0.1:7070").unwrap());
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write_all(b"secret x");
            }
        });
        scene.other.ip("route add 127.0.0.1/32 via 10.60.0.1 table 7");
        scene.other.ip("rule add to 127.0.0.1/32 pref 0 lookup 7");
        scene.other.ip("rule add pref 1 lookup local");
        scene.other.ip("rule del pref 0 lookup local");
        scene.other.says("sysctl", &["-qw", "net.ipv4.conf.eth0.route_localnet=1"]);
        scene.publish(&PUBLISHED);
        let guest = scene.published(&[], 2);
        assert_eq!(reach(&scene.host, "127.0.0.1:8001"), "9001 10.60.0.1");
        assert_eq!(reach(&scene.other, "127.0.0.1:7070"), "-", "{tools:?}");
        assert_eq!(reach(&scene.other, "127.0.0.1:8001"), "-", "{tools:?}");
        scene.sh("nft flush ruleset; for t in nat filter; do iptables -t $t -F; done");
        assert_eq!(reach(&scene.other, "127.0.0.1:7070"), "-", "{tools:?}: without rules");
        assert_eq!(reach(&scene.other, "127.0.0.1:8001"), "-", "{tools:?}: without rules");
        assert_eq!(reach(&scene.host, "127.0.0.1:8001"), "9001 10.60.0.1", "{tools:?}");
        let settings = "cat /proc/sys/net/ipv4/conf/*/route_localnet";
        assert!(!scene.sh(settings).contains('1'), "{tools:?}");
        // The setting alone opens the service, so the test would see an open one.
        scene.sh("echo 1 >/proc/sys/net/ipv4/conf/nlp0/route_localnet");
        assert_eq!(reach(&scene.other, "127.0.0.1:7070"), "- or secret x", "{tools:?}");
        scene.with(async |manager| {
            manager.unpublish(&lab(), &guest.tap, guest.index).await.unwrap();
        });
    }
}

/// The socket on 0.0.0.0 is for clients on loopback; the rules decide about all others.
#[test]
fn a_port_on_every_address_is_relayed_to_clients_on_loopback_only() {
    let test = "a_port_on_every_address_is_relayed_to_clients_on_loopback_only";
    let Some(scene) = Scene::new(test, Tools::Nftables, "<forward mode='nat'/>") else { return };
    scene.publish(&PUBLISHED);
    assert_eq!(reach(&scene.outside, "203.0.113.1:8021"), "9001 203.0.113.2");
    scene.sh("nft flush ruleset");
    for (from, to) in [
        (&scene.outside, "203.0.113.1:8021"),
        (&scene.outside, "[2001:db8:f::1]:8021"),
        (&scene.other, "10.60.0.1:8022"),
        (&scene.host, "203.0.113.1:8021"),
    ] {
        assert_eq!(reach(from, to), "-", "{to}");
    }
    assert_eq!(reach(&scene.host, "127.0.0.9:8021"), "9001 10.60.0.1");
    assert_eq!(reach(&scene.host, "[::1]:8022"), "9002 fd00:60::1");
}
