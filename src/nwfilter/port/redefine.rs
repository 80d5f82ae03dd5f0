//! Changing a definition under the ports that use it.
//!
//! Every user has definitions, in a configuration directory of his own, and root alone binds ports. An
//! ordinary user cannot have the [`lock`](super::lock), and does not need it: root's ports have their
//! rules of root's definitions, whatever filters of his have the same names. So his definitions change
//! alone, and no port is looked at.
//!
//! Unless they are those of a bound port. A directory can be shared: a group may write root's, or root
//! have bound by one that NETLAUNCH_CONFIG_DIR named. Each port's status says of which directory its
//! rules were made last, and where that is the one to be changed, under whatever path, who cannot have
//! the lock is refused. This holds for all filters in it: which of them root binds next, nobody knows.
//! That root binds the first port of a shared directory in this very moment is not seen; the port then
//! has the old rules until the next reload, as after a change with a plain editor.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::ports::Statuses;
use super::{BindingError, Bindings, Bound, Status, status};
use crate::nwfilter::{Change, FilterName, FilterStore, reachable};

impl Bindings {
    /// Makes a change of definitions, together with the rules of all ports that use the filter.
    /// `plan` is asked under the lock.
    ///
    /// # Errors
    /// What `plan` says, or [`BindingError`]; then definition and rules are as they were before.
    pub async fn commit<E: From<BindingError>>(
        &self,
        plan: impl FnOnce(&FilterStore) -> Result<Change, E>,
    ) -> Result<Change, E> {
        // Made where it is missing: the first port may be bound meanwhile.
        let (lock, statuses) = match self.lock().await {
            Ok(locked) => locked,
            Err(error) if self.changes_alone(&error)? => {
                let locked = self.store.lock().map_err(BindingError::from)?;
                let change = plan(&self.store)?;
                locked.commit(&change).map_err(BindingError::from)?;
                return Ok(change);
            }
            Err(error) => return Err(error.into()),
        };
        let locked = self.store.lock().map_err(BindingError::from)?;
        let change = plan(&self.store)?;
        lock.check_readable()?;
        lock.warn_of_damaged();
        let Statuses { live, stale, .. } = statuses;
        let (mut affected, mut others) = self.affected(live, &change);
        if let (Some((status, _)), None) = (affected.first(), &change.new) {
            let (filter, port) = (change.name.clone(), status.port.clone());
            return Err(BindingError::InUse { filter, port }.into());
        }
        let is_settled = !self.is_unsettled();
        match (is_settled, change.is_same_filter()) {
            // Nobody knows which rules a port has.
            (false, _) => {
                let (bound, rest) = self.bound(std::mem::take(&mut others));
                affected.extend(bound);
                others = rest;
            }
            (true, true) => others.extend(affected.drain(..).map(|(status, _)| status)),
            (true, false) => {}
        }
        if is_settled && affected.is_empty() {
            self.sweep(&lock, &stale, &others).await;
            locked.commit(&change).map_err(BindingError::from)?;
            return Ok(change);
        }
        let wanted = self.wanted(&affected, &change.filters)?;
        let both = async {
            self.change(&lock, wanted, &stale, &others).await?;
            if let Err(error) = locked.commit(&change) {
                // The rules must not say what the definition does not.
                let apart = |error| BindingError::Apart { error: Box::new(error) };
                let statuses = self.statuses().map_err(apart)?;
                self.make_all_anew(&lock, statuses).await.map_err(apart)?;
                return Err(BindingError::from(error));
            }
            Ok(())
        };
        self.settled(both).await?;
        Ok(change)
    }

    /// Whether definitions may change without the lock, which could not be had because of `error`.
    fn changes_alone(&self, error: &BindingError) -> Result<bool, BindingError> {
        let dir = self.dir();
        // Who cannot make it, and others with no more rights, bind no port.
        if !dir.exists() {
            return Ok(true);
        }
        let BindingError::State { source, .. } = error else { return Ok(false) };
        if source.kind() != io::ErrorKind::PermissionDenied {
            return Ok(false);
        }
        let ours = |status: &Status| {
            status.definitions.as_deref().is_none_or(|theirs| is_same(theirs, self.store.dir()))
        };
        // One that cannot be read may be of these definitions.
        let (all, damaged) = status::all(&dir)?;
        Ok(damaged.is_empty() && !all.iter().any(ours))
    }

    /// The ports whose rules a change of definitions changes, and the others.
    pub(super) fn affected(&self, live: Vec<Status>, change: &Change) -> (Vec<Bound>, Vec<Status>) {
        let (bound, mut others) = self.bound(live);
        let mut affected = Vec::new();
        // Ports mostly share their filters.
        let mut known: BTreeMap<FilterName, bool> = BTreeMap::new();
        for (status, binding) in bound {
            let uses = *known.entry(binding.filter.clone()).or_insert_with(|| {
                let mut filters = change.filters.clone();
                if let Some(old) = &change.old {
                    filters.entry(change.name.clone()).or_insert_with(|| old.filter.clone());
                }
                reachable(&binding.filter, &filters).contains(&change.name)
            });
            match uses {
                true => affected.push((status, binding)),
                false => others.push(status),
            }
        }
        (affected, others)
    }
}

/// Whether two paths lead to one directory. One that cannot be looked at is nobody's to change.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |dir: &Path| fs::metadata(dir).map(|dir| (dir.dev(), dir.ino())).ok();
    one == other || identity(one).is_some_and(|id| identity(other) == Some(id))
}
