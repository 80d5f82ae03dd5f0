//! Takes over descriptors that the process was started with, such as one for a readiness message.
//!
//! A number on the command line says nothing about the descriptor behind it: the number may be
//! closed, or may belong to a file that this process opened itself, such as the epoll descriptor of
//! a runtime. So `main` makes one [`InheritedFds`] before the process opens anything. It records
//! which numbers on the command line are open at that time, and hands over each of them at most
//! once. Other code must never make an [`OwnedFd`] from a number.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use procfs::process::Process;

/// Returns the lowest descriptor number above the standard ones that is free now. Another thread
/// may take it at any time.
pub(crate) fn first_free_fd() -> RawFd {
    (3..).find(|fd| !is_open(*fd)).unwrap_or(3)
}

/// Returns descriptor numbers that a program does not inherit from this process now: `first`, and
/// then the next ones that are free or that execve(2) closes.
pub(crate) fn free_fds(first: RawFd, count: usize) -> Vec<RawFd> {
    let further = (first.saturating_add(1)..RawFd::MAX).filter(|fd| !is_inherited(*fd));
    std::iter::once(first).chain(further).take(count).collect()
}

/// The descriptors that the process was started with and has not taken over yet.
#[derive(Debug)]
pub struct InheritedFds {
    named: BTreeSet<RawFd>,
    closed_standard: Vec<&'static str>,
    first_free: RawFd,
}

impl InheritedFds {
    /// Records the descriptors that are open at the start of the process, as far as `arguments`
    /// contains their numbers.
    ///
    /// # Safety
    /// The process has not opened a descriptor yet, and calls this function once. No other code
    /// closes an inherited descriptor, or makes an owner of it.
    pub unsafe fn at_start(arguments: &[OsString]) -> Self {
        InheritedFds {
            named: numbers(arguments).filter(|fd| *fd > 2 && is_open(*fd)).collect(),
            closed_standard: [(0, "standard input"), (1, "standard output"), (2, "standard error")]
                .into_iter()
                .filter(|(fd, _)| !is_open(*fd))
                .map(|(_, name)| name)
                .collect(),
            first_free: first_free_fd(),
        }
    }

    /// Returns the names of the standard descriptors that were closed at the start. A file that the
    /// process opens would get such a number, and programs would write their messages into it.
    pub fn closed_standard(&self) -> &[&'static str] {
        &self.closed_standard
    }

    /// Returns the lowest descriptor number above the standard ones that was free at the start.
    pub fn first_free(&self) -> RawFd {
        self.first_free
    }

    /// Takes over a descriptor. Programs that the process starts do not inherit it.
    ///
    /// # Errors
    /// The descriptor was not open at the start, or it was taken over before.
    pub fn take(&mut self, fd: RawFd) -> io::Result<OwnedFd> {
        if !self.named.remove(&fd) {
            return Err(io::Error::other("not open"));
        }
        // SAFETY: F_SETFD changes a flag of a number. By the promise of `at_start`, `fd` still is
        // the descriptor from the start, and no other value owns it; `remove` makes sure that it
        // is handed over once.
        unsafe {
            if libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }

    /// Takes over a descriptor that is open for writing.
    ///
    /// # Errors
    /// The errors of [`InheritedFds::take`], or the descriptor is open for reading only.
    pub fn take_writable(&mut self, fd: RawFd) -> io::Result<OwnedFd> {
        // SAFETY: F_GETFL reads flags of a number.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        if flags >= 0 && flags & libc::O_ACCMODE == libc::O_RDONLY {
            return Err(io::Error::other("open for reading only"));
        }
        self.take(fd)
    }
}

/// Returns every sequence of digits in the arguments that is a possible descriptor number.
fn numbers(arguments: &[OsString]) -> impl Iterator<Item = RawFd> {
    let digits = |byte: &u8| !byte.is_ascii_digit();
    let words = arguments.iter().flat_map(move |word| word.as_encoded_bytes().split(digits));
    words.filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok())
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads a flag of a number.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Returns whether execve(2) leaves this descriptor open.
fn is_inherited(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads a flag of a number.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Closes every descriptor above the standard ones that the process was started with and has not
/// taken over.
///
/// Each such descriptor has no close-on-exec flag, or execve(2) would have closed it. Each one that
/// this process has opened or taken over has the flag.
///
/// # Errors
/// /proc cannot be read.
pub(super) fn close_inherited() -> io::Result<()> {
    let fds = Process::myself().and_then(|process| process.fd()).map_err(io::Error::other)?;
    // The iterator has a descriptor of its own, which must not be closed here.
    let numbers: Vec<RawFd> = fds.flatten().map(|fd| fd.fd).collect();
    for fd in numbers.into_iter().filter(|fd| *fd > 2 && is_inherited(*fd)) {
        // SAFETY: no value owns a descriptor without the flag: `take` sets it, and the standard
        // library and nix open with it.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Makes execve(2) close every descriptor except the standard ones.
///
/// The descriptors stay open until then, because a failed start is reported through one of them.
/// This function is async-signal-safe: it makes system calls only.
pub(super) fn close_on_exec() {
    let (first, last) = (3 as libc::c_ulong, libc::c_ulong::from(u32::MAX));
    let flags = libc::c_ulong::from(libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: the calls change a flag of numbers, and getrlimit fills a local structure. For a
    // number that is not open, they return an error.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, flags) != 0 {
            // Before Linux 5.11 there is no such call: the loop sets the flag one by one, up to the
            // limit of numbers, and at most up to the kernel's own default limit, fs.nr_open.
            const MOST: libc::rlim_t = 1 << 20;
            let mut limit = libc::rlimit { rlim_cur: MOST, rlim_max: MOST };
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
            for fd in 3..limit.rlim_max.min(MOST) as RawFd {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::IntoRawFd;

    use super::*;

    fn at_start(word: &str) -> InheritedFds {
        // SAFETY: each test takes over only descriptors that it gave up before with `into_raw_fd`.
        unsafe { InheritedFds::at_start(&["netlaunch".into(), word.into()]) }
    }

    #[test]
    fn a_named_descriptor_is_handed_over_once_and_no_program_inherits_it() {
        let [fd, other] = [(); 2].map(|()| File::create("/dev/null").unwrap().into_raw_fd());
        let mut inherited = at_start(&format!("--ready-fd={fd}"));
        inherited.take(other).unwrap_err();
        let owned = inherited.take_writable(fd).unwrap();
        // SAFETY: F_GETFD reads a flag of a number.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_GETFD) }, libc::FD_CLOEXEC);
        assert_eq!(inherited.take(fd).unwrap_err().to_string(), "not open");
        drop(owned);
        drop(at_start(&format!("{other},0")).take(other).unwrap());
    }

    #[test]
    fn a_number_that_was_not_open_at_the_start_is_refused() {
        let fd = File::open("/dev/null").unwrap().into_raw_fd();
        let mut inherited = at_start(&format!("{fd}"));
        let reading = inherited.take_writable(fd).unwrap_err();
        assert_eq!(reading.to_string(), "open for reading only");
        drop(inherited.take(fd).unwrap());
        let mut inherited = at_start("1048000,2");
        inherited.take(1_048_000).unwrap_err();
        inherited.take(2).unwrap_err();
    }
}
