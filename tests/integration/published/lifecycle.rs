//! The published ports over the life of a network: what puts them back, what moves them, and what
//! removes them.

use super::*;
use crate::common::AT_MOST;
use netlaunch::network::manager::ManagerError;
use netlaunch::types::error_text;

/// A part of what is published.
const SOME: [&str; 3] = ["8001:9001", "203.0.113.1:8011:9001", "[2001:db8:f::1]:8011:9001"];

impl Scene {
    /// Whether the published ports of [`SOME`] lead to the guest, by each way.
    fn answers(&self) -> Vec<String> {
        let ways = [
            (&self.host, "127.0.0.1:8001"),
            (&self.outside, "203.0.113.1:8011"),
            (&self.outside, "[2001:db8:f::1]:8011"),
        ];
        ways.map(|(from, to)| ask_tcp(from, to)).to_vec()
    }

    /// Everything that published ports could change.
    fn state(&self) -> String {
        let rules = self.sh(&format!(
            "nft -s list ruleset; {}-save; {}-save; \
             cat /proc/sys/net/ipv4/conf/nlp0/route_localnet /proc/sys/net/ipv4/ip_forward",
            self.tools.iptables(false),
            self.tools.iptables(true),
        ));
        // An empty table of iptables stays once it was used.
        let kept = |line: &&str| !line.starts_with(['#', '*', ':']) && *line != "COMMIT";
        let counts = |line: &str| line.split(" [").next().unwrap_or(line).to_owned();
        let (settings, mut rules): (Vec<_>, Vec<_>) = rules
            .lines()
            .filter(kept)
            .map(counts)
            .partition(|line| ["0", "1"].contains(&line.as_str()));
        // nft lists the chains of iptables in the order in which they were made.
        rules.sort();
        [rules, settings].concat().join("\n")
    }

    fn unpublish(&self) {
        let guest = self.published(&SOME, 2);
        let done =
            self.with(async |manager| manager.unpublish(&lab(), &guest.tap, guest.index).await);
        done.unwrap();
        self.relayed.lock().unwrap().take();
    }

    fn reload(&self, backend: FirewallBackend) {
        self.with_backend(backend, async |manager| manager.reload().await.unwrap());
    }

    /// The entries of the status file.
    fn entries(&self) -> usize {
        let active = self.with(async |manager| manager.active().unwrap());
        active[0].published.len()
    }
}

/// Asks by TCP alone, for a shorter time; returns the port of the guest that answers, or `-`.
fn ask_tcp(from: &Netns, to: &str) -> String {
    let to: SocketAddr = to.parse().unwrap();
    let wait = Duration::from_millis(700);
    from.inside(|| {
        let mut stream = TcpStream::connect_timeout(&to, wait).ok()?;
        stream.set_read_timeout(Some(wait)).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.split(' ').next().unwrap_or_default().to_owned())
    })
    .filter(|answer| !answer.is_empty())
    .unwrap_or_else(|| "-".to_owned())
}

const ALL: [&str; 3] = ["9001"; 3];
const NONE: [&str; 3] = ["-"; 3];

fn published_ports_live_with_their_guest(tools: Tools) {
    let test = "published_ports_live_with_their_guest";
    let Some(scene) = Scene::new(test, tools, "<forward mode='nat'/>") else { return };
    // iptables makes its tables at the first use, and they stay.
    scene.publish(&SOME);
    scene.unpublish();
    let before = scene.state();
    assert_eq!(scene.answers(), NONE);
    scene.publish(&SOME);
    let published = scene.state();
    assert!(published.ends_with("0\n1"), "route_localnet and ip_forward: {published}");
    assert_eq!(scene.answers(), ALL);

    // The same again changes nothing, and another address moves the ports.
    scene.publish(&SOME);
    assert_eq!(scene.state(), published);
    scene.guest.ip("address del 10.60.0.2/24 dev eth0");
    scene.guest.ip("address del fd00:60::2/64 dev eth0");
    address(&scene.guest, 12);
    assert_eq!(scene.answers(), NONE, "the guest has moved");
    scene.publish_guest(&scene.published(&SOME, 12));
    assert_eq!(scene.answers(), ALL);
    let published = scene.state();

    // A reload puts them back.
    match tools {
        Tools::Nftables => scene.sh("nft flush ruleset"),
        _ => scene.sh(&format!(
            "for tool in {} {}; do for table in nat filter; do $tool -t $table -F; \
             $tool -t $table -X; done; done",
            tools.iptables(false),
            tools.iptables(true)
        )),
    };
    assert_eq!(scene.answers(), ["9001", "-", "-"], "the relay needs no rules");
    let faults = scene.with(async |manager| manager.faults_of(&lab()).await.unwrap());
    let lost = match tools {
        Tools::Nftables => "table ip netlaunch_network",
        _ => "chain nl-nlp0-pub of iptables nat",
    };
    assert!(faults.iter().any(|fault| fault.to_string().contains(lost)), "{faults:?}");
    scene.reload(tools.backend());
    assert_eq!(scene.answers(), ALL);
    assert_eq!(scene.state(), published);

    // A guest that is gone has no ports after the next command, whichever it is.
    scene.host.ip("link set port2 down");
    scene.host.ip("link set port2 name gone2");
    scene.with(async |manager| manager.unpublish_gone().await.unwrap());
    assert_eq!(scene.entries(), 0);
    assert_eq!(scene.state(), before);
}

#[test]
fn published_ports_live_with_their_guest_on_nftables() {
    published_ports_live_with_their_guest(Tools::Nftables);
}

#[test]
fn published_ports_live_with_their_guest_on_iptables() {
    published_ports_live_with_their_guest(Tools::Iptables);
}

#[test]
fn published_ports_live_with_their_guest_on_legacy_iptables() {
    published_ports_live_with_their_guest(Tools::Legacy);
}

#[test]
fn published_ports_survive_a_change_of_the_backend() {
    let test = "published_ports_survive_a_change_of_the_backend";
    let Some(scene) = Scene::new(test, Tools::Nftables, "") else { return };
    scene.publish(&SOME);
    assert_eq!(scene.answers(), ALL);
    for backend in [FirewallBackend::Iptables, FirewallBackend::Nftables] {
        scene.reload(backend);
        assert_eq!(scene.answers(), ALL, "{backend}");
    }
    let tables = scene.sh("iptables-save");
    assert!(!tables.contains("nl-nlp0"), "{tables}");
    let left = scene.with(async |manager| manager.destroy_with_ports(&lab()).await.unwrap());
    assert_eq!(left, [] as [String; 0]);
    let rules = scene.sh("nft list ruleset; iptables-save; ip6tables-save");
    assert!(!rules.contains("nl-nlp0") && !rules.contains("netlaunch_network"), "{rules}");
}

#[test]
fn ports_that_cannot_be_published_are_refused_with_the_reason() {
    let test = "ports_that_cannot_be_published_are_refused_with_the_reason";
    let Some(scene) = Scene::new(test, Tools::Nftables, "") else { return };
    scene.publish(&["0.0.0.0:8080-8090:80"]);
    let other = PublishedGuest {
        launch: "db".to_owned(),
        tap: "port3".parse().unwrap(),
        index: 999_999,
        ..scene.published(&["8085"], 3)
    };
    let error = scene.with(async |manager| manager.publish(&lab(), &other).await.unwrap_err());
    assert!(matches!(error, ManagerError::PublishedTwice { .. }), "{error}");
    let expected = "port 8085 of 127.0.0.1:8085:8085/tcp is published by the launch web; ";
    assert!(error.to_string().starts_with(expected), "{error}");
    let unknown: NetworkName = "none".parse().unwrap();
    let error = scene.with(async |manager| manager.publish(&unknown, &other).await.unwrap_err());
    assert_eq!(error_text(&error), "the network none does not run; start it");
}

#[test]
fn a_change_that_a_tool_refuses_leaves_the_ports_as_before() {
    let test = "a_change_that_a_tool_refuses_leaves_the_ports_as_before";
    for tools in [Tools::Nftables, Tools::Iptables] {
        let Some(scene) = Scene::new(test, tools, "") else { return };
        scene.publish(&SOME);
        let before = scene.state();
        let program = if tools == Tools::Nftables { "nft" } else { "ip6tables-restore" };
        let broken = scene.dir.path().join("bin").join(program);
        std::os::unix::fs::symlink("/bin/false", &broken).unwrap();
        let moved = scene.published(&SOME, 12);
        let failed = scene.with(async |manager| manager.publish(&lab(), &moved).await);
        failed.unwrap_err();
        assert_eq!(scene.state(), before, "{tools:?}");
        assert_eq!(scene.answers(), ALL, "{tools:?}");
        fs::remove_file(broken).unwrap();
        scene.unpublish();
        assert_eq!(scene.answers(), NONE, "{tools:?}");
    }
}

/// The kernel translates the datagrams of a connection as it translated the first one.
#[test]
fn a_udp_client_that_never_pauses_follows_the_guest() {
    let test = "a_udp_client_that_never_pauses_follows_the_guest";
    let ports = ["203.0.113.1:8011:9001/udp", "[2001:db8:f::1]:8011:9001/udp"];
    for to in ["203.0.113.1:8011", "[2001:db8:f::1]:8011"] {
        let Some(scene) = Scene::new(test, Tools::Nftables, "") else { return };
        let to: SocketAddr = to.parse().unwrap();
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let client = scene.outside.inside(|| UdpSocket::bind((any, 0)).unwrap());
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let answers = || {
            client.send_to(b"?", to).unwrap();
            client.recv_from(&mut [0; 100]).is_ok()
        };
        // The host itself takes the datagrams, as a socket that keeps the port does.
        let _held = scene.host.inside(|| UdpSocket::bind(to).unwrap());
        assert!(!answers());
        let publish = |n| {
            let guest = scene.published(&ports, n);
            scene.with(async |manager| manager.publish(&lab(), &guest).await.unwrap());
        };
        publish(2);
        assert!(wait_until(AT_MOST, answers), "{to}: published");
        scene.guest.ip("address del 10.60.0.2/24 dev eth0");
        scene.guest.ip("address del fd00:60::2/64 dev eth0");
        address(&scene.guest, 12);
        assert!(!answers());
        publish(12);
        assert!(wait_until(AT_MOST, answers), "{to}: moved");
    }
}
