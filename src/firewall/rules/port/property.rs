//! The properties of frames that rules test: fields of their headers, and the state of a
//! packet's connection.
//!
//! A value here has no meaning of its own for a tool: each renderer knows how its tool tests
//! the field, or refuses the rule.

use ipnet::{IpNet, Ipv6Net};

use crate::firewall::rules::AddressRange;

/// A test of a property. It holds if the named range or set contains the value, or, if negated,
/// does not contain it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Test {
    /// A hardware address; only the bits of the mask are compared.
    Hardware {
        /// The field.
        field: Hardware,
        /// The address.
        address: [u8; 6],
        /// The bits to compare.
        mask: [u8; 6],
        /// Whether the address must differ.
        negated: bool,
    },
    /// A number in a range.
    Number {
        /// The field.
        field: Number,
        /// The first number of the range.
        first: u32,
        /// The last number of the range.
        last: u32,
        /// Whether the number must be outside the range.
        negated: bool,
    },
    /// An IP address.
    Address {
        /// The field.
        field: Address,
        /// The addresses.
        addresses: Addresses,
        /// Whether the address must be outside.
        negated: bool,
    },
    /// A gratuitous ARP packet: the sender's and the target's IP address are equal.
    Gratuitous,
    /// An ICMP message's type and code.
    Icmp {
        /// The range of types: the first and the last.
        types: (u8, u8),
        /// The range of codes: the first and the last; `None` means any code.
        codes: Option<(u8, u8)>,
        /// Whether the test holds if type and code are not both in their ranges.
        negated: bool,
    },
    /// A neighbor discovery message of this form.
    Neighbor(NeighborMessage),
    /// TCP flags: of the flags in the mask, exactly these are set.
    TcpFlags {
        /// The flags to compare, as in the byte of the header.
        mask: u8,
        /// The flags that must be set.
        flags: u8,
        /// Whether the flags must differ.
        negated: bool,
    },
    /// The addresses and ports are in a set that the user manages with ipset(8).
    Set {
        /// The set's name.
        name: String,
        /// The side of the packet to look up for each dimension of the set.
        sides: Vec<End>,
        /// Whether the set must not contain the packet's values.
        negated: bool,
    },
    /// The source has more than this many connections.
    Connections {
        /// The largest allowed number of connections.
        above: u32,
    },
    /// The state of the packet's connection.
    State {
        /// The states, one of which must match.
        states: Vec<State>,
        /// The direction of the packet within its connection; `None` means any.
        direction: Option<ConnectionDirection>,
    },
}

/// A hardware address in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hardware {
    /// The frame's source.
    Source,
    /// The frame's destination.
    Destination,
    /// ARP and RARP: the sender's address. The field exists if the hardware type is 1 and addresses
    /// have six bytes.
    ArpSender,
    /// ARP and RARP: the target's address, under the same condition.
    ArpTarget,
    /// STP: the address of the root bridge.
    StpRoot,
    /// STP: the address of the sending bridge.
    StpSender,
    /// DHCP: the client's address, `chaddr` of the message (RFC 2131, 2). The field counts only if
    /// the hardware type is 1, the length is six bytes and there is no relay (`giaddr` 0), since
    /// servers distinguish clients by all `hlen` bytes and also give leases to a relay's clients. A
    /// rule with this test is always a rule for UDP.
    DhcpClient,
}

/// The form of a neighbor discovery message (RFC 4861, 4).
///
/// A message has the form if ICMPv6 follows the IPv6 header directly, the hop limit is 255, and the
/// packet ends after the option. So no extension header, fragment or second option can hide another
/// address. A rule with this test also tests the ICMP type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NeighborMessage {
    /// The kind of message.
    pub kind: NeighborKind,
    /// The subnet of the target's address; `None` means any target.
    pub target: Option<Ipv6Net>,
    /// The only option.
    pub option: NeighborOption,
}

/// A kind of neighbor discovery message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NeighborKind {
    /// A router solicitation (type 133), which has no target.
    RouterSolicitation,
    /// A neighbor solicitation (type 135).
    Solicitation,
    /// A neighbor advertisement (type 136).
    Advertisement,
}

/// The options of a neighbor discovery message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NeighborOption {
    /// No option.
    None,
    /// The sender's hardware address: the source's in a solicitation, the target's in an
    /// advertisement (RFC 4861, 4.6.1).
    LinkAddress([u8; 6]),
    /// A nonce of six bytes (RFC 7527), which a host adds while it tests an address.
    Nonce,
}

impl NeighborMessage {
    /// The offset of the target's address in the IPv6 packet.
    pub const TARGET: usize = 48;

    /// Returns bytes 4 to 7 of the IPv6 header: the payload's length, the protocol and the hop
    /// limit.
    pub fn header(&self) -> [u8; 4] {
        const ICMPV6: u8 = 58;
        let option = if self.option == NeighborOption::None { 0 } else { 8 };
        [0, self.fixed() + option, ICMPV6, 255]
    }

    /// Returns the offset of the option in the IPv6 packet, and the first bytes of the option: all
    /// eight, or the two that say that it is a nonce.
    pub fn option(&self) -> Option<(usize, Vec<u8>)> {
        let at = 40 + usize::from(self.fixed());
        match self.option {
            NeighborOption::None => None,
            NeighborOption::Nonce => Some((at, vec![14, 1])),
            NeighborOption::LinkAddress(address) => {
                let kind = if self.kind == NeighborKind::Advertisement { 2 } else { 1 };
                Some((at, [&[kind, 1], &address[..]].concat()))
            }
        }
    }

    /// Returns the length of the message without options.
    fn fixed(&self) -> u8 {
        if self.kind == NeighborKind::RouterSolicitation { 8 } else { 24 }
    }
}

/// A number in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Number {
    /// The EtherType, or an 802.3 frame's length.
    EtherType,
    /// The VLAN number.
    VlanId,
    /// The EtherType after the VLAN tag.
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
    /// STP: the age at which the message is dropped, in 1/256 s.
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
    /// The IP protocol (for IPv6: after the extension headers).
    Protocol,
    /// The differentiated services code point.
    Dscp,
    /// The transport protocol's source port.
    SourcePort,
    /// The transport protocol's destination port.
    DestinationPort,
}

/// An IP address in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// The packet's source.
    Source,
    /// The packet's destination.
    Destination,
    /// ARP and RARP: the sender's address. The field exists if the protocol type is 0x0800 and
    /// addresses have four bytes.
    ArpSender,
    /// ARP and RARP: the target's address, under the same condition.
    ArpTarget,
}

/// A group of IP addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// The addresses of a subnet.
    Net(IpNet),
    /// The addresses of a range.
    Range(AddressRange),
}

/// An end of a packet's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// The sender.
    Source,
    /// The receiver.
    Destination,
}

/// The state of a packet's connection, according to the kernel's connection tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// The packet is the first of a connection.
    New,
    /// The packet belongs to a connection with packets in both directions.
    Established,
    /// The packet is the first of a connection that belongs to another one, or an ICMP error about
    /// a connection.
    Related,
    /// The packet does not belong to a valid connection.
    Invalid,
}

/// The direction of a packet within its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionDirection {
    /// From the side that opened the connection.
    Original,
    /// From the other side.
    Reply,
}

impl Test {
    /// Returns whether the test needs connection tracking.
    pub fn is_stateful(&self) -> bool {
        matches!(self, Test::State { .. } | Test::Connections { .. })
    }

    /// Returns whether the packet alone decides the test.
    pub fn is_in_packet(&self) -> bool {
        !self.is_stateful() && !matches!(self, Test::Set { .. })
    }

    /// Returns whether the test reads a field of a transport header, which later fragments lack.
    pub fn is_transport(&self) -> bool {
        match self {
            Test::Number { field, .. } => {
                matches!(field, Number::SourcePort | Number::DestinationPort)
            }
            Test::Hardware { field, .. } => *field == Hardware::DhcpClient,
            Test::Icmp { .. } | Test::TcpFlags { .. } | Test::Neighbor(_) => true,
            _ => false,
        }
    }

    /// Returns the test that a number has this value.
    pub fn is(field: Number, value: u32) -> Self {
        Test::Number { field, first: value, last: value, negated: false }
    }

    /// Returns whether the test reads a field of STP.
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
