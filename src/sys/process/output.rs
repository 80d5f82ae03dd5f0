//! A program's standard error, kept by its guard in a bounded amount.
//!
//! A guest can make passt print without end (40 MB in 3.5 s, by ICMP), so what passt prints must
//! fill neither memory nor a disk. It must not block passt either: a full pipe hangs passt, and one
//! without a reader kills Debian 12's. The guard therefore reads the pipe. It lives as long as the
//! program, does nothing else, and goes on while netlaunch is stopped or busy.
//!
//! The guard writes everything to two files: one in memory, from which [`Output::text`] takes the
//! last words, and a log. Each file holds the first [`HEAD`] bytes and the latest ones, and never
//! more than [`LIMIT`] bytes: a file that is full is cut to its head, a line that says so, and its
//! last [`KEPT`] bytes. A file that cannot be written (a full disk) loses text and nothing else.
//!
//! The functions that run in the guard make async-signal-safe calls only.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use libc::{c_int, c_void, off_t};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// The bytes at a file's beginning that are never cut.
const HEAD: usize = 16 << 10;
/// The bytes at a file's end that a cut keeps.
const KEPT: usize = 16 << 10;
/// The most that a file holds.
pub(super) const LIMIT: usize = 96 << 10;
/// What one read takes.
const CHUNK: usize = 4 << 10;
/// Between the head and the rest of a file that was cut.
const CUT: &[u8] = b"\n[netlaunch: lines are missing here]\n";
/// The reads after which the guard looks at its other descriptors again.
const BURST: usize = 16;
/// The reads that empty a pipe whose writers may go on: 1 MiB, the most that a pipe holds unless
/// root allows more (pipe(7)).
const ALL: usize = (1 << 20) / CHUNK;

/// Standard error of a program that is to be started.
#[derive(Debug)]
pub(super) struct Output {
    /// The pipe's end for the guard.
    pub(super) pipe: OwnedFd,
    /// The file in memory.
    pub(super) memory: File,
    /// The log, open for reading and writing.
    pub(super) log: Option<File>,
}

impl Output {
    /// The files for a program, and the end of the pipe that is its standard error.
    pub(super) fn new(log: Option<File>) -> io::Result<(Self, OwnedFd)> {
        let (pipe, end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let memory = File::from(memfd_create(c"output", MFdFlags::MFD_CLOEXEC)?);
        Ok((Output { pipe, memory, log }, end))
    }

    /// The numbers that the guard works with, in the order of [`Drain::new`].
    pub(super) fn descriptors(&self) -> [c_int; 3] {
        let log = self.log.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        [self.pipe.as_raw_fd(), self.memory.as_raw_fd(), log]
    }
}

/// What a file of [`Output`] holds now.
pub(super) fn text(file: &File) -> Vec<u8> {
    let mut text = vec![0; LIMIT];
    let mut len = 0;
    while let Ok(got @ 1..) = file.read_at(&mut text[len..], len as u64) {
        len += got;
    }
    text.truncate(len);
    text
}

/// The guard's side: a pipe and the files that its text goes to.
pub(super) struct Drain {
    pipe: c_int,
    files: [Bounded; 2],
}

impl Drain {
    /// For the pipe, the file in memory and the log under these numbers; the log is appended to.
    ///
    /// # Safety
    /// Async-signal-safe. Each number is negative, not open, or of that file alone.
    pub(super) unsafe fn new([pipe, memory, log]: [c_int; 3]) -> Self {
        // SAFETY: numbers only.
        let file = |fd| unsafe { Bounded { fd, len: libc::lseek(fd, 0, libc::SEEK_END) } };
        Drain { pipe, files: [file(memory), file(log)] }
    }

    /// Takes some of what is in the pipe; false once it can have no more.
    ///
    /// # Safety
    /// As [`Drain::new`].
    pub(super) unsafe fn some(&mut self) -> bool {
        // SAFETY: as the caller says.
        unsafe { self.reads(BURST) }
    }

    /// Takes all that is in the pipe now.
    ///
    /// # Safety
    /// As [`Drain::new`].
    pub(super) unsafe fn all(&mut self) {
        // SAFETY: as the caller says.
        unsafe { self.reads(ALL) };
    }

    unsafe fn reads(&mut self, most: usize) -> bool {
        let mut chunk = [0u8; CHUNK];
        for _ in 0..most {
            // SAFETY: the buffer is valid for its length, and errno's address always is.
            let (got, errno) = unsafe {
                let got = libc::read(self.pipe, chunk.as_mut_ptr().cast(), CHUNK);
                (got, *libc::__errno_location())
            };
            match usize::try_from(got) {
                Ok(0) => return false,
                Ok(got) => {
                    for file in &mut self.files {
                        // SAFETY: the kernel has filled `got` bytes of the buffer.
                        unsafe { file.append(&chunk, got) };
                    }
                }
                Err(_) => return matches!(errno, libc::EAGAIN | libc::EINTR),
            }
        }
        true
    }
}

/// A file that holds a head and the latest text.
struct Bounded {
    fd: c_int,
    /// The file's length; negative for no file.
    len: off_t,
}

impl Bounded {
    /// Adds the first `count` bytes of `chunk`.
    ///
    /// # Safety
    /// As [`Drain::new`]; `count` is at most the chunk's length.
    unsafe fn append(&mut self, chunk: &[u8; CHUNK], count: usize) {
        // SAFETY: as the caller says; `write` reads `count` bytes of the chunk.
        unsafe {
            if self.len + count as off_t > LIMIT as off_t {
                self.cut();
            }
            self.write(chunk.as_ptr().cast(), count);
        }
    }

    /// Removes the middle.
    ///
    /// # Safety
    /// As [`Drain::new`].
    unsafe fn cut(&mut self) {
        let mut kept = [0u8; KEPT];
        let from = self.len - KEPT as off_t;
        // SAFETY: all calls are on numbers and buffers that are valid for the length given; `read`
        // bytes of `kept` were filled.
        unsafe {
            let read = libc::pread(self.fd, kept.as_mut_ptr().cast(), KEPT, from);
            if libc::ftruncate(self.fd, HEAD as off_t) != 0 {
                return;
            }
            self.len = HEAD as off_t;
            self.write(CUT.as_ptr().cast(), CUT.len());
            self.write(kept.as_ptr().cast(), read.max(0) as usize);
        }
    }

    /// Writes at the end. Text that does not fit on the disk is lost.
    ///
    /// # Safety
    /// As [`Drain::new`]; `text` is valid for `count` bytes.
    unsafe fn write(&mut self, text: *const c_void, count: usize) {
        if self.len >= 0 && self.len + count as off_t <= LIMIT as off_t {
            // SAFETY: as the caller says.
            let written = unsafe { libc::pwrite(self.fd, text, count, self.len) };
            self.len += written.max(0) as off_t;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn files() -> (Output, File, Drain) {
        let (output, end) = Output::new(Some(tempfile::tempfile().unwrap())).unwrap();
        // SAFETY: the numbers are of this Output, which outlives the value.
        let drain = unsafe { Drain::new(output.descriptors()) };
        (output, File::from(end), drain)
    }

    #[test]
    fn both_files_have_all_of_a_short_text() {
        let (output, mut end, mut drain) = files();
        end.write_all(b"one\ntwo\n").unwrap();
        // SAFETY: `output` is still open.
        assert!(unsafe { drain.some() });
        drop(end);
        // SAFETY: as before.
        assert!(!unsafe { drain.some() }, "the pipe has no writer");
        assert_eq!(text(&output.memory), b"one\ntwo\n");
        assert_eq!(text(output.log.as_ref().unwrap()), b"one\ntwo\n");
    }

    #[test]
    fn a_file_holds_the_beginning_and_the_end_of_a_long_text() {
        let (output, mut end, mut drain) = files();
        let mut all = Vec::new();
        for number in 0..200_000 {
            let line = format!("line {number}\n");
            all.extend_from_slice(line.as_bytes());
            end.write_all(line.as_bytes()).unwrap();
            if number % 1000 == 0 {
                // SAFETY: `output` is still open.
                unsafe { drain.all() };
                assert!(output.memory.metadata().unwrap().len() <= LIMIT as u64);
            }
        }
        // SAFETY: as before.
        unsafe { drain.all() };
        let kept = text(&output.memory);
        assert_eq!(kept, text(output.log.as_ref().unwrap()));
        assert!(kept.len() <= LIMIT && kept.len() >= HEAD + KEPT, "{}", kept.len());
        assert_eq!(kept[..HEAD], all[..HEAD]);
        let tail = &kept[HEAD + CUT.len()..];
        assert_eq!(&kept[HEAD..HEAD + CUT.len()], CUT);
        assert_eq!(tail, &all[all.len() - tail.len()..]);
    }

    #[test]
    fn a_full_disk_loses_text_and_nothing_else() {
        let mut full = File::options().read(true).write(true).open("/dev/full").unwrap();
        assert!(full.write_all(b"x").is_err() && full.read(&mut [0]).is_ok());
        let (output, end) = Output::new(Some(full)).unwrap();
        // SAFETY: the numbers are of this Output, which outlives the value.
        let mut drain = unsafe { Drain::new(output.descriptors()) };
        File::from(end).write_all(b"last words\n").unwrap();
        // SAFETY: as before.
        unsafe { drain.all() };
        assert_eq!(text(&output.memory), b"last words\n");
    }

    #[test]
    fn a_log_is_appended_to() {
        let mut log = tempfile::tempfile().unwrap();
        log.write_all(b"before\n").unwrap();
        let (output, end) = Output::new(Some(log)).unwrap();
        // SAFETY: the numbers are of this Output, which outlives the value.
        let mut drain = unsafe { Drain::new(output.descriptors()) };
        File::from(end).write_all(b"after\n").unwrap();
        // SAFETY: as before.
        unsafe { drain.all() };
        assert_eq!(text(&output.memory), b"after\n");
        assert_eq!(text(output.log.as_ref().unwrap()), b"before\nafter\n");
    }
}
