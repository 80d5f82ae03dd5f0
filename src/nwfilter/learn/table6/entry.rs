//! The entries of the table of IPv6 addresses, and the rules about their ends.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::IDLE;
use crate::nwfilter::learn::{BootTime, Lease6};

/// A router advertisement cannot shorten a lifetime to less (RFC 4862, 5.5.3).
const TWO_HOURS: u64 = 7200;

/// An address in the table.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) lease: Lease6,
    /// The end that the saved file has.
    pub(super) saved_until: Option<BootTime>,
    /// The last time at which the guest used the address in neighbor discovery.
    pub(super) seen: Duration,
}

/// An address that may get into the table.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) lease: Lease6,
    /// The end of the guest's test; `None` while the candidate waits for room.
    pub(super) ends: Option<Duration>,
    /// Whether the bridge forwarded frames of the port when the test began.
    pub(super) is_forwarded: bool,
}

/// A round of questions for idle addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) started: Duration,
    pub(super) next: Duration,
    pub(super) sent: u8,
}

impl Entry {
    /// Returns whether the guest has not used the address for a while.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        self.seen + IDLE <= now
    }

    /// Returns whether the saved end is so early that a restart could end the address too soon.
    /// Routers advertise their prefixes every few seconds or minutes, and each would otherwise
    /// cause a write.
    pub(super) fn is_to_save(&self, now: BootTime) -> bool {
        match (self.lease.until, self.saved_until) {
            (Some(until), Some(saved)) if until > saved => {
                until.0 - saved.0 > saved.0.saturating_sub(now.0) / 2
            }
            (until, saved) => until != saved,
        }
    }
}

/// Returns the end of an address after a router advertised its prefix for `valid` seconds (RFC
/// 4862, 5.5.3 e).
pub(super) fn end(old: Option<BootTime>, valid: u32, now: BootTime) -> Option<BootTime> {
    let new = now.after_lease_time(valid)?;
    let left = old.map_or(u64::MAX, |old| old.0.saturating_sub(now.0));
    match u64::from(valid) {
        valid if valid > TWO_HOURS || valid > left => Some(new),
        _ if left <= TWO_HOURS => old,
        _ => Some(BootTime(now.0 + TWO_HOURS)),
    }
}

pub(super) fn boot(now: Duration) -> BootTime {
    BootTime(now.as_secs())
}

/// Returns whether no guest gets this address: it is no unicast address of a link, of a site (RFC
/// 4193) or of the Internet (RFC 4291, 2.4), or the address of the routers or other servers of a
/// subnet (RFC 4291, 2.6.1; RFC 2526).
pub(super) fn is_special(address: Ipv6Addr) -> bool {
    let [first, ..] = address.octets();
    let bits = u128::from(address);
    let (net, host) = ((bits >> 64) as u64, bits as u64);
    let is_link_local = net == 0xfe80 << 48;
    let is_unicast = first & 0xe0 == 0x20 || first & 0xfe == 0xfc || is_link_local;
    !is_unicast || host == 0 || host >> 7 == 0xfdff_ffff_ffff_ff80 >> 7
}
