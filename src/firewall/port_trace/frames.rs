//! Joins the kernel's reports about one frame to the decision of the port's filter.
//!
//! The kernel reports one rule after the other, and reports about frames on other processors come
//! in between. The kernel's number of a frame is made from the address of its buffer, so later
//! frames get the same number; a report with the head of the frame begins a new walk. The memory is
//! bounded: beyond [`MOST_FRAMES`] walks, the oldest one is forgotten.
//!
//! Some kernels (6.18 among them) do not report that a frame has reached the end of a chain that
//! another one calls. In iptables and ebtables that end accepts. So a walk remembers the port's
//! chain that it has entered, and a report of a chain outside the port's chains means that the
//! frame has reached the end of it.

use std::collections::{BTreeMap, VecDeque};

use super::event::{TraceMessage, TraceVerdict};
use crate::firewall::port_roles::{ChainRoles, PortRoles, RuleName, RuleRole, RuleTable};

/// The number of frames whose walk through the rules may be unfinished.
const MOST_FRAMES: usize = 1024;

/// A frame of the port, and the stages that decided about it on one hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedFrame {
    /// Whether it is on its way to the guest.
    pub to_guest: bool,
    /// The stages in order.
    pub stages: Vec<DecidedStage>,
    /// The first bytes of the frame; empty if the kernel did not report them.
    pub head: Vec<u8>,
}

/// The decision of one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidedStage {
    /// Whether it is the stage of the rules for IP protocols.
    pub packets: bool,
    /// Whether the frame was dropped or rejected.
    pub stops: bool,
    /// The rule that decided; `None` means that the rule is gone.
    pub by: Option<RuleRole>,
}

impl DecidedStage {
    /// Returns the name of the deciding rule.
    pub fn rule(&self) -> Option<&RuleName> {
        match &self.by {
            Some(RuleRole::Rule(name)) => Some(name),
            _ => None,
        }
    }
}

/// A frame that has not met its last rule.
#[derive(Debug, Default)]
struct Walk {
    /// Its number in the order of the walks.
    number: u64,
    head: Vec<u8>,
    /// The first stage, if it is decided and the second one follows.
    frames: Option<DecidedStage>,
    /// The chain of iptables or ebtables that the frame has entered: whether it is for frames to
    /// the guest, and whether it has the rules for IP protocols.
    entered: Option<(bool, bool)>,
}

/// The frames that have not met their last rule.
#[derive(Debug, Default)]
pub(super) struct Frames {
    walks: BTreeMap<u32, Walk>,
    /// The number of walks that have begun.
    begun: u64,
    /// The last walks that have begun, also if they have ended since: the number of each, and the
    /// kernel's number of its frame.
    order: VecDeque<(u64, u32)>,
}

impl Frames {
    /// Adds a report. Returns the frame if the report ends its walk through the port's rules.
    /// `place` is the place of the reported rule in its chain.
    pub(super) fn add(
        &mut self,
        roles: &PortRoles,
        message: &TraceMessage,
        place: Option<usize>,
    ) -> Option<TracedFrame> {
        if !message.head.is_empty() {
            self.begin(message.id, message.head.clone());
        }
        let own = |name: &str| roles.chains.get(&(message.table?, name.to_owned()));
        let (Some(table), Some(chain)) = (message.table, own(&message.chain)) else {
            return self.outside(message, own);
        };
        let stage = decided(table, chain, message, place)?;
        if let TraceVerdict::Goto(_) = message.verdict {
            if !self.walks.contains_key(&message.id) {
                self.begin(message.id, Vec::new());
            }
            if let Some(walk) = self.walks.get_mut(&message.id) {
                walk.frames = Some(stage);
            }
            return None;
        }
        let Walk { head, frames, .. } = self.walks.remove(&message.id).unwrap_or_default();
        let stages = frames.into_iter().chain([stage]).collect();
        Some(TracedFrame { to_guest: chain.to_guest, stages, head })
    }

    /// Adds a report of a chain that is not the port's: it may end the port's chain, or lead to it.
    fn outside<'a>(
        &mut self,
        message: &TraceMessage,
        own: impl Fn(&str) -> Option<&'a ChainRoles>,
    ) -> Option<TracedFrame> {
        let walk = self.walks.get_mut(&message.id)?;
        let ended = walk.entered.take();
        if let TraceVerdict::Jump(target) | TraceVerdict::Goto(target) = &message.verdict
            && !message.table.is_some_and(is_netlaunchs)
        {
            walk.entered = own(target).map(|chain| (chain.to_guest, chain.packets));
        }
        let (to_guest, packets) = ended?;
        let stage = DecidedStage { packets, stops: false, by: Some(RuleRole::End) };
        Some(TracedFrame { to_guest, stages: vec![stage], head: walk.head.clone() })
    }

    /// Returns whether the memory is bounded by [`MOST_FRAMES`].
    #[cfg(all(feature = "cli", any(test, feature = "fuzz")))]
    pub(super) fn is_bounded(&self) -> bool {
        self.walks.len() <= MOST_FRAMES && self.order.len() <= MOST_FRAMES
    }

    /// Begins the walk of a frame, and forgets the oldest one beyond [`MOST_FRAMES`].
    fn begin(&mut self, id: u32, head: Vec<u8>) {
        self.begun += 1;
        let walk = Walk { number: self.begun, head, ..Walk::default() };
        self.order.push_back((walk.number, id));
        self.walks.insert(id, walk);
        if self.order.len() > MOST_FRAMES
            && let Some((number, oldest)) = self.order.pop_front()
            // The kernel may have used the number of the oldest frame again.
            && self.walks.get(&oldest).is_some_and(|walk| walk.number == number)
        {
            self.walks.remove(&oldest);
        }
    }
}

/// Returns whether a table is one of nftables' tables, whose chains have a rule at their end.
fn is_netlaunchs(table: RuleTable) -> bool {
    matches!(table, RuleTable::Bridge(_) | RuleTable::Netdev(_))
}

/// Returns the decision of a stage, if the reported rule decides.
fn decided(
    table: RuleTable,
    chain: &ChainRoles,
    message: &TraceMessage,
    place: Option<usize>,
) -> Option<DecidedStage> {
    let stops = match message.verdict {
        TraceVerdict::Drop => true,
        TraceVerdict::Accept => false,
        // A chain of nftables goes to the second stage only after the first one accepted.
        TraceVerdict::Goto(_) if is_netlaunchs(table) => false,
        // In iptables and ebtables, a rule that accepts returns, and so does the end of a chain.
        TraceVerdict::Return if !is_netlaunchs(table) && !chain.sub => false,
        TraceVerdict::Jump(_)
        | TraceVerdict::Goto(_)
        | TraceVerdict::Return
        | TraceVerdict::Continue => return None,
    };
    let by = match message.handle {
        None => Some(RuleRole::End),
        Some(_) => place.and_then(|place| chain.roles.get(place)).cloned(),
    };
    Some(DecidedStage { packets: chain.packets, stops, by })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::port_nft::PortTable;

    fn message(id: u32, chain: &str, verdict: TraceVerdict, head: &[u8]) -> TraceMessage {
        TraceMessage {
            id,
            table: Some(RuleTable::Bridge(PortTable::FIRST)),
            chain: chain.to_owned(),
            handle: Some(1),
            verdict,
            head: head.to_vec(),
        }
    }

    fn roles() -> PortRoles {
        let chain = |packets, sub| ChainRoles {
            to_guest: false,
            packets,
            sub,
            roles: vec![RuleRole::Other, RuleRole::End],
        };
        let mut roles = PortRoles::default();
        for (name, packets, sub) in
            [("p7-from", false, false), ("p7-from-1", false, true), ("p7-from-ip", true, false)]
        {
            let name = name.to_owned();
            roles.chains.insert((RuleTable::Bridge(PortTable::FIRST), name), chain(packets, sub));
        }
        roles
    }

    #[test]
    fn the_reports_of_two_frames_are_joined_although_they_are_mixed() {
        let (roles, mut frames) = (roles(), Frames::default());
        let goto = || TraceVerdict::Goto("p7-from-ip".to_owned());
        let mut add = |message: TraceMessage| frames.add(&roles, &message, Some(1));
        assert_eq!(add(message(1, "prerouting", TraceVerdict::Continue, b"one")), None);
        assert_eq!(add(message(2, "prerouting", TraceVerdict::Continue, b"two")), None);
        assert_eq!(add(message(1, "p7-from-1", TraceVerdict::Return, b"")), None);
        assert_eq!(add(message(1, "p7-from", goto(), b"")), None);
        let drop = add(message(2, "p7-from", TraceVerdict::Drop, b"")).unwrap();
        assert_eq!((drop.head.as_slice(), drop.stages.len()), (b"two".as_slice(), 1));
        assert!(drop.stages[0].stops && !drop.stages[0].packets);
        let pass = add(message(1, "p7-from-ip", TraceVerdict::Accept, b"")).unwrap();
        assert_eq!((pass.head.as_slice(), pass.stages.len()), (b"one".as_slice(), 2));
        assert!(pass.stages.iter().all(|stage| !stage.stops && stage.by == Some(RuleRole::End)));
        // The kernel gives the number to another frame.
        assert_eq!(add(message(1, "prerouting", TraceVerdict::Continue, b"new")), None);
        let next = add(message(1, "p7-from", TraceVerdict::Accept, b"")).unwrap();
        assert_eq!((next.head.as_slice(), next.stages.len()), (b"new".as_slice(), 1));
        // Chains of other ports and tables decide nothing here.
        assert_eq!(add(message(1, "p8-from", TraceVerdict::Drop, b"")), None);
        let other = TraceMessage { table: None, ..message(1, "p7-from", TraceVerdict::Drop, b"") };
        assert_eq!(add(other), None);
    }

    #[test]
    fn a_number_that_the_kernel_uses_again_keeps_the_head_of_each_frame() {
        let (roles, mut frames) = (roles(), Frames::default());
        for number in 0..2 * MOST_FRAMES {
            let head = number.to_string().into_bytes();
            frames.add(&roles, &message(1, "prerouting", TraceVerdict::Continue, &head), None);
            let accept = message(1, "p7-from", TraceVerdict::Accept, b"");
            assert_eq!(frames.add(&roles, &accept, Some(1)).unwrap().head, head);
        }
    }

    #[test]
    fn frames_whose_reports_are_lost_need_bounded_memory() {
        let (roles, mut frames) = (roles(), Frames::default());
        for id in 0..2 * MOST_FRAMES as u32 {
            let goto = TraceVerdict::Goto("p7-from-ip".to_owned());
            frames.add(&roles, &message(id, "p7-from", goto, b""), Some(1));
            assert!(frames.walks.len() <= MOST_FRAMES && frames.order.len() <= MOST_FRAMES);
        }
    }

    #[test]
    fn a_frame_that_leaves_a_chain_of_iptables_has_reached_its_end() {
        let mut roles = PortRoles::default();
        for (name, sub) in [("nl-7:from", false), ("nl-7:from-arp", true)] {
            let roles_of = vec![RuleRole::Other];
            let chain = ChainRoles { to_guest: false, packets: false, sub, roles: roles_of };
            roles.chains.insert((RuleTable::Ethernet, name.to_owned()), chain);
        }
        let report = |chain: &str, verdict: TraceVerdict, head: &[u8]| TraceMessage {
            table: Some(RuleTable::Ethernet),
            ..message(1, chain, verdict, head)
        };
        let jump = |to: &str| TraceVerdict::Jump(to.to_owned());
        let mut frames = Frames::default();
        let mut add = |message: TraceMessage| frames.add(&roles, &message, Some(0));
        // The kernel reports no end of a chain.
        assert_eq!(add(report("PREROUTING", jump("NETLAUNCH_FROM"), b"head")), None);
        assert_eq!(add(report("NETLAUNCH_FROM", jump("nl-7:from"), b"")), None);
        assert_eq!(add(report("nl-7:from", jump("nl-7:from-arp"), b"")), None);
        assert_eq!(add(report("nl-7:from-arp", TraceVerdict::Return, b"")), None);
        let end = add(report("PREROUTING", TraceVerdict::Continue, b"")).unwrap();
        assert_eq!((end.head.as_slice(), &end.stages[0].by), (&b"head"[..], &Some(RuleRole::End)));
        assert_eq!(add(report("PREROUTING", TraceVerdict::Continue, b"")), None, "once");
        // The kernel reports the end of the chain.
        assert_eq!(add(report("NETLAUNCH_FROM", jump("nl-7:from"), b"next")), None);
        let end = TraceMessage { handle: None, ..report("nl-7:from", TraceVerdict::Return, b"") };
        assert_eq!(add(end).unwrap().head, b"next");
        assert_eq!(add(report("PREROUTING", TraceVerdict::Continue, b"")), None, "once");
    }

    #[test]
    fn unfinished_frames_are_forgotten_beyond_a_limit() {
        let (roles, mut frames) = (roles(), Frames::default());
        for id in 0..5000 {
            let begun = message(id, "prerouting", TraceVerdict::Continue, b"head");
            assert_eq!(frames.add(&roles, &begun, None), None);
            assert!(frames.walks.len() <= MOST_FRAMES && frames.order.len() <= MOST_FRAMES);
        }
        let late = frames.add(&roles, &message(1, "p7-from", TraceVerdict::Drop, b""), Some(9));
        let late = late.unwrap();
        assert_eq!((late.head.as_slice(), &late.stages[0].by), (b"".as_slice(), &None));
    }
}
