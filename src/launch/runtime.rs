//! Launch directories: one per launch, private, gone after every exit.
//!
//! A launch directory `launch-XXXXXXXX` lives in a *root*. Its owner holds an exclusive flock(2) on
//! it for as long as it lives, so a directory that nobody has locked was left by a killed launch,
//! and the next start removes it. Making a directory and locking it are two steps, and between them
//! it looks abandoned; therefore both making and collecting hold the root's own lock. flock belongs
//! to the open file, which no child inherits, so a killed owner's locks go with it. Whoever can open
//! a directory can keep it locked: ours is for others to pass through, not to read.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::geteuid;
use rand::RngExt;

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

/// Why a launch directory cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The root cannot be made or opened.
    #[error("cannot use {} for launch directories: {source}; make it writable, or set NETLAUNCH_STATE_DIR to a directory that is", dir.display())]
    Root {
        /// The root.
        dir: PathBuf,
        /// What the kernel said.
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
        /// What the kernel said.
        source: io::Error,
    },
    /// The launch directory cannot be removed.
    #[error("cannot remove the launch directory {}: {source}", dir.display())]
    Remove {
        /// The launch directory.
        dir: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
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
            let root = self.lock(FlockArg::LockExclusive)?;
            // In the directory that is locked, whatever has its name by now; from here on it is not
            // empty and keeps its name.
            match mkdirat(&*root, name, Mode::S_IRWXU) {
                Ok(()) => {}
                // Another launch has just removed the empty root whose lock we hold.
                Err(Errno::ENOENT) if self.ours => continue,
                Err(errno) => return Err(error(errno.into())),
            }
            let locked = lock_dir(dir, FlockArg::LockExclusiveNonblock);
            return match locked {
                Ok(lock) => {
                    self.collect();
                    let (path, root) = (dir.to_owned(), self.clone());
                    Ok(LaunchDir { path, root, lock: Some(lock) })
                }
                Err(errno) => {
                    let _ = fs::remove_dir(dir);
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
        if !self.dir.exists() {
            return Ok(Vec::new());
        }
        let _lock = self.lock(FlockArg::LockShared)?;
        let mut live: Vec<PathBuf> = self
            .entries()
            .into_iter()
            .filter(|dir| {
                lock_dir(dir, FlockArg::LockSharedNonblock).err() == Some(Errno::EWOULDBLOCK)
            })
            .collect();
        live.sort();
        Ok(live)
    }

    /// Removes directories that nobody has locked. Failures are left for the next start.
    fn collect(&self) {
        for dir in self.entries() {
            let Ok(_lock) = lock_dir(&dir, FlockArg::LockExclusiveNonblock) else { continue };
            match fs::remove_dir_all(&dir) {
                Ok(()) => {
                    tracing::debug!(dir = %dir.display(), "removed what a killed launch left")
                }
                Err(error) => tracing::debug!(dir = %dir.display(), %error, "cannot remove"),
            }
        }
    }

    /// Our launch directories, live or not.
    fn entries(&self) -> Vec<PathBuf> {
        let user = geteuid().as_raw();
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        entries
            .flatten()
            .filter(|entry| {
                let named = entry.file_name().to_string_lossy().starts_with(PREFIX);
                // Of the link itself, not of what a link points to.
                let ours = entry.metadata().is_ok_and(|m| m.is_dir() && m.uid() == user);
                named && ours
            })
            .map(|entry| entry.path())
            .collect()
    }

    /// Makes the root where it is missing and locks it; the lock is of the directory that has the
    /// name now, not of one that was removed while we waited.
    fn lock(&self, how: FlockArg) -> Result<Flock<OwnedFd>, RuntimeError> {
        let error = |source| RuntimeError::Root { dir: self.dir.clone(), source };
        loop {
            // Root's passt runs as another user, who has to get through to the launch directory.
            let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
            let mut builder = DirBuilder::new();
            builder.mode(mode).recursive(!self.shared_parent);
            match builder.create(&self.dir) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(error(e)),
                _ => {}
            }
            let fd = match open_dir(&self.dir, self.shared_parent) {
                Ok(fd) => fd,
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(error(errno.into())),
            };
            let file = File::from(fd);
            let held = file.metadata().map_err(error)?;
            if self.shared_parent
                && (held.uid() != geteuid().as_raw() || held.permissions().mode() & 0o077 != 0)
            {
                return Err(RuntimeError::Foreign(self.dir.clone()));
            }
            let mode = held.permissions().mode();
            if self.ours && held.uid() == geteuid().as_raw() && mode & 0o044 != 0 {
                let closed = fs::Permissions::from_mode(mode & 0o7733);
                file.set_permissions(closed).map_err(error)?;
            }
            let lock =
                Flock::lock(OwnedFd::from(file), how).map_err(|(_, errno)| error(errno.into()))?;
            if let Ok(named) = fs::metadata(&self.dir)
                && (named.dev(), named.ino()) == (held.dev(), held.ino())
            {
                return Ok(lock);
            }
        }
    }
}

/// Opens a directory; `direct` refuses a symbolic link.
fn open_dir(dir: &Path, direct: bool) -> nix::Result<OwnedFd> {
    let nofollow = if direct { OFlag::O_NOFOLLOW } else { OFlag::empty() };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | nofollow;
    open(dir, flags, Mode::empty())
}

fn lock_dir(dir: &Path, how: FlockArg) -> Result<Flock<OwnedFd>, Errno> {
    Flock::lock(open_dir(dir, true)?, how).map_err(|(_, errno)| errno)
}

/// A launch directory of ours. Dropping it removes it.
#[derive(Debug)]
pub struct LaunchDir {
    path: PathBuf,
    root: LaunchRoot,
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
    /// What the kernel said; the directory is then left to the next start.
    pub fn remove(mut self) -> Result<(), RuntimeError> {
        self.clear().map_err(|source| RuntimeError::Remove { dir: self.path.clone(), source })
    }

    fn clear(&mut self) -> io::Result<()> {
        let Some(lock) = self.lock.take() else { return Ok(()) };
        let removed = match fs::remove_dir_all(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        drop(lock);
        if self.root.ours {
            // Fails, as it should, while other launches have theirs in it.
            let _ = fs::remove_dir(&self.root.dir);
        }
        removed
    }
}

impl Drop for LaunchDir {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(dir: PathBuf) -> LaunchRoot {
        LaunchRoot { dir, shared_parent: false, ours: true }
    }

    #[test]
    fn a_directory_lives_as_long_as_its_owner() {
        let base = tempfile::tempdir().unwrap();
        let root = root(base.path().join("netlaunch"));
        let path = root.fresh();
        let dir = root.create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(root.live().unwrap(), std::slice::from_ref(&path));
        fs::write(path.join("passt.pid"), "1").unwrap();
        dir.remove().unwrap();
        assert!(!root.dir.exists(), "the empty root goes, too");
        assert_eq!(root.live().unwrap(), [] as [PathBuf; 0]);
    }

    #[test]
    fn the_next_start_removes_what_is_dead_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let root = root(base.path().to_owned());
        let dead = root.fresh();
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("passt.sock"), "").unwrap();
        let other = base.path().join("network");
        fs::create_dir(&other).unwrap();
        let link = base.path().join("launch-linklink");
        std::os::unix::fs::symlink(&other, &link).unwrap();
        let live = root.create(&root.fresh()).unwrap();
        let second = root.create(&root.fresh()).unwrap();
        assert!(!dead.exists());
        assert!(live.path().exists() && second.path().exists() && other.exists());
        assert!(link.symlink_metadata().is_ok());
        let mut both = [live.path().to_owned(), second.path().to_owned()];
        both.sort();
        assert_eq!(root.live().unwrap(), both);
    }

    #[test]
    fn many_at_once_do_not_collect_each_other() {
        let base = tempfile::tempdir().unwrap();
        let root = root(base.path().join("netlaunch"));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..40 {
                        let dir = root.create(&root.fresh()).unwrap();
                        fs::write(dir.path().join("launch.json"), "{}").unwrap();
                        assert!(dir.path().join("launch.json").exists());
                        dir.remove().unwrap();
                    }
                });
            }
        });
        assert!(!root.dir.exists());
    }

    #[test]
    fn a_root_in_a_shared_place_must_be_private() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("netlaunch-0");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let root = LaunchRoot { dir: dir.clone(), shared_parent: true, ours: true };
        assert!(matches!(root.create(&root.fresh()), Err(RuntimeError::Foreign(_))));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(root.create(&root.fresh()).is_ok());
    }

    #[test]
    fn others_cannot_open_what_is_locked() {
        let base = tempfile::tempdir().unwrap();
        let root = root(base.path().join("netlaunch"));
        let mode = || fs::metadata(&root.dir).unwrap().permissions().mode() & 0o7777;
        fs::create_dir(&root.dir).unwrap();
        fs::set_permissions(&root.dir, fs::Permissions::from_mode(0o755)).unwrap();
        let dir = root.create(&root.fresh()).unwrap();
        assert_eq!(mode(), 0o711);
        dir.remove().unwrap();
        // One that the user has chosen is the user's.
        fs::create_dir(&root.dir).unwrap();
        fs::set_permissions(&root.dir, fs::Permissions::from_mode(0o755)).unwrap();
        let theirs = LaunchRoot { ours: false, ..root.clone() };
        drop(theirs.create(&theirs.fresh()).unwrap());
        assert_eq!(mode(), 0o755);
    }

    #[test]
    fn an_impossible_root_is_named() {
        let root = root("/proc/netlaunch".into());
        let text = root.create(&root.fresh()).unwrap_err().to_string();
        assert!(text.starts_with("cannot use /proc/netlaunch for launch directories"), "{text}");
    }
}
