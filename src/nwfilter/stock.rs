//! The filters that are there without being defined: libvirt's by name, and by what they do. Their
//! texts are netlaunch's own, `conf/filters/NAME.xml`.

use super::model::Filter;
use super::value::FilterName;
use super::xml::parse;
use crate::xml::XmlError;

/// Their names and documents, by name.
const STOCK: [(&str, &str); 24] = [
    ("allow-arp", include_str!("../../conf/filters/allow-arp.xml")),
    ("allow-dhcp", include_str!("../../conf/filters/allow-dhcp.xml")),
    ("allow-dhcp-server", include_str!("../../conf/filters/allow-dhcp-server.xml")),
    ("allow-dhcpv6", include_str!("../../conf/filters/allow-dhcpv6.xml")),
    ("allow-dhcpv6-server", include_str!("../../conf/filters/allow-dhcpv6-server.xml")),
    ("allow-incoming-ipv4", include_str!("../../conf/filters/allow-incoming-ipv4.xml")),
    ("allow-incoming-ipv6", include_str!("../../conf/filters/allow-incoming-ipv6.xml")),
    ("allow-ipv4", include_str!("../../conf/filters/allow-ipv4.xml")),
    ("allow-ipv6", include_str!("../../conf/filters/allow-ipv6.xml")),
    ("clean-traffic", include_str!("../../conf/filters/clean-traffic.xml")),
    ("clean-traffic-gateway", include_str!("../../conf/filters/clean-traffic-gateway.xml")),
    ("no-arp-ip-spoofing", include_str!("../../conf/filters/no-arp-ip-spoofing.xml")),
    ("no-arp-mac-spoofing", include_str!("../../conf/filters/no-arp-mac-spoofing.xml")),
    ("no-arp-spoofing", include_str!("../../conf/filters/no-arp-spoofing.xml")),
    ("no-ip-multicast", include_str!("../../conf/filters/no-ip-multicast.xml")),
    ("no-ip-spoofing", include_str!("../../conf/filters/no-ip-spoofing.xml")),
    ("no-ipv6-multicast", include_str!("../../conf/filters/no-ipv6-multicast.xml")),
    ("no-ipv6-spoofing", include_str!("../../conf/filters/no-ipv6-spoofing.xml")),
    ("no-mac-broadcast", include_str!("../../conf/filters/no-mac-broadcast.xml")),
    ("no-mac-spoofing", include_str!("../../conf/filters/no-mac-spoofing.xml")),
    ("no-other-l2-traffic", include_str!("../../conf/filters/no-other-l2-traffic.xml")),
    ("no-other-rarp-traffic", include_str!("../../conf/filters/no-other-rarp-traffic.xml")),
    ("qemu-announce-self", include_str!("../../conf/filters/qemu-announce-self.xml")),
    ("qemu-announce-self-rarp", include_str!("../../conf/filters/qemu-announce-self-rarp.xml")),
];

/// Their names.
pub fn stock_names() -> impl Iterator<Item = FilterName> {
    STOCK.iter().filter_map(|(name, _)| name.parse().ok())
}

/// The stock filter of that name.
///
/// # Errors
/// The mistake in its document; netlaunch's tests say that there is none.
pub fn stock(name: &FilterName) -> Option<Result<Filter, XmlError>> {
    let (_, text) = STOCK.iter().find(|(stock, _)| *stock == name.as_str())?;
    Some(parse(text.as_bytes(), None))
}
