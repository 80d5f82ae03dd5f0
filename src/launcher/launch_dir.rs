//! The launch directory: one for each launch, private, removed at every end.
//!
//! Launch directories `launch-XXXXXXXX` are in a *root*. A launch holds an exclusive flock(2) on
//! its directory. So a directory that is not locked was left by a killed launch, and the next start
//! removes it. Making a directory and locking it are two steps, and between them the directory
//! looks stale; therefore a start holds the root's own lock while it makes its directory and
//! removes stale ones. A flock belongs to the open file, which no child inherits, so the kernel
//! releases it when the process that holds it is killed. A process that can open a directory can
//! lock it, so other users may pass through the root but not read it.
//!
//! A launch with a name writes it into its directory, while it holds the root's lock. So of two
//! starts with one name at the same time, the second finds the first.
//!
//! A root is trusted only if no other user can change what its path means ([`crate::sys::dir`]).
//! Everything in it is made, locked and removed by the root's descriptor, and no link is followed.

mod root;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub(crate) use root::LaunchRoot;

use crate::sys::dir::Dir;
use crate::sys::flock::Flock;

/// Why a launch directory cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchDirError {
    /// The root cannot be made or opened.
    #[error("cannot use {} for launch directories", dir.display())]
    Root {
        /// The root.
        dir: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Another user can change what the root's path means.
    #[error("cannot use {} for launch directories", dir.display())]
    Untrusted {
        /// The root.
        dir: PathBuf,
        /// The directory or link on the path, and its owner.
        source: io::Error,
    },
    /// Another user made the root first.
    #[error("{} belongs to another user or is open to others", .0.display())]
    Foreign(PathBuf),
    /// The launch directory cannot be made.
    #[error("cannot make the launch directory {}", dir.display())]
    Make {
        /// The launch directory.
        dir: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Another launch of this user runs under the name.
    #[error("a launch with the name {name} runs already, in {}: use another name", dir.display())]
    NameInUse {
        /// The name.
        name: String,
        /// The directory of that launch.
        dir: PathBuf,
    },
    /// The launch directory cannot be removed.
    #[error("cannot remove the launch directory {}", dir.display())]
    Remove {
        /// The launch directory.
        dir: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

/// The directory of a launch of this process. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct LaunchDir {
    path: PathBuf,
    root: LaunchRoot,
    /// The root, opened.
    opened_root: Dir,
    lock: Option<Flock<OwnedFd>>,
}

impl LaunchDir {
    /// Removes the directory and everything in it, and the root if netlaunch chose it and it is
    /// empty.
    ///
    /// # Errors
    /// The kernel's error; the next start then removes the directory.
    pub(crate) fn remove(mut self) -> Result<(), LaunchDirError> {
        self.clear().map_err(|source| LaunchDirError::Remove { dir: self.path.clone(), source })
    }

    fn clear(&mut self) -> io::Result<()> {
        let Some(lock) = self.lock.take() else { return Ok(()) };
        let name = self.path.file_name().unwrap_or_default();
        root::keep_logs(&self.opened_root, name);
        let removed = self.opened_root.remove_all(name);
        drop(lock);
        if self.root.own {
            self.root.remove(&self.opened_root);
        }
        removed
    }
}

impl Drop for LaunchDir {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}
