//! The number of files that this process may have open.
//!
//! The soft limit is often 1024, and the hard limit is far higher. A process may raise its soft
//! limit up to the hard one. A program that this process starts inherits the raised limit; one that
//! uses select(2) cannot have descriptors above 1023, so it must get the caller's limit again.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The soft and the hard limit of open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileLimit {
    /// The limit that the kernel applies.
    pub(crate) soft: u64,
    /// The limit up to which the process may raise the soft one.
    pub(crate) hard: u64,
}

impl FileLimit {
    /// Returns the limits of this process.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn now() -> io::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(FileLimit { soft, hard })
    }

    /// Raises the soft limit of this process to the hard one.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn raise(self) -> io::Result<()> {
        Ok(setrlimit(Resource::RLIMIT_NOFILE, self.hard, self.hard)?)
    }
}

/// Returns the number of files that this process has open; 0 without /proc.
pub(crate) fn open_files() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
}
