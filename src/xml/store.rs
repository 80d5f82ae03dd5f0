//! Definitions that users make, one file each, `NAME.xml` in a directory, and how they are changed.
//!
//! A file is replaced by renaming a complete one over it, so whoever reads sees the old or the new
//! and never a mixture, and reading needs no lock and no right to write. Whoever changes something
//! holds an exclusive flock(2) on `.lock` from the first look at the other definitions to the last
//! rename ([`DefinitionDir::lock`]); so two processes cannot make definitions that exclude each
//! other, and none undoes what another did meanwhile. The lock is on a file that only its owner can
//! open, not on the directory: that one everybody can open, and keep locked.

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

use crate::dir::{Dir, Modes, Trust, split};
use crate::flock::Flock;
use crate::input::{self, Pipes};
use crate::state::{LOCK, LOCK_LIMIT, clean, lock_blocking};
use crate::xml::MAX_BYTES;

/// The mode of a definition's file.
const MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR).union(Mode::S_IRGRP).union(Mode::S_IROTH);

/// A file or directory of definitions cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {source}; correct its permissions, or set NETLAUNCH_CONFIG_DIR", path.display())]
pub struct FileError {
    /// `read`, `write` and the like.
    doing: &'static str,
    /// The file.
    path: PathBuf,
    /// The kernel's error.
    source: io::Error,
}

/// The error that something cannot be done with a file.
fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError { doing, path: path.to_owned(), source }
}

/// Where a definition is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Compiled in.
    BuiltIn,
    /// This file.
    File(PathBuf),
}

/// A file that is no definition.
#[derive(Debug)]
pub struct Broken<N, E> {
    /// What it would define.
    pub name: N,
    /// Why it does not.
    pub error: E,
}

/// Definitions, and the files that are none.
pub type Listed<N, D, E> = (Vec<D>, Vec<Broken<N, E>>);

/// A directory of definitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionDir(PathBuf);

impl DefinitionDir {
    /// This directory; nothing is made or read yet.
    pub fn new(path: PathBuf) -> Self {
        DefinitionDir(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the definition of that name is, or would be.
    pub fn file(&self, name: &impl Display) -> PathBuf {
        self.0.join(format!("{name}.xml"))
    }

    /// All definitions by name, those that are there without a file too, and the files that are
    /// none: one of those hides no other definition. `find` looks one up.
    ///
    /// # Errors
    /// [`FileError`] when the directory is there and cannot be read.
    pub fn list<N: Ord + FromStr, D, E>(
        &self,
        built_in: impl IntoIterator<Item = N>,
        find: impl Fn(&N) -> Result<Option<D>, E>,
    ) -> Result<Listed<N, D, E>, FileError> {
        let mut names: BTreeSet<N> = built_in.into_iter().collect();
        names.extend(self.names()?);
        let (mut definitions, mut broken) = (Vec::new(), Vec::new());
        for name in names {
            match find(&name) {
                Ok(found) => definitions.extend(found),
                Err(error) => broken.push(Broken { name, error }),
            }
        }
        Ok((definitions, broken))
    }

    /// The names of the files. Others than `NAME.xml` are not ours.
    fn names<N: FromStr>(&self) -> Result<Vec<N>, FileError> {
        let opened = Dir::open(&self.0, Trust::Way).and_then(|_| fs::read_dir(&self.0));
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

    /// Makes the directory where it is missing, and locks it for changes.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn lock(&self) -> Result<DefinitionLock<'_>, FileError> {
        let dir = make(&self.0)?;
        let path = self.0.join(LOCK);
        let file = dir.lock_file(LOCK.as_ref()).map_err(failed("open", &path))?;
        let lock = lock_blocking(&path, file.into(), LOCK_LIMIT).map_err(failed("lock", &path))?;
        let lock = DefinitionLock { of: &self.0, dir, _lock: lock };
        clean(&self.0);
        Ok(lock)
    }
}

/// The right to change a directory of definitions, until it is dropped.
#[derive(Debug)]
pub struct DefinitionLock<'a> {
    of: &'a Path,
    dir: Dir,
    _lock: Flock<OwnedFd>,
}

impl DefinitionLock<'_> {
    /// Writes a definition, in place of the one that may be there.
    ///
    /// # Errors
    /// [`FileError`]; then the old one is there.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        let replaced = self.holder(path).and_then(|(dir, name)| {
            dir.as_ref().unwrap_or(&self.dir).replace(name, bytes, MODE, true)
        });
        replaced.map_err(failed("write", path))?;
        self.sync()
    }

    /// Removes a file; tells whether it was there.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn remove(&self, path: &Path) -> Result<bool, FileError> {
        let removed = self
            .holder(path)
            .and_then(|(dir, name)| Ok(dir.as_ref().unwrap_or(&self.dir).remove_file(name)?));
        match removed {
            Ok(()) => self.sync().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("remove", path)(error)),
        }
    }

    /// Makes an empty file in a directory of ours; one that is there stays.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn mark(&self, path: &Path) -> Result<(), FileError> {
        let (parent, name) = split(path).map_err(failed("write", path))?;
        match make(parent)?.create(name, MODE) {
            Err(Errno::EEXIST) | Ok(_) => Ok(()),
            Err(errno) => Err(failed("write", path)(errno.into())),
        }
    }

    /// The name of a file, and its directory where that is another one than the locked one, such as
    /// the directory of marks below it.
    fn holder<'p>(&self, path: &'p Path) -> io::Result<(Option<Dir>, &'p std::ffi::OsStr)> {
        let (parent, name) = split(path)?;
        let dir = match parent == self.of {
            true => None,
            false => Some(Dir::open(parent, Trust::Way)?),
        };
        Ok((dir, name))
    }

    /// Makes renames last through a power cut.
    fn sync(&self) -> Result<(), FileError> {
        self.dir.sync().map_err(failed("write", self.of))
    }
}

/// A file's bytes, no more than a document can have and one; `None` where there is no file.
///
/// # Errors
/// [`FileError`] when it is there and cannot be read.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let checked = Dir::check_file(path);
    match checked.and_then(|()| input::start(path, MAX_BYTES as u64 + 1, Pipes::Refused)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn make(dir: &Path) -> Result<Dir, FileError> {
    Dir::make(dir, Trust::Way, Modes::all(0o755)).map_err(failed("make the directory", dir))
}
