//! What is kept about what runs: JSON files below the state directory.
//!
//! A file is replaced by renaming a complete one over it, so whoever reads sees the old or the new
//! and never a mixture. Everyone may read them: what runs is no secret. Whoever changes something
//! holds an exclusive flock(2) on `.lock` in the directory, from the first look to the last rename.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What the names of files start with that are not complete yet.
pub(crate) const UNFINISHED: &str = ".new-";

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

/// One command at a time: the right to change what `dir` says, which is made where it is missing.
pub(crate) fn lock(dir: &Path) -> io::Result<Flock<OwnedFd>> {
    Flock::lock(lock_file(dir)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// Tries for the same; gives the file of [`lock_file`] back where another command has it.
pub(crate) fn try_lock(file: OwnedFd) -> io::Result<Result<Flock<OwnedFd>, OwnedFd>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Ok(lock)),
        Err((file, Errno::EWOULDBLOCK)) => Ok(Err(file)),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Removes the files in `dir` that are not complete, for whoever holds the lock under which files are
/// written there: who began them was killed.
pub(crate) fn clean(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            // What stays is in nobody's way; the next command tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The file that is locked; made where it is missing.
pub(crate) fn lock_file(dir: &Path) -> io::Result<OwnedFd> {
    fs::create_dir_all(dir)?;
    let mut options = fs::OpenOptions::new();
    Ok(options.create(true).truncate(false).write(true).open(dir.join(".lock"))?.into())
}

/// Writes a status, whole or not at all; makes the directory where it is missing.
pub(crate) fn write(path: &Path, status: &impl Serialize) -> Result<(), StatusError> {
    let text = serde_json::to_vec_pretty(status).map_err(io::Error::other);
    let written = text.and_then(|text| {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(dir)?;
        file.write_all(&text)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        file.persist(path)?;
        Ok(())
    });
    written.map_err(StatusError::io("write", path))
}

/// Reads a status; `None` where there is none, since another command may just have removed it.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StatusError> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| StatusError::Damaged {
            path: path.to_owned(),
            what: error.to_string(),
        }),
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
