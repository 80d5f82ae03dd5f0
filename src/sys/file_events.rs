//! Waits for changes in directories, by inotify(7).
//!
//! A watch belongs to a directory, not to a path: the watcher of a directory that is made again
//! must watch it again. If the kernel's queue overflows, changes are lost, so the waiter must then
//! read everything that it watches again.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::unix::AsyncFd;

use super::process::signals;

/// Changes of the names in a directory.
const NAMES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_DELETE_SELF);
/// Also changes of the files in it.
const CONTENT: AddWatchFlags = NAMES.union(AddWatchFlags::IN_MODIFY);

/// The number of a watched directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WatchedDir(WatchDescriptor);

/// A change in a watched directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileEvent {
    /// A name in this directory, or the content of a file, has changed.
    Changed(WatchedDir, Option<OsString>),
    /// The kernel has lost events.
    Overflow,
}

/// The changes in all watched directories, in a queue.
#[derive(Debug)]
pub(crate) struct FileEvents(AsyncFd<Queue>);

/// The kernel's queue, with the traits that the runtime needs.
#[derive(Debug)]
struct Queue(Inotify);

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl FileEvents {
    /// Opens a queue; needs a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// The kernel's error, such as EMFILE at the limit of `fs.inotify.max_user_instances`.
    pub(crate) fn open() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(FileEvents(signals::watch(Queue(inotify))?))
    }

    /// Watches the names in a directory; a second watch of the same directory has the same number.
    ///
    /// # Errors
    /// The kernel's error: ENOENT if the directory is missing, EACCES if this user cannot read it,
    /// ENOSPC at the limit of `fs.inotify.max_user_watches`.
    pub(crate) fn watch_names(&self, dir: &Path) -> io::Result<WatchedDir> {
        self.watch(dir, NAMES)
    }

    /// Watches the removal of names in a directory; a file that replaces another removes none.
    ///
    /// # Errors
    /// The errors of [`watch_names`](Self::watch_names).
    #[cfg(feature = "cli")]
    pub(crate) fn watch_removals(&self, dir: &Path) -> io::Result<WatchedDir> {
        self.watch(dir, AddWatchFlags::IN_DELETE)
    }

    /// Watches the names in a directory and the content of its files.
    ///
    /// # Errors
    /// The errors of [`watch_names`](Self::watch_names).
    pub(crate) fn watch_content(&self, dir: &Path) -> io::Result<WatchedDir> {
        self.watch(dir, CONTENT)
    }

    /// Watches a file itself. Its events have no name.
    ///
    /// # Errors
    /// The errors of [`watch_names`](Self::watch_names).
    pub(crate) fn watch_file(&self, file: &Path) -> io::Result<()> {
        let what = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        self.0.get_ref().0.add_watch(file, what)?;
        Ok(())
    }

    fn watch(&self, dir: &Path, what: AddWatchFlags) -> io::Result<WatchedDir> {
        let flags = what | AddWatchFlags::IN_ONLYDIR;
        Ok(WatchedDir(self.0.get_ref().0.add_watch(dir, flags)?))
    }

    /// Waits for the next changes.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) async fn next(&self) -> io::Result<Vec<FileEvent>> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|queue| match queue.get_ref().0.read_events() {
                Err(Errno::EAGAIN) => Err(io::ErrorKind::WouldBlock.into()),
                read => Ok(read?),
            });
            let Ok(events) = read else { continue };
            let event = |event: nix::sys::inotify::InotifyEvent| {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    FileEvent::Overflow
                } else {
                    FileEvent::Changed(WatchedDir(event.wd), event.name)
                }
            };
            return Ok(events?.into_iter().map(event).collect());
        }
    }
}
