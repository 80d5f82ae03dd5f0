//! The filter of a port as a value, independent of the tools: which frames may leave a guest, and
//! which may reach it.
//!
//! # The model
//!
//! A port has two paths, one per direction. A frame on a path passes two stages, and both must let
//! it through:
//!
//! 1. [`Path::frames`], the root chain. Its steps are tried in order; a step is a rule, or a sub
//!    chain for frames of one kind. A rule that accepts ends the stage. A rule that returns ends
//!    its chain, so that a frame continues after the sub chain; the end of a sub chain does the
//!    same. A frame that reaches the end of the root chain passes the stage.
//! 2. [`Path::packets`], rules for IP protocols, in order. A packet passes if a rule accepts or
//!    returns, or if it reaches the end.
//!
//! A rule applies if the frame is of its [`FrameKind`] and all its [`Test`]s hold. A test of a
//! field that a frame does not have (ports of a later fragment, an ARP address of another length)
//! does not hold, whether it is negated or not. No rule rewrites a frame.
//!
//! # Link-local frames
//!
//! A bridge does not forward frames from a guest to 01:80:c2:00:00:00 to 0f: it learns from them
//! and gives them to the host. These frames pass [`PortRules::for_link_local`], where connections
//! cannot be tracked. If a rule for packets of an IP version tests more than the packet
//! ([`Test::is_in_packet`]), no rule for that version applies there: all its packets to these
//! addresses are dropped if a rule for that version refuses packets, and pass otherwise.
//!
//! The reference is the effect of libvirt's filters with ebtables and iptables, corrected where
//! that differs from libvirt's documentation (netlaunch-nwfilter(5)).

mod property;

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::Version;

pub use property::{
    Address, Addresses, ConnectionDirection, End, Hardware, NeighborKind, NeighborMessage,
    NeighborOption, Number, State, Test,
};

/// The form in which backends render rules. It grows with each change, so that no rule of an
/// earlier version is attributed to a line of a filter by its place. A reload gives all ports the
/// present form.
const FORM: u32 = 2;

/// The first of the addresses that a bridge does not forward frames to (IEEE 802.1Q, 8.6.3).
pub const LINK_LOCAL: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];

/// The mask of the bits that the sixteen addresses from [`LINK_LOCAL`] share.
pub const LINK_LOCAL_MASK: [u8; 6] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xf0];

/// A port's filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PortRules {
    /// The rules for frames that leave the guest.
    pub from_guest: Path,
    /// The rules for frames on their way to the guest.
    pub to_guest: Path,
}

/// The rules for frames of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Path {
    /// The root chain.
    pub frames: Vec<Step>,
    /// The sub chains; [`Step::Chain`] contains an index of this list.
    pub chains: Vec<SubChain>,
    /// The rules for IP protocols.
    pub packets: Vec<PortRule>,
}

/// A step of the root chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// A rule.
    Rule(PortRule),
    /// The index of a sub chain.
    Chain(usize),
}

/// A list of rules for frames of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubChain {
    /// The name that filters use for it.
    pub name: String,
    /// The frames that go through it.
    pub kind: FrameKind,
    /// Its rules.
    pub rules: Vec<PortRule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRule {
    /// The frames for which the rule is meant.
    pub kind: FrameKind,
    /// The conditions, all of which must hold.
    pub tests: Vec<Test>,
    /// The effect of the rule.
    pub verdict: PortVerdict,
    /// The user's comment.
    pub comment: Option<String>,
    /// The place of the rule in a filter.
    pub origin: Origin,
}

/// The place at which a rule was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The filter's name.
    pub filter: String,
    /// The line in which the rule starts, from 1: in the output of `netlaunch nwfilter dumpxml`, or
    /// in the document if the filter is not defined yet.
    pub line: u64,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the rule in line {} of the filter {}", self.line, self.filter)
    }
}

/// A kind of frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
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
    /// IP of this version, and of this protocol if one is given. For IPv6 it is the protocol of the
    /// header after the extension headers.
    Ip(Version, Option<u8>),
}

impl FrameKind {
    /// Returns the EtherType of such frames, if the EtherType defines the kind.
    pub fn ether_type(self) -> Option<u16> {
        match self {
            FrameKind::Any | FrameKind::Stp => None,
            FrameKind::Vlan => Some(0x8100),
            FrameKind::Arp => Some(0x0806),
            FrameKind::Rarp => Some(0x8035),
            FrameKind::Ip(Version::V4, _) => Some(0x0800),
            FrameKind::Ip(Version::V6, _) => Some(0x86dd),
        }
    }
}

/// The effect of a rule on a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortVerdict {
    /// The frame passes the stage.
    Accept,
    /// The frame is dropped without an answer.
    Drop,
    /// The frame is dropped, and the sender gets an ICMP error if the tool can send one.
    Reject,
    /// The frame returns to the parent chain.
    Return,
    /// The frame continues at the next rule.
    Continue,
}

impl PortRules {
    /// Returns all rules, including those of sub chains.
    pub fn rules(&self) -> impl Iterator<Item = &PortRule> {
        [&self.from_guest, &self.to_guest].into_iter().flat_map(Path::rules)
    }

    /// Returns the rules for a guest's link-local frames.
    pub fn for_link_local(&self) -> Cow<'_, Path> {
        let mut path = Cow::Borrowed(&self.from_guest);
        for version in [Version::V4, Version::V6] {
            let mut own = path.packets.iter().filter(|rule| rule.is_of(version));
            if own.all(|rule| rule.tests.iter().all(Test::is_in_packet)) {
                continue;
            }
            let refuses = path.packets_need_more(version);
            let path = path.to_mut();
            path.packets.retain(|rule| !rule.is_of(version));
            if !refuses {
                continue;
            }
            path.packets.push(PortRule {
                kind: FrameKind::Ip(version, None),
                tests: Vec::new(),
                verdict: PortVerdict::Drop,
                comment: None,
                origin: Origin::default(),
            });
        }
        path
    }

    /// Returns a number that other rules do not have. It tells whether recorded rules are the rules
    /// of a definition, within one version of netlaunch. The places of the rules do not count: a
    /// filter that is being defined has the lines of its document.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (FORM, self).hash(&mut hasher);
        hasher.finish()
    }

    /// Returns whether a rule needs connection tracking.
    pub fn is_stateful(&self) -> bool {
        self.rules().any(|rule| rule.tests.iter().any(Test::is_stateful))
    }
}

impl Hash for PortRule {
    /// Hashes all but the origin, as [`PortRules::digest`] needs.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let PortRule { kind, tests, verdict, comment, origin: _ } = self;
        (kind, tests, verdict, comment).hash(state);
    }
}

impl PortRule {
    /// Returns whether the rule is for packets of this IP version.
    pub fn is_of(&self, version: Version) -> bool {
        matches!(self.kind, FrameKind::Ip(own, _) if own == version)
    }
}

impl Path {
    /// Returns whether a rule counts connections. If so, connections to the host itself are counted
    /// separately from those through it.
    pub fn is_limited(&self) -> bool {
        let counts = |test: &Test| matches!(test, Test::Connections { .. });
        self.packets.iter().any(|rule| rule.tests.iter().any(counts))
    }

    /// Returns the packet rules that decide about the clients of DHCP messages, if there are any.
    /// They also apply while netlaunch learns the guest's address.
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

    /// Returns whether a rule refuses frames.
    pub fn refuses(&self) -> bool {
        self.rules().any(|rule| matches!(rule.verdict, PortVerdict::Drop | PortVerdict::Reject))
    }

    /// Returns whether a rule for packets of this version refuses some, and one of the rules for
    /// this version tests more than the packet.
    pub fn packets_need_more(&self, version: Version) -> bool {
        let mut own = self.packets.iter().filter(|rule| rule.is_of(version));
        let refuses =
            |rule: &PortRule| matches!(rule.verdict, PortVerdict::Drop | PortVerdict::Reject);
        own.clone().any(refuses) && own.any(|rule| !rule.tests.iter().all(Test::is_in_packet))
    }

    /// Returns all rules, including those of sub chains.
    pub fn rules(&self) -> impl Iterator<Item = &PortRule> {
        let root = self.frames.iter().filter_map(|step| match step {
            Step::Rule(rule) => Some(rule),
            Step::Chain(_) => None,
        });
        let subs = self.chains.iter().flat_map(|chain| &chain.rules);
        root.chain(subs).chain(&self.packets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_link_local_frames_test_the_packet_alone() {
        let rule = |tests: &[Test], verdict| PortRule {
            kind: FrameKind::Ip(Version::V4, None),
            tests: tests.to_vec(),
            verdict,
            comment: None,
            origin: Origin::default(),
        };
        let state = Test::State { states: vec![State::New], direction: None };
        let tracked = rule(&[state], PortVerdict::Accept);
        let drop = rule(&[], PortVerdict::Drop);
        let other = rule(&[Test::is(Number::Protocol, 6)], PortVerdict::Drop);
        for (rules, expected) in [
            (vec![tracked.clone()], vec![]),
            (vec![tracked, other.clone()], vec![drop]),
            (vec![other.clone()], vec![other]),
        ] {
            let from_guest = Path { packets: rules, ..Path::default() };
            let rules = PortRules { from_guest, ..PortRules::default() };
            assert_eq!(rules.for_link_local().packets, expected);
        }
    }
}
