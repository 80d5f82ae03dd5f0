//! Finds the rules of a filter that no frame can reach, without trying frames.
//!
//! A rule is unreachable if an earlier rule decides about every frame that it matches: a rule for
//! all frames of its kind, or one with the same tests. The check runs on each chain of the compiled
//! rules, so it includes the effect of variables. A rule is reported only if, in one direction, all
//! rules compiled from it are unreachable. The check does not compare addresses: for a
//! rule whose addresses are a subset of another rule's, use `explain`.
//!
//! The rules that accept the answers of a stateful rule are not reported, since they belong to
//! their rule.

use std::collections::{BTreeMap, HashMap};

use super::explain::EvalPath;
use crate::firewall::rules::port::{
    ConnectionDirection, FrameKind, Origin, Path, PortRule, PortRules, PortVerdict, Step, Test,
};

/// A rule that no frame reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unreachable {
    /// The rule.
    pub origin: Origin,
    /// The direction of the frames.
    pub direction: EvalPath,
    /// The earlier rule that decides.
    pub by: Origin,
}

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let direction = match self.direction {
            EvalPath::Out => "from",
            EvalPath::In => "to",
        };
        write!(
            f,
            "no frame {direction} the guest reaches this rule, because {} decides first; remove one of them, or give this rule a lower priority",
            self.by
        )
    }
}

/// Returns the rules that no frame reaches.
pub fn unreachable(rules: &PortRules) -> Vec<Unreachable> {
    let mut found = Vec::new();
    for (direction, path) in [(EvalPath::Out, &rules.from_guest), (EvalPath::In, &rules.to_guest)] {
        // The value is the deciding rule; `None` if one of the rule's parts can be reached.
        let mut all: BTreeMap<&Origin, Option<&Origin>> = BTreeMap::new();
        for (rule, by) in shadows(path) {
            let is_answer = |test: &Test| {
                matches!(test, Test::State { direction: Some(ConnectionDirection::Reply), .. })
            };
            if rule.tests.iter().any(is_answer) {
                continue;
            }
            all.entry(&rule.origin).and_modify(|before| *before = before.and(by)).or_insert(by);
        }
        for (origin, by) in all {
            if let Some(by) = by {
                found.push(Unreachable { origin: origin.clone(), direction, by: by.clone() });
            }
        }
    }
    found
}

/// Returns every rule of a path with the earlier rule that decides, if any.
fn shadows(path: &Path) -> Vec<(&PortRule, Option<&Origin>)> {
    let mut all = Vec::new();
    let mut root = Before::default();
    for step in &path.frames {
        match step {
            Step::Rule(rule) => all.push((rule, root.then(rule))),
            Step::Chain(number) => {
                let Some(chain) = path.chains.get(*number) else { continue };
                let outside = root.covers(chain.kind);
                let mut inside = Before::default();
                all.extend(chain.rules.iter().map(|rule| (rule, inside.then(rule).or(outside))));
            }
        }
    }
    let mut packets = Before::default();
    all.extend(path.packets.iter().map(|rule| (rule, packets.then(rule))));
    all
}

/// The deciding rules so far in a chain.
#[derive(Default)]
struct Before<'a> {
    /// The rules for all frames of a kind.
    kinds: Vec<(FrameKind, &'a Origin)>,
    /// The rules with tests.
    rules: HashMap<(FrameKind, &'a [Test]), &'a Origin>,
}

impl<'a> Before<'a> {
    /// Returns the earlier rule that decides before this one, and adds this rule to the earlier
    /// rules.
    fn then(&mut self, rule: &'a PortRule) -> Option<&'a Origin> {
        let key = (rule.kind, rule.tests.as_slice());
        let by = self.covers(rule.kind).or_else(|| self.rules.get(&key).copied());
        // A rule that counts connections counts only its own, so two equal rules differ.
        let counts = rule.tests.iter().any(|test| matches!(test, Test::Connections { .. }));
        if rule.verdict != PortVerdict::Continue && !counts {
            if rule.tests.is_empty() {
                self.kinds.push((rule.kind, &rule.origin));
            } else {
                self.rules.entry(key).or_insert(&rule.origin);
            }
        }
        // Equal compiled rules of one rule with a list are not an error.
        by.filter(|by| **by != rule.origin)
    }

    /// Returns the rule that decides about all frames of a kind.
    fn covers(&self, kind: FrameKind) -> Option<&'a Origin> {
        let within = |all: FrameKind| match (all, kind) {
            (FrameKind::Any, _) => true,
            (FrameKind::Ip(all, None), FrameKind::Ip(version, _)) => all == version,
            (all, kind) => all == kind,
        };
        self.kinds.iter().find(|(all, _)| within(*all)).map(|(_, origin)| *origin)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Filters, compile, flatten, needs, parse, sample};
    use super::*;

    fn found(rules: &str) -> Vec<(u64, EvalPath, u64)> {
        let text = format!("<filter name='f'>\n{rules}\n</filter>");
        let uuid = "3e3fce45-4f53-4fa7-bb32-11f34168b82b".parse().unwrap();
        let filter = parse(text.as_bytes(), Some(uuid)).unwrap();
        let filters = Filters::from([(filter.name.clone(), filter.clone())]);
        let variables = sample(&needs(&filter, &filters), &filters).unwrap();
        let (rules, _) = compile(&flatten(&filter, &filters, &variables).unwrap()).unwrap();
        let lines = |found: &Unreachable| (found.origin.line, found.direction, found.by.line);
        unreachable(&rules).iter().map(lines).collect()
    }

    #[test]
    fn a_rule_after_one_for_all_frames_is_found() {
        let all = "<rule action='drop' direction='out'/>\n<rule action='accept' direction='inout'><mac srcmacaddr='$MAC'/></rule>";
        assert_eq!(found(all), [(3, EvalPath::Out, 2)]);
        let of_a_kind = "<rule action='drop' direction='in'><arp/></rule>\n<rule action='accept' direction='in'><arp opcode='1'/></rule>\n<rule action='accept' direction='in'><rarp opcode='1'/></rule>";
        assert_eq!(found(of_a_kind), [(3, EvalPath::In, 2)]);
        let packets = "<rule action='drop' direction='in' priority='100'><all/></rule>\n<rule action='drop' direction='in'><tcp dstportstart='$A[2]'/></rule>\n<rule action='drop' direction='in'><tcp-ipv6/></rule>";
        assert_eq!(found(packets), [(3, EvalPath::In, 2)]);
    }

    #[test]
    fn a_repeated_rule_is_found() {
        let rule = |action: &str| {
            format!("<rule action='{action}' direction='out'><tcp dstportstart='22'/></rule>\n")
        };
        assert_eq!(found(&(rule("drop") + &rule("reject"))), [(3, EvalPath::Out, 2)]);
        // The rule for its answers is unreachable as well, but is not a second finding.
        assert_eq!(found(&rule("accept").repeat(2)), [(3, EvalPath::Out, 2)]);
    }

    #[test]
    fn reachable_rules_are_not_reported() {
        for rules in [
            "<rule action='continue' direction='out'/>\n<rule action='drop' direction='out'/>",
            "<rule action='drop' direction='out'/>\n<rule action='drop' direction='in'/>",
            "<rule action='drop' direction='out'/>\n<rule action='drop' direction='out' priority='1'/>\n<rule action='accept' direction='out' priority='0'><ip/></rule>",
            "<rule action='drop' direction='out'><tcp connlimit-above='2'/></rule>\n<rule action='drop' direction='out'><tcp connlimit-above='2'/></rule>",
        ] {
            let found = found(rules);
            assert!(found.iter().all(|(line, ..)| *line == 2), "{rules}: {found:?}");
        }
    }
}
