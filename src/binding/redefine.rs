//! Changing a definition under the ports that use it.

use std::collections::BTreeMap;

use super::{BindingError, Bindings, Bound, Status};
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
        // Made where it is missing: the first port may be bound meanwhile. Where it cannot be made,
        // nobody with our rights binds one.
        let lock = match self.lock().await {
            Ok(lock) => Some(lock),
            Err(_) if !self.dir().exists() => None,
            Err(error) => return Err(error.into()),
        };
        let locked = self.store.lock().map_err(BindingError::from)?;
        let change = plan(&self.store)?;
        let (live, stale) = self.statuses()?;
        let (mut affected, mut others) = self.affected(live, &change)?;
        if let (Some((status, _)), None) = (affected.first(), &change.new) {
            let (filter, port) = (change.name.clone(), status.port.clone());
            return Err(BindingError::InUse { filter, port }.into());
        }
        let is_settled = !self.is_unsettled();
        match (is_settled, change.is_same_filter()) {
            // Nobody knows which rules a port has.
            (false, _) => affected.extend(self.bound(std::mem::take(&mut others))?),
            (true, true) => others.extend(affected.drain(..).map(|(status, _)| status)),
            (true, false) => {}
        }
        let lock = match lock {
            Some(lock) if !is_settled || !affected.is_empty() => lock,
            lock => {
                if let Some(lock) = &lock {
                    self.sweep(lock, &stale, &others).await;
                }
                locked.commit(&change).map_err(BindingError::from)?;
                return Ok(change);
            }
        };
        let wanted = self.wanted(&affected, &change.filters)?;
        let both = async {
            self.change(&lock, wanted, &stale, &others).await?;
            if let Err(error) = locked.commit(&change) {
                // The rules must not say what the definition does not.
                let apart = |error| BindingError::Apart { error: Box::new(error) };
                self.make_all_anew(&lock).await.map_err(apart)?;
                return Err(BindingError::from(error));
            }
            Ok(())
        };
        self.settled(both).await?;
        Ok(change)
    }

    /// The ports whose rules a change of definitions changes, and the others.
    pub(super) fn affected(
        &self,
        live: Vec<Status>,
        change: &Change,
    ) -> Result<(Vec<Bound>, Vec<Status>), BindingError> {
        let (mut affected, mut others) = (Vec::new(), Vec::new());
        // Ports mostly share their filters.
        let mut known: BTreeMap<FilterName, bool> = BTreeMap::new();
        for (status, binding) in self.bound(live)? {
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
        Ok((affected, others))
    }
}
