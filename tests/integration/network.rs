//! Tests virtual networks on real bridges, with the real firewall tools and the real dnsmasq, in
//! network namespaces: what a start makes, what a destroy leaves, and what a failed start changes.

mod guests;

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::{Netns, have_root, run, text, wait_until};
use netlaunch::firewall::FirewallBackend;
use netlaunch::network::NetworkName;
use netlaunch::network::manager::{Manager, ManagerError, ManagerSettings};
use netlaunch::types::error_text;

const BACKENDS: [FirewallBackend; 2] = [FirewallBackend::Nftables, FirewallBackend::Iptables];

/// A host with definitions of its own.
struct Host {
    netns: Netns,
    dir: tempfile::TempDir,
    backend: FirewallBackend,
}

impl Host {
    fn new(backend: FirewallBackend) -> Self {
        let dir = tempfile::Builder::new().prefix("nltest-").tempdir().unwrap();
        // dnsmasq reads its lists as another user.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), open).unwrap();
        fs::create_dir_all(dir.path().join("config/networks")).unwrap();
        Host { netns: Netns::routed(), dir, backend }
    }

    fn driver(&self) -> Manager {
        Manager::new(ManagerSettings {
            config_dir: self.dir.path().join("config"),
            state_dir: self.dir.path().join("state"),
            path: [
                self.dir.path().join("bin"),
                "/usr/sbin".into(),
                "/usr/bin".into(),
                "/sbin".into(),
                "/bin".into(),
            ]
            .into(),
            system_bus: "unix:path=/nonexistent/bus".into(),
            firewall_backend: Some(self.backend),
        })
    }

    fn define(&self, name: &str, xml: &str) {
        fs::write(self.dir.path().join(format!("config/networks/{name}.xml")), xml).unwrap();
    }

    /// Runs `work` with the driver, inside the namespace.
    fn with<T: Send>(&self, work: impl AsyncFnOnce(Manager) -> T + Send) -> T {
        let driver = self.driver();
        self.netns.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work(driver))
        })
    }

    fn start(&self, name: &str) -> Result<Vec<String>, ManagerError> {
        let name: NetworkName = name.parse().unwrap();
        self.with(async |driver| driver.start(&name).await)
    }

    fn destroy(&self, name: &str) -> Result<Vec<String>, ManagerError> {
        let name: NetworkName = name.parse().unwrap();
        self.with(async |driver| driver.destroy(&name).await)
    }

    fn inside(&self, program: &str, args: &[&str]) -> String {
        self.netns.says(program, args)
    }

    /// Everything that a network could change.
    fn state(&self) -> String {
        let mut all = String::new();
        for (program, args) in [
            ("nft", &["list", "ruleset"][..]),
            ("iptables-save", &[]),
            ("ip6tables-save", &[]),
            ("ip", &["-o", "link"]),
            ("ip", &["-o", "address"]),
            ("ip", &["route"]),
            ("ip", &["-6", "route"]),
            (
                "sh",
                &[
                    "-c",
                    "grep . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/*/forwarding",
                ],
            ),
        ] {
            // Times and counts, which differ from listing to listing.
            let lines = self.inside(program, args);
            let lines = lines.lines().filter(|line| !line.starts_with('#'));
            all.push_str(&format!("== {program} {args:?}\n"));
            for line in lines {
                let line = line.split(" [").next().unwrap_or(line);
                // An address of a link that is not ours settles while the test runs.
                all.push_str(&line.replace(" tentative", ""));
                all.push('\n');
            }
        }
        let state = self.dir.path().join("state/networks");
        let left = fs::read_dir(state).into_iter().flatten().flatten();
        for entry in left.filter(|entry| entry.file_name() != ".lock") {
            all.push_str(&format!("left: {:?}\n", entry.path()));
        }
        all
    }

    /// Lets iptables make its own tables and chains, which stay once they have been used.
    fn used_before(&self) {
        let chains = [
            ("filter", "INPUT"),
            ("filter", "FORWARD"),
            ("filter", "OUTPUT"),
            ("nat", "POSTROUTING"),
        ];
        for tool in ["iptables", "ip6tables"] {
            for (table, chain) in chains {
                for verb in ["-A", "-D"] {
                    self.inside(tool, &["-t", table, verb, chain, "-j", "ACCEPT"]);
                }
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // dnsmasq outlives a test that failed; its command line has our directory.
        for (pid, _) in crate::common::processes_with(&self.dir.path().to_string_lossy()) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }
}

/// One of each kind of network, by name.
fn documents() -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/network/driver");
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    all.sort();
    all
}

fn every_kind_comes_and_goes(backend: FirewallBackend) {
    if !have_root("every_kind_comes_and_goes") {
        return;
    }
    let host = Host::new(backend);
    host.used_before();
    for (name, xml) in documents() {
        host.define(&name, &xml);
        let before = host.state();
        assert_eq!(host.start(&name).unwrap(), [] as [String; 0], "{name}");
        assert_ne!(host.state(), before, "{name}");
        assert!(host.inside("ip", &["-o", "link", "show", "dev", "nlt0"]).contains("nlt0"));
        match host.start(&name) {
            Err(ManagerError::Active(_)) => {}
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(host.destroy(&name).unwrap(), [] as [String; 0], "{name}");
        assert_eq!(host.state(), before, "{name}");
        fs::remove_file(host.dir.path().join(format!("config/networks/{name}.xml"))).unwrap();
    }
}

#[test]
fn every_kind_of_network_starts_and_leaves_nothing_on_nftables() {
    every_kind_comes_and_goes(FirewallBackend::Nftables);
}

#[test]
fn every_kind_of_network_starts_and_leaves_nothing_on_iptables() {
    every_kind_comes_and_goes(FirewallBackend::Iptables);
}

#[test]
fn the_last_network_that_forwards_turns_it_off() {
    if !have_root("the_last_network_that_forwards_turns_it_off") {
        return;
    }
    let host = Host::new(FirewallBackend::Nftables);
    let forward = || host.inside("cat", &["/proc/sys/net/ipv4/ip_forward"]).trim().to_owned();
    for (name, bridge, net) in [("a", "nlta", 210), ("b", "nltb", 211)] {
        let xml = format!(
            "<network><name>{name}</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000{net}</uuid>\
             <bridge name='{bridge}'/><mac address='52:54:00:00:00:0{name}'/><forward mode='nat'/>\
             <ip address='192.168.{net}.1' netmask='255.255.255.0'/></network>"
        );
        host.define(name, &xml);
    }
    assert_eq!(forward(), "0");
    host.start("a").unwrap();
    host.start("b").unwrap();
    assert_eq!(forward(), "1");
    assert_eq!(host.destroy("a").unwrap(), [] as [String; 0]);
    assert_eq!(forward(), "1", "b still needs it");
    assert_eq!(host.destroy("b").unwrap(), [] as [String; 0]);
    assert_eq!(forward(), "0");
}

#[test]
fn a_start_that_fails_leaves_the_host_as_it_was() {
    if !have_root("a_start_that_fails_leaves_the_host_as_it_was") {
        return;
    }
    for backend in BACKENDS {
        let host = Host::new(backend);
        host.used_before();
        let (name, xml) = documents().into_iter().find(|(name, _)| name == "nat").unwrap();
        host.define(&name, &xml);

        // dnsmasq cannot have its port.
        let before = host.state();
        let taken = host.netns.inside(|| std::net::UdpSocket::bind(("0.0.0.0", 67)).unwrap());
        let error = host.start(&name).unwrap_err();
        assert!(matches!(error, ManagerError::Dnsmasq(_)), "{error}");
        assert_eq!(host.state(), before, "{backend}");
        drop(taken);

        // The address is taken.
        host.netns.ip("address add 192.168.222.77/24 dev up1");
        let before = host.state();
        let error = error_text(&host.start(&name).unwrap_err());
        assert!(error.contains("up1 has the address 192.168.222.77/24"), "{error}");
        assert_eq!(host.state(), before);
        host.netns.ip("address del 192.168.222.77/24 dev up1");

        // The bridge's name is taken.
        host.netns.ip("link add nlt0 type bridge");
        let before = host.state();
        let error = error_text(&host.start(&name).unwrap_err());
        assert!(error.contains("nlt0"), "{error}");
        assert_eq!(host.state(), before);
    }
}

#[test]
fn reload_puts_everything_back_and_changes_the_backend() {
    if !have_root("reload_puts_everything_back_and_changes_the_backend") {
        return;
    }
    let mut host = Host::new(FirewallBackend::Nftables);
    host.used_before();
    let (name, xml) = documents().into_iter().find(|(name, _)| name == "nat").unwrap();
    host.define(&name, &xml);
    let before = host.state();
    host.start(&name).unwrap();
    let started = host.state();
    host.inside("nft", &["flush", "ruleset"]);
    host.used_before();
    assert_ne!(host.state(), started);
    let notes = host.with(async |driver| driver.reload().await).unwrap();
    let said = "the rules of the network nat were missing and are there again (nftables): ";
    assert!(notes.len() == 1 && notes[0].starts_with(said), "{notes:?}");
    assert_eq!(host.state(), started);
    let notes = host.with(async |driver| driver.reload().await).unwrap();
    assert_eq!(notes, ["the rules of the network nat are there (nftables)"]);
    assert_eq!(host.state(), started, "again changes nothing");

    host.backend = FirewallBackend::Iptables;
    host.with(async |driver| driver.reload().await).unwrap();
    assert!(!host.inside("nft", &["list", "tables"]).contains("netlaunch_network"));
    assert!(host.inside("iptables-save", &[]).contains("NETLAUNCH_"));
    assert_eq!(host.destroy(&name).unwrap(), [] as [String; 0]);
    assert_eq!(host.state(), before);
}
