//! Lists the rules of an entry chain: short sub chains become rules of it.
//!
//! The time of a bind grows with the chains and rules in the table ([`super::table`]), and a jump
//! costs a frame of its kind more than a rule. So the rules of a sub chain come into the entry
//! chain, with the kind of the sub chain, if they are few and none of them returns. Others stay sub
//! chains: a frame of another kind passes one jump there, and would pass all their rules here.

use std::borrow::Cow;

use crate::firewall::rules::port::{FrameKind, Path, PortRule, PortVerdict, Step, SubChain};

/// The most rules of a sub chain that come into the entry chain.
const MOST: usize = 2;

/// A step of an entry chain.
pub(super) enum RootStep<'a> {
    /// A rule.
    Rule {
        /// The rule.
        rule: Cow<'a, PortRule>,
        /// The name of its sub chain; `None` if it is a rule of the root chain.
        chain: Option<&'a str>,
    },
    /// A jump to the sub chain with this index.
    Jump {
        /// The index in [`Path::chains`].
        number: usize,
        /// The sub chain.
        chain: &'a SubChain,
    },
}

/// Returns the steps of a path's entry chain.
pub(super) fn root_steps(path: &Path) -> Vec<RootStep<'_>> {
    let mut steps = Vec::new();
    for step in &path.frames {
        match step {
            Step::Rule(rule) => {
                steps.push(RootStep::Rule { rule: Cow::Borrowed(rule), chain: None });
            }
            Step::Chain(number) => match path.chains.get(*number) {
                Some(chain) if is_short(chain) => {
                    let rules = chain.rules.iter().map(|rule| RootStep::Rule {
                        rule: of_kind(rule, chain.kind),
                        chain: Some(&chain.name),
                    });
                    steps.extend(rules);
                }
                Some(chain) => steps.push(RootStep::Jump { number: *number, chain }),
                None => {}
            },
        }
    }
    steps
}

/// Returns whether the last step decides about every frame, so that the stage needs no end.
pub(super) fn decides(steps: &[RootStep<'_>]) -> bool {
    matches!(steps.last(), Some(RootStep::Rule { rule, .. })
        if rule.kind == FrameKind::Any
            && rule.tests.is_empty()
            && rule.verdict != PortVerdict::Continue)
}

/// Returns the sub chains that are chains of their own, with their indexes.
pub(super) fn sub_chains(path: &Path) -> impl Iterator<Item = (usize, &SubChain)> {
    path.chains.iter().enumerate().filter(|(_, chain)| !is_short(chain))
}

fn is_short(chain: &SubChain) -> bool {
    let fits = |rule: &PortRule| {
        rule.verdict != PortVerdict::Return
            && (rule.kind == chain.kind || rule.kind == FrameKind::Any)
    };
    // A rule about another EtherType behind a VLAN tag stays apart from the test of the tag, which
    // nft could take for a contradiction.
    chain.kind != FrameKind::Vlan && chain.rules.len() <= MOST && chain.rules.iter().all(fits)
}

fn of_kind(rule: &PortRule, kind: FrameKind) -> Cow<'_, PortRule> {
    if rule.kind == kind {
        Cow::Borrowed(rule)
    } else {
        Cow::Owned(PortRule { kind, ..rule.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::rules::port::{Hardware, Origin, Test};

    fn rule(kind: FrameKind, verdict: PortVerdict) -> PortRule {
        let (tests, comment, origin) = (Vec::new(), None, Origin::default());
        PortRule { kind, tests, verdict, comment, origin }
    }

    fn path(chains: Vec<Vec<PortRule>>) -> Path {
        let chains: Vec<_> = chains
            .into_iter()
            .map(|rules| SubChain { name: "rarp".to_owned(), kind: FrameKind::Rarp, rules })
            .collect();
        let frames = (0..chains.len()).map(Step::Chain).collect();
        Path { frames, chains, packets: Vec::new() }
    }

    #[test]
    fn short_sub_chains_that_never_return_become_rules_of_their_kind() {
        use FrameKind::{Any, Arp, Rarp};
        use PortVerdict::{Accept, Continue, Drop, Return};
        for (rules, inlined) in [
            (vec![rule(Rarp, Accept), rule(Any, Drop)], true),
            (vec![rule(Any, Continue)], true),
            (vec![], true),
            (vec![rule(Rarp, Return), rule(Any, Drop)], false),
            (vec![rule(Arp, Accept)], false),
            (vec![rule(Rarp, Accept), rule(Rarp, Accept), rule(Any, Drop)], false),
        ] {
            let path = path(vec![rules.clone()]);
            let steps = root_steps(&path);
            assert_eq!(sub_chains(&path).count(), usize::from(!inlined), "{rules:?}");
            if !inlined {
                assert!(matches!(&steps[..], [RootStep::Jump { number: 0, .. }]), "{rules:?}");
                continue;
            }
            assert_eq!(steps.len(), rules.len());
            for (step, rule) in steps.iter().zip(&rules) {
                let RootStep::Rule { rule: rendered, chain } = step else { panic!("a jump") };
                assert_eq!(**rendered, PortRule { kind: Rarp, ..rule.clone() });
                assert_eq!(*chain, Some("rarp"));
            }
        }
        let vlan = SubChain {
            name: "vlan".to_owned(),
            kind: FrameKind::Vlan,
            rules: vec![rule(Any, Drop)],
        };
        assert!(!is_short(&vlan));
    }

    #[test]
    fn only_a_rule_about_every_frame_needs_no_end_behind_it() {
        let (any, drop) = (FrameKind::Any, PortVerdict::Drop);
        let hardware = Test::Hardware {
            field: Hardware::Source,
            address: [2; 6],
            mask: [0xff; 6],
            negated: false,
        };
        let tested = PortRule { tests: vec![hardware], ..rule(any, drop) };
        for (last, expected) in [
            (rule(any, drop), true),
            (rule(any, PortVerdict::Return), true),
            (rule(any, PortVerdict::Continue), false),
            (rule(FrameKind::Arp, drop), false),
            (tested, false),
        ] {
            let mut path = path(vec![]);
            path.frames.push(Step::Rule(last.clone()));
            assert_eq!(decides(&root_steps(&path)), expected, "{last:?}");
        }
        assert!(!decides(&[]));
        // The rule of a sub chain is about frames of its kind.
        assert!(!decides(&root_steps(&path(vec![vec![rule(any, drop)]]))));
    }
}
