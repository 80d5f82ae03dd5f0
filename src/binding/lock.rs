//! The right to change ports' filters: one lock for all commands.

use std::time::Duration;

use super::{BindingError, Bindings};
use crate::firewall::LockedTools;
use crate::state;

/// How long to wait before trying for the lock again: at first, and when many wait, who must not
/// keep the one at work from its processor.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(32);

impl Bindings {
    /// One command at a time. It never blocks: a process can have two, and one of them the lock.
    pub(super) async fn lock(&self) -> Result<LockedTools, BindingError> {
        let dir = self.dir();
        let failed = |source| BindingError::State { dir: dir.clone(), source };
        let mut file = state::lock_file(&dir).map_err(failed)?;
        let mut pause = FIRST_PAUSE;
        loop {
            file = match state::try_lock(file).map_err(failed)? {
                Ok(lock) => {
                    state::clean(&dir);
                    state::clean(self.leases.path());
                    self.settle_names()?;
                    return LockedTools::new(&self.tools, lock).map_err(failed);
                }
                Err(file) => file,
            };
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
