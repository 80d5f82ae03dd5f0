//! The lock of all ports' filters: one command at a time may change them.

use std::ops::Deref;

use super::index::{Overview, OwnPort};
use super::interface_names::Ports;
use super::status::Damaged;
use super::summary::PortSummary;
use super::{BindingError, Bindings};
use crate::firewall::LockedTools;
use crate::sys::state_file::{self, StateFileError};
use crate::types::{InterfaceName, error_text};

/// The held lock, and the firewall tools that inherit its descriptor.
#[derive(Debug)]
pub(super) struct Lock {
    tools: LockedTools,
    /// The status files that cannot be read. Their ports may have rules.
    damaged: Vec<Damaged>,
}

impl Deref for Lock {
    type Target = LockedTools;

    fn deref(&self) -> &LockedTools {
        &self.tools
    }
}

impl Lock {
    /// Returns whether there are ports whose rules are not known.
    pub(super) fn has_damaged(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// Refuses to change a port whose status file cannot be read: the port may have rules, and the
    /// file must not be overwritten.
    pub(super) fn check(&self, port: &InterfaceName) -> Result<(), BindingError> {
        match self.damaged.iter().find(|damaged| damaged.port.as_ref() == Some(port)) {
            Some(damaged) => Err(BindingError::Damaged(damaged.error.clone())),
            None => Ok(()),
        }
    }

    /// Refuses a change of filters if the kernel failed to read a status file, as with EIO or
    /// EMFILE. The next command may be able to read it, and its port would then have old rules.
    pub(super) fn check_readable(&self) -> Result<(), BindingError> {
        let is_refused = |damaged: &&Damaged| matches!(*damaged.error, StateFileError::Io { .. });
        match self.damaged.iter().find(is_refused) {
            Some(damaged) => Err(BindingError::Damaged(damaged.error.clone())),
            None => Ok(()),
        }
    }

    /// Logs a warning for each port that a command on all ports must leave out.
    pub(super) fn warn_of_damaged(&self) {
        for damaged in &self.damaged {
            tracing::warn!("{}", error_text(&damaged.error));
        }
    }
}

impl Bindings {
    /// Takes the lock of all ports' filters. Returns it with the status files as read under it. The
    /// wait does not block the thread: one process can have two such tasks, and one of them holds
    /// the lock.
    pub(super) async fn lock(&self) -> Result<(Lock, Ports), BindingError> {
        let mut lock = self.take_lock().await?;
        let ports = self.read_under(&mut lock)?;
        Ok((lock, ports))
    }

    /// Takes the lock for a change of one port, and first completes an interrupted change. Reads
    /// the status files of the other ports only if the [index](super::index) cannot be used.
    pub(super) async fn lock_for(
        &self,
        own: OwnPort<'_>,
    ) -> Result<(Lock, Overview), BindingError> {
        let mut lock = self.take_lock().await?;
        if let Some(overview) = self.indexed_overview(own) {
            return Ok((lock, overview));
        }
        let ports = self.read_under(&mut lock)?;
        let ports = self.complete_interrupted(&lock, ports).await?;
        Ok((lock, self.overview(ports, own)))
    }

    /// Does the same as [`lock_for`](Self::lock_for), and leaves an interrupted change to the next
    /// command.
    pub(super) async fn lock_for_learner(
        &self,
        index: u32,
    ) -> Result<(Lock, Overview), BindingError> {
        let (mut lock, own) = (self.take_lock().await?, OwnPort::Numbered(index));
        if let Some(overview) = self.indexed_overview(own) {
            return Ok((lock, overview));
        }
        let ports = self.read_under(&mut lock)?;
        Ok((lock, self.overview(ports, own)))
    }

    async fn take_lock(&self) -> Result<Lock, BindingError> {
        let dir = self.dir();
        let failed = |source: std::io::Error| match source.downcast() {
            Ok(timeout) => BindingError::Locked(timeout),
            Err(source) => BindingError::StateDir { dir: dir.clone(), source },
        };
        let lock = state_file::lock(&dir, self.lock_limit).await.map_err(failed)?;
        state_file::clean(self.leases.path());
        state_file::clean(&self.index_dir());
        let tools = LockedTools::new(&self.tools, lock).map_err(failed)?;
        Ok(Lock { tools, damaged: Vec::new() })
    }

    /// Reads all status files under the lock that was just taken.
    fn read_under(&self, lock: &mut Lock) -> Result<Ports, BindingError> {
        let mut ports = self.update_names()?;
        lock.damaged = std::mem::take(&mut ports.damaged);
        Ok(ports)
    }

    fn overview(&self, Ports { live, stale, .. }: Ports, own: OwnPort<'_>) -> Overview {
        let dir = self.dir();
        let (mut own_status, mut others) = (None, Vec::new());
        for status in live {
            if own.is(&status.port, status.index) {
                own_status = Some(status);
            } else {
                others.push(PortSummary::of(&status, &dir));
            }
        }
        Overview { own: own_status, others, stale }
    }
}
