//! Sets a port's rules with the learned address of its guest.
//!
//! The lease is checked and saved, and the rules are changed, under one lock for the filters of all
//! ports. So two ports on one bridge cannot both get the same address. If the rules cannot be set,
//! the port is turned off.

use std::net::Ipv6Addr;

use super::index::Overview;
use super::learning::Learning;
use super::{BindingError, BindingSettings, Bindings, PortState, PortStatus, log};
use crate::nwfilter::learn::{Clock, SavedLease};
use crate::sys::netlink::{LinkError, Netlink};
use crate::types::{InterfaceName, error_text};

/// The result of setting the rules with a learned address.
pub(super) enum RulesUpdate {
    /// The rules were changed to the new address.
    Changed,
    /// The rules had the address already.
    Unchanged,
    /// The port or its filter is gone.
    PortGone,
}

/// Why the rules could not be set with a learned address.
pub(super) struct UpdateError {
    pub(super) error: BindingError,
    /// Whether the port is off and its status file records this.
    pub(super) is_recorded: bool,
}

impl From<BindingError> for UpdateError {
    fn from(error: BindingError) -> Self {
        UpdateError { error, is_recorded: false }
    }
}

impl Bindings {
    /// Checks and saves the learned lease of a port and sets the port's rules with it.
    /// [`Learning::off`] means that the port is turned off although its status file does not record
    /// this.
    ///
    /// # Errors
    /// [`BindingError::TurnedOff`] when the rules cannot be set. [`BindingError`] otherwise.
    pub(super) async fn set_learned_rules(
        &self,
        learning: &mut Learning,
    ) -> Result<RulesUpdate, UpdateError> {
        let index = learning.index;
        let (tools, overview) = self.lock_for_learner(index).await?;
        let Overview { own, others, stale } = overview;
        // The port may have another binding by now, which this learner does not know.
        if !learning.holds_lock() {
            return Ok(RulesUpdate::PortGone);
        }
        let Some(mut status) = own else { return Ok(RulesUpdate::PortGone) };
        // A learner that started late may be that of an earlier binding.
        if !status.learns || self.binding(&status)?.mac != learning.capture.guest() {
            return Ok(RulesUpdate::PortGone);
        }
        if let Some(why) = &learning.off {
            status.state = PortState::Off(why.clone());
        }
        let (used, used6) = self.used_addresses(&status, &others).await?;
        learning.check(used, used6)?;
        let (address, addresses6) = (learning.address(), learning.addresses6());
        self.save_lease(learning, &status.port)?;
        let is_written = self.note_refusals(learning, &mut status);
        let has_both = |address4, addresses: &[Ipv6Addr]| {
            address4 == address && addresses == addresses6.as_slice()
        };
        if has_both(status.address, &status.addresses6) && status.state == PortState::Bound {
            if is_written {
                self.write_index(&tools, others, &[status]);
            }
            return Ok(RulesUpdate::Unchanged);
        }
        let changed = async {
            let binding = self.binding(&status)?;
            let filters = self.store.tree(&binding.filter)?;
            let bound = [(status.clone(), binding)];
            let mut wanted = self.wanted(&bound, &filters)?;
            // The lease was saved just before. If reading it fails, read it once more: without it
            // the guest would have no address until it sends again.
            if wanted.iter().any(|wanted| !has_both(wanted.address, &wanted.addresses6)) {
                wanted = self.wanted(&bound, &filters)?;
            }
            let keeping = self.with_settings_of(&status);
            let change = keeping.change(&tools, wanted, &stale, &others);
            // If a command was interrupted, its marker stays for the next command, which has the
            // settings of nwfilter.conf.
            if self.has_marker() { change.await } else { self.with_marker(change).await }
        };
        let error = match changed.await {
            Ok(changed) => {
                self.write_index(&tools, others, &changed);
                return Ok(RulesUpdate::Changed);
            }
            Err(error) => error,
        };
        let error = self.turn_off(&status.port, index, error).await;
        let is_off = status.is_off() || matches!(error, BindingError::TurnedOff { .. });
        let why = error_text(&error);
        status.state = if is_off { PortState::Off(why) } else { PortState::Failed(why) };
        let unwritten = status.write(&self.dir()).err();
        let is_recorded = is_off && unwritten.is_none();
        log(unwritten);
        Err(UpdateError { error, is_recorded })
    }

    /// Writes the refused addresses into the status file, and logs the new ones. Returns whether
    /// the file was written.
    fn note_refusals(&self, learning: &Learning, status: &mut PortStatus) -> bool {
        let refused = learning.learner.refused().map(ToString::to_string);
        let refused6 = learning.table.as_ref().and_then(|table| table.refused());
        let refused6 = refused6.map(ToString::to_string);
        if refused == status.refused && refused6 == status.refused6 {
            return false;
        }
        let is_new = |new: &Option<String>, old: &Option<String>| new.is_some() && new != old;
        let new = [(&refused, &status.refused), (&refused6, &status.refused6)];
        for (refused, _) in new.into_iter().filter(|(new, old)| is_new(new, old)) {
            let refused = refused.as_deref().unwrap_or_default();
            tracing::warn!("the port {} goes on learning: {refused}", status.port);
        }
        (status.refused, status.refused6) = (refused, refused6);
        let written = status.write(&self.dir());
        let is_written = written.is_ok();
        log(written.err());
        is_written
    }

    /// Saves the learned lease. An address whose lease cannot be saved is not used in rules: after
    /// a restart, no file would say when the lease ends. The loss of an address counts even if it
    /// cannot be saved, as on a full disk; the old lease is then removed.
    fn save_lease(&self, learning: &Learning, port: &InterfaceName) -> Result<(), BindingError> {
        let lease = learning.learner.lease();
        let leases6 = learning.table.as_ref().map(|table| table.leases()).unwrap_or_default();
        if !learning.learner.had_address() && leases6.is_empty() {
            return Ok(self.leases.remove(port)?);
        }
        let (index, mac) = (learning.index, learning.capture.guest());
        let is_empty = lease.is_none() && leases6.is_empty();
        let saved = SavedLease {
            port: port.clone(),
            index,
            mac,
            had_address: learning.learner.had_address(),
            lease,
            leases6,
        };
        match self.leases.write(&saved, &Clock::now()) {
            Err(error) if is_empty => {
                tracing::warn!("{}", error_text(&error));
                Ok(self.leases.remove(port)?)
            }
            written => Ok(written?),
        }
    }

    /// Returns a copy with the settings of the port's current rules. The learner may have started
    /// before these settings, and must not change them.
    fn with_settings_of(&self, status: &PortStatus) -> Bindings {
        let settings = BindingSettings {
            firewall_backend: Some(status.backend),
            enable_trace: status.trace,
            enable_counters: status.counters,
            ..self.settings.clone()
        };
        Bindings { settings, ..self.clone() }
    }

    /// Turns off a port whose rules could not be set because of `error`; a port that is off already
    /// stays off.
    pub(super) async fn turn_off(
        &self,
        port: &InterfaceName,
        index: u32,
        error: BindingError,
    ) -> BindingError {
        match set_link(port, index, false).await {
            Ok(true) => BindingError::TurnedOff { port: port.clone(), error: Box::new(error) },
            Ok(false) => error,
            Err(off) => {
                tracing::error!("{}", error_text(&error));
                off.into()
            }
        }
    }

    /// Turns on a port that netlaunch turned off because its rules could not be set.
    pub(super) async fn turn_on(&self, status: &PortStatus) {
        if status.is_off()
            && let Err(error) = set_link(&status.port, status.index, true).await
        {
            tracing::warn!("the port {} stays off: {}", status.port, error_text(&error));
        }
    }
}

/// Turns a port on or off; returns whether this changed it. Does nothing if the interface with this
/// name has another index, since it is not this port.
async fn set_link(port: &InterfaceName, index: u32, up: bool) -> Result<bool, LinkError> {
    let netlink = Netlink::open()?;
    match netlink.link(port).await {
        Ok(link) if link.index == index && link.up != up => {
            if up { netlink.up(port).await.map(drop) } else { netlink.down(port).await }?;
            Ok(true)
        }
        _ => Ok(false),
    }
}
