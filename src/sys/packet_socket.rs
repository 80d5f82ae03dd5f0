//! A packet socket (packet(7)) on one interface behind a BPF program.
//!
//! A packet socket hears every interface as soon as it has a protocol. So it is made without one,
//! gets its program, and only then its interface and protocol in one bind(2): no frame of another
//! interface, and none that the program does not take, is ever queued.
//!
//! It is bound to an interface, not to a name: when that goes, the socket hears nothing again, also
//! when another interface gets the name.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A socket that receives what its program takes from one interface, in both directions.
#[derive(Debug)]
pub struct PacketSocket {
    fd: AsyncFd<OwnedFd>,
    /// The interface was switched off, and nothing was received since.
    down: AtomicBool,
}

/// How often to look whether an interface that was switched off is gone. The kernel takes an
/// interface away in two steps, and only the first, that it is off, wakes who waits (af_packet.c,
/// packet_notifier).
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// That the interface is gone comes as an error alone.
const WOKEN_BY: Interest = Interest::READABLE.add(Interest::ERROR);

/// What a packet socket has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A frame, from its destination address on. A longer one than the buffer is cut off.
    Frame {
        /// How many bytes of the buffer it fills.
        length: usize,
        /// The host sends it by the interface, rather than receives it.
        outgoing: bool,
    },
    /// Nothing now.
    Nothing,
    /// The interface is gone.
    Gone,
}

impl PacketSocket {
    /// Opens a socket that never waits on the interface with this number, in the caller's network
    /// namespace; needs a tokio runtime with I/O and time enabled. About `queue` bytes of frames wait to be received; more are lost.
    ///
    /// # Errors
    /// What the kernel says; `ENODEV` when there is no such interface, `EPERM` without CAP_NET_RAW.
    pub fn open(index: u32, program: &[libc::sock_filter], queue: usize) -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        // No protocol: nothing is received.
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        setsockopt(&fd, sockopt::RcvBuf, &queue)?;
        let packet_socket = PacketSocket::from_fd(fd)?;
        packet_socket.set_program(program)?;
        packet_socket.bind(index)?;
        Ok(packet_socket)
    }

    /// A socket that another process opened here and handed over. What it has not received yet is
    /// there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: `fd` is an open descriptor that the AsyncFd owns, and keeps open and the same
        // until it has deregistered it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, WOKEN_BY) }
            .map_err(|error| error.into_parts().1)?;
        Ok(PacketSocket { fd, down: AtomicBool::new(false) })
    }

    /// The descriptor, for another process to take over.
    pub fn into_fd(self) -> OwnedFd {
        self.fd.into_inner()
    }

    /// Puts another program in place of the one that is there, at once. What waits to be received
    /// stays.
    ///
    /// # Errors
    /// What the kernel says; `EINVAL` for a program that is none.
    pub fn set_program(&self, program: &[libc::sock_filter]) -> io::Result<()> {
        let too_long = |_| io::Error::from(Errno::EINVAL);
        let len = program.len().try_into().map_err(too_long)?;
        let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
        // SAFETY: SO_ATTACH_FILTER reads a sock_fprog of the given size and copies the `len`
        // instructions it points to, without writing; both outlive the call.
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
        // Number 0 would be every interface.
        if index == 0 {
            return Err(Errno::ENODEV.into());
        }
        let mut address = nowhere();
        address.sll_family = libc::AF_PACKET as libc::sa_family_t;
        // All protocols: what a host sends is shown to no socket of just one.
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index.try_into().map_err(out_of_range)?;
        // SAFETY: `address` is a sockaddr_ll, of the size that is given, and outlives the call.
        let done = unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), SIZE) };
        Ok(Errno::result(done).map(drop)?)
    }

    /// Receives a frame into `buffer`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            match self.receive_once(buffer) {
                Ok((length, outgoing)) => {
                    self.down.store(false, Ordering::Relaxed);
                    return Ok(Received::Frame { length, outgoing });
                }
                Err(Errno::EAGAIN) if self.is_gone()? => return Ok(Received::Gone),
                Err(Errno::EAGAIN) => return Ok(Received::Nothing),
                // It was switched off, or is gone. While it is there, it can be switched on again.
                Err(Errno::ENETDOWN) => self.down.store(true, Ordering::Relaxed),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The length of a frame, and whether it is outgoing. nix' functions would take the address
    /// only at its full length, which not every kernel tells.
    fn receive_once(&self, buffer: &mut [u8]) -> Result<(usize, bool), Errno> {
        let mut from = nowhere();
        let mut size = SIZE;
        // SAFETY: the kernel writes at most the given lengths to `buffer` and to `from`, a
        // sockaddr_ll for which every content is valid; all of it outlives the call.
        let length = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                (&raw mut from).cast(),
                &mut size,
            )
        };
        let length = Errno::result(length)?.unsigned_abs();
        Ok((length, from.sll_pkttype == libc::PACKET_OUTGOING))
    }

    /// Whether the interface is gone: the kernel then takes the socket off it.
    fn is_gone(&self) -> io::Result<bool> {
        let mut bound = nowhere();
        let mut size = SIZE;
        // SAFETY: the kernel writes at most the given length to `bound`, as above.
        let done =
            unsafe { libc::getsockname(self.fd.as_raw_fd(), (&raw mut bound).cast(), &mut size) };
        Errno::result(done)?;
        // -1 (af_packet.c, packet_notifier).
        Ok(bound.sll_ifindex < 0)
    }

    /// Waits until there may be something to [`receive`](Self::receive), after that had nothing.
    ///
    /// # Errors
    /// What the kernel says.
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

/// The size of a packet socket's address.
const SIZE: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

/// A packet socket's address, all zero.
fn nowhere() -> libc::sockaddr_ll {
    // SAFETY: it consists of integers and arrays of them, for which zero is valid.
    unsafe { std::mem::zeroed() }
}
