//! Compiles a filter's rules into a port's rules; the result does not depend on a backend.
//!
//! # What a rule means
//!
//! A rule of the link layer becomes one rule of its chain, in each of its directions. A rule of
//! direction `inout` describes frames to the guest; for frames from the guest, source and
//! destination are exchanged.
//!
//! A rule of the network layer describes packets in its own direction, and packets in the other
//! direction with source and destination exchanged (except its MAC address, which is a sender's):
//!
//! | rule | its own direction | the other direction |
//! |---|---|---|
//! | accept | new and established, of the opener | established, of the answerer |
//! | accept, `statematch='false'` | stateless | exchanged, stateless |
//! | any with `state` (ignored with `statematch='false'`) | these states, or stateless for `NONE` |
//! nothing |
//! | drop, reject, return, continue | stateless | nothing |
//! | any with `connlimit-above` | stateless | nothing |
//! | accept of an ICMP type | new and established | nothing |
//! | `inout` | stateless | exchanged, stateless; its MAC address stays |
//! | `inout` of an ICMP type | nothing | nothing |
//!
//! That is the effect of libvirt's iptables backend, except for two points in which its
//! documentation differs: drop, reject and return of one direction are not mirrored, and `inout`
//! rules keep their MAC address. As in libvirt, an `inout` rule of an ICMP type has no effect,
//! since filters may rely on this, and [`Warning::NoEffect`] reports it.
//!
//! With `CTRL_DHCP_CLIENT` or `CTRL_ND_MESSAGE` = `own`, rules with a MAC address that accept DHCP
//! or neighbor discovery also test the contents of the message ([`controls`]).
//!
//! # Order
//!
//! Link rules are ordered in their chain by priority, and among equals by the document. Root calls
//! the other chains at the position of their own priority, before rules of the same priority.
//! Network rules of all chains form one list: those of root first, then by priority.

mod controls;
mod reader;

use super::{
    Action, Attribute as A, ChainKind, ChainName, Condition, Direction as RuleDirection,
    FlatFilter, Layer, Literal, Protocol, RuleInstance,
};
use crate::firewall::rules::Version;
use crate::firewall::rules::port::{
    ConnectionDirection, FrameKind, Hardware, Number, Origin, Path, PortRule, PortRules,
    PortVerdict, State, Step, SubChain, Test,
};
use controls::{dhcp_client, nd_message};
use reader::Reader;

/// A rule that no backend can carry out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The rule tests ports, but its protocol has none.
    #[error(
        "{0} tests ports, but its protocol is none of tcp, udp, udplite, dccp and sctp; name one of these with protocol= (match='no' would exclude it)"
    )]
    Ports(Origin),
    /// The rule tests ICMP fields, but has another protocol.
    #[error("{0} tests an ICMP type or code without protocol='icmpv6'; add that attribute")]
    IcmpType(Origin),
    /// The rule excludes gratuitous ARP packets.
    #[error(
        "{0} has gratuitous='true' under match='no', which no backend can test; write the rule without match='no'"
    )]
    NotGratuitous(Origin),
}

/// A rule whose effect differs from its text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The rule has no effect.
    NoEffect(Origin),
}

impl Warning {
    /// Returns the rule.
    pub fn origin(&self) -> &Origin {
        match self {
            Warning::NoEffect(origin) => origin,
        }
    }
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Warning::NoEffect(origin) => write!(
                f,
                "{origin} has an ICMP type and direction='inout', and does nothing (as in libvirt); write a rule for each direction"
            ),
        }
    }
}

/// Compiles the parts of a filter for a port.
///
/// # Errors
/// Returns [`CompileError`] if a rule cannot be carried out.
pub fn compile(parts: &[FlatFilter]) -> Result<(PortRules, Vec<Warning>), CompileError> {
    let mut sources: Vec<Source> = parts
        .iter()
        .flat_map(|part| part.rules.iter().map(move |rule| Source { part, rule }))
        .collect();
    sources.sort_by_key(|source| (source.part.chain != ChainName::root(), source.rule.priority));
    let mut warnings = Vec::new();
    let (mut out, mut into) = (Builder::default(), Builder::default());
    for source in &sources {
        match source.rule.layer() {
            Layer::Link => {
                let swapped = source.rule.direction == RuleDirection::InOut;
                if source.rule.direction != RuleDirection::In {
                    out.link(source, link_rule(source, swapped)?);
                }
                if source.rule.direction != RuleDirection::Out {
                    into.link(source, link_rule(source, false)?);
                }
            }
            Layer::Ipv4 | Layer::Ipv6 => {
                let Some(condition) = &source.rule.condition else { continue };
                if source.rule.direction == RuleDirection::InOut && has_icmp_type(condition) {
                    let warning = Warning::NoEffect(source.origin());
                    if !warnings.contains(&warning) {
                        warnings.push(warning);
                    }
                    continue;
                }
                for (to_guest, packet) in packets(source.rule, condition) {
                    let path = if to_guest { &mut into } else { &mut out };
                    path.packets.extend(packet_rules(source, condition, packet));
                }
            }
        }
    }
    let rules = PortRules { from_guest: out.path(), to_guest: into.path() };
    Ok((rules, warnings))
}

/// A rule, and the part of a filter that contains it.
struct Source<'a> {
    part: &'a FlatFilter,
    rule: &'a RuleInstance,
}

impl Source<'_> {
    fn origin(&self) -> Origin {
        Origin { filter: self.part.filter.to_string(), line: self.rule.place.line as u64 }
    }

    fn verdict(&self) -> PortVerdict {
        match self.rule.action {
            Action::Accept => PortVerdict::Accept,
            Action::Drop => PortVerdict::Drop,
            Action::Reject => PortVerdict::Reject,
            Action::Return => PortVerdict::Return,
            Action::Continue => PortVerdict::Continue,
        }
    }

    fn port_rule(&self, kind: FrameKind, tests: Vec<Test>) -> PortRule {
        let comment = self.rule.condition.as_ref().and_then(|c| match c.get(A::Comment) {
            Some(Literal::Comment(comment)) => Some(comment.to_string()),
            _ => None,
        });
        PortRule { kind, tests, verdict: self.verdict(), comment, origin: self.origin() }
    }
}

/// A path that is being built.
#[derive(Default)]
struct Builder {
    /// The rules of root with their priorities.
    root: Vec<(i32, PortRule)>,
    /// The other chains with their priorities.
    chains: Vec<(i32, SubChain)>,
    packets: Vec<PortRule>,
}

impl Builder {
    fn link(&mut self, source: &Source<'_>, rule: PortRule) {
        let chain = &source.part.chain;
        if *chain == ChainName::root() {
            self.root.push((source.rule.priority, rule));
            return;
        }
        let name = chain.to_string();
        match self.chains.iter_mut().find(|(_, sub)| sub.name == name) {
            Some((priority, sub)) => {
                // If filters share a chain with different priorities, the last priority applies.
                *priority = source.part.priority;
                sub.rules.push(rule);
            }
            None => {
                let sub = SubChain { name, kind: chain_kind(chain.kind()), rules: vec![rule] };
                self.chains.push((source.part.priority, sub));
            }
        }
    }

    fn path(mut self) -> Path {
        // The sort is stable: chains of one priority keep their order.
        self.chains.sort_by_key(|(priority, _)| *priority);
        let mut frames = Vec::new();
        let mut next = 0;
        let call_until = |frames: &mut Vec<Step>, next: &mut usize, limit: Option<i32>| {
            while let Some((priority, _)) = self.chains.get(*next) {
                if limit.is_some_and(|limit| *priority > limit) {
                    break;
                }
                frames.push(Step::Chain(*next));
                *next += 1;
            }
        };
        for (priority, rule) in self.root {
            call_until(&mut frames, &mut next, Some(priority));
            frames.push(Step::Rule(rule));
        }
        call_until(&mut frames, &mut next, None);
        let chains = self.chains.into_iter().map(|(_, sub)| sub).collect();
        Path { frames, chains, packets: self.packets }
    }
}

fn chain_kind(kind: ChainKind) -> FrameKind {
    match kind {
        ChainKind::Root | ChainKind::Mac => FrameKind::Any,
        ChainKind::Stp => FrameKind::Stp,
        ChainKind::Vlan => FrameKind::Vlan,
        ChainKind::Ipv4 => FrameKind::Ip(Version::V4, None),
        ChainKind::Ipv6 => FrameKind::Ip(Version::V6, None),
        ChainKind::Arp => FrameKind::Arp,
        ChainKind::Rarp => FrameKind::Rarp,
    }
}

/// Compiles a rule of the link layer; `swapped` exchanges source and destination.
fn link_rule(source: &Source<'_>, swapped: bool) -> Result<PortRule, CompileError> {
    let Some(condition) = &source.rule.condition else {
        return Ok(source.port_rule(FrameKind::Any, Vec::new()));
    };
    let kind = match condition.protocol {
        Protocol::Vlan => FrameKind::Vlan,
        Protocol::Stp => FrameKind::Stp,
        Protocol::Arp => FrameKind::Arp,
        Protocol::Rarp => FrameKind::Rarp,
        Protocol::Ip => FrameKind::Ip(Version::V4, None),
        Protocol::Ipv6 => FrameKind::Ip(Version::V6, None),
        _ => FrameKind::Any,
    };
    check_transport(condition).map_err(|error| error(source.origin()))?;
    // The destination of an STP frame defines its kind, so it is not exchanged.
    let swapped = swapped && kind != FrameKind::Stp;
    let tests = Reader { condition, swapped, negated: condition.negated };
    let mut all = tests.link();
    if kind == FrameKind::Any && condition.protocol == Protocol::Mac {
        all.extend(tests.number(A::ProtocolId, None, Number::EtherType));
    }
    Ok(source.port_rule(kind, all))
}

/// Checks that the fields of transport protocols can exist. Both layers need the protocol for this,
/// and a negated protocol is not sufficient.
fn check_transport(condition: &Condition) -> Result<(), fn(Origin) -> CompileError> {
    const WITH_PORTS: [u32; 5] = [6, 17, 33, 132, 136];
    const ICMPV6: u32 = 58;
    let has = |attribute| condition.get(attribute).is_some();
    let protocol = condition.number(A::IpProtocol).filter(|_| !condition.negated);
    let ports = has(A::SrcPortStart) || has(A::DstPortStart);
    if ports && !protocol.is_some_and(|p| WITH_PORTS.contains(&p)) {
        return Err(CompileError::Ports);
    }
    if condition.protocol == Protocol::Ipv6
        && (has(A::Type) || has(A::Code))
        && protocol != Some(ICMPV6)
    {
        return Err(CompileError::IcmpType);
    }
    if condition.negated && condition.get(A::Gratuitous) == Some(&Literal::Boolean(true)) {
        return Err(CompileError::NotGratuitous);
    }
    Ok(())
}

/// The application of a network rule to packets of one direction.
struct Packet {
    /// Whether source and destination are exchanged.
    swapped: bool,
    /// Whether the sender's MAC address is tested.
    mac: bool,
    state: Option<Test>,
}

/// Returns the applications of a network rule; `true` means packets to the guest.
fn packets(rule: &RuleInstance, condition: &Condition) -> Vec<(bool, Packet)> {
    let own = rule.direction != RuleDirection::Out;
    let plain = |swapped, mac| Packet { swapped, mac, state: None };
    let tracked = |swapped, states: &[State], direction| Packet {
        swapped,
        mac: !swapped,
        state: Some(Test::State { states: states.to_vec(), direction }),
    };
    let limited = condition.get(A::ConnlimitAbove).is_some();
    if let Some(Literal::State(states)) = condition.get(A::State).filter(|_| rule.statematch) {
        let listed: Vec<State> = [
            (states.new, State::New),
            (states.established, State::Established),
            (states.related, State::Related),
            (states.invalid, State::Invalid),
        ]
        .into_iter()
        .filter_map(|(on, state)| on.then_some(state))
        .collect();
        let state = (!listed.is_empty()).then_some(Test::State { states: listed, direction: None });
        let mut all = vec![(own, Packet { swapped: false, mac: true, state: state.clone() })];
        if rule.direction == RuleDirection::InOut {
            all.push((!own, Packet { swapped: true, mac: true, state }));
        }
        return all;
    }
    if rule.direction == RuleDirection::InOut {
        return vec![(own, plain(false, true)), (!own, plain(true, true))];
    }
    let has_icmp_type = has_icmp_type(condition);
    if rule.action != Action::Accept || limited || (has_icmp_type && !rule.statematch) {
        return vec![(own, plain(false, true))];
    }
    if has_icmp_type {
        return vec![(own, tracked(false, &[State::New, State::Established], None))];
    }
    if !rule.statematch {
        return vec![(own, plain(false, true)), (!own, plain(true, false))];
    }
    let first = [State::New, State::Established];
    vec![
        (own, tracked(false, &first, Some(ConnectionDirection::Original))),
        (!own, tracked(true, &[State::Established], Some(ConnectionDirection::Reply))),
    ]
}

fn has_icmp_type(condition: &Condition) -> bool {
    matches!(condition.protocol, Protocol::Icmp | Protocol::Icmpv6)
        && condition.get(A::Type).is_some()
}

/// Compiles a network rule for packets of one direction.
fn packet_rules(source: &Source<'_>, condition: &Condition, packet: Packet) -> Vec<PortRule> {
    let version = match condition.protocol.layer() {
        Layer::Ipv6 => Version::V6,
        _ => Version::V4,
    };
    let kind = FrameKind::Ip(version, ip_protocol(condition.protocol));
    let reader = Reader { condition, swapped: packet.swapped, negated: condition.negated };
    let mut tests = Vec::new();
    if packet.mac {
        let unswapped = Reader { swapped: false, ..reader };
        tests.extend(unswapped.hardware(A::SrcMacAddr, A::SrcMacMask, Hardware::Source));
    }
    tests.extend(reader.network());
    tests.extend(packet.state);
    // The kernel counts the connection of each packet that reaches this test, and Linux 6.18 drops
    // packets of connections that it did not count from their first packet.
    tests.extend(reader.connections());
    if packet.mac && source.part.own_dhcp_client {
        tests.extend(dhcp_client(source.rule, condition));
    }
    if packet.mac && source.part.own_nd_message {
        let forms = nd_message(source.rule, condition, &tests);
        return forms.into_iter().map(|tests| source.port_rule(kind, tests)).collect();
    }
    vec![source.port_rule(kind, tests)]
}

/// Returns the number of an element's IP protocol (IANA, Protocol Numbers).
fn ip_protocol(protocol: Protocol) -> Option<u8> {
    use Protocol as P;
    match protocol {
        P::Icmp => Some(1),
        P::Igmp => Some(2),
        P::Tcp | P::TcpIpv6 => Some(6),
        P::Udp | P::UdpIpv6 => Some(17),
        P::Esp | P::EspIpv6 => Some(50),
        P::Ah | P::AhIpv6 => Some(51),
        P::Icmpv6 => Some(58),
        P::Sctp | P::SctpIpv6 => Some(132),
        P::Udplite | P::UdpliteIpv6 => Some(136),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
