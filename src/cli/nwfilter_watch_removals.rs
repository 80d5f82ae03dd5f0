//! Shows `netlaunch nwfilter watch` that the filter of a port was removed.
//!
//! The guard closes such a port, and no interface changes. So the command watches the directory of
//! the bindings.

use std::collections::BTreeSet;

use crate::nwfilter::port::Bindings;
use crate::sys::file_events::FileEvents;

/// Returns the reports of removed bindings. Without them, a port whose filter is removed gets a new
/// one at the next change of an interface.
pub(super) fn removals(bindings: &Bindings) -> Option<FileEvents> {
    let dir = bindings.dir();
    let opened = FileEvents::open().and_then(|events| {
        events.watch_removals(&dir)?;
        Ok(events)
    });
    if let Err(error) = &opened {
        tracing::warn!("cannot watch {} for removed filters: {error}", dir.display());
    }
    opened.ok()
}

/// Waits until one of these ports has no filter any more.
pub(super) async fn removed(
    events: Option<&FileEvents>,
    bindings: &Bindings,
    bound: &BTreeSet<u32>,
) {
    while let Some(events) = events
        && events.next().await.is_ok()
    {
        let Ok(statuses) = bindings.list() else { return };
        let has_filter = |index: &u32| statuses.iter().any(|status| status.index == *index);
        // A failed bind removes its binding as well, and is tried again later.
        if !bound.iter().all(has_filter) {
            return;
        }
    }
    std::future::pending().await
}
