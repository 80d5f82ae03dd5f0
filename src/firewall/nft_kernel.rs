//! Talks to nf_tables in the kernel by nfnetlink: questions about single objects, and the messages
//! for them.
//!
//! The question goes to the kernel by nfnetlink and not through nft, since it is asked when nft has
//! just been killed, and since it costs microseconds where a process costs milliseconds. The
//! messages are those of linux/netfilter/nf_tables.h.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// The time limit for the kernel's answer; the kernel usually answers before the send returns.
const ANSWER_LIMIT: TimeVal = TimeVal::new(5, 0);
/// The number of attempts at a question whose answer was lost.
const ATTEMPTS: usize = 3;
/// The length of a netlink message's header.
pub(super) const HEADER: usize = 16;
/// The length of struct nfgenmsg, which follows the header.
pub(super) const FAMILY: usize = 4;

// Attributes of linux/netfilter/nf_tables.h.
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;

/// Returns whether the bridge family has a table of this name.
///
/// # Errors
/// Returns an error if the kernel did not answer.
pub(super) fn has_bridge_table(name: &str) -> io::Result<bool> {
    is_there(&table(libc::NFPROTO_BRIDGE as u8, name))
}

/// Asks the kernel whether one object exists.
pub(super) fn is_there(message: &[u8]) -> io::Result<bool> {
    let mut asked = ask(message);
    for _ in 1..ATTEMPTS {
        if asked.is_ok() {
            break;
        }
        asked = ask(message);
    }
    asked
}

pub(super) fn open() -> io::Result<OwnedFd> {
    let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
    let socket = socket(AddressFamily::Netlink, kind, flags, SockProtocol::NetlinkNetFilter)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &ANSWER_LIMIT)?;
    Ok(socket)
}

pub(super) fn send(socket: &OwnedFd, message: &[u8]) -> io::Result<()> {
    let kernel = NetlinkAddr::new(0, 0);
    let parts = [IoSlice::new(message)];
    let sent = sendmsg(socket.as_raw_fd(), &parts, &[], MsgFlags::empty(), Some(&kernel))?;
    if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn ask(message: &[u8]) -> io::Result<bool> {
    let socket = match open() {
        Ok(socket) => socket,
        // A kernel without nfnetlink has no tables.
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(false),
        Err(error) => return Err(error),
    };
    send(&socket, message)?;
    match acknowledgement(&socket)? {
        0 => Ok(true),
        // EPERM: nft has the same rights as netlaunch, so nft failed as well. EINVAL: the kernel
        // has no nf_tables.
        libc::ENOENT | libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP | libc::EAFNOSUPPORT => {
            Ok(false)
        }
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Returns the error number in the kernel's acknowledgement, which follows the requested object; 0
/// means no error.
fn acknowledgement(socket: &OwnedFd) -> io::Result<i32> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let mut rest = receive(socket, &mut buffer)?;
        while let Some((message, next)) = first_message(rest) {
            if let Some(errno) = error_number(message) {
                return Ok(errno);
            }
            rest = next;
        }
    }
}

/// Receives one datagram, which is not empty.
pub(super) fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => return Ok(buffer.get(..length).unwrap_or_default()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns the first netlink message of a datagram, and the bytes after it.
pub(super) fn first_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length).ok().filter(|length| *length >= HEADER)?;
    let message = bytes.get(..length)?;
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Returns the error number of an `NLMSG_ERROR`, without its sign.
pub(super) fn error_number(message: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    if i32::from(kind) != libc::NLMSG_ERROR {
        return None;
    }
    let number = i32::from_ne_bytes(message.get(HEADER..HEADER + 4)?.try_into().ok()?);
    Some(number.saturating_neg())
}

/// Returns an `NFT_MSG_GETTABLE` request.
pub(super) fn table(family: u8, name: &str) -> Vec<u8> {
    let name = attribute(NFTA_TABLE_NAME, &text(name));
    request(libc::NFT_MSG_GETTABLE, family, &name, libc::NLM_F_ACK as u16)
}

/// Returns an `NFT_MSG_GETCHAIN` request.
pub(super) fn chain(family: u8, table: &str, name: &str) -> Vec<u8> {
    let attributes =
        [attribute(NFTA_CHAIN_TABLE, &text(table)), attribute(NFTA_CHAIN_NAME, &text(name))];
    request(libc::NFT_MSG_GETCHAIN, family, &attributes.concat(), libc::NLM_F_ACK as u16)
}

/// Returns a request of nf_tables.
pub(super) fn request(kind: libc::c_int, family: u8, attributes: &[u8], flags: u16) -> Vec<u8> {
    message((libc::NFNL_SUBSYS_NFTABLES << 8) | kind, family, [0, 0], attributes, flags)
}

/// Returns a request of nfnetlink.
pub(super) fn message(
    kind: libc::c_int,
    family: u8,
    resource: [u8; 2],
    attributes: &[u8],
    flags: u16,
) -> Vec<u8> {
    let length = (HEADER + FAMILY + attributes.len()) as u32;
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend((kind as u16).to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16 | flags).to_ne_bytes());
    // The sequence number and the port id stay 0, since the socket is used for this message only.
    message.extend([0; 8]);
    // struct nfgenmsg: family, version, resource.
    message.extend([family, 0, resource[0], resource[1]]);
    message.extend(attributes);
    message
}

pub(super) fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// Returns an attribute, padded to four bytes.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::new();
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_acknowledgement_is_the_error_number() {
        let mut bytes = request(0, 0, &[], 0);
        bytes.extend(u32::to_ne_bytes(36));
        bytes.extend(u16::to_ne_bytes(libc::NLMSG_ERROR as u16));
        bytes.extend([0; 10]);
        bytes.extend((-libc::ENOENT).to_ne_bytes());
        bytes.extend([0; 16]);
        let (first, rest) = first_message(&bytes).unwrap();
        assert_eq!(error_number(first), None);
        let (second, rest) = first_message(rest).unwrap();
        assert_eq!(error_number(second), Some(libc::ENOENT));
        assert_eq!(first_message(rest), None);
    }
}
