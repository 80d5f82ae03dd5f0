//! Rules of other programs that see frames within a bridge.

use super::*;
use crate::common::AT_MOST;

/// br_netfilter sends the frames between two guests through the packet filter.
#[test]
fn check_names_rules_that_drop_frames_within_a_bridge() {
    if !have_root("check_names_rules_that_drop_frames_within_a_bridge") {
        return;
    }
    let isolated = NAT.replace("<forward mode='nat'/>", "");
    let host = Host::new(&isolated, "nftables");
    let neighbour = Netns::bare();
    host.netns.ip(&format!("link add port1 type veth peer name eth0 netns {}", neighbour.name));
    host.netns.ip("link set port1 master nlt0 up");
    neighbour.ip("link set eth0 up");
    neighbour.ip("address add 10.91.0.8/24 dev eth0");
    let reach = || reaches(&host.guest, &neighbour, "10.91.0.8:8080");
    assert!(wait_until(AT_MOST, reach));
    let calls = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if !host.netns.inside(|| std::path::Path::new(calls).exists()) {
        skipped(
            "check_names_rules_that_drop_frames_within_a_bridge",
            "this kernel has no br_netfilter",
        );
        return;
    }
    host.sh(&format!("echo 1 > {calls}"));
    host.sh(&DOCKER.replace("IPT", "iptables"));
    let found = host.check();
    assert!(!reach(), "br_netfilter sends the frames through FORWARD");
    assert_eq!(places(&found), ["iptables filter, FORWARD"]);
    let fix = found[0]["fix"].as_str().unwrap();
    assert_eq!(fix, "iptables -I DOCKER-USER -i nlt0 -o nlt0 -j ACCEPT");
    apply(&host, &found);
    assert!(reach());
    assert_eq!(places(&host.check()), [] as [&str; 0]);
    // Without br_netfilter nothing of an isolated network passes there.
    host.sh("iptables -F DOCKER-USER");
    host.sh(&format!("echo 0 > {calls}"));
    assert!(reach());
    assert_eq!(places(&host.check()), [] as [&str; 0]);
    // The bridge by its name, and a bridge of the host's own.
    host.netns.ip("link add br7 type bridge");
    let both = host.good("firewall check nlt0 br7");
    assert_eq!(
        both,
        "network lab (nlt0): nothing stops its guests\nbridge br7: nothing stops its guests\n"
    );
    let output = host.netlaunch("firewall check nosuch");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

#[test]
fn check_names_a_rule_that_drops_neighbour_discovery() {
    if !have_root("check_names_a_rule_that_drops_neighbour_discovery") {
        return;
    }
    let xml =
        NAT.replace("</network>", "<ip family='ipv6' address='fd00:91::1' prefix='64'/></network>");
    let host = Host::new(&xml, "nftables");
    host.guest.ip("-6 address add fd00:91::9/64 dev eth0 nodad");
    host.guest.ip("-6 route add default via fd00:91::1");
    let reach = || reaches(&host.guest, &host.outside, "[2001:db8:f::2]:8080");
    assert!(wait_until(AT_MOST, reach));
    assert_eq!(places(&host.check()), [] as [&str; 0]);
    // A mistake of an administrator: IPv6 on this bridge needs ICMPv6.
    host.sh("nft add table ip6 strict; nft 'add chain ip6 strict in { type filter hook input priority 0; policy drop; }'");
    host.sh("nft add rule ip6 strict in iifname up0 accept; nft add rule ip6 strict in iifname lo accept");
    host.guest.ip("neigh flush dev eth0");
    host.netns.ip("neigh flush dev nlt0");
    assert!(!reach());
    let found = host.check();
    assert_eq!(places(&found), ["ip6 strict, in"]);
    assert!(found[0]["why"].as_str().unwrap().contains("search for the host by IPv6"));
    apply(&host, &found);
    assert!(wait_until(AT_MOST, reach));
    assert_eq!(places(&host.check()), [] as [&str; 0]);
}
