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
//! # Link-local frames
//!
//! A bridge does not forward frames from a guest to 01:80:c2:00:00:00 to 0f: it learns from them and
//! gives them to the host. They pass [`PortRules::for_link_local`], where connections cannot be
//! tracked. If a rule for packets of an IP version needs more than the packet
//! ([`Test::is_in_packet`]), all packets of that version to these addresses are dropped.
//!
//! The reference is what libvirt's filters do to packets with ebtables and iptables, put right
//! where that departs from its documentation (netlaunch-nwfilter(5)).

mod property;

use super::Version;

pub use property::{Address, Addresses, Direction, End, Hardware, Number, State, Test};

/// The first of the addresses that a bridge does not forward frames to (IEEE 802.1Q, 8.6.3).
pub const LINK_LOCAL: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];

/// The bits that [`LINK_LOCAL`] shares with the other fifteen.
pub const LINK_LOCAL_MASK: [u8; 6] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xf0];

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

impl PortRules {
    /// Every rule, the sub chains' included.
    pub fn rules(&self) -> impl Iterator<Item = &PortRule> {
        [&self.from_guest, &self.to_guest].into_iter().flat_map(Path::rules)
    }

    /// What a guest's link-local frames pass.
    pub fn for_link_local(&self) -> Path {
        let mut path = self.from_guest.clone();
        for version in [Version::V4, Version::V6] {
            if !path.packets_need_more(version) {
                continue;
            }
            path.packets.retain(|rule| !rule.is_of(version));
            path.packets.push(PortRule {
                kind: Kind::Ip(version, None),
                tests: Vec::new(),
                verdict: PortVerdict::Drop,
                comment: None,
                origin: Origin::default(),
            });
        }
        path
    }

    /// Whether a rule needs connection tracking.
    pub fn is_stateful(&self) -> bool {
        self.rules().any(|rule| rule.tests.iter().any(Test::is_stateful))
    }
}

impl PortRule {
    /// Whether it is for packets of this IP version.
    pub fn is_of(&self, version: Version) -> bool {
        matches!(self.kind, Kind::Ip(own, _) if own == version)
    }
}

impl Path {
    /// Whether connections are counted: then those to the host itself are counted apart from those
    /// through it.
    pub fn is_limited(&self) -> bool {
        let counts = |test: &Test| matches!(test, Test::Connections { .. });
        self.packets.iter().any(|rule| rule.tests.iter().any(counts))
    }

    /// The packet rules that decide about the clients of DHCP messages, if there are such rules: they
    /// hold while the guest's address is learnt, too.
    pub fn dhcp_clients(&self) -> Vec<PortRule> {
        const SERVER: u32 = 67;
        let client =
            |test: &Test| matches!(test, Test::Hardware { field: Hardware::DhcpClient, .. });
        let to_server = Test::is(Number::DestinationPort, SERVER);
        if !self.packets.iter().any(|rule| rule.tests.iter().any(client)) {
            return Vec::new();
        }
        self.packets.iter().filter(|rule| rule.tests.contains(&to_server)).cloned().collect()
    }

    /// Whether a rule refuses frames.
    pub fn refuses(&self) -> bool {
        self.rules().any(|rule| matches!(rule.verdict, PortVerdict::Drop | PortVerdict::Reject))
    }

    /// Whether rules for packets of this version refuse some, and one of them tests more than the
    /// packet.
    pub fn packets_need_more(&self, version: Version) -> bool {
        let mut own = self.packets.iter().filter(|rule| rule.is_of(version));
        let refuses =
            |rule: &PortRule| matches!(rule.verdict, PortVerdict::Drop | PortVerdict::Reject);
        own.clone().any(refuses) && own.any(|rule| !rule.tests.iter().all(Test::is_in_packet))
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
