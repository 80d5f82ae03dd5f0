//! Evaluates a port's rules for a frame, as the head of [`crate::firewall::rules::port`] describes,
//! and returns the deciding rule.
//!
//! # Limits
//!
//! The contents of an ipset and the number of connections are not in the frame. A rule whose result
//! depends on such a test may apply or not. If the rest of its stage gives another verdict than the
//! rule, the frame is undecided, and the explanation names the dependency. A later fragment is also
//! undecided if connections are tracked and the first fragment has not been seen. An undecided
//! frame counts as passed for the frames after it.

use super::frame::{Frame, TooShort, without_tag};
use super::link_local::untracked;
use super::packet::Fragment;
use super::state::{Connections, Tracking, stops};
use crate::firewall::rules::port::{
    Address, Addresses, FrameKind, Origin, Path, PortRule, PortRules, PortVerdict, Step, SubChain,
    Test,
};

/// The direction of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EvalPath {
    /// The frame leaves the guest.
    Out,
    /// The frame is on its way to the guest.
    In,
}

/// The result for a frame. Exhaustive, because a program must not guess what happens to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The frame passes.
    Pass,
    /// The frame is dropped without an answer.
    Drop,
    /// The frame is dropped, and its sender gets an error if the backend can send one.
    Reject,
    /// The result depends on facts outside the frame.
    Undecided,
}

/// A fact outside the frame on which a verdict depends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dependency {
    /// The contents of an ipset.
    Set(String),
    /// Whether the source has more than this number of connections.
    Connections(u32),
    /// The first fragment of the packet of which the frame is a later fragment.
    Begin,
}

/// The verdict about a frame, with the reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation<'a> {
    /// The verdict.
    pub verdict: Verdict,
    /// The stages that the frame passed, and the end of each.
    pub stages: Vec<StageEnd<'a>>,
}

/// A stage of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The root chain and its sub chains.
    Frames,
    /// The rules for IP protocols.
    Packets,
}

/// The end of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageEnd<'a> {
    /// The stage.
    pub stage: Stage,
    /// The verdict of the stage.
    pub verdict: Verdict,
    /// The deciding rule; `None` means the end of the stage, which accepts.
    pub rule: Option<Decider<'a>>,
    /// The dependencies of an undecided verdict, each with the rule that causes it, if any.
    pub depends: Vec<(Dependency, Option<&'a Origin>)>,
    /// The rules and sub chains that were tried, in order.
    pub tried: Vec<Trial<'a>>,
}

/// A rule and its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decider<'a> {
    /// The rule.
    pub rule: &'a PortRule,
    /// The chain; `None` means the list of rules for IP protocols.
    pub chain: Option<&'a str>,
}

/// A rule or a sub chain that was tried for a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial<'a> {
    /// The chain that contains it; `None` means the list of rules for IP protocols.
    pub chain: Option<&'a str>,
    /// The rule or sub chain.
    pub what: Candidate<'a>,
    /// The result of the trial.
    pub outcome: Outcome<'a>,
}

/// A rule or a sub chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Candidate<'a> {
    /// A rule.
    Rule(&'a PortRule),
    /// A sub chain.
    Chain(&'a SubChain),
}

/// The result of trying a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The rule applies.
    Applies,
    /// The frame is of a kind other than this one.
    Kind(FrameKind),
    /// This is the first test that does not hold.
    Fails(&'a Test),
    /// The result depends on this fact.
    Depends(Dependency),
}

/// The name of the root chain.
const ROOT: &str = "root";

/// A port's rules, and the connections of the frames so far.
#[derive(Debug, Clone)]
pub struct Judge<'a> {
    rules: &'a PortRules,
    /// `None` if no rule tests connections: connections are then not tracked, and fragments are not
    /// reassembled.
    connections: Option<Connections>,
}

impl<'a> Judge<'a> {
    /// Returns a judge that has seen no frame.
    pub fn new(rules: &'a PortRules) -> Self {
        let connections = rules.is_stateful().then(Connections::default);
        Judge { rules, connections }
    }

    /// Judges the next frame. `length` is its number of bytes before the capture truncated it.
    ///
    /// # Errors
    /// Returns [`TooShort`] if the bytes are not an Ethernet frame.
    pub fn judge(
        &mut self,
        direction: EvalPath,
        bytes: &[u8],
        length: usize,
    ) -> Result<Explanation<'a>, TooShort> {
        let frame = Frame::read(bytes, length)?;
        let untagged = without_tag(bytes);
        let tracked = Frame::read(&untagged, length)?;
        let path = match direction {
            EvalPath::Out => &self.rules.from_guest,
            EvalPath::In => &self.rules.to_guest,
        };
        let mut stages = vec![frames(path, &frame)];
        let stopped = stages.iter().any(|stage| stage.verdict.stops());
        // For frames to the guest, tracking comes before the filter; for others, after its first
        // stage.
        let mut place = None;
        if let Some(connections) = &mut self.connections
            && (direction == EvalPath::In || !stopped)
        {
            connections.record_first_fragment(&frame, bytes);
            place = Some(connections.look(&tracked));
        }
        if let Some(end) = untracked(direction, path, &frame).filter(|_| !stopped) {
            stages.push(end);
        } else if !stopped && frame.is_ip() && !path.packets.is_empty() {
            stages.push(self.packets(path, &frame, place)?);
        }
        let worst = |one: Verdict, stage: &StageEnd<'_>| match (one, stage.verdict) {
            (Verdict::Pass, other) => other,
            (Verdict::Undecided, other) if other.stops() => other,
            (one, _) => one,
        };
        let verdict = stages.iter().fold(Verdict::Pass, worst);
        if let (Some(connections), Some(place)) = (&mut self.connections, place)
            && !verdict.stops()
        {
            connections.pass(&tracked, place);
        }
        Ok(Explanation { verdict, stages })
    }

    /// Evaluates the second stage. If connections are tracked, whole packets pass this stage, so a
    /// later fragment gets the verdict of its packet's first fragment.
    fn packets(
        &self,
        path: &'a Path,
        frame: &Frame<'_>,
        place: Option<Tracking>,
    ) -> Result<StageEnd<'a>, TooShort> {
        let later = frame.packet().filter(|packet| matches!(packet.fragment, Fragment::Later(_)));
        let (Some(connections), Some(packet)) = (&self.connections, later) else {
            return Ok(packets(path, Subject { frame, place }));
        };
        let Some(begin) = connections.begin(packet) else {
            return Ok(StageEnd {
                stage: Stage::Packets,
                verdict: Verdict::Undecided,
                rule: None,
                depends: vec![(Dependency::Begin, None)],
                tried: Vec::new(),
            });
        };
        let begin = Frame::read(begin, usize::MAX)?;
        let place = Some(connections.place(&begin));
        Ok(packets(path, Subject { frame: &begin, place }))
    }
}

/// The frame for which rules are tried.
struct Subject<'f> {
    frame: &'f Frame<'f>,
    /// `None` if connections are not tracked.
    place: Option<Tracking>,
}

/// Evaluates the first stage.
fn frames<'a>(path: &'a Path, frame: &Frame<'_>) -> StageEnd<'a> {
    let mut walk = Walk { subject: Subject { frame, place: None }, tried: Vec::new() };
    for step in &path.frames {
        let (chain, rules) = match step {
            Step::Rule(rule) => (ROOT, std::slice::from_ref(rule)),
            Step::Chain(number) => {
                let Some(sub) = path.chains.get(*number) else { continue };
                let enters = frame.is(sub.kind);
                let outcome = if enters { Outcome::Applies } else { Outcome::Kind(sub.kind) };
                walk.tried.push(Trial { chain: Some(ROOT), what: Candidate::Chain(sub), outcome });
                if !enters {
                    continue;
                }
                (sub.name.as_str(), sub.rules.as_slice())
            }
        };
        for rule in rules {
            let (verdict, depends) = match walk.attempt(Some(chain), rule) {
                Outcome::Applies => (rule.verdict, Vec::new()),
                Outcome::Depends(dependency) => {
                    (rule.verdict, vec![(dependency, Some(&rule.origin))])
                }
                Outcome::Kind(_) | Outcome::Fails(_) => continue,
            };
            let verdict = match verdict {
                PortVerdict::Continue => continue,
                _ if !depends.is_empty() => Verdict::Undecided,
                PortVerdict::Accept => Verdict::Pass,
                // The root chain has no calling chain, so a return accepts.
                PortVerdict::Return if chain == ROOT => Verdict::Pass,
                PortVerdict::Return => break,
                // The link layer cannot send an error.
                PortVerdict::Drop | PortVerdict::Reject => Verdict::Drop,
            };
            let rule = Some(Decider { rule, chain: Some(chain) });
            return StageEnd { stage: Stage::Frames, verdict, rule, depends, tried: walk.tried };
        }
    }
    let (verdict, rule, depends) = (Verdict::Pass, None, Vec::new());
    StageEnd { stage: Stage::Frames, verdict, rule, depends, tried: walk.tried }
}

/// Evaluates the second stage.
fn packets<'a>(path: &'a Path, subject: Subject<'_>) -> StageEnd<'a> {
    let mut walk = Walk { subject, tried: Vec::new() };
    let mut perhaps: Vec<(Dependency, Decider<'a>, Verdict)> = Vec::new();
    let mut decided = (Verdict::Pass, None);
    for rule in &path.packets {
        let verdict = match rule.verdict {
            PortVerdict::Continue => None,
            PortVerdict::Accept | PortVerdict::Return => Some(Verdict::Pass),
            PortVerdict::Drop => Some(Verdict::Drop),
            PortVerdict::Reject => Some(Verdict::Reject),
        };
        let outcome = walk.attempt(None, rule);
        let Some(verdict) = verdict else { continue };
        let decider = Decider { rule, chain: None };
        match outcome {
            Outcome::Applies => {
                decided = (verdict, Some(decider));
                break;
            }
            Outcome::Depends(dependency) if stops(walk.subject.place, &dependency) => {
                decided = (Verdict::Drop, Some(decider));
                break;
            }
            Outcome::Depends(dependency) => perhaps.push((dependency, decider, verdict)),
            Outcome::Kind(_) | Outcome::Fails(_) => {}
        }
    }
    let (mut verdict, mut rule) = decided;
    perhaps.retain(|(_, _, other)| *other != verdict);
    if let Some((_, decider, _)) = perhaps.first() {
        (verdict, rule) = (Verdict::Undecided, Some(*decider));
    }
    let depends = perhaps
        .into_iter()
        .map(|(dependency, by, _)| (dependency, Some(&by.rule.origin)))
        .collect();
    StageEnd { stage: Stage::Packets, verdict, rule, depends, tried: walk.tried }
}

struct Walk<'a, 'f> {
    subject: Subject<'f>,
    tried: Vec<Trial<'a>>,
}

impl<'a> Walk<'a, '_> {
    fn attempt(&mut self, chain: Option<&'a str>, rule: &'a PortRule) -> Outcome<'a> {
        let outcome = self.subject.applies(rule);
        self.tried.push(Trial { chain, what: Candidate::Rule(rule), outcome: outcome.clone() });
        outcome
    }
}

impl Subject<'_> {
    fn applies<'a>(&self, rule: &'a PortRule) -> Outcome<'a> {
        if !self.frame.is(rule.kind) {
            return Outcome::Kind(rule.kind);
        }
        let mut depends = None;
        for test in &rule.tests {
            match self.holds(test) {
                Ok(true) => {}
                Ok(false) => return Outcome::Fails(test),
                // The kernel drops such a packet at this test.
                Err(dependency) if stops(self.place, &dependency) => {
                    return Outcome::Depends(dependency);
                }
                Err(dependency) => depends = depends.or(Some(dependency)),
            }
        }
        depends.map_or(Outcome::Applies, Outcome::Depends)
    }

    /// Returns whether a test holds, or the fact on which that depends.
    fn holds(&self, test: &Test) -> Result<bool, Dependency> {
        let frame = self.frame;
        // A test of a field that does not exist fails, negated or not.
        let field =
            |found: Option<bool>, negated: &bool| found.is_some_and(|found| found != *negated);
        Ok(match test {
            Test::Hardware { field: which, address, mask, negated } => {
                let same = |found: [u8; 6]| {
                    (0..6).all(|byte| found[byte] & mask[byte] == address[byte] & mask[byte])
                };
                // If the mask has no bits, no tool reads the field.
                if *mask == [0; 6] {
                    return Ok(!negated);
                }
                field(frame.hardware(*which).map(same), negated)
            }
            Test::Number { field: which, first, last, negated } => {
                let within = |found: u32| (*first..=*last).contains(&found);
                field(frame.number(*which).map(within), negated)
            }
            Test::Address { addresses: Addresses::Net(net), negated, .. }
                if net.prefix_len() == 0 =>
            {
                !negated
            }
            Test::Address { field: which, addresses, negated } => {
                field(frame.is_in(*which, addresses), negated)
            }
            Test::Gratuitous => {
                let sender = frame.address(Address::ArpSender);
                sender.is_some() && sender == frame.address(Address::ArpTarget)
            }
            Test::Icmp { types, codes, negated } => {
                let is_one_of_them = |(kind, code): (u8, u8)| {
                    (types.0..=types.1).contains(&kind)
                        && codes.is_none_or(|codes| (codes.0..=codes.1).contains(&code))
                };
                field(frame.icmp().map(is_one_of_them), negated)
            }
            Test::Neighbor(message) => frame.is_neighbor_message(message),
            Test::TcpFlags { mask, flags, negated } => {
                field(frame.tcp_flags().map(|found| found & mask == *flags), negated)
            }
            Test::Set { name, .. } => return Err(Dependency::Set(name.clone())),
            Test::Connections { above } => return Err(Dependency::Connections(*above)),
            Test::State { states, direction } => {
                self.place.is_some_and(|place| place.is(states, *direction))
            }
        })
    }
}
