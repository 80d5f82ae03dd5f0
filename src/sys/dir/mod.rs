//! Opens a directory once, and then makes, reads, replaces and removes entries by its descriptor.
//!
//! The kernel resolves a path again at each system call, and the owner of a directory on the path
//! can put a symbolic link there between two calls. So [`Dir::open`] walks a path once, component
//! by component, with O_NOFOLLOW, and checks the owner and mode of the opened directories
//! ([`Trust`] selects which ones). All other functions take one name and act in the open directory
//! with openat(2) and related calls. None of them follows a link.
//!
//! Modes never depend on the umask: each new file and directory gets its mode by fchmod(2). This
//! module imports nothing from the crate.

mod remove;
mod stamp;
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

#[cfg_attr(not(feature = "bridged"), allow(unused_imports, reason = "filters use it"))]
pub(crate) use stamp::DirStamp;
pub(crate) use walk::{Modes, Trust, Untrusted};

/// The beginning of the name of an incomplete new file.
pub(crate) const UNFINISHED: &str = ".new-";

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir(OwnedFd);

impl Dir {
    /// Opens an existing directory.
    ///
    /// # Errors
    /// The kernel's error, or [`Untrusted`] as the source of a `PermissionDenied`.
    pub(crate) fn open(path: &Path, trust: Trust) -> io::Result<Dir> {
        walk::walk(path, trust, None).map(Dir)
    }

    /// Opens a directory. Makes it and the directories above it if they are missing.
    ///
    /// # Errors
    /// The errors of [`Dir::open`].
    pub(crate) fn make(path: &Path, trust: Trust, modes: Modes) -> io::Result<Dir> {
        walk::walk(path, trust, Some(modes)).map(Dir)
    }

    /// Checks that a directory is private to the caller: the last component is not a link, no other
    /// user can change the path, the caller owns the directory, and its mode gives no permission to
    /// others.
    ///
    /// # Errors
    /// The errors of [`Dir::open`].
    pub(crate) fn check_private(path: &Path) -> io::Result<()> {
        let is = Dir::open(path, Trust::WholePathNoLastLink)?.stat()?;
        let path = path.to_owned();
        if is.st_uid != geteuid().as_raw() {
            return Err(Untrusted::Owner { path, owner: is.st_uid }.into());
        }
        match is.st_mode & 0o7777 {
            mode if mode & 0o077 != 0 => Err(Untrusted::NotPrivate { path, mode }.into()),
            _ => Ok(()),
        }
    }

    /// Checks that only the caller and root can change the file at `path`, or make the path lead to
    /// another file.
    ///
    /// # Errors
    /// The errors of [`Dir::open`]; `NotFound` if the file is missing.
    pub(crate) fn check_file(path: &Path) -> io::Result<()> {
        walk::check_file(path)
    }

    /// Opens a directory for reading, which flock(2) needs.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn readable(&self, name: &OsStr) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.0, name, flags, Mode::empty())
    }

    /// Opens a directory in this one.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn sub_dir(&self, name: &OsStr) -> nix::Result<Dir> {
        self.readable(name).map(Dir)
    }

    /// Makes a directory and opens it for reading.
    ///
    /// # Errors
    /// The kernel's error; EEXIST if the name exists.
    pub(crate) fn make_dir(&self, name: &OsStr, mode: Mode) -> nix::Result<OwnedFd> {
        walk::make_dir(self.0.as_fd(), name, mode)
    }

    /// Returns the owner, mode and other attributes of the directory.
    pub(crate) fn stat(&self) -> nix::Result<FileStat> {
        fstat(&self.0)
    }

    /// Returns the attributes of an entry. For a link, they are those of the link.
    pub(crate) fn stat_of(&self, name: &OsStr) -> nix::Result<FileStat> {
        fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// Returns the names in the directory in sorted order.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = remove::names(self.0.as_fd())?;
        names.sort();
        Ok(names)
    }

    /// Opens a regular file for reading. Returns `None` if it is missing.
    ///
    /// # Errors
    /// The kernel's error, or an error for a file that is not regular.
    pub(crate) fn open_file(&self, name: &OsStr) -> io::Result<Option<File>> {
        // With O_NONBLOCK, opening a FIFO does not block. With O_NOCTTY, a terminal does not become
        // the controlling terminal.
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
        if file.metadata()?.is_file() {
            Ok(Some(file))
        } else {
            Err(io::Error::other("it is no regular file"))
        }
    }

    /// Reads a regular file of at most `most` bytes. Returns `None` if it is missing.
    ///
    /// # Errors
    /// The errors of [`Dir::open_file`], or an error for a larger file.
    pub(crate) fn read(&self, name: &OsStr, most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(name)? else { return Ok(None) };
        // One more byte lets the reader see the end of the file without a larger buffer.
        let length = file.metadata()?.len().min(most);
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1);
        file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(io::Error::other(format!("it is larger than {most} bytes")));
        }
        Ok(Some(bytes))
    }

    /// Makes a new file and opens it for writing.
    ///
    /// # Errors
    /// The kernel's error; EEXIST if the name exists.
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

    /// Writes a file: replaces the whole file or leaves the old one. It writes a new file and
    /// renames it. With `sync`, the content is on the disk before the rename.
    ///
    /// # Errors
    /// The kernel's error; then the old file is unchanged and no new file is left.
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
        let renamed = written.and_then(|()| Ok(renameat(&self.0, new.as_os_str(), &self.0, name)?));
        if renamed.is_err() {
            let _ = self.remove_file(&new);
        }
        renamed
    }

    /// Opens a lock file. Makes it if it is missing. Only the owner can open it, because any
    /// process that can open a file can lock it.
    ///
    /// # Errors
    /// The kernel's error, or an error for a file that is not regular or has more than one name:
    /// with a hard link, this function would set the mode of a file elsewhere.
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
                // On a read-only file system, a lock needs no write permission, so existing ports
                // and networks can still be removed.
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

    /// Gives a file that root made to the owner of this directory, because the owner needs it
    /// later.
    fn give_to_owner(&self, file: &File) -> nix::Result<()> {
        let dir = self.stat()?;
        if geteuid().is_root() && dir.st_uid != 0 {
            fchown(file, Some(Uid::from_raw(dir.st_uid)), Some(Gid::from_raw(dir.st_gid)))?;
        }
        Ok(())
    }

    /// Removes a file or a link, not the target of the link.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn remove_file(&self, name: &OsStr) -> nix::Result<()> {
        unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir)
    }

    /// Moves an entry into another directory of this file system; it replaces a file there.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn move_to(&self, name: &OsStr, to: &Dir) -> nix::Result<()> {
        renameat(&self.0, name, &to.0, name)
    }

    /// Sets the mode of a regular file to 0600.
    ///
    /// # Errors
    /// The errors of [`Dir::open_file`], or the kernel's error.
    pub(crate) fn close_to_others(&self, name: &OsStr) -> io::Result<()> {
        match self.open_file(name)? {
            Some(file) => Ok(fchmod(&file, Mode::S_IRUSR | Mode::S_IWUSR)?),
            None => Ok(()),
        }
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn remove_dir(&self, name: &OsStr) -> nix::Result<()> {
        unlinkat(&self.0, name, UnlinkatFlags::RemoveDir)
    }

    /// Removes a directory with its content. A missing directory is not an error.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn remove_all(&self, name: &OsStr) -> io::Result<()> {
        remove::all(self.0.as_fd(), name)
    }

    /// Writes the entries of the directory to the disk, so that new, renamed and removed names
    /// survive a crash.
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

/// Splits a path into the directory of its last component, and that component.
///
/// # Errors
/// `InvalidInput` if the path has no last component, such as `/` or `a/..`.
pub(crate) fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.unwrap_or(Path::new(".")), name))
}

/// Returns whether other users can write a file of this mode and group: all users, or a group that
/// is not the caller's own.
///
/// The caller's own group may be a private one, to which many systems give write permission by
/// default.
fn open_to_others(stat: &FileStat) -> bool {
    let foreign_group = stat.st_gid != nix::unistd::getegid().as_raw();
    stat.st_mode & libc::S_IWOTH != 0 || (stat.st_mode & libc::S_IWGRP != 0 && foreign_group)
}

/// Returns whether a name is an entry, not `.` or `..`.
fn is_entry(name: &OsStr) -> bool {
    !matches!(name.as_bytes(), b"." | b"..")
}
