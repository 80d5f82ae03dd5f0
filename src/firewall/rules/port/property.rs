//! Properties of frames that rules test: fields of their headers, and a packet's connection.

use ipnet::IpNet;

use crate::rules::AddressRange;

/// A property of a frame. The range or set that is named holds it, or, negated, does not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Test {
    /// A hardware address, compared in the bits of the mask.
    Hardware {
        /// Which.
        field: Hardware,
        /// The address.
        address: [u8; 6],
        /// The bits that count.
        mask: [u8; 6],
        /// Whether it must be another.
        negated: bool,
    },
    /// A number from a first to a last one.
    Number {
        /// Which.
        field: Number,
        /// The first.
        first: u32,
        /// The last.
        last: u32,
        /// Whether it must lie outside.
        negated: bool,
    },
    /// An IP address.
    Address {
        /// Which.
        field: Address,
        /// The addresses.
        among: Addresses,
        /// Whether it must be none of them.
        negated: bool,
    },
    /// The ARP sender announces its own address: sender and target are the same.
    Gratuitous,
    /// An ICMP message's type and code.
    Icmp {
        /// The types, a first and a last.
        types: (u8, u8),
        /// The codes, a first and a last; `None` is any.
        codes: Option<(u8, u8)>,
        /// Whether type and code must not both be among them.
        negated: bool,
    },
    /// TCP flags: of those in the mask exactly these are set.
    TcpFlags {
        /// The flags that count, as in the header's byte.
        mask: u8,
        /// Those that are set.
        flags: u8,
        /// Whether it must be otherwise.
        negated: bool,
    },
    /// The addresses and ports are in a set that the user keeps with ipset(8).
    Set {
        /// The set's name.
        name: String,
        /// What of the packet is looked up, by the set's dimensions.
        sides: Vec<End>,
        /// Whether it must not be there.
        negated: bool,
    },
    /// The source has more than this many connections.
    Connections {
        /// The number that is still allowed.
        above: u32,
    },
    /// The packet's place in its connection.
    State {
        /// The states, any of which it has.
        states: Vec<State>,
        /// Whose packet it must be, where that counts.
        direction: Option<Direction>,
    },
}

/// A hardware address in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hardware {
    /// The frame's source.
    Source,
    /// The frame's destination.
    Destination,
    /// ARP and RARP: the sender's. It is there with hardware type 1 and addresses of six bytes.
    ArpSender,
    /// ARP and RARP: the target's, like the sender's.
    ArpTarget,
    /// STP: the root bridge's.
    StpRoot,
    /// STP: the sending bridge's.
    StpSender,
    /// DHCP: the client's, `chaddr` of the message (RFC 2131, 2). It is there with hardware type 1, a
    /// length of six bytes and no relay (`giaddr` 0): servers tell clients apart by all `hlen` bytes,
    /// and give a relay's clients leases, too. A rule that tests it is one for UDP.
    DhcpClient,
}

/// A number in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Number {
    /// The EtherType, or an 802.3 frame's length.
    EtherType,
    /// The VLAN's number.
    VlanId,
    /// The EtherType behind the VLAN tag.
    VlanEncapsulated,
    /// STP: the message's type.
    StpType,
    /// STP: the flags.
    StpFlags,
    /// STP: the root bridge's priority.
    StpRootPriority,
    /// STP: the cost of the path to the root.
    StpRootCost,
    /// STP: the sending bridge's priority.
    StpSenderPriority,
    /// STP: the port's number.
    StpPort,
    /// STP: the message's age, in 1/256 s.
    StpAge,
    /// STP: the age at which it is dropped, in 1/256 s.
    StpMaxAge,
    /// STP: the time between messages, in 1/256 s.
    StpHelloTime,
    /// STP: the time in the listening state, in 1/256 s.
    StpForwardDelay,
    /// ARP and RARP: the hardware's type.
    ArpHardware,
    /// ARP and RARP: the protocol's type.
    ArpProtocol,
    /// ARP and RARP: the operation.
    ArpOperation,
    /// The IP protocol (of IPv6: behind the extension headers).
    Protocol,
    /// The differentiated services code point.
    Dscp,
    /// The transport protocol's source port.
    SourcePort,
    /// The transport protocol's destination port.
    DestinationPort,
}

/// An IP address in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Address {
    /// The packet's source.
    Source,
    /// The packet's destination.
    Destination,
    /// ARP and RARP: the sender's. It is there with protocol type 0x0800 and four bytes.
    ArpSender,
    /// ARP and RARP: the target's, like the sender's.
    ArpTarget,
}

/// Some IP addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// Those of a subnet.
    Net(IpNet),
    /// Those from a first to a last one.
    Range(AddressRange),
}

/// One end of a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// A packet's place in its connection, by the kernel's connection tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// The first of a connection.
    New,
    /// Of a connection that has seen packets in both directions.
    Established,
    /// The first of a connection that belongs to another, or an ICMP error about one.
    Related,
    /// Of none that makes sense.
    Invalid,
}

/// Whose packet it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Of the side that opened the connection.
    Original,
    /// Of the other side.
    Reply,
}

impl Test {
    /// Whether it needs connection tracking.
    pub fn is_stateful(&self) -> bool {
        matches!(self, Test::State { .. } | Test::Connections { .. })
    }

    /// Whether the packet alone decides it.
    pub fn is_in_packet(&self) -> bool {
        !self.is_stateful() && !matches!(self, Test::Set { .. })
    }

    /// Whether it is about a field of a transport protocol's header, which later fragments lack.
    pub fn is_transport(&self) -> bool {
        match self {
            Test::Number { field, .. } => {
                matches!(field, Number::SourcePort | Number::DestinationPort)
            }
            Test::Hardware { field, .. } => *field == Hardware::DhcpClient,
            Test::Icmp { .. } | Test::TcpFlags { .. } => true,
            _ => false,
        }
    }

    /// The test of a number that must be this one.
    pub fn is(field: Number, value: u32) -> Self {
        Test::Number { field, first: value, last: value, negated: false }
    }

    /// Whether it is about a field of STP.
    pub fn is_stp(&self) -> bool {
        use Number::*;
        match self {
            Test::Hardware { field, .. } => {
                matches!(field, Hardware::StpRoot | Hardware::StpSender)
            }
            Test::Number { field, .. } => matches!(
                field,
                StpType
                    | StpFlags
                    | StpRootPriority
                    | StpRootCost
                    | StpSenderPriority
                    | StpPort
                    | StpAge
                    | StpMaxAge
                    | StpHelloTime
                    | StpForwardDelay
            ),
            _ => false,
        }
    }
}
