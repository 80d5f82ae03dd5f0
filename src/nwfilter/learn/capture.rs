//! Receives the frames of one port that the learner needs.
//!
//! A packet socket on the interface queues the frames that the BPF program ([`program`]) passes.
//! The socket belongs to the interface, not to its name: it ends with the interface, even if
//! another interface gets the same name.
//!
//! # Checksum offload
//!
//! A guest with virtio may leave a checksum to the kernel, and names the place of it. The kernel or
//! the card writes there when the frame leaves the host, after the capture has read the frame and
//! the rules have passed it. So a guest could test one address before the capture and another one
//! before all other machines. The capture therefore empties neighbor discovery of the guest whose
//! checksum is not written yet. Linux computes the checksum of ICMPv6 itself. Measured with a guest
//! of Linux 6.1, virtio-net and checksum offload: tests, solicitations, echo requests and MLD
//! reports came with a finished checksum, UDP over IPv6 without one. So DHCPv6 is read in any case:
//! there the server gives the address, and its answer must fit the request that the capture read.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;

use super::bpf::{Frames, program, program_of_sent};
use super::packet6::{is_icmp6, question};
use super::{GuestFrames, Sender};
use crate::sys::packet_socket::{PacketSocket, Received};
use crate::types::{EthernetAddress, Mac};

/// The size of the socket's queue in bytes, as in setsockopt(2) for SO_RCVBUF. The learner needs a
/// few frames. A guest that floods the port with them loses some and asks again. For IPv6 the queue
/// is larger, because many guests that start at once test their addresses at once, and each port
/// sees all tests.
const QUEUE: usize = 64 * 1024;
const QUEUE6: usize = 256 * 1024;

/// The longest frame in bytes: an Ethernet header and the longest IPv4 packet. The part of the
/// buffer that no frame has reached uses no memory.
const LONGEST: usize = 14 + 0xffff;

/// A capture cannot be opened or used.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {what} the interface with number {index}; run as root or with CAP_NET_RAW, or set the addresses in the binding so that none is learned"
)]
pub struct CaptureError {
    /// The failed operation, such as "listen on".
    what: &'static str,
    /// The interface number.
    index: u32,
    /// The kernel's error.
    source: io::Error,
}

/// The capture of one port.
#[derive(Debug)]
pub struct Capture {
    socket: PacketSocket,
    index: u32,
    guest: Mac,
    guest_frames: GuestFrames,
    buffer: Vec<u8>,
}

impl Capture {
    /// Opens a capture on the interface with this number, in the caller's network namespace, for
    /// the guest with this MAC address.
    ///
    /// From this call on, the capture misses no frame of `frames` while its queue has room. It
    /// needs a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// [`CaptureError`] if the caller has no permission or the interface does not exist.
    pub fn open(
        index: u32,
        guest: Mac,
        guest_frames: GuestFrames,
        frames: impl Into<Frames>,
    ) -> Result<Self, CaptureError> {
        let error = |source| CaptureError { what: "listen on", index, source };
        let frames = frames.into();
        let queue = if frames.v6.is_some() { QUEUE6 } else { QUEUE };
        let program = guest_frames.program(frames, guest);
        let socket = PacketSocket::open(index, &program, queue).map_err(error)?;
        Ok(Capture { socket, index, guest, guest_frames, buffer: vec![0; LONGEST] })
    }

    /// Continues a capture that another process opened and passed as a descriptor.
    ///
    /// # Errors
    /// [`CaptureError`] if the descriptor cannot be used.
    pub fn adopt(
        socket: OwnedFd,
        index: u32,
        guest: Mac,
        guest_frames: GuestFrames,
    ) -> Result<Self, CaptureError> {
        let error = |source| CaptureError { what: "continue to listen on", index, source };
        let socket = PacketSocket::from_fd(socket).map_err(error)?;
        Ok(Capture { socket, index, guest, guest_frames, buffer: vec![0; LONGEST] })
    }

    /// Returns the MAC address of the guest.
    pub fn guest(&self) -> Mac {
        self.guest
    }

    /// Returns the descriptor, so that another process can continue. Frames that were not received
    /// stay in its queue.
    pub fn into_fd(self) -> OwnedFd {
        self.socket.into_fd()
    }

    /// Returns the direction of the guest's frames.
    pub fn guest_frames(&self) -> GuestFrames {
        self.guest_frames
    }

    /// Passes only these frames from now on. Frames that are queued already stay.
    ///
    /// # Errors
    /// [`CaptureError`] if the program cannot be set; the capture then passes the same frames as
    /// before.
    pub fn select(&self, frames: impl Into<Frames>) -> Result<(), CaptureError> {
        let error = |source| CaptureError { what: "select frames of", index: self.index, source };
        let program = self.guest_frames.program(frames, self.guest);
        self.socket.set_program(&program).map_err(error)
    }

    /// Asks the guest for these addresses, in the name of the port with this MAC address.
    ///
    /// # Errors
    /// [`CaptureError`] if the kernel does not send the frames.
    pub fn ask(&self, port: EthernetAddress, targets: &[Ipv6Addr]) -> Result<(), CaptureError> {
        let error = |source| CaptureError { what: "send on", index: self.index, source };
        let mut frames = targets.iter().map(|target| question(port, self.guest.into(), *target));
        frames.try_for_each(|frame| self.socket.send(&frame)).map_err(error)
    }

    /// Returns the next frame that is queued already; `None` if there is none. A frame that changes
    /// behind the rules is empty.
    ///
    /// # Errors
    /// [`CaptureError`] if the kernel reports an error.
    pub fn queued(&mut self) -> Result<Option<(Sender, &[u8])>, CaptureError> {
        let index = self.index;
        let error = |source| CaptureError { what: "continue to listen on", index, source };
        match self.socket.receive(&mut self.buffer).map_err(error)? {
            Received::Frame { length, outgoing, pending_checksum } => {
                Ok(Some(self.frame(length, outgoing, pending_checksum)))
            }
            Received::Gone | Received::Nothing => Ok(None),
        }
    }

    /// Returns the frame in the buffer with its sender. Neighbor discovery of the guest whose
    /// checksum is not written yet becomes an empty frame, which counts against a flood as any
    /// other.
    fn frame(&self, length: usize, outgoing: bool, pending_checksum: bool) -> (Sender, &[u8]) {
        let sender = self.guest_frames.sender(outgoing);
        let frame = self.buffer.get(..length).unwrap_or_default();
        let changes = pending_checksum && sender == Sender::Guest && is_icmp6(frame);
        (sender, if changes { &[] } else { frame })
    }

    /// Returns whether frames were lost since the last call, because the queue was full.
    ///
    /// # Errors
    /// [`CaptureError`] if the kernel does not say.
    pub fn has_lost_frames(&self) -> Result<bool, CaptureError> {
        let error = |source| CaptureError { what: "count frames of", index: self.index, source };
        Ok(self.socket.dropped().map_err(error)? > 0)
    }

    /// Waits for the next frame. Returns `None` when the interface is gone. A frame that changes
    /// behind the rules is empty. A caller can drop the future without losing a frame.
    ///
    /// # Errors
    /// [`CaptureError`] if the kernel reports another error.
    pub async fn next(&mut self) -> Result<Option<(Sender, &[u8])>, CaptureError> {
        let index = self.index;
        let error = |source| CaptureError { what: "continue to listen on", index, source };
        loop {
            // Receives before the wait, not only after it: if the interface went earlier, no event
            // reports it.
            match self.socket.receive(&mut self.buffer).map_err(error)? {
                Received::Frame { length, outgoing, pending_checksum } => {
                    return Ok(Some(self.frame(length, outgoing, pending_checksum)));
                }
                Received::Gone => return Ok(None),
                Received::Nothing => {}
            }
            self.socket.wait().await.map_err(error)?;
        }
    }
}

impl GuestFrames {
    /// Returns the sender of a frame that the host has sent (`outgoing`) or received.
    fn sender(self, outgoing: bool) -> Sender {
        let is_guests = outgoing == (self == GuestFrames::Sent);
        if is_guests { Sender::Guest } else { Sender::Network }
    }

    fn program(self, frames: impl Into<Frames>, guest: Mac) -> Vec<libc::sock_filter> {
        let program = match self {
            GuestFrames::Received => program(frames, guest),
            GuestFrames::Sent => program_of_sent(frames, guest),
        };
        program.into_iter().map(libc::sock_filter::from).collect()
    }
}
