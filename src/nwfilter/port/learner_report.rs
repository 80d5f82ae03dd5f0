//! Reports the results of a port's learner, for output.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Bindings, PortStatus};
use crate::nwfilter::learn::{Clock, UnixTime};
use crate::types::error_text;

/// The learner of a port's guest address and its results.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LearnerReport {
    /// The process ID; `None` if no process learns any more. The next `firewall reload` starts a
    /// new one.
    pub pid: Option<u32>,
    /// The IPv4 address in the port's rules; `None` while it is not known.
    pub address: Option<Ipv4Addr>,
    /// The end of the lease by the current wall clock; `None` if it has no end or there is no
    /// address.
    pub until: Option<UnixTime>,
    /// The IPv6 addresses in the port's rules, the oldest first; `None` if the port does not learn
    /// IPv6 addresses.
    pub addresses6: Option<Vec<ShownAddress6>>,
    /// Why the rules could not be set with the last learned address. The port is then off.
    pub failed: Option<String>,
    /// The last refused address and the reason.
    pub refused: Option<String>,
    /// The last refused IPv6 address and the reason.
    pub refused6: Option<String>,
}

/// A learned IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShownAddress6 {
    /// The address.
    pub address: Ipv6Addr,
    /// The end of its lifetime by the current wall clock; `None` if it has no end, or the end is
    /// not known.
    pub until: Option<UnixTime>,
}

impl Bindings {
    /// Returns the learner of a port, or `None` if the port does not learn. If the lease cannot be
    /// read, the result has no end of the lease, and a warning is logged.
    pub fn learner(&self, status: &PortStatus) -> Option<LearnerReport> {
        if !status.learns {
            return None;
        }
        let clock = Clock::now();
        let saved = self.leases.read(&status.port, &clock).unwrap_or_else(|error| {
            tracing::warn!("{}", error_text(&error));
            None
        });
        let saved = saved.filter(|saved| saved.index == status.index);
        let lease = saved.as_ref().and_then(|saved| saved.lease);
        let leases6 = saved.map(|saved| saved.leases6).unwrap_or_default();
        let shown6 = |address: &Ipv6Addr| {
            let lease = leases6.iter().find(|lease| lease.address == *address);
            let until = lease.and_then(|lease| lease.until).map(|until| clock.wall_of(until));
            ShownAddress6 { address: *address, until }
        };
        Some(LearnerReport {
            pid: self.locks.holder(status.index),
            address: status.address,
            until: lease
                .filter(|is| Some(is.address) == status.address)
                .and_then(|is| is.until)
                .map(|until| clock.wall_of(until)),
            addresses6: status.learns6.then(|| status.addresses6.iter().map(shown6).collect()),
            failed: status.failure().map(str::to_owned),
            refused: status.refused.clone(),
            refused6: status.refused6.clone(),
        })
    }
}
