//! Directories by descriptor: open one once, then make, read, replace and remove names in it.
//!
//! A path is resolved anew at each system call, and a user who owns a directory on the way can put
//! a symbolic link there between two calls. [`Dir::open`] therefore walks a path once, component by
//! component, with O_NOFOLLOW, and checks the owner and the mode of what it opened ([`Trust`] says
//! how much of the way). All other functions take one name and act in the open directory with
//! openat(2) and its siblings; none of them follows a link.
//!
//! Modes never depend on the umask: each file and directory that is made here gets its mode by
//! fchmod(2). This module imports nothing of the crate.

mod remove;
#[cfg(test)]
mod tests;
mod walk;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, unlinkat};
use rand::RngExt;

pub(crate) use walk::{Modes, Trust, Untrusted};

/// The start of an unfinished file's name.
pub(crate) const UNFINISHED: &str = ".new-";

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir(OwnedFd);

impl Dir {
    /// Opens a directory that exists.
    ///
    /// # Errors
    /// The kernel's, or [`Untrusted`] as the source of a `PermissionDenied`.
    pub(crate) fn open(path: &Path, trust: Trust) -> io::Result<Dir> {
        walk::walk(path, trust, None).map(Dir)
    }

    /// Opens a directory, and makes it and those above it where they are missing.
    ///
    /// # Errors
    /// As [`Dir::open`].
    pub(crate) fn make(path: &Path, trust: Trust, modes: Modes) -> io::Result<Dir> {
        walk::walk(path, trust, Some(modes)).map(Dir)
    }

    /// Checks that a directory is the caller's alone: no link and no other user's directory is on the
    /// way, the caller owns it, and its mode is 0700.
    ///
    /// # Errors
    /// As [`Dir::open`].
    pub(crate) fn check_private(path: &Path) -> io::Result<()> {
        let is = Dir::open(path, Trust::Real)?.stat()?;
        let path = path.to_owned();
        if is.st_uid != geteuid().as_raw() {
            return Err(Untrusted::Owner { path, owner: is.st_uid }.into());
        }
        match is.st_mode & 0o7777 {
            mode if mode & 0o077 != 0 => Err(Untrusted::NotPrivate { path, mode }.into()),
            _ => Ok(()),
        }
    }

    /// Checks that only the caller and root can change the file at `path` or what that path means.
    ///
    /// # Errors
    /// As [`Dir::open`]; `NotFound` where there is no file.
    pub(crate) fn check_file(path: &Path) -> io::Result<()> {
        walk::check_file(path)
    }

    /// Opens a directory for reading, as flock(2) needs it.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn readable(&self, name: &OsStr) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.0, name, flags, Mode::empty())
    }

    /// Makes a directory and opens it for reading.
    ///
    /// # Errors
    /// The kernel's error; EEXIST where the name is taken.
    pub(crate) fn make_dir(&self, name: &OsStr, mode: Mode) -> nix::Result<OwnedFd> {
        walk::make_dir(self.0.as_fd(), name, mode)
    }

    /// The owner, the mode and the like of the directory itself.
    pub(crate) fn stat(&self) -> nix::Result<FileStat> {
        fstat(&self.0)
    }

    /// Those of an entry; of a link itself.
    pub(crate) fn stat_of(&self, name: &OsStr) -> nix::Result<FileStat> {
        fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// The names in the directory, in order.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = remove::names(self.0.as_fd())?;
        names.sort();
        Ok(names)
    }

    /// Opens a regular file for reading; `None` where there is none.
    ///
    /// # Errors
    /// The kernel's; one of its own for what is no regular file.
    pub(crate) fn open_file(&self, name: &OsStr) -> io::Result<Option<File>> {
        // A FIFO blocks no open with O_NONBLOCK, and a terminal does not become ours.
        let flags = OFlag::O_RDONLY
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_NOCTTY
            | OFlag::O_CLOEXEC;
        let file = match openat(&self.0, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        match file.metadata()?.is_file() {
            true => Ok(Some(file)),
            false => Err(io::Error::other("it is no regular file")),
        }
    }

    /// The content of a regular file of at most `most` bytes; `None` where there is none.
    ///
    /// # Errors
    /// As [`Dir::open_file`], and for a larger file.
    pub(crate) fn read(&self, name: &OsStr, most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(io::Error::other(format!("it is larger than {most} bytes")));
        }
        Ok(Some(bytes))
    }

    /// Makes a new file, open for writing.
    ///
    /// # Errors
    /// The kernel's error; EEXIST where the name is taken.
    pub(crate) fn create(&self, name: &OsStr, mode: Mode) -> nix::Result<File> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.0, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        if let Err(errno) = fchmod(&fd, mode) {
            let _ = self.remove_file(name);
            return Err(errno);
        }
        Ok(File::from(fd))
    }

    /// Replaces a file, or makes it, whole or not at all: writes a new file and renames it. With
    /// `sync` its content is on the disk before the rename.
    ///
    /// # Errors
    /// The kernel's error; the old file is then there, and no new one.
    pub(crate) fn replace(
        &self,
        name: &OsStr,
        content: &[u8],
        mode: Mode,
        sync: bool,
    ) -> io::Result<()> {
        let (new, mut file) = loop {
            let new = OsString::from(format!("{UNFINISHED}{:016x}", rand::rng().random::<u64>()));
            match self.create(&new, mode) {
                Ok(file) => break (new, file),
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        };
        let written = file.write_all(content);
        let written = written.and_then(|()| if sync { file.sync_all() } else { Ok(()) });
        let renamed = written
            .and_then(|()| renameat(&self.0, new.as_os_str(), &self.0, name).map_err(Into::into));
        if renamed.is_err() {
            let _ = self.remove_file(&new);
        }
        renamed
    }

    /// Opens the file that a command locks, and makes it where it is missing; only its owner can
    /// open it, since any process that can open a file can keep it locked.
    ///
    /// # Errors
    /// The kernel's; one of its own for what is no regular file or has other names too, since
    /// closing it would close a file elsewhere.
    pub(crate) fn lock_file(&self, name: &OsStr) -> io::Result<File> {
        let owner_only = Mode::S_IRUSR | Mode::S_IWUSR;
        let flags = OFlag::O_WRONLY
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_NOCTTY
            | OFlag::O_CLOEXEC;
        let file = loop {
            match openat(&self.0, name, flags, Mode::empty()) {
                Ok(fd) => break File::from(fd),
                Err(Errno::ENOENT) => {}
                // A lock needs no right to write, and what netlaunch made can be taken away.
                Err(Errno::EROFS) => {
                    let reading = flags.difference(OFlag::O_ACCMODE) | OFlag::O_RDONLY;
                    break File::from(openat(&self.0, name, reading, Mode::empty())?);
                }
                Err(errno) => return Err(errno.into()),
            }
            match self.create(name, owner_only) {
                Ok(file) => {
                    self.give_to_owner(&file)?;
                    break file;
                }
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        };
        let is = fstat(&file)?;
        if is.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() || is.st_nlink > 1 {
            return Err(io::Error::other("not a regular file with one name; remove it"));
        }
        if is.st_mode & 0o077 != 0 && is.st_uid == geteuid().as_raw() {
            fchmod(&file, owner_only)?;
        }
        Ok(file)
    }

    /// Gives a file that root made to the user whose directory this is, who needs it later.
    fn give_to_owner(&self, file: &File) -> nix::Result<()> {
        let dir = self.stat()?;
        if geteuid().is_root() && dir.st_uid != 0 {
            fchown(file, Some(Uid::from_raw(dir.st_uid)), Some(Gid::from_raw(dir.st_gid)))?;
        }
        Ok(())
    }

    /// Removes a file, or a link itself.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn remove_file(&self, name: &OsStr) -> nix::Result<()> {
        unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn remove_dir(&self, name: &OsStr) -> nix::Result<()> {
        unlinkat(&self.0, name, UnlinkatFlags::RemoveDir)
    }

    /// Removes a directory with all in it; one that is not there is removed already.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn remove_all(&self, name: &OsStr) -> io::Result<()> {
        remove::all(self.0.as_fd(), name)
    }

    /// Puts names that were made, renamed or removed on the disk.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::from(self.readable(OsStr::new("."))?).sync_all()
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Dir {
    fn from(fd: OwnedFd) -> Self {
        Dir(fd)
    }
}

/// A path as the directory that holds its last component, and that component.
///
/// # Errors
/// `InvalidInput` for a path without a last component, such as `/` or `a/..`.
pub(crate) fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.unwrap_or(Path::new(".")), name))
}

/// Whether a file of this mode and group can be written by other users: by all, or by a group that
/// is not the caller's own. A group of the caller's own may be a private one, which many systems
/// give write permission by default.
fn open_to_others(stat: &FileStat) -> bool {
    let foreign_group = stat.st_gid != nix::unistd::getegid().as_raw();
    stat.st_mode & libc::S_IWOTH != 0 || (stat.st_mode & libc::S_IWGRP != 0 && foreign_group)
}

/// Whether a name is that of an entry, not of a directory itself.
fn is_entry(name: &OsStr) -> bool {
    !matches!(name.as_bytes(), b"." | b"..")
}
