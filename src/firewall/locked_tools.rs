//! The firewall tools, for a process that holds a lock.
//!
//! Each tool inherits the lock and keeps it until the tool ends. If only netlaunch held the lock, a
//! kill of netlaunch would release it while a tool still changes rules. The next command could then
//! start, and the older tool would overwrite its work.

use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Tools;
use crate::sys::flock::Flock;

/// The tools and a lock, which is released when this value is dropped and the last tool has ended.
#[derive(Debug)]
pub struct LockedTools {
    tools: Tools,
    _lock: Flock<OwnedFd>,
}

impl LockedTools {
    /// Returns `tools` that hold `lock` while they run.
    ///
    /// # Errors
    /// Returns an error if the process has too many open files.
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
