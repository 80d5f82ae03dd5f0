//! A port's filter as a value: what may leave a guest and what may reach it, in no tool's words.
//!
//! # The model
//!
//! A port has two paths, one per direction. A frame on a path passes two stages, and both must let
//! it through:
//!
//! 1. [`Path::frames`], the root chain. Its steps are tried in order; a step is a rule, or a sub
//!    chain that frames of one kind go through. A rule that accepts ends the stage; one that
//!    returns ends its chain, so that a frame goes on behind the sub chain; the end of a sub chain
//!    does the same. The end of the root chain lets the frame through.
//! 2. [`Path::packets`], rules for IP protocols, in order. A rule that accepts or returns lets the
//!    packet through; so does the end.
//!
//! A rule applies when the frame is of its [`Kind`] and all its [`Test`]s hold. A test of a field
//! that a frame does not have (ports of a later fragment, an ARP address of another length) does
//! not hold, negated or not. Nothing is rewritten.
//!
//! The reference is what libvirt's filters do to packets with ebtables and iptables, put right
//! where that departs from its documentation (netlaunch-nwfilter(5)).

use ipnet::IpNet;

use super::{AddressRange, Version};

/// A port's filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortRules {
    /// For frames that leave the guest.
    pub from_guest: Path,
    /// For frames on their way to the guest.
    pub to_guest: Path,
}

/// What frames of one direction pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path {
    /// The root chain.
    pub frames: Vec<Step>,
    /// The sub chains, as [`Step::Chain`] counts them.
    pub chains: Vec<SubChain>,
    /// The rules for IP protocols.
    pub packets: Vec<PortRule>,
}

/// A step of the root chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A rule.
    Rule(PortRule),
    /// The number of a sub chain.
    Chain(usize),
}

/// A list of rules for frames of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubChain {
    /// What filters call it.
    pub name: String,
    /// Which frames go through it.
    pub kind: Kind,
    /// Its rules.
    pub rules: Vec<PortRule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRule {
    /// What frames it is for.
    pub kind: Kind,
    /// What else must hold.
    pub tests: Vec<Test>,
    /// What happens then.
    pub verdict: PortVerdict,
    /// The user's words on it.
    pub comment: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a rule was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The filter's name.
    pub filter: String,
    /// The line of its definition that the rule starts in, from 1.
    pub line: u64,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the rule in line {} of the filter {}", self.line, self.filter)
    }
}

/// A kind of frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Every frame.
    Any,
    /// A frame with a VLAN tag (EtherType 0x8100).
    Vlan,
    /// A frame to the bridge group address 01:80:c2:00:00:00 (IEEE 802.1D).
    Stp,
    /// ARP.
    Arp,
    /// RARP.
    Rarp,
    /// IP of this version, and of this protocol where one is named. IPv6's protocol is that of the
    /// header behind the extension headers.
    Ip(Version, Option<u8>),
}

impl Kind {
    /// The EtherType of such frames, where that is what makes them.
    pub fn ether_type(self) -> Option<u16> {
        match self {
            Kind::Any | Kind::Stp => None,
            Kind::Vlan => Some(0x8100),
            Kind::Arp => Some(0x0806),
            Kind::Rarp => Some(0x8035),
            Kind::Ip(Version::V4, _) => Some(0x0800),
            Kind::Ip(Version::V6, _) => Some(0x86dd),
        }
    }
}

/// What happens to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortVerdict {
    /// The stage lets it through.
    Accept,
    /// It vanishes.
    Drop,
    /// It is refused, and the sender is told by ICMP where the tool can.
    Reject,
    /// Back to the parent chain.
    Return,
    /// On to the next rule.
    Continue,
}

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

impl PortRules {
    /// Every rule, the sub chains' included.
    pub fn rules(&self) -> impl Iterator<Item = &PortRule> {
        [&self.from_guest, &self.to_guest].into_iter().flat_map(Path::rules)
    }

    /// Whether a rule needs connection tracking.
    pub fn is_stateful(&self) -> bool {
        self.rules().any(|rule| rule.tests.iter().any(Test::is_stateful))
    }
}

impl Path {
    /// Whether connections are counted: then those to the host itself are counted apart from those
    /// through it.
    pub fn is_limited(&self) -> bool {
        let counts = |test: &Test| matches!(test, Test::Connections { .. });
        self.packets.iter().any(|rule| rule.tests.iter().any(counts))
    }

    /// Every rule, the sub chains' included.
    pub fn rules(&self) -> impl Iterator<Item = &PortRule> {
        let root = self.frames.iter().filter_map(|step| match step {
            Step::Rule(rule) => Some(rule),
            Step::Chain(_) => None,
        });
        let subs = self.chains.iter().flat_map(|chain| &chain.rules);
        root.chain(subs).chain(&self.packets)
    }
}

impl Test {
    /// Whether it needs connection tracking.
    pub fn is_stateful(&self) -> bool {
        matches!(self, Test::State { .. } | Test::Connections { .. })
    }

    /// Whether it is about a field of a transport protocol's header, which later fragments lack.
    pub fn is_transport(&self) -> bool {
        match self {
            Test::Number { field, .. } => {
                matches!(field, Number::SourcePort | Number::DestinationPort)
            }
            Test::Icmp { .. } | Test::TcpFlags { .. } => true,
            _ => false,
        }
    }

    /// The test of a number that must be this one.
    pub fn is(field: Number, value: u32) -> Self {
        Test::Number { field, first: value, last: value, negated: false }
    }
}

impl Test {
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
