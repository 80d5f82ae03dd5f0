//! The frames of one port that concern the learner, as they come.

use std::io;
use std::os::fd::OwnedFd;

use super::Direction;
use super::bpf::{Interest, program};
use crate::process::{PacketSocket, Received};
use crate::types::Mac;

/// How many bytes of frames wait, as setsockopt(2) has it for SO_RCVBUF. What concerns the learner
/// is a few frames; a guest that floods with them loses some, and asks again.
const QUEUE: usize = 64 * 1024;

/// The longest frame: an Ethernet header and the longest IPv4 packet. Memory that no frame was long
/// enough to touch costs nothing.
const LONGEST: usize = 14 + 0xffff;

/// Why a port cannot be listened to.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {what} the interface with number {index}: {source}; learning an address needs root or CAP_NET_RAW and a port that exists, or say the address: IP=ADDRESS"
)]
pub struct CaptureError {
    /// "listen on" and the like.
    what: &'static str,
    /// The interface's number.
    index: u32,
    /// The kernel's error.
    source: io::Error,
}

/// A port that is listened to. It ends with the interface, whatever gets its name afterwards.
#[derive(Debug)]
pub struct Capture {
    socket: PacketSocket,
    index: u32,
    guest: Mac,
    buffer: Vec<u8>,
}

impl Capture {
    /// Listens on the interface with this number, which has the guest with this MAC address behind
    /// it, in the caller's network namespace. From here on nothing of interest is missed. Needs a
    /// tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// [`CaptureError`] without the right to, or without such an interface.
    pub fn open(index: u32, guest: Mac, interest: Interest) -> Result<Self, CaptureError> {
        let error = |source| CaptureError { what: "listen on", index, source };
        let socket = PacketSocket::open(index, &program(interest, guest), QUEUE).map_err(error)?;
        Ok(Capture { socket, index, guest, buffer: vec![0; LONGEST] })
    }

    /// Goes on with what another process began to listen to, and handed over.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn adopt(socket: OwnedFd, index: u32, guest: Mac) -> Result<Self, CaptureError> {
        let error = |source| CaptureError { what: "go on listening on", index, source };
        let socket = PacketSocket::from_fd(socket).map_err(error)?;
        Ok(Capture { socket, index, guest, buffer: vec![0; LONGEST] })
    }

    /// The descriptor, for another process to go on. What was not yet received stays in it.
    pub fn into_fd(self) -> OwnedFd {
        self.socket.into_fd()
    }

    /// Wakes for frames of this interest only, from now on.
    ///
    /// # Errors
    /// [`CaptureError`]; then the interest is as before.
    pub fn narrow(&self, interest: Interest) -> Result<(), CaptureError> {
        let error = |source| CaptureError { what: "choose frames of", index: self.index, source };
        self.socket.set_program(&program(interest, self.guest)).map_err(error)
    }

    /// Waits for the next frame; `None` when the interface is gone. Nothing is lost when the wait
    /// is given up.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub async fn next(&mut self) -> Result<Option<(Direction, &[u8])>, CaptureError> {
        let index = self.index;
        let error = |source| CaptureError { what: "go on listening on", index, source };
        loop {
            // Not once it is ready only: that the interface went before is told by no event.
            match self.socket.receive(&mut self.buffer).map_err(error)? {
                Received::Frame { length, outgoing } => {
                    let direction =
                        if outgoing { Direction::ToGuest } else { Direction::FromGuest };
                    return Ok(Some((direction, self.buffer.get(..length).unwrap_or_default())));
                }
                Received::Gone => return Ok(None),
                Received::Nothing => {}
            }
            self.socket.wait().await.map_err(error)?;
        }
    }
}
