//! Changes a filter definition together with the rules of the ports that use it.
//!
//! Every user has definitions in a configuration directory of their own, but only root binds ports.
//! An ordinary user cannot take the [`lock`](super::lock) and does not need it: the rules of root's
//! ports come from root's definitions, even if the user has filters with the same names. So a
//! user's definitions change without a check of any port.
//!
//! The exception is a directory that bound ports use. A directory can be shared: a group may have
//! write access to root's directory, or root may bind ports with the directory in
//! NETLAUNCH_CONFIG_DIR. The status of each port records the directory of its last rules. If that
//! is the directory to be changed, under any path, a user without access to the lock is refused.
//! This applies to every filter in the directory, since root may bind any of them next.
//!
//! Known race: the first bind by root from a shared directory at the same moment is not detected.
//! The port then keeps the old rules until the next reload, as after a change with an editor.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::interface_names::Ports;
use super::{BindingError, Bindings, Bound, PortStatus, status};
use crate::nwfilter::{DefinitionChange, FilterName, FilterStore, Locked, reachable};

impl Bindings {
    /// Changes a definition and the rules of all ports that use the filter. `plan` is called under
    /// the lock.
    ///
    /// # Errors
    /// The error of `plan`, or [`BindingError`]; definition and rules are then unchanged.
    pub async fn commit<E: From<BindingError>>(
        &self,
        plan: impl FnOnce(&FilterStore) -> Result<DefinitionChange, E>,
    ) -> Result<DefinitionChange, E> {
        // This creates a missing directory, since the first port may be bound in the meantime.
        let (lock, ports) = match self.lock().await {
            Ok(locked) => locked,
            Err(error) if self.is_independent(&error)? => {
                let locked = self.lock_store()?;
                let change = plan(&self.store)?;
                write(&locked, &change)?;
                return Ok(change);
            }
            Err(error) => return Err(error.into()),
        };
        let locked = self.lock_store()?;
        let change = plan(&self.store)?;
        lock.check_readable()?;
        lock.warn_of_damaged();
        let Ports { live, stale, .. } = ports;
        let (mut affected, mut others) = self.affected(live, &change);
        if let (Some((status, _)), None) = (affected.first(), &change.new) {
            let (filter, port) = (change.name.clone(), status.port.clone());
            return Err(BindingError::InUse { filter, port }.into());
        }
        let had_no_marker = !self.has_marker();
        match (had_no_marker, change.is_same_filter()) {
            // A command was interrupted, so a port may have any rules: rebuild those of all ports.
            (false, _) => {
                let (bound, rest) = self.bound(std::mem::take(&mut others));
                affected.extend(bound);
                others = rest;
            }
            (true, true) => others.extend(affected.drain(..).map(|(status, _)| status)),
            (true, false) => {}
        }
        if had_no_marker && affected.is_empty() {
            self.collect_if_possible(&lock, &stale, &others).await;
            write(&locked, &change)?;
            return Ok(change);
        }
        let wanted = self.wanted(&affected, &change.filters)?;
        let both = async {
            self.change(&lock, wanted, &stale, &self.summaries(&others)).await?;
            if let Err(error) = locked.commit(&change) {
                // Rules must not differ from the definition, so rebuild them from the old one.
                let apart = |error| BindingError::RollbackFailed { error: Box::new(error) };
                let ports = self.ports().map_err(apart)?;
                self.rebuild_all(&lock, ports).await.map_err(apart)?;
                return Err(BindingError::from(error));
            }
            Ok(())
        };
        self.with_marker(both).await?;
        Ok(change)
    }

    /// Locks the definitions.
    fn lock_store(&self) -> Result<Locked<'_>, BindingError> {
        Ok(self.store.lock()?)
    }

    /// Returns whether definitions may change without the lock, which could not be taken because of
    /// `error`.
    fn is_independent(&self, error: &BindingError) -> Result<bool, BindingError> {
        let dir = self.dir();
        // If this user cannot create the directory, no user with the same rights can bind a port.
        if !dir.exists() {
            return Ok(true);
        }
        let BindingError::StateDir { source, .. } = error else { return Ok(false) };
        if source.kind() != io::ErrorKind::PermissionDenied {
            return Ok(false);
        }
        let ours = |status: &PortStatus| {
            status.definitions.as_deref().is_none_or(|theirs| is_same(theirs, self.store.dir()))
        };
        // A port with an unreadable status file may use these definitions.
        let (all, damaged) = status::all(&dir)?;
        Ok(damaged.is_empty() && !all.iter().any(ours))
    }

    /// Splits ports into those whose rules depend on the changed filter and the others.
    pub(super) fn affected(
        &self,
        live: Vec<PortStatus>,
        change: &DefinitionChange,
    ) -> (Vec<Bound>, Vec<PortStatus>) {
        let (bound, mut others) = self.bound(live);
        let mut affected = Vec::new();
        // Many ports share a filter, so compute each filter once.
        let mut known: BTreeMap<FilterName, bool> = BTreeMap::new();
        for (status, binding) in bound {
            let uses = *known.entry(binding.filter.clone()).or_insert_with(|| {
                let mut filters = change.filters.clone();
                if let Some(old) = &change.old {
                    filters.entry(change.name.clone()).or_insert_with(|| old.filter.clone());
                }
                reachable(&binding.filter, &filters).contains(&change.name)
            });
            if uses { affected.push((status, binding)) } else { others.push(status) }
        }
        (affected, others)
    }
}

/// Writes the changed definition.
fn write(locked: &Locked, change: &DefinitionChange) -> Result<(), BindingError> {
    Ok(locked.commit(change)?)
}

/// Returns whether two paths lead to one directory. Without access to a directory, the answer is
/// no.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |dir: &Path| fs::metadata(dir).map(|dir| (dir.dev(), dir.ino())).ok();
    one == other || identity(one).is_some_and(|id| identity(other) == Some(id))
}
