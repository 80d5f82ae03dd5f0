//! The tools in the hands of who holds a lock.
//!
//! The tools hold it, too, for as long as they run. Were it ours alone, the next command could begin
//! after we were killed while a tool of ours still changes rules, and be overtaken by it.

use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Tools;
use crate::flock::Flock;

/// A lock, held until this is dropped and the last of the tools has ended.
#[derive(Debug)]
pub struct LockedTools {
    tools: Tools,
    _lock: Flock<OwnedFd>,
}

impl LockedTools {
    /// `tools` under `lock`.
    ///
    /// # Errors
    /// There are too many open files.
    pub(crate) fn new(tools: &Tools, lock: Flock<OwnedFd>) -> io::Result<Self> {
        Ok(LockedTools { tools: tools.holding(Arc::new(lock.try_clone()?)), _lock: lock })
    }
}

impl Deref for LockedTools {
    type Target = Tools;

    fn deref(&self) -> &Tools {
        &self.tools
    }
}
