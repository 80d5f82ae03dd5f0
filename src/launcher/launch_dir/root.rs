//! The directory that holds launch directories.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::flock::{Flock, FlockArg};
use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod};
use nix::unistd::geteuid;
use rand::RngExt;

use super::{LaunchDir, RuntimeError};
use crate::dir::{self, Dir, Modes, Trust, Untrusted};

/// What the names of launch directories start with; everything else in a root is not ours.
const PREFIX: &str = "launch-";

/// Where launch directories are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchRoot {
    /// The directory; made when it is missing.
    pub dir: PathBuf,
    /// Whether it lies where others can write (the temporary directory), so that an existing one
    /// must be proven to be ours.
    pub shared_parent: bool,
    /// Whether it is ours to remove once it is empty.
    pub ours: bool,
}

impl LaunchRoot {
    /// A fresh name for a launch directory below this root.
    pub fn fresh(&self) -> PathBuf {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut bits: u64 = rand::rng().random();
        let mut name = PREFIX.to_owned();
        for _ in 0..8 {
            name.push(char::from(LETTERS[(bits & 31) as usize]));
            bits >>= 5;
        }
        self.dir.join(name)
    }

    /// Makes and locks the launch directory `dir` (from [`LaunchRoot::fresh`]), and removes those
    /// that killed launches left.
    ///
    /// # Errors
    /// [`RuntimeError`]; then nothing was made but, perhaps, the root.
    pub fn create(&self, dir: &Path) -> Result<LaunchDir, RuntimeError> {
        let error = |source| RuntimeError::Make { dir: dir.to_owned(), source };
        let name = dir.file_name().ok_or_else(|| error(io::ErrorKind::InvalidInput.into()))?;
        loop {
            let (place, root) = self.lock(FlockArg::LockExclusive)?;
            // The root is not empty from here on, so no other launch removes it.
            let made = match place.make_dir(name, Mode::S_IRWXU) {
                Ok(made) => made,
                // Another launch removed the empty root whose lock this one holds.
                Err(Errno::ENOENT) if self.ours => continue,
                Err(errno) => return Err(error(errno.into())),
            };
            return match Flock::lock(made, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    collect(&place);
                    drop(root);
                    let (path, root) = (dir.to_owned(), self.clone());
                    Ok(LaunchDir { path, root, place, lock: Some(lock) })
                }
                Err((_, errno)) => {
                    let _ = place.remove_dir(name);
                    Err(error(errno.into()))
                }
            };
        }
    }

    /// The directories of live launches.
    ///
    /// # Errors
    /// [`RuntimeError`] when an existing root cannot be read; a missing one has no launches.
    pub fn live(&self) -> Result<Vec<PathBuf>, RuntimeError> {
        match self.open(None) {
            Err(RuntimeError::Root { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            opened => opened?,
        };
        let (place, _lock) = self.lock(FlockArg::LockShared)?;
        let live = entries(&place).into_iter().filter(|name| {
            let locked = place.readable(name).and_then(|fd| {
                Flock::lock(fd, FlockArg::LockSharedNonblock).map_err(|(_, errno)| errno)
            });
            locked.err() == Some(Errno::EWOULDBLOCK)
        });
        Ok(live.map(|name| self.dir.join(name)).collect())
    }

    /// Removes the root, which is `place`, where it is empty.
    pub(super) fn remove(&self, place: &Dir) {
        let Ok((parent, name)) = dir::split(&self.dir) else { return };
        let Ok(parent) = Dir::open(parent, Trust::Way) else { return };
        if let (Ok(named), Ok(ours)) = (parent.stat_of(name), place.stat())
            && same(&named, &ours)
        {
            // Fails while other launches have their directories in it, as it must.
            let _ = parent.remove_dir(name);
        }
    }

    /// Makes the root where it is missing and locks it; the lock is of the directory that has the
    /// name now, not of one that was removed meanwhile.
    fn lock(&self, how: FlockArg) -> Result<(Dir, Flock<OwnedFd>), RuntimeError> {
        let error = |errno: Errno| self.error(errno.into());
        // Root's passt runs as another user, who has to get through to the launch directory.
        let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
        loop {
            let (place, is) = self.open(Some(Modes::all(mode)))?;
            let fd = place.readable(".".as_ref()).map_err(error)?;
            if self.ours && is.st_mode & 0o044 != 0 {
                // Any user who can open the root can keep it locked.
                fchmod(&fd, Mode::from_bits_truncate(is.st_mode & 0o7733)).map_err(error)?;
            }
            let lock = Flock::lock(fd, how).map_err(|(_, errno)| error(errno))?;
            match self.open(None) {
                Ok((_, named)) if same(&named, &is) => return Ok((place, lock)),
                Err(error @ (RuntimeError::Foreign(_) | RuntimeError::Untrusted { .. })) => {
                    return Err(error);
                }
                _ => {}
            }
        }
    }

    /// Opens the root; makes it where it is missing and there are modes for it.
    fn open(&self, modes: Option<Modes>) -> Result<(Dir, FileStat), RuntimeError> {
        let opened = match modes {
            None => Dir::open(&self.dir, self.trust()),
            Some(modes) => match self.dir.parent() {
                // The temporary directory is not made.
                Some(parent) if self.shared_parent => Dir::open(parent, Trust::Way).map(drop),
                _ => Ok(()),
            }
            .and_then(|()| Dir::make(&self.dir, self.trust(), modes)),
        };
        let opened = opened.and_then(|dir| {
            let is = dir.stat()?;
            Ok((dir, is))
        });
        let (dir, is) = opened.map_err(|source| self.error(source))?;
        let foreign = self.ours && is.st_uid != geteuid().as_raw();
        if foreign || (self.shared_parent && is.st_mode & 0o077 != 0) {
            return Err(RuntimeError::Foreign(self.dir.clone()));
        }
        Ok((dir, is))
    }

    /// Whom the path may depend on.
    fn trust(&self) -> Trust {
        if self.ours { Trust::Real } else { Trust::Last }
    }

    fn error(&self, source: io::Error) -> RuntimeError {
        let dir = self.dir.clone();
        match Untrusted::in_error(&source) {
            Some(Untrusted::Owner { path, .. } | Untrusted::Open(path)) if *path == dir => {
                RuntimeError::Foreign(dir)
            }
            Some(_) => RuntimeError::Untrusted { dir, source },
            None => RuntimeError::Root { dir, source },
        }
    }
}

/// Whether two descriptions are of the same directory.
fn same(a: &FileStat, b: &FileStat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// Removes the launch directories that no process has locked. Failures are left for the next start.
fn collect(place: &Dir) {
    for name in entries(place) {
        let Ok(dir) = place.readable(&name) else { continue };
        let Ok(_lock) = Flock::lock(dir, FlockArg::LockExclusiveNonblock) else { continue };
        let dir = name.display();
        match place.remove_all(&name) {
            Ok(()) => tracing::debug!(%dir, "removed what a killed launch left"),
            Err(error) => tracing::debug!(%dir, %error, "cannot remove"),
        }
    }
}

/// The names of the caller's launch directories, live or not.
fn entries(place: &Dir) -> Vec<OsString> {
    let user = geteuid().as_raw();
    let mut names = place.names().unwrap_or_default();
    names.retain(|name| {
        let is_dir = |stat: &FileStat| {
            stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() && stat.st_uid == user
        };
        name.to_string_lossy().starts_with(PREFIX)
            && place.stat_of(name).is_ok_and(|stat| is_dir(&stat))
    });
    names
}
