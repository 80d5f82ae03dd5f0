//! Tests `network update` on running networks, with real guests' programs in namespaces: each
//! section has its effect at once, a mistake changes nothing, guests keep their leases and lose no
//! packet, and a definition of an active network takes effect as far as it can.

use std::fs;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::common::dhcp_guest::DhcpGuest;
use crate::common::network_host::NetworkHost;
use crate::common::{AT_MOST, Netns, have_root, status_field, text, wait_until};

const LAB: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000073</uuid>\
    <forward mode='nat'/><bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:73'/>\
    <domain name='lab.test'/><ip address='10.73.0.1' netmask='255.255.255.0'><dhcp>\
    <range start='10.73.0.100' end='10.73.0.200'/></dhcp></ip></network>";

/// Runs an update whose XML may have spaces.
fn update(host: &NetworkHost, change: &str, xml: &str, options: &[&str]) -> (Option<i32>, String) {
    let mut words = vec!["network", "update", "lab"];
    words.extend(change.split(' '));
    words.push(xml);
    words.extend(options);
    let output = crate::common::finish(host.sandbox.netlaunch(&words));
    (output.status.code(), text(&output.stderr))
}

fn updated(host: &NetworkHost, change: &str, xml: &str, options: &[&str]) {
    let (code, said) = update(host, change, xml, options);
    assert_eq!(code, Some(0), "{change} {xml} {options:?}: {said}");
}

/// Returns the running network's document and its definition.
fn documents(host: &NetworkHost) -> [String; 2] {
    let running = host.status()["xml"].as_str().unwrap().to_owned();
    [running, host.good("network dumpxml lab")]
}

/// The answer of the network's server about a name, once it is the expected one.
fn answers(guest: &DhcpGuest, kind: &str, name: &str, expected: &str) {
    let mut said = String::new();
    let answered = || {
        let kind = format!("-type={kind}");
        said = guest.netns.says("busybox", &["nslookup", &kind, name, "10.73.0.1"]);
        said.contains(expected)
    };
    assert!(wait_until(AT_MOST, answered), "{name}: {said}");
}

#[test]
fn each_section_changes_the_running_network_at_once() {
    if !have_root("each_section_changes_the_running_network_at_once") {
        return;
    }
    let host = NetworkHost::new(LAB);
    host.good("network start lab");
    let guest = DhcpGuest::new(&host, 7);
    let server = host.dnsmasq();

    // Hosts are read again on SIGHUP, by the same process.
    let mac = "52:54:00:00:00:07";
    let entry = format!("<host mac='{mac}' ip='10.73.0.20' name='web'/>");
    updated(&host, "add ip-dhcp-host", &entry, &[]);
    assert!(wait_until(AT_MOST, || guest.lease(&[]) == "10.73.0.20"));
    let entry = format!("<host mac='{mac}' ip='10.73.0.21' name='web'/>");
    updated(&host, "modify ip-dhcp-host", &entry, &["--live"]);
    assert!(wait_until(AT_MOST, || guest.lease(&[]) == "10.73.0.21"));
    updated(&host, "add-last dns-host", "<host ip='10.73.0.5'><hostname>db</hostname></host>", &[]);
    answers(&guest, "a", "db.lab.test", "10.73.0.5");
    assert_eq!(host.dnsmasq(), server, "SIGHUP is enough for hosts");
    updated(&host, "delete ip-dhcp-host", &format!("<host mac='{mac}'/>"), &[]);
    updated(&host, "delete dns-host", "<host ip='10.73.0.5'/>", &[]);
    assert_eq!(host.dnsmasq(), server);

    // The others need another dnsmasq, which has the leases.
    updated(&host, "add dns-txt", "<txt name='motd.lab.test' value='hello'/>", &[]);
    answers(&guest, "txt", "motd.lab.test", "hello");
    assert_ne!(host.dnsmasq(), server);
    let srv =
        "<srv service='ldap' protocol='tcp' domain='lab.test' target='db.lab.test' port='389'/>";
    updated(&host, "add-first dns-srv", srv, &[]);
    answers(&guest, "srv", "_ldap._tcp.lab.test", "389");
    updated(&host, "add ip-dhcp-range", "<range start='10.73.0.30' end='10.73.0.39'/>", &[]);
    updated(&host, "delete ip-dhcp-range", "<range start='10.73.0.100' end='10.73.0.200'/>", &[]);
    let other = DhcpGuest::new(&host, 8);
    assert!(other.lease(&[]).starts_with("10.73.0.3"));
    let leases: Value = serde_json::from_str(&host.good("network leases lab --json")).unwrap();
    assert_eq!(leases["leases"].as_array().unwrap().len(), 2, "{leases:#}");

    let rules = host.sh("nft -s list ruleset");
    updated(&host, "add forward-interface", "<interface dev='up0'/>", &[]);
    let limited = host.sh("nft -s list ruleset");
    assert!(limited != rules && limited.contains("\"up0\""), "{limited}");
    updated(&host, "delete forward-interface", "<interface dev='up0'/>", &[]);
    assert_eq!(host.sh("nft -s list ruleset"), rules);
    updated(&host, "add portgroup", "<portgroup name='web'/>", &[]);
    assert!(documents(&host)[0].contains("<portgroup name='web'"));
    assert!(!documents(&host)[1].contains("web"), "only the running network changed");
    assert!(host.good("network info lab").contains("active, differs from the definition"));

    for name in ["port7", "port8"] {
        host.netns.ip(&format!("link delete {name}"));
    }
    host.good("network destroy lab");
}

#[test]
fn a_scope_selects_the_running_network_or_its_definition() {
    if !have_root("a_scope_selects_the_running_network_or_its_definition") {
        return;
    }
    let host = NetworkHost::new(LAB);
    let entry = |n: u8| format!("<host mac='52:54:00:00:00:{n:02x}' ip='10.73.0.{n}'/>");
    let has = |n: u8| documents(&host).map(|text| text.contains(&format!("10.73.0.{n}'")));
    // Without a running network, the definition changes.
    updated(&host, "add ip-dhcp-host", &entry(20), &[]);
    assert!(host.good("network dumpxml lab").contains("10.73.0.20'"));
    let (code, said) = update(&host, "add ip-dhcp-host", &entry(21), &["--live"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("the network lab does not run"), "{said}");
    host.good("network start lab");
    for (n, options, expected) in [
        (22, &[][..], [true, false]),
        (23, &["--current"], [true, false]),
        (24, &["--live"], [true, false]),
        (25, &["--config"], [false, true]),
        (26, &["--live", "--config"], [true, true]),
    ] {
        updated(&host, "add ip-dhcp-host", &entry(n), options);
        assert_eq!(has(n), expected, "{options:?}");
    }
    // The element can be in a file, and the <ip> can be named.
    let file = host.sandbox.path("host.xml");
    fs::write(&file, entry(27)).unwrap();
    updated(&host, "add ip-dhcp-host", &file.to_string_lossy(), &["--parent-index", "0"]);
    assert_eq!(has(27), [true, false]);

    // A mistake changes nothing, and says what to do.
    let before = (documents(&host), host.sh("nft -s list ruleset"), host.dnsmasq());
    for (change, xml, options, why) in [
        ("add ip-dhcp-host", entry(26), &["--live", "--config"][..], "same mac already"),
        ("add ip-dhcp-host", entry(25), &["--live", "--config"], "same mac already"),
        ("modify ip-dhcp-host", entry(99), &[], "no such ip-dhcp-host"),
        ("delete ip-dhcp-host", entry(99), &[], "no such ip-dhcp-host"),
        ("add ip-dhcp-host", "<host ip='10.73.0.9'/>".into(), &[], "the element:1:1: "),
        (
            "add ip-dhcp-host",
            "<host mac='52:54:00:00:00:99' ip='10.99.0.9'/>".into(),
            &[],
            "no <ip>",
        ),
        ("add ip-dhcp-range", "<range start='10.73.0.1' end='10.99.0.9'/>".into(), &[], "outside"),
        (
            "modify ip-dhcp-range",
            "<range start='10.73.0.1' end='10.73.0.9'/>".into(),
            &[],
            "cannot be modified",
        ),
        ("add ip-dhcp-host", entry(40), &["--parent-index", "3"], "no <ip> number 3"),
        (
            "add dns-txt",
            "<txt name='a' value='b'/>".into(),
            &["--parent-index", "0"],
            "no parent index",
        ),
        ("delete dns-txt", "<txt name='a'/>".into(), &[], "no such dns-txt"),
        (
            "add bridge",
            "<bridge name='x'/>".into(),
            &[],
            "the section bridge cannot be updated alone",
        ),
        ("add dns", "<dns/>".into(), &[], "is no section: use ip-dhcp-host"),
        ("replace dns-txt", "<txt name='a' value='b'/>".into(), &[], "replace"),
        ("add dns-txt", "<txt name='a' value='b'/>".into(), &["--current", "--live"], "--live"),
        ("add dns-txt", "/nonexistent.xml".into(), &[], "/nonexistent.xml: No such file"),
    ] {
        let (code, said) = update(&host, change, &xml, options);
        assert_eq!(code, Some(2), "{change} {xml}: {said}");
        assert!(said.contains(why) && said.lines().count() == 1, "{change} {xml}: {said}");
    }
    assert_eq!(before, (documents(&host), host.sh("nft -s list ruleset"), host.dnsmasq()));
    host.good("network destroy lab");
}

/// A dnsmasq that does not start again leaves the network as it was.
#[test]
fn an_update_that_fails_is_undone() {
    if !have_root("an_update_that_fails_is_undone") {
        return;
    }
    let host = NetworkHost::new(LAB);
    host.good("network start lab");
    let before = (documents(&host), host.sh("nft -s list ruleset"));
    // The stand-in refuses a configuration with this record, as a dnsmasq would that lacks memory.
    host.sandbox.script(
        "dnsmasq",
        "for a; do case $a in --conf-file=*) grep -q motd ${a#*=} && { echo no >&2; exit 5; };; esac; done; \
         exec /usr/sbin/dnsmasq \"$@\"",
    );
    let words = ["network", "update", "lab", "add", "dns-txt", "<txt name='motd' value='x'/>"];
    let run = |more: &[&str]| {
        let mut command = host.sandbox.netlaunch(&[&words[..], more].concat());
        let bin = host.sandbox.path("bin");
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
        crate::common::finish(command)
    };
    for more in [&["--live"][..], &["--live", "--config"]] {
        let output = run(more);
        assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("cannot serve nlt0: no"), "{}", text(&output.stderr));
        assert_eq!(before, (documents(&host), host.sh("nft -s list ruleset")));
        assert!(host.status()["change"].is_null());
        let guest = DhcpGuest::new(&host, 7);
        assert!(guest.lease(&[]).starts_with("10.73.0."));
        host.netns.ip("link delete port7");
    }
    host.good("network destroy lab");
}

/// The definition has the new text before the command writes it, which is no commit.
#[test]
fn an_update_that_fails_is_undone_if_the_definition_has_the_change_already() {
    let test = "an_update_that_fails_is_undone_if_the_definition_has_the_change_already";
    if !have_root(test) {
        return;
    }
    let host = NetworkHost::new(LAB);
    host.good("network start lab");
    let entry = |ip: &str| format!("<host mac='52:54:00:00:00:07' ip='{ip}'/>");
    updated(&host, "add ip-dhcp-host", &entry("10.73.0.20"), &["--live", "--config"]);
    updated(&host, "modify ip-dhcp-host", &entry("10.73.0.21"), &["--config"]);
    let before = documents(&host);
    // Without the network's dnsmasq, the change starts one, which refuses the new host.
    host.sandbox.script(
        "dnsmasq",
        "for a; do case $a in --conf-file=*) f=${a#*=}; grep -q 0.21 ${f%/*}/dnsmasq.dhcp-hosts && \
         { echo no >&2; exit 5; };; esac; done; exec /usr/sbin/dnsmasq \"$@\"",
    );
    let pid = host.dnsmasq();
    host.sh(&format!("kill {pid}"));
    // It may stay a zombie until the init process asks for its status.
    let ended = || matches!(status_field(pid, "State").chars().next(), None | Some('Z'));
    assert!(wait_until(AT_MOST, ended), "dnsmasq {pid} does not end");
    let (change, entry) = ("modify", entry("10.73.0.21"));
    let words = ["network", "update", "lab", change, "ip-dhcp-host", &entry, "--live", "--config"];
    let mut command = host.sandbox.netlaunch(&words);
    let bin = host.sandbox.path("bin");
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
    let output = crate::common::finish(command);
    assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("cannot serve nlt0: no"), "{}", text(&output.stderr));
    assert_eq!(before, documents(&host));
    assert!(host.status()["change"].is_null());
    host.good("network destroy lab");
}

/// Sends a numbered datagram each 2 ms from a guest to a machine outside, which counts them.
struct Stream {
    stop: Arc<AtomicBool>,
    sender: thread::JoinHandle<u64>,
    receiver: thread::JoinHandle<Vec<u64>>,
}

impl Stream {
    fn start(guest: &DhcpGuest, from: &str, outside: &Netns, to: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let receiving = outside.inside(|| UdpSocket::bind(to).unwrap());
        receiving.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let sending = guest.netns.inside(|| UdpSocket::bind((from, 0)).unwrap());
        let receiver = thread::spawn(move || {
            let (mut got, mut bytes) = (Vec::new(), [0; 8]);
            while receiving.recv(&mut bytes).is_ok() {
                got.push(u64::from_be_bytes(bytes));
            }
            got
        });
        let stopped = stop.clone();
        let sender = thread::spawn(move || {
            let mut n = 0u64;
            while !stopped.load(Ordering::Relaxed) {
                sending.send_to(&n.to_be_bytes(), to).unwrap();
                n += 1;
                thread::sleep(Duration::from_millis(2));
            }
            n
        });
        Stream { stop, sender, receiver }
    }

    /// Returns the number of the sent datagrams, and the numbers that did not arrive.
    fn end(self) -> (u64, Vec<u64>) {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap();
        let got = self.receiver.join().unwrap();
        (sent, (0..sent).filter(|n| got.binary_search(n).is_err()).collect())
    }
}

#[test]
fn fifty_updates_lose_no_packet_of_a_guest_and_no_lease() {
    if !have_root("fifty_updates_lose_no_packet_of_a_guest_and_no_lease") {
        return;
    }
    for backend in ["nftables", "iptables"] {
        let host = NetworkHost::new(LAB);
        let settings = format!("firewall_backend = \"{backend}\"\n");
        fs::write(host.sandbox.path("config/network.conf"), settings).unwrap();
        host.good("network start lab");
        let outside = Netns::bare();
        host.netns.wire("out0", &outside, "eth0");
        host.netns.ip("address add 198.51.100.1/24 dev out0");
        outside.ip("address add 198.51.100.2/24 dev eth0");
        let guest = DhcpGuest::new(&host, 7);
        let address = guest.lease(&[]);
        guest.netns.ip("route add default via 10.73.0.1");
        let stream = Stream::start(&guest, &address, &outside, "198.51.100.2:7000");
        thread::sleep(Duration::from_millis(500));
        let mut done = 0;
        for n in 1..=9 {
            let entry = format!("<host mac='52:54:00:00:01:{n:02x}' ip='10.73.0.{}'/>", 20 + n);
            let dns = format!("<host ip='10.73.0.{}'><hostname>h{n}</hostname></host>", 20 + n);
            let txt = format!("<txt name='t{n}' value='x'/>");
            for (change, xml) in [
                ("add ip-dhcp-host", entry.as_str()),
                ("add dns-host", &dns),
                ("add dns-txt", &txt),
                ("add forward-interface", "<interface dev='out0'/>"),
                ("delete forward-interface", "<interface dev='out0'/>"),
                ("delete dns-txt", &txt),
            ] {
                let options: &[&str] = if n % 2 == 0 { &["--live", "--config"] } else { &[] };
                updated(&host, change, xml, options);
                done += 1;
            }
        }
        assert!(done >= 50, "{done}");
        let (sent, lost) = stream.end();
        assert!(sent > 500, "{sent}");
        assert_eq!(lost, [] as [u64; 0], "{backend}: of {sent} packets");
        let leases = host.good("network leases lab");
        assert!(leases.contains(&address), "{backend}: {leases}");
        assert_eq!(guest.lease(&[]), address, "{backend}: the same lease again");
        println!("{backend}: {done} updates, {sent} packets, none lost");
        drop((guest, outside));
        host.good("network destroy --force lab");
    }
}

#[test]
fn a_definition_of_an_active_network_takes_effect_as_far_as_no_guest_is_cut_off() {
    if !have_root("a_definition_of_an_active_network_takes_effect_as_far_as_no_guest_is_cut_off") {
        return;
    }
    let host = NetworkHost::new(LAB);
    host.good("network start lab");
    let guest = DhcpGuest::new(&host, 7);
    guest.lease(&[]);
    let file = host.sandbox.path("new.xml");
    let define = |xml: &str| {
        fs::write(&file, xml).unwrap();
        let output = host.netlaunch(&format!("network define {}", file.display()));
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let with_dns = LAB.replace(
        "<domain name='lab.test'/>",
        "<domain name='lab.test'/><dns><txt name='motd.lab.test' value='new'/></dns>",
    );
    let said = define(&with_dns);
    assert!(said.contains("has the new definition now"), "{said}");
    answers(&guest, "txt", "motd.lab.test", "new");
    let [running, defined] = documents(&host);
    assert_eq!(running, defined);

    let bridge = host.sh("ip -o link show dev nlt0; ip -o address show dev nlt0");
    let changed = with_dns
        .replace("value='new'", "value='newer'")
        .replace("10.73.0.1'", "10.73.0.2'")
        .replace("<forward mode='nat'/>", "<forward mode='route'/><mtu size='1400'/>");
    let said = define(&changed);
    let waiting = "wait for its next start: the forward mode, the MTU, the addresses";
    assert!(said.contains(waiting), "{said}");
    answers(&guest, "txt", "motd.lab.test", "newer");
    assert_eq!(host.sh("ip -o link show dev nlt0; ip -o address show dev nlt0"), bridge);
    assert!(documents(&host)[0].contains("<forward mode='nat'/>"));
    host.netns.ip("link delete port7");
    host.good("network destroy lab");
    host.good("network start lab");
    let [running, defined] = documents(&host);
    assert_eq!(running, defined);
    host.good("network destroy lab");
}
