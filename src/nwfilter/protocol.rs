//! The protocol elements of libvirt's filter format, and the attributes of each.
//!
//! The tables follow libvirt's schema (nwfilter.rng) and its documentation ("Network Filters").
//! Where they differ, the documentation counts: it has `state`, `connlimit-above` and `ipset` on
//! the IPv6 elements, too, and masks of ARP's addresses, and libvirt takes them. The order of a
//! table is the order in which attributes are written.

use super::attribute::Attribute::{self as A};
use super::value_type::ValueType;

/// A protocol element of a rule. Exhaustive, because each is matched in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the element that has its name")]
pub enum Protocol {
    Mac,
    Vlan,
    Stp,
    Arp,
    Rarp,
    Ip,
    Ipv6,
    Tcp,
    Udp,
    Udplite,
    Esp,
    Ah,
    Sctp,
    Icmp,
    Igmp,
    All,
    TcpIpv6,
    UdpIpv6,
    UdpliteIpv6,
    EspIpv6,
    AhIpv6,
    SctpIpv6,
    Icmpv6,
    AllIpv6,
}

/// The part of a frame that an element tests, which determines the layer that evaluates the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// The frame in the bridge, without connection tracking. Rules without an element also belong
    /// here.
    Link,
    /// The IPv4 packet in it, with connection tracking.
    Ipv4,
    /// The IPv6 packet in it, with connection tracking.
    Ipv6,
}

/// An attribute of an element, and the kind of its values.
pub type Field = (A, ValueType);

impl Protocol {
    /// All protocols with the names of their elements.
    pub const NAMES: [(Protocol, &'static str); 24] = [
        (Protocol::Mac, "mac"),
        (Protocol::Vlan, "vlan"),
        (Protocol::Stp, "stp"),
        (Protocol::Arp, "arp"),
        (Protocol::Rarp, "rarp"),
        (Protocol::Ip, "ip"),
        (Protocol::Ipv6, "ipv6"),
        (Protocol::Tcp, "tcp"),
        (Protocol::Udp, "udp"),
        (Protocol::Udplite, "udplite"),
        (Protocol::Esp, "esp"),
        (Protocol::Ah, "ah"),
        (Protocol::Sctp, "sctp"),
        (Protocol::Icmp, "icmp"),
        (Protocol::Igmp, "igmp"),
        (Protocol::All, "all"),
        (Protocol::TcpIpv6, "tcp-ipv6"),
        (Protocol::UdpIpv6, "udp-ipv6"),
        (Protocol::UdpliteIpv6, "udplite-ipv6"),
        (Protocol::EspIpv6, "esp-ipv6"),
        (Protocol::AhIpv6, "ah-ipv6"),
        (Protocol::SctpIpv6, "sctp-ipv6"),
        (Protocol::Icmpv6, "icmpv6"),
        (Protocol::AllIpv6, "all-ipv6"),
    ];

    /// Returns the element's name.
    pub fn name(self) -> &'static str {
        let found = Protocol::NAMES.iter().find(|(protocol, _)| *protocol == self);
        found.map_or("", |(_, name)| name)
    }

    /// Returns the layer that evaluates the element's rules.
    pub fn layer(self) -> Layer {
        use Protocol as P;
        match self {
            P::Mac | P::Vlan | P::Stp | P::Arp | P::Rarp | P::Ip | P::Ipv6 => Layer::Link,
            P::Tcp | P::Udp | P::Udplite | P::Esp | P::Ah | P::Sctp | P::Icmp | P::Igmp => {
                Layer::Ipv4
            }
            P::All => Layer::Ipv4,
            P::TcpIpv6 | P::UdpIpv6 | P::UdpliteIpv6 | P::EspIpv6 | P::AhIpv6 => Layer::Ipv6,
            P::SctpIpv6 | P::Icmpv6 | P::AllIpv6 => Layer::Ipv6,
        }
    }

    /// Returns the attributes in the order in which they are written, without `match`, which every
    /// element has.
    pub fn fields(self) -> &'static [Field] {
        match self {
            Protocol::Mac => &MAC,
            Protocol::Vlan => &VLAN,
            Protocol::Stp => &STP,
            Protocol::Arp | Protocol::Rarp => &ARP,
            Protocol::Ip => &IP,
            Protocol::Ipv6 => &IPV6,
            Protocol::Tcp => &TCP,
            Protocol::Udp | Protocol::Sctp => &UDP,
            Protocol::Icmp => &ICMP,
            Protocol::Udplite | Protocol::Esp | Protocol::Ah | Protocol::Igmp | Protocol::All => {
                &ALL
            }
            Protocol::TcpIpv6 => &TCP_IPV6,
            Protocol::UdpIpv6 | Protocol::SctpIpv6 => &UDP_IPV6,
            Protocol::Icmpv6 => &ICMPV6,
            Protocol::UdpliteIpv6 | Protocol::EspIpv6 | Protocol::AhIpv6 | Protocol::AllIpv6 => {
                &ALL_IPV6
            }
        }
    }

    /// Returns the kind of an attribute's values; `None` if the element does not have the
    /// attribute.
    pub fn value_type(self, attribute: A) -> Option<ValueType> {
        let found = self.fields().iter().find(|(field, _)| *field == attribute);
        found.map(|(_, kind)| *kind)
    }
}

/// Concatenates tables.
const fn join<const N: usize>(parts: &[&[Field]]) -> [Field; N] {
    let mut all = [(A::Comment, ValueType::Comment); N];
    let (mut part, mut at) = (0, 0);
    while part < parts.len() {
        let mut index = 0;
        while index < parts[part].len() {
            all[at] = parts[part][index];
            at += 1;
            index += 1;
        }
        part += 1;
    }
    assert!(at == N, "a table is longer than its parts");
    all
}

const SRC_MAC: [Field; 1] = [(A::SrcMacAddr, ValueType::Mac)];
const SRC_MAC_MASK: [Field; 1] = [(A::SrcMacMask, ValueType::MacMask)];
const DST_MACS: [Field; 2] = [(A::DstMacAddr, ValueType::Mac), (A::DstMacMask, ValueType::MacMask)];
const COMMENT: [Field; 1] = [(A::Comment, ValueType::Comment)];
const PORTS: [Field; 4] = [
    (A::SrcPortStart, ValueType::U16),
    (A::SrcPortEnd, ValueType::U16),
    (A::DstPortStart, ValueType::U16),
    (A::DstPortEnd, ValueType::U16),
];
const ADDRESSES_V4: [Field; 4] = [
    (A::SrcIpAddr, ValueType::V4),
    (A::SrcIpMask, ValueType::V4Mask),
    (A::DstIpAddr, ValueType::V4),
    (A::DstIpMask, ValueType::V4Mask),
];
const ADDRESSES_V6: [Field; 4] = [
    (A::SrcIpAddr, ValueType::V6),
    (A::SrcIpMask, ValueType::V6Mask),
    (A::DstIpAddr, ValueType::V6),
    (A::DstIpMask, ValueType::V6Mask),
];
const RANGES_V4: [Field; 4] = [
    (A::SrcIpFrom, ValueType::V4),
    (A::SrcIpTo, ValueType::V4),
    (A::DstIpFrom, ValueType::V4),
    (A::DstIpTo, ValueType::V4),
];
const RANGES_V6: [Field; 4] = [
    (A::SrcIpFrom, ValueType::V6),
    (A::SrcIpTo, ValueType::V6),
    (A::DstIpFrom, ValueType::V6),
    (A::DstIpTo, ValueType::V6),
];
const DSCP: [Field; 1] = [(A::Dscp, ValueType::U6)];
const TRACKING: [Field; 4] = [
    (A::ConnlimitAbove, ValueType::U16),
    (A::State, ValueType::State),
    (A::IpSet, ValueType::IpSet),
    (A::IpSetFlags, ValueType::IpSetFlags),
];
const ICMP_TYPE: [Field; 2] = [(A::Type, ValueType::U8), (A::Code, ValueType::U8)];

const MAC: [Field; 6] =
    join(&[&SRC_MAC, &SRC_MAC_MASK, &DST_MACS, &[(A::ProtocolId, ValueType::EtherType)], &COMMENT]);

const VLAN: [Field; 7] = join(&[
    &SRC_MAC,
    &SRC_MAC_MASK,
    &DST_MACS,
    &[(A::VlanId, ValueType::U12), (A::EncapProtocol, ValueType::EtherType)],
    &COMMENT,
]);

const STP: [Field; 25] = join(&[
    &SRC_MAC,
    &SRC_MAC_MASK,
    &[
        (A::Type, ValueType::U8),
        (A::Flags, ValueType::U8),
        (A::RootPriority, ValueType::U16),
        (A::RootPriorityHi, ValueType::U16),
        (A::RootAddress, ValueType::Mac),
        (A::RootAddressMask, ValueType::MacMask),
        (A::RootCost, ValueType::U32),
        (A::RootCostHi, ValueType::U32),
        (A::SenderPriority, ValueType::U16),
        (A::SenderPriorityHi, ValueType::U16),
        (A::SenderAddress, ValueType::Mac),
        (A::SenderAddressMask, ValueType::MacMask),
        (A::Port, ValueType::U16),
        (A::PortHi, ValueType::U16),
        (A::Age, ValueType::U16),
        (A::AgeHi, ValueType::U16),
        (A::MaxAge, ValueType::U16),
        (A::MaxAgeHi, ValueType::U16),
        (A::HelloTime, ValueType::U16),
        (A::HelloTimeHi, ValueType::U16),
        (A::ForwardDelay, ValueType::U16),
        (A::ForwardDelayHi, ValueType::U16),
    ],
    &COMMENT,
]);

const ARP: [Field; 15] = join(&[
    &SRC_MAC,
    &SRC_MAC_MASK,
    &DST_MACS,
    &[
        (A::HwType, ValueType::U16),
        (A::ProtocolType, ValueType::U16),
        (A::Opcode, ValueType::Opcode),
        (A::ArpSrcMacAddr, ValueType::Mac),
        (A::ArpDstMacAddr, ValueType::Mac),
        (A::ArpSrcIpAddr, ValueType::V4),
        (A::ArpSrcIpMask, ValueType::V4Mask),
        (A::ArpDstIpAddr, ValueType::V4),
        (A::ArpDstIpMask, ValueType::V4Mask),
        (A::Gratuitous, ValueType::Boolean),
    ],
    &COMMENT,
]);

const IP: [Field; 15] = join(&[
    &SRC_MAC,
    &SRC_MAC_MASK,
    &DST_MACS,
    &ADDRESSES_V4,
    &[(A::IpProtocol, ValueType::IpProtocol)],
    &PORTS,
    &DSCP,
    &COMMENT,
]);

const IPV6: [Field; 18] = join(&[
    &SRC_MAC,
    &SRC_MAC_MASK,
    &DST_MACS,
    &ADDRESSES_V6,
    &[(A::IpProtocol, ValueType::IpProtocol)],
    &PORTS,
    &[
        (A::Type, ValueType::U8),
        (A::TypeEnd, ValueType::U8),
        (A::Code, ValueType::U8),
        (A::CodeEnd, ValueType::U8),
    ],
    &COMMENT,
]);

const ALL: [Field; 15] = join(&[&SRC_MAC, &ADDRESSES_V4, &RANGES_V4, &DSCP, &TRACKING, &COMMENT]);
const ICMP: [Field; 17] =
    join(&[&SRC_MAC, &ADDRESSES_V4, &RANGES_V4, &DSCP, &ICMP_TYPE, &TRACKING, &COMMENT]);
const UDP: [Field; 19] =
    join(&[&SRC_MAC, &ADDRESSES_V4, &RANGES_V4, &DSCP, &PORTS, &TRACKING, &COMMENT]);
const TCP: [Field; 20] = join(&[
    &SRC_MAC,
    &ADDRESSES_V4,
    &RANGES_V4,
    &DSCP,
    &PORTS,
    &TRACKING,
    &[(A::Flags, ValueType::TcpFlags)],
    &COMMENT,
]);

const ALL_IPV6: [Field; 15] =
    join(&[&SRC_MAC, &ADDRESSES_V6, &RANGES_V6, &DSCP, &TRACKING, &COMMENT]);
const ICMPV6: [Field; 17] =
    join(&[&SRC_MAC, &ADDRESSES_V6, &RANGES_V6, &DSCP, &ICMP_TYPE, &TRACKING, &COMMENT]);
const UDP_IPV6: [Field; 19] =
    join(&[&SRC_MAC, &ADDRESSES_V6, &RANGES_V6, &DSCP, &PORTS, &TRACKING, &COMMENT]);
const TCP_IPV6: [Field; 20] = join(&[
    &SRC_MAC,
    &ADDRESSES_V6,
    &RANGES_V6,
    &DSCP,
    &PORTS,
    &TRACKING,
    &[(A::Flags, ValueType::TcpFlags)],
    &COMMENT,
]);
