//! Receives the frames of one interface that a BPF program selects, by a packet socket (packet(7)).
//!
//! A packet socket receives from every interface as soon as it has a protocol. So the socket is
//! made without a protocol, then gets its program, and last its interface and protocol in one
//! bind(2). So it never queues a frame of another interface, or one that the program rejects.
//!
//! The socket is bound to an interface, not to a name. After the interface is removed, the socket
//! receives nothing more, even if another interface gets the name.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, setsockopt, socket, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A socket for the frames that its program selects, in both directions.
#[derive(Debug)]
pub struct PacketSocket {
    fd: AsyncFd<OwnedFd>,
    /// Whether the interface was turned off, and no frame came since.
    down: AtomicBool,
}

/// The time between two checks whether an interface that was turned off has been removed.
///
/// The kernel removes an interface in two steps: it turns the interface off, then removes it. Only
/// the first step wakes a waiter (packet_notifier in af_packet.c).
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The events that wake a waiter: the kernel reports a removed interface as an error only.
const WOKEN_BY: Interest = Interest::READABLE.add(Interest::ERROR);

/// The result of one call of [`PacketSocket::receive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A frame, from its destination address on. A frame that is longer than the buffer is cut.
    Frame {
        /// The number of bytes in the buffer.
        length: usize,
        /// Whether the host sends the frame on the interface; otherwise it receives the frame.
        outgoing: bool,
        /// Whether the kernel or the card still writes a checksum into the frame (checksum
        /// offload), at a place that the sender chose. The bytes on the wire then differ from
        /// these.
        pending_checksum: bool,
    },
    /// No frame is queued.
    Nothing,
    /// The interface has been removed.
    Gone,
}

impl PacketSocket {
    /// Opens a non-blocking socket on the interface with this number, in the caller's network
    /// namespace. Needs a tokio runtime with I/O and time enabled.
    ///
    /// The kernel queues about `queue` bytes of frames and drops later ones.
    ///
    /// # Errors
    /// The kernel's error: `ENODEV` if there is no such interface, `EPERM` without CAP_NET_RAW.
    pub fn open(index: u32, program: &[libc::sock_filter], queue: usize) -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        // Without a protocol, the socket receives nothing.
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        setsockopt(&fd, sockopt::RcvBuf, &queue)?;
        let packet_socket = PacketSocket::from_fd(fd)?;
        packet_socket.set_program(program)?;
        packet_socket.bind(index)?;
        Ok(packet_socket)
    }

    /// Takes over a packet socket that another process opened. The queued frames stay.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        report_status(&fd)?;
        // SAFETY: the AsyncFd owns the descriptor, so it stays open and the same until the AsyncFd
        // has deregistered it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, WOKEN_BY) }
            .map_err(|error| error.into_parts().1)?;
        Ok(PacketSocket { fd, down: AtomicBool::new(false) })
    }

    /// Returns the descriptor, which another process can take over.
    pub fn into_fd(self) -> OwnedFd {
        self.fd.into_inner()
    }

    /// Replaces the program in one step. The queued frames stay.
    ///
    /// # Errors
    /// The kernel's error: `EINVAL` for an invalid program.
    pub fn set_program(&self, program: &[libc::sock_filter]) -> io::Result<()> {
        let too_long = |_| io::Error::from(Errno::EINVAL);
        let len = program.len().try_into().map_err(too_long)?;
        let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
        // SAFETY: SO_ATTACH_FILTER reads a sock_fprog of the given size, and copies the `len`
        // instructions that it points to. It writes nothing. Both outlive the call.
        let done = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        };
        Ok(Errno::result(done).map(drop)?)
    }

    fn bind(&self, index: u32) -> io::Result<()> {
        let out_of_range = |_| io::Error::from(Errno::ENODEV);
        // Number 0 would mean every interface.
        if index == 0 {
            return Err(Errno::ENODEV.into());
        }
        let mut address = nowhere();
        address.sll_family = libc::AF_PACKET as libc::sa_family_t;
        // All protocols: the kernel shows frames that the host sends only to sockets of all.
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index.try_into().map_err(out_of_range)?;
        // SAFETY: bind reads a local sockaddr_ll of the given size.
        let done = unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), SIZE) };
        Ok(Errno::result(done).map(drop)?)
    }

    /// Receives a frame into `buffer`.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            match self.receive_once(buffer) {
                Ok(frame) => {
                    self.down.store(false, Ordering::Relaxed);
                    return Ok(frame);
                }
                Err(Errno::EAGAIN) if self.is_gone()? => return Ok(Received::Gone),
                Err(Errno::EAGAIN) => return Ok(Received::Nothing),
                // The interface was turned off or removed. One that exists can be turned on again.
                Err(Errno::ENETDOWN) => self.down.store(true, Ordering::Relaxed),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Receives a frame. nix's functions accept the sender's address only at its full length, which
    /// not every kernel returns.
    fn receive_once(&self, buffer: &mut [u8]) -> Result<Received, Errno> {
        let mut from = nowhere();
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: the types consist of integers, arrays of integers and raw pointers, for which
        // zero is valid.
        let (mut control, mut message) = unsafe { (zeroed::<Control>(), zeroed::<libc::msghdr>()) };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = SIZE;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>() as _;
        // SAFETY: recvmsg writes at most the given lengths to `buffer`, and to `from` and
        // `control`, local values for which every content is valid. All outlive the call.
        let length = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, 0) };
        Ok(Received::Frame {
            length: Errno::result(length)?.unsigned_abs(),
            outgoing: from.sll_pkttype == libc::PACKET_OUTGOING,
            // Without an answer of the kernel, the frame counts as one that changes.
            pending_checksum: control.status() & libc::TP_STATUS_CSUMNOTREADY != 0,
        })
    }

    /// Returns whether the interface has been removed: the kernel then unbinds the socket.
    fn is_gone(&self) -> io::Result<bool> {
        let mut bound = nowhere();
        let mut size = SIZE;
        // SAFETY: getsockname writes at most the given length to a local sockaddr_ll.
        let done =
            unsafe { libc::getsockname(self.fd.as_raw_fd(), (&raw mut bound).cast(), &mut size) };
        Errno::result(done)?;
        // The kernel sets the number to -1 (packet_notifier in af_packet.c).
        Ok(bound.sll_ifindex < 0)
    }

    /// Returns how many frames the kernel has dropped since the last call, because the queue was
    /// full.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn dropped(&self) -> io::Result<u32> {
        let mut counts = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut size = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: getsockopt writes at most the given size to a local tpacket_stats, for which
        // every content is valid.
        let done = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counts).cast(),
                &mut size,
            )
        };
        Errno::result(done)?;
        Ok(counts.tp_drops)
    }

    /// Sends a frame on the interface, from its destination address on. The frame passes no bridge
    /// and no firewall of this host.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        Ok(nix::sys::socket::send(self.fd.as_raw_fd(), frame, MsgFlags::empty()).map(drop)?)
    }

    /// Waits until a frame may be queued. Call it after [`receive`](Self::receive) returned
    /// [`Received::Nothing`].
    ///
    /// # Errors
    /// The kernel's error.
    pub async fn wait(&self) -> io::Result<()> {
        let ready = self.fd.ready(WOKEN_BY);
        if !self.down.load(Ordering::Relaxed) {
            ready.await?.clear_ready();
        } else if let Ok(guard) = tokio::time::timeout(LOOK_AGAIN, ready).await {
            guard?.clear_ready();
        }
        Ok(())
    }
}

/// The room for the auxiliary data of a frame, the only control message that the socket asks for.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    data: libc::tpacket_auxdata,
}

impl Control {
    /// Returns the status of the frame, such as `TP_STATUS_CSUMNOTREADY`; all flags if the kernel
    /// did not report it.
    fn status(&self) -> u32 {
        let is_auxiliary = self.header.cmsg_level == libc::SOL_PACKET
            && self.header.cmsg_type == libc::PACKET_AUXDATA;
        if is_auxiliary { self.data.tp_status } else { u32::MAX }
    }
}

/// Lets the kernel report the status of each frame, as [`Control`].
fn report_status(fd: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: setsockopt reads a local integer of the given size.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_AUXDATA,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Ok(Errno::result(done).map(drop)?)
}

/// The size of a packet socket's address.
const SIZE: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

/// Returns an empty address of a packet socket.
fn nowhere() -> libc::sockaddr_ll {
    // SAFETY: the type consists of integers and arrays of integers, for which zero is valid.
    unsafe { zeroed() }
}
