//! Defects of libvirt's nftables backend that netlaunch must not have, one test each, on both
//! backends. The tests judge frames through a real bridge, never the rules' text.
//!
//! Rules that track connections need a kernel that does so in the bridge family. Where it does not
//! ([`tracks_bridges`] tries), nftables must refuse them and say why, and an unset
//! `firewall_backend` must choose iptables; the frames are then sent through that.

use std::net::Ipv4Addr;

use crate::common::frame::{Frame, Host, OTHER, PEER, VM, mac_text};
use crate::common::port_scene::{PortScene, Station, backends, tracks_bridges};
use crate::common::{have_root, ipset};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN: u8 = 0x01;

/// At the end of a filter: what no rule accepted is dropped, both ways.
const DROP_PACKETS: &str = "<rule action='drop' direction='inout' priority='1000'><all/></rule>";
const DROP_PACKETS_V6: &str =
    "<rule action='drop' direction='inout' priority='1000'><all-ipv6/></rule>";
/// The same for all frames.
const DROP_FRAMES: &str = "<rule action='drop' direction='inout' priority='1000'><mac/></rule>";

/// Runs a test on each backend.
fn on_both(name: &str, test: impl Fn(&PortScene)) {
    if !have_root(name) {
        return;
    }
    for backend in backends() {
        println!("{backend}");
        test(&PortScene::new(Some(backend)));
    }
}

/// Binds a filter of these rules, which track connections, to vnet0. Where nftables cannot do that,
/// it must say so and do nothing; without a setting, iptables must do it then.
fn filter_statefully(scene: &PortScene, rules: &str) {
    let nftables = std::fs::read_to_string(scene.sandbox.path("config/nwfilter.conf")).unwrap();
    if !nftables.contains("nftables") || tracks_bridges() {
        scene.filter(rules).unwrap();
        return;
    }
    let before = scene.ruleset();
    let refusal = scene.filter(rules).unwrap_err();
    assert!(refusal.contains("cannot track connections in the bridge family"), "{refusal}");
    assert_eq!(scene.ruleset(), before, "a refused filter left rules");
    println!("  refused, as this kernel tracks no connections of bridges; without a setting:");
    scene.settings("");
    scene.bind(Station::Vnet0, "test", &[]).unwrap();
    assert_eq!(scene.backend_of(Station::Vnet0), "iptables");
}

/// 1. `ipset=` is ignored, so that a rule accepts everything.
#[test]
fn addresses_are_looked_up_in_an_ipset_or_the_filter_is_refused() {
    if !have_root("the ipset test") {
        return;
    }
    let rules = "<rule action='accept' direction='out' statematch='false'><all ipset='known' ipsetflags='dst,dst'/></rule>";
    let rules = format!("{rules}{DROP_PACKETS}");
    let known = Frame::udp(VM, PEER, 1000, 53);
    let unknown = Frame::udp(VM, PEER, 1000, 54);
    let chosen = backends().contains(&"iptables").then_some(None);
    for backend in backends().into_iter().map(Some).chain(chosen) {
        println!("{backend:?}");
        let scene = PortScene::new(backend);
        scene.netns.inside(|| ipset::make("known", PEER.v4, 53));
        if backend == Some("nftables") {
            let before = scene.ruleset();
            let refusal = scene.filter(&rules).unwrap_err();
            assert!(refusal.contains("ipset known"), "{refusal}");
            assert_eq!(scene.ruleset(), before);
            assert!(scene.leaves(&unknown), "a refused filter filters");
            continue;
        }
        scene.filter(&rules).unwrap();
        assert_eq!(scene.backend_of(Station::Vnet0), "iptables");
        assert!(scene.leaves(&known));
        assert!(!scene.leaves(&unknown), "accepted, though the set does not have it");
    }
}

/// 2. `state='NONE'` is ignored, and `state='NEW'` accepts what others open.
#[test]
fn a_rule_has_the_states_it_names_and_no_other() {
    on_both("the test of states", |scene| {
        // Neither rule looks at connections, so an answer passes by the rule of its own way.
        scene
            .filter(&format!(
                "<rule action='accept' direction='in'><udp dstportstart='700' state='NONE'/></rule>
                 <rule action='accept' direction='out'><udp dstportstart='53' state='NONE'/></rule>
                 {DROP_PACKETS}"
            ))
            .unwrap();
        assert!(scene.enters(&Frame::udp(PEER, VM, 53, 700)));
        assert!(scene.leaves(&Frame::udp(VM, PEER, 700, 53)), "an answer is no packet of its own");
        assert!(!scene.enters(&Frame::udp(PEER, VM, 53, 701)), "NONE has a rule the other way");
        scene.unbind(Station::Vnet0);

        filter_statefully(
            scene,
            &format!(
                "<rule action='accept' direction='out'><udp dstportstart='54' state='NEW'/></rule>{DROP_PACKETS}"
            ),
        );
        assert!(!scene.enters(&Frame::udp(PEER, VM, 54, 1000)), "NEW accepts what others open");
        assert!(scene.leaves(&Frame::udp(VM, PEER, 1001, 54)));
        assert!(!scene.enters(&Frame::udp(PEER, VM, 54, 1001)), "an answer is not new");
    });
}

/// 3. `match='no'` with an address of the network layer makes a rule that nft refuses, and in the
///    link layer negates the EtherType, too.
#[test]
fn addresses_can_be_excluded() {
    let third = Host { v4: Ipv4Addr::new(10, 2, 3, 77), ..VM };
    let far = Host { v4: Ipv4Addr::new(10, 9, 9, 9), ..VM };
    on_both("the test of match='no'", |scene| {
        for (attributes, inside, outside) in [
            ("srcipaddr='10.2.3.4'", VM, third),
            ("srcipaddr='10.2.3.0' srcipmask='24'", third, far),
            ("srcipfrom='10.2.3.4' srcipto='10.2.3.77'", third, far),
        ] {
            scene
                .filter(&format!(
                    "<rule action='drop' direction='out'><all match='no' {attributes}/></rule>"
                ))
                .unwrap();
            assert!(scene.leaves(&Frame::udp(inside, PEER, 1, 2)), "{attributes}");
            assert!(!scene.leaves(&Frame::udp(outside, PEER, 1, 2)), "{attributes}");
            scene.unbind(Station::Vnet0);
        }
        scene
            .filter("<rule action='drop' direction='out'><ip match='no' protocol='tcp'/></rule>")
            .unwrap();
        assert!(scene.leaves(&Frame::tcp(VM, PEER, 1, 2, SYN)));
        assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)));
        assert!(scene.leaves(&Frame::arp(VM, PEER, 1)), "the EtherType is negated, too");
    });
}

/// 4. Rules of direction `inout` do not exchange addresses and ports for what leaves the guest.
#[test]
fn rules_of_both_ways_exchange_source_and_destination() {
    on_both("the test of inout", |scene| {
        scene
            .filter(&format!(
                "<rule action='accept' direction='inout'><tcp srcipaddr='{}' srcportstart='22'/></rule>{DROP_PACKETS}",
                PEER.v4
            ))
            .unwrap();
        assert!(scene.enters(&Frame::tcp(PEER, VM, 22, 4000, SYN | ACK)));
        assert!(scene.leaves(&Frame::tcp(VM, PEER, 4000, 22, SYN)));
        assert!(!scene.leaves(&Frame::tcp(Host { v4: PEER.v4, ..VM }, PEER, 22, 4000, SYN)));
        assert!(!scene.enters(&Frame::tcp(PEER, VM, 4000, 22, SYN)));
    });
}

/// 5. Rules for answers keep the sender's hardware address of the other way, so that none comes
///    through.
#[test]
fn answers_pass_where_the_rule_names_the_guests_hardware_address() {
    on_both("the test of srcmacaddr", |scene| {
        filter_statefully(
            scene,
            &format!(
                "<rule action='accept' direction='out'><udp srcmacaddr='{}' dstportstart='53'/></rule>{DROP_PACKETS}",
                mac_text(VM.mac)
            ),
        );
        assert!(!scene.enters(&Frame::udp(PEER, VM, 53, 1000)), "nobody asked for it");
        assert!(scene.leaves(&Frame::udp(VM, PEER, 1001, 53)));
        assert!(scene.enters(&Frame::udp(PEER, VM, 53, 1001)), "the answer");
        let stranger = Frame::udp(VM, PEER, 1002, 53).sent_by(OTHER.mac);
        assert!(!scene.leaves(&stranger), "another hardware address");
    });
}

/// 6. Numbers and ranges of STP are inverted.
#[test]
fn ranges_of_spanning_tree_messages_are_ranges() {
    on_both("the test of STP", |scene| {
        scene
            .filter(&format!(
                "<rule action='accept' direction='in'><stp root-priority='0x0101' root-priority-hi='0x0909'/></rule>
                 <rule action='accept' direction='in'><stp root-priority='0x2020'/></rule>{DROP_FRAMES}"
            ))
            .unwrap();
        for (byte, passes) in
            [(0, false), (1, true), (5, true), (9, true), (10, false), (0x20, true), (0x21, false)]
        {
            assert_eq!(scene.enters(&Frame::stp(PEER, byte)), passes, "{byte:#x}");
        }
    });
}

/// 7. The protocol type of RARP is looked for among its lengths.
#[test]
fn the_protocol_type_of_rarp_is_found() {
    on_both("the test of RARP", |scene| {
        scene
            .filter(&format!(
                "<rule action='accept' direction='out'><rarp protocoltype='0x800'/></rule>{DROP_FRAMES}"
            ))
            .unwrap();
        assert!(scene.leaves(&Frame::rarp(VM, 0x0800)));
        assert!(!scene.leaves(&Frame::rarp(VM, 0x86dd)));
        // The address lengths of Ethernet and IPv4, read as a protocol type.
        assert!(!scene.leaves(&Frame::rarp(VM, 0x0604)));
    });
}

/// 8. The flags of TCP are exchanged with their mask, or refused by nft.
#[test]
fn flags_of_tcp_are_compared_under_their_mask() {
    on_both("the test of TCP's flags", |scene| {
        for (flags, dropped, passed) in [
            ("SYN,ACK/SYN", vec![SYN, SYN | FIN], vec![ACK, SYN | ACK, FIN, 0]),
            ("ALL/SYN", vec![SYN], vec![SYN | FIN, SYN | ACK, ACK, 0]),
            ("SYN,FIN/NONE", vec![0, ACK], vec![SYN, FIN, SYN | ACK]),
        ] {
            scene
                .filter(&format!(
                    "<rule action='drop' direction='in'><tcp flags='{flags}'/></rule>"
                ))
                .unwrap();
            for (set, passes) in
                dropped.iter().map(|f| (f, false)).chain(passed.iter().map(|f| (f, true)))
            {
                let frame = Frame::tcp(PEER, VM, 5000, 80, *set);
                assert_eq!(scene.enters(&frame), passes, "{flags}: {set:#04x}");
            }
            scene.unbind(Station::Vnet0);
        }
    });
}

/// 9. A bind that fails leaves chains, to which the next bind of the port adds its rules.
#[test]
fn nothing_of_a_failed_bind_reaches_the_next() {
    on_both("the test of failed binds", |scene| {
        let backend = std::fs::read_to_string(scene.sandbox.path("config/nwfilter.conf")).unwrap();
        let accept_v6 = "<rule action='accept' direction='inout' priority='100'><all-ipv6/></rule>
             <rule action='accept' direction='inout' priority='100'><mac protocolid='arp'/></rule>";
        scene.foreign_rules();
        let before = scene.ruleset();
        let failing = if backend.contains("nftables") {
            // The kernel refuses a map that is there with other keys.
            scene.sh("nft add table bridge netlaunch_nwfilter");
            scene.sh(
                "nft 'add map bridge netlaunch_nwfilter to_guest { type ether_addr : verdict; }'",
            );
            accept_v6.to_owned()
        } else {
            // iptables refuses a set that is not there, when ebtables has done its part already.
            format!(
                "{accept_v6}<rule action='drop' direction='out'><all ipset='absent' ipsetflags='src'/></rule>"
            )
        };
        let refused = scene.ruleset();
        let said = scene.filter(&failing).unwrap_err();
        assert!(said.contains("the filter was not changed"), "{said}");
        assert_eq!(scene.ruleset(), refused, "a failed bind left something");
        let frame = Frame::udp6(VM, PEER, 1, 2);
        assert!(scene.leaves(&frame), "the port is not as it was");
        assert!(scene.leaves(&Frame::arp(VM, PEER, 1)));
        assert_eq!(scene.list()["bindings"], serde_json::json!([]));
        if backend.contains("nftables") {
            scene.sh("nft delete table bridge netlaunch_nwfilter");
        }

        scene.filter(&format!("{DROP_PACKETS_V6}{DROP_FRAMES}")).unwrap();
        assert!(!scene.leaves(&frame), "rules of the failed bind are still there");
        assert!(!scene.leaves(&Frame::arp(VM, PEER, 1)));
        scene.unbind(Station::Vnet0);
        assert_eq!(scene.ruleset(), before);
    });
}

/// 10. While an address is learned, everything but foreign hardware addresses passes; and rules for
///     a type of ICMP accept that type the other way, too.
#[test]
fn a_guest_without_its_address_gets_no_open_port_and_icmp_types_have_one_way() {
    on_both("the test of what is not known yet", |scene| {
        for learning in [None, Some("any"), Some("dhcp"), Some("none")] {
            let parameters: Vec<_> =
                learning.map(|how| ("CTRL_IP_LEARNING", how)).into_iter().collect();
            match scene.bind(Station::Vnet0, "clean-traffic", &parameters) {
                // It says what is missing, and the port stays unbound.
                Err(said) => {
                    assert!(said.contains("needs values for IP"), "{said}");
                    assert_eq!(scene.list()["bindings"], serde_json::json!([]));
                }
                // Or it learns; then nothing of the kind passes before it has.
                Ok(()) => {
                    assert!(!scene.leaves(&Frame::udp(VM, PEER, 1, 2)), "{learning:?}");
                    assert!(!scene.leaves(&Frame::udp6(VM, PEER, 1, 2)), "{learning:?}");
                    scene.unbind(Station::Vnet0);
                }
            }
        }
        const REQUEST: u8 = 8;
        const REPLY: u8 = 0;
        scene
            .filter(&format!(
                "<rule action='accept' direction='out' statematch='false'><icmp type='8'/></rule>{DROP_PACKETS}"
            ))
            .unwrap();
        assert!(scene.leaves(&Frame::icmp(VM, PEER, REQUEST)));
        assert!(!scene.leaves(&Frame::icmp(VM, PEER, REPLY)), "another type");
        assert!(!scene.enters(&Frame::icmp(PEER, VM, REQUEST)), "the type, the other way");
        scene.unbind(Station::Vnet0);

        filter_statefully(
            scene,
            &format!("<rule action='accept' direction='out'><icmp type='8'/></rule>{DROP_PACKETS}"),
        );
        assert!(!scene.enters(&Frame::icmp(PEER, VM, REQUEST)));
        assert!(scene.leaves(&Frame::icmp(VM, PEER, REQUEST)));
        assert!(!scene.enters(&Frame::icmp(PEER, VM, REQUEST)));
    });
}

/// 11. `binding-create` returns before the rules are in force.
#[test]
fn a_filter_is_in_force_when_its_bind_returns() {
    let stranger = Host { v4: Ipv4Addr::new(10, 2, 3, 200), ..VM };
    on_both("the test of binds that return early", |scene| {
        for learning in ["any", "dhcp", "none"] {
            let parameters = [("IP", "10.2.3.4"), ("CTRL_IP_LEARNING", learning)];
            scene.bind(Station::Vnet0, "clean-traffic", &parameters).unwrap();
            assert!(!scene.leaves(&Frame::udp(stranger, PEER, 1, 2)), "{learning}");
            assert!(scene.leaves(&Frame::udp(VM, PEER, 1, 2)), "{learning}");
            scene.unbind(Station::Vnet0);
        }
    });
}
