//! Waiting for a file to be removed (inotify(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use super::signals::watch;

/// A file whose removal can be waited for, by whoever has it open.
#[derive(Debug)]
pub struct FileWatch(AsyncFd<Events>);

/// Where the kernel tells what became of the file.
#[derive(Debug)]
struct Events(Inotify);

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl FileWatch {
    /// Watches the file at `path`. Needs a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// What the kernel said: `ENOENT` when it is not there.
    pub fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // A file that is open is not deleted: it loses its name, which changes its link count.
        inotify.add_watch(path, AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_DELETE_SELF)?;
        Ok(FileWatch(watch(Events(inotify))?))
    }

    /// Waits until the file's name, owner or rights have changed since this was last asked.
    ///
    /// # Errors
    /// What the kernel said.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|events| Ok(events.get_ref().0.read_events()?)) {
                Ok(events) => return events.map(drop),
                Err(_would_block) => {}
            }
        }
    }
}
