//! The limits of a network's traffic, of which another program removes a part.

use super::*;

#[test]
fn lost_limits_of_a_network_are_found_and_restored() {
    if !have_root("lost_limits_of_a_network_are_found_and_restored") {
        return;
    }
    let limits = "<bandwidth><inbound average='1000'/><outbound average='2000'/></bandwidth><ip ";
    let host = NetworkHost::new(&NAT.replacen("<ip ", limits, 1));
    host.good("network start lab");
    let shown = || {
        host.sh("tc qdisc show dev nlt0; tc class show dev nlt0; tc filter show dev nlt0 ingress | grep -v ' index '; \
             tc class show dev $(ls /sys/class/net | grep nlout)")
    };
    let before = shown();
    assert!(before.contains("8192Kbit") && before.contains("16384Kbit"), "{before}");
    for damage in [
        "tc qdisc del dev nlt0 root",
        "tc qdisc del dev nlt0 ingress",
        "tc filter del dev nlt0 ingress",
        "ip link del $(ls /sys/class/net | grep nlout)",
    ] {
        assert_eq!(listed(&host), [""; 0], "{damage}");
        host.sh(damage);
        assert_eq!(listed(&host), ["bridge changed"], "{damage}");
        let found = check(&host);
        assert!(found[0].to_string().contains("lost limits of its traffic"), "{found:?}");
        let said = host.good("firewall reload");
        assert!(said.contains("the bridge had lost limits of its traffic"), "{damage}: {said}");
        assert_eq!(shown(), before, "{damage}");
    }
    host.good("network destroy lab");
}
