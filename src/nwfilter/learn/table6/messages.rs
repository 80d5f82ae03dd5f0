//! The effect of each message on the table of IPv6 addresses.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::entry::{Candidate, boot, end};
use super::{MOST_TESTS, TEST_TIME, Table6};
use crate::nwfilter::learn::packet6::{Dhcp6, Dhcp6Kind, Frame6, Given6, Message6, Prefix};
use crate::nwfilter::learn::{Lease6, RefusalReason, Source6};

/// The largest number of prefixes whose lifetime is remembered.
const MOST_PREFIXES: usize = 16;
/// The length of the prefixes from which hosts make addresses: they ignore other ones (RFC 4862,
/// 5.5.3 d), because the other half of the address is the interface identifier.
const PREFIX_LENGTH: u8 = 64;

impl Table6 {
    /// Processes a frame from the port of the guest.
    pub(super) fn sent(&mut self, frame: &Frame6, now: Duration) -> bool {
        match &frame.content {
            // A bridge does not forward a frame that is longer than the MTU of a port, so the
            // owner of the address may not get a test with bytes behind the packet.
            Message6::Test(address) => {
                if frame.is_exact {
                    self.starts_test(*address, now);
                }
                false
            }
            Message6::Solicitation => self.uses(frame.from, now),
            Message6::Advertisement(target) => self.uses(*target, now),
            Message6::Router(_) => false,
            Message6::Dhcp(dhcp) => self.requested(dhcp),
        }
    }

    /// Notes that the guest uses an address.
    fn uses(&mut self, address: Ipv6Addr, now: Duration) -> bool {
        if let Some(at) = self.entry(address) {
            self.entries[at].seen = now;
        }
        false
    }

    /// Starts the guest's test of an address, or starts its time again.
    fn starts_test(&mut self, address: Ipv6Addr, now: Duration) {
        let lease = Lease6 { address, source: Source6::Test, until: None };
        let is_learned = self.entry(address).is_some();
        if !is_learned && (!self.method.accepts(&lease) || self.refuses(address, &lease.source)) {
            return;
        }
        let known = self.candidates.iter().find(|candidate| candidate.lease.address == address);
        let is_forwarded = known.is_some_and(|candidate| candidate.is_forwarded);
        self.candidates.retain(|candidate| candidate.lease.address != address);
        if self.candidates.len() < MOST_TESTS {
            self.candidates.push(Candidate { lease, ends: Some(now + TEST_TIME), is_forwarded });
        }
    }

    /// Processes a DHCPv6 message of the guest.
    fn requested(&mut self, dhcp: &Dhcp6) -> bool {
        match dhcp.kind {
            Dhcp6Kind::Solicit | Dhcp6Kind::Request | Dhcp6Kind::Renew | Dhcp6Kind::Rebind => {
                self.request = Some(Dhcp6 { addresses: Vec::new(), ..dhcp.clone() });
                false
            }
            Dhcp6Kind::Release | Dhcp6Kind::Decline => {
                self.request = None;
                self.remove_leased(|address| {
                    dhcp.addresses.iter().any(|given| given.address == address)
                })
            }
            Dhcp6Kind::Reply => false,
        }
    }

    /// Processes a frame on its way to the guest.
    pub(super) fn received(&mut self, frame: &Frame6, now: Duration) -> bool {
        match &frame.content {
            // The bridge does not send a frame back, but a switch behind it may (RFC 7527).
            Message6::Test(address) if frame.source != self.guest => self.conflicts(*address),
            Message6::Advertisement(target) => self.conflicts(*target),
            Message6::Test(_) | Message6::Solicitation => false,
            Message6::Router(prefixes) => prefixes
                .iter()
                .fold(false, |changed, prefix| self.advertised(prefix, now) | changed),
            Message6::Dhcp(dhcp) => {
                frame.destination == self.guest && self.replied(frame, dhcp, now)
            }
        }
    }

    /// Another machine has an address or tests it at the same time. This counts only during the
    /// guest's own test, since the guest, too, ignores it at other times.
    fn conflicts(&mut self, address: Ipv6Addr) -> bool {
        let in_test =
            |candidate: &Candidate| candidate.lease.address == address && candidate.ends.is_some();
        if !self.candidates.iter().any(in_test) {
            return false;
        }
        self.candidates.retain(|candidate| candidate.lease.address != address);
        self.refuse(address, RefusalReason::Conflict);
        self.remove(|lease| lease.address == address)
    }

    /// Sets the end of the addresses in an advertised prefix.
    fn advertised(&mut self, prefix: &Prefix, now: Duration) -> bool {
        let (now, net) = (boot(now), prefix.net);
        if net.prefix_len() != PREFIX_LENGTH || net.addr().is_unicast_link_local() {
            return false;
        }
        self.prefixes.retain(|(_, until)| until.is_none_or(|until| until > now));
        if let Some((_, until)) = self.prefixes.iter_mut().find(|(known, _)| *known == net) {
            *until = end(*until, prefix.valid, now);
        } else if self.prefixes.len() < MOST_PREFIXES && prefix.valid > 0 {
            self.prefixes.push((net, now.after_lease_time(prefix.valid)));
        }
        let mut is_due = false;
        for entry in &mut self.entries {
            if entry.lease.source == Source6::Test && net.contains(&entry.lease.address) {
                entry.lease.until = end(entry.lease.until, prefix.valid, now);
                is_due |= entry.is_to_save(now);
            }
        }
        is_due
    }

    /// Processes the reply of a DHCPv6 server.
    fn replied(&mut self, frame: &Frame6, dhcp: &Dhcp6, now: Duration) -> bool {
        let is_answer = |request: &Dhcp6| {
            let is_rapid = request.kind != Dhcp6Kind::Solicit || (request.rapid && dhcp.rapid);
            request.transaction == dhcp.transaction && request.client == dhcp.client && is_rapid
        };
        let is_asked = self.request.as_ref().is_some_and(is_answer);
        if dhcp.kind != Dhcp6Kind::Reply || !is_asked || !self.method.accepts_server(frame.from) {
            return false;
        }
        self.request = None;
        let source = Source6::Dhcp { server: frame.from };
        let mut changed = false;
        for Given6 { address, valid } in &dhcp.addresses {
            if *valid == 0 {
                changed |= self.remove_leased(|leased| leased == *address);
            } else {
                let until = boot(now).after_lease_time(*valid);
                changed |= self.add(Lease6 { address: *address, source, until }, now);
            }
        }
        changed
    }
}
