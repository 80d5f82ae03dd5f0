//! The hooks that see the frames of a port.
//!
//! A port of a bridge is filtered on the hooks of the bridge. A macvtap or macvlan interface is on
//! no bridge, and is filtered on the hooks of the interface itself, where a filter can do less
//! ([`PortHooks::check`]): there is no connection tracking, and no rule can send an answer.

use serde::{Deserialize, Serialize};

use super::rules::port::{Origin, PortRule, PortRules, PortVerdict, Test};

/// The hooks that a port's filter uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortHooks {
    /// The hooks of the bridge that the interface is a port of.
    #[default]
    Bridge,
    /// The hooks of the interface itself, which is on no bridge: what it sends comes from the
    /// guest, and what it receives goes to the guest.
    Interface,
}

/// A rule that no backend can carry out on the hooks of an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin} {what}, which no backend can do on a port without a bridge; {fix}")]
#[non_exhaustive]
pub struct NotOnInterface {
    /// The rule.
    pub origin: Origin,
    /// The action of the rule, as a verb phrase.
    pub what: &'static str,
    /// The fix for the user.
    pub fix: &'static str,
}

impl PortHooks {
    /// Returns whether the port is on a bridge.
    pub fn is_bridge(&self) -> bool {
        *self == PortHooks::Bridge
    }

    /// Checks whether these hooks can carry out the rules. The hooks of a bridge can; whether the
    /// kernel and the backend can as well is found out later.
    ///
    /// # Errors
    /// Returns the first rule that the hooks of an interface cannot carry out.
    pub fn check(self, rules: &PortRules) -> Result<(), NotOnInterface> {
        if self == PortHooks::Bridge {
            return Ok(());
        }
        let answers = |rule: &&PortRule| rule.verdict == PortVerdict::Reject;
        if let Some(rule) = rules.from_guest.packets.iter().find(answers) {
            return Err(NotOnInterface {
                origin: rule.origin.clone(),
                what: "rejects packets with an answer",
                fix: "use the action drop, or put the guest on a bridge",
            });
        }
        rules.rules().try_for_each(|rule| rule.tests.iter().try_for_each(|test| of(rule, test)))
    }
}

/// Checks one test of a rule.
fn of(rule: &PortRule, test: &Test) -> Result<(), NotOnInterface> {
    let (what, fix) = match test {
        Test::State { .. } => (
            "tracks connections",
            "set statematch='false' in that rule and add a rule for the replies, or put the guest \
             on a bridge",
        ),
        Test::Connections { .. } => (
            "counts connections",
            "remove connlimit-above from that rule, or put the guest on a bridge",
        ),
        Test::Set { .. } => (
            "looks addresses up in an ipset",
            "name the addresses in the filter, or put the guest on a bridge",
        ),
        Test::Hardware { .. }
        | Test::Number { .. }
        | Test::Address { .. }
        | Test::Gratuitous
        | Test::Icmp { .. }
        | Test::Neighbor(_)
        | Test::TcpFlags { .. } => return Ok(()),
    };
    Err(NotOnInterface { origin: rule.origin.clone(), what, fix })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::rules::port::{FrameKind, Number, Path, State};

    fn rule(tests: Vec<Test>, verdict: PortVerdict) -> PortRule {
        let origin = Origin { filter: "web".to_owned(), line: 3 };
        PortRule { kind: FrameKind::Any, tests, verdict, comment: None, origin }
    }

    #[test]
    fn rules_that_need_a_bridge_are_named() {
        use PortVerdict::{Accept, Drop, Reject};
        let state = || Test::State { states: vec![State::New], direction: None };
        let port = || Test::is(Number::DestinationPort, 22);
        let path = |rule: PortRule| Path { packets: vec![rule], ..Path::default() };
        for (tests, verdict, words) in [
            (vec![port()], Drop, None),
            (vec![port()], Accept, None),
            (vec![port(), state()], Accept, Some("tracks connections")),
            (vec![Test::Connections { above: 2 }], Drop, Some("counts connections")),
            (vec![port()], Reject, Some("rejects packets with an answer")),
        ] {
            let from_guest = path(rule(tests.clone(), verdict));
            let rules = PortRules { from_guest, ..PortRules::default() };
            assert_eq!(PortHooks::Bridge.check(&rules), Ok(()));
            let found = PortHooks::Interface.check(&rules).map_err(|error| error.to_string());
            match words {
                None => assert_eq!(found, Ok(())),
                Some(words) => {
                    let start = format!("the rule in line 3 of the filter web {words}, which");
                    assert!(found.clone().unwrap_err().starts_with(&start), "{found:?}");
                }
            }
            // A bridge does not answer frames to the guest either.
            let to_guest = path(rule(tests, verdict));
            let rules = PortRules { to_guest, ..PortRules::default() };
            let is_refused = PortHooks::Interface.check(&rules).is_err();
            assert_eq!(is_refused, words.is_some() && verdict != Reject);
        }
    }
}
