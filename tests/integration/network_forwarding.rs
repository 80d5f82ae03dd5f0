//! Tests IP forwarding and the settings that depend on it: a network leaves the forwarding of
//! others and the host's own IPv6 on, and restores every value exactly.

use std::fs;
use std::time::Duration;

use crate::common::network_host::NetworkHost;
use crate::common::{Netns, Reaped, have_root, text, wait_until};

fn xml(name: &str, n: u8) -> String {
    format!(
        "<network><name>{name}</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-0000000001{n}</uuid>\
         <forward mode='nat'/><bridge name='nlt{n}' delay='0'/><mac address='52:54:00:00:01:{n}'/>\
         <dns enable='no'/><ip address='10.{n}.0.1' netmask='255.255.255.0'/>\
         <ip family='ipv6' address='fd00:{n}::1' prefix='64'/></network>"
    )
}

fn host() -> NetworkHost {
    let host = NetworkHost::new(&xml("lab", 70));
    fs::write(host.sandbox.path("config/networks/two.xml"), xml("two", 71)).unwrap();
    host
}

fn value(host: &NetworkHost, key: &str) -> String {
    host.sh(&format!("cat /proc/sys/net/{key}")).trim().to_owned()
}

/// Every value that forwarding changes, by interface number.
fn settings(host: &NetworkHost) -> String {
    host.sh("cd /proc/sys/net; for n in all default $(ls /sys/class/net); do \
         i=$(ip -o link show dev $n 2>/dev/null | cut -d: -f1); \
         for k in ipv4/conf/$n/forwarding ipv4/conf/$n/accept_redirects \
         ipv6/conf/$n/forwarding ipv6/conf/$n/accept_ra; do \
         [ -e $k ] && echo ${i:-$n} ${k%%/*} ${k##*/} $(cat $k); done; done | sort")
}

#[test]
fn destroy_leaves_forwarding_on_where_others_could_use_it_and_says_so() {
    if !have_root("destroy_leaves_forwarding_on_where_others_could_use_it_and_says_so") {
        return;
    }
    let host = host();
    host.good("network start lab");
    // As docker does: it finds forwarding on, and writes nothing.
    host.sh("ip link add docker0 type bridge; ip link set docker0 up");
    host.sh(
        "ip address add 172.17.0.1/16 dev docker0; ip -6 address add fd00:17::1/64 dev docker0",
    );
    let output = host.netlaunch("network destroy lab");
    assert!(output.status.success());
    let said = text(&output.stderr);
    assert!(
        said.contains("IPv4 forwarding stays on, since up0 and docker0 could use it"),
        "{said}"
    );
    assert!(said.contains("sysctl -w net/ipv4/ip_forward=0"), "{said}");
    assert_eq!(value(&host, "ipv4/ip_forward"), "1");
    // For IPv6 docker0 is alone, and nothing can be forwarded.
    assert_eq!(value(&host, "ipv6/conf/all/forwarding"), "0");
    host.sh("ip -6 address add fd00:18::1/64 dev up0 nodad");
    host.good("network start lab");
    assert_eq!(value(&host, "ipv6/conf/up0/accept_ra"), "2");
    let said = text(&host.netlaunch("network destroy lab").stderr);
    assert!(
        said.contains("IPv6 forwarding stays on, since up0 and docker0 could use it"),
        "{said}"
    );
    // With forwarding on, the host keeps its own IPv6 by this alone.
    assert_eq!(value(&host, "ipv6/conf/all/forwarding"), "1");
    assert_eq!(value(&host, "ipv6/conf/up0/accept_ra"), "2");
}

#[test]
fn a_failed_start_turns_forwarding_off_in_any_case() {
    if !have_root("a_failed_start_turns_forwarding_off_in_any_case") {
        return;
    }
    let host = host();
    host.sh("ip address add 198.18.0.1/24 dev up1");
    let before = (host.state(), settings(&host));
    host.sandbox.script("nft", "echo 'Error: Could not process rule: No buffer space' >&2; exit 1");
    host.bad("network start lab", 125);
    assert_eq!((host.state(), settings(&host)), before);
}

#[test]
fn values_of_interfaces_come_back_exactly() {
    if !have_root("values_of_interfaces_come_back_exactly") {
        return;
    }
    let host = host();
    // Those of an administrator, each not what the kernel makes of it.
    host.sh("ip link add br7 type bridge; ip link add br8 type bridge; \
         sysctl -qw net.ipv4.conf.br7.forwarding=1 net.ipv6.conf.br7.forwarding=1 \
         net.ipv4.conf.all.accept_redirects=0 net.ipv6.conf.br7.accept_ra=2 \
         net.ipv6.conf.br8.accept_ra=0");
    let before = settings(&host);
    host.good("network start lab");
    host.good("network start two");
    assert_eq!(value(&host, "ipv6/conf/up1/accept_ra"), "2");
    assert_eq!(value(&host, "ipv6/conf/br8/accept_ra"), "0");
    // One is renamed, one has gone and has a successor of its name, one comes later.
    host.sh("ip link set up1 name wan1; ip link delete br8; ip link add br8 type bridge");
    assert_eq!(value(&host, "ipv6/conf/br8/accept_ra"), "2", "a later interface has the default");
    host.good("network destroy lab");
    assert_eq!(value(&host, "ipv4/ip_forward"), "1", "the other network needs it");
    assert_eq!(value(&host, "ipv6/conf/wan1/accept_ra"), "2", "so does the host's own IPv6");
    host.good("network destroy two");
    host.sh("ip link set wan1 name up1");
    let after = settings(&host);
    assert_eq!(value(&host, "ipv6/conf/br8/accept_ra"), "1");
    let of = |all: &str, gone: &str| -> Vec<String> {
        let index = host.sh(&format!("cat /sys/class/net/{gone}/ifindex 2>/dev/null || echo 0"));
        let prefix = format!("{} ", index.trim());
        all.lines().filter(|line| !line.starts_with(&prefix)).map(str::to_owned).collect()
    };
    let after = of(&after, "br8");
    let missing: Vec<_> = after.iter().filter(|line| !before.contains(line.as_str())).collect();
    assert_eq!(missing, [""; 0], "before:\n{before}");
}

#[test]
fn a_value_that_was_changed_since_is_left() {
    if !have_root("a_value_that_was_changed_since_is_left") {
        return;
    }
    let host = host();
    host.good("network start lab");
    host.sh("sysctl -qw net.ipv6.conf.up0.accept_ra=0 net.ipv4.ip_forward=0");
    host.good("network destroy lab");
    assert_eq!(value(&host, "ipv6/conf/up0/accept_ra"), "0");
    assert_eq!(value(&host, "ipv6/conf/up1/accept_ra"), "1");
    assert_eq!(value(&host, "ipv4/ip_forward"), "0");
}

/// A router that advertises a prefix to `eth0` of its namespace.
fn router(netns: &Netns, dir: &std::path::Path) -> Reaped {
    netns.ip("-6 address add fe80::1/64 dev eth0 nodad");
    netns.ip("-6 address add 2001:db8:70::1/64 dev eth0 nodad");
    let leases = format!("--dhcp-leasefile={}", dir.join("router.leases").display());
    let args = [
        "netns",
        "exec",
        &netns.name,
        "dnsmasq",
        "-k",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--port=0",
        "--interface=eth0",
        "--bind-dynamic",
        "--enable-ra",
        "--user=root",
        &leases,
        "--dhcp-range=2001:db8:70::,ra-only,64",
    ];
    Reaped(std::process::Command::new("ip").args(args).spawn().unwrap())
}

/// The host has heard no router yet when the network starts: its link is off.
#[test]
fn a_network_with_ipv6_leaves_the_host_its_own_ipv6() {
    if !have_root("a_network_with_ipv6_leaves_the_host_its_own_ipv6") {
        return;
    }
    let host = host();
    let other = Netns::bare();
    host.netns.ip(&format!("link add wan0 type veth peer name eth0 netns {}", other.name));
    other.ip("link set eth0 up");
    let _router = router(&other, &host.sandbox.path(""));
    host.good("network start lab");
    host.netns.ip("link set wan0 up");
    let has = |what: &str| host.sh(&format!("ip -6 {what} show dev wan0"));
    let heard =
        || has("route").contains("default via fe80::1") && has("address").contains("2001:db8:70:");
    assert!(wait_until(Duration::from_secs(60), heard), "{}{}", has("route"), has("address"));
    // An interface that comes later hears its router, too.
    let third = Netns::bare();
    host.netns.ip(&format!("link add wan1 type veth peer name eth0 netns {}", third.name));
    assert_eq!(value(&host, "ipv6/conf/wan1/accept_ra"), "2");
    host.good("network destroy lab");
    assert_eq!(value(&host, "ipv6/conf/wan0/accept_ra"), "1");
    assert_eq!(value(&host, "ipv6/conf/wan1/accept_ra"), "1");
    assert!(heard(), "the end of a network leaves it as well");
}

/// As in libvirt: without DNS and DHCP there is no dnsmasq that could announce the prefix.
#[test]
fn a_prefix_is_announced_only_where_dnsmasq_serves_dns_or_dhcp() {
    if !have_root("a_prefix_is_announced_only_where_dnsmasq_serves_dns_or_dhcp") {
        return;
    }
    let host = host();
    let announces = || {
        let conf = fs::read_to_string(host.file("dnsmasq.conf")).unwrap_or_default();
        conf.contains("enable-ra") && conf.contains("ra-only")
    };
    let plain = xml("lab", 70);
    let dhcp = plain.replace(
        "0'/><ip family",
        "0'><dhcp><range start='10.70.0.9' end='10.70.0.10'/></dhcp></ip><ip family",
    );
    for (xml, serves) in
        [(plain.clone(), false), (plain.replace("<dns enable='no'/>", ""), true), (dhcp, true)]
    {
        fs::write(host.sandbox.path("config/networks/lab.xml"), &xml).unwrap();
        host.good("network start lab");
        assert_eq!(host.status()["dnsmasq"], serves, "{xml}");
        assert_eq!(announces(), serves, "{xml}");
        host.good("network destroy lab");
    }
}
