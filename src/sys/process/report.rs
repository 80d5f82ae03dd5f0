//! Reads the messages with which a guard and its program report a start.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg};
use nix::unistd::Pid;

use super::fork::{REPORT_LEN, STARTED, Stage};

/// Waits until the program has been executed (`None`), or returns the failed stage and its error.
pub(super) fn read_report(report: &OwnedFd) -> io::Result<Option<(Stage, io::Error)>> {
    let mut message = [0u8; REPORT_LEN];
    let mut got = 0;
    while got < REPORT_LEN {
        match nix::unistd::read(report, &mut message[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if got < REPORT_LEN {
        return Ok(None);
    }
    let [stage, errno @ ..] = message;
    let error = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
    Ok(Some((Stage::from_byte(stage).unwrap_or(Stage::Fork), error)))
}

/// The number of attempts to receive a message.
const ATTEMPTS: usize = 100;

/// Returns the process number, in this PID namespace, of the first message's sender, which is the
/// program's process.
pub(super) fn sender(socket: &OwnedFd) -> io::Result<Pid> {
    let mut byte = [0u8; 8];
    let mut iov = [io::IoSliceMut::new(&mut byte)];
    let mut control = nix::cmsg_space!(UnixCredentials);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let gone = || io::Error::other("it was killed before it could start");
    // A message that cannot be received now is still queued, and its sender still runs. An error
    // would end a tool in the middle of its work.
    let mut attempts = 0;
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags) {
            Err(Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM) if attempts < ATTEMPTS => {
                attempts += 1;
            }
            Err(Errno::EAGAIN | Errno::ECONNRESET) => return Err(gone()),
            other => break other?,
        }
    };
    let pid = message.cmsgs()?.find_map(|c| match c {
        ControlMessageOwned::ScmCredentials(c) => Some(Pid::from_raw(c.pid())),
        _ => None,
    });
    if byte[0] != STARTED {
        return Err(gone());
    }
    pid.filter(|pid| pid.as_raw() > 0).ok_or_else(gone)
}
