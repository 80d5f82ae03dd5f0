//! Tests by real packets which clients reach a guest through the published ports of its host, on
//! every backend: the host, an outside host, another guest and the guest itself.

mod lifecycle;
mod relayed;
mod sources;
mod strict;
mod traffic;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::common::{AT_MOST, Netns, have_root, processes_with, skipped, text, wait_until};
use netlaunch::firewall::FirewallBackend;
use netlaunch::network::NetworkName;
use netlaunch::network::manager::{GuestAddress, Manager, ManagerSettings, PublishedGuest};
use relayed::Relayed;
use traffic::{address, reach, serve};

/// The first port that the guest serves; the next one is the second.
const PORT: u16 = 9001;
const MAC: &str = "52:54:00:00:60:02";

/// The ports of the host that lead to the guest.
const PUBLISHED: [&str; 12] = [
    "8001:9001",
    "8001:9001/udp",
    "[::1]:8001:9001",
    "[::1]:8001:9001/udp",
    "203.0.113.1:8011:9001",
    "203.0.113.1:8011:9001/udp",
    "0.0.0.0:8021-8022:9001",
    "0.0.0.0:8021-8022:9001/udp",
    "[2001:db8:f::1]:8011:9001",
    "[2001:db8:f::1]:8011:9001/udp",
    "[::]:8021-8022:9001",
    "[::]:8021-8022:9001/udp",
];

/// The bridge's addresses in a definition.
const ADDRESSES: &str = "<ip address='10.60.0.1' netmask='255.255.255.0'/>\
     <ip family='ipv6' address='fd00:60::1' prefix='64'/>";

/// In place of a `<forward>`: a network without addresses.
const BARE: &str = "bare";

/// In place of a `<forward>`: a network that gives addresses to its guests.
const WITH_DHCP: &str = "dhcp";

/// A network on a bridge of the host.
const ON_BRIDGE: &str = "<forward mode='bridge'/>";

/// The tools of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tools {
    Nftables,
    Iptables,
    Legacy,
}

impl Tools {
    fn backend(self) -> FirewallBackend {
        match self {
            Tools::Nftables => FirewallBackend::Nftables,
            _ => FirewallBackend::Iptables,
        }
    }

    /// The iptables program that a user of this backend calls.
    fn iptables(self, v6: bool) -> &'static str {
        match (self, v6) {
            (Tools::Legacy, false) => "iptables-legacy",
            (Tools::Legacy, true) => "ip6tables-legacy",
            (_, false) => "iptables",
            (_, true) => "ip6tables",
        }
    }
}

/// A host with a network, two guests of it, and an outside host.
struct Scene {
    /// The ports on loopback addresses, as a launch relays them.
    relayed: Mutex<Option<Relayed>>,
    host: Netns,
    guest: Netns,
    other: Netns,
    outside: Netns,
    dir: tempfile::TempDir,
    tools: Tools,
}

impl Scene {
    /// Returns a scene whose network is started with this `<forward>`; `None` if a program is
    /// missing.
    fn new(test: &str, tools: Tools, forward: &str) -> Option<Self> {
        if !have_root(test) {
            return None;
        }
        if tools == Tools::Legacy && !fs::exists("/usr/sbin/iptables-legacy-restore").unwrap() {
            skipped(test, format_args!("there is no iptables-legacy on this machine"));
            return None;
        }
        let dir = tempfile::Builder::new().prefix("nltest-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(dir.path().join("config/networks")).unwrap();
        fs::create_dir_all(dir.path().join("bin")).unwrap();
        if tools == Tools::Legacy {
            for (name, old) in [("iptables", "iptables-legacy"), ("ip6tables", "ip6tables-legacy")]
            {
                for verb in ["save", "restore"] {
                    let link = dir.path().join(format!("bin/{name}-{verb}"));
                    std::os::unix::fs::symlink(format!("/usr/sbin/{old}-{verb}"), link).unwrap();
                }
            }
        }
        let [host, guest, other, outside] = [(); 4].map(|()| Netns::bare());
        let relayed = Mutex::default();
        let scene = Scene { relayed, host, guest, other, outside, dir, tools };
        scene.wire_outside();
        scene.define(forward);
        scene.with(async |manager| manager.start(&lab()).await.unwrap());
        scene.wire_guests();
        Some(scene)
    }

    fn wire_outside(&self) {
        let Scene { host, outside, .. } = self;
        host.wire("up0", outside, "eth0");
        host.ip("address add 203.0.113.1/24 dev up0");
        host.ip("address add 2001:db8:f::1/64 dev up0 nodad");
        outside.ip("address add 203.0.113.2/24 dev eth0");
        outside.ip("address add 2001:db8:f::2/64 dev eth0 nodad");
        // The outside knows the way to the guests, so a refused packet is not a lost one.
        outside.ip("route add default via 203.0.113.1");
        outside.ip("-6 route add default via 2001:db8:f::1");
    }

    fn wire_guests(&self) {
        for (guest, port, n, mac) in
            [(&self.guest, "port2", 2, MAC), (&self.other, "port3", 3, "52:54:00:00:60:03")]
        {
            self.host.wire(port, guest, "eth0");
            guest.ip(&format!("link set eth0 address {mac}"));
            self.host.ip(&format!("link set {port} master nlp0"));
            // A launch does the same for its tap: with br_netfilter a guest reaches its own port
            // so.
            self.host.ip(&format!("link set {port} type bridge_slave hairpin on"));
            address(guest, n);
            serve(guest);
        }
        self.wait_for_addresses();
    }

    /// Waits until no address is tentative.
    fn wait_for_addresses(&self) {
        for netns in [&self.host, &self.guest, &self.other, &self.outside] {
            let ready = || !netns.says("ip", &["-6", "address"]).contains("tentative");
            assert!(wait_until(AT_MOST, ready));
        }
    }

    fn define(&self, forward: &str) {
        if forward == ON_BRIDGE {
            let Scene { host, .. } = self;
            host.ip("link add nlp0 type bridge");
            host.ip("link set nlp0 up");
            host.ip("address add 10.60.0.1/24 dev nlp0");
            host.ip("address add fd00:60::1/64 dev nlp0 nodad");
            let xml = format!(
                "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000061</uuid>{forward}\
                 <bridge name='nlp0'/></network>"
            );
            fs::write(self.dir.path().join("config/networks/lab.xml"), xml).unwrap();
            return;
        }
        let (forward, addresses) = match forward {
            BARE => ("", ""),
            WITH_DHCP => ("<forward mode='nat'/>", sources::ADDRESSES),
            forward => (forward, ADDRESSES),
        };
        let xml = format!(
            "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000060</uuid>{forward}\
             <bridge name='nlp0'/><mac address='52:54:00:00:60:01'/>\
             <dns enable='no'/>{addresses}</network>"
        );
        fs::write(self.dir.path().join("config/networks/lab.xml"), xml).unwrap();
    }

    fn manager(&self, backend: FirewallBackend) -> Manager {
        let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Into::into);
        Manager::new(ManagerSettings {
            config_dir: self.dir.path().join("config"),
            state_dir: self.dir.path().join("state"),
            path: std::iter::once(self.dir.path().join("bin")).chain(system).collect(),
            system_bus: "unix:path=/nonexistent/bus".into(),
            firewall_backend: Some(backend),
        })
    }

    fn with<T: Send>(&self, work: impl AsyncFnOnce(Manager) -> T + Send) -> T {
        self.with_backend(self.tools.backend(), work)
    }

    fn with_backend<T: Send>(
        &self,
        backend: FirewallBackend,
        work: impl AsyncFnOnce(Manager) -> T + Send,
    ) -> T {
        let manager = self.manager(backend);
        self.host.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work(manager))
        })
    }

    /// The guest behind `port2`, with these ports and its addresses that end with `n`.
    fn published(&self, publish: &[&str], n: u8) -> PublishedGuest {
        let index = self.host.says("cat", &["/sys/class/net/port2/ifindex"]);
        PublishedGuest {
            launch: "web".to_owned(),
            tap: "port2".parse().unwrap(),
            index: index.trim().parse().unwrap(),
            mac: MAC.parse().unwrap(),
            publish: publish.iter().map(|text| text.parse().unwrap()).collect(),
            address: GuestAddress {
                ipv4: Some([10, 60, 0, n].into()),
                ipv6: Some(format!("fd00:60::{n}").parse().unwrap()),
            },
            subnets: Vec::new(),
        }
    }

    fn publish(&self, publish: &[&str]) {
        self.publish_guest(&self.published(publish, 2));
    }

    /// Publishes the ports of a guest as a launch does.
    fn publish_guest(&self, guest: &PublishedGuest) {
        self.with(async |manager| manager.publish(&lab(), guest).await.unwrap());
        let mut relayed = self.relayed.lock().unwrap();
        match &*relayed {
            Some(old) if old.publish == guest.publish => old.lead_to(guest.address),
            _ => {
                // The old one has the ports until it is dropped.
                relayed.take();
                *relayed = Some(Relayed::new(&self.host, &guest.publish, guest.address));
            }
        }
    }

    /// Runs a program on the host, which succeeds.
    fn sh(&self, script: &str) -> String {
        self.host.sh(script)
    }

    /// The clients that reach the guest, the address of the host that each uses, and the address
    /// that the guest sees; `-` without an answer.
    fn table(&self) -> String {
        let Scene { host, guest, other, outside, .. } = self;
        let ways = [
            ("host", host, "127.0.0.1:8001"),
            ("host", host, "127.0.0.1:8022"),
            ("host", host, "203.0.113.1:8011"),
            ("host", host, "203.0.113.1:8021"),
            ("host", host, "[2001:db8:f::1]:8011"),
            ("host", host, "[2001:db8:f::1]:8022"),
            ("host", host, "[::1]:8001"),
            ("host", host, "[::1]:8021"),
            ("outside", outside, "203.0.113.1:8001"),
            ("outside", outside, "203.0.113.1:8011"),
            ("outside", outside, "203.0.113.1:8022"),
            ("outside", outside, "[2001:db8:f::1]:8011"),
            ("outside", outside, "[2001:db8:f::1]:8021"),
            ("other", other, "203.0.113.1:8011"),
            ("other", other, "10.60.0.1:8001"),
            ("other", other, "10.60.0.1:8022"),
            ("other", other, "[2001:db8:f::1]:8011"),
            ("other", other, "[fd00:60::1]:8021"),
            ("itself", guest, "203.0.113.1:8011"),
            ("itself", guest, "10.60.0.1:8021"),
            ("itself", guest, "[2001:db8:f::1]:8011"),
            ("itself", guest, "[fd00:60::1]:8022"),
        ];
        thread::scope(|scope| {
            let asked: Vec<_> = ways
                .into_iter()
                .map(|(name, from, to)| (name, to, scope.spawn(move || reach(from, to))))
                .collect();
            let line = |(name, to, seen): (_, _, thread::ScopedJoinHandle<'_, String>)| {
                format!("{name} to {to}: {}\n", seen.join().unwrap())
            };
            asked.into_iter().map(line).collect()
        })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for (pid, _) in processes_with(&self.dir.path().to_string_lossy()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

fn lab() -> NetworkName {
    "lab".parse().unwrap()
}

/// The table of a network whose guests see outside clients with this address.
fn expected(outside4: &str, outside6: &str) -> String {
    let (own4, own6) = ("10.60.0.1", "fd00:60::1");
    format!(
        "host to 127.0.0.1:8001: 9001 {own4}\n\
         host to 127.0.0.1:8022: 9002 {own4}\n\
         host to 203.0.113.1:8011: 9001 {own4}\n\
         host to 203.0.113.1:8021: 9001 {own4}\n\
         host to [2001:db8:f::1]:8011: 9001 {own6}\n\
         host to [2001:db8:f::1]:8022: 9002 {own6}\n\
         host to [::1]:8001: 9001 {own6}\n\
         host to [::1]:8021: 9001 {own6}\n\
         outside to 203.0.113.1:8001: -\n\
         outside to 203.0.113.1:8011: 9001 {outside4}\n\
         outside to 203.0.113.1:8022: 9002 {outside4}\n\
         outside to [2001:db8:f::1]:8011: 9001 {outside6}\n\
         outside to [2001:db8:f::1]:8021: 9001 {outside6}\n\
         other to 203.0.113.1:8011: 9001 {own4}\n\
         other to 10.60.0.1:8001: -\n\
         other to 10.60.0.1:8022: 9002 {own4}\n\
         other to [2001:db8:f::1]:8011: 9001 {own6}\n\
         other to [fd00:60::1]:8021: 9001 {own6}\n\
         itself to 203.0.113.1:8011: 9001 {own4}\n\
         itself to 10.60.0.1:8021: 9001 {own4}\n\
         itself to [2001:db8:f::1]:8011: 9001 {own6}\n\
         itself to [fd00:60::1]:8022: 9002 {own6}\n"
    )
}

/// Every forward mode, with the address that the guest sees of an outside client.
const MODES: [(&str, &str, &str); 4] = [
    ("<forward mode='nat'/>", "203.0.113.2", "2001:db8:f::2"),
    ("<forward mode='route'/>", "203.0.113.2", "2001:db8:f::2"),
    ("<forward mode='open'/>", "203.0.113.2", "2001:db8:f::2"),
    ("", "10.60.0.1", "fd00:60::1"),
];

fn every_client_reaches_the_guest(tools: Tools) {
    for (forward, outside4, outside6) in MODES {
        let Some(scene) = Scene::new("every_client_reaches_the_guest", tools, forward) else {
            return;
        };
        scene.publish(&PUBLISHED);
        assert_eq!(scene.table(), expected(outside4, outside6), "{tools:?} {forward:?}");
    }
}

#[test]
fn every_client_reaches_the_published_ports_of_a_guest_on_nftables() {
    every_client_reaches_the_guest(Tools::Nftables);
}

#[test]
fn every_client_reaches_the_published_ports_of_a_guest_on_iptables() {
    every_client_reaches_the_guest(Tools::Iptables);
}

#[test]
fn every_client_reaches_the_published_ports_of_a_guest_on_legacy_iptables() {
    every_client_reaches_the_guest(Tools::Legacy);
}
