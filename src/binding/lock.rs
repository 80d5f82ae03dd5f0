//! The right to change ports' filters: one lock for all commands.
//!
//! The tools hold it, too, for as long as they run. Were it ours alone, the next command could begin
//! after we were killed while a tool of ours still changes rules, and be overtaken by it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::Flock;

use super::{BindingError, Bindings};
use crate::firewall::Tools;
use crate::state;

/// How long to wait before trying for the lock again: at first, and when many wait, who must not
/// keep the one at work from its processor.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(32);

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    /// The tools to change rules with.
    pub(super) tools: Tools,
    _file: Flock<OwnedFd>,
}

impl Bindings {
    /// One command at a time. It never blocks: a process can have two, and one of them the lock.
    pub(super) async fn lock(&self) -> Result<Lock, BindingError> {
        let dir = self.dir();
        let failed = |source| BindingError::State { dir: dir.clone(), source };
        let mut file = state::lock_file(&dir).map_err(failed)?;
        let mut pause = FIRST_PAUSE;
        loop {
            file = match state::try_lock(file).map_err(failed)? {
                Ok(lock) => {
                    state::clean(&dir);
                    state::clean(self.leases.path());
                    return self.held(lock).map_err(failed);
                }
                Err(file) => file,
            };
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn held(&self, file: Flock<OwnedFd>) -> io::Result<Lock> {
        let tools = self.tools.holding(Arc::new(file.try_clone()?));
        Ok(Lock { tools, _file: file })
    }
}
