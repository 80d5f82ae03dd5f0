//! What is kept about what runs: JSON files below the state directory and in launch directories.
//!
//! A file is replaced by renaming a complete one over it, so whoever reads sees the old or the new
//! and never a mixture. Everyone may read those below the state directory: what runs is no secret.
//! Whoever changes something there holds an exclusive flock(2) on `.lock` in the directory, from the
//! first look to the last rename. Whoever can open a file or a directory can keep it locked, so only
//! its owner can open that one, and of the directories above only the last one for reading.
//!
//! Whoever keeps something uses this; it uses nothing of the crate.

mod wait;

use std::cmp::Ordering;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use wait::{Holder, LOCK_LIMIT, LockTimeout};
pub(crate) use wait::{lock, lock_blocking};

/// The name of the file that is locked.
pub(crate) const LOCK: &str = ".lock";

/// What the names of files start with that are not complete yet.
pub(crate) const UNFINISHED: &str = ".new-";

/// The longest status that is read, in bytes. That of a port with 10,000 rules has less than 1 MiB.
const LONGEST: u64 = 64 << 20;

/// Who may read a file; its owner alone may write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Everyone.
    Everyone,
    /// Its owner.
    Owner,
}

impl Readers {
    fn permissions(self) -> fs::Permissions {
        fs::Permissions::from_mode(match self {
            Readers::Everyone => 0o644,
            Readers::Owner => 0o600,
        })
    }
}

/// Why a status cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// A file.
    #[error("cannot {what} {}: {source}; check the directory's permissions and free space", path.display())]
    Io {
        /// "read", "write" or "remove".
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A newer netlaunch wrote it.
    #[error(
        "{} was written by a newer netlaunch: its version is {version}, and this netlaunch knows {known}; use the newer one to change what it is about", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
        /// The version that this release writes.
        known: u32,
    },
    /// It is not what netlaunch writes.
    #[error("{} is damaged: {what}; remove it, and by hand the firewall rules and links that it is about", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl StatusError {
    /// The error that something cannot be done with a file.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| StatusError::Io { what, path, source }
    }
}

/// Tries for the lock on the file of [`lock_file`]; gives it back where another command has it.
fn try_lock(file: OwnedFd) -> io::Result<Result<Flock<OwnedFd>, OwnedFd>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Ok(lock)),
        Err((file, Errno::EWOULDBLOCK)) => Ok(Err(file)),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Whether a file of this name is not complete yet. One that has an ending is: an interface may be
/// called what unfinished files are.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.strip_prefix(UNFINISHED).is_some_and(|rest| !rest.contains('.'))
}

/// Removes the files in `dir` that are not complete, for whoever holds the lock under which files are
/// written there: who began them was killed.
pub(crate) fn clean(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if is_unfinished(&entry.file_name().to_string_lossy()) {
            // What stays is in nobody's way; the next command tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The file that is locked; made where it is missing, and the directory, too.
pub(crate) fn lock_file(dir: &Path) -> io::Result<OwnedFd> {
    make(dir)?;
    open_lock(&dir.join(LOCK)).map(OwnedFd::from)
}

/// Opens a file that is to be locked, and makes it where it is missing. One of ours that others can
/// open is closed to them.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = match options.open(path) {
        // A lock needs no right to write, and what was made can be taken away all the same.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?
        }
        opened => opened?,
    };
    let is = file.metadata()?;
    if is.mode() & 0o077 != 0 && is.uid() == geteuid().as_raw() {
        file.set_permissions(Readers::Owner.permissions())?;
    }
    Ok(file)
}

/// Makes a directory that everyone may read, with those above it.
fn make(dir: &Path) -> io::Result<()> {
    // Launches lock one of those (`launch::runtime`).
    DirBuilder::new().recursive(true).mode(0o711).create(dir_of(dir))?;
    DirBuilder::new().recursive(true).mode(0o755).create(dir)
}

/// Writes a status, whole or not at all; makes the directory where it is missing.
pub(crate) fn write(path: &Path, status: &impl Serialize) -> Result<(), StatusError> {
    let text = serde_json::to_vec_pretty(status).map_err(io::Error::other);
    let written = text.and_then(|text| {
        make(dir_of(path))?;
        replace(path, &text, Readers::Everyone)
    });
    written.map_err(StatusError::io("write", path))
}

/// Replaces a file, or makes it, whole or not at all, in a directory that is there.
pub(crate) fn replace(path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(dir_of(path))?;
    file.write_all(content)?;
    file.as_file().set_permissions(readers.permissions())?;
    file.persist(path)?;
    Ok(())
}

fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Reads a status; `None` where there is none, since another command may just have removed it.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StatusError> {
    let Some(text) = text(path)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(damaged(path))
}

/// Reads a status of this version. Its member `version` is looked at first, since a newer form may
/// differ in all others.
pub(crate) fn read_version<T: DeserializeOwned>(
    path: &Path,
    known: u32,
) -> Result<Option<T>, StatusError> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u64,
    }
    let Some(text) = text(path)? else { return Ok(None) };
    let Version { version } = serde_json::from_slice(&text).map_err(damaged(path))?;
    match version.cmp(&known.into()) {
        Ordering::Equal => serde_json::from_slice(&text).map(Some).map_err(damaged(path)),
        Ordering::Greater => Err(StatusError::Newer { path: path.to_owned(), version, known }),
        Ordering::Less => {
            let what = format!("its version is {version}, and the first one is 1");
            Err(StatusError::Damaged { path: path.to_owned(), what })
        }
    }
}

fn damaged(path: &Path) -> impl Fn(serde_json::Error) -> StatusError {
    |error| StatusError::Damaged { path: path.to_owned(), what: error.to_string() }
}

/// The text of a status. Opening a FIFO for reading would wait for a writer, and a device may never
/// end, so only a regular file is read.
fn text(path: &Path) -> Result<Option<Vec<u8>>, StatusError> {
    let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let read = opened.and_then(|file| {
        let mut text = Vec::new();
        match file.metadata()?.is_file() {
            true => file.take(LONGEST).read_to_end(&mut text).map(|_| Some(text)),
            false => Ok(None),
        }
    });
    match read {
        Ok(Some(text)) => Ok(Some(text)),
        Ok(None) => {
            let what = "it is no regular file".to_owned();
            Err(StatusError::Damaged { path: path.to_owned(), what })
        }
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StatusError::io("read", path)(source)),
    }
}

/// Removes a file; one that is not there is removed already.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The names in `dir`; none where it is not there.
pub(crate) fn names(dir: &Path) -> Result<Vec<std::ffi::OsString>, StatusError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StatusError::io("read", dir)(source)),
    };
    let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name())).collect();
    let mut names = names.map_err(StatusError::io("read", dir))?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_status_is_replaced_whole_and_everyone_may_read_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("made/port.json");
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), None);
        for status in [vec![1, 2, 3], vec![4]] {
            write(&path, &status).unwrap();
            assert_eq!(read(&path).unwrap(), Some(status));
            assert_eq!(mode(&path), 0o644);
        }
        assert_eq!(names(&place.path().join("made")).unwrap(), ["port.json"]);
        fs::write(&path, "[4").unwrap();
        assert!(matches!(read::<Vec<u8>>(&path), Err(StatusError::Damaged { .. })));
    }

    #[test]
    fn what_cannot_be_replaced_stays_and_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let secret = place.path().join("secret");
        replace(&secret, b"old", Readers::Owner).unwrap();
        assert_eq!(mode(&secret), 0o600);
        let taken = place.path().join("taken");
        fs::create_dir(&taken).unwrap();
        replace(&taken, b"new", Readers::Owner).unwrap_err();
        assert_eq!(names(place.path()).unwrap(), ["secret", "taken"]);
        // A directory that is gone, such as that of a launch that ended, is not made again.
        let gone = place.path().join("gone");
        replace(&gone.join("file"), b"new", Readers::Owner).unwrap_err();
        assert!(!gone.exists());
    }
    #[test]
    fn only_its_owner_can_open_what_is_locked() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("state/made");
        drop(lock_file(&dir).unwrap());
        assert_eq!(mode(&dir.join(LOCK)), 0o600);
        // Launches lock the upper one; everyone reads what is in the lower one.
        assert_eq!([mode(&place.path().join("state")), mode(&dir)], [0o711, 0o755]);
        // As it was made before.
        fs::set_permissions(dir.join(LOCK), Readers::Everyone.permissions()).unwrap();
        drop(lock_file(&dir).unwrap());
        assert_eq!(mode(&dir.join(LOCK)), 0o600);
        let file = dir.join("file");
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, dir.join("link")).unwrap();
        open_lock(&dir.join("link")).unwrap_err();
    }
}
