//! Places the descriptors of a program above every number that the program gets.
//!
//! The program's process then moves each descriptor to its number with dup2(2). Since every present
//! number is above every future one, no dup2 closes a descriptor that a later one still needs.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;

use super::spawn::Stdio;

/// Copies the descriptors that a program gets to numbers above all numbers that it gets them at, so
/// that a later dup2(2) closes none of them. Returns each copy with its number in the program.
pub(super) fn place(
    stdio: [Stdio; 3],
    fds: Vec<(OwnedFd, RawFd)>,
) -> io::Result<Vec<(OwnedFd, RawFd)>> {
    let mut all = Vec::new();
    for (number, target) in stdio.into_iter().enumerate() {
        let fd = match target {
            Stdio::Inherit => continue,
            Stdio::Null => null()?,
            Stdio::Fd(fd) => fd,
        };
        all.push((fd, number as RawFd));
    }
    all.extend(fds);
    let top = top(&all);
    all.into_iter().map(|(fd, number)| Ok((dup_above(fd, top)?, number))).collect()
}

fn null() -> io::Result<OwnedFd> {
    match OpenOptions::new().read(true).write(true).open("/dev/null") {
        Ok(file) => Ok(file.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(io::Error::other("there is no /dev/null, which the program needs; mount /dev"))
        }
        Err(error) => Err(error),
    }
}

/// Moves `fd` above all numbers that the program gets; execve(2) closes it.
pub(super) fn above(fd: OwnedFd, program: &[(OwnedFd, RawFd)]) -> nix::Result<OwnedFd> {
    dup_above(fd, top(program))
}

/// Moves the descriptors of the program that this process is about to execute to their numbers. A
/// descriptor that has such a number is closed.
pub(super) fn move_to_numbers(fds: Vec<(OwnedFd, RawFd)>) -> io::Result<()> {
    let top = top(&fds);
    for (fd, number) in fds {
        let fd = dup_above(fd, top)?;
        // SAFETY: the call takes two numbers. The program's numbers were free when this process
        // started, and the values that owned a descriptor with such a number are gone: those in
        // `fds` were copied above all numbers.
        if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Opens the program file, for a program whose path may lead to nothing later. Returns `None` if it
/// cannot be opened: then execve(2) reports the reason.
pub(super) fn open_program(
    path: &Path,
    program: &[(OwnedFd, RawFd)],
) -> nix::Result<Option<OwnedFd>> {
    match open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(fd) => above(fd, program).map(Some),
        Err(_) => Ok(None),
    }
}

/// Returns the highest number that the program gets, at least 2.
fn top(program: &[(OwnedFd, RawFd)]) -> RawFd {
    program.iter().map(|(_, number)| *number).max().unwrap_or(2).max(2)
}

fn dup_above(fd: OwnedFd, top: RawFd) -> nix::Result<OwnedFd> {
    let copy = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(top + 1))?;
    // SAFETY: fcntl returned this new descriptor, and no other value owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
