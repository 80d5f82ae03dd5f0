//! Tests of listings that no tool prints for rules that the kernel accepts.

use super::*;

fn guests() -> Guests {
    Guests {
        bridge: "virbr0".parse().unwrap(),
        subnets: vec!["192.168.122.0/24".parse().unwrap()],
        forwarded: true,
        guarded: false,
        filtered_within: Vec::new(),
        dhcp: true,
        dns: true,
        tftp: false,
        published: Vec::new(),
        uplinks: Vec::new(),
    }
}

/// Without the memory of the ends of chains, this is 4 to the 16th walks for each packet.
#[test]
fn many_jumps_to_one_chain_need_one_walk_for_each_depth() {
    let rules = |from: &str, to: &str| format!("-A {from} -j {to}\n").repeat(4);
    let declared: String = (0..20).map(|n| format!(":c{n} - [0:0]\n")).collect();
    let jumps: String = (0..19).map(|n| rules(&format!("c{n}"), &format!("c{}", n + 1))).collect();
    for jumps in [jumps, rules("c0", "c0")] {
        let head = "*filter\n:FORWARD ACCEPT [0:0]\n";
        let saved =
            format!("{head}{declared}-A FORWARD -j c0\n{jumps}-A FORWARD -j DROP\nCOMMIT\n");
        let listings = Listings { iptables: Some(&saved), ..Listings::default() };
        let findings = find(&listings, &guests()).unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].chain, "FORWARD");
    }
}
