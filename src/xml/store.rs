//! A directory of definitions that users make: one file `NAME.xml` for each, and the lock for
//! changes.
//!
//! A writer replaces a file by renaming a complete one over it. So a reader always sees the old or
//! the new definition, never a mixture, and it needs neither a lock nor write permission. A writer
//! holds an exclusive flock(2) on the file `.lock` from its first read of the other definitions to
//! its last rename ([`DefinitionDir::lock`]). So two processes cannot make conflicting definitions,
//! and neither overwrites a change that it has not read.
//!
//! The lock is on a file that only its owner can open, not on the directory. All users can open the
//! directory, and any process that can open a file or a directory can keep it locked.

#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use nix::sys::stat::Mode;

use crate::sys::dir::{Dir, Modes, Trust, split};
use crate::sys::flock::Flock;
use crate::sys::input::{self, Pipes};
use crate::sys::state_file::{LOCK, LOCK_LIMIT, lock_blocking};
use crate::xml::MAX_BYTES;

/// The mode of a definition's file, 0644.
const MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR).union(Mode::S_IRGRP).union(Mode::S_IROTH);

/// A file or directory of definitions cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}; correct its permissions, or use another directory", path.display())]
pub struct FileError {
    /// The failed action, such as `read` or `write`.
    doing: &'static str,
    /// The file or directory.
    path: PathBuf,
    /// The kernel's error.
    source: io::Error,
}

/// Returns a function that makes a [`FileError`] from the kernel's error.
fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError { doing, path: path.to_owned(), source }
}

/// The origin of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The definition is compiled into the program.
    BuiltIn,
    /// The definition is in this file.
    File(PathBuf),
}

/// A file whose definition cannot be used.
#[derive(Debug)]
pub struct BrokenFile<N, E> {
    /// The name that the file name gives.
    pub name: N,
    /// The reason why the definition cannot be used.
    pub error: E,
}

/// The usable definitions, and the files whose definition cannot be used.
pub type DefinitionList<N, D, E> = (Vec<D>, Vec<BrokenFile<N, E>>);

/// The path of a directory of definitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionDir(PathBuf);

impl DefinitionDir {
    /// Keeps the path; it neither makes nor reads the directory.
    pub fn new(path: PathBuf) -> Self {
        DefinitionDir(path)
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the path for the definition with this name, whether or not the file exists.
    pub fn file(&self, name: &impl Display) -> PathBuf {
        self.0.join(format!("{name}.xml"))
    }

    /// Returns all definitions in the order of their names, and the broken files.
    ///
    /// The names are those of `built_in` and those of the files; `find` reads the definition with
    /// one name. A broken file does not hide the other definitions.
    ///
    /// # Errors
    /// [`FileError`] if the directory exists and cannot be read.
    pub fn list<N: Ord + FromStr, D, E>(
        &self,
        built_in: impl IntoIterator<Item = N>,
        find: impl Fn(&N) -> Result<Option<D>, E>,
    ) -> Result<DefinitionList<N, D, E>, FileError> {
        let mut names: BTreeSet<N> = built_in.into_iter().collect();
        names.extend(self.names()?);
        let (mut definitions, mut broken) = (Vec::new(), Vec::new());
        for name in names {
            match find(&name) {
                Ok(found) => definitions.extend(found),
                Err(error) => broken.push(BrokenFile { name, error }),
            }
        }
        Ok((definitions, broken))
    }

    /// Returns the names that the files `NAME.xml` have. Other files are ignored.
    fn names<N: FromStr>(&self) -> Result<Vec<N>, FileError> {
        let opened = Dir::open(&self.0, Trust::WholePath).and_then(|_| fs::read_dir(&self.0));
        let entries = match opened {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("read", &self.0)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed("read", &self.0))?.path();
            if path.extension() == Some(OsStr::new("xml")) {
                let stem = path.file_stem().and_then(OsStr::to_str);
                names.extend(stem.and_then(|stem| stem.parse::<N>().ok()));
            }
        }
        Ok(names)
    }

    /// Makes the directory if it is missing, takes its lock, and removes unfinished files.
    ///
    /// # Errors
    /// [`FileError`] if the directory cannot be made or the lock cannot be taken, for example
    /// because another process holds the lock for longer than `LOCK_LIMIT`.
    pub fn lock(&self) -> Result<DefinitionLock<'_>, FileError> {
        let dir = make(&self.0)?;
        let path = self.0.join(LOCK);
        let file = dir.lock_file(LOCK.as_ref()).map_err(failed("open", &path))?;
        let lock =
            lock_blocking(&self.0, file.into(), LOCK_LIMIT).map_err(failed("lock", &path))?;
        Ok(DefinitionLock { of: &self.0, dir, _lock: lock })
    }
}

/// The lock on a directory of definitions; dropping it releases the lock.
#[derive(Debug)]
pub struct DefinitionLock<'a> {
    of: &'a Path,
    dir: Dir,
    _lock: Flock<OwnedFd>,
}

impl DefinitionLock<'_> {
    /// Writes a definition; it replaces the old file, if there is one.
    ///
    /// # Errors
    /// [`FileError`]. If the error comes from the write itself, the old file is still there.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        tracing::debug!("writes {}", path.display());
        let replaced = self.holder(path).and_then(|(dir, name)| {
            dir.as_ref().unwrap_or(&self.dir).replace(name, bytes, MODE, true)
        });
        replaced.map_err(failed("write", path))?;
        self.sync()
    }

    /// Removes a file, and returns whether it existed.
    ///
    /// # Errors
    /// [`FileError`] if the file exists and cannot be removed.
    pub fn remove(&self, path: &Path) -> Result<bool, FileError> {
        tracing::debug!("removes {}", path.display());
        let removed = self
            .holder(path)
            .and_then(|(dir, name)| Ok(dir.as_ref().unwrap_or(&self.dir).remove_file(name)?));
        match removed {
            Ok(()) => self.sync().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("remove", path)(error)),
        }
    }

    /// Makes an empty file, and its directory if that is missing; an existing file stays unchanged.
    ///
    /// # Errors
    /// [`FileError`] if the file or its directory cannot be made.
    pub fn mark(&self, path: &Path) -> Result<(), FileError> {
        let (parent, name) = split(path).map_err(failed("write", path))?;
        match make(parent)?.create(name, MODE) {
            Err(Errno::EEXIST) | Ok(_) => Ok(()),
            Err(errno) => Err(failed("write", path)(errno.into())),
        }
    }

    /// Returns the name of a file, and its directory if that is not the locked one.
    ///
    /// Marks are in a directory below the locked one, for example.
    fn holder<'p>(&self, path: &'p Path) -> io::Result<(Option<Dir>, &'p std::ffi::OsStr)> {
        let (parent, name) = split(path)?;
        let dir = if parent == self.of { None } else { Some(Dir::open(parent, Trust::WholePath)?) };
        Ok((dir, name))
    }

    /// Writes the directory to the disk, so that a rename survives a power cut.
    fn sync(&self) -> Result<(), FileError> {
        self.dir.sync().map_err(failed("write", self.of))
    }
}

/// Reads a file, at most one byte more than the largest document; `None` if there is no file.
///
/// The extra byte lets the parser refuse a file that is too large.
///
/// # Errors
/// [`FileError`] if the file exists and cannot be read, or if a user other than the caller and root
/// could change it.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let checked = Dir::check_file(path);
    match checked.and_then(|()| input::start(path, MAX_BYTES as u64 + 1, Pipes::Refused)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn make(dir: &Path) -> Result<Dir, FileError> {
    Dir::make(dir, Trust::WholePath, Modes::all(0o755)).map_err(failed("make the directory", dir))
}
