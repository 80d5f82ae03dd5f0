//! Tests of the evasions that each stock filter, and combinations of them, allow.

use super::super::{Filters, compile, flatten, parse, stock, stock_names};
use super::*;

fn found(references: &[&str], rules: &str) -> Vec<Evasion> {
    let mut filters: Filters =
        stock_names().map(|name| (name.clone(), stock(&name).unwrap().unwrap())).collect();
    let references: String =
        references.iter().map(|name| format!("<filterref filter='{name}'/>")).collect();
    let text = format!("<filter name='f'>{references}{rules}</filter>");
    let uuid = "3e3fce45-4f53-4fa7-bb32-11f34168b82b".parse().unwrap();
    let filter = parse(text.as_bytes(), Some(uuid)).unwrap();
    filters.insert(filter.name.clone(), filter.clone());
    let pairs = [("MAC", "52:54:00:00:00:01"), ("IP", "192.0.2.9"), ("IPV6", "2001:db8::9")];
    let variables =
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    let (rules, _) = compile(&flatten(&filter, &filters, &variables).unwrap()).unwrap();
    evasions(&rules, pairs[0].1.parse().unwrap(), Some(pairs[1].1.parse().unwrap()))
}

fn forms(found: &[Evasion]) -> Vec<&'static str> {
    let by = found.iter().find_map(|evasion| match evasion {
        Evasion::Encapsulated { by, .. } => Some(by.clone()),
        _ => None,
    });
    by.unwrap_or_default()
}

const ALL: [&str; 5] = ["a VLAN tag", "two VLAN tags (QinQ)", "802.3 and SNAP", "MPLS", "PPPoE"];

#[test]
fn filters_that_stop_only_plain_frames_are_evaded_by_each_encapsulation() {
    for name in [
        "no-mac-spoofing",
        "no-ip-spoofing",
        "no-ipv6-spoofing",
        "no-arp-spoofing",
        "no-arp-ip-spoofing",
        "no-arp-mac-spoofing",
        "netlaunch-no-rogue-server",
        "netlaunch-dhcp-client",
    ] {
        assert_eq!(forms(&found(&[name], "")), ALL, "{name}");
        let closed = found(&[name, "no-other-l2-traffic"], "");
        assert_eq!(forms(&closed), [] as [&str; 0], "{name}");
    }
    // The finding depends on the rules and not on the names of the filters.
    let own = "<rule action='drop' direction='out'><ip match='no' srcipaddr='$IP'/></rule>";
    assert_eq!(forms(&found(&[], own)), ALL);
    let tags = "<rule action='drop' direction='out'><vlan/></rule>";
    assert_eq!(forms(&found(&[], &format!("{own}{tags}"))), ALL[1..]);
    for number in ["0x8100", "0x88a8", "0x8847", "0x8864"] {
        let drop =
            format!("<rule action='drop' direction='out'><mac protocolid='{number}'/></rule>");
        assert_eq!(forms(&found(&[], &format!("{own}{drop}"))).len(), 4, "{number}");
    }
}

#[test]
fn filters_that_accept_only_named_kinds_of_frames_have_no_evasions() {
    for name in ["clean-traffic", "clean-traffic-strict"] {
        assert_eq!(forms(&found(&[name], "")), [] as [&str; 0], "{name}");
    }
    for name in ["allow-arp", "allow-ipv4", "allow-dhcp", "qemu-announce-self"] {
        assert_eq!(found(&[name], ""), [], "{name}");
    }
}

#[test]
fn a_guest_can_serve_and_starve_dhcp_through_libvirts_filters_and_not_through_the_strict_one() {
    let clean = found(&["clean-traffic"], "");
    assert_eq!(clean, [Evasion::Serves(vec!["a DHCP server"]), Evasion::DhcpClients]);
    assert_eq!(found(&["clean-traffic-strict"], ""), []);
    let half = found(&["clean-traffic", "netlaunch-no-rogue-server"], "");
    assert_eq!(half, [Evasion::DhcpClients]);
    let half = found(&["netlaunch-dhcp-client", "clean-traffic"], "");
    assert_eq!(half, [Evasion::Serves(vec!["a DHCP server"])]);
    let open = found(&["no-mac-spoofing"], "");
    let kinds = vec!["a DHCP server", "a DHCPv6 server", "an IPv6 router"];
    assert!(open.contains(&Evasion::Serves(kinds)), "{open:?}");
}

#[test]
fn filters_of_literal_addresses_are_tried_with_those_addresses() {
    let drop = |element: &str| format!("<rule action='drop' direction='out'>{element}</rule>");
    let back = |element: &str| {
        format!("<rule action='return' direction='out' priority='100'>{element}</rule>")
    };
    for rules in [
        drop("<ip match='no' srcipaddr='198.51.100.7'/>"),
        drop("<ip match='no' srcipaddr='198.51.100.0' srcipmask='24'/>"),
        back("<ip srcipaddr='198.51.100.7'/>") + &drop("<ip/>"),
        drop("<ipv6 match='no' srcipaddr='fe80::1'/>"),
        drop("<arp match='no' arpsrcipaddr='198.51.100.7'/>"),
    ] {
        let found = found(&[], &rules);
        assert!(forms(&found).contains(&"a VLAN tag"), "{rules}: {found:?}");
        let mac = |e: &Evasion| matches!(e, Evasion::Encapsulated { stopped, .. } if stopped.iter().any(|s| s.contains("MAC")));
        assert!(!found.iter().any(mac), "no MAC address is tested: {rules}: {found:?}");
    }
}

#[test]
fn a_tag_of_a_vlan_that_the_filter_accepts_is_tried() {
    let own = "<rule action='drop' direction='out'><ip match='no' srcipaddr='$IP'/></rule>";
    let accept = "<rule action='accept' direction='out' priority='100'><vlan vlanid='5'/></rule>";
    let drop = "<rule action='drop' direction='out'><vlan/></rule>";
    assert!(!forms(&found(&[], &format!("{own}{drop}"))).contains(&ALL[0]));
    assert!(forms(&found(&[], &format!("{own}{accept}{drop}"))).contains(&ALL[0]));
}
