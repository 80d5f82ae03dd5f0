//! Tests the commands that show the guests of a network: their leases, the ports of its bridge, its
//! state, and the address in the list of launches. dnsmasq and the clients are real.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::bridges::{end, up, waiting};
use crate::common::dhcp_guest::{DhcpGuest, lease_v6};
use crate::common::network_host::NetworkHost;
use crate::common::scene::Scene;
use crate::common::schema::valid;
use crate::common::{AT_MOST, USER, have_root, text, wait_until};

const LAB: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000071</uuid>\
    <forward mode='nat'/><bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:71'/>\
    <mtu size='1400'/><domain name='lab.test'/>\
    <ip address='10.71.0.1' netmask='255.255.255.0'><dhcp><range start='10.71.0.100' \
    end='10.71.0.200'/><host mac='52:54:00:00:00:09' ip='10.71.0.9' name='db'/></dhcp></ip>\
    <ip family='ipv6' address='fd00:71::1' prefix='64'><dhcp><range start='fd00:71::100' \
    end='fd00:71::200'/></dhcp></ip></network>";

fn shown(host: &NetworkHost, verb: &str) -> Value {
    let value = serde_json::from_str(&host.good(&format!("network {verb} lab --json"))).unwrap();
    valid(&format!("network-{verb}"), &value);
    value
}

#[test]
fn leases_of_both_ip_versions_are_listed_with_name_and_identifiers() {
    if !have_root("leases_of_both_ip_versions_are_listed_with_name_and_identifiers") {
        return;
    }
    let host = NetworkHost::new(LAB);
    let refused = host.netlaunch("network leases lab");
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("the network lab does not run"));
    assert_eq!(host.netlaunch("network leases none").status.code(), Some(2));
    host.good("network start lab");
    assert_eq!(shown(&host, "leases")["leases"], json!([]));

    let guest = DhcpGuest::new(&host, 7);
    let address = guest.lease(&["-x", "hostname:web"]);
    guest.lease_v6(7, 77);
    let list = shown(&host, "leases");
    let leases = list["leases"].as_array().unwrap();
    assert_eq!(leases.len(), 2, "{list:#}");
    let four = &leases[0];
    assert_eq!(four["address"], json!(address));
    let members = ["family", "mac", "hostname", "client_id", "duid", "iaid", "prefix"];
    let of = |lease: &Value| members.map(|member| lease[member].clone());
    let mac = json!("52:54:00:00:00:07");
    let expected = [json!("ipv4"), mac.clone(), json!("web"), json!("01:52:54:00:00:00:07")];
    assert_eq!(of(four)[..4], expected);
    assert_eq!(of(four)[4..], [Value::Null, Value::Null, json!(24)]);
    let six = &leases[1];
    assert!(six["address"].as_str().unwrap().starts_with("fd00:71::"), "{six}");
    assert_eq!((&six["mac"], &six["iaid"], &six["prefix"]), (&mac, &json!(77), &json!(64)));
    assert_eq!(six["duid"], "00:03:00:01:52:54:00:00:00:07");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // dnsmasq gives an hour over IPv4, and a day over IPv6.
    for (lease, seconds) in leases.iter().zip([3600, 86_400]) {
        let left = lease["expires"].as_u64().unwrap() - now;
        assert!((seconds - 300..=seconds).contains(&left), "{lease}");
    }
    let table = host.good("network leases lab");
    for word in [&address, "52:54:00:00:00:07", "web", "in 59m"] {
        assert!(
            table.contains(word) || word == "in 59m" && table.contains("in 1h"),
            "{word}: {table}"
        );
    }

    // The file belongs to dnsmasq's user, and damaged lines cost only themselves.
    let file = host.file("leases/dnsmasq.leases");
    let mut open = OpenOptions::new().append(true).open(&file).unwrap();
    open.write_all(b"1 2 3\n0 52:54:00:00:00:01 10.71.0.5 \x1b[2J *\n").unwrap();
    let output = host.netlaunch("network leases lab");
    assert!(output.status.success());
    let warned = text(&output.stderr);
    assert!(warned.contains("2 damaged lines"), "{warned}");
    assert_eq!(text(&output.stdout).lines().count(), 3, "{}", text(&output.stdout));
    host.netns.ip("link delete port7");
    host.good("network destroy lab");
}

/// A started network with a guest that has a lease, a guest that has chosen its address, and a
/// launch whose guest has sent nothing.
struct Crowd {
    host: NetworkHost,
    guests: [DhcpGuest; 2],
    leased: String,
    launch: Scene,
    tap: String,
}

impl Crowd {
    fn new() -> Self {
        let host = NetworkHost::new(LAB);
        host.good("network start lab");
        let guest = DhcpGuest::new(&host, 7);
        let leased = guest.lease(&[]);
        let other = DhcpGuest::new(&host, 8);
        other.netns.ip("address add 10.71.0.50/24 dev eth0");
        // The kernel learns the address when the guest speaks to the host.
        other.netns.inside(|| {
            let socket = std::net::UdpSocket::bind("10.71.0.50:0").unwrap();
            socket.send_to(b"hello", "10.71.0.1:9").unwrap();
        });
        let learned = || shown(&host, "ports").to_string().contains("10.71.0.50");
        assert!(wait_until(AT_MOST, learned));
        let mark = host.sandbox.path("").to_string_lossy().into_owned();
        let options =
            ["--network", "lab", "--name", "db", "--mac", "52:54:00:00:00:09", "--device", "e1000"];
        let (launch, record) = up(&host.sandbox, host.sandbox.netlaunch(&waiting(&options, &mark)));
        let tap = record["bridge"]["tap"].as_str().unwrap().to_owned();
        Crowd { host, guests: [guest, other], leased, launch, tap }
    }

    fn end(self) {
        end(self.launch);
        drop(self.guests);
        self.host.good("network destroy --force lab");
    }
}

fn found(address: &str, source: &str) -> Value {
    json!({ "address": address, "source": source })
}

/// The identifier of a guest can be a UUID or a number of its vendor (RFC 8415, 11.3 and 11.5).
#[test]
fn a_lease_without_a_mac_address_has_that_of_the_neighbour() {
    if !have_root("a_lease_without_a_mac_address_has_that_of_the_neighbour") {
        return;
    }
    let host = NetworkHost::new(LAB);
    host.good("network start lab");
    let guest = DhcpGuest::new(&host, 7);
    let uuid = [&[0, 4][..], &[0xab; 16]].concat();
    lease_v6(&guest.netns, &uuid, 1);
    let lease = || shown(&host, "leases")["leases"][0].clone();
    let first = lease();
    assert_eq!(first["mac"], Value::Null, "{first}");
    assert!(first["duid"].as_str().unwrap().starts_with("00:04:ab:ab"), "{first}");
    let address = first["address"].as_str().unwrap();
    guest.netns.ip(&format!("address add {address}/64 dev eth0 nodad"));
    let asked = host.sh(&format!("busybox ping -6 -c 1 -W 20 {address}"));
    assert!(asked.contains(" 0% packet loss"), "{asked}");
    assert_eq!(lease()["mac"], "52:54:00:00:00:07");
    let table = host.good("network leases lab");
    assert!(table.contains("52:54:00:00:00:07"), "{table}");
}

#[test]
fn ports_and_ps_show_each_guest_with_its_address_and_its_source() {
    if !have_root("ports_and_ps_show_each_guest_with_its_address_and_its_source") {
        return;
    }
    let crowd = Crowd::new();
    let (host, tap) = (&crowd.host, &crowd.tap);
    let ports = shown(host, "ports");
    let port = |name: &str| {
        let all = ports["ports"].as_array().unwrap();
        all.iter().find(|port| port["port"] == name).unwrap_or_else(|| panic!("{ports:#}")).clone()
    };
    let own = port(tap);
    assert_eq!((&own["launch"], &own["foreign"]), (&json!("db"), &json!(false)));
    assert_eq!(own["guests"][0]["mac"], "52:54:00:00:00:09", "it has sent nothing yet: {own:#}");
    assert_eq!(own["guests"][0]["ipv4"], found("10.71.0.9", "reservation"));
    let foreign = port("port7");
    assert_eq!((&foreign["launch"], &foreign["foreign"]), (&Value::Null, &json!(true)));
    assert_eq!(foreign["guests"][0]["ipv4"], found(&crowd.leased, "lease"));
    assert_eq!(port("port8")["guests"][0]["ipv4"], found("10.71.0.50", "neighbor"));
    let table = host.good("network ports lab");
    for line in ["10.71.0.9", "reservation", "10.71.0.50", "neighbor", tap, "db"] {
        assert!(table.contains(line), "{line}: {table}");
    }

    let all: Value = serde_json::from_str(&host.sandbox.good(&["ps", "--json"])).unwrap();
    valid("ps", &all);
    let nic = &all["launches"][0]["nics"][0];
    assert_eq!(nic["addresses"]["ipv4"], found("10.71.0.9", "reservation"), "{all:#}");
    assert!(host.sandbox.good(&["ps"]).contains(" 10.71.0.9 "));
    crowd.end();
}

#[test]
fn the_state_of_a_network_is_shown_to_root_and_to_ordinary_users() {
    if !have_root("the_state_of_a_network_is_shown_to_root_and_to_ordinary_users") {
        return;
    }
    let inactive = NetworkHost::new(LAB);
    let info = shown(&inactive, "info");
    assert_eq!((&info["state"], &info["ports"]), (&json!("inactive"), &Value::Null));
    let crowd = Crowd::new();
    let host = &crowd.host;
    let info = shown(host, "info");
    let members = ["state", "bridge", "mode", "mtu", "domain", "leases", "ports", "faults"];
    let got = members.map(|member| info[member].clone());
    let expected = json!(["active", "nlt0", "nat", 1400, "lab.test", 1, 3, []]);
    assert_eq!(json!(got), expected);
    assert_eq!(info["dnsmasq_pid"], host.dnsmasq());
    assert_eq!(info["firewall_backend"], "nftables");
    host.sh("ip addr del 10.71.0.1/24 dev nlt0");
    assert_eq!(shown(host, "info")["faults"][0]["kind"], "address missing");

    // An ordinary user has no definition of the network, and may read its state.
    let user = |words: &[&str]| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &host.netns.name, "setpriv"]);
        command.args([format!("--reuid={USER}"), format!("--regid={USER}")]);
        command.args(["--clear-groups", "--inh-caps=-all"]).arg(host.sandbox.path("bin/netlaunch"));
        command.env("NETLAUNCH_STATE_DIR", host.sandbox.state());
        command.env("NETLAUNCH_CONFIG_DIR", "/nonexistent/config").args(words).output().unwrap()
    };
    for verb in ["info", "leases", "ports"] {
        let output = user(&["network", verb, "lab", "--json"]);
        assert!(output.status.success(), "{verb}: {}", text(&output.stderr));
        valid(&format!("network-{verb}"), &serde_json::from_slice(&output.stdout).unwrap());
        assert!(text(&output.stdout).contains(if verb == "info" {
            "\"nlt0\""
        } else {
            &crowd.leased
        }));
    }
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(host.file("leases"), closed).unwrap();
    let output = user(&["network", "leases", "lab"]);
    assert_eq!(output.status.code(), Some(125));
    let why = text(&output.stderr);
    assert!(
        why.contains("cannot read the leases in ") && why.contains("Permission denied"),
        "{why}"
    );
    crowd.end();
}
