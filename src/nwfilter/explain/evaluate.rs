//! Which rule decides: walks a port's rules with a frame, as the head of [`crate::rules::port`] says.
//!
//! # What cannot be known
//!
//! What is in an ipset and how many connections there are is not in the frame. A rule that comes
//! down to such a test may apply or not; if the rest of its stage gives another verdict than the
//! rule would, the frame is undecided, and the explanation names what it depends on. So is a later
//! fragment where connections are tracked and the packet's first has not been seen. A frame that is
//! undecided counts as passed for those after it.

use super::frame::{Fragment, Frame, TooShort};
use super::link_local::untracked;
use super::state::{Connections, Place};
use crate::rules::AddressRange;
use crate::rules::port::{
    Addresses, Kind, Origin, Path, PortRule, PortRules, PortVerdict, Step, SubChain, Test,
};

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// It leaves the guest.
    Out,
    /// It is on its way to the guest.
    In,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It vanishes.
    Drop,
    /// It is refused, and its sender told where the backend can.
    Reject,
    /// That depends on what is not in the frame.
    Undecided,
}

/// What a verdict can depend on besides the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dependency {
    /// What is in an ipset.
    Set(String),
    /// Whether the source has more connections than this.
    Connections(u32),
    /// How the packet begins, of which this is a later fragment.
    Begin,
}

/// Why a frame gets its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// The verdict.
    pub verdict: Verdict,
    /// The stages that the frame went through, and where it left each.
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

/// How a stage ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageEnd<'a> {
    /// Which.
    pub stage: Stage,
    /// What it says.
    pub verdict: Verdict,
    /// The rule that said it; `None` is the stage's end, which lets through.
    pub rule: Option<Decider<'a>>,
    /// What an undecided verdict depends on, each with the rule that asks for it, if one does.
    pub depends: Vec<(Dependency, Option<&'a Origin>)>,
    /// The rules that were tried and the sub chains that were asked for, in order.
    pub tried: Vec<Tried<'a>>,
}

/// A rule, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decider<'a> {
    /// The rule.
    pub rule: &'a PortRule,
    /// Its chain; `None` is the list of rules for IP protocols.
    pub chain: Option<&'a str>,
}

/// A rule or a sub chain that a frame came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried<'a> {
    /// The chain it stands in; `None` is the list of rules for IP protocols.
    pub chain: Option<&'a str>,
    /// Which it is.
    pub what: Tryable<'a>,
    /// What came of it.
    pub outcome: Outcome<'a>,
}

/// What a frame can come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tryable<'a> {
    /// A rule.
    Rule(&'a PortRule),
    /// A sub chain.
    Chain(&'a SubChain),
}

/// Whether a rule applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It does.
    Applies,
    /// The frame is of another kind.
    Kind(Kind),
    /// This test does not hold, the first that does not.
    Fails(&'a Test),
    /// That depends.
    Depends(Dependency),
}

/// The root chain's name.
const ROOT: &str = "root";

/// A port's rules, and the connections of the frames so far.
#[derive(Debug, Clone)]
pub struct Judge<'a> {
    rules: &'a PortRules,
    /// `None` where no rule asks for connections: then none are tracked, and no fragments put
    /// together.
    connections: Option<Connections>,
}

impl<'a> Judge<'a> {
    /// One that has seen nothing.
    pub fn new(rules: &'a PortRules) -> Self {
        let connections = rules.is_stateful().then(Connections::default);
        Judge { rules, connections }
    }

    /// Judges the next frame. `length` is how many bytes it had where it was captured.
    ///
    /// # Errors
    /// [`TooShort`].
    pub fn judge(
        &mut self,
        way: Way,
        bytes: &[u8],
        length: usize,
    ) -> Result<Explanation<'a>, TooShort> {
        let frame = Frame::read(bytes, length)?;
        let path = match way {
            Way::Out => &self.rules.from_guest,
            Way::In => &self.rules.to_guest,
        };
        let mut stages = vec![frames(path, &frame)];
        let stopped = stages.iter().any(|stage| stage.verdict.stops());
        // On the way to the guest, tracking comes before the filter, else behind its first stage.
        let mut place = None;
        if let Some(connections) = &mut self.connections
            && (way == Way::In || !stopped)
        {
            connections.hear(&frame, bytes);
            place = Some(connections.look(&frame));
        }
        if let Some(end) = untracked(way, path, &frame).filter(|_| !stopped) {
            stages.push(end);
        } else if !stopped && frame.packet().is_some() && !path.packets.is_empty() {
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
            connections.pass(&frame, place);
        }
        Ok(Explanation { verdict, stages })
    }

    /// The second stage. Where connections are tracked it is whole packets that pass it, so a later
    /// fragment is judged as its packet's begin, and waits for that.
    fn packets(
        &self,
        path: &'a Path,
        frame: &Frame<'_>,
        place: Option<Place>,
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
        let place = Some(connections.clone().look(&begin));
        Ok(packets(path, Subject { frame: &begin, place }))
    }
}

/// What rules are asked about.
struct Subject<'f> {
    frame: &'f Frame<'f>,
    /// `None` where nothing is tracked.
    place: Option<Place>,
}

/// The first stage.
fn frames<'a>(path: &'a Path, frame: &Frame<'_>) -> StageEnd<'a> {
    let mut walk = Walk { subject: Subject { frame, place: None }, tried: Vec::new() };
    for step in &path.frames {
        let (chain, rules) = match step {
            Step::Rule(rule) => (ROOT, std::slice::from_ref(rule)),
            Step::Chain(number) => {
                let Some(sub) = path.chains.get(*number) else { continue };
                let enters = frame.is(sub.kind);
                let outcome = if enters { Outcome::Applies } else { Outcome::Kind(sub.kind) };
                walk.tried.push(Tried { chain: Some(ROOT), what: Tryable::Chain(sub), outcome });
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
                // Out of root there is nowhere to return to.
                PortVerdict::Return if chain == ROOT => Verdict::Pass,
                PortVerdict::Return => break,
                // The link layer has no answer to give.
                PortVerdict::Drop | PortVerdict::Reject => Verdict::Drop,
            };
            let rule = Some(Decider { rule, chain: Some(chain) });
            return StageEnd { stage: Stage::Frames, verdict, rule, depends, tried: walk.tried };
        }
    }
    let (verdict, rule, depends) = (Verdict::Pass, None, Vec::new());
    StageEnd { stage: Stage::Frames, verdict, rule, depends, tried: walk.tried }
}

/// The second stage.
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
    tried: Vec<Tried<'a>>,
}

impl<'a> Walk<'a, '_> {
    fn attempt(&mut self, chain: Option<&'a str>, rule: &'a PortRule) -> Outcome<'a> {
        let outcome = self.subject.applies(rule);
        self.tried.push(Tried { chain, what: Tryable::Rule(rule), outcome: outcome.clone() });
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
                Err(dependency) => depends = depends.or(Some(dependency)),
            }
        }
        depends.map_or(Outcome::Applies, Outcome::Depends)
    }

    /// Whether a test holds, or what that depends on.
    fn holds(&self, test: &Test) -> Result<bool, Dependency> {
        let frame = self.frame;
        // A field that is not there fails whatever is asked of it.
        let field =
            |found: Option<bool>, negated: &bool| found.is_some_and(|found| found != *negated);
        let holds = match test {
            Test::Hardware { field: which, address, mask, negated } => {
                let same = |found: [u8; 6]| {
                    (0..6).all(|byte| found[byte] & mask[byte] == address[byte] & mask[byte])
                };
                // Without a bit to compare, no tool looks at the field.
                if *mask == [0; 6] {
                    return Ok(!negated);
                }
                field(frame.hardware(*which).map(same), negated)
            }
            Test::Number { field: which, first, last, negated } => {
                let within = |found: u32| (*first..=*last).contains(&found);
                field(frame.number(*which).map(within), negated)
            }
            Test::Address { among: Addresses::Net(net), negated, .. } if net.prefix_len() == 0 => {
                !negated
            }
            Test::Address { field: which, among, negated } => {
                let among = |found: std::net::IpAddr| match among {
                    Addresses::Net(net) => net.contains(&found),
                    Addresses::Range(AddressRange::V4(first, last)) => {
                        (std::net::IpAddr::V4(*first)..=(*last).into()).contains(&found)
                    }
                    Addresses::Range(AddressRange::V6(first, last)) => {
                        (std::net::IpAddr::V6(*first)..=(*last).into()).contains(&found)
                    }
                };
                field(frame.address(*which).map(among), negated)
            }
            Test::Gratuitous => {
                use crate::rules::port::Address::{ArpSender, ArpTarget};
                frame.address(ArpSender).is_some()
                    && frame.address(ArpSender) == frame.address(ArpTarget)
            }
            Test::Icmp { types: (0, u8::MAX), codes: None, negated } => !negated,
            Test::Icmp { types, codes, negated } => {
                let among = |(kind, code): (u8, u8)| {
                    (types.0..=types.1).contains(&kind)
                        && codes.is_none_or(|codes| (codes.0..=codes.1).contains(&code))
                };
                field(frame.icmp().map(among), negated)
            }
            Test::TcpFlags { mask, flags, negated } => {
                field(frame.tcp_flags().map(|found| found & mask == *flags), negated)
            }
            Test::Set { name, .. } => return Err(Dependency::Set(name.clone())),
            Test::Connections { above } => return Err(Dependency::Connections(*above)),
            Test::State { states, direction } => match self.place {
                Some(Place::Tracked(state, side)) => {
                    let side = direction.is_none_or(|wanted| wanted == side);
                    states.contains(&state) && side
                }
                Some(Place::Untracked) | None => false,
            },
        };
        Ok(holds)
    }
}
