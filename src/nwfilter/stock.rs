//! The stock filters, which exist without a definition: libvirt's, with the same names and effects,
//! and others that libvirt does not have (`clean-traffic-strict`, `clean-traffic-v6`,
//! `netlaunch-*`, ...). netlaunch wrote their texts, which are in `conf/filters/NAME.xml`.

use super::model::Filter;
use super::value::FilterName;
use super::write::placed_as_printed;
use super::xml::parse;
use crate::xml::XmlError;

/// The names and documents of the stock filters, sorted by name.
const STOCK: [(&str, &str); 36] = [
    ("allow-arp", include_str!("../../conf/filters/allow-arp.xml")),
    ("allow-dhcp", include_str!("../../conf/filters/allow-dhcp.xml")),
    ("allow-dhcp-server", include_str!("../../conf/filters/allow-dhcp-server.xml")),
    ("allow-dhcpv6", include_str!("../../conf/filters/allow-dhcpv6.xml")),
    ("allow-dhcpv6-server", include_str!("../../conf/filters/allow-dhcpv6-server.xml")),
    ("allow-incoming-ipv4", include_str!("../../conf/filters/allow-incoming-ipv4.xml")),
    ("allow-incoming-ipv6", include_str!("../../conf/filters/allow-incoming-ipv6.xml")),
    ("allow-ipv4", include_str!("../../conf/filters/allow-ipv4.xml")),
    ("allow-ipv6", include_str!("../../conf/filters/allow-ipv6.xml")),
    ("allow-mld", include_str!("../../conf/filters/allow-mld.xml")),
    ("clean-traffic", include_str!("../../conf/filters/clean-traffic.xml")),
    ("clean-traffic-dual", include_str!("../../conf/filters/clean-traffic-dual.xml")),
    ("clean-traffic-gateway", include_str!("../../conf/filters/clean-traffic-gateway.xml")),
    ("clean-traffic-strict", include_str!("../../conf/filters/clean-traffic-strict.xml")),
    ("clean-traffic-v6", include_str!("../../conf/filters/clean-traffic-v6.xml")),
    ("netlaunch-dhcp-client", include_str!("../../conf/filters/netlaunch-dhcp-client.xml")),
    ("netlaunch-dhcp-messages", include_str!("../../conf/filters/netlaunch-dhcp-messages.xml")),
    ("netlaunch-nd-messages", include_str!("../../conf/filters/netlaunch-nd-messages.xml")),
    ("netlaunch-no-rogue-server", include_str!("../../conf/filters/netlaunch-no-rogue-server.xml")),
    ("no-arp-ip-spoofing", include_str!("../../conf/filters/no-arp-ip-spoofing.xml")),
    ("no-arp-mac-spoofing", include_str!("../../conf/filters/no-arp-mac-spoofing.xml")),
    ("no-arp-spoofing", include_str!("../../conf/filters/no-arp-spoofing.xml")),
    ("no-dhcpv6-server", include_str!("../../conf/filters/no-dhcpv6-server.xml")),
    ("no-ip-multicast", include_str!("../../conf/filters/no-ip-multicast.xml")),
    ("no-ip-spoofing", include_str!("../../conf/filters/no-ip-spoofing.xml")),
    ("no-ipv6-ip-spoofing", include_str!("../../conf/filters/no-ipv6-ip-spoofing.xml")),
    ("no-ipv6-multicast", include_str!("../../conf/filters/no-ipv6-multicast.xml")),
    ("no-ipv6-spoofing", include_str!("../../conf/filters/no-ipv6-spoofing.xml")),
    ("no-mac-broadcast", include_str!("../../conf/filters/no-mac-broadcast.xml")),
    ("no-mac-spoofing", include_str!("../../conf/filters/no-mac-spoofing.xml")),
    ("no-nd-spoofing", include_str!("../../conf/filters/no-nd-spoofing.xml")),
    ("no-other-l2-traffic", include_str!("../../conf/filters/no-other-l2-traffic.xml")),
    ("no-other-rarp-traffic", include_str!("../../conf/filters/no-other-rarp-traffic.xml")),
    ("no-ra", include_str!("../../conf/filters/no-ra.xml")),
    ("qemu-announce-self", include_str!("../../conf/filters/qemu-announce-self.xml")),
    ("qemu-announce-self-rarp", include_str!("../../conf/filters/qemu-announce-self-rarp.xml")),
];

/// Returns the names of the stock filters.
pub fn stock_names() -> impl Iterator<Item = FilterName> {
    STOCK.iter().filter_map(|(name, _)| name.parse().ok())
}

/// Returns the stock filter of that name.
///
/// # Errors
/// Returns the error in its document; netlaunch's tests check that there is none.
pub fn stock(name: &FilterName) -> Option<Result<Filter, XmlError>> {
    let (_, text) = STOCK.iter().find(|(stock, _)| *stock == name.as_str())?;
    let filter = parse(text.as_bytes(), None);
    Some(filter.map(|filter| placed_as_printed(filter, text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::super::{Filters, Variables, find_loop, flatten, needs, to_xml};
    use super::*;
    use crate::xml::schema::accepted;

    #[test]
    fn stock_filters() {
        let names: Vec<FilterName> = stock_names().collect();
        assert_eq!(names.len(), 36);
        assert!(names.is_sorted());
        let filters: Filters = names
            .iter()
            .map(|name| {
                (name.clone(), stock(name).unwrap().unwrap_or_else(|e| panic!("{name}:{e}")))
            })
            .collect();
        let uuids: std::collections::BTreeSet<_> =
            filters.values().map(|filter| filter.uuid).collect();
        assert_eq!(uuids.len(), 36, "each has a UUID of its own");
        let parameters = [
            ("MAC", "52:54:00:00:00:01"),
            ("IP", "10.0.0.1"),
            ("IP", "10.0.0.2"),
            ("IPV6", "2001:db8::1"),
            ("IPV6", "fe80::1"),
            ("DHCPSERVER", "10.0.0.3"),
            ("GATEWAY_MAC", "52:54:00:00:00:02"),
        ];
        let variables: Variables =
            parameters.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        for (name, filter) in &filters {
            assert_eq!(filter.name, *name);
            assert_eq!(find_loop(filter, &filters), None);
            assert_eq!(needs(filter, &filters).filters, []);
            let mut variables = variables.clone();
            if name.as_str() == "allow-dhcpv6-server" {
                variables = [("DHCPSERVER".parse().unwrap(), "2001:db8::3".parse().unwrap())]
                    .into_iter()
                    .collect();
            }
            let flat = flatten(filter, &filters, &variables).unwrap_or_else(|e| panic!("{e}"));
            assert!(!flat.is_empty(), "{name}");
        }
        let documents: Vec<String> = filters.values().map(to_xml).collect();
        accepted("nwfilter.rng", &documents);
    }
}
