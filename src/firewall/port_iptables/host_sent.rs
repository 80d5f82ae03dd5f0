//! Renders the second stage in ebtables for packets that the host itself sends or routes to a
//! guest.
//!
//! iptables cannot carry out the second stage for these packets (see [`super`]), and ebtables
//! cannot test connections, sets or TCP flags. A rule with such a test is carried out inexactly,
//! and always so that more packets pass than the rule says: an accepting rule is written without
//! the test, and a refusing rule is left out. So no packet is lost that the filter accepts.
//! [`HostSentRules::open`] names the rules that let more packets pass than the filter says.
//!
//! A stateful accept that includes new packets is written without its state and is not in that
//! list: it accepts packets of any sender already, and the additional packets belong to no
//! connection.

use super::Tested;
use super::ebtables::{MOST_LINES, any_of, kind, link_test, not};
use super::packets::always;
use super::subnets::{subnets, tested_twice};
use crate::firewall::rules::Version;
use crate::firewall::rules::port::{
    Addresses, ConnectionDirection, FrameKind, Hardware, PortRule, PortVerdict, State, Test,
};

/// The number of IPv6's fragment header, which ebtables reads as the protocol of a later fragment.
const FRAGMENT: u8 = 44;

/// The rules for packets that the host sends to a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostSentRules<'a> {
    /// The lines of the chain; empty if the chain would refuse no packet.
    pub lines: Vec<String>,
    /// The rule of each line.
    pub rules: Vec<&'a PortRule>,
    /// The rules that let more packets pass than they say, and the part that ebtables cannot test.
    pub open: Vec<(&'a PortRule, &'static str)>,
}

/// Renders the rules of the second stage for packets that the host sends.
pub fn host_sent_rules(packets: &[PortRule]) -> HostSentRules<'_> {
    let mut sent = HostSentRules::default();
    let is_refusal =
        |rule: &PortRule| matches!(rule.verdict, PortVerdict::Drop | PortVerdict::Reject);
    for (at, rule) in packets.iter().enumerate() {
        let FrameKind::Ip(version, _) = rule.kind else { continue };
        let Some((lines, unsupported)) = lines(rule) else { continue };
        match rule.verdict {
            PortVerdict::Continue => {}
            PortVerdict::Accept | PortVerdict::Return => {
                sent.add(rule, lines, "RETURN");
                let refused_later = packets[at..].iter().any(|r| r.is_of(version) && is_refusal(r));
                let unsupported = unsupported.filter(|_| refused_later && !accepts_new(rule));
                sent.open.extend(unsupported.map(|unsupported| (rule, unsupported)));
            }
            PortVerdict::Drop | PortVerdict::Reject => match unsupported {
                Some(unsupported) => sent.open.push((rule, unsupported)),
                None => sent.add(rule, lines, "DROP"),
            },
        }
    }
    let last = sent.lines.iter().rposition(|line| line.ends_with(" -j DROP"));
    sent.lines.truncate(last.map_or(0, |last| last + 1));
    sent.rules.truncate(sent.lines.len());
    sent
}

impl<'a> HostSentRules<'a> {
    fn add(&mut self, rule: &'a PortRule, lines: Vec<String>, target: &str) {
        self.rules.extend(lines.iter().map(|_| rule));
        self.lines.extend(lines.into_iter().map(|line| format!("{line} -j {target}")));
    }
}

/// Returns whether the rule lacks only its state test, and a new packet of the sender has that
/// state.
fn accepts_new(rule: &PortRule) -> bool {
    rule.tests.iter().all(|test| match test {
        Test::State { states, direction } => {
            states.contains(&State::New) && *direction != Some(ConnectionDirection::Reply)
        }
        test => !matches!(line_test(test, rule.kind), Tested::Cannot(_)),
    })
}

/// Returns a rule as lines without a verdict, and the first part of the rule that these lines do
/// not test; `None` if the rule never applies.
fn lines(rule: &PortRule) -> Option<(Vec<String>, Option<&'static str>)> {
    let FrameKind::Ip(version, protocol) = rule.kind else { return None };
    let start = kind(FrameKind::Ip(version, None)).join(" ");
    let mut lines: Vec<String> = match (version, protocol) {
        (_, None) => vec![start],
        (Version::V4, Some(protocol)) => vec![format!("{start} --ip-protocol {protocol}")],
        (Version::V6, Some(protocol)) => {
            let mut all = vec![format!("{start} --ip6-protocol {protocol}")];
            // If the filter accepts the first fragment, the later fragments of the packet must pass
            // too.
            let accepts = matches!(rule.verdict, PortVerdict::Accept | PortVerdict::Return);
            if accepts && !rule.tests.iter().any(Test::is_transport) {
                all.push(format!("{start} --ip6-protocol {FRAGMENT}"));
            }
            all
        }
    };
    let mut unsupported = None;
    let twice = tested_twice(&rule.tests);
    let joined = twice.iter().map(|(field, nets)| any_of(*field, nets, rule.kind));
    let single = rule.tests.iter().filter(|test| !twice.has(test));
    for tested in single.map(|test| line_test(test, rule.kind)).chain(joined) {
        let words = match tested {
            Tested::Always => continue,
            Tested::Never => return None,
            Tested::If(word) => vec![word],
            Tested::AnyOf(words) if lines.len() * words.len() <= MOST_LINES => words,
            Tested::AnyOf(_) => {
                unsupported = unsupported.or(Some("addresses of too many subnets"));
                continue;
            }
            Tested::Cannot(what) => {
                unsupported = unsupported.or(Some(what));
                continue;
            }
        };
        lines = lines
            .iter()
            .flat_map(|line| words.iter().map(move |word| format!("{line} {word}")))
            .collect();
    }
    Some((lines, unsupported))
}

fn line_test(test: &Test, rule: FrameKind) -> Tested {
    let FrameKind::Ip(version, _) = rule else { return Tested::Never };
    match test {
        Test::Hardware { field: Hardware::DhcpClient, .. } => {
            Tested::Cannot("the client of a DHCP message")
        }
        Test::Neighbor(_) => Tested::Cannot("the contents of a neighbor discovery message"),
        Test::TcpFlags { .. } => Tested::Cannot("TCP flags"),
        Test::Set { .. } => Tested::Cannot("an ipset"),
        Test::Connections { .. } => Tested::Cannot("the number of connections"),
        Test::State { .. } => Tested::Cannot("the state of a connection"),
        Test::Icmp { types: (0, u8::MAX), codes: None, negated } => always(*negated),
        Test::Icmp { types, codes, negated } if version == Version::V4 => {
            let (first, last) = codes.unwrap_or((0, u8::MAX));
            let not = not(*negated);
            Tested::If(format!("--ip-icmp-type {not}{}:{}/{first}:{last}", types.0, types.1))
        }
        Test::Address { field, addresses: Addresses::Range(range), negated } => {
            any_of(*field, &subnets(range, *negated), rule)
        }
        test => link_test(test, rule),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::rules::AddressRange;
    use crate::firewall::rules::port::{Address, Number, Origin};

    const TCP: FrameKind = FrameKind::Ip(Version::V4, Some(6));

    fn rule(kind: FrameKind, tests: Vec<Test>, verdict: PortVerdict) -> PortRule {
        PortRule { kind, tests, verdict, comment: None, origin: Origin::default() }
    }

    fn state(states: &[State], direction: ConnectionDirection) -> Test {
        Test::State { states: states.to_vec(), direction: Some(direction) }
    }

    #[test]
    fn rules_that_ebtables_can_carry_out_are_carried_out_exactly() {
        let port = Test::is(Number::DestinationPort, 80);
        let all = rule(FrameKind::Ip(Version::V4, None), vec![], PortVerdict::Reject);
        let packets = [rule(TCP, vec![port], PortVerdict::Accept), all];
        let sent = host_sent_rules(&packets);
        assert_eq!(
            sent.lines,
            ["-p 0x0800 --ip-protocol 6 --ip-destination-port 80 -j RETURN", "-p 0x0800 -j DROP"]
        );
        assert_eq!(sent.open, []);
    }

    #[test]
    fn a_test_that_ebtables_does_not_support_never_drops_and_is_reported() {
        let established = state(&[State::Established], ConnectionDirection::Reply);
        let new = state(&[State::New, State::Established], ConnectionDirection::Original);
        let set = Test::Set { name: "s".to_owned(), sides: vec![], negated: false };
        let drop = |tests| rule(TCP, tests, PortVerdict::Drop);
        let accept = |tests| rule(TCP, tests, PortVerdict::Accept);
        for (packets, lines, open) in [
            // ebtables cannot distinguish answers from other packets, so all packets pass.
            (vec![accept(vec![established.clone()]), drop(vec![])], 2, 1),
            (vec![accept(vec![new.clone()]), drop(vec![])], 2, 0),
            (vec![accept(vec![set.clone(), new.clone()]), drop(vec![])], 2, 1),
            (vec![drop(vec![set.clone()])], 0, 1),
            (vec![drop(vec![new.clone()]), drop(vec![])], 1, 1),
            // The filter refuses no packet, so the chain is empty.
            (vec![accept(vec![established])], 0, 0),
        ] {
            let sent = host_sent_rules(&packets);
            assert_eq!((sent.lines.len(), sent.open.len()), (lines, open), "{packets:?}");
        }
    }

    #[test]
    fn a_range_becomes_its_subnets_and_an_excluded_one_those_around_it() {
        let range = |first: &str, last: &str, negated| {
            let addresses =
                Addresses::Range(AddressRange::V4(first.parse().unwrap(), last.parse().unwrap()));
            let test = Test::Address { field: Address::Source, addresses, negated };
            host_sent_rules(&[rule(TCP, vec![test], PortVerdict::Drop)]).lines.len()
        };
        assert_eq!(range("10.0.0.1", "10.0.0.6", false), 4);
        assert_eq!(range("0.0.0.0", "127.255.255.255", true), 1);
        assert_eq!(range("0.0.0.0", "255.255.255.255", true), 0);
        assert_eq!(range("0.0.0.0", "255.255.255.255", false), 1);
    }
}
