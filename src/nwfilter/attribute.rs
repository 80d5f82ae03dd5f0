//! The attributes of protocol elements, and the dependencies between them.

/// Makes the enum and its names from one list.
macro_rules! attributes {
    ($($variant:ident $name:literal,)*) => {
        /// An attribute of a protocol element, except `match`, which every element has.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "each is the attribute that has its name")]
        pub enum Attribute {
            $($variant,)*
        }

        impl Attribute {
            /// Returns the attribute's name in the document.
            pub fn name(self) -> &'static str {
                match self {
                    $(Attribute::$variant => $name,)*
                }
            }
        }
    };
}

attributes! {
    SrcMacAddr "srcmacaddr",
    SrcMacMask "srcmacmask",
    DstMacAddr "dstmacaddr",
    DstMacMask "dstmacmask",
    ProtocolId "protocolid",
    VlanId "vlanid",
    EncapProtocol "encap-protocol",
    Type "type",
    TypeEnd "typeend",
    Code "code",
    CodeEnd "codeend",
    Flags "flags",
    RootPriority "root-priority",
    RootPriorityHi "root-priority-hi",
    RootAddress "root-address",
    RootAddressMask "root-address-mask",
    RootCost "root-cost",
    RootCostHi "root-cost-hi",
    SenderPriority "sender-priority",
    SenderPriorityHi "sender-priority-hi",
    SenderAddress "sender-address",
    SenderAddressMask "sender-address-mask",
    Port "port",
    PortHi "port-hi",
    Age "age",
    AgeHi "age-hi",
    MaxAge "max-age",
    MaxAgeHi "max-age-hi",
    HelloTime "hello-time",
    HelloTimeHi "hello-time-hi",
    ForwardDelay "forward-delay",
    ForwardDelayHi "forward-delay-hi",
    HwType "hwtype",
    ProtocolType "protocoltype",
    Opcode "opcode",
    ArpSrcMacAddr "arpsrcmacaddr",
    ArpDstMacAddr "arpdstmacaddr",
    ArpSrcIpAddr "arpsrcipaddr",
    ArpSrcIpMask "arpsrcipmask",
    ArpDstIpAddr "arpdstipaddr",
    ArpDstIpMask "arpdstipmask",
    Gratuitous "gratuitous",
    SrcIpAddr "srcipaddr",
    SrcIpMask "srcipmask",
    DstIpAddr "dstipaddr",
    DstIpMask "dstipmask",
    SrcIpFrom "srcipfrom",
    SrcIpTo "srcipto",
    DstIpFrom "dstipfrom",
    DstIpTo "dstipto",
    IpProtocol "protocol",
    SrcPortStart "srcportstart",
    SrcPortEnd "srcportend",
    DstPortStart "dstportstart",
    DstPortEnd "dstportend",
    Dscp "dscp",
    ConnlimitAbove "connlimit-above",
    State "state",
    IpSet "ipset",
    IpSetFlags "ipsetflags",
    Comment "comment",
}

use Attribute as A;

/// Attributes that have no meaning without another one: the attribute, and the one that it needs.
pub(super) const NEEDS: [(Attribute, Attribute); 25] = [
    (A::SrcMacMask, A::SrcMacAddr),
    (A::DstMacMask, A::DstMacAddr),
    (A::RootAddressMask, A::RootAddress),
    (A::SenderAddressMask, A::SenderAddress),
    (A::SrcIpMask, A::SrcIpAddr),
    (A::DstIpMask, A::DstIpAddr),
    (A::ArpSrcIpMask, A::ArpSrcIpAddr),
    (A::ArpDstIpMask, A::ArpDstIpAddr),
    (A::SrcIpTo, A::SrcIpFrom),
    (A::DstIpTo, A::DstIpFrom),
    (A::SrcPortEnd, A::SrcPortStart),
    (A::DstPortEnd, A::DstPortStart),
    (A::TypeEnd, A::Type),
    (A::CodeEnd, A::Code),
    (A::RootPriorityHi, A::RootPriority),
    (A::RootCostHi, A::RootCost),
    (A::SenderPriorityHi, A::SenderPriority),
    (A::PortHi, A::Port),
    (A::AgeHi, A::Age),
    (A::MaxAgeHi, A::MaxAge),
    (A::HelloTimeHi, A::HelloTime),
    (A::ForwardDelayHi, A::ForwardDelay),
    (A::IpSetFlags, A::IpSet),
    (A::IpSet, A::IpSetFlags),
    (A::Code, A::Type),
];

/// The attributes of ranges: the first and the last value; the first must not be above the last.
pub(super) const RANGES: [(Attribute, Attribute); 14] = [
    (A::SrcIpFrom, A::SrcIpTo),
    (A::DstIpFrom, A::DstIpTo),
    (A::SrcPortStart, A::SrcPortEnd),
    (A::DstPortStart, A::DstPortEnd),
    (A::Type, A::TypeEnd),
    (A::Code, A::CodeEnd),
    (A::RootPriority, A::RootPriorityHi),
    (A::RootCost, A::RootCostHi),
    (A::SenderPriority, A::SenderPriorityHi),
    (A::Port, A::PortHi),
    (A::Age, A::AgeHi),
    (A::MaxAge, A::MaxAgeHi),
    (A::HelloTime, A::HelloTimeHi),
    (A::ForwardDelay, A::ForwardDelayHi),
];
