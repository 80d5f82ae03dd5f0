//! Reports readiness to a descriptor and to the service manager (sd_notify(3)).
//!
//! The receiver may be full while its reader reads nothing, and a blocked write would keep
//! netlaunch from its signals. Each message is therefore sent without blocking, for at most
//! [`LIMIT`]. The caller shares its descriptor's open file description, so O_NONBLOCK is never set
//! there: a socket takes MSG_DONTWAIT, a pipe is opened anew, and all else is polled before the
//! write.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

use super::Failure;
use crate::launcher::plan::Plan;
use crate::types::Publish;

/// The longest wait for a full receiver.
const LIMIT: Duration = Duration::from_millis(500);
/// The message to the service manager, and the last line of a report.
const READY: &str = "READY=1\n";

/// Reports that the network serves: lines to `--ready-fd`, a message to the service manager's
/// socket `notify`.
pub(super) fn signal(
    plan: &Plan,
    ready: Option<OwnedFd>,
    notify: Option<&OsStr>,
) -> Result<(), Failure> {
    match ready.map(|fd| report(fd, &plan.free_ports)) {
        Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            tracing::warn!("--ready-fd is full and not read: readiness is not reported there");
        }
        // A reader that has ended does not wait for the line.
        Some(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Failure::system("tell --ready-fd that the network serves")(error));
        }
        _ => {}
    }
    if let Err(error) = self::notify(notify) {
        tracing::warn!("cannot tell the service manager that the network serves: {error}");
    }
    Ok(())
}

/// Writes a line for each of `ports`, which netlaunch has chosen, and the line `READY=1` to a
/// descriptor of the caller, and closes the descriptor.
///
/// # Errors
/// `WouldBlock` if the receiver does not take the lines within [`LIMIT`], else the kernel's error.
fn report(fd: OwnedFd, ports: &[Publish]) -> io::Result<()> {
    let mut text: String = ports.iter().map(|port| format!("PUBLISHED={port}\n")).collect();
    text += READY;
    let message = text.as_bytes();
    let file = File::from(fd);
    let kind = file.metadata()?.file_type();
    if kind.is_socket() {
        return send_within(file.as_fd(), message);
    }
    if kind.is_fifo() {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let options = libc::O_NONBLOCK | libc::O_NOCTTY;
        match OpenOptions::new().write(true).custom_flags(options).open(path) {
            Ok(mut pipe) => return within(|| pipe.write_all(message), file.as_fd()),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            // The pipe belongs to another user, or /proc is not mounted: poll before the write.
            Err(_) => {}
        }
    }
    wait(file.as_fd(), LIMIT)?;
    (&file).write_all(message)
}

/// Sends the message to the service manager's socket, as NOTIFY_SOCKET names it.
///
/// # Errors
/// Those of [`report`].
pub(super) fn notify(address: Option<&OsStr>) -> io::Result<()> {
    let Some(address) = address else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    // A blocking connect(2) of a datagram socket never waits.
    match address.as_bytes().strip_prefix(b"@") {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)?;
        }
        None => socket.connect(address)?,
    }
    send_within(socket.as_fd(), READY.as_bytes())
}

fn send_within(socket: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    within(|| Ok(send(socket.as_raw_fd(), message, flags).map(drop)?), socket)
}

/// Repeats `attempt` until it does not return `WouldBlock`, for at most [`LIMIT`].
fn within(mut attempt: impl FnMut() -> io::Result<()>, fd: BorrowedFd<'_>) -> io::Result<()> {
    let end = Instant::now() + LIMIT;
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(fd, end.saturating_duration_since(Instant::now()))?;
            }
            done => return done,
        }
    }
}

/// Waits until `fd` takes bytes, for at most `limit`.
fn wait(fd: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now()).as_millis() as u16;
        match poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], PollTimeout::from(left)) {
            Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(Errno::EINTR) => {}
            // A short pause keeps a descriptor that is ready and yet refuses from a busy loop.
            Ok(_) if limit.is_zero() => return Err(io::ErrorKind::WouldBlock.into()),
            other => return Ok(other.map(drop)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Fills a descriptor that stays blocking.
    fn fill(fd: BorrowedFd<'_>) {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        while nix::unistd::write(fd, b"x").is_ok() {}
        fcntl(fd, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    }

    #[test]
    fn a_report_to_a_full_receiver_does_not_block() {
        let (_read, write) = nix::unistd::pipe().unwrap();
        fill(write.as_fd());
        assert_eq!(report(write, &[]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (a, _b) = UnixStream::pair().unwrap();
        fill(a.as_fd());
        assert_eq!(report(a.into(), &[]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _manager = UnixDatagram::bind(&path).unwrap();
        let other = UnixDatagram::unbound().unwrap();
        other.connect(&path).unwrap();
        fill(other.as_fd());
        let error = notify(Some(path.as_os_str())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_report_arrives_and_keeps_the_flags_of_the_descriptor() {
        let (read, write) = nix::unistd::pipe().unwrap();
        report(write.try_clone().unwrap(), &[]).unwrap();
        let flags = nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert_eq!(flags & libc::O_NONBLOCK, 0);
        drop(write);
        let mut text = Vec::new();
        File::from(read).read_to_end(&mut text).unwrap();
        assert_eq!(text, READY.as_bytes());
        let (a, mut b) = UnixStream::pair().unwrap();
        report(a.into(), &[]).unwrap();
        text.clear();
        b.read_to_end(&mut text).unwrap();
        assert_eq!(text, READY.as_bytes());
    }
}
