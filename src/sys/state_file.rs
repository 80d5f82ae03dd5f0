//! Reads, writes and locks the JSON files about running ports, networks and launches, below the
//! state directory and in launch directories.
//!
//! A write makes a complete new file and renames it over the old one, so a reader sees the old or
//! the new content, never a mixture. A process that changes the files of a directory holds an
//! exclusive flock(2) on `.lock` in that directory, from its first read to its last rename. Taking
//! the lock removes the incomplete files that killed writers left.
//!
//! Every user may read the files below the state directory, because they hold no secrets. A process
//! that can open a file or directory can lock it. So only its owner can open `.lock`, and the
//! directories above the last one are readable only by their owner.
//!
//! All functions work by descriptors of directories that only root and the caller can change
//! ([`crate::sys::dir`]), and refuse a state that another user could have written. Imports: `dir`
//! and `flock`.

#[cfg(test)]
mod tests;
#[cfg(feature = "bridged")]
mod wait;

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::Mode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::dir::{self, Dir, Modes, Trust, UNFINISHED};
use crate::sys::flock::{Flock, FlockArg};
#[cfg(feature = "bridged")]
pub(crate) use wait::{LOCK_LIMIT, LockTimeout, lock, lock_blocking};

/// The name of the lock file in a directory.
pub(crate) const LOCK: &str = ".lock";

/// The maximum size of a status file in bytes. The largest real ones have some hundred kilobytes.
const MAX_BYTES: u64 = 64 << 20;

/// The users that may read a file. Only the owner may write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Every user.
    Everyone,
    /// The owner only.
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

/// A status file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateFileError {
    /// A system call on a file or directory failed.
    #[error("cannot {what} {}; check the directory's permissions and free space", path.display())]
    Io {
        /// "read", "make", "write" or "remove".
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A newer release wrote the file.
    #[error(
        "{} was written by a newer netlaunch: its version is {version}, and this netlaunch knows {known}; use the newer one to change what it is about", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of the file.
        version: u64,
        /// The version that this release writes.
        known: u32,
    },
    /// The content is not what netlaunch writes.
    #[error("{} is damaged: {what}; remove it, and by hand the firewall rules and links that it is about", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The mistake in the content.
        what: String,
    },
}

impl StateFileError {
    /// Makes the error of a failed operation on a file.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| StateFileError::Io { what, path, source }
    }
}

/// Tries to lock a file from [`lock_file`]. Returns the file if another process holds the lock.
fn try_lock(file: OwnedFd) -> io::Result<Result<Flock<OwnedFd>, OwnedFd>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Ok(lock)),
        Err((file, Errno::EWOULDBLOCK)) => Ok(Err(file)),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Returns whether this is the name of an incomplete new file.
///
/// A name with an extension is complete: the name of an interface can begin like that of an
/// incomplete file.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.strip_prefix(UNFINISHED).is_some_and(|rest| !rest.contains('.'))
}

/// Removes the incomplete files in `dir`, whose writers were killed. The caller holds the lock
/// under which files in `dir` are written.
///
/// A directory with a stamp has none, because an incomplete file that was made later would have
/// removed the stamp. So its names, of which there can be a thousand, are not read.
pub(crate) fn clean(dir: &Path) {
    let Ok(dir) = Dir::open(dir, Trust::LinksOnly) else { return };
    if dir.stamp().is_ok_and(|stamp| stamp.is_some()) {
        return;
    }
    for name in dir.names().unwrap_or_default() {
        if is_unfinished(&name.to_string_lossy()) {
            // A file that stays does no harm; the next command tries again.
            let _ = dir.remove_file(&name);
        }
    }
}

/// Opens the lock file of `dir`. Makes the file and the directory if they are missing.
pub(crate) fn lock_file(dir: &Path) -> io::Result<OwnedFd> {
    lock_file_named(dir, LOCK)
}

/// Opens the lock file with this name in a directory, and makes both if they are missing.
pub(crate) fn lock_file_named(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    make(dir)?.lock_file(name.as_ref()).map(OwnedFd::from)
}

/// Makes a directory that every user may read, and the directories above it.
fn make(dir: &Path) -> io::Result<Dir> {
    // Launches lock a directory above (`launcher::launch_dir`), so only its owner may read it.
    let above = Dir::make(dir_of(dir), Trust::LastDirectory, Modes::all(0o711))?;
    drop(above);
    Dir::make(dir, Trust::LastDirectory, Modes::all(0o755))
}

/// Writes a status file: replaces the whole file or leaves the old one. Makes the directory if it
/// is missing.
pub(crate) fn write(path: &Path, status: &impl Serialize) -> Result<(), StateFileError> {
    let text = serde_json::to_vec_pretty(status).map_err(io::Error::other);
    tracing::debug!("writes {}", path.display());
    let written = text.and_then(|text| {
        let (dir, name) = dir::split(path)?;
        // Usually the directory is there, so one walk of the path is enough.
        let dir = match Dir::open(dir, Trust::LastDirectory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(dir)?,
            opened => opened?,
        };
        dir.replace(name, &text, Readers::Everyone.mode(), false)
    });
    written.map_err(StateFileError::io("write", path))
}

/// Writes a file in an existing directory: replaces the whole file or leaves the old one.
pub(crate) fn replace(path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    let (dir, name) = dir::split(path)?;
    Dir::open(dir, Trust::LastDirectory)?.replace(name, content, readers.mode(), false)
}

fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Reads a status file. Returns `None` if the file is missing, because another command may have
/// removed it just now.
#[cfg(test)]
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateFileError> {
    let Some(text) = content(path)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(damaged(path))
}

/// Reads a status file of this version. Checks the member `version` before it reads the others,
/// because a newer format may differ in all of them.
pub(crate) fn read_version<T: DeserializeOwned>(
    path: &Path,
    known: u32,
) -> Result<Option<T>, StateFileError> {
    let Some(text) = content(path)? else { return Ok(None) };
    parse_version(path, &text, known)
}

/// The result of reading one of several status files.
pub(crate) type ReadFile<T> = (OsString, Result<Option<T>, StateFileError>);

/// Reads the status files in `dir` whose names `is_wanted` accepts, by name, as [`read_version`]
/// reads each of them. A missing directory has none.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn read_all<T: DeserializeOwned>(
    dir: &Path,
    known: u32,
    is_wanted: impl Fn(&OsStr) -> bool,
) -> Result<Vec<ReadFile<T>>, StateFileError> {
    let opened = match Dir::open(dir, Trust::LastDirectory) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.and_then(|dir| Ok((dir.names()?, dir))),
    };
    // Each file is opened by the descriptor of the directory: a walk of the whole path for each of
    // 200 files took 30 ms.
    let (names, opened) = opened.map_err(StateFileError::io("read", dir))?;
    let read = |name: OsString| {
        let path = dir.join(&name);
        let text = text_in(&opened, &name, &path);
        let file = text.and_then(|text| match text {
            Some(text) => parse_version(&path, &text, known),
            None => Ok(None),
        });
        (name, file)
    };
    Ok(names.into_iter().filter(|name| is_wanted(name)).map(read).collect())
}

/// Parses a status file of this version.
pub(crate) fn parse_version<T: DeserializeOwned>(
    path: &Path,
    text: &[u8],
    known: u32,
) -> Result<Option<T>, StateFileError> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u64,
    }
    let version = match leading_version(text) {
        Some(version) if version == u64::from(known) => version,
        _ => serde_json::from_slice::<Version>(text).map_err(damaged(path))?.version,
    };
    match version.cmp(&known.into()) {
        Ordering::Equal => serde_json::from_slice(text).map(Some).map_err(damaged(path)),
        Ordering::Greater => Err(StateFileError::Newer { path: path.to_owned(), version, known }),
        Ordering::Less => {
            let what = format!("its version is {version}, and the first one is 1");
            Err(StateFileError::Damaged { path: path.to_owned(), what })
        }
    }
}

/// Returns the version of a text that begins with it, as the texts of netlaunch do. So the parser
/// reads such a text once and not twice.
fn leading_version(text: &[u8]) -> Option<u64> {
    let rest = text.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start();
    let rest = rest.strip_prefix(b"\"version\"")?.trim_ascii_start().strip_prefix(b":")?;
    let end = rest.iter().position(|byte| matches!(byte, b',' | b'}'))?;
    std::str::from_utf8(&rest[..end]).ok()?.trim_ascii().parse().ok()
}

fn damaged(path: &Path) -> impl Fn(serde_json::Error) -> StateFileError {
    |error| StateFileError::Damaged { path: path.to_owned(), what: error.to_string() }
}

/// Reads the content of a file, which must be a regular file of bounded size. Returns `None` if the
/// file is missing.
pub(crate) fn content(path: &Path) -> Result<Option<Vec<u8>>, StateFileError> {
    let opened =
        dir::split(path).and_then(|(dir, name)| Ok((Dir::open(dir, Trust::LastDirectory)?, name)));
    let (dir, name) = match opened {
        Ok(opened) => opened,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateFileError::io("read", path)(source)),
    };
    text_in(&dir, name, path)
}

/// Reads the content of a status file in an open directory; `path` is for messages.
fn text_in(dir: &Dir, name: &OsStr, path: &Path) -> Result<Option<Vec<u8>>, StateFileError> {
    dir.read(name, MAX_BYTES).map_err(|source| match source.raw_os_error() {
        Some(errno) if errno != libc::ELOOP => StateFileError::io("read", path)(source),
        // The file is a link, not regular, or too large. A second attempt would not help.
        _ => StateFileError::Damaged { path: path.to_owned(), what: source.to_string() },
    })
}

/// Removes a file. A missing file is not an error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let (dir, name) = dir::split(path)?;
    let dir = match Dir::open(dir, Trust::LastDirectory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    match dir.remove_file(name) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        // A read-only file system reports this error before it looks for the name.
        Err(Errno::EROFS) if dir.stat_of(name) == Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns the names in `dir`, or none if `dir` is missing.
pub(crate) fn names(dir: &Path) -> Result<Vec<OsString>, StateFileError> {
    match Dir::open(dir, Trust::LastDirectory).and_then(|dir| dir.names()) {
        Ok(names) => Ok(names),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(StateFileError::io("read", dir)(source)),
    }
}
