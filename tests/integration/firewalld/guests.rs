//! Guests are served beside firewalld, with either backend on either side.

use super::*;

/// All that a guest behind address translation is to have.
const NAT: &str = "lease, outside, from host, name";

/// The life of a network beside firewalld.
fn a_guest_is_served(test: &str, theirs: &str, ours: &str) {
    let Some(mut host) = Host::new(test, ours) else { return };
    host.start_firewalld(theirs);
    host.define("nat", "");
    host.done(&["network", "start", "n"]);
    host.plug();
    assert_eq!(host.zone(), "netlaunch");
    assert_eq!(host.seen(), NAT);

    // A reload removes the zone. That of Debian 12's firewalld also removes all rules in iptables.
    host.tell_firewalld(&["--reload"]);
    assert_eq!(host.zone(), "");
    assert_eq!(host.seen(), "from host", "in the default zone");
    let state = host.state();
    assert!(ours == "iptables" || state.contains("netlaunch_network"), "{state}");
    let output = host.netlaunch(&["firewall", "reload"]);
    let said = text(&output.stdout);
    assert!(said.contains("the bridge nlt0 is in the zone netlaunch again\n"), "{said}");
    assert_eq!(host.seen(), NAT);
    let said = text(&host.netlaunch(&["firewall", "reload"]).stdout);
    assert!(!said.contains("zone"), "again: {said}");

    let follower = host.follow();
    host.tell_firewalld(&["--reload"]);
    assert!(wait_until(LIMIT, || host.zone() == "netlaunch"), "{}", host.follow_log());
    assert_eq!(host.seen(), NAT, "after a reload");

    host.end_firewalld(Signal::SIGTERM);
    let back = || {
        let log = host.follow_log();
        log.split_once("firewalld has ended").is_some_and(|(_, then)| then.contains("are there"))
    };
    assert!(wait_until(LIMIT, back), "{}", host.follow_log());
    assert_eq!(host.seen(), "lease, outside, host, from host, name", "without firewalld");

    host.start_firewalld(theirs);
    assert!(wait_until(LIMIT, || host.zone() == "netlaunch"), "{}", host.follow_log());
    assert_eq!(host.seen(), NAT, "after a restart");

    drop(follower);
    host.done(&["network", "destroy", "n", "--force"]);
    assert_eq!(host.zone(), "");
    assert_eq!(host.traces(), [] as [String; 0]);
}

#[test]
fn a_guest_is_served_by_nftables_beside_firewalld_on_nftables() {
    a_guest_is_served(
        "a_guest_is_served_by_nftables_beside_firewalld_on_nftables",
        "nftables",
        "nftables",
    );
}

#[test]
fn a_guest_is_served_by_iptables_beside_firewalld_on_nftables() {
    a_guest_is_served(
        "a_guest_is_served_by_iptables_beside_firewalld_on_nftables",
        "nftables",
        "iptables",
    );
}

#[test]
fn a_guest_is_served_by_nftables_beside_firewalld_on_iptables() {
    a_guest_is_served(
        "a_guest_is_served_by_nftables_beside_firewalld_on_iptables",
        "iptables",
        "nftables",
    );
}

#[test]
fn a_guest_is_served_by_iptables_beside_firewalld_on_iptables() {
    a_guest_is_served(
        "a_guest_is_served_by_iptables_beside_firewalld_on_iptables",
        "iptables",
        "iptables",
    );
}
