//! Knows the packets that the two ends of a connection send, and predicts their verdicts.
//!
//! An end of TCP or SCTP sends a packet only if the packets before it arrived, and sends a dropped
//! packet a second time. `explain` does not check sequence numbers, so packets that no end would
//! send show nothing. In other protocols an answer does not depend on a request.

use netlaunch::firewall::rules::port::{PortRules, Test};
use netlaunch::nwfilter::explain::{Candidate, Explanation, Judge, Outcome, Trial, Verdict};

use super::frames::Sent;

/// The packets of a connection.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub packets: Vec<Sent>,
    /// Whether each packet is sent only if the packets before it arrived.
    pub is_ordered: bool,
}

/// The frames that the ends of a connection send, each with the verdict of `explain`.
#[derive(Debug, Clone, Default)]
pub struct Sequence {
    pub frames: Vec<(Sent, bool)>,
    /// Whether a frame follows about which `explain` cannot decide, or which a rule counts.
    pub undecided: bool,
}

impl Exchange {
    /// Returns an exchange of one frame.
    pub fn single(sent: Sent) -> Self {
        Exchange { packets: vec![sent], is_ordered: false }
    }

    /// Returns the frames up to the first one about which `explain` cannot decide, or whose
    /// connections a rule counts.
    pub fn sequence(&self, rules: &PortRules) -> Sequence {
        let mut judge = Judge::new(rules);
        let mut sequence = Sequence::default();
        for sent in &self.packets {
            let repeats = if self.is_ordered { 2 } else { 1 };
            let mut passes = false;
            for _ in 0..repeats {
                let Ok(explained) = judge.judge(sent.0, &sent.1, sent.1.len()) else {
                    return sequence;
                };
                if explained.verdict == Verdict::Undecided || is_counted(&explained) {
                    sequence.undecided = true;
                    return sequence;
                }
                passes = explained.verdict == Verdict::Pass;
                sequence.frames.push((sent.clone(), passes));
                if passes {
                    break;
                }
            }
            if self.is_ordered && !passes {
                break;
            }
        }
        sequence
    }

    /// Returns the exchanges that lack one packet, if its ends would send them.
    pub fn shorter(&self) -> Vec<Self> {
        let count = self.packets.len();
        let first = if self.is_ordered { count - 1 } else { 0 };
        let without = |at| {
            let mut shorter = self.clone();
            shorter.packets.remove(at);
            shorter
        };
        if count < 2 { Vec::new() } else { (first..count).map(without).collect() }
    }
}

/// Returns whether a rule counts the connections of the frame, whatever its action, and whether a
/// later test holds. If the count is 0, the kernel drops the packet: Linux 6.18 does not count a
/// connection whose first packet did not reach the rule.
fn is_counted(explained: &Explanation<'_>) -> bool {
    let is_count = |test: &Test| matches!(test, Test::Connections { .. });
    let counts = |trial: &Trial<'_>| match (&trial.what, &trial.outcome) {
        (Candidate::Rule(rule), Outcome::Fails(failed)) => {
            rule.tests.iter().take_while(|test| test != failed).any(is_count)
        }
        (_, Outcome::Depends(_)) => true,
        _ => false,
    };
    explained.stages.iter().flat_map(|stage| &stage.tried).any(counts)
}
