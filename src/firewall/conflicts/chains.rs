//! Tables as values, and a packet's way through them.

use std::fmt;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::rules::Version;

/// The deepest that chains are followed; the kernel allows as many jumps (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;

/// A hook at which guests' traffic can be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Forward,
    Input,
}

#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A table of iptables, by the tool that shows it.
    Iptables { tool: &'static str, version: Version, table: String },
    /// A table of nft.
    Nft { family: String, name: String },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Iptables { tool, table, .. } => write!(f, "{tool} {table}"),
            Place::Nft { family, name } => write!(f, "{family} {name}"),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) place: Place,
    pub(super) chains: Vec<Chain>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) hook: Option<Hook>,
    /// Whether its policy refuses.
    pub(super) drops: bool,
    pub(super) rules: Vec<Rule>,
}

/// A rule: what is known of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Rule {
    pub(super) terms: Vec<Term>,
    pub(super) verdict: Verdict,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Verdict {
    /// None, or one that lets the packet go on.
    #[default]
    Other,
    Accept,
    Refuse,
    Return,
    Jump(String),
    Goto(String),
}

/// One match of a rule.
#[derive(Debug, Clone)]
pub(super) struct Term {
    pub(super) negated: bool,
    pub(super) property: Property,
}

/// What a match looks at; the packet's must be one of those listed.
#[derive(Debug, Clone)]
pub(super) enum Property {
    Arrives(Vec<String>),
    Leaves(Vec<String>),
    State(Vec<String>),
    Version(Version),
    Protocol(Vec<String>),
    Port(Vec<RangeInclusive<u16>>),
    Icmpv6(Vec<String>),
    Source(Vec<IpNet>),
    Destination(Vec<IpNet>),
    /// The destination's type: `local`, `broadcast`, `multicast`.
    To(Vec<String>),
    Unknown,
}

impl From<Property> for Term {
    fn from(property: Property) -> Self {
        Term { negated: false, property }
    }
}

/// A packet's interface on one side.
#[derive(Debug, Clone)]
pub(super) enum Interface {
    Is(String),
    /// One of these, or any where there is none; never the bridge, which comes second.
    OneOf(Vec<String>, String),
}

/// A packet, as far as rules look at it; what is `None` can be anything.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) hook: Hook,
    pub(super) version: Version,
    pub(super) arrives: Interface,
    /// `None` for one that is for the host itself.
    pub(super) leaves: Option<Interface>,
    pub(super) state: &'static str,
    pub(super) protocol: Option<&'static str>,
    pub(super) port: Option<u16>,
    pub(super) source: Option<Vec<IpNet>>,
    pub(super) destination: Option<Vec<IpNet>>,
    pub(super) to: Option<&'static str>,
}

impl Packet {
    pub(super) fn new(hook: Hook, version: Version) -> Self {
        Packet {
            hook,
            version,
            arrives: Interface::OneOf(Vec::new(), String::new()),
            leaves: None,
            state: "new",
            protocol: None,
            port: None,
            source: None,
            destination: None,
            to: None,
        }
    }
}

/// How a base chain refuses a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How {
    Policy,
    /// In a rule of this chain.
    Rule(String),
}

/// Where a packet is at the end of a chain.
enum End {
    Accepted,
    Refused(String),
    /// Back where it came from.
    Open,
}

/// Whether a match holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    Unknown,
}

impl Table {
    /// How this base chain refuses the packet; `None` where it lets it through, or does not see it.
    pub(super) fn refuses(&self, chain: &Chain, packet: &Packet) -> Option<How> {
        let sees = match &self.place {
            Place::Iptables { version, .. } => *version == packet.version,
            Place::Nft { family, .. } => match packet.version {
                Version::V4 => family != "ip6",
                Version::V6 => family != "ip",
            },
        };
        if !sees || chain.hook != Some(packet.hook) {
            return None;
        }
        match self.walk(chain, packet, 0) {
            End::Refused(place) => Some(How::Rule(place)),
            End::Open if chain.drops => Some(How::Policy),
            End::Accepted | End::Open => None,
        }
    }

    fn walk(&self, chain: &Chain, packet: &Packet, depth: usize) -> End {
        let into = |to: &str| match self.chain(to) {
            Some(to) if depth < DEPTH => self.walk(to, packet, depth + 1),
            _ => End::Open,
        };
        for rule in chain.rules.iter().filter(|rule| rule.holds(packet)) {
            let end = match &rule.verdict {
                Verdict::Accept => End::Accepted,
                Verdict::Refuse => End::Refused(chain.name.clone()),
                Verdict::Return => return End::Open,
                Verdict::Goto(to) => return into(to),
                Verdict::Jump(to) => into(to),
                Verdict::Other => End::Open,
            };
            if !matches!(end, End::Open) {
                return end;
            }
        }
        End::Open
    }

    pub(super) fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }
}

impl Rule {
    fn holds(&self, packet: &Packet) -> bool {
        self.terms.iter().all(|term| term.answer(packet) == Answer::Yes)
    }
}

impl Term {
    fn answer(&self, packet: &Packet) -> Answer {
        match (self.property.answer(packet), self.negated) {
            (Answer::Yes, true) => Answer::No,
            (Answer::No, true) => Answer::Yes,
            (answer, _) => answer,
        }
    }
}

impl Property {
    fn answer(&self, packet: &Packet) -> Answer {
        let one_of = |list: &[String], of: Option<&str>| match of {
            Some(one) => yes(list.iter().any(|listed| listed.eq_ignore_ascii_case(one))),
            None => Answer::Unknown,
        };
        match self {
            Property::Arrives(names) => packet.arrives.answer(names),
            Property::Leaves(names) => match &packet.leaves {
                Some(interface) => interface.answer(names),
                None => Answer::No,
            },
            Property::State(states) => one_of(states, Some(packet.state)),
            Property::Version(version) => yes(*version == packet.version),
            Property::Protocol(protocols) => one_of(protocols, packet.protocol),
            Property::Port(ports) => match packet.port {
                Some(port) => yes(ports.iter().any(|range| range.contains(&port))),
                None if packet.protocol.is_some() => Answer::No,
                None => Answer::Unknown,
            },
            // The question for a neighbour (RFC 4861), the only such packet here.
            Property::Icmpv6(types) => match packet.protocol {
                Some("icmpv6") => {
                    let is = |t: &String| ["nd-neighbor-solicit", "135"].contains(&t.as_str());
                    yes(types.iter().any(is))
                }
                Some(_) => Answer::No,
                None => Answer::Unknown,
            },
            Property::Source(nets) => within(nets, packet.source.as_deref()),
            Property::Destination(nets) => within(nets, packet.destination.as_deref()),
            Property::To(kinds) => one_of(kinds, packet.to),
            Property::Unknown => Answer::Unknown,
        }
    }
}

fn yes(it_is: bool) -> Answer {
    if it_is { Answer::Yes } else { Answer::No }
}

/// Whether an address of these subnets is in one of `nets`.
fn within(nets: &[IpNet], subnets: Option<&[IpNet]>) -> Answer {
    let all = |net: &IpNet| nets.iter().any(|n| n.contains(&net.trunc()));
    let some = |net: &IpNet| nets.iter().any(|n| n.contains(&net.trunc()) || net.contains(n));
    match subnets {
        _ if nets.iter().any(|net| net.prefix_len() == 0) => Answer::Yes,
        None => Answer::Unknown,
        Some(subnets) if subnets.iter().all(all) => Answer::Yes,
        Some(subnets) if !subnets.iter().any(some) => Answer::No,
        Some(_) => Answer::Unknown,
    }
}

impl Interface {
    fn answer(&self, names: &[String]) -> Answer {
        let covered = |name: &str| names.iter().any(|listed| covers(listed, name));
        match self {
            Interface::Is(name) => yes(covered(name)),
            Interface::OneOf(some, bridge) if some.is_empty() => {
                let other = |name: &&String| *name != bridge && *name != "lo";
                match names.iter().any(|name| covers(name, "")) {
                    true => Answer::Yes,
                    false if names.iter().any(|name| other(&name)) => Answer::Unknown,
                    false => Answer::No,
                }
            }
            Interface::OneOf(some, _) if some.iter().all(|name| covered(name)) => Answer::Yes,
            Interface::OneOf(some, _) if some.iter().any(|name| covered(name)) => Answer::Unknown,
            Interface::OneOf(..) => Answer::No,
        }
    }
}

/// Whether an interface's name in a rule, with a wildcard perhaps, is this one's.
fn covers(listed: &str, name: &str) -> bool {
    match listed.strip_suffix(['+', '*']) {
        Some(start) => name.starts_with(start),
        None => listed == name,
    }
}
