//! Tests parts of a running network that other programs remove: `firewall check` names each with a
//! fix that works, `network list` shows it, and `firewall reload` restores it. Also tests starts
//! that fail for a reason that dnsmasq does not report.

mod limits;

use std::fs;
use std::net::{TcpListener, UdpSocket};

use crate::common::network_host::NetworkHost;
use crate::common::{AT_MOST, Netns, have_root, text, wait_until};
use serde_json::Value;

const NAT: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000099</uuid>\
    <forward mode='nat'/><bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:99'/>\
    <ip address='10.99.0.1' netmask='255.255.255.0'><dhcp><range start='10.99.0.100' \
    end='10.99.0.200'/></dhcp></ip><ip family='ipv6' address='fd00:99::1' prefix='64'/>\
    <route address='10.98.0.0' prefix='24' gateway='10.99.0.2'/></network>";

/// The findings of `firewall check`, whose exit status says whether there are any.
fn check(host: &NetworkHost) -> Vec<Value> {
    let output = host.netlaunch("firewall check --json");
    let value: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    crate::common::schema::valid("firewall-check", &value);
    let findings = value["bridges"][0]["findings"].as_array().unwrap().clone();
    assert_eq!(output.status.code(), Some(i32::from(!findings.is_empty())), "{value:#}");
    findings
}

fn kinds(findings: &[Value]) -> Vec<&str> {
    findings.iter().map(|finding| finding["kind"].as_str().unwrap()).collect()
}

/// The faults of the network as `network list` has them, for programs and for people.
fn listed(host: &NetworkHost) -> Vec<String> {
    let value: Value = serde_json::from_str(&host.good("network list --json")).unwrap();
    crate::common::schema::valid("networks", &value);
    let networks = value["networks"].as_array().unwrap();
    let lab = networks.iter().find(|network| network["name"] == "lab").unwrap();
    assert_eq!(lab["state"], "active");
    let faults = lab["faults"].as_array().unwrap();
    let faults: Vec<String> = faults.iter().map(|f| f.as_str().unwrap().to_owned()).collect();
    let shown = [&["active".to_owned()], &faults[..]].concat().join(", ");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    if !faults.is_empty() && shown.len() < 40 {
        assert!(words(&host.good("network list")).contains(&words(&format!("lab {shown} no"))));
    }
    faults
}

/// Damage, the kind of fault, and the words with which a reload says what had been missing.
type Case = (&'static str, &'static str, &'static str);

const OF_BOTH: [Case; 15] = [
    ("sysctl -qw net.ipv4.ip_forward=0", "forwarding off", "net/ipv4/ip_forward was not 1"),
    ("sysctl -qw net.ipv6.conf.all.forwarding=0", "forwarding off", "all/forwarding was not 1"),
    ("sysctl -qw net.ipv4.conf.nlt0.forwarding=0", "forwarding off", "nlt0/forwarding was not"),
    ("ip link set nlt0 down", "bridge down", "the bridge was down"),
    ("ip link delete nlt0", "bridge missing", "the bridge nlt0 was gone"),
    ("ip link set nlt0 address 02:00:00:00:00:01", "bridge changed", "another MAC address"),
    ("ip link set nlt0 arp off", "bridge changed", "the bridge had ARP off"),
    ("ip link set nlt0 type bridge stp_state 1", "bridge changed", "the bridge had STP on"),
    ("ip address del 10.99.0.1/24 dev nlt0", "address missing", "10.99.0.1/24 was missing"),
    ("ip address del fd00:99::1/64 dev nlt0", "address missing", "fd00:99::1/64 was missing"),
    (
        "ip address del 10.99.0.1/24 dev nlt0; ip address add 10.99.0.1/16 dev nlt0",
        "address missing",
        "the address 10.99.0.1/24 was missing",
    ),
    ("ip route del 10.98.0.0/24", "route missing", "the route to 10.98.0.0/24 was missing"),
    // Without it the host sends packets for guests to its own router.
    (
        "ip route del 10.99.0.0/24 dev nlt0",
        "route missing",
        "the route to 10.99.0.0/24 was missing",
    ),
    ("ip -6 route del fd00:99::/64 dev nlt0", "route missing", "the route to fd00:99::/64 was"),
    ("sysctl -qw net.ipv6.conf.nlt0.disable_ipv6=1", "setting changed", "disable_ipv6 was not 0"),
];

const OF_NFTABLES: [Case; 9] = [
    ("nft flush ruleset", "rules missing", "table ip netlaunch_network"),
    ("nft delete table ip6 netlaunch_network", "rules missing", "table ip6 netlaunch_network"),
    (
        "nft \"add table ip netlaunch_network { flags dormant; }\"",
        "rules missing",
        "table ip netlaunch_network is dormant",
    ),
    (
        "nft \"chain ip netlaunch_network forward { policy drop; }\"",
        "rules missing",
        "forward has the policy drop",
    ),
    ("nft insert rule ip netlaunch_network nl-nlt0-to drop", "rules missing", "1 rules of others"),
    ("nft flush chain ip netlaunch_network nl-nlt0-to", "rules missing", "nl-nlt0-to"),
    ("nft flush chain ip netlaunch_network forward", "rules missing", "netlaunch_network forward"),
    (
        "nft 'delete element ip netlaunch_network forwarded_from { \"nlt0\" }'",
        "rules missing",
        "map ip netlaunch_network forwarded_from",
    ),
    (
        "h=$(nft -a list chain ip netlaunch_network nl-nlt0-nat | sed -n 's/.*masquerade.* # handle //p' | head -n 1); \
         nft delete rule ip netlaunch_network nl-nlt0-nat handle $h",
        "rules missing",
        "1 of",
    ),
];

const OF_IPTABLES: [Case; 5] = [
    ("iptables -F; iptables -X", "rules missing", "chain NETLAUNCH_FWD of iptables filter"),
    ("iptables -F FORWARD", "rules missing", "jump from FORWARD to NETLAUNCH_FWD"),
    ("iptables -F nl-nlt0-to", "rules missing", "nl-nlt0-to of iptables filter"),
    ("iptables -t nat -F", "rules missing", "of iptables nat"),
    ("ip6tables -F NETLAUNCH_FWD", "rules missing", "NETLAUNCH_FWD of ip6tables filter"),
];

fn lost_parts_are_named_and_put_back(backend: &str, cases: &[Case]) {
    if !have_root("lost_parts_are_named_and_put_back") {
        return;
    }
    let host = NetworkHost::new(NAT);
    let setting = format!("firewall_backend = \"{backend}\"\n");
    fs::write(host.sandbox.path("config/network.conf"), setting).unwrap();
    let before = host.state();
    host.good("network start lab");
    assert_eq!((kinds(&check(&host)), listed(&host)), (vec![], vec![]));
    for (damage, kind, said) in cases {
        host.sh(damage);
        let found = check(&host);
        assert!(kinds(&found).contains(kind), "{damage}: {found:#?}");
        assert!(found.iter().all(|one| one["fix"] == "netlaunch firewall reload"), "{found:#?}");
        assert!(listed(&host).contains(&(*kind).to_owned()), "{damage}");
        let done = host.good("firewall reload");
        assert!(done.contains(said), "{damage}: {done}");
        assert_eq!(kinds(&check(&host)), [""; 0], "{damage}");
    }
    host.good("network destroy lab");
    if backend == "nftables" {
        assert_eq!(host.state(), before);
    }
}

#[test]
fn check_names_and_reload_puts_back_each_part_of_a_network() {
    lost_parts_are_named_and_put_back("nftables", &OF_BOTH);
}

#[test]
fn check_names_and_reload_puts_back_each_rule_of_nftables() {
    lost_parts_are_named_and_put_back("nftables", &OF_NFTABLES);
}

#[test]
fn check_names_and_reload_puts_back_each_rule_of_iptables() {
    lost_parts_are_named_and_put_back("iptables", &OF_IPTABLES);
}

#[test]
fn check_names_a_dnsmasq_that_does_not_serve_and_reload_starts_it() {
    if !have_root("check_names_a_dnsmasq_that_does_not_serve_and_reload_starts_it") {
        return;
    }
    let host = NetworkHost::new(NAT);
    host.good("network start lab");
    for (signal, kind) in [("KILL", "dnsmasq missing"), ("STOP", "dnsmasq stopped")] {
        host.sh(&format!("kill -{signal} {}", host.dnsmasq()));
        let seen = || kinds(&check(&host)) == [kind];
        assert!(wait_until(AT_MOST, seen), "{signal}");
        assert_eq!(listed(&host), [kind]);
        let launch = host.netlaunch("--network lab --print -- qemu-system-x86_64");
        let said = text(&launch.stderr);
        assert!(said.contains("warning: the network lab: ") && said.contains("dnsmasq"), "{said}");
        let done = host.good("firewall reload");
        assert!(done.contains("dnsmasq of the network lab was"), "{done}");
        assert_eq!(kinds(&check(&host)), [""; 0]);
    }
    // A dnsmasq that is bound to the bridge of before serves no guest of the new one.
    host.sh("ip link delete nlt0");
    let earlier = host.dnsmasq();
    let done = host.good("firewall reload");
    assert!(done.contains("was of the earlier bridge and runs again"), "{done}");
    assert_ne!(host.dnsmasq(), earlier);
    // An interface of another program with the bridge's name is not touched.
    host.sh("ip link delete nlt0; ip link add nlt0 type bridge");
    let found = check(&host);
    assert_eq!(found[0]["fix"], "ip link delete nlt0 && netlaunch firewall reload");
    let said = host.bad("firewall reload", 125);
    assert!(said.contains("remove that interface with 'ip link delete nlt0'"), "{said}");
    host.sh("ip link delete nlt0");
    host.good("firewall reload");
    assert_eq!(kinds(&check(&host)), [""; 0]);
    host.sh("ip link set nlt0 down; ip link set nlt0 name other0");
    assert!(host.bad("firewall reload", 125).contains("has the name other0 now"));
    let fix = check(&host)[0]["fix"].as_str().unwrap().replace("netlaunch firewall reload", ":");
    host.sh(&fix);
    host.good("firewall reload");
    assert_eq!(kinds(&check(&host)), [""; 0]);
    host.good("network destroy lab");
}

/// This damage is named with these words, and the printed fixes mend it and leave the host's
/// default route alone. Policy rules are then put back as the kernel makes them.
fn mended_by_its_fix(host: &NetworkHost, damage: &str, says: &str) {
    let default = host.sh("ip route show default");
    host.sh(damage);
    let found = check(host);
    let whys = found.iter().map(|one| one["why"].as_str().unwrap()).collect::<Vec<_>>();
    assert!(whys.iter().any(|why| why.contains(says)), "{damage}: {whys:?}");
    for one in &found {
        let fix = one["fix"].as_str().unwrap();
        host.sh(&fix.replace("netlaunch firewall reload", ":"));
        if fix.contains("netlaunch firewall reload") {
            host.good("firewall reload");
        }
    }
    assert_eq!(kinds(&check(host)), [""; 0], "{damage}");
    assert_eq!(host.sh("ip route show default"), default, "{damage}");
    host.sh("ip rule flush; ip rule add pref 32766 lookup main");
    host.sh("ip route flush table 52 2>&1 || :; ip route flush table 53 2>&1 || :");
}

#[test]
fn check_names_rules_that_refuse_and_never_removes_the_default_route() {
    if !have_root("check_names_rules_that_refuse_and_never_removes_the_default_route") {
        return;
    }
    let host = NetworkHost::new(NAT);
    host.good("network start lab");
    let refused = "are refused by the host's routes (rule 100";
    for (damage, says) in [
        ("ip rule add pref 100 to 10.99.0.0/24 blackhole", refused),
        ("ip rule add pref 100 to 10.99.0.0/24 prohibit", refused),
        ("ip rule add pref 100 iif nlt0 unreachable", refused),
        // The kill switch of a VPN; then a rule about a half of the guests.
        (
            "ip route add blackhole default table 52; ip rule add pref 100 from 10.99.0.0/24 lookup 52",
            "send beyond the host are refused by the host's routes (rule 100, table 52)",
        ),
        (
            "ip route add default dev up1 table 52; ip rule add pref 100 from 10.99.0.128/25 lookup 52",
            "send beyond the host leave by up1 (rule 100, table 52)",
        ),
        ("ip route replace 10.99.0.0/24 dev up1", "leave by up1 and not by the bridge nlt0"),
        ("ip route replace blackhole 10.99.0.0/24", "are refused by the host's routes"),
    ] {
        mended_by_its_fix(&host, damage, says);
    }
    // Without forwarding the kernel sends guests' packets nowhere, and no rule is to blame.
    host.sh("ip rule add fwmark 7 prohibit; sysctl -qw net.ipv4.ip_forward=0");
    assert!(kinds(&check(&host)).iter().all(|kind| *kind == "forwarding off"));
    host.good("network destroy lab");
}

#[test]
fn a_reload_that_fails_for_ports_says_what_it_put_back_for_networks() {
    if !have_root("a_reload_that_fails_for_ports_says_what_it_put_back_for_networks") {
        return;
    }
    let host = NetworkHost::new(NAT);
    host.good("network start lab");
    let bindings = host.sandbox.state().join("nwfilter/bindings");
    fs::create_dir_all(&bindings).unwrap();
    fs::write(bindings.join(".lock"), "another").unwrap();
    fs::write(bindings.join("vnet0.json"), "{}").unwrap();
    host.sh("ip link set nlt0 down");
    let said = host.bad("firewall reload", 125);
    assert!(said.contains("the ports of another network namespace"), "{said}");
    assert!(said.contains("put back for the network lab: the bridge was down"), "{said}");
    fs::remove_dir_all(bindings).unwrap();
    host.good("network destroy lab");
}

/// A host that lets out only packets that its administrator names, as many servers do.
#[test]
fn check_names_a_chain_that_refuses_the_hosts_replies_to_guests() {
    if !have_root("check_names_a_chain_that_refuses_the_hosts_replies_to_guests") {
        return;
    }
    let host = NetworkHost::new(NAT);
    host.good("network start lab");
    let guest = Netns::bare();
    host.sh(&format!("ip link add port1 type veth peer name eth0 netns {}", guest.name));
    host.sh("ip link set port1 master nlt0 up");
    guest.ip("link set eth0 up");
    // A client that gets a lease ends at once, however many requests it may send.
    let has_lease = |requests: u32| {
        let client = format!("busybox udhcpc -i eth0 -nqft {requests} -T1 -s /bin/true 2>&1 || :");
        host.sh(&format!("ip netns exec {} {client}", guest.name)).contains("lease of 10.99.0.")
    };
    assert!(has_lease(60));
    for (make, place, end) in [
        (
            "nft add table inet guard; nft 'add chain inet guard out { type filter hook output \
             priority 0; policy drop; }'; nft add rule inet guard out ct state established accept",
            ("inet guard", "out"),
            "nft delete table inet guard",
        ),
        ("iptables -P OUTPUT DROP", ("iptables filter", "OUTPUT"), "iptables -P OUTPUT ACCEPT"),
    ] {
        host.sh(make);
        assert!(!has_lease(4), "{make}");
        let found = check(&host);
        let places = found.iter().map(|one| (&one["table"], &one["chain"])).collect::<Vec<_>>();
        assert_eq!(places, [(&place.0.into(), &place.1.into())], "{make}");
        assert!(found[0]["why"].as_str().unwrap().contains("the host's DHCP replies"));
        host.sh(found[0]["fix"].as_str().unwrap());
        assert!(has_lease(60), "{make}");
        assert_eq!(kinds(&check(&host)), [""; 0], "{make}");
        host.sh(end);
    }
    host.good("network destroy --force lab");
}

/// Each route or rule leads packets of the network elsewhere. The fix that is printed mends it.
#[test]
fn check_names_routes_and_rules_that_lead_elsewhere_with_a_fix_that_works() {
    if !have_root("check_names_routes_and_rules_that_lead_elsewhere_with_a_fix_that_works") {
        return;
    }
    let host = NetworkHost::new(NAT);
    host.good("network start lab");
    let vpn = "ip route add default dev up1 table 52";
    for (damage, says) in [
        ("ip route add 10.99.0.128/25 dev up1".to_owned(), "leave by up1"),
        ("ip route add 10.99.0.77/32 via 192.0.2.1".to_owned(), "10.99.0.77 leave by up0"),
        ("ip route add blackhole 10.99.0.64/26".to_owned(), "are refused by the host's routes"),
        ("ip -6 route add fd00:99::/80 dev up1".to_owned(), "leave by up1"),
        (
            "ip rule add pref 99 lookup 53; ip route add 10.99.0.0/25 dev up1 table 53".to_owned(),
            "leave by up1 (rule 99, table 53)",
        ),
        // An exit node of tailscale, and wg-quick(8) with AllowedIPs = 0.0.0.0/0.
        (format!("{vpn}; ip rule add pref 5270 lookup 52"), "leave by up1 (rule 5270, table 52)"),
        (
            format!(
                "{vpn}; ip rule add not fwmark 51820 lookup 52 pref 32765; \
                 ip rule add lookup main suppress_prefixlength 0 pref 32764"
            ),
            "send beyond the host leave by up1 (rule 32765, table 52) and not by up0",
        ),
        ("sysctl -qw net.ipv4.conf.up0.forwarding=0".to_owned(), "up0/forwarding is 0 and not 1"),
    ] {
        mended_by_its_fix(&host, &damage, says);
    }
    // A rule for marked packets alone, and two default routes at the same cost, lead nothing away.
    host.sh(&format!("{vpn}; ip rule add fwmark 7 lookup 52"));
    host.sh("ip address add 198.18.0.1/24 dev up1");
    host.sh(
        "ip route replace default nexthop via 192.0.2.1 dev up0 nexthop via 198.18.0.2 dev up1",
    );
    assert_eq!(kinds(&check(&host)), [""; 0]);
    host.good("network destroy lab");
}

#[test]
fn a_start_that_lacks_a_port_names_its_holder_and_the_fix() {
    if !have_root("a_start_that_lacks_a_port_names_its_holder_and_the_fix") {
        return;
    }
    let host = NetworkHost::new(NAT);
    let before = host.state();
    let me = format!("(process {})", std::process::id());
    let refused = |port: &str, fix: &str| {
        let said = host.bad("network start lab", 125);
        for part in [me.as_str(), port, fix, "stop it"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!(host.state(), before);
    };
    let dhcp = host.netns.inside(|| UdpSocket::bind("0.0.0.0:67").unwrap());
    refused("has port 67/udp on 0.0.0.0", "give the network no <dhcp>");
    drop(dhcp);
    let dns = host.netns.inside(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    refused("has port 53/udp on 0.0.0.0", "<dns enable='no'/>");
    drop(dns);
    let dns = host.netns.inside(|| TcpListener::bind("[::]:53").unwrap());
    refused("has port 53/tcp on ::", "<dns enable='no'/>");
    drop(dns);
    host.good("network start lab");
    host.good("network destroy lab");
}

/// A restart of either service removes the rules of networks.
#[test]
fn the_shipped_units_follow_nftables_and_firewalld() {
    let unit = include_str!("../../conf/netlaunch-networks.service");
    let line = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    for service in ["nftables.service", "firewalld.service"] {
        for key in ["After=", "PartOf=", "ReloadPropagatedFrom=", "WantedBy="] {
            assert!(line(key).split(' ').any(|word| word == service), "{key}{service}");
        }
    }
    // A start of the unit puts back what active networks have lost; autostart alone passes them
    // over.
    assert!(line("ExecStartPre=").ends_with("netlaunch firewall reload"));
    assert!(line("ExecReload=").ends_with("netlaunch firewall reload"));
}
