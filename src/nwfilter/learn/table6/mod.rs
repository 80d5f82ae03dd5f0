//! Learns the IPv6 addresses of one guest: a state machine that takes frames and the time, and
//! holds a bounded table of addresses.
//!
//! A guest has several IPv6 addresses, and they come and go. The table gets an address in two ways:
//!
//! 1. **DHCPv6.** A server's reply to the guest's last request gives it, until its lifetime ends.
//! 2. **The guest's own test** (duplicate address detection, RFC 4862 5.4). The guest asks the link
//!    from `::` whether the address is free. If no other machine answers within a second, the table
//!    gets the address. With [`Method6::by_test`] this holds for every address, otherwise only for
//!    link-local ones, from which a guest speaks DHCPv6. A router advertisement that the guest sees
//!    sets the end of the addresses in its prefixes, by the rules of RFC 4862, 5.5.3.
//!
//! A test counts only if the learner saw every frame: if the queue of the capture overflowed, the
//! caller gives up the tests that run ([`Table6::distrust`]). A test counts only if other machines
//! get it, as well: if the bridge does not forward frames of the port when a test begins or ends,
//! the caller gives up the tests, too ([`Table6::has_test_to_check`]).
//!
//! An address is never learned from other traffic: the filter stops packets from an unknown
//! address, so no other machine could object.
//!
//! # A full table
//!
//! The table has at most [`MOST_ADDRESSES`] addresses. If another one comes, the caller asks the
//! guest for those addresses that the guest has not used for [`IDLE`] ([`Tick::probes`]). An
//! address for which the guest does not answer three times makes room; otherwise the new address is
//! refused. So addresses that the guest has stay, however many others it makes up. Rounds of such
//! questions are at least [`BETWEEN_ROUNDS`] apart, and at most [`MOST_TESTS`] tests are followed
//! at a time.

mod entry;
mod messages;

use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;

use super::clock::BootTime;
use super::packet6::{self, Dhcp6};
use super::used_addresses::{Refusal6, RefusalReason, UsedAddresses6};
use super::{Lease6, Method6, Sender, Source6};
use crate::types::{EthernetAddress, Mac};
use entry::{Candidate, Entry, Round, boot, is_special};

/// The largest number of addresses of a port. A guest with privacy addresses has up to nine in each
/// prefix: one for each day of their life of a week (RFC 8981, 3.8), a stable one, and its
/// link-local address. Each address costs the port three rules.
pub const MOST_ADDRESSES: usize = 16;
/// The largest number of tests that the table follows at a time.
pub const MOST_TESTS: usize = 16;
/// How long a guest waits for an answer to its test (RFC 4861, RetransTimer). A guest that sends
/// several tests (DupAddrDetectTransmits) starts the time again with each.
pub const TEST_TIME: Duration = Duration::from_secs(1);
/// An address that the guest used within this time stays in a full table without a question.
pub const IDLE: Duration = Duration::from_secs(60);
/// The shortest time between two rounds of questions.
pub const BETWEEN_ROUNDS: Duration = Duration::from_secs(10);
/// The number of questions for an address, and the time between them.
const QUESTIONS: u8 = 3;
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(1);
/// The IPv6 addresses of one guest. All times are since boot.
#[derive(Debug, Clone)]
pub struct Table6 {
    method: Method6,
    guest: EthernetAddress,
    /// The addresses in use at the last check, without those of other ports.
    used: UsedAddresses6,
    entries: Vec<Entry>,
    candidates: Vec<Candidate>,
    prefixes: Vec<(Ipv6Net, Option<BootTime>)>,
    /// The guest's last request, until a reply ends it.
    request: Option<Dhcp6>,
    round: Option<Round>,
    last_round: Option<Duration>,
    refused: Option<Refusal6>,
    is_refusal_new: bool,
}

/// The result of [`Table6::tick`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tick {
    /// Whether the addresses or their ends changed.
    pub changed: bool,
    /// The addresses for which the caller asks the guest now.
    pub probes: Vec<Ipv6Addr>,
}

impl Table6 {
    /// Makes an empty table for the guest with this MAC address.
    pub fn new(method: Method6, guest: Mac, used: UsedAddresses6) -> Self {
        Table6 {
            method,
            guest: guest.into(),
            used: used.without_ports(),
            entries: Vec::new(),
            candidates: Vec::new(),
            prefixes: Vec::new(),
            request: None,
            round: None,
            last_round: None,
            refused: None,
            is_refusal_new: false,
        }
    }

    /// Resumes with the addresses that an earlier run saved, without those that have ended and
    /// those that this table could not learn now.
    pub fn resumed(mut self, leases: Vec<Lease6>, now: Duration) -> Self {
        for lease in leases {
            let is_good = !lease.is_over(boot(now))
                && self.method.accepts(&lease)
                && !is_special(lease.address)
                && self.refusal(lease.address, &lease.source).is_none();
            if is_good && self.entries.len() < MOST_ADDRESSES && self.entry(lease.address).is_none()
            {
                self.entries.push(Entry { lease, saved_until: lease.until, seen: now });
            }
        }
        self
    }

    /// Returns the addresses, the oldest first.
    pub fn leases(&self) -> Vec<Lease6> {
        self.entries.iter().map(|entry| entry.lease).collect()
    }

    /// Returns the last refused address, until another address is learned.
    pub fn refused(&self) -> Option<&Refusal6> {
        self.refused.as_ref()
    }

    /// Returns whether an address was refused after the last [`check`](Self::check).
    pub fn is_refusal_new(&self) -> bool {
        self.is_refusal_new
    }

    /// Forgets addresses that came into use elsewhere. The caller does this before it sets rules,
    /// under the lock of all ports, and saves the addresses afterwards.
    pub fn check(&mut self, used: UsedAddresses6) {
        self.is_refusal_new = false;
        for entry in &self.entries {
            if let Some(reason) = used.reason(entry.lease.address) {
                self.refused = Some(Refusal6 { address: entry.lease.address, reason });
            }
        }
        self.entries.retain(|entry| used.reason(entry.lease.address).is_none());
        self.used = used.without_ports();
        for entry in &mut self.entries {
            entry.saved_until = entry.lease.until;
        }
    }

    /// Processes a frame, which begins with the destination MAC address. Returns whether the
    /// addresses or their ends changed.
    pub fn process_frame(&mut self, sender: Sender, frame: &[u8], now: Duration) -> bool {
        let Some(frame) = packet6::read(frame) else { return false };
        match sender {
            Sender::Guest if frame.source == self.guest => self.sent(&frame, now),
            Sender::Guest => false,
            Sender::Network => self.received(&frame, now),
        }
    }

    /// Returns the time of the next [`tick`](Self::tick).
    pub fn wake(&self) -> Option<Duration> {
        let tests = self.candidates.iter().filter_map(|candidate| candidate.ends);
        let ends = self.entries.iter().filter_map(|entry| entry.lease.until);
        let ends = ends.map(|until| Duration::from_secs(until.0));
        tests.chain(ends).chain(self.round.map(|round| round.next)).min()
    }

    /// Ends tests, lifetimes and rounds of questions whose time has come.
    pub fn tick(&mut self, now: Duration) -> Tick {
        let before = self.entries.len();
        self.entries.retain(|entry| !entry.lease.is_over(boot(now)));
        let mut tick = Tick { changed: self.entries.len() != before, probes: Vec::new() };
        tick.changed |= self.continue_round(now, &mut tick.probes);
        let is_ended = |candidate: &Candidate| candidate.ends.is_some_and(|ends| ends <= now);
        while let Some(at) = self.candidates.iter().position(is_ended) {
            let candidate = self.candidates.remove(at);
            tick.changed |= self.add(candidate.lease, now);
        }
        tick
    }

    /// Sends the questions of a round, or ends the round: addresses without an answer make room for
    /// the candidates.
    fn continue_round(&mut self, now: Duration, probes: &mut Vec<Ipv6Addr>) -> bool {
        let Some(round) = self.round.filter(|round| round.next <= now) else { return false };
        let idle = |entry: &Entry| !entry.lease.source.is_dhcp() && entry.is_idle(round.started);
        if round.sent < QUESTIONS {
            probes.extend(self.entries.iter().filter(|e| idle(e)).map(|e| e.lease.address));
            self.round =
                Some(Round { next: now + BETWEEN_QUESTIONS, sent: round.sent + 1, ..round });
            return false;
        }
        self.round = None;
        self.last_round = Some(now);
        let (testing, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.candidates).into_iter().partition(|one| one.ends.is_some());
        self.candidates = testing;
        let before = self.entries.len();
        let mut needed = (before + waiting.len()).saturating_sub(MOST_ADDRESSES);
        self.entries.retain(|entry| {
            let goes = needed > 0 && idle(entry);
            needed -= usize::from(goes);
            !goes
        });
        let mut changed = self.entries.len() != before;
        for candidate in waiting {
            changed |= self.add(candidate.lease, now);
        }
        changed
    }

    /// Adds an address to the table or renews it. If the table is full, the address becomes a
    /// candidate and a round of questions starts.
    fn add(&mut self, mut lease: Lease6, now: Duration) -> bool {
        if let Some(at) = self.entry(lease.address) {
            let entry = &mut self.entries[at];
            entry.seen = now;
            let is_new = lease.source.is_dhcp() && entry.lease != lease;
            if is_new {
                entry.lease = lease;
            }
            return is_new;
        }
        if self.refuses(lease.address, &lease.source) {
            return false;
        }
        if self.entries.len() >= MOST_ADDRESSES {
            self.wait_for_room(lease, now);
            return false;
        }
        if lease.source == Source6::Test {
            let known = self.prefixes.iter().find(|(net, _)| net.contains(&lease.address));
            lease.until = known.and_then(|(_, until)| *until);
        }
        self.refused = None;
        self.entries.push(Entry { lease, saved_until: lease.until, seen: now });
        true
    }

    /// Lets an address wait until a round of questions ends, or refuses it.
    fn wait_for_room(&mut self, lease: Lease6, now: Duration) {
        let is_too_soon = self.last_round.is_some_and(|last| now < last + BETWEEN_ROUNDS);
        let has_idle = self.entries.iter().any(|e| !e.lease.source.is_dhcp() && e.is_idle(now));
        let may_ask = self.round.is_some() || (has_idle && !is_too_soon);
        if !may_ask || self.candidates.len() >= MOST_TESTS {
            return self.refuse(lease.address, RefusalReason::Full);
        }
        self.candidates.push(Candidate { lease, ends: None, is_forwarded: true });
        self.round.get_or_insert(Round { started: now, next: now, sent: 0 });
    }

    /// Gives up the tests that run, because frames were lost: another machine may have answered.
    pub fn distrust(&mut self) {
        self.give_up_tests(&RefusalReason::Flood);
    }

    /// Returns whether a test began since the last check, or ends by `now`. The caller then looks
    /// whether the bridge forwards frames of the port, and calls [`check_tests`](Self::check_tests)
    /// before the next [`tick`](Self::tick).
    pub fn has_test_to_check(&self, now: Duration) -> bool {
        self.candidates.iter().any(|candidate| {
            candidate.ends.is_some_and(|ends| !candidate.is_forwarded || ends <= now)
        })
    }

    /// Notes that the bridge forwards frames of the port. If it does not, gives up the tests that
    /// run: no other machine could answer.
    pub fn check_tests(&mut self, is_forwarded: bool) {
        if is_forwarded {
            self.candidates.iter_mut().for_each(|candidate| candidate.is_forwarded = true);
        } else {
            self.give_up_tests(&RefusalReason::NotForwarded);
        }
    }

    fn give_up_tests(&mut self, reason: &RefusalReason) {
        let (testing, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.candidates).into_iter().partition(|one| one.ends.is_some());
        self.candidates = waiting;
        let unknown = testing.iter().rfind(|test| self.entry(test.lease.address).is_none());
        if let Some(address) = unknown.map(|test| test.lease.address) {
            self.refuse(address, reason.clone());
        }
    }

    fn entry(&self, address: Ipv6Addr) -> Option<usize> {
        self.entries.iter().position(|entry| entry.lease.address == address)
    }

    fn remove(&mut self, is_gone: impl Fn(&Lease6) -> bool) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| !is_gone(&entry.lease));
        self.entries.len() != before
    }

    fn remove_leased(&mut self, is_gone: impl Fn(Ipv6Addr) -> bool) -> bool {
        self.remove(|lease| lease.source.is_dhcp() && is_gone(lease.address))
    }

    /// Returns why the guest cannot have this address, as far as the host knows.
    fn refusal(&self, address: Ipv6Addr, source: &Source6) -> Option<RefusalReason> {
        let is_server = matches!(source, Source6::Dhcp { server } if *server == address)
            || self.method.servers.contains(&address);
        is_server.then_some(RefusalReason::Server).or_else(|| self.used.reason(address))
    }

    /// Returns whether the guest cannot have this address. Records the refusal of an address in
    /// use.
    fn refuses(&mut self, address: Ipv6Addr, source: &Source6) -> bool {
        if is_special(address) {
            return true;
        }
        let reason = self.refusal(address, source);
        let is_refused = reason.is_some();
        if let Some(reason) = reason {
            self.refuse(address, reason);
        }
        is_refused
    }

    fn refuse(&mut self, address: Ipv6Addr, reason: RefusalReason) {
        self.refused = Some(Refusal6 { address, reason });
        self.is_refusal_new = true;
    }
}
