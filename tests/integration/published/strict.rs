//! The published ports beside the rules of other programs, and with br_netfilter on and off.

use super::*;
use netlaunch::firewall::conflicts::{Finding, Traffic};

/// The rules that docker makes on a host: it forwards for its own bridge, and drops the rest.
pub(super) fn docker(scene: &Scene) {
    for v6 in [false, true] {
        let tool = scene.tools.iptables(v6);
        scene.sh(&format!(
            "t={tool}; $t -P FORWARD DROP; $t -N DOCKER-USER; $t -N DOCKER-FORWARD; \
             $t -A FORWARD -j DOCKER-USER; $t -A FORWARD -j DOCKER-FORWARD; \
             $t -A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; \
             $t -t nat -N DOCKER; \
             $t -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER; \
             $t -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER; \
             $t -t nat -A DOCKER -i docker0 -j RETURN"
        ));
    }
}

/// The rules that firewalld makes on a host whose bridge is in a zone that accepts.
pub(super) fn firewalld(scene: &Scene) {
    scene.sh("nft -f - <<'END'\n\
         table inet firewalld {\n\
           chain filter_FORWARD {\n\
             type filter hook forward priority filter + 10; policy accept;\n\
             ct state { established, related } accept\n\
             ct status dnat accept\n\
             iifname \"lo\" accept\n\
             iifname \"nlp0\" accept\n\
             reject with icmpx admin-prohibited\n\
           }\n\
           chain filter_INPUT {\n\
             type filter hook input priority filter + 10; policy accept;\n\
             ct state { established, related } accept\n\
             ct status dnat accept\n\
             iifname \"lo\" accept\n\
             meta l4proto { icmp, ipv6-icmp } accept\n\
             iifname \"nlp0\" udp dport { 67, 547 } accept\n\
             reject with icmpx admin-prohibited\n\
           }\n\
         }\nEND");
}

/// Lets published ports pass docker's chain where netlaunch's rules of nftables cannot, as
/// `firewall check` says.
pub(super) fn let_published_pass(scene: &Scene) {
    if scene.tools == Tools::Nftables {
        for v6 in [false, true] {
            scene.sh(&format!(
                "t={}; for side in -i -o; do \
                 $t -I DOCKER-USER $side nlp0 -m conntrack --ctstate DNAT -j ACCEPT; done",
                scene.tools.iptables(v6)
            ));
        }
    }
}

/// Returns the chains that stop published ports, as `firewall check` finds them.
fn stopped(scene: &Scene) -> Vec<Finding> {
    let checked = scene.with(async |manager| manager.conflicts(&[]).await.unwrap());
    let all = checked.into_iter().flat_map(|one| one.findings);
    all.filter(|one| one.stops.contains(&Traffic::Published)).collect()
}

fn beside(tools: Tools, others: fn(&Scene), forward: &str, seen: (&str, &str)) {
    let Some(scene) = Scene::new("beside_other_rules", tools, forward) else { return };
    others(&scene);
    scene.publish(&PUBLISHED);
    assert_eq!(scene.table(), expected(seen.0, seen.1), "{tools:?} {forward:?}");
    assert_eq!(stopped(&scene), [] as [Finding; 0], "{tools:?} {forward:?}");
    // The other program sets its rules again, and a reload puts netlaunch's first.
    scene.with(async |manager| manager.reload().await.unwrap());
    assert_eq!(scene.table(), expected(seen.0, seen.1), "{tools:?} {forward:?} after a reload");
}

const OUTSIDE: (&str, &str) = ("203.0.113.2", "2001:db8:f::2");
const BRIDGE: (&str, &str) = ("10.60.0.1", "fd00:60::1");

#[test]
fn published_ports_pass_beside_docker_on_iptables() {
    for tools in [Tools::Iptables, Tools::Legacy] {
        beside(tools, docker, "<forward mode='nat'/>", OUTSIDE);
        beside(tools, docker, "<forward mode='open'/>", OUTSIDE);
        beside(tools, docker, "", BRIDGE);
    }
}

#[test]
fn published_ports_pass_beside_firewalld() {
    for tools in [Tools::Nftables, Tools::Iptables] {
        beside(tools, firewalld, "<forward mode='nat'/>", OUTSIDE);
        beside(tools, firewalld, "", BRIDGE);
    }
}

#[test]
fn published_ports_pass_with_and_without_br_netfilter() {
    for tools in [Tools::Nftables, Tools::Iptables] {
        for on in ["0", "1"] {
            let test = "published_ports_pass_with_and_without_br_netfilter";
            let Some(scene) = Scene::new(test, tools, "<forward mode='nat'/>") else { return };
            if !fs::exists("/proc/sys/net/bridge").unwrap() {
                skipped(test, format_args!("this kernel has no br_netfilter"));
                return;
            }
            scene.sh(&format!(
                "echo {on} >/proc/sys/net/bridge/bridge-nf-call-iptables; \
                 echo {on} >/proc/sys/net/bridge/bridge-nf-call-ip6tables"
            ));
            scene.publish(&PUBLISHED);
            assert_eq!(scene.table(), expected(OUTSIDE.0, OUTSIDE.1), "{tools:?} {on}");
        }
    }
}

/// A table of nftables cannot open what docker closes, and `firewall check` names the fix.
#[test]
fn the_check_names_dockers_chain_that_stops_published_ports() {
    let test = "the_check_names_dockers_chain_that_stops_published_ports";
    let Some(scene) = Scene::new(test, Tools::Nftables, "") else { return };
    docker(&scene);
    assert_eq!(stopped(&scene), [] as [Finding; 0]);
    scene.publish(&PUBLISHED);
    assert_eq!(reach(&scene.outside, "203.0.113.1:8011"), "-");
    let findings = stopped(&scene);
    let tables: Vec<_> = findings.iter().map(|one| one.table.as_str()).collect();
    assert_eq!(tables, ["iptables filter", "ip6tables filter"]);
    let fix = "iptables -I DOCKER-USER -i nlp0 -m conntrack --ctstate DNAT -j ACCEPT && \
               iptables -I DOCKER-USER -o nlp0 -m conntrack --ctstate DNAT -j ACCEPT";
    assert!(findings[0].fix().starts_with(fix), "{}", findings[0].fix());
    for finding in &findings {
        scene.sh(&finding.fix());
    }
    assert_eq!(stopped(&scene), [] as [Finding; 0]);
    assert_eq!(scene.table(), expected(BRIDGE.0, BRIDGE.1));
}

/// As on a bridge of the host, whose addresses are not the network's.
#[test]
fn a_network_without_addresses_publishes_by_those_of_its_bridge() {
    let test = "a_network_without_addresses_publishes_by_those_of_its_bridge";
    for tools in [Tools::Nftables, Tools::Iptables] {
        let Some(scene) = Scene::new(test, tools, BARE) else { return };
        let ports =
            ["8001:9001", "8001:9001/udp", "203.0.113.1:8011:9001", "203.0.113.1:8011:9001/udp"];
        let guest = scene.published(&ports, 2);
        let error = scene.with(async |manager| manager.publish(&lab(), &guest).await.unwrap_err());
        let expected = "because the bridge of the network lab has no IPv4 address; give it one";
        assert!(error.to_string().contains(expected), "{error}");
        scene.host.ip("address add 10.60.0.1/24 dev nlp0");
        let subnets = scene.with(async |manager| manager.bridge_subnets(&lab()).await.unwrap());
        scene.publish_guest(&PublishedGuest { subnets, ..guest });
        for (from, to) in [
            (&scene.host, "127.0.0.1:8001"),
            (&scene.host, "203.0.113.1:8011"),
            (&scene.outside, "203.0.113.1:8011"),
            (&scene.other, "203.0.113.1:8011"),
            (&scene.guest, "203.0.113.1:8011"),
        ] {
            assert_eq!(reach(from, to), "9001 10.60.0.1", "{tools:?}: {to}");
        }
    }
}

/// Guests on a bridge of the host may have another router, so each client has the bridge's address.
#[test]
fn every_client_reaches_the_published_ports_of_a_guest_on_a_bridge_of_the_host() {
    let test = "every_client_reaches_the_published_ports_of_a_guest_on_a_bridge_of_the_host";
    for tools in [Tools::Nftables, Tools::Iptables] {
        let Some(scene) = Scene::new(test, tools, ON_BRIDGE) else { return };
        let subnets = scene.with(async |manager| manager.bridge_subnets(&lab()).await.unwrap());
        let guest = PublishedGuest { subnets, ..scene.published(&PUBLISHED, 2) };
        scene.publish_guest(&guest);
        assert_eq!(scene.table(), expected(BRIDGE.0, BRIDGE.1), "{tools:?}");
        let (tap, index) = (&guest.tap, guest.index);
        scene.with(async |manager| manager.unpublish(&lab(), tap, index).await.unwrap());
        let rules = scene.sh("nft list ruleset; iptables-save; ip6tables-save");
        assert!(!rules.contains("nl-nlp0"), "{rules}");
    }
}
