//! Descriptors that this process was started with.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD only reads a flag of a number.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Which of standard input, output and error were closed by whoever started us. Call it first of
/// all: the next file that is opened would get the number.
pub fn closed_standard() -> Vec<&'static str> {
    [(0, "standard input"), (1, "standard output"), (2, "standard error")]
        .into_iter()
        .filter(|(fd, _)| !is_open(*fd))
        .map(|(_, name)| name)
        .collect()
}

/// The lowest descriptor above the standard ones that was not open when this is called.
pub fn first_free() -> RawFd {
    (3..).find(|fd| !is_open(*fd)).unwrap_or(3)
}

/// Takes an inherited descriptor that is open for writing, so that no child inherits it.
///
/// Call it before this process opens a descriptor of its own, which could have the same number: the
/// epoll descriptor of a runtime would be taken for the caller's, and closed.
///
/// # Errors
/// It is not open, or only for reading. The caller must not use the number any further.
pub fn take_writable(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl only reads flags of a number.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::other("not open"));
    }
    if flags & libc::O_ACCMODE == libc::O_RDONLY {
        return Err(io::Error::other("open for reading only"));
    }
    take(fd)
}

/// Takes an inherited descriptor, so that no child inherits it.
///
/// # Errors
/// It is not open. The caller must not use the number any further.
pub fn take(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl on a number; afterwards the number is ours alone: this is called once for a
    // number that our starter opened for us, before anything else could have got it.
    unsafe {
        if libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Has execve close every descriptor but the standard ones.
///
/// The descriptors stay open until then: a start that fails is reported through one of them.
/// Async-signal-safe.
pub(super) fn close_on_exec() {
    let (first, last) = (3 as libc::c_ulong, libc::c_ulong::from(u32::MAX));
    let flags = libc::c_ulong::from(libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: the calls change a flag of numbers, and getrlimit fills a local structure; a number
    // that is not open is answered with an error.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, flags) != 0 {
            // Before Linux 5.11: one by one, up to the limit of numbers and at most the kernel's
            // own default for it, fs.nr_open.
            const MOST: libc::rlim_t = 1 << 20;
            let mut limit = libc::rlimit { rlim_cur: MOST, rlim_max: MOST };
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
            for fd in 3..limit.rlim_max.min(MOST) as RawFd {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}
