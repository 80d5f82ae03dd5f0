//! Waits for the end of the reader of standard output, which a writer that has nothing to write
//! would not notice.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The reader of standard output, if it is a pipe or a socket.
#[derive(Debug)]
pub(crate) struct OutputReader(Option<AsyncFd<OwnedFd>>);

impl OutputReader {
    /// Watches the reader. A file cannot be watched, and has no reader that ends.
    pub(crate) fn open() -> Self {
        let watched = io::stdout().as_fd().try_clone_to_owned().ok().and_then(|fd| {
            // SAFETY: the AsyncFd owns the descriptor, so the descriptor stays open and the same
            // until the AsyncFd has deregistered it.
            unsafe { AsyncFd::register_with_interest(fd, Interest::ERROR) }.ok()
        });
        OutputReader(watched)
    }

    /// Waits until the reader has ended; without a reader, for ever.
    pub(crate) async fn ended(&self) {
        match &self.0 {
            Some(fd) if fd.ready(Interest::ERROR).await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }
}
