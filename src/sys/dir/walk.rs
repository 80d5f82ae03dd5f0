//! Resolves a path component by component, without trust in other users' links.
//!
//! It opens each directory with O_PATH and O_NOFOLLOW relative to the one above, so that no later
//! rename changes what is open. It reads and follows a symbolic link itself, and only if root or
//! the caller owns the link. O_DIRECTORY makes the kernel mount an automount point.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::libc;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, mkdirat};
use nix::unistd::geteuid;

use super::open_to_others;

/// The maximum number of links in a path, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// The part of a path that other users must not be able to change. Links of other users are never
/// followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Only the links. This level is for the removal of incomplete files.
    LinksOnly,
    /// The last directory: the caller or root owns it, and no other user can write it, unless it
    /// has the sticky bit, like the temporary directory. This level is for a path that the user
    /// names, which may lie in another user's directory.
    LastDirectory,
    /// Every directory on the path. This level is for a path from the environment, which may belong
    /// to another user.
    WholePath,
    /// Like [`Trust::WholePath`], and the last component is not a link.
    WholePathNoLastLink,
}

/// The modes of new directories.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Modes {
    /// The mode of the directories above the last one.
    pub(crate) above: Mode,
    /// The mode of the last directory.
    pub(crate) last: Mode,
}

impl Modes {
    /// Uses the same mode for all directories.
    pub(crate) fn all(mode: u32) -> Self {
        Modes::of(mode, mode)
    }

    /// Uses one mode for the directories above, and one for the last directory.
    pub(crate) fn of(above: u32, last: u32) -> Self {
        Modes { above: Mode::from_bits_truncate(above), last: Mode::from_bits_truncate(last) }
    }
}

/// Another user can change the meaning of a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Untrusted {
    /// A link on the path belongs to another user.
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
    WritableByOthers(PathBuf),
    /// Other users can use a directory that must be private.
    #[error("{} is open to other users: its mode is {mode:03o}, not 700", path.display())]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl Untrusted {
    /// Returns whether an error has such a reason.
    pub(crate) fn is_in(error: &io::Error) -> bool {
        Untrusted::in_error(error).is_some()
    }

    /// Returns the `Untrusted` in an error of [`super::Dir::open`], if there is one.
    pub(crate) fn in_error(error: &io::Error) -> Option<&Untrusted> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<Untrusted> for io::Error {
    fn from(why: Untrusted) -> Self {
        io::Error::new(io::ErrorKind::PermissionDenied, why)
    }
}

/// The users whose directories and links a walk accepts.
struct Trusted {
    caller: u32,
    /// The owner of `/`: root, or the user id that stands for root in a user namespace without a
    /// mapping for root.
    root: u32,
}

impl Trusted {
    fn owns(&self, stat: &FileStat) -> bool {
        [self.caller, self.root, 0].contains(&stat.st_uid)
    }

    /// Checks a directory on the path.
    fn check(&self, stat: &FileStat, path: &Path) -> Result<(), Untrusted> {
        if !self.owns(stat) {
            return Err(Untrusted::Owner { path: path.to_owned(), owner: stat.st_uid });
        }
        if open_to_others(stat) && stat.st_mode & libc::S_ISVTX == 0 {
            return Err(Untrusted::WritableByOthers(path.to_owned()));
        }
        Ok(())
    }
}

/// Opens the directory at `path` with O_PATH, so that the descriptor only serves as the start of
/// other calls. With `modes`, it makes missing directories.
pub(super) fn walk(path: &Path, trust: Trust, modes: Option<Modes>) -> io::Result<OwnedFd> {
    if let Some(dir) = open_without_links(path, trust) {
        return Ok(dir);
    }
    let root = start("/")?;
    let trusted = Trusted { caller: geteuid().as_raw(), root: fstat(&root)?.st_uid };
    let (mut at, mut at_path) = if path.is_absolute() {
        (root, PathBuf::from("/"))
    } else {
        (start(".")?, PathBuf::from("."))
    };
    let mut names: VecDeque<OsString> = components(path).collect();
    let mut links = 0;
    let mut last = fstat(&at)?;
    while let Some(name) = names.pop_front() {
        let child_path = at_path.join(&name);
        let mode = modes.map(|modes| if names.is_empty() { modes.last } else { modes.above });
        let opened = enter(at.as_fd(), &name, mode);
        let fd = match opened {
            Ok(fd) => fd,
            Err(errno @ (Errno::ENOTDIR | Errno::ELOOP)) => {
                let target = link(at.as_fd(), &name, &child_path, &trusted)?.ok_or(errno)?;
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::ELOOP.into());
                }
                if trust == Trust::WholePathNoLastLink && names.is_empty() {
                    return Err(Untrusted::LastLink(child_path).into());
                }
                if target.is_absolute() {
                    (at, at_path) = (start("/")?, PathBuf::from("/"));
                }
                for name in components(&target).rev() {
                    names.push_front(name);
                }
                continue;
            }
            Err(errno) => return Err(errno.into()),
        };
        last = fstat(&fd)?;
        if matches!(trust, Trust::WholePath | Trust::WholePathNoLastLink) {
            trusted.check(&last, &child_path)?;
        }
        (at, at_path) = (fd, child_path);
    }
    if trust == Trust::LastDirectory {
        trusted.check(&last, path)?;
    }
    Ok(at)
}

/// Opens the directory at `path` with one system call if no component is a link and the directories
/// above the last one need no check. Returns `None` if that does not succeed, or before Linux 5.6,
/// so that the walk makes the directory or finds the error.
fn open_without_links(path: &Path, trust: Trust) -> Option<OwnedFd> {
    let is_checked = match trust {
        Trust::LinksOnly => false,
        Trust::LastDirectory => true,
        Trust::WholePath | Trust::WholePathNoLastLink => return None,
    };
    let how = OpenHow::new().flags(DIRECTORY).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let dir = openat2(AT_FDCWD, path, how).ok()?;
    if is_checked {
        // For the caller and the user 0, the owner of `/` makes no difference.
        let trusted = Trusted { caller: geteuid().as_raw(), root: 0 };
        trusted.check(&fstat(&dir).ok()?, path).ok()?;
    }
    Some(dir)
}

/// Checks that no other user can change the content or the meaning of the file at `path`.
///
/// The caller or root must own the file and each directory and link on the path. No other user may
/// write the file if it is regular, or a directory without the sticky bit.
pub(super) fn check_file(path: &Path) -> io::Result<()> {
    let trusted = Trusted { caller: geteuid().as_raw(), root: fstat(&start("/")?)?.st_uid };
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let (parent, name) = super::split(&path)?;
        let dir = walk(parent, Trust::WholePath, None)?;
        let Some(target) = link(dir.as_fd(), name, &path, &trusted)? else {
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let is = fstat(openat(&dir, name, flags, Mode::empty())?)?;
            if !trusted.owns(&is) {
                return Err(Untrusted::Owner { path, owner: is.st_uid }.into());
            }
            let regular = is.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
            return if regular && open_to_others(&is) {
                Err(Untrusted::WritableByOthers(path).into())
            } else {
                Ok(())
            };
        };
        path = parent.join(target);
    }
    Err(Errno::ELOOP.into())
}

/// The flags for a directory on the path.
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

/// Returns the target of a link, or `None` if the entry is not a link.
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
    // Reads the checked link by its descriptor, because another file may have the name by now.
    Ok(Some(PathBuf::from(readlinkat(&fd, "")?)))
}

/// Opens a directory. With `mode`, makes it if it is missing.
fn enter(at: BorrowedFd<'_>, name: &OsStr, mode: Option<Mode>) -> nix::Result<OwnedFd> {
    loop {
        match (openat(at, name, DIRECTORY, Mode::empty()), mode) {
            (Err(Errno::ENOENT), Some(mode)) => match mkdirat(at, name, Mode::S_IRWXU) {
                Ok(()) => match open_new(at, name, mode) {
                    // Another process removed the directory at once, as a launch does at its end.
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

/// Opens a new directory and sets its mode, independent of the umask.
fn open_new(at: BorrowedFd<'_>, name: &OsStr, mode: Mode) -> nix::Result<OwnedFd> {
    const READ: OFlag =
        OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
    let fd = openat(at, name, READ, Mode::empty()).or_else(|errno| match errno {
        // With a umask such as 0777, the owner cannot open the new directory.
        Errno::EACCES => {
            fchmodat(at, name, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)?;
            openat(at, name, READ, Mode::empty())
        }
        errno => Err(errno),
    })?;
    // The owner of the parent directory may have replaced the new directory.
    if fstat(&fd)?.st_uid != geteuid().as_raw() {
        return Err(Errno::EACCES);
    }
    fchmod(&fd, mode)?;
    Ok(fd)
}
