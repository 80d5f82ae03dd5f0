//! Models tables as values, and evaluates a packet in them.
//!
//! A packet has some known properties, such as its interface, and others that are open. So a
//! match holds, does not hold, or is unknown, and only a rule whose matches all hold is
//! followed.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::firewall::render_iptables::OWN_FORWARD;
use crate::firewall::rules::Version;

/// The maximum depth of jumps, as in the kernel (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;

/// A hook at which guests' traffic can be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Forward,
    Input,
    Output,
}

#[derive(Debug, Clone)]
pub(super) enum TableId {
    /// A table of iptables; `tool` is the tool that lists it.
    Iptables { tool: &'static str, version: Version, table: String },
    /// A table of nft.
    Nft { family: String, name: String },
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableId::Iptables { tool, table, .. } => write!(f, "{tool} {table}"),
            TableId::Nft { family, name } => write!(f, "{family} {name}"),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) id: TableId,
    pub(super) chains: Vec<Chain>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) hook: Option<Hook>,
    /// Whether the policy of the chain is to drop.
    pub(super) drops: bool,
    pub(super) rules: Vec<Rule>,
}

/// The known parts of a rule.
#[derive(Debug, Clone, Default)]
pub(super) struct Rule {
    pub(super) terms: Vec<Term>,
    pub(super) verdict: Verdict,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The rule has no verdict, or a verdict after which evaluation continues.
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

/// The property of a packet that a match tests; the packet's value must be in the list.
#[derive(Debug, Clone)]
pub(super) enum Property {
    Arrives(Vec<String>),
    Leaves(Vec<String>),
    State(Vec<String>),
    Version(Version),
    Protocol(Vec<String>),
    Port(Vec<RangeInclusive<u16>>),
    SourcePort(Vec<RangeInclusive<u16>>),
    Icmpv6(Vec<String>),
    Source(Vec<IpNet>),
    Destination(Vec<IpNet>),
    /// The type of the destination: `local`, `broadcast`, `multicast`.
    To(Vec<String>),
    Unknown,
}

impl From<Property> for Term {
    fn from(property: Property) -> Self {
        Term { negated: false, property }
    }
}

/// The incoming or outgoing interface of a packet.
#[derive(Debug, Clone)]
pub(super) enum Interface {
    Is(String),
    /// One of these interfaces, or any interface if the list is empty, but never the bridge, which
    /// is the second field.
    OneOf(Vec<String>, String),
}

/// The properties of a packet that rules can test; `None` means any value.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) hook: Hook,
    pub(super) version: Version,
    pub(super) arrives: Interface,
    /// The outgoing interface; `None` for a packet to the host itself.
    pub(super) leaves: Option<Interface>,
    pub(super) state: &'static str,
    pub(super) protocol: Option<&'static str>,
    pub(super) port: Option<u16>,
    pub(super) source_port: Option<u16>,
    pub(super) source: Option<Vec<IpNet>>,
    pub(super) destination: Option<Vec<IpNet>>,
    pub(super) to: Option<&'static str>,
    /// Whether the destination of the packet's connection was translated.
    pub(super) translated: bool,
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
            source_port: None,
            source: None,
            destination: None,
            to: None,
            translated: false,
        }
    }
}

/// The way in which a base chain refuses a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How {
    Policy,
    /// A rule of this chain refuses the packet.
    Rule(String),
}

/// The state of a packet at the end of a chain.
#[derive(Clone)]
enum End {
    Accepted,
    Refused(String),
    /// The packet returns to the calling chain.
    Open,
}

/// The ends of the chains that a packet entered by a jump, by name and depth of the jump. A chain
/// that many rules jump to is walked once for each depth: two jumps in each of 16 chains would
/// otherwise be 65,536 walks.
type Ends<'a> = BTreeMap<(&'a str, usize), End>;

/// The result of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    Unknown,
}

impl Table {
    /// Returns how this base chain refuses the packet; `None` if it accepts the packet or does not
    /// see it.
    pub(super) fn refuses(&self, chain: &Chain, packet: &Packet) -> Option<How> {
        let sees = match &self.id {
            TableId::Iptables { version, .. } => *version == packet.version,
            TableId::Nft { family, .. } => match packet.version {
                Version::V4 => family != "ip6",
                Version::V6 => family != "ip",
            },
        };
        if !sees || chain.hook != Some(packet.hook) {
            return None;
        }
        match self.walk(chain, packet, 0, &mut Ends::new()) {
            End::Refused(place) => Some(How::Rule(place)),
            End::Open if chain.drops => Some(How::Policy),
            End::Accepted | End::Open => None,
        }
    }

    fn walk<'a>(
        &'a self,
        chain: &Chain,
        packet: &Packet,
        depth: usize,
        ends: &mut Ends<'a>,
    ) -> End {
        for rule in chain.rules.iter().filter(|rule| rule.holds(packet)) {
            let end = match &rule.verdict {
                Verdict::Accept => End::Accepted,
                Verdict::Refuse => End::Refused(chain.name.clone()),
                Verdict::Return => return End::Open,
                Verdict::Goto(to) => return self.enter(to, packet, depth, ends),
                Verdict::Jump(to) => self.enter(to, packet, depth, ends),
                Verdict::Other => End::Open,
            };
            if !matches!(end, End::Open) {
                return end;
            }
        }
        End::Open
    }

    /// Returns the end of the chain that a rule at this depth leads to.
    fn enter<'a>(&'a self, to: &str, packet: &Packet, depth: usize, ends: &mut Ends<'a>) -> End {
        let Some(chain) = self.chain(to).filter(|_| depth < DEPTH) else { return End::Open };
        // The rules of published ports accept only the address and port of each guest, which this
        // packet leaves open. A missing rule is a fault of the network, not a conflict.
        if packet.translated && to == OWN_FORWARD {
            return End::Accepted;
        }
        let key = (chain.name.as_str(), depth);
        if let Some(end) = ends.get(&key) {
            return end.clone();
        }
        let end = self.walk(chain, packet, depth + 1, ends);
        ends.insert(key, end.clone());
        end
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
            Some(one) => yes(listed(list, one)),
            None => Answer::Unknown,
        };
        match self {
            Property::Arrives(names) => packet.arrives.answer(names),
            Property::Leaves(names) => match &packet.leaves {
                Some(interface) => interface.answer(names),
                None => Answer::No,
            },
            // iptables counts the translation among the states.
            Property::State(states) => {
                if packet.translated && listed(states, "dnat") {
                    Answer::Yes
                } else {
                    one_of(states, Some(packet.state))
                }
            }
            Property::Version(version) => yes(*version == packet.version),
            Property::Protocol(protocols) => one_of(protocols, packet.protocol),
            Property::Port(ports) => match packet.port {
                Some(port) => yes(ports.iter().any(|range| range.contains(&port))),
                None if packet.protocol.is_some() => Answer::No,
                None => Answer::Unknown,
            },
            Property::SourcePort(ports) => packet.source_port.map_or(Answer::Unknown, |port| {
                yes(ports.iter().any(|range| range.contains(&port)))
            }),
            // The packets are a guest's neighbour solicitation and the host's answer (RFC 4861).
            // This module has no other ICMPv6 packets.
            Property::Icmpv6(types) => match packet.protocol {
                Some("icmpv6") => {
                    let listed = match packet.hook {
                        Hook::Output => ["nd-neighbor-advert", "136"],
                        _ => ["nd-neighbor-solicit", "135"],
                    };
                    yes(types.iter().any(|one| listed.contains(&one.as_str())))
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

fn listed(list: &[String], one: &str) -> bool {
    list.iter().any(|listed| listed.eq_ignore_ascii_case(one))
}

fn yes(it_is: bool) -> Answer {
    if it_is { Answer::Yes } else { Answer::No }
}

/// Returns whether an address of these subnets is in one of `nets`.
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
                if names.iter().any(|name| covers(name, "")) {
                    Answer::Yes
                } else if names.iter().any(|name| other(&name)) {
                    Answer::Unknown
                } else {
                    Answer::No
                }
            }
            Interface::OneOf(some, _) if some.iter().all(|name| covered(name)) => Answer::Yes,
            Interface::OneOf(some, _) if some.iter().any(|name| covered(name)) => Answer::Unknown,
            Interface::OneOf(..) => Answer::No,
        }
    }
}

/// Returns whether an interface's name in a rule, which may have a wildcard, matches this name.
fn covers(listed: &str, name: &str) -> bool {
    match listed.strip_suffix(['+', '*']) {
        Some(start) => name.starts_with(start),
        None => listed == name,
    }
}
