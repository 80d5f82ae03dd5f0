//! Making a port's rules with what was learnt about its guest.
//!
//! The learner's lease is checked and saved, and the rules are changed, under the lock of all ports'
//! filters: so two ports on one bridge cannot both get an address. Rules that cannot be set turn
//! the port off.

use super::learning::Learning;
use super::ports::Statuses;
use super::{BindingError, BindingSettings, Bindings, Status};
use crate::learn::{Clock, Kept};
use crate::link::Netlink;
use crate::types::InterfaceName;

impl Bindings {
    /// Keeps what was learnt about a port and checked, and makes its rules with it. `off` says that
    /// it is turned off, where its status does not.
    ///
    /// # Errors
    /// [`BindingError::TurnedOff`] when the rules cannot be set. [`BindingError`] otherwise.
    pub(super) async fn put_in_force(
        &self,
        learning: &mut Learning,
    ) -> Result<InForce, NotInForce> {
        let (index, off) = (learning.index, learning.off);
        let (tools, Statuses { mut live, stale, .. }) = self.lock().await?;
        let is_ours = |status: &Status| status.index == index;
        let Some(at) = live.iter().position(is_ours) else { return Ok(InForce::Gone) };
        let status = live.remove(at);
        let mut status = Status { turned_off: status.turned_off || off, ..status };
        learning.check(self.taken(&status, &live).await?)?;
        let port = &status.port.clone();
        let lease = learning.learner.lease();
        self.keep(learning, port)?;
        let address = lease.map(|lease| lease.address);
        let refused = learning.learner.refused().map(ToString::to_string);
        if refused != status.refused {
            if let Some(refused) = &refused {
                tracing::warn!("the port {port} goes on learning: {refused}");
            }
            status.refused = refused;
            if let Err(error) = status.write(&self.dir()) {
                tracing::warn!("{error}");
            }
        }
        if status.address == address && status.failed.is_none() && !off {
            return Ok(InForce::Was);
        }
        let changed = async {
            let binding = self.binding(&status)?;
            let filters = self.store.tree(&binding.filter)?;
            let bound = [(status.clone(), binding)];
            let mut wanted = self.wanted(&bound, &filters)?;
            // The lease was saved a moment ago, so a read that failed is tried once more: without it
            // the guest would wait until it speaks again.
            if wanted.iter().any(|wanted| wanted.address != address) {
                wanted = self.wanted(&bound, &filters)?;
            }
            let keeping = self.keeping(&status);
            let change = keeping.change(&tools, wanted, &stale, &live);
            // A change that was cut short is for the next command, which knows the settings.
            match self.is_unsettled() {
                true => change.await,
                false => self.settled(change).await,
            }
        };
        match changed.await {
            Ok(()) => Ok(InForce::Changed),
            Err(error) => {
                let error = self.turn_off(port, index, error).await;
                let turned_off =
                    status.turned_off || matches!(error, BindingError::TurnedOff { .. });
                let failed = Some(error.to_string());
                let written = Status { failed, turned_off, ..status }.write(&self.dir());
                if let Err(error) = &written {
                    tracing::warn!("{error}");
                }
                let is_known = turned_off && written.is_ok();
                Err(NotInForce { error, is_known })
            }
        }
    }

    /// Saves what was learnt. An address whose lease cannot be saved is not put in force: after a
    /// restart nothing would say until when the guest has it. That it has none any more counts
    /// even where it cannot be saved, as on a full disk; then the old lease is removed.
    fn keep(&self, learning: &Learning, port: &InterfaceName) -> Result<(), BindingError> {
        let lease = learning.learner.lease();
        if !learning.learner.is_taught() {
            return Ok(self.leases.remove(port)?);
        }
        let kept = Kept { port: port.clone(), index: learning.index, mac: learning.mac, lease };
        match self.leases.write(&kept, &Clock::now()) {
            Err(error) if lease.is_none() => {
                tracing::warn!("{error}");
                Ok(self.leases.remove(port)?)
            }
            kept => Ok(kept?),
        }
    }

    /// The driver with the settings that a port's rules were made with last. Who learns began before
    /// they were, and does not change them.
    fn keeping(&self, status: &Status) -> Bindings {
        let settings = BindingSettings {
            firewall_backend: Some(status.backend),
            enable_trace: status.trace,
            enable_counters: status.counters,
            ..self.settings.clone()
        };
        Bindings { settings, ..self.clone() }
    }

    /// Turns a port off whose rules could not be set, because of `error`; one that is off stays so.
    pub(super) async fn turn_off(
        &self,
        port: &InterfaceName,
        index: u32,
        error: BindingError,
    ) -> BindingError {
        let off = async {
            let netlink = Netlink::open()?;
            // Not another of its name.
            match netlink.link(port).await {
                Ok(link) if link.index == index && link.up => {
                    netlink.down(port).await.map(|()| true)
                }
                _ => Ok(false),
            }
        };
        match off.await {
            Ok(true) => BindingError::TurnedOff { port: port.clone(), error: Box::new(error) },
            Ok(false) => error,
            Err(off) => {
                tracing::error!("{error}");
                off.into()
            }
        }
    }
}

/// Why the rules could not be made with a learnt address.
pub(super) struct NotInForce {
    pub(super) error: BindingError,
    /// The port is off, and its status says so.
    pub(super) is_known: bool,
}

impl From<BindingError> for NotInForce {
    fn from(error: BindingError) -> Self {
        NotInForce { error, is_known: false }
    }
}

/// The outcome of a learnt address.
pub(super) enum InForce {
    /// The rules are made with it now.
    Changed,
    /// They were before.
    Was,
    /// The port, or its filter, is gone.
    Gone,
}
