//! The kernel's own answer to whether an nft transaction was committed.
//!
//! Each transaction that netlaunch gives to nft adds one random number, its mark, to a set of
//! netlaunch's own table. The kernel takes a transaction whole or not at all, so the mark is in the
//! set exactly when the transaction was committed. The kernel removes a mark after [`LIFETIME`]. A
//! transaction that deletes the table has no mark: it was committed when the table is gone.
//!
//! The question goes to the kernel by nfnetlink and not through nft, since it is asked when nft has
//! just been killed, and since it costs microseconds where a process costs milliseconds. The
//! messages are those of linux/netfilter/nf_tables.h.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use crate::types::error_text;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use rand::RngExt;

/// The name of the set that contains the marks of recent transactions.
const SET: &str = "transactions";
/// The lifetime of a mark. netlaunch asks for the mark within seconds, since a tool has 30 s.
const LIFETIME: Duration = Duration::from_secs(120);
/// The time limit for the kernel's answer; the kernel usually answers before the send returns.
const PATIENCE: TimeVal = TimeVal::new(5, 0);
/// The number of attempts at a question whose answer was lost.
const ATTEMPTS: usize = 3;
/// The length of a netlink message's header.
pub(super) const HEADER: usize = 16;
/// The length of struct nfgenmsg, which follows the header.
pub(super) const FAMILY: usize = 4;

// Attributes of linux/netfilter/nf_tables.h.
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;

/// The removal of the mark of a transaction.
///
/// Dropping it waits until the kernel has removed everything (10 to 30 ms), because the kernel
/// waits at the end of each nft socket. So a caller with other work keeps it meanwhile.
#[derive(Debug, Default)]
#[must_use = "dropping it waits for the kernel"]
pub struct MarkRemoval {
    /// The socket of the removal; `None` if nothing was removed.
    _socket: Option<OwnedFd>,
}

/// The proof that a transaction was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    family: u8,
    table: String,
    /// The mark; `None` for a transaction that deletes the table.
    mark: Option<u32>,
}

impl Proof {
    /// Returns the proof for this text and the text with its mark; `None` if the text does not
    /// begin with a table of netlaunch.
    pub(super) fn of(text: &str) -> Option<(Self, String)> {
        let table = text.lines().next()?.strip_prefix("add table ")?;
        let (family, name) = table.split_once(' ')?;
        let number = match family {
            "ip" => libc::NFPROTO_IPV4,
            "ip6" => libc::NFPROTO_IPV6,
            "bridge" => libc::NFPROTO_BRIDGE,
            "netdev" => libc::NFPROTO_NETDEV,
            _ => return None,
        };
        let deletes = format!("delete table {table}");
        let mark = (!text.lines().any(|line| line == deletes))
            .then(|| rand::rng().random_range(1..=u32::MAX));
        let lines = mark.map_or_else(String::new, |mark| {
            format!(
                "add set {table} {SET} {{ type mark; flags timeout; }}\n\
                 add element {table} {SET} {{ {mark:#x} timeout {}s }}\n",
                LIFETIME.as_secs()
            )
        });
        let family = u8::try_from(number).ok()?;
        Some((Proof { family, table: name.to_owned(), mark }, text.to_owned() + &lines))
    }

    /// Removes the mark. After a failure the mark stays until its lifetime ends, which does no
    /// harm.
    pub(super) fn clear(&self) -> MarkRemoval {
        let Some(mark) = self.mark else { return MarkRemoval::default() };
        let element = elements(libc::NFT_MSG_DELSETELEM, self.family, &self.table, mark, 0);
        let name =
            [attribute(NFTA_SET_TABLE, &text(&self.table)), attribute(NFTA_SET_NAME, &text(SET))];
        // With NLM_F_NONREC the kernel keeps a set that contains marks of other transactions.
        let kept = libc::NLM_F_NONREC as u16;
        let set = request(libc::NFT_MSG_DELSET, self.family, &name.concat(), kept);
        // Both have one socket, because the end of each socket waits.
        let sent = || {
            let socket = open()?;
            send(&socket, &batch(&element))?;
            send(&socket, &batch(&set))?;
            Ok::<_, io::Error>(socket)
        };
        let sent = sent().or_else(|_| sent());
        if let Err(error) = &sent {
            tracing::debug!("the mark of a transaction stays for a while: {}", error_text(error));
        }
        MarkRemoval { _socket: sent.ok() }
    }

    /// Returns whether the kernel has committed the transaction.
    ///
    /// # Errors
    /// Returns an error if the kernel did not answer.
    pub(super) fn is_committed(&self) -> io::Result<bool> {
        match self.mark {
            Some(mark) => is_there(&element(self.family, &self.table, mark)),
            None => is_there(&table(self.family, &self.table)).map(|there| !there),
        }
    }
}

/// Returns whether the bridge family has a table of this name.
///
/// # Errors
/// Returns an error if the kernel did not answer.
pub(super) fn has_bridge_table(name: &str) -> io::Result<bool> {
    is_there(&table(libc::NFPROTO_BRIDGE as u8, name))
}

/// Asks the kernel whether one object exists.
fn is_there(message: &[u8]) -> io::Result<bool> {
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
    setsockopt(&socket, sockopt::ReceiveTimeout, &PATIENCE)?;
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
fn table(family: u8, name: &str) -> Vec<u8> {
    let name = attribute(NFTA_TABLE_NAME, &text(name));
    request(libc::NFT_MSG_GETTABLE, family, &name, libc::NLM_F_ACK as u16)
}

/// Returns an `NFT_MSG_GETSETELEM` request for one mark.
fn element(family: u8, table: &str, mark: u32) -> Vec<u8> {
    elements(libc::NFT_MSG_GETSETELEM, family, table, mark, libc::NLM_F_ACK as u16)
}

/// Returns a request about one mark.
fn elements(kind: libc::c_int, family: u8, table: &str, mark: u32, flags: u16) -> Vec<u8> {
    let nested = |kind, inner: &[u8]| attribute(kind | libc::NLA_F_NESTED as u16, inner);
    let value = attribute(NFTA_DATA_VALUE, &mark.to_ne_bytes());
    let key = nested(NFTA_SET_ELEM_KEY, &value);
    let list = nested(NFTA_LIST_ELEM, &key);
    let attributes = [
        attribute(NFTA_SET_ELEM_LIST_TABLE, &text(table)),
        attribute(NFTA_SET_ELEM_LIST_SET, &text(SET)),
        nested(NFTA_SET_ELEM_LIST_ELEMENTS, &list),
    ];
    request(kind, family, &attributes.concat(), flags)
}

/// Returns a change in the form of a batch, which nf_tables needs for changes.
fn batch(change: &[u8]) -> Vec<u8> {
    let edge = |kind| message(kind, 0, (libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes(), &[], 0);
    [&edge(libc::NFNL_MSG_BATCH_BEGIN), change, &edge(libc::NFNL_MSG_BATCH_END)].concat()
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
    fn a_text_has_a_mark_unless_it_deletes_the_table() {
        let (proof, text) = Proof::of("add table bridge x\nadd chain bridge x y\n").unwrap();
        let mark = proof.mark.unwrap();
        assert!(text.ends_with(&format!(
            "add chain bridge x y\nadd set bridge x transactions {{ type mark; flags timeout; }}\n\
             add element bridge x transactions {{ {mark:#x} timeout 120s }}\n"
        )));
        let deletes = "add table ip x\ndelete table ip x\n";
        let (proof, text) = Proof::of(deletes).unwrap();
        assert_eq!((proof.mark, text.as_str()), (None, deletes));
        assert_eq!(Proof::of("delete table ip x\n"), None);
        assert_eq!(Proof::of(""), None);
    }

    /// The expected bytes are those that `nft get element ip netlaunch_network changes { 0x12345678
    /// }` sent, as strace showed them.
    #[test]
    fn the_question_is_the_one_that_nft_asks() {
        let message = element(2, "netlaunch_network", 0x1234_5678);
        assert_eq!(message.len() % 4, 0);
        assert_eq!(message[..4], u32::to_ne_bytes(message.len() as u32));
        assert_eq!(message[4..6], u16::to_ne_bytes(10 << 8 | 13));
        assert_eq!(message[16], 2);
        if cfg!(target_endian = "little") {
            let end =
                b"\x14\x00\x03\x80\x10\x00\x01\x80\x0c\x00\x01\x80\x08\x00\x01\x00\x78\x56\x34\x12";
            assert!(message.ends_with(end), "{message:x?}");
        }
    }

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
