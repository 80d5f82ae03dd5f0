//! The right to change ports' filters: one lock for all commands.

use std::ops::Deref;

use super::ports::Statuses;
use super::status::Damaged;
use super::{BindingError, Bindings};
use crate::firewall::LockedTools;
use crate::state::{self, StatusError};
use crate::types::InterfaceName;

/// The lock, with the tools that inherit it.
#[derive(Debug)]
pub(super) struct Lock {
    tools: LockedTools,
    /// The statuses that cannot be read. Ports that they are about may have rules.
    damaged: Vec<Damaged>,
}

impl Deref for Lock {
    type Target = LockedTools;

    fn deref(&self) -> &LockedTools {
        &self.tools
    }
}

impl Lock {
    /// Whether there are ports whose rules are not known.
    pub(super) fn has_damaged(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// Refuses to change a port whose status cannot be read: it may have rules, and its file stays
    /// as it is.
    pub(super) fn check(&self, port: &InterfaceName) -> Result<(), BindingError> {
        match self.damaged.iter().find(|damaged| damaged.port.as_ref() == Some(port)) {
            Some(damaged) => Err(BindingError::Damaged(damaged.error.clone())),
            None => Ok(()),
        }
    }

    /// Refuses a change of filters if the kernel did not let a status be read, as with EIO or EMFILE:
    /// the next command may read it, and its port would keep the rules of before.
    pub(super) fn check_readable(&self) -> Result<(), BindingError> {
        let is_refused = |damaged: &&Damaged| matches!(*damaged.error, StatusError::Io { .. });
        match self.damaged.iter().find(is_refused) {
            Some(damaged) => Err(BindingError::Damaged(damaged.error.clone())),
            None => Ok(()),
        }
    }

    /// Warns of ports that a command which is about all ports leaves out.
    pub(super) fn warn_of_damaged(&self) {
        for damaged in &self.damaged {
            tracing::warn!("{}", damaged.error);
        }
    }
}

impl Bindings {
    /// One command at a time. Returns with the lock what the statuses say under it. The wait does not
    /// block: a process can have two, and one of them the lock.
    pub(super) async fn lock(&self) -> Result<(Lock, Statuses), BindingError> {
        let dir = self.dir();
        let failed = |source: std::io::Error| match source.downcast() {
            Ok(timeout) => BindingError::Locked(timeout),
            Err(source) => BindingError::State { dir: dir.clone(), source },
        };
        let lock = state::lock(&dir, self.lock_limit).await.map_err(failed)?;
        state::clean(&dir);
        state::clean(self.leases.path());
        let mut statuses = self.settle_names()?;
        let tools = LockedTools::new(&self.tools, lock).map_err(failed)?;
        Ok((Lock { tools, damaged: std::mem::take(&mut statuses.damaged) }, statuses))
    }
}
