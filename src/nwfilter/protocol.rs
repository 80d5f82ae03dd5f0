//! What a rule can look at: the protocol elements of libvirt's filter format, and which attributes
//! each has.
//!
//! The tables follow libvirt's schema (nwfilter.rng) and its documentation ("Network Filters").
//! Where they differ, the documentation counts: it has `state`, `connlimit-above` and `ipset` on
//! the IPv6 elements, too, and masks of ARP's addresses, and libvirt takes them. The order of a table is the order in which
//! attributes are written.

use super::attribute::Attribute::{self as A};
use super::kind::Kind;

/// A protocol element of a rule.
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

/// Which part of a frame an element's rules are about, and so where they are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// The frame as it passes the bridge; no connection is tracked. Also of rules without element.
    Link,
    /// The IPv4 packet in it, with connection tracking.
    Ipv4,
    /// The IPv6 packet in it, with connection tracking.
    Ipv6,
}

/// An attribute that an element has, and what its values are.
pub type Field = (A, Kind);

impl Protocol {
    /// All of them, and their elements' names.
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

    /// The element's name.
    pub fn name(self) -> &'static str {
        let found = Protocol::NAMES.iter().find(|(protocol, _)| *protocol == self);
        found.map_or("", |(_, name)| name)
    }

    /// Where its rules are checked.
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

    /// Its attributes (`match` aside, which all have), in the order in which they are written.
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

    /// What the values of one of its attributes are; `None` when it has no such attribute.
    pub fn kind(self, attribute: A) -> Option<Kind> {
        let found = self.fields().iter().find(|(field, _)| *field == attribute);
        found.map(|(_, kind)| *kind)
    }
}

/// Joins tables.
const fn join<const N: usize>(parts: &[&[Field]]) -> [Field; N] {
    let mut all = [(A::Comment, Kind::Comment); N];
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

const SRC_MAC: [Field; 1] = [(A::SrcMacAddr, Kind::Mac)];
const SRC_MAC_MASK: [Field; 1] = [(A::SrcMacMask, Kind::MacMask)];
const DST_MACS: [Field; 2] = [(A::DstMacAddr, Kind::Mac), (A::DstMacMask, Kind::MacMask)];
const COMMENT: [Field; 1] = [(A::Comment, Kind::Comment)];
const PORTS: [Field; 4] = [
    (A::SrcPortStart, Kind::U16),
    (A::SrcPortEnd, Kind::U16),
    (A::DstPortStart, Kind::U16),
    (A::DstPortEnd, Kind::U16),
];
const ADDRESSES_V4: [Field; 4] = [
    (A::SrcIpAddr, Kind::V4),
    (A::SrcIpMask, Kind::V4Mask),
    (A::DstIpAddr, Kind::V4),
    (A::DstIpMask, Kind::V4Mask),
];
const ADDRESSES_V6: [Field; 4] = [
    (A::SrcIpAddr, Kind::V6),
    (A::SrcIpMask, Kind::V6Mask),
    (A::DstIpAddr, Kind::V6),
    (A::DstIpMask, Kind::V6Mask),
];
const RANGES_V4: [Field; 4] = [
    (A::SrcIpFrom, Kind::V4),
    (A::SrcIpTo, Kind::V4),
    (A::DstIpFrom, Kind::V4),
    (A::DstIpTo, Kind::V4),
];
const RANGES_V6: [Field; 4] = [
    (A::SrcIpFrom, Kind::V6),
    (A::SrcIpTo, Kind::V6),
    (A::DstIpFrom, Kind::V6),
    (A::DstIpTo, Kind::V6),
];
const DSCP: [Field; 1] = [(A::Dscp, Kind::U6)];
const TRACKING: [Field; 4] = [
    (A::ConnlimitAbove, Kind::U16),
    (A::State, Kind::State),
    (A::IpSet, Kind::IpSet),
    (A::IpSetFlags, Kind::IpSetFlags),
];
const ICMP_TYPE: [Field; 2] = [(A::Type, Kind::U8), (A::Code, Kind::U8)];

const MAC: [Field; 6] =
    join(&[&SRC_MAC, &SRC_MAC_MASK, &DST_MACS, &[(A::ProtocolId, Kind::EtherType)], &COMMENT]);

const VLAN: [Field; 7] = join(&[
    &SRC_MAC,
    &SRC_MAC_MASK,
    &DST_MACS,
    &[(A::VlanId, Kind::U12), (A::EncapProtocol, Kind::EtherType)],
    &COMMENT,
]);

const STP: [Field; 25] = join(&[
    &SRC_MAC,
    &SRC_MAC_MASK,
    &[
        (A::Type, Kind::U8),
        (A::Flags, Kind::U8),
        (A::RootPriority, Kind::U16),
        (A::RootPriorityHi, Kind::U16),
        (A::RootAddress, Kind::Mac),
        (A::RootAddressMask, Kind::MacMask),
        (A::RootCost, Kind::U32),
        (A::RootCostHi, Kind::U32),
        (A::SenderPriority, Kind::U16),
        (A::SenderPriorityHi, Kind::U16),
        (A::SenderAddress, Kind::Mac),
        (A::SenderAddressMask, Kind::MacMask),
        (A::Port, Kind::U16),
        (A::PortHi, Kind::U16),
        (A::Age, Kind::U16),
        (A::AgeHi, Kind::U16),
        (A::MaxAge, Kind::U16),
        (A::MaxAgeHi, Kind::U16),
        (A::HelloTime, Kind::U16),
        (A::HelloTimeHi, Kind::U16),
        (A::ForwardDelay, Kind::U16),
        (A::ForwardDelayHi, Kind::U16),
    ],
    &COMMENT,
]);

const ARP: [Field; 15] = join(&[
    &SRC_MAC,
    &SRC_MAC_MASK,
    &DST_MACS,
    &[
        (A::HwType, Kind::U16),
        (A::ProtocolType, Kind::U16),
        (A::Opcode, Kind::Opcode),
        (A::ArpSrcMacAddr, Kind::Mac),
        (A::ArpDstMacAddr, Kind::Mac),
        (A::ArpSrcIpAddr, Kind::V4),
        (A::ArpSrcIpMask, Kind::V4Mask),
        (A::ArpDstIpAddr, Kind::V4),
        (A::ArpDstIpMask, Kind::V4Mask),
        (A::Gratuitous, Kind::Boolean),
    ],
    &COMMENT,
]);

const IP: [Field; 15] = join(&[
    &SRC_MAC,
    &SRC_MAC_MASK,
    &DST_MACS,
    &ADDRESSES_V4,
    &[(A::IpProtocol, Kind::IpProtocol)],
    &PORTS,
    &DSCP,
    &COMMENT,
]);

const IPV6: [Field; 18] = join(&[
    &SRC_MAC,
    &SRC_MAC_MASK,
    &DST_MACS,
    &ADDRESSES_V6,
    &[(A::IpProtocol, Kind::IpProtocol)],
    &PORTS,
    &[(A::Type, Kind::U8), (A::TypeEnd, Kind::U8), (A::Code, Kind::U8), (A::CodeEnd, Kind::U8)],
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
    &[(A::Flags, Kind::TcpFlags)],
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
    &[(A::Flags, Kind::TcpFlags)],
    &COMMENT,
]);
