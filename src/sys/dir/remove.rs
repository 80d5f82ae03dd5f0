//! Removes a directory with its content, without following a link.
//!
//! Each level opens the next directory with O_NOFOLLOW relative to the one above, and removes its
//! entries before it removes the directory.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// The maximum depth of nested directories, because each level holds a descriptor.
const MAX_DEPTH: usize = 32;

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Returns the names in a directory, in the kernel's order.
pub(super) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut entries = Dir::openat(dir, ".", DIRECTORY, Mode::empty())?;
    let mut names = Vec::new();
    for entry in entries.iter() {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if super::is_entry(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes the directory `name`. A missing directory is not an error.
pub(super) fn all(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    below(parent, name, 0)
}

fn below(parent: BorrowedFd<'_>, name: &OsStr, depth: usize) -> io::Result<()> {
    let dir = match openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    if depth > MAX_DEPTH {
        return Err(io::Error::other("more than 32 directories below each other"));
    }
    for name in names(dir.as_fd())? {
        match unlinkat(&dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            // For a directory, Linux returns EISDIR and POSIX requires EPERM.
            Err(Errno::EISDIR | Errno::EPERM) => below(dir.as_fd(), &name, depth + 1)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
