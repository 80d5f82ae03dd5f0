//! Opens the launch directory to passt's user while passt starts.
//!
//! Debian 12's passt binds its socket and writes its pid file after it has changed to a user of its
//! own, so that user must be able to make files in the launch directory for that time. The
//! directory then has the user's group, which no other process has, and mode 1770: with the sticky
//! bit that user can neither rename nor replace netlaunch's files. Before and afterwards the
//! directory is closed to other users, and so also to a passt that an attack from the guest
//! controls.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, fchown, getegid};

use crate::types::TransientUser;

/// The mode of a launch directory in which passt's user may make files.
const OPEN: u32 = 0o1770;
/// The mode of a launch directory at all other times.
const CLOSED: u32 = 0o700;

/// A launch directory that is open to passt's user until this value is dropped.
#[derive(Debug)]
pub(super) struct OpenLaunchDir {
    path: PathBuf,
    dir: File,
}

impl OpenLaunchDir {
    /// Opens the directory to `user`.
    ///
    /// # Errors
    /// The kernel's error; the directory is then closed.
    pub(super) fn open(path: &Path, user: TransientUser) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let dir: OwnedFd = open(path, flags, Mode::empty())?;
        let gate = OpenLaunchDir { path: path.to_owned(), dir: dir.into() };
        fchown(&gate.dir, None, Some(Gid::from_raw(user.gid)))?;
        gate.mode(OPEN)?;
        Ok(gate)
    }

    fn mode(&self, mode: u32) -> io::Result<()> {
        self.dir.set_permissions(PermissionsExt::from_mode(mode))
    }
}

impl Drop for OpenLaunchDir {
    fn drop(&mut self) {
        let closed = self.mode(CLOSED);
        let closed = closed.and_then(|()| Ok(fchown(&self.dir, None, Some(getegid()))?));
        if let Err(error) = closed {
            tracing::warn!("cannot close {} to passt's user: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn a_launch_directory_is_open_to_one_group_and_closed_again() {
        if !geteuid().is_root() {
            eprintln!(
                "skipped a_launch_directory_is_open_to_one_group_and_closed_again: needs root"
            );
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let is = || {
            let is = dir.path().metadata().unwrap();
            (is.mode() & 0o7777, is.uid(), is.gid())
        };
        let user = TransientUser { uid: 60_001, gid: 60_002 };
        let gate = OpenLaunchDir::open(dir.path(), user).unwrap();
        assert_eq!(is(), (0o1770, 0, 60_002));
        drop(gate);
        assert_eq!(is(), (0o700, 0, getegid().as_raw()));

        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(OpenLaunchDir::open(&link, user).is_err(), "a link is not followed");
    }
}
