//! Receives the messages of netfilter's netlink multicast groups (nfnetlink).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt,
};
use tokio::io::unix::AsyncFd;

use super::process::signals::watch;

/// The bytes of messages that the kernel queues before it drops messages.
const QUEUE: usize = 8 << 20;
/// The longest datagram: the kernel fills at most 32 KiB at a time (NLMSG_GOODSIZE).
const DATAGRAM: usize = 64 << 10;

/// A socket that has joined multicast groups.
#[derive(Debug)]
pub(crate) struct NetfilterEvents {
    fd: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

/// The result of one receive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Datagram<'a> {
    /// Netlink messages.
    Messages(&'a [u8]),
    /// The queue was full, and messages are lost.
    Lost,
}

impl NetfilterEvents {
    /// Joins these groups, whose numbers are 1 to 32 (`NFNLGRP_` in linux/netfilter/nfnetlink.h).
    /// Call it in a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// The kernel's error: `EPERM` without CAP_NET_ADMIN.
    pub(crate) fn join(groups: &[u32]) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkNetFilter;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        setsockopt(&fd, sockopt::RcvBufForce, &QUEUE)?;
        let mask = groups.iter().fold(0, |mask, group| mask | 1u32 << (group.saturating_sub(1)));
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, mask))?;
        Ok(NetfilterEvents { fd: watch(fd)?, buffer: vec![0; DATAGRAM] })
    }

    /// Waits for the next messages.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) async fn next(&mut self) -> io::Result<Datagram<'_>> {
        let length = loop {
            let mut ready = self.fd.readable().await?;
            let fd = self.fd.get_ref().as_raw_fd();
            match recv(fd, &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => break length,
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Ok(Datagram::Lost),
                Err(error) => return Err(error.into()),
            }
        };
        Ok(Datagram::Messages(self.buffer.get(..length).unwrap_or_default()))
    }
}
