//! The directory that holds launch directories.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sys::flock::{Flock, FlockArg};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod};
use nix::unistd::{AccessFlags, faccessat, geteuid};
use rand::RngExt;

use super::{LaunchDir, LaunchDirError};
use crate::launcher::kept_logs;
use crate::sys::dir::{self, Dir, Modes, Trust, Untrusted};

/// The start of the names of launch directories. Everything else in a root is left alone.
const PREFIX: &str = "launch-";

/// The file with the name of a launch, in the directory of a launch that has one.
const NAME: &str = "name";

/// The record of a launch, and the most bytes of it that are read.
const RECORD: &str = "launch.json";
const RECORD_LIMIT: u64 = 1 << 20;

/// Where launch directories are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LaunchRoot {
    /// The directory; made if it is missing.
    pub(crate) dir: PathBuf,
    /// Whether other users can write into the directory above (the temporary directory). A root
    /// that exists there is used only if it belongs to this user and is closed to others.
    pub(crate) shared_parent: bool,
    /// Whether netlaunch chose the directory. It then removes the directory when it is empty, and
    /// trusts it only if it belongs to this user. A directory that the caller chose may be a link,
    /// and stays.
    pub(crate) own: bool,
}

impl LaunchRoot {
    /// Returns a new name for a launch directory in this root.
    pub(crate) fn fresh(&self) -> PathBuf {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut bits: u64 = rand::rng().random();
        let mut name = PREFIX.to_owned();
        for _ in 0..8 {
            name.push(char::from(LETTERS[(bits & 31) as usize]));
            bits >>= 5;
        }
        self.dir.join(name)
    }

    /// Checks whether the caller can make launch directories here, without making any: the root is
    /// the caller's and can be written, or it is missing and can be made.
    ///
    /// # Errors
    /// Another user owns the root, or the kernel's error. [`LaunchRoot::create`] makes further
    /// checks, for example of links.
    pub(crate) fn check_usable(&self) -> io::Result<()> {
        let write = AccessFlags::W_OK | AccessFlags::X_OK;
        let can_write = |dir: &Path| faccessat(AT_FDCWD, dir, write, AtFlags::AT_EACCESS);
        match self.dir.symlink_metadata() {
            Ok(is) if is.is_dir() && is.uid() != geteuid().as_raw() => {
                Err(Untrusted::Owner { path: self.dir.clone(), owner: is.uid() }.into())
            }
            Ok(is) if is.is_dir() => Ok(can_write(&self.dir)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(can_write(self.dir.parent().unwrap_or(Path::new("/")))?)
            }
            _ => Ok(()),
        }
    }

    /// Makes and locks the launch directory `dir` (from [`LaunchRoot::fresh`]), and removes stale
    /// ones. No other launch has this name then.
    ///
    /// # Errors
    /// [`LaunchDirError`]; at most the root was made then.
    pub(crate) fn create(
        &self,
        dir: &Path,
        launch: Option<&str>,
    ) -> Result<LaunchDir, LaunchDirError> {
        let error = |source| LaunchDirError::Make { dir: dir.to_owned(), source };
        let name = dir.file_name().ok_or_else(|| error(io::ErrorKind::InvalidInput.into()))?;
        loop {
            let (place, root) = self.lock(FlockArg::LockExclusive)?;
            // From here on the root is not empty, so no other launch removes it.
            let made = match place.make_dir(name, Mode::S_IRWXU) {
                Ok(made) => made,
                // Another launch removed the empty root whose lock this one holds.
                Err(Errno::ENOENT) if self.own => continue,
                Err(errno) => return Err(error(errno.into())),
            };
            return match Flock::lock(made, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    remove_stale(&place);
                    kept_logs::expire(&place);
                    let (path, opened_root) = (dir.to_owned(), place);
                    let made =
                        LaunchDir { path, root: self.clone(), opened_root, lock: Some(lock) };
                    // A directory without its name is removed when `made` is dropped.
                    if let Some(launch) = launch {
                        self.claim(&made.opened_root, name, launch)?;
                    }
                    drop(root);
                    Ok(made)
                }
                Err((_, errno)) => {
                    let _ = place.remove_dir(name);
                    Err(error(errno.into()))
                }
            };
        }
    }

    /// Writes the name of a launch into its directory. The caller holds the lock of the root and
    /// has removed stale directories.
    fn claim(&self, place: &Dir, dir: &OsStr, launch: &str) -> Result<(), LaunchDirError> {
        let has_name = |other: &OsString| {
            let named =
                place.sub_dir(other).ok().and_then(|other| other.read(NAME.as_ref(), 64).ok());
            named.flatten().is_some_and(|name| name == launch.as_bytes())
        };
        if let Some(other) = entries(place).into_iter().find(has_name) {
            let (name, dir) = (launch.to_owned(), self.dir.join(other));
            return Err(LaunchDirError::NameInUse { name, dir });
        }
        let write = || -> io::Result<()> {
            let mut file = place.sub_dir(dir)?.create(NAME.as_ref(), Mode::S_IRUSR)?;
            file.write_all(launch.as_bytes())
        };
        write().map_err(|source| LaunchDirError::Make { dir: self.dir.join(dir), source })
    }

    /// Returns the directories of live launches.
    ///
    /// # Errors
    /// [`LaunchDirError`] when an existing root cannot be read; a missing one has no launches.
    #[cfg(any(test, feature = "cli"))]
    pub(crate) fn live(&self) -> Result<Vec<PathBuf>, LaunchDirError> {
        match self.open(None) {
            Err(LaunchDirError::Root { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                return Ok(Vec::new());
            }
            opened => opened?,
        };
        let (place, _lock) = self.lock(FlockArg::LockShared)?;
        let live = entries(&place).into_iter().filter(|name| is_locked(&place, name));
        Ok(live.map(|name| self.dir.join(name)).collect())
    }

    /// Removes the directories of killed launches, and that of an attachment whose NIC is gone.
    ///
    /// # Errors
    /// [`LaunchDirError`] if the root cannot be used.
    #[cfg(feature = "cli")]
    pub(crate) fn remove_collected(&self, attachment: &Path) -> Result<(), LaunchDirError> {
        let (place, _lock) = self.lock(FlockArg::LockExclusive)?;
        if let Some(name) = attachment.file_name() {
            remove_unlocked(&place, name);
        }
        remove_stale(&place);
        if self.own {
            self.remove(&place);
        }
        Ok(())
    }

    /// Returns the logs of the launch `name`: with the launch directory `dir` those of a launch
    /// that runs, else those of its last run. Each one has the name and the text of its file.
    ///
    /// # Errors
    /// The kernel's error; `NotFound` if there are no logs.
    #[cfg(feature = "cli")]
    pub(crate) fn logs(
        &self,
        dir: Option<&Path>,
        name: &str,
    ) -> Result<Vec<(String, Vec<u8>)>, LaunchDirError> {
        let (place, _) = self.open(None)?;
        let dir = dir.and_then(Path::file_name);
        kept_logs::read(&place, dir, name.as_ref()).map_err(|source| self.error(source))
    }

    /// Returns the directories of killed attachments whose guests may still have the NIC.
    ///
    /// # Errors
    /// [`LaunchDirError`] if the root cannot be used.
    #[cfg(feature = "cli")]
    pub(crate) fn left_attachments(&self) -> Result<Vec<PathBuf>, LaunchDirError> {
        let (place, _lock) = self.lock(FlockArg::LockShared)?;
        let mut left = entries(&place);
        left.retain(|name| !is_locked(&place, name) && is_attached(&place, name));
        Ok(left.into_iter().map(|name| self.dir.join(name)).collect())
    }

    /// Removes the root, which is open as `opened`, if it is empty.
    pub(super) fn remove(&self, opened: &Dir) {
        let Ok((parent, name)) = dir::split(&self.dir) else { return };
        let Ok(parent) = Dir::open(parent, Trust::WholePath) else { return };
        if let (Ok(named), Ok(opened)) = (parent.stat_of(name), opened.stat())
            && same(&named, &opened)
        {
            // Fails while other launches have their directories in the root.
            let _ = parent.remove_dir(name);
        }
    }

    /// Makes the root if it is missing and locks it. If another launch removes the root meanwhile,
    /// the lock is taken again, on the directory that has the name now.
    fn lock(&self, how: FlockArg) -> Result<(Dir, Flock<OwnedFd>), LaunchDirError> {
        let error = |errno: Errno| self.error(errno.into());
        // Root's passt runs as another user, and must reach the launch directory.
        let passes = geteuid().is_root() && !self.shared_parent;
        let mode = if passes { 0o711 } else { 0o700 };
        loop {
            let (place, is) = self.open(Some(Modes::all(mode)))?;
            let fd = place.readable(".".as_ref()).map_err(error)?;
            if self.own && is.st_mode & 0o044 != 0 {
                // Any user that can open the root could lock it.
                fchmod(&fd, Mode::from_bits_truncate(is.st_mode & 0o7733)).map_err(error)?;
            }
            let lock = Flock::lock(fd, how).map_err(|(_, errno)| error(errno))?;
            match self.open(None) {
                Ok((_, named)) if same(&named, &is) => return Ok((place, lock)),
                // Another launch has removed the root and perhaps made it again.
                Ok(_) => {}
                Err(LaunchDirError::Root { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens the root; makes it with these modes if it is missing.
    fn open(&self, modes: Option<Modes>) -> Result<(Dir, FileStat), LaunchDirError> {
        let opened = match modes {
            None => Dir::open(&self.dir, self.trust()),
            Some(modes) => match self.dir.parent() {
                // netlaunch does not make the temporary directory.
                Some(parent) if self.shared_parent => Dir::open(parent, Trust::WholePath).map(drop),
                _ => Ok(()),
            }
            .and_then(|()| Dir::make(&self.dir, self.trust(), modes)),
        };
        let opened = opened.and_then(|dir| {
            let is = dir.stat()?;
            Ok((dir, is))
        });
        let (dir, is) = opened.map_err(|source| self.error(source))?;
        let foreign = self.own && is.st_uid != geteuid().as_raw();
        if foreign || (self.shared_parent && is.st_mode & 0o077 != 0) {
            return Err(LaunchDirError::Foreign(self.dir.clone()));
        }
        Ok((dir, is))
    }

    /// Returns which users may be able to change what the path means.
    fn trust(&self) -> Trust {
        if self.own { Trust::WholePathNoLastLink } else { Trust::LastDirectory }
    }

    fn error(&self, source: io::Error) -> LaunchDirError {
        let dir = self.dir.clone();
        match Untrusted::in_error(&source) {
            Some(Untrusted::Owner { path, .. } | Untrusted::WritableByOthers(path))
                if *path == dir =>
            {
                LaunchDirError::Foreign(dir)
            }
            Some(_) => LaunchDirError::Untrusted { dir, source },
            None => LaunchDirError::Root { dir, source },
        }
    }
}

/// Returns whether both describe the same directory.
fn same(a: &FileStat, b: &FileStat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// Returns whether a process has locked a launch directory.
fn is_locked(place: &Dir, name: &OsStr) -> bool {
    let locked = place
        .readable(name)
        .and_then(|fd| Flock::lock(fd, FlockArg::LockSharedNonblock).map_err(|(_, errno)| errno));
    locked.err() == Some(Errno::EWOULDBLOCK)
}

/// Returns whether a directory is that of an attachment to a launch that lives. Its record says how
/// to take the NIC from the guest.
fn is_attached(place: &Dir, name: &OsStr) -> bool {
    let launch = || {
        let text = place.sub_dir(name).ok()?.read(RECORD.as_ref(), RECORD_LIMIT).ok()??;
        let record: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let dir = Path::new(record.pointer("/attached_to/dir")?.as_str()?);
        dir.file_name().map(OsStr::to_owned)
    };
    launch().is_some_and(|launch| is_locked(place, &launch))
}

/// Removes the launch directories that no process has locked, except those of attachments whose
/// guests may still have the NIC. The next start tries again after a failure.
fn remove_stale(place: &Dir) {
    for name in entries(place) {
        if !is_attached(place, &name) {
            remove_unlocked(place, &name);
        }
    }
}

/// Removes a launch directory if no process has locked it.
fn remove_unlocked(place: &Dir, name: &OsStr) {
    let Ok(dir) = place.readable(name) else { return };
    let Ok(_lock) = Flock::lock(dir, FlockArg::LockExclusiveNonblock) else { return };
    keep_logs(place, name);
    let dir = name.display();
    match place.remove_all(name) {
        Ok(()) => tracing::debug!(%dir, "removed the directory of a killed launch"),
        Err(error) => tracing::debug!(%dir, %error, "cannot remove"),
    }
}

/// Keeps the logs of a launch that has a name. The caller has locked its directory.
pub(super) fn keep_logs(place: &Dir, dir: &OsStr) {
    let name = place.sub_dir(dir).ok().and_then(|dir| dir.read(NAME.as_ref(), 64).ok().flatten());
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        kept_logs::keep(place, dir, OsStr::from_bytes(&name));
    }
}

/// Returns the names of the caller's launch directories, live or stale.
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
