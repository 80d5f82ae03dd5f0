//! The new rules of a port, as a transaction sets them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::PortStatus;
use super::compile_port::LearnedAddresses;
use crate::firewall::rules::port::PortRules;

/// The new rules of one port.
pub(super) struct DesiredPort {
    /// The status before the change.
    pub(super) status: PortStatus,
    /// The status after the change, without the results of the attempt: it has another binding than
    /// `status` if the port gets one.
    pub(super) target: PortStatus,
    /// The rules to set.
    pub(super) rules: Arc<PortRules>,
    /// The rules that follow when the address is learned. They are not set now, but the backend
    /// must be able to express them.
    pub(super) pending_rules: Option<Arc<PortRules>>,
    /// The learned IPv4 address in the rules.
    pub(super) address: Option<Ipv4Addr>,
    /// The learned IPv6 addresses in the rules.
    pub(super) addresses6: Vec<Ipv6Addr>,
}

impl DesiredPort {
    pub(super) fn new(
        status: PortStatus,
        rules: Arc<PortRules>,
        pending_rules: Option<Arc<PortRules>>,
        addresses: LearnedAddresses,
    ) -> Self {
        let address = addresses.v4.known();
        let addresses6 = addresses.v6.unwrap_or_default();
        let target = status.clone();
        DesiredPort { target, status, rules, pending_rules, address, addresses6 }
    }

    /// Returns the rules to set, and those that follow.
    pub(super) fn all_rules(&self) -> impl Iterator<Item = &PortRules> {
        [&self.rules].into_iter().chain(&self.pending_rules).map(Arc::as_ref)
    }
}
