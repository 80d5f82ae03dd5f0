//! Holds an exclusive or shared flock(2) on a file until a value is dropped.
//!
//! nix has the same type, but its `drop` panics if the kernel does not unlock the file (EINTR, or
//! ENOLCK of a network file system), and such a panic would end a guest. Here `drop` unlocks the
//! file, ignores an error and closes the descriptor. Closing unlocks the file, too, unless a forked
//! process still has a copy of the descriptor.

use std::ops::Deref;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
pub(crate) use nix::fcntl::FlockArg;

/// A locked file.
#[derive(Debug)]
pub(crate) struct Flock<T: AsRawFd>(T);

impl<T: AsRawFd> Flock<T> {
    /// Locks a file with flock(2). A signal does not end the wait.
    ///
    /// # Errors
    /// The file, which is not locked, and the kernel's error.
    pub(crate) fn lock(file: T, how: FlockArg) -> Result<Self, (T, Errno)> {
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(Flock(file)),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err((file, errno)),
            }
        }
    }
}

impl<T: AsRawFd> Deref for Flock<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: AsRawFd> Drop for Flock<T> {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockArg::Unlock);
    }
}

#[expect(deprecated, reason = "nix's replacement panics when it is dropped and cannot unlock")]
fn flock(file: &impl AsRawFd, how: FlockArg) -> nix::Result<()> {
    nix::fcntl::flock(file.as_raw_fd(), how)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_dropped_lock_is_free_even_if_a_copy_of_the_descriptor_is_open() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::open(file.path()).unwrap();
        let lock = Flock::lock(open(), FlockArg::LockExclusiveNonblock).unwrap();
        let _copy = lock.try_clone().unwrap();
        let (_, errno) = Flock::lock(open(), FlockArg::LockExclusiveNonblock).unwrap_err();
        assert_eq!(errno, Errno::EWOULDBLOCK);
        drop(lock);
        Flock::lock(open(), FlockArg::LockExclusiveNonblock).unwrap();
    }

    #[test]
    fn drop_does_not_panic_if_the_file_cannot_be_unlocked() {
        // -1 gives EBADF, which stands for any other error.
        drop(Flock(Number(-1)));
    }

    struct Number(i32);

    impl AsRawFd for Number {
        fn as_raw_fd(&self) -> i32 {
            self.0
        }
    }
}
