//! A descriptor that is readable while there is something to fetch, for poll(2).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// A pair of sockets with at most one byte in flight. Its owner keeps it under a lock.
#[derive(Debug)]
pub(super) struct WakeSocket {
    writer: UnixStream,
    reader: UnixStream,
    readable: bool,
}

impl WakeSocket {
    /// Makes the pair; not readable at first.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub(super) fn new() -> io::Result<Self> {
        let (writer, reader) = UnixStream::pair()?;
        // A caller that reads the byte, against the rules, must not make `set` wait for one.
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(WakeSocket { writer, reader, readable: false })
    }

    /// Returns a second descriptor of the end to poll.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub(super) fn reader(&self) -> io::Result<UnixStream> {
        self.reader.try_clone()
    }

    /// Makes the reader readable or not.
    pub(super) fn set(&mut self, readable: bool) {
        // Neither fails: both ends are open, and the buffer holds more than one byte.
        if readable && !self.readable {
            let _ = self.writer.write(&[1]);
        } else if !readable && self.readable {
            let _ = self.reader.read(&mut [0]);
        }
        self.readable = readable;
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn is_readable(socket: &UnixStream) -> bool {
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn the_reader_is_readable_exactly_while_it_is_set() {
        let mut wake = WakeSocket::new().unwrap();
        let reader = wake.reader().unwrap();
        for readable in [false, true, true, false, false, true] {
            wake.set(readable);
            assert_eq!(is_readable(&reader), readable);
        }
    }
}
