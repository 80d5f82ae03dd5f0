//! What is kept about what runs: JSON files below the state directory and in launch directories.
//!
//! A file is replaced by renaming a complete one over it, so whoever reads sees the old or the new
//! and never a mixture. Everyone may read those below the state directory: what runs is no secret.
//! Whoever changes something there holds an exclusive flock(2) on `.lock` in the directory, from the
//! first look to the last rename. Whoever can open a file or a directory can keep it locked, so only
//! its owner can open that one, and of the directories above only the last one for reading.
//!
//! All work is done by descriptors of directories that only root and the caller can change
//! ([`crate::dir`]): a state that another user could have written is refused.
//!
//! Each module that keeps files about running things uses this; of the crate it uses `dir` and
//! `flock` alone.

mod wait;

use std::cmp::Ordering;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::Mode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::dir::{self, Dir, Modes, Trust, UNFINISHED};
use crate::flock::{Flock, FlockArg};
pub use wait::{Holder, LOCK_LIMIT, LockTimeout};
pub(crate) use wait::{lock, lock_blocking};

/// The name of the file that is locked.
pub(crate) const LOCK: &str = ".lock";

/// The most bytes of a status that are read; the largest real ones have some hundred kilobytes.
const MAX_BYTES: u64 = 64 << 20;

/// Who may read a file; its owner alone may write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Everyone.
    Everyone,
    /// Its owner.
    Owner,
}

impl Readers {
    fn mode(self) -> Mode {
        Mode::from_bits_truncate(match self {
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
        /// The kernel's error.
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
    let Ok(dir) = Dir::open(dir, Trust::Links) else { return };
    for name in dir.names().unwrap_or_default() {
        if is_unfinished(&name.to_string_lossy()) {
            // What stays is in nobody's way; the next command tries again.
            let _ = dir.remove_file(&name);
        }
    }
}

/// The file that is locked; made where it is missing, and the directory, too.
pub(crate) fn lock_file(dir: &Path) -> io::Result<OwnedFd> {
    make(dir)?.lock_file(LOCK.as_ref()).map(OwnedFd::from)
}

/// Makes a directory that everyone may read, with those above it.
fn make(dir: &Path) -> io::Result<Dir> {
    // Launches lock one of those above (`launch::runtime`), so only its owner may read it.
    let above = Dir::make(dir_of(dir), Trust::Last, Modes::all(0o711))?;
    drop(above);
    Dir::make(dir, Trust::Last, Modes::all(0o755))
}

/// Writes a status, whole or not at all; makes the directory where it is missing.
pub(crate) fn write(path: &Path, status: &impl Serialize) -> Result<(), StatusError> {
    let text = serde_json::to_vec_pretty(status).map_err(io::Error::other);
    let written = text.and_then(|text| {
        let (dir, name) = dir::split(path)?;
        make(dir)?.replace(name, &text, Readers::Everyone.mode(), false)
    });
    written.map_err(StatusError::io("write", path))
}

/// Replaces a file, or makes it, whole or not at all, in a directory that is there.
pub(crate) fn replace(path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    let (dir, name) = dir::split(path)?;
    Dir::open(dir, Trust::Last)?.replace(name, content, readers.mode(), false)
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

/// The text of a status; only a regular file is read, and only a bounded one.
fn text(path: &Path) -> Result<Option<Vec<u8>>, StatusError> {
    let opened = dir::split(path).and_then(|(dir, name)| Ok((Dir::open(dir, Trust::Last)?, name)));
    let (dir, name) = match opened {
        Ok(opened) => opened,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StatusError::io("read", path)(source)),
    };
    dir.read(name, MAX_BYTES).map_err(|source| match source.raw_os_error() {
        Some(errno) if errno != libc::ELOOP => StatusError::io("read", path)(source),
        // It is a link, no regular file, or too large; to read it again changes nothing.
        _ => StatusError::Damaged { path: path.to_owned(), what: source.to_string() },
    })
}

/// Removes a file; one that is not there is removed already.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let (dir, name) = dir::split(path)?;
    let dir = match Dir::open(dir, Trust::Last) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    match dir.remove_file(name) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        // A read-only file system refuses before it looks for the name.
        Err(Errno::EROFS) if dir.stat_of(name) == Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The names in `dir`; none where it is not there.
pub(crate) fn names(dir: &Path) -> Result<Vec<std::ffi::OsString>, StatusError> {
    match Dir::open(dir, Trust::Last).and_then(|dir| dir.names()) {
        Ok(names) => Ok(names),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(StatusError::io("read", dir)(source)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

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
    fn a_state_that_another_user_can_change_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped a_state_that_another_user_can_change_is_refused: it needs root");
            return;
        }
        const OTHER: Option<u32> = Some(54_321);
        let place = tempfile::tempdir().unwrap();
        let (mine, theirs) = (place.path().join("mine"), place.path().join("theirs"));
        let file = |dir: &Path| dir.join("made/port.json");
        for dir in [&mine, &theirs] {
            write(&file(dir), &1).unwrap();
        }
        let refused = |dir: &Path, why: &str| {
            let error = read::<u8>(&file(dir)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            lock_file(&dir.join("made")).unwrap_err();
            write(&file(dir), &2).unwrap_err();
            names(&dir.join("made")).unwrap_err();
            remove(&file(dir)).unwrap_err();
        };
        std::os::unix::fs::chown(theirs.join("made"), OTHER, OTHER).unwrap();
        refused(&theirs, "made belongs to user 54321");
        fs::set_permissions(mine.join("made"), fs::Permissions::from_mode(0o777)).unwrap();
        refused(&mine, "made can be written by other users");
        fs::set_permissions(mine.join("made"), fs::Permissions::from_mode(0o755)).unwrap();
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&mine, &link).unwrap();
        std::os::unix::fs::lchown(&link, OTHER, OTHER).unwrap();
        refused(&link, "link is a symbolic link of user 54321");
        assert_eq!(read(&file(&mine)).unwrap(), Some(1));
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
        fs::set_permissions(dir.join(LOCK), fs::Permissions::from_mode(0o644)).unwrap();
        drop(lock_file(&dir).unwrap());
        assert_eq!(mode(&dir.join(LOCK)), 0o600);
        let open = |name: &str| Dir::open(&dir, Trust::Last).unwrap().lock_file(name.as_ref());
        let file = dir.join("file");
        fs::write(&file, "").unwrap();
        open("file").unwrap();
        std::os::unix::fs::symlink(&file, dir.join("link")).unwrap();
        open("link").unwrap_err();
        // Closing a hard link would close the file elsewhere.
        fs::hard_link(&file, dir.join("hard")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        open("hard").unwrap_err();
        assert_eq!(mode(&file), 0o644);
    }
}
