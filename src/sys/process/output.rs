//! Keeps a bounded part of a program's standard error.
//!
//! A guest can make passt print without end (measured: 40 MB in 3.5 s, by ICMP), so the output of
//! passt must not fill memory or a disk. It must not block passt either: a full pipe hangs passt,
//! and a pipe without a reader kills Debian 12's passt. So the guard reads the pipe. It lives as
//! long as the program, has no other work, and also reads while netlaunch is stopped or busy.
//!
//! The guard writes the output to two files: one in memory, which [`text`] reads, and a log. Each
//! file holds the first [`HEAD`] bytes and the latest bytes, and never more than [`LIMIT`] bytes. A
//! full file is cut to its head, a line that says so, and its last [`KEPT`] bytes. If a file cannot
//! be written, for example on a full disk, text is lost without further effects.
//!
//! The functions of [`Drain`] run in the guard, so the rules of [`super::fork`] apply to them.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use libc::{c_int, c_void, off_t};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// The number of bytes at a file's beginning that are never cut.
const HEAD: usize = 16 << 10;
/// The number of bytes at a file's end that a cut keeps.
const KEPT: usize = 16 << 10;
/// The maximum size of a file in bytes.
pub(super) const LIMIT: usize = 96 << 10;
/// The maximum number of bytes of one read.
const CHUNK: usize = 4 << 10;
/// The text between the head and the rest of a file that was cut.
const OMISSION: &[u8] = b"\n[netlaunch: lines are missing here]\n";
/// The number of reads before the guard looks at its other descriptors again.
const BURST: usize = 16;
/// The number of reads that empty a pipe whose writers may go on: 1 MiB, which a pipe holds at most
/// unless root allows more (pipe(7)).
const ALL: usize = (1 << 20) / CHUNK;

/// The pipe and the files for a program's standard error.
#[derive(Debug)]
pub(super) struct Output {
    /// The read end of the pipe.
    pub(super) pipe: OwnedFd,
    /// The file in memory.
    pub(super) memory: File,
    /// The log, open for reading and writing.
    pub(super) log: Option<File>,
}

impl Output {
    /// Makes the pipe and the file in memory. Also returns the write end of the pipe, which becomes
    /// the program's standard error.
    pub(super) fn new(log: Option<File>) -> io::Result<(Self, OwnedFd)> {
        let (pipe, end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let memory = File::from(memfd_create(c"output", MFdFlags::MFD_CLOEXEC)?);
        Ok((Output { pipe, memory, log }, end))
    }

    /// Returns the descriptor numbers in the order of [`Drain::new`]; -1 for no log.
    pub(super) fn descriptors(&self) -> [c_int; 3] {
        let log = self.log.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        [self.pipe.as_raw_fd(), self.memory.as_raw_fd(), log]
    }
}

/// Returns the present content of a file of [`Output`].
pub(super) fn text(file: &File) -> Vec<u8> {
    let mut text = vec![0; LIMIT];
    let mut len = 0;
    while let Ok(got @ 1..) = file.read_at(&mut text[len..], len as u64) {
        len += got;
    }
    text.truncate(len);
    text
}

/// The guard's side: a pipe, and the files to which its text goes.
pub(super) struct Drain {
    pipe: c_int,
    files: [Bounded; 2],
}

impl Drain {
    /// Makes a drain for the numbers of the pipe, the file in memory and the log. Text is appended
    /// to the log.
    ///
    /// # Safety
    /// Each number is negative, not open, or the descriptor of that file, and no other code uses
    /// it.
    pub(super) unsafe fn new([pipe, memory, log]: [c_int; 3]) -> Self {
        // SAFETY: lseek takes numbers.
        let file = |fd| unsafe { Bounded { fd, len: libc::lseek(fd, 0, libc::SEEK_END) } };
        Drain { pipe, files: [file(memory), file(log)] }
    }

    /// Moves some text out of the pipe. Returns `false` if no more text can come.
    ///
    /// # Safety
    /// The conditions of [`Drain::new`].
    pub(super) unsafe fn some(&mut self) -> bool {
        // SAFETY: the caller promises the same conditions.
        unsafe { self.reads(BURST) }
    }

    /// Moves all text out of the pipe.
    ///
    /// # Safety
    /// The conditions of [`Drain::new`].
    pub(super) unsafe fn all(&mut self) {
        // SAFETY: the caller promises the same conditions.
        unsafe { self.reads(ALL) };
    }

    /// # Safety
    /// The conditions of [`Drain::new`].
    unsafe fn reads(&mut self, most: usize) -> bool {
        let mut chunk = [0u8; CHUNK];
        for _ in 0..most {
            // SAFETY: read fills a local buffer of the given length, and __errno_location always
            // returns a valid address.
            let (got, errno) = unsafe {
                let got = libc::read(self.pipe, chunk.as_mut_ptr().cast(), CHUNK);
                (got, *libc::__errno_location())
            };
            match usize::try_from(got) {
                Ok(0) => return false,
                Ok(got) => {
                    for file in &mut self.files {
                        // SAFETY: `got` is at most the length of the buffer.
                        unsafe { file.append(&chunk, got) };
                    }
                }
                Err(_) => return matches!(errno, libc::EAGAIN | libc::EINTR),
            }
        }
        true
    }
}

/// A file with the first and the latest text.
struct Bounded {
    fd: c_int,
    /// The file's length; negative for no file.
    len: off_t,
}

impl Bounded {
    /// Appends the first `count` bytes of `chunk`.
    ///
    /// # Safety
    /// The conditions of [`Drain::new`]; `count` is at most the chunk's length.
    unsafe fn append(&mut self, chunk: &[u8; CHUNK], count: usize) {
        // SAFETY: `write` reads `count` bytes of the chunk, which has that many by the caller's
        // promise.
        unsafe {
            if self.len + count as off_t > LIMIT as off_t {
                self.cut();
            }
            self.write(chunk.as_ptr().cast(), count);
        }
    }

    /// Removes the middle of the file.
    ///
    /// # Safety
    /// The conditions of [`Drain::new`].
    unsafe fn cut(&mut self) {
        let mut kept = [0u8; KEPT];
        let from = self.len - KEPT as off_t;
        // SAFETY: the calls take numbers, and local buffers of the given lengths; pread has filled
        // `read` bytes of `kept`.
        unsafe {
            let read = libc::pread(self.fd, kept.as_mut_ptr().cast(), KEPT, from);
            if libc::ftruncate(self.fd, HEAD as off_t) != 0 {
                return;
            }
            self.len = HEAD as off_t;
            self.write(OMISSION.as_ptr().cast(), OMISSION.len());
            self.write(kept.as_ptr().cast(), read.max(0) as usize);
        }
    }

    /// Writes at the end of the file. Text that does not fit on the disk is lost.
    ///
    /// # Safety
    /// The conditions of [`Drain::new`]; `text` is valid for `count` bytes.
    unsafe fn write(&mut self, text: *const c_void, count: usize) {
        if self.len >= 0 && self.len + count as off_t <= LIMIT as off_t {
            // SAFETY: pwrite reads `count` bytes of `text`, which are valid by the caller's
            // promise.
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
        // SAFETY: the numbers belong to this Output, which outlives the value.
        let drain = unsafe { Drain::new(output.descriptors()) };
        (output, File::from(end), drain)
    }

    #[test]
    fn both_files_hold_the_whole_of_a_short_text() {
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
        let tail = &kept[HEAD + OMISSION.len()..];
        assert_eq!(&kept[HEAD..HEAD + OMISSION.len()], OMISSION);
        assert_eq!(tail, &all[all.len() - tail.len()..]);
    }

    #[test]
    fn a_full_disk_loses_only_the_text_of_its_own_file() {
        let mut full = File::options().read(true).write(true).open("/dev/full").unwrap();
        assert!(full.write_all(b"x").is_err() && full.read(&mut [0]).is_ok());
        let (output, end) = Output::new(Some(full)).unwrap();
        // SAFETY: the numbers belong to this Output, which outlives the value.
        let mut drain = unsafe { Drain::new(output.descriptors()) };
        File::from(end).write_all(b"last words\n").unwrap();
        // SAFETY: as before.
        unsafe { drain.all() };
        assert_eq!(text(&output.memory), b"last words\n");
    }

    #[test]
    fn the_text_of_an_earlier_log_is_kept() {
        let mut log = tempfile::tempfile().unwrap();
        log.write_all(b"before\n").unwrap();
        let (output, end) = Output::new(Some(log)).unwrap();
        // SAFETY: the numbers belong to this Output, which outlives the value.
        let mut drain = unsafe { Drain::new(output.descriptors()) };
        File::from(end).write_all(b"after\n").unwrap();
        // SAFETY: as before.
        unsafe { drain.all() };
        assert_eq!(text(&output.memory), b"after\n");
        assert_eq!(text(output.log.as_ref().unwrap()), b"before\nafter\n");
    }
}
