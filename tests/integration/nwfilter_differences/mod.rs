//! The differences between the backends: one table, which the kernel proves row by row, and which
//! the manual lists word for word.
//!
//! A row is proved with frames of a real bridge on both backends. A difference that a test finds
//! and that is not in this table is a defect of netlaunch.

mod proofs;

use crate::common::port_scene::{PortScene, backends};
use crate::common::{have_root, skipped};
use proofs::{
    a_pattern_as_a_name, a_renamed_port, ah_and_no_next_header, ah_of_ipv6, an_ipset, arp_lengths,
    calls_of_iptables, connections, counters_of_a_port, dropped_answers, link_local_frames,
    packets_of_the_host, refused_by_iptables, reject_to_the_guest, short_headers, stp_fields,
    tagged_packets, trace_setting, two_fragment_headers,
};

/// A kind of rule or a setting, and what each backend does with it.
struct Difference {
    what: &'static str,
    nftables: &'static str,
    iptables: &'static str,
    /// Proves the row of one backend in a new scene.
    proof: fn(&PortScene, Backend),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Backend {
    Nftables,
    Iptables,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        what: "A rule with an ipset",
        nftables: "refuses the filter.",
        iptables: "applies the rule.",
        proof: an_ipset,
    },
    Difference {
        what: "A rule about connections: state, connlimit-above, or an accept whose answers pass",
        nftables: "needs a kernel that tracks connections of bridges, and refuses the filter on another one.",
        iptables: "applies the rule.",
        proof: connections,
    },
    Difference {
        what: "Packets of the guest that a rule for frames drops, beside rules about connections",
        nftables: "counts them as packets of their connections.",
        iptables: "does not track them.",
        proof: dropped_answers,
    },
    Difference {
        what: "Packets with a VLAN tag, beside rules about connections",
        nftables: "tracks their connections.",
        iptables: "does not track them.",
        proof: tagged_packets,
    },
    Difference {
        what: "Connections, ipsets and TCP flags of packets that the host sends or routes to the guest",
        nftables: "applies the rule.",
        iptables: "applies an accept without that test, and does not apply a drop or reject; the bind prints this.",
        proof: packets_of_the_host,
    },
    Difference {
        what: "A reject of packets to the guest",
        nftables: "drops them without an answer.",
        iptables: "answers them.",
        proof: reject_to_the_guest,
    },
    Difference {
        what: "Frames of the guest to 01:80:c2:00:00:00 to 0f",
        nftables: "filters them.",
        iptables: "leaves them to the bridge without the filter; the bind prints this.",
        proof: link_local_frames,
    },
    Difference {
        what: "The fields of <stp>",
        nftables: "applies the rule.",
        iptables: "takes the version for the type, never applies a rule with a type other than 0, and reads the other fields one byte too early, as ebtables does; check prints this.",
        proof: stp_fields,
    },
    Difference {
        what: "<ah-ipv6>",
        nftables: "applies the rule.",
        iptables: "applies the rule over nf_tables; the legacy variant of ip6tables reads the header behind AH, and never applies it; check prints this.",
        proof: |scene, backend| {
            assert_eq!(ah_of_ipv6(scene, "<ah-ipv6/>", None), Some(true));
            match ah_of_ipv6(scene, "<ah-ipv6/>", Some("xtables-legacy-multi")) {
                Some(stopped) => assert_eq!(stopped, backend == Backend::Nftables),
                None => skipped("each_difference (<ah-ipv6>)", "there is no legacy ip6tables"),
            }
        },
    },
    Difference {
        what: "<ipv6> with protocol ah",
        nftables: "applies the rule.",
        iptables: "never applies the rule, since ebtables reads the header behind AH; check prints this.",
        proof: |scene, backend| {
            let stopped = ah_of_ipv6(scene, "<ipv6 protocol='ah'/>", None);
            assert_eq!(stopped, Some(backend == Backend::Nftables));
        },
    },
    Difference {
        what: "<ipv6> with another protocol, for packets with AH or without a next header",
        nftables: "finds the protocol 51 or 59.",
        iptables: "finds the protocol behind AH, and none without a next header, as ebtables does.",
        proof: ah_and_no_next_header,
    },
    Difference {
        what: "<ipv6> with a protocol, for packets whose second fragment header has an offset",
        nftables: "finds the protocol that this header names.",
        iptables: "finds the protocol 44, as in other later fragments.",
        proof: two_fragment_headers,
    },
    Difference {
        what: "Addresses in ARP and RARP packets that do not have six and four bytes",
        nftables: "finds the MAC address of the sender, if it has six bytes, and no other address.",
        iptables: "finds the addresses that have the right length.",
        proof: arp_lengths,
    },
    Difference {
        what: "A packet that ends within its IPv6 extension headers, or within its TCP, UDP, UDP-Lite, DCCP, SCTP or ICMP header",
        nftables: "applies a rule by the bytes behind the packet, if the frame has some.",
        iptables: "does not apply a rule about the missing fields, or drops the packet at such a rule.",
        proof: short_headers,
    },
    Difference {
        what: "A dscp under match='no' in <ip>",
        nftables: "applies the rule.",
        iptables: "refuses the filter.",
        proof: |scene, backend| {
            refused_by_iptables(
                scene,
                backend,
                "<ip match='no' dscp='5'/>",
                "a dscp under match='no'",
            );
        },
    },
    Difference {
        what: "The VLAN number 4095 in <vlan>",
        nftables: "applies the rule.",
        iptables: "refuses the filter.",
        proof: |scene, backend| {
            refused_by_iptables(
                scene,
                backend,
                "<vlan vlanid='4095'/>",
                "the reserved VLAN number",
            );
        },
    },
    Difference {
        what: "Rules for IP protocols while net.bridge.bridge-nf-call-iptables is 0",
        nftables: "applies the rules.",
        iptables: "refuses the filter.",
        proof: calls_of_iptables,
    },
    Difference {
        what: "A port that is renamed",
        nftables: "keeps its filter, except for frames to 01:80:c2:00:00:00 to 0f.",
        iptables: "has no filter until the next command that changes a filter, a binding or the firewall.",
        proof: a_renamed_port,
    },
    Difference {
        what: "A port whose name ends in +",
        nftables: "filters the port.",
        iptables: "refuses the port.",
        proof: a_pattern_as_a_name,
    },
    Difference {
        what: "The counters of a port in binding-list",
        nftables: "counts passed and dropped frames with enable_counters.",
        iptables: "has no such counters; with --counters, its rules show theirs always.",
        proof: counters_of_a_port,
    },
    Difference {
        what: "The setting enable_trace",
        nftables: "traces the frames of the port for nft monitor trace.",
        iptables: "ignores it, and the bind prints this; explain --follow traces the port.",
        proof: trace_setting,
    },
];

#[test]
fn each_difference_of_the_table_is_the_kernels() {
    if !have_root("each_difference_of_the_table_is_the_kernels") {
        return;
    }
    for difference in DIFFERENCES {
        for name in backends() {
            println!("{}: {name}", difference.what);
            let backend = if name == "nftables" { Backend::Nftables } else { Backend::Iptables };
            (difference.proof)(&PortScene::new(Some(name)), backend);
        }
    }
}

/// Returns the list of differences in the manual: the item of each, and its text.
fn listed(manual: &str) -> Vec<(String, String)> {
    let (_, rest) = manual.split_once(".Ss Differences between the backends\n").unwrap();
    let (list, _) = rest.split_once(".El\n").unwrap();
    let mut items: Vec<(String, String)> = Vec::new();
    for line in list.lines() {
        if let Some(item) = line.strip_prefix(".It ") {
            items.push((item.to_owned(), String::new()));
        } else if let Some((_, text)) = items.last_mut() {
            let words = line.strip_prefix(".Cm ").unwrap_or(line);
            text.push_str(&format!("{words} "));
        }
    }
    items.into_iter().map(|(item, text)| (item, text.trim_end().to_owned())).collect()
}

#[test]
fn the_manual_lists_the_differences_of_the_table_word_for_word() {
    let file = format!("{}/man/netlaunch-nwfilter.1", env!("CARGO_MANIFEST_DIR"));
    let manual = std::fs::read_to_string(file).unwrap();
    let expected: Vec<_> = DIFFERENCES
        .iter()
        .map(|difference| {
            let Difference { what, nftables, iptables, .. } = difference;
            ((*what).to_owned(), format!("nftables {nftables} iptables {iptables}"))
        })
        .collect();
    assert_eq!(listed(&manual), expected);
}
