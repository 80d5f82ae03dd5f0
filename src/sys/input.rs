//! Reads files that the user names or keeps: only regular files, and only up to a size.
//!
//! A FIFO without a writer would block forever, and a device such as /dev/zero never ends. So
//! [`read`] opens a file with O_NONBLOCK, so that the open does not block, and checks the file type
//! on the descriptor. It reads an anonymous pipe, such as `<(command)` or `/dev/stdin`, if the
//! caller allows pipes. It never reads a FIFO with a name. It reads /dev/null as an empty file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::statfs::{FsType, fstatfs};

/// The magic number of the file system of anonymous pipes (linux/magic.h).
const PIPEFS: FsType = FsType(0x5049_5045);

/// Whether an anonymous pipe may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pipes {
    /// No: a configuration file or a stored definition must be a file.
    Refused,
    /// Yes: the command line names the input.
    Read,
}

/// A file that is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Fifo,
    Pipe,
    Device,
    Socket,
    TooLarge(u64),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Fifo => "it is a FIFO, not a regular file",
            Refused::Pipe => "it is a pipe, not a regular file",
            Refused::Device => "it is a device, not a regular file",
            Refused::Socket => "it is a socket, not a regular file",
            Refused::TooLarge(most) => {
                return write!(f, "it is larger than {most} bytes, the most that is read");
            }
        })
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for io::Error {
    fn from(why: Refused) -> Self {
        io::Error::new(io::ErrorKind::InvalidInput, why)
    }
}

/// Returns the content of a file of at most `most` bytes.
///
/// # Errors
/// The kernel's error, or `InvalidInput` for a file that is not regular or is too large.
pub(crate) fn read(path: &Path, most: u64, pipes: Pipes) -> io::Result<Vec<u8>> {
    let bytes = start(path, most + 1, pipes)?;
    if bytes.len() as u64 > most {
        return Err(Refused::TooLarge(most).into());
    }
    Ok(bytes)
}

/// Returns the first `most` bytes of a file, for a caller that reports a large file itself.
///
/// # Errors
/// The errors of [`read`], except for the size.
pub(crate) fn start(path: &Path, most: u64, pipes: Pipes) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(file) = open(path, pipes)? {
        file.take(most).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Opens a file for reading. Returns `None` for /dev/null.
pub(crate) fn open(path: &Path, pipes: Pipes) -> io::Result<Option<File>> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ENXIO) => Refused::Socket.into(),
        _ => error,
    })?;
    let is = file.metadata()?;
    let kind = is.file_type();
    if kind.is_file() {
        return Ok(Some(file));
    }
    if kind.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if kind.is_char_device() && is.rdev() == libc::makedev(1, 3) {
        return Ok(None);
    }
    if !kind.is_fifo() {
        return Err(Refused::Device.into());
    }
    if fstatfs(&file)?.filesystem_type() != PIPEFS {
        return Err(Refused::Fifo.into());
    }
    if pipes == Pipes::Refused {
        return Err(Refused::Pipe.into());
    }
    // The reads must block, because the writer may be slow.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Write;
    use std::os::fd::AsRawFd;

    fn refused(path: &Path, most: u64, pipes: Pipes) -> String {
        read(path, most, pipes).unwrap_err().to_string()
    }

    #[test]
    fn only_regular_files_up_to_the_limit_are_read() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        std::fs::write(&file, "12345").unwrap();
        assert_eq!(read(&file, 5, Pipes::Refused).unwrap(), b"12345");
        let too_large = "it is larger than 4 bytes, the most that is read";
        assert_eq!(refused(&file, 4, Pipes::Refused), too_large);
        assert_eq!(start(&file, 4, Pipes::Refused).unwrap(), b"1234");
        let fifo = place.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let socket = place.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for pipes in [Pipes::Refused, Pipes::Read] {
            let fifo = refused(&fifo, 9, pipes);
            assert_eq!(fifo, "it is a FIFO, not a regular file");
            let zero = refused(Path::new("/dev/zero"), 9, pipes);
            assert_eq!(zero, "it is a device, not a regular file");
            assert_eq!(refused(&socket, 9, pipes), "it is a socket, not a regular file");
            assert_eq!(read(Path::new("/dev/null"), 9, pipes).unwrap(), b"");
        }
    }

    #[test]
    fn an_anonymous_pipe_is_read_if_the_caller_allows_it() {
        let (from, mut to) = io::pipe().unwrap();
        to.write_all(b"12345").unwrap();
        let path = format!("/proc/self/fd/{}", from.as_raw_fd());
        let path = Path::new(&path);
        assert_eq!(refused(path, 9, Pipes::Refused), "it is a pipe, not a regular file");
        assert_eq!(
            refused(path, 4, Pipes::Read),
            "it is larger than 4 bytes, the most that is read"
        );
        to.write_all(b"abc").unwrap();
        drop(to);
        assert_eq!(read(path, 9, Pipes::Read).unwrap(), b"abc");
    }
}
