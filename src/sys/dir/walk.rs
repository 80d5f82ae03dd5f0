//! Resolving a path component by component, without trusting other users' links.
//!
//! Each directory is opened with O_PATH and O_NOFOLLOW relative to the one before, so no later
//! rename changes what was opened. A symbolic link is read and followed here, and only where root
//! or the caller owns it. O_DIRECTORY makes the kernel mount an automount point.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, mkdirat};
use nix::unistd::geteuid;

use super::open_to_others;

/// The most links that a path may lead through, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// How much of a path must be out of other users' hands. Links of other users are never followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Nothing but the links. For the removal of unfinished files.
    Links,
    /// The last directory belongs to the caller or to root, and others cannot write it, or only as
    /// in the temporary directory (the sticky bit). The user names it, and it may lie in another
    /// user's.
    Last,
    /// So does each directory on the way. For a path from the environment, which may be another
    /// user's.
    Way,
    /// As [`Trust::Way`], and the last component is no link.
    Real,
}

/// The modes of directories that are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Modes {
    /// Of those above the last one.
    pub(crate) above: Mode,
    /// Of the last one.
    pub(crate) last: Mode,
}

impl Modes {
    /// The same mode for all.
    pub(crate) fn all(mode: u32) -> Self {
        Modes::of(mode, mode)
    }

    /// One mode for those above, and one for the last.
    pub(crate) fn of(above: u32, last: u32) -> Self {
        Modes { above: Mode::from_bits_truncate(above), last: Mode::from_bits_truncate(last) }
    }
}

/// Another user can change what a path means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Untrusted {
    /// A link on the way belongs to another user.
    #[error("{} is a symbolic link of user {owner}", path.display())]
    Link {
        /// The link.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The last component is a link.
    #[error("{} is a symbolic link", .0.display())]
    LastLink(PathBuf),
    /// A directory belongs to another user.
    #[error("{} belongs to user {owner}", path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Other users can write a directory that has no sticky bit.
    #[error("{} can be written by other users", .0.display())]
    Open(PathBuf),
    /// Other users can use a directory that has to be private.
    #[error("{} is open to other users: its mode is {mode:03o}, not 700", path.display())]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl Untrusted {
    /// Whether this is the source of an error of [`super::Dir::open`].
    pub(crate) fn in_error(error: &io::Error) -> Option<&Untrusted> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<Untrusted> for io::Error {
    fn from(why: Untrusted) -> Self {
        io::Error::new(io::ErrorKind::PermissionDenied, why)
    }
}

/// The users that a walk trusts.
struct Trusted {
    caller: u32,
    /// The owner of `/`: root, or what root is called in a user namespace that does not map it.
    root: u32,
}

impl Trusted {
    fn owns(&self, stat: &FileStat) -> bool {
        [self.caller, self.root, 0].contains(&stat.st_uid)
    }

    /// Checks a directory on the way.
    fn check(&self, stat: &FileStat, path: &Path) -> Result<(), Untrusted> {
        if !self.owns(stat) {
            return Err(Untrusted::Owner { path: path.to_owned(), owner: stat.st_uid });
        }
        if open_to_others(stat) && stat.st_mode & libc::S_ISVTX == 0 {
            return Err(Untrusted::Open(path.to_owned()));
        }
        Ok(())
    }
}

/// Opens the directory at `path`, for use as the start of other calls only (O_PATH). Missing
/// directories are made where `modes` says how.
pub(super) fn walk(path: &Path, trust: Trust, modes: Option<Modes>) -> io::Result<OwnedFd> {
    let root = start("/")?;
    let trusted = Trusted { caller: geteuid().as_raw(), root: fstat(&root)?.st_uid };
    let (mut at, mut here) = match path.is_absolute() {
        true => (root, PathBuf::from("/")),
        false => (start(".")?, PathBuf::from(".")),
    };
    let mut names: VecDeque<OsString> = components(path).collect();
    let mut links = 0;
    let mut last = fstat(&at)?;
    while let Some(name) = names.pop_front() {
        let there = here.join(&name);
        let mode = modes.map(|modes| if names.is_empty() { modes.last } else { modes.above });
        let opened = enter(at.as_fd(), &name, mode);
        let fd = match opened {
            Ok(fd) => fd,
            Err(errno @ (Errno::ENOTDIR | Errno::ELOOP)) => {
                let target = link(at.as_fd(), &name, &there, &trusted)?.ok_or(errno)?;
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::ELOOP.into());
                }
                if trust == Trust::Real && names.is_empty() {
                    return Err(Untrusted::LastLink(there).into());
                }
                if target.is_absolute() {
                    (at, here) = (start("/")?, PathBuf::from("/"));
                }
                for name in components(&target).rev() {
                    names.push_front(name);
                }
                continue;
            }
            Err(errno) => return Err(errno.into()),
        };
        last = fstat(&fd)?;
        if matches!(trust, Trust::Way | Trust::Real) {
            trusted.check(&last, &there)?;
        }
        (at, here) = (fd, there);
    }
    if trust == Trust::Last {
        trusted.check(&last, path)?;
    }
    Ok(at)
}

/// Checks that no other user can change what the file at `path` says: each directory and link on the
/// way and the file belong to the caller or to root, and no other user can write them.
pub(super) fn check_file(path: &Path) -> io::Result<()> {
    let trusted = Trusted { caller: geteuid().as_raw(), root: fstat(&start("/")?)?.st_uid };
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let (parent, name) = super::split(&path)?;
        let dir = walk(parent, Trust::Way, None)?;
        let Some(target) = link(dir.as_fd(), name, &path, &trusted)? else {
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let is = fstat(openat(&dir, name, flags, Mode::empty())?)?;
            if !trusted.owns(&is) {
                return Err(Untrusted::Owner { path, owner: is.st_uid }.into());
            }
            let regular = is.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
            return match regular && open_to_others(&is) {
                true => Err(Untrusted::Open(path).into()),
                false => Ok(()),
            };
        };
        path = parent.join(target);
    }
    Err(Errno::ELOOP.into())
}

/// How a directory on the way is opened.
const DIRECTORY: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

fn start(path: &str) -> nix::Result<OwnedFd> {
    open(path, DIRECTORY, Mode::empty())
}

fn components(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Where a link leads; `None` for what is no link.
fn link(
    at: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    trusted: &Trusted,
) -> io::Result<Option<PathBuf>> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(at, name, flags, Mode::empty())?;
    let stat = fstat(&fd)?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFLNK.bits() {
        return Ok(None);
    }
    if !trusted.owns(&stat) {
        return Err(Untrusted::Link { path: path.to_owned(), owner: stat.st_uid }.into());
    }
    // Of the link that was checked, whatever has its name by now.
    Ok(Some(PathBuf::from(readlinkat(&fd, "")?)))
}

/// Opens a directory, and makes it where it is missing and there is a mode for it.
fn enter(at: BorrowedFd<'_>, name: &OsStr, mode: Option<Mode>) -> nix::Result<OwnedFd> {
    loop {
        match (openat(at, name, DIRECTORY, Mode::empty()), mode) {
            (Err(Errno::ENOENT), Some(mode)) => match mkdirat(at, name, Mode::S_IRWXU) {
                Ok(()) => match open_new(at, name, mode) {
                    // Another process removed it at once, as a launch does that ends.
                    Err(Errno::ENOENT) => {}
                    other => return openat(other?, ".", DIRECTORY, Mode::empty()),
                },
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            },
            (opened, _) => return opened,
        }
    }
}

/// Makes a directory with this mode and opens it for reading.
pub(super) fn make_dir(at: BorrowedFd<'_>, name: &OsStr, mode: Mode) -> nix::Result<OwnedFd> {
    mkdirat(at, name, Mode::S_IRWXU)?;
    open_new(at, name, mode)
}

/// Opens a directory that was made just now, and gives it its mode, whatever the umask is.
fn open_new(at: BorrowedFd<'_>, name: &OsStr, mode: Mode) -> nix::Result<OwnedFd> {
    const READ: OFlag =
        OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
    let fd = openat(at, name, READ, Mode::empty()).or_else(|errno| match errno {
        // An umask such as 0777 leaves a directory that its owner cannot open.
        Errno::EACCES => {
            fchmodat(at, name, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)?;
            openat(at, name, READ, Mode::empty())
        }
        errno => Err(errno),
    })?;
    // The owner of the directory around it may have put another one in its place.
    if fstat(&fd)?.st_uid != geteuid().as_raw() {
        return Err(Errno::EACCES);
    }
    fchmod(&fd, mode)?;
    Ok(fd)
}
