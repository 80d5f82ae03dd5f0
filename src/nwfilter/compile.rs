//! From a filter's rules to what they mean for a port: pure, in no tool's words.
//!
//! # What a rule means
//!
//! A rule of the link layer is one rule of its chain, in each of its directions. A rule of direction
//! `inout` describes frames to the guest; for those that leave it, source and destination are
//! exchanged.
//!
//! A rule of the network layer describes packets that go its way, and packets the other way with
//! source and destination exchanged (its MAC address, which is a sender's, aside):
//!
//! | rule | its own way | the other way |
//! |---|---|---|
//! | accept | new and established, of the opener | established, of the answerer |
//! | accept, `statematch='false'` | stateless | exchanged, stateless |
//! | any with `state` | these states, or stateless for `NONE` | nothing |
//! | drop, reject, return, continue | stateless | nothing |
//! | any with `connlimit-above` | stateless | nothing |
//! | accept of an ICMP type | new and established | nothing |
//! | `inout` | stateless | exchanged, stateless; its MAC address stays |
//! | `inout` of an ICMP type | nothing | nothing |
//!
//! That is what libvirt's iptables backend does, but for two points in which its documentation says
//! otherwise: drop, reject and return of one direction are not mirrored, and `inout` rules keep
//! their MAC address. That an `inout` rule of an ICMP type does nothing is kept, since filters may
//! rest on it, and [`Warning::NoEffect`] says so.
//!
//! # Order
//!
//! Link rules stand in their chain by priority, in the order of the document among equals. Chains
//! other than root are called from root where their own priority puts them, before rules of the
//! same one. Network rules of all chains make one list, those of root first, then by priority.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    Action, Attribute as A, ChainKind, ChainName, Condition, Direction as Way, FlatFilter, Layer,
    Literal, Protocol, RuleInstance, SetDirection,
};
use crate::rules::port::{
    Address, Addresses, Direction, End, Hardware, Kind, Number, Origin, Path, PortRule, PortRules,
    PortVerdict, State, Step, SubChain, Test,
};
use crate::rules::{AddressRange, Version};

/// A rule that makes no sense, whatever carries it out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Ports of a protocol that has none.
    #[error(
        "{0} looks at ports, but its protocol is none of tcp, udp, udplite, dccp and sctp; name one of these with protocol= (match='no' would exclude it)"
    )]
    Ports(Origin),
    /// ICMP fields of another protocol.
    #[error("{0} looks at an ICMP type or code, but not with protocol='icmpv6'; add that")]
    IcmpType(Origin),
    /// A VLAN's protocol together with its number is fine, a negated gratuitous ARP is not.
    #[error(
        "{0} has gratuitous='true' under match='no', which no backend can look for; turn the rule round"
    )]
    NotGratuitous(Origin),
}

/// A rule that is not what it seems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// It does nothing.
    NoEffect(Origin),
}

impl Warning {
    /// The rule.
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

/// What a filter's parts mean for a port.
///
/// # Errors
/// [`CompileError`].
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
                let swapped = source.rule.direction == Way::InOut;
                if source.rule.direction != Way::In {
                    out.link(source, link_rule(source, swapped)?);
                }
                if source.rule.direction != Way::Out {
                    into.link(source, link_rule(source, false)?);
                }
            }
            Layer::Ipv4 | Layer::Ipv6 => {
                let Some(condition) = &source.rule.condition else { continue };
                if source.rule.direction == Way::InOut && has_icmp_type(condition) {
                    let warning = Warning::NoEffect(source.origin());
                    if !warnings.contains(&warning) {
                        warnings.push(warning);
                    }
                    continue;
                }
                for (to_guest, packet) in packets(source.rule, condition) {
                    let rule = packet_rule(source, condition, packet);
                    let path = if to_guest { &mut into } else { &mut out };
                    path.packets.push(rule);
                }
            }
        }
    }
    let rules = PortRules { from_guest: out.path(), to_guest: into.path() };
    Ok((rules, warnings))
}

/// A rule and the part of a filter that it is from.
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

    fn port_rule(&self, kind: Kind, tests: Vec<Test>) -> PortRule {
        let comment = self.rule.condition.as_ref().and_then(|c| match c.get(A::Comment) {
            Some(Literal::Comment(comment)) => Some(comment.to_string()),
            _ => None,
        });
        PortRule { kind, tests, verdict: self.verdict(), comment, origin: self.origin() }
    }
}

/// One path in the making.
#[derive(Default)]
struct Builder {
    /// Rules of root, and their priorities.
    root: Vec<(i32, PortRule)>,
    /// The other chains, and their priorities.
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
                // Filters that share a chain should give it the same priority; else the last counts.
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
        // Stable: chains of one priority stay in the order in which they came.
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

fn chain_kind(kind: ChainKind) -> Kind {
    match kind {
        ChainKind::Root | ChainKind::Mac => Kind::Any,
        ChainKind::Stp => Kind::Stp,
        ChainKind::Vlan => Kind::Vlan,
        ChainKind::Ipv4 => Kind::Ip(Version::V4, None),
        ChainKind::Ipv6 => Kind::Ip(Version::V6, None),
        ChainKind::Arp => Kind::Arp,
        ChainKind::Rarp => Kind::Rarp,
    }
}

/// A rule of the link layer; `swapped` exchanges source and destination.
fn link_rule(source: &Source<'_>, swapped: bool) -> Result<PortRule, CompileError> {
    let Some(condition) = &source.rule.condition else {
        return Ok(source.port_rule(Kind::Any, Vec::new()));
    };
    let kind = match condition.protocol {
        Protocol::Vlan => Kind::Vlan,
        Protocol::Stp => Kind::Stp,
        Protocol::Arp => Kind::Arp,
        Protocol::Rarp => Kind::Rarp,
        Protocol::Ip => Kind::Ip(Version::V4, None),
        Protocol::Ipv6 => Kind::Ip(Version::V6, None),
        _ => Kind::Any,
    };
    check_transport(condition).map_err(|error| error(source.origin()))?;
    // An STP frame's destination is what makes it one.
    let swapped = swapped && kind != Kind::Stp;
    let tests = Reader { condition, swapped, negated: condition.negated };
    let mut all = tests.link();
    if kind == Kind::Any && condition.protocol == Protocol::Mac {
        all.extend(tests.number(A::ProtocolId, None, Number::EtherType));
    }
    Ok(source.port_rule(kind, all))
}

/// Whether the fields of transport protocols can be there. Both layers that may carry rules out
/// want to know the protocol, and a negated one says nothing.
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

/// How a rule of the network layer applies to packets of one way.
struct Packet {
    /// Source and destination are exchanged.
    swapped: bool,
    /// The sender's MAC address is tested.
    mac: bool,
    state: Option<Test>,
}

/// The ways in which a rule of the network layer applies: `true` is to the guest.
fn packets(rule: &RuleInstance, condition: &Condition) -> Vec<(bool, Packet)> {
    let own = rule.direction != Way::Out;
    let plain = |swapped, mac| Packet { swapped, mac, state: None };
    let tracked = |swapped, states: &[State], direction| Packet {
        swapped,
        mac: !swapped,
        state: Some(Test::State { states: states.to_vec(), direction }),
    };
    let limited = condition.get(A::ConnlimitAbove).is_some();
    if let Some(Literal::State(states)) = condition.get(A::State) {
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
        if rule.direction == Way::InOut {
            all.push((!own, Packet { swapped: true, mac: true, state }));
        }
        return all;
    }
    if rule.direction == Way::InOut {
        return vec![(own, plain(false, true)), (!own, plain(true, true))];
    }
    if rule.action != Action::Accept || limited {
        return vec![(own, plain(false, true))];
    }
    if has_icmp_type(condition) {
        let state = match rule.statematch {
            true => tracked(false, &[State::New, State::Established], None),
            false => plain(false, true),
        };
        return vec![(own, state)];
    }
    if !rule.statematch {
        return vec![(own, plain(false, true)), (!own, plain(true, false))];
    }
    let first = [State::New, State::Established];
    vec![
        (own, tracked(false, &first, Some(Direction::Original))),
        (!own, tracked(true, &[State::Established], Some(Direction::Reply))),
    ]
}

fn has_icmp_type(condition: &Condition) -> bool {
    matches!(condition.protocol, Protocol::Icmp | Protocol::Icmpv6)
        && condition.get(A::Type).is_some()
}

/// A rule of the network layer for packets of one way.
fn packet_rule(source: &Source<'_>, condition: &Condition, packet: Packet) -> PortRule {
    let version = match condition.protocol.layer() {
        Layer::Ipv6 => Version::V6,
        _ => Version::V4,
    };
    let kind = Kind::Ip(version, ip_protocol(condition.protocol));
    let reader = Reader { condition, swapped: packet.swapped, negated: condition.negated };
    let mut tests = Vec::new();
    if packet.mac {
        let unswapped = Reader { swapped: false, ..reader };
        tests.extend(unswapped.hardware(A::SrcMacAddr, A::SrcMacMask, Hardware::Source));
    }
    tests.extend(reader.network());
    tests.extend(packet.state);
    source.port_rule(kind, tests)
}

/// The number of an element's IP protocol (IANA, Protocol Numbers).
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

/// Reads a condition's attributes as tests.
#[derive(Clone, Copy)]
struct Reader<'a> {
    condition: &'a Condition,
    swapped: bool,
    negated: bool,
}

impl Reader<'_> {
    /// The tests of a rule of the link layer, in the order of the frame's fields.
    fn link(&self) -> Vec<Test> {
        const STP: [(A, Option<A>, Number); 10] = [
            (A::Type, None, Number::StpType),
            (A::Flags, None, Number::StpFlags),
            (A::RootPriority, Some(A::RootPriorityHi), Number::StpRootPriority),
            (A::RootCost, Some(A::RootCostHi), Number::StpRootCost),
            (A::SenderPriority, Some(A::SenderPriorityHi), Number::StpSenderPriority),
            (A::Port, Some(A::PortHi), Number::StpPort),
            (A::Age, Some(A::AgeHi), Number::StpAge),
            (A::MaxAge, Some(A::MaxAgeHi), Number::StpMaxAge),
            (A::HelloTime, Some(A::HelloTimeHi), Number::StpHelloTime),
            (A::ForwardDelay, Some(A::ForwardDelayHi), Number::StpForwardDelay),
        ];
        let mut tests: Vec<Test> = [
            self.hardware(A::SrcMacAddr, A::SrcMacMask, Hardware::Source),
            self.hardware(A::DstMacAddr, A::DstMacMask, Hardware::Destination),
        ]
        .into_iter()
        .flatten()
        .collect();
        match self.condition.protocol {
            Protocol::Vlan => {
                tests.extend(self.number(A::VlanId, None, Number::VlanId));
                tests.extend(self.number(A::EncapProtocol, None, Number::VlanEncapsulated));
            }
            Protocol::Stp => {
                for (first, last, field) in STP {
                    tests.extend(self.number(first, last, field));
                }
                tests.extend(self.hardware(A::RootAddress, A::RootAddressMask, Hardware::StpRoot));
                tests.extend(self.hardware(
                    A::SenderAddress,
                    A::SenderAddressMask,
                    Hardware::StpSender,
                ));
            }
            Protocol::Arp | Protocol::Rarp => tests.extend(self.arp()),
            Protocol::Ip | Protocol::Ipv6 => {
                tests.extend(self.addresses());
                tests.extend(self.number(A::IpProtocol, None, Number::Protocol));
                tests.extend(self.ports());
                tests.extend(self.icmp());
                tests.extend(self.number(A::Dscp, None, Number::Dscp));
            }
            _ => {}
        }
        tests
    }

    fn arp(&self) -> Vec<Test> {
        let mut tests: Vec<Test> = [
            self.number(A::HwType, None, Number::ArpHardware),
            self.number(A::ProtocolType, None, Number::ArpProtocol),
            self.number(A::Opcode, None, Number::ArpOperation),
            self.hardware(A::ArpSrcMacAddr, A::ArpSrcMacAddr, Hardware::ArpSender),
            self.hardware(A::ArpDstMacAddr, A::ArpDstMacAddr, Hardware::ArpTarget),
            self.address(A::ArpSrcIpAddr, A::ArpSrcIpMask, Address::ArpSender),
            self.address(A::ArpDstIpAddr, A::ArpDstIpMask, Address::ArpTarget),
        ]
        .into_iter()
        .flatten()
        .collect();
        if self.condition.get(A::Gratuitous) == Some(&Literal::Boolean(true)) {
            tests.push(Test::Gratuitous);
        }
        tests
    }

    /// The tests of a rule of the network layer, the MAC address and the state aside.
    fn network(&self) -> Vec<Test> {
        let mut tests = self.addresses();
        tests.extend(self.range(A::SrcIpFrom, A::SrcIpTo, Address::Source));
        tests.extend(self.range(A::DstIpFrom, A::DstIpTo, Address::Destination));
        // Ports of the network layer are not negated (measured).
        tests.extend(Reader { negated: false, ..*self }.ports());
        tests.extend(self.number(A::Dscp, None, Number::Dscp));
        tests.extend(self.icmp());
        if let Some(Literal::TcpFlags(value)) = self.condition.get(A::Flags) {
            tests.push(Test::TcpFlags {
                mask: value.mask,
                flags: value.flags,
                negated: self.negated,
            });
        }
        if let (Some(Literal::IpSet(name)), Some(Literal::IpSetFlags(sides))) =
            (self.condition.get(A::IpSet), self.condition.get(A::IpSetFlags))
        {
            let side = |side: &SetDirection| match (side, self.swapped) {
                (SetDirection::Src, false) | (SetDirection::Dst, true) => End::Source,
                _ => End::Destination,
            };
            tests.push(Test::Set {
                name: name.to_string(),
                sides: sides.iter().map(side).collect(),
                negated: self.negated,
            });
        }
        if let Some(above) = self.condition.number(A::ConnlimitAbove) {
            tests.push(Test::Connections { above });
        }
        tests
    }

    fn addresses(&self) -> Vec<Test> {
        let source = self.address(A::SrcIpAddr, A::SrcIpMask, Address::Source);
        let destination = self.address(A::DstIpAddr, A::DstIpMask, Address::Destination);
        source.into_iter().chain(destination).collect()
    }

    fn ports(&self) -> Vec<Test> {
        let source = self.number(A::SrcPortStart, Some(A::SrcPortEnd), Number::SourcePort);
        let destination =
            self.number(A::DstPortStart, Some(A::DstPortEnd), Number::DestinationPort);
        source.into_iter().chain(destination).collect()
    }

    fn hardware(&self, address: A, mask: A, field: Hardware) -> Option<Test> {
        let field = match (field, self.swapped) {
            (Hardware::Source, true) => Hardware::Destination,
            (Hardware::Destination, true) => Hardware::Source,
            (Hardware::ArpSender, true) => Hardware::ArpTarget,
            (Hardware::ArpTarget, true) => Hardware::ArpSender,
            (other, _) => other,
        };
        let address = self.condition.mac(address)?.octets();
        let mask = match self.condition.get(mask) {
            Some(Literal::MacMask(mask)) => mask.octets(),
            _ => [0xff; 6],
        };
        Some(Test::Hardware { field, address, mask, negated: self.negated })
    }

    fn number(&self, first: A, last: Option<A>, field: Number) -> Option<Test> {
        let field = match (field, self.swapped) {
            (Number::SourcePort, true) => Number::DestinationPort,
            (Number::DestinationPort, true) => Number::SourcePort,
            (other, _) => other,
        };
        let first = self.condition.number(first)?;
        let last = last.and_then(|last| self.condition.number(last)).unwrap_or(first);
        Some(Test::Number { field, first, last, negated: self.negated })
    }

    fn icmp(&self) -> Option<Test> {
        /// Of ICMP (IPv4), iptables and its kernel part take this type for all of them.
        const ANY_TYPE: u8 = 255;
        let (first, last) = self.byte_range(A::Type, A::TypeEnd)?;
        let codes = self.byte_range(A::Code, A::CodeEnd);
        if self.condition.protocol == Protocol::Icmp && first == ANY_TYPE {
            let all = Test::Icmp { types: (0, u8::MAX), codes: None, negated: true };
            return self.negated.then_some(all);
        }
        Some(Test::Icmp { types: (first, last), codes, negated: self.negated })
    }

    fn byte_range(&self, first: A, last: A) -> Option<(u8, u8)> {
        let byte = |attribute| self.condition.number(attribute).and_then(|n| u8::try_from(n).ok());
        let first = byte(first)?;
        Some((first, byte(last).unwrap_or(first)))
    }

    fn swapped_address(&self, field: Address) -> Address {
        match (field, self.swapped) {
            (Address::Source, true) => Address::Destination,
            (Address::Destination, true) => Address::Source,
            (Address::ArpSender, true) => Address::ArpTarget,
            (Address::ArpTarget, true) => Address::ArpSender,
            (other, _) => other,
        }
    }

    fn address(&self, address: A, mask: A, field: Address) -> Option<Test> {
        let net = match self.condition.get(address)? {
            Literal::V4(address) => {
                let length = match self.condition.get(mask) {
                    Some(Literal::V4Mask(length)) => *length,
                    _ => 32,
                };
                IpNet::V4(Ipv4Net::new(*address, length).ok()?.trunc())
            }
            Literal::V6(address) => {
                let length = match self.condition.get(mask) {
                    Some(Literal::V6Mask(length)) => *length,
                    _ => 128,
                };
                IpNet::V6(Ipv6Net::new(*address, length).ok()?.trunc())
            }
            _ => return None,
        };
        let field = self.swapped_address(field);
        Some(Test::Address { field, among: Addresses::Net(net), negated: self.negated })
    }

    fn range(&self, first: A, last: A, field: Address) -> Option<Test> {
        let from = self.condition.get(first)?;
        let range = match (from, self.condition.get(last).unwrap_or(from)) {
            (Literal::V4(first), Literal::V4(last)) => AddressRange::V4(*first, *last),
            (Literal::V6(first), Literal::V6(last)) => AddressRange::V6(*first, *last),
            _ => return None,
        };
        let field = self.swapped_address(field);
        Some(Test::Address { field, among: Addresses::Range(range), negated: self.negated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nwfilter::{Filters, flatten, parse};

    /// The rules of a filter whose document has this inside.
    fn compiled(inside: &str) -> Result<(PortRules, Vec<Warning>), CompileError> {
        let xml = format!("<filter name='f'>{inside}</filter>");
        let filter =
            parse(xml.as_bytes(), "5d0c1f4e-7a55-4b56-9d5b-0a3b5bb5a101".parse().ok()).unwrap();
        compile(&flatten(&filter, &Filters::new(), &Default::default()).unwrap())
    }

    /// Each rule in short: what it does, its tests by their fields, `!` where negated.
    fn short(rules: &[PortRule]) -> Vec<String> {
        let field = |test: &Test| {
            let (name, negated) = match test {
                Test::Hardware { field, negated, .. } => (format!("{field:?}"), *negated),
                Test::Number { field, negated, .. } => (format!("{field:?}"), *negated),
                Test::Address { field, negated, .. } => (format!("{field:?}Ip"), *negated),
                Test::Icmp { negated, .. } => ("Icmp".to_owned(), *negated),
                Test::Set { sides, negated, .. } => (format!("Set{sides:?}"), *negated),
                Test::State { states, direction } => (format!("{states:?}{direction:?}"), false),
                other => (format!("{other:?}"), false),
            };
            format!("{}{name}", if negated { "!" } else { "" })
        };
        let rule = |rule: &PortRule| {
            let tests: Vec<_> = rule.tests.iter().map(field).collect();
            format!("{:?} {}", rule.verdict, tests.join(" ")).trim_end().to_owned()
        };
        rules.iter().map(rule).collect()
    }

    #[test]
    fn network_rules_go_their_way_and_the_other() {
        let rule = |action: &str, direction: &str, element: &str| {
            format!("<rule action='{action}' direction='{direction}'>{element}</rule>")
        };
        let from_to = "<tcp srcmacaddr='2:0:0:0:0:1' srcipaddr='10.0.0.1' dstportstart='80'/>";
        let first = "[New, Established]Some(Original)";
        let answer = "[Established]Some(Reply)";
        for (rule, out, into) in [
            (
                rule("accept", "out", from_to),
                vec![format!("Accept Source SourceIp DestinationPort {first}")],
                vec![format!("Accept DestinationIp SourcePort {answer}")],
            ),
            (
                rule("accept", "in", from_to),
                vec![format!("Accept DestinationIp SourcePort {answer}")],
                vec![format!("Accept Source SourceIp DestinationPort {first}")],
            ),
            (rule("drop", "out", from_to), vec!["Drop Source SourceIp DestinationPort".into()], vec![]),
            (rule("return", "in", from_to), vec![], vec!["Return Source SourceIp DestinationPort".into()]),
            (
                rule("accept", "inout", from_to),
                vec!["Accept Source DestinationIp SourcePort".into()],
                vec!["Accept Source SourceIp DestinationPort".into()],
            ),
            (
                rule("accept", "out", "<udp state='NEW,RELATED' srcportstart='5'/>"),
                vec!["Accept SourcePort [New, Related]None".into()],
                vec![],
            ),
            (rule("accept", "in", "<udp state='NONE'/>"), vec![], vec!["Accept".into()]),
            (
                rule("accept", "out", "<icmp type='8'/>"),
                vec!["Accept Icmp [New, Established]None".into()],
                vec![],
            ),
            (rule("drop", "inout", "<icmp type='8'/>"), vec![], vec![]),
            (
                rule("drop", "out", "<tcp connlimit-above='2'/>"),
                vec!["Drop Connections { above: 2 }".into()],
                vec![],
            ),
            (
                rule("accept", "inout", "<all ipset='s' ipsetflags='src,dst'/>"),
                vec!["Accept Set[Destination, Source]".into()],
                vec!["Accept Set[Source, Destination]".into()],
            ),
            (
                "<rule action='accept' direction='out' statematch='false'><udp srcmacaddr='2:0:0:0:0:1' srcportstart='5'/></rule>".into(),
                vec!["Accept Source SourcePort".into()],
                vec!["Accept DestinationPort".into()],
            ),
            (
                rule("drop", "out", "<tcp match='no' srcipaddr='10.0.0.1' dscp='1' srcportstart='5'/>"),
                vec!["Drop !SourceIp SourcePort !Dscp".into()],
                vec![],
            ),
        ] {
            let (rules, _) = compiled(&rule).unwrap();
            assert_eq!(short(&rules.from_guest.packets), out, "{rule}");
            assert_eq!(short(&rules.to_guest.packets), into, "{rule}");
        }
    }

    #[test]
    fn an_icmp_type_both_ways_does_nothing_and_is_told() {
        let inside = "<rule action='drop' direction='inout'><icmp type='8'/></rule>";
        let (_, warnings) = compiled(inside).unwrap();
        assert_eq!(warnings.len(), 1);
        let text = warnings[0].to_string();
        assert!(text.contains("line 1 of the filter f") && text.contains("does nothing"), "{text}");
    }

    #[test]
    fn link_rules_both_ways_are_exchanged_on_the_way_out() {
        let inside = "<rule action='drop' direction='inout'>\
                      <arp srcmacaddr='2:0:0:0:0:1' arpsrcipaddr='10.0.0.1' opcode='1'/></rule>";
        let (rules, _) = compiled(inside).unwrap();
        let link = |path: &Path| {
            let rules: Vec<_> = path.rules().cloned().collect();
            short(&rules)
        };
        assert_eq!(link(&rules.from_guest), ["Drop Destination ArpOperation ArpTargetIp"]);
        assert_eq!(link(&rules.to_guest), ["Drop Source ArpOperation ArpSenderIp"]);
    }

    #[test]
    fn chains_stand_among_roots_rules_by_priority() {
        let part = |chain: &str, priority: i32, rules: &str| {
            let xml =
                format!("<filter name='f' chain='{chain}' priority='{priority}'>{rules}</filter>");
            let filter =
                parse(xml.as_bytes(), "5d0c1f4e-7a55-4b56-9d5b-0a3b5bb5a101".parse().ok()).unwrap();
            flatten(&filter, &Filters::new(), &Default::default()).unwrap()
        };
        let rule = |priority: i32, action: &str| {
            format!("<rule action='{action}' direction='out' priority='{priority}'/>")
        };
        let parts = [
            part("root", 0, &(rule(-500, "drop") + &rule(-600, "return"))),
            part("arp", -500, &rule(100, "accept")),
            part("ipv4-x", -550, &rule(100, "accept")),
            part("arp", -500, &rule(50, "return")),
        ]
        .concat();
        let (rules, _) = compile(&parts).unwrap();
        let path = &rules.from_guest;
        let steps: Vec<String> = path
            .frames
            .iter()
            .map(|step| match step {
                Step::Rule(rule) => format!("{:?}", rule.verdict),
                Step::Chain(number) => path.chains[*number].name.clone(),
            })
            .collect();
        assert_eq!(steps, ["Return", "ipv4-x", "arp", "Drop"]);
        let arp = path.chains.iter().find(|chain| chain.name == "arp").unwrap();
        assert_eq!(short(&arp.rules), ["Return", "Accept"]);
        // Nothing to the guest: no chain is called there.
        assert_eq!(rules.to_guest, Path::default());
    }

    #[test]
    fn what_no_backend_can_look_for_is_refused() {
        for (element, word) in [
            ("<ip dstportstart='80'/>", "none of tcp"),
            ("<ip match='no' protocol='udp' dstportstart='80'/>", "none of tcp"),
            ("<ip protocol='icmp' dstportstart='80'/>", "none of tcp"),
            ("<ipv6 protocol='tcp' type='1'/>", "icmpv6"),
            ("<arp match='no' gratuitous='true'/>", "gratuitous"),
        ] {
            let inside = format!("<rule action='drop' direction='out'>{element}</rule>");
            let error = compiled(&inside).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("filter f"), "{error}");
        }
    }

    #[test]
    fn the_highest_icmp_type_is_all_of_them_in_ipv4_only() {
        for (element, tests) in [("<icmp type='255'/>", 1), ("<icmpv6 type='255'/>", 2)] {
            let inside = format!("<rule action='accept' direction='out'>{element}</rule>");
            let (rules, _) = compiled(&inside).unwrap();
            assert_eq!(rules.from_guest.packets[0].tests.len(), tests, "{element}");
        }
    }
}
