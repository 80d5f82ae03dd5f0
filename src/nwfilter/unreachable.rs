//! What of a filter can do nothing, found without frames.
//!
//! A rule is unreachable when every frame that it is for meets one before it that decides: either
//! one for all frames of its kind, or one with the same tests. That is looked for in each chain of
//! the compiled rules, so what variables make of a rule counts, too, and a rule is told of only if
//! nothing of what it stands for in a direction can be reached. More than that is not looked for: a
//! rule whose addresses lie in those of another is left to `explain`.
//!
//! Answers that a stateful rule lets through are not told of: they come with their rule.

use std::collections::{BTreeMap, HashMap};

use super::explain::Way;
use super::kind::Kind as ValueKind;
use super::model::Filter;
use super::tree::{Filters, Needs};
use super::value::{Access, Value, VariableUse};
use super::variable::Variables;
use crate::rules::port::{
    Direction, Kind, Origin, Path, PortRule, PortRules, PortVerdict, Step, Test,
};

/// A rule that no frame comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    /// The rule.
    pub origin: Origin,
    /// Of which frames.
    pub way: Way,
    /// The rule that decides before it.
    pub by: Origin,
}

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let way = match self.way {
            Way::Out => "from",
            Way::In => "to",
        };
        write!(
            f,
            "no frame {way} the guest comes to this rule: {} decides before; remove one of them, or give this one a lower priority",
            self.by
        )
    }
}

/// The rules that no frame comes to.
pub fn unreachable(rules: &PortRules) -> Vec<Unreachable> {
    let mut found = Vec::new();
    for (way, path) in [(Way::Out, &rules.from_guest), (Way::In, &rules.to_guest)] {
        // By what decides before it; `None` as soon as one of a rule's parts can be reached.
        let mut all: BTreeMap<&Origin, Option<&Origin>> = BTreeMap::new();
        for (rule, by) in shadows(path) {
            let is_answer =
                |test: &Test| matches!(test, Test::State { direction: Some(Direction::Reply), .. });
            if rule.tests.iter().any(is_answer) {
                continue;
            }
            all.entry(&rule.origin).and_modify(|before| *before = before.and(by)).or_insert(by);
        }
        for (origin, by) in all {
            if let Some(by) = by {
                found.push(Unreachable { origin: origin.clone(), way, by: by.clone() });
            }
        }
    }
    found
}

/// Every rule of a path, and the one that decides before it.
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

/// The rules of a chain so far that decide.
#[derive(Default)]
struct Before<'a> {
    /// Those for all frames of a kind.
    kinds: Vec<(Kind, &'a Origin)>,
    /// Those with tests.
    rules: HashMap<(Kind, &'a [Test]), &'a Origin>,
}

impl<'a> Before<'a> {
    /// What decides before a rule, which is one of those before from now on.
    fn then(&mut self, rule: &'a PortRule) -> Option<&'a Origin> {
        let key = (rule.kind, rule.tests.as_slice());
        let by = self.covers(rule.kind).or_else(|| self.rules.get(&key).copied());
        // A rule that counts connections counts for itself.
        let counts = rule.tests.iter().any(|test| matches!(test, Test::Connections { .. }));
        if rule.verdict != PortVerdict::Continue && !counts {
            match rule.tests.is_empty() {
                true => self.kinds.push((rule.kind, &rule.origin)),
                false => {
                    self.rules.entry(key).or_insert(&rule.origin);
                }
            }
        }
        // Of one rule with a list, what comes to the same is no mistake.
        by.filter(|by| **by != rule.origin)
    }

    /// The rule that decides about all frames of a kind.
    fn covers(&self, kind: Kind) -> Option<&'a Origin> {
        let within = |all: Kind| match (all, kind) {
            (Kind::Any, _) => true,
            (Kind::Ip(all, None), Kind::Ip(version, _)) => all == version,
            (all, kind) => all == kind,
        };
        self.kinds.iter().find(|(all, _)| within(*all)).map(|(_, origin)| *origin)
    }
}

/// The most values that a variable gets here. A rule that wants more of them is bound by hand.
const MOST_VALUES: usize = 1000;

/// A value for each variable that a filter needs, so that its rules can be made and looked at.
/// `None` where a rule wants an absurd number of values.
pub fn sample(needs: &Needs, filters: &Filters) -> Option<Variables> {
    let index = |used: &VariableUse| match used.access {
        Access::Index(index) => index as usize,
        Access::Iterate(_) => 0,
    };
    let values = needs.variables.iter().map(index).max().unwrap_or(0) + 1;
    if values > MOST_VALUES {
        return None;
    }
    let mut parameters = BTreeMap::new();
    for used in &needs.variables {
        let kind = filters.values().find_map(|filter| kind_of(filter, used))?;
        let value = sample_of(kind).parse().ok()?;
        parameters.insert(used.name.clone(), value);
    }
    let all = parameters.into_iter();
    Some(all.flat_map(|parameter| std::iter::repeat_n(parameter, values)).collect())
}

/// What a variable is used as.
fn kind_of(filter: &Filter, used: &VariableUse) -> Option<ValueKind> {
    let elements = filter.rules().filter_map(|rule| rule.element.as_ref());
    elements.into_iter().find_map(|element| {
        let is_it =
            |value: &Value| matches!(value, Value::Variable(found) if found.name == used.name);
        let found = element.attributes.iter().find(|(_, value)| is_it(value));
        found.and_then(|(attribute, _)| element.protocol.kind(*attribute))
    })
}

/// A value of a kind. Addresses are those for documentation (RFC 5737, 3849).
fn sample_of(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Mac => "52:54:00:12:34:56",
        ValueKind::MacMask => "ff:ff:ff:ff:ff:ff",
        ValueKind::V4 => "192.0.2.1",
        ValueKind::V4Mask => "32",
        ValueKind::V6 => "2001:db8::1",
        ValueKind::V6Mask => "128",
        ValueKind::EtherType => "0x0800",
        ValueKind::IpProtocol => "tcp",
        ValueKind::IpSet => "set",
        _ => "1",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Filters, compile, flatten, needs, parse};
    use super::*;

    fn found(rules: &str) -> Vec<(u64, Way, u64)> {
        let text = format!("<filter name='f'>\n{rules}\n</filter>");
        let uuid = "3e3fce45-4f53-4fa7-bb32-11f34168b82b".parse().unwrap();
        let filter = parse(text.as_bytes(), Some(uuid)).unwrap();
        let filters = Filters::from([(filter.name.clone(), filter.clone())]);
        let variables = sample(&needs(&filter, &filters), &filters).unwrap();
        let (rules, _) = compile(&flatten(&filter, &filters, &variables).unwrap()).unwrap();
        let lines = |found: &Unreachable| (found.origin.line, found.way, found.by.line);
        unreachable(&rules).iter().map(lines).collect()
    }

    #[test]
    fn a_rule_behind_one_for_all_frames_is_found() {
        let all = "<rule action='drop' direction='out'/>\n<rule action='accept' direction='inout'><mac srcmacaddr='$MAC'/></rule>";
        assert_eq!(found(all), [(3, Way::Out, 2)]);
        let of_a_kind = "<rule action='drop' direction='in'><arp/></rule>\n<rule action='accept' direction='in'><arp opcode='1'/></rule>\n<rule action='accept' direction='in'><rarp opcode='1'/></rule>";
        assert_eq!(found(of_a_kind), [(3, Way::In, 2)]);
        let packets = "<rule action='drop' direction='in' priority='100'><all/></rule>\n<rule action='drop' direction='in'><tcp dstportstart='$A[2]'/></rule>\n<rule action='drop' direction='in'><tcp-ipv6/></rule>";
        assert_eq!(found(packets), [(3, Way::In, 2)]);
    }

    #[test]
    fn the_same_again_is_found() {
        let rule = |action: &str| {
            format!("<rule action='{action}' direction='out'><tcp dstportstart='22'/></rule>\n")
        };
        assert_eq!(found(&(rule("drop") + &rule("reject"))), [(3, Way::Out, 2)]);
        // Its answers are the first one's, too, and are no second finding.
        assert_eq!(found(&rule("accept").repeat(2)), [(3, Way::Out, 2)]);
    }

    #[test]
    fn what_can_be_reached_is_not() {
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
