//! Finds rules that a backend does not carry out as documented. The module runs no program: it
//! renders each rule with both renderers, and knows the cases in which the kernel's behaviour
//! differs from the rule.

use std::collections::BTreeSet;

use super::backend::FirewallBackend;
use super::port_iptables::{self, host_sent_rules};
use super::port_nft::{self, Extras, has_hook};
use crate::firewall::rules::Version;
use crate::firewall::rules::port::{
    FrameKind, Hardware, Number, Origin, Path, PortRule, PortRules, PortVerdict, Step, Test,
};
use crate::types::{InterfaceName, error_text};

/// A rule that a backend does not carry out as documented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The rule.
    pub origin: Origin,
    /// The effect, and advice.
    pub text: String,
}

/// The position of a rule: whether frames go to the guest, and whether it is a rule for IP
/// protocols.
#[derive(Debug, Clone, Copy)]
struct RulePosition {
    to_guest: bool,
    packets: bool,
}

/// Returns the limits of both backends without duplicates. `port` may be the name of any interface.
pub fn limits(port: &InterfaceName, rules: &PortRules) -> Vec<Limit> {
    let mut all: Vec<Limit> = Vec::new();
    for (to_guest, path) in [(false, &rules.from_guest), (true, &rules.to_guest)] {
        let root = path.frames.iter().filter_map(|step| match step {
            Step::Rule(rule) => Some(rule),
            Step::Chain(_) => None,
        });
        let frames = root.chain(path.chains.iter().flat_map(|chain| &chain.rules));
        let placed =
            frames.map(|rule| (false, rule)).chain(path.packets.iter().map(|rule| (true, rule)));
        for (packets, rule) in placed {
            for text in of_rule(port, rule, RulePosition { to_guest, packets }) {
                let limit = Limit { origin: rule.origin.clone(), text };
                if !all.contains(&limit) {
                    all.push(limit);
                }
            }
        }
    }
    for (rule, what) in host_sent_rules(&rules.to_guest.packets).open {
        let text = format!(
            "with iptables it does not hold for packets that the host sends or routes to the guest, and lets them pass: ebtables alone sees their port, and cannot test {what}"
        );
        let is_it = |limit: &&mut Limit| {
            limit.origin == rule.origin && limit.text.starts_with(NOT_NFTABLES)
        };
        let known = |limit: &Limit| limit.origin == rule.origin && limit.text.contains(&text);
        if all.iter().any(known) {
            continue;
        }
        // A feature that neither backend supports gets one line for both.
        match all.iter_mut().find(is_it) {
            Some(limit) => limit.text += &format!("; {text}"),
            None => all.push(Limit { origin: rule.origin.clone(), text: text + "; use nftables" }),
        }
    }
    all
}

/// The beginning of a limit's text if nftables cannot express the rule.
const NOT_NFTABLES: &str = "not with firewall_backend = \"nftables\"";

/// Returns a sentence for each kind of frame that passes a port without its filter, or without one
/// of its rules, with this backend.
pub fn open_ways(port: &InterfaceName, rules: &PortRules, backend: FirewallBackend) -> Vec<String> {
    let sent = sent_by_host(rules).filter(|_| backend == FirewallBackend::Iptables);
    link_local(port, rules, backend).into_iter().chain(sent).collect()
}

/// Returns a sentence about the rules that iptables cannot apply to packets that the host sends.
fn sent_by_host(rules: &PortRules) -> Option<String> {
    let open = host_sent_rules(&rules.to_guest.packets).open;
    let (rule, what) = open.first()?;
    let origins: BTreeSet<&Origin> = open.iter().map(|(rule, _)| &rule.origin).collect();
    let (others, do_not) = match origins.len() {
        1 => (String::new(), "does not"),
        2 => (" and one more".to_owned(), "do not"),
        n => (format!(" and {} more", n - 1), "do not"),
    };
    let has = |wanted: fn(&Test) -> bool| rules.rules().any(|rule| rule.tests.iter().any(wanted));
    let fix = match (has(|test| matches!(test, Test::Set { .. })), has(Test::is_stateful)) {
        (true, _) => "name the addresses in the filter",
        (false, true) => {
            "use firewall_backend = \"nftables\", with a kernel that has nf_conntrack_bridge"
        }
        (false, false) => "use firewall_backend = \"nftables\"",
    };
    Some(format!(
        "{}{others} {do_not} hold for packets that the host sends or routes to the guest, and these pass: ebtables alone sees their port, and cannot test {what}; {fix}",
        rule.origin
    ))
}

/// Returns the reason why the bridge handles a port's link-local frames before the filter; `None`
/// if it does not, or if the filter accepts all of them.
pub fn link_local(
    port: &InterfaceName,
    rules: &PortRules,
    backend: FirewallBackend,
) -> Option<String> {
    const FRAMES: &str = "the guest's frames to 01:80:c2:00:00:00 to 0f (STP, LLDP and others)";
    let why = match backend {
        // nftables refuses stateful rules if the bridge family cannot track connections.
        FirewallBackend::Iptables if rules.is_stateful() => {
            "ebtables has no hook before the bridge's own handling, and the filter needs connection tracking; a kernel without nf_conntrack_bridge can do only one of both".to_owned()
        }
        FirewallBackend::Iptables => {
            "ebtables has no hook before the bridge's own handling; use firewall_backend = \"nftables\"".to_owned()
        }
        FirewallBackend::Nftables if !has_hook(port) => {
            format!("nft cannot name the port {port}; rename it")
        }
        FirewallBackend::Nftables => return None,
    };
    let refuses = rules.for_link_local().refuses();
    refuses.then(|| format!("{FRAMES} come to the bridge without the filter: {why}"))
}

fn of_rule(port: &InterfaceName, rule: &PortRule, position: RulePosition) -> Vec<String> {
    let mut texts = Vec::new();
    let alone = alone(rule, position);
    let extras = Extras { trace: false, counters: false, reject: true };
    if let Err(error) = port_nft::port(1, port, &alone, extras) {
        texts.push(format!("{NOT_NFTABLES}: {}", error_text(&error)));
    }
    if let Err(error) = port_iptables::port(1, port, &alone) {
        texts.push(format!("not with firewall_backend = \"iptables\": {}", error_text(&error)));
    }
    if rule.verdict == PortVerdict::Reject {
        match position {
            RulePosition { packets: false, .. } => texts.push(
                "it drops without an answer: the link layer has none; name an IP protocol"
                    .to_owned(),
            ),
            RulePosition { to_guest: true, .. } => texts.push(
                "with nftables it drops without an answer: a bridge answers only frames that come in"
                    .to_owned(),
            ),
            _ => {}
        }
    }
    if rule.tests.iter().any(Test::is_stp) {
        texts.push(
            "with iptables it may apply to other frames or none: ebtables takes the version for the type, knows 0 alone, and reads the other fields of STP at other places; use nftables"
                .to_owned(),
        );
    }
    const AH: u8 = 51;
    let is_ah = |test: &Test| *test == Test::is(Number::Protocol, AH.into());
    if rule.kind == FrameKind::Ip(Version::V6, Some(AH)) {
        texts.push(
            "with the legacy variant of ip6tables it never applies: that reads the header behind AH; use nftables, or ip6tables over nf_tables"
                .to_owned(),
        );
    }
    if rule.kind == FrameKind::Ip(Version::V6, None) && rule.tests.iter().any(is_ah) {
        texts.push(
            "with iptables it never applies: ebtables reads the header behind AH; use nftables"
                .to_owned(),
        );
    }
    let mac = |test: &Test| {
        matches!(test, Test::Hardware { field: Hardware::ArpSender | Hardware::ArpTarget, .. })
    };
    let other = |test: &Test| match test {
        Test::Number { field: Number::ArpHardware, first, last, negated } => {
            (*first <= 1 && 1 <= *last) == *negated
        }
        _ => false,
    };
    if rule.tests.iter().any(mac) && rule.tests.iter().any(other) {
        texts.push(
            "it never applies: only ARP packets with hwtype 1 have MAC addresses; remove hwtype, or the addresses"
                .to_owned(),
        );
    }
    texts
}

/// Returns the rules of a port that has only this rule.
fn alone(rule: &PortRule, position: RulePosition) -> PortRules {
    let mut path = Path::default();
    if position.packets {
        path.packets.push(rule.clone());
    } else {
        path.frames.push(Step::Rule(rule.clone()));
    }
    if position.to_guest {
        PortRules { to_guest: path, ..PortRules::default() }
    } else {
        PortRules { from_guest: path, ..PortRules::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(kind: FrameKind, tests: Vec<Test>, verdict: PortVerdict) -> PortRule {
        PortRule { kind, tests, verdict, comment: None, origin: Origin::default() }
    }

    fn texts(rule: PortRule, position: RulePosition) -> Vec<String> {
        let port = "vnet0".parse().unwrap();
        limits(&port, &alone(&rule, position)).into_iter().map(|limit| limit.text).collect()
    }

    #[test]
    fn each_limit_names_its_backend() {
        let tcp = FrameKind::Ip(Version::V4, Some(6));
        let (frames, packets) = (
            RulePosition { to_guest: true, packets: false },
            RulePosition { to_guest: true, packets: true },
        );
        let set = Test::Set { name: "s".to_owned(), sides: vec![], negated: false };
        let mac =
            |field| Test::Hardware { field, address: [2; 6], mask: [0xff; 6], negated: false };
        let is = |field, value| vec![Test::is(field, value)];
        for (rule, position, word) in [
            (rule(tcp, vec![set], PortVerdict::Drop), packets, "nftables"),
            (
                rule(FrameKind::Vlan, is(Number::VlanId, 4095), PortVerdict::Drop),
                frames,
                "ebtables",
            ),
            (rule(tcp, vec![], PortVerdict::Reject), packets, "without an answer"),
            (rule(FrameKind::Any, vec![], PortVerdict::Reject), frames, "without an answer"),
            (rule(FrameKind::Stp, is(Number::StpPort, 1), PortVerdict::Drop), frames, "STP"),
            (rule(FrameKind::Stp, vec![mac(Hardware::StpRoot)], PortVerdict::Drop), frames, "STP"),
            (
                rule(FrameKind::Ip(Version::V6, Some(51)), vec![], PortVerdict::Drop),
                packets,
                "behind AH",
            ),
            (
                rule(
                    FrameKind::Arp,
                    [is(Number::ArpHardware, 12), vec![mac(Hardware::ArpSender)]].concat(),
                    PortVerdict::Drop,
                ),
                frames,
                "never applies",
            ),
        ] {
            let texts = texts(rule.clone(), position);
            assert!(texts.len() == 1 && texts[0].contains(word), "{rule:?}: {texts:?}");
        }
    }

    #[test]
    fn most_rules_have_none() {
        let frames = RulePosition { to_guest: false, packets: false };
        let tests = vec![Test::is(Number::ArpHardware, 1)];
        assert_eq!(texts(rule(FrameKind::Arp, tests, PortVerdict::Drop), frames), [] as [&str; 0]);
        let packets = RulePosition { to_guest: false, packets: true };
        let tcp = rule(FrameKind::Ip(Version::V4, Some(6)), vec![], PortVerdict::Reject);
        assert_eq!(texts(tcp, packets), [] as [&str; 0]);
    }
}
