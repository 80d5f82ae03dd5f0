//! Launch directories: one per launch, private, gone after every exit.
//!
//! A launch directory `launch-XXXXXXXX` lives in a *root*. Its owner holds an exclusive flock(2) on
//! it for as long as it lives, so a directory that nobody has locked was left by a killed launch,
//! and the next start removes it. Making a directory and locking it are two steps, and between them
//! it looks abandoned; therefore both making and collecting hold the root's own lock. flock belongs
//! to the open file, which no child inherits, so a killed owner's locks go with it. Whoever can open
//! a directory can keep it locked: ours is for others to pass through, not to read.

//!
//! A root is trusted only if no other user can change what its path means ([`crate::dir`]); all that
//! is made, locked and removed in it is so by the root's descriptor, and no link is followed.

mod root;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub use root::LaunchRoot;

use crate::dir::Dir;
use crate::flock::Flock;

/// Why a launch directory cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The root cannot be made or opened.
    #[error("cannot use {} for launch directories: {source}; make it writable, or set NETLAUNCH_STATE_DIR to a directory that is", dir.display())]
    Root {
        /// The root.
        dir: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Another user can change what the root's path means.
    #[error("cannot use {} for launch directories: {source}; set NETLAUNCH_STATE_DIR to a directory that no other user can change", dir.display())]
    Untrusted {
        /// The root.
        dir: PathBuf,
        /// Which directory or link on the way, and whose it is.
        source: io::Error,
    },
    /// Somebody else made the root first.
    #[error("{} belongs to another user or is open to others; remove it, or set NETLAUNCH_STATE_DIR to a directory of your own", .0.display())]
    Foreign(PathBuf),
    /// The launch directory cannot be made.
    #[error("cannot make the launch directory {}: {source}; make its parent writable, or set NETLAUNCH_STATE_DIR to a directory that is", dir.display())]
    Make {
        /// The launch directory.
        dir: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The launch directory cannot be removed.
    #[error("cannot remove the launch directory {}: {source}", dir.display())]
    Remove {
        /// The launch directory.
        dir: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

/// A launch directory of ours. Dropping it removes it.
#[derive(Debug)]
pub struct LaunchDir {
    path: PathBuf,
    root: LaunchRoot,
    /// The root itself, in which the directory has its name.
    place: Dir,
    lock: Option<Flock<OwnedFd>>,
}

impl LaunchDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directory and all in it, and the root where that is ours and empty.
    ///
    /// # Errors
    /// The kernel's error; the directory is then left to the next start.
    pub fn remove(mut self) -> Result<(), RuntimeError> {
        self.clear().map_err(|source| RuntimeError::Remove { dir: self.path.clone(), source })
    }

    fn clear(&mut self) -> io::Result<()> {
        let Some(lock) = self.lock.take() else { return Ok(()) };
        let name = self.path.file_name().unwrap_or_default();
        let removed = self.place.remove_all(name);
        drop(lock);
        if self.root.ours {
            self.root.remove(&self.place);
        }
        removed
    }
}

impl Drop for LaunchDir {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}
