//! Makes the tap device of a guest, and turns off checksum offload of the bridge.
//!
//! A tap belongs to its descriptor, which QEMU gets (`-netdev tap,fd=N`). When the last copy of the
//! descriptor is closed, the kernel removes the interface, also from its bridge (tuntap.rst in the
//! kernel's documentation). No other process can attach to the tap, so the tap needs no owner.
//!
//! A tap with several queues has one descriptor for each queue. [`open_vhost`] opens the kernel's
//! network backend, to which QEMU gives a queue of the tap and of the guest's card.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::types::{InterfaceName, Mac};

/// The device file for taps.
pub const TUN: &str = "/dev/net/tun";

/// The device file of the kernel's network backend.
pub const VHOST_NET: &str = "/dev/vhost-net";

/// The name pattern of [`TapName::Numbered`] taps; the kernel inserts the lowest free number.
const PATTERN: &str = "nltap%d";

/// The name for a tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TapName {
    /// The first free one of `nltap0`, `nltap1` and so on.
    Numbered,
    /// This name, which must be free.
    Exact(InterfaceName),
}

/// The reason why a tap cannot be made, or the offload cannot be turned off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapError {
    /// The device file cannot be opened.
    #[error("cannot open {}; load the kernel module with 'modprobe tun', and let the user read and write the file", device.display())]
    Device {
        /// The device file.
        device: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel's network backend cannot be opened.
    #[error("cannot open {}; load the kernel module with 'modprobe vhost_net'", device.display())]
    Vhost {
        /// The device file.
        device: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The filter of the tap cannot be set.
    #[error("cannot set the filter of the tap {tap}")]
    Filter {
        /// The tap.
        tap: InterfaceName,
        /// The kernel's error.
        source: io::Error,
    },
    /// An interface has this name already.
    #[error("cannot make the tap {0}: an interface of that name exists; choose another name")]
    InUse(InterfaceName),
    /// The name contains a `%`, which the kernel would replace.
    #[error("cannot make the tap {0}: its name has a '%'; choose another name")]
    Pattern(InterfaceName),
    /// The caller lacks the permission to make interfaces.
    #[error(
        "cannot make a tap; run as root or with CAP_NET_ADMIN, or let qemu-bridge-helper make it"
    )]
    Denied {
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel refused for another reason.
    #[error("cannot make the tap {name}; the kernel log may say more")]
    Make {
        /// The name or pattern of the tap.
        name: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// Checksum offload cannot be turned off.
    #[error("cannot turn off checksum offload of {link}; try 'ethtool -K {link} tx off'")]
    Offload {
        /// The link.
        link: InterfaceName,
        /// The kernel's error.
        source: io::Error,
    },
}

/// A tap device. The kernel removes it when the last copy of its descriptor is closed.
#[derive(Debug)]
pub struct Tap {
    /// The first queue.
    fd: OwnedFd,
    /// The other queues.
    further: Vec<OwnedFd>,
    name: InterfaceName,
    index: u32,
}

impl Tap {
    /// Makes a tap with one queue through `device`, usually [`TUN`], in the caller's network
    /// namespace.
    ///
    /// # Errors
    /// [`TapError`]; then there is no tap.
    pub fn open(device: &Path, name: &TapName) -> Result<Self, TapError> {
        Tap::open_queues(device, name, 1)
    }

    /// Makes a tap with this many queues.
    ///
    /// The tap has virtio headers, with which QEMU leaves checksums and segmentation
    /// to the kernel. It is down and on no bridge.
    ///
    /// # Errors
    /// [`TapError`]; then there is no tap.
    pub fn open_queues(device: &Path, name: &TapName, queues: usize) -> Result<Self, TapError> {
        let text = match name {
            TapName::Numbered => PATTERN,
            TapName::Exact(name) if name.as_str().contains('%') => {
                return Err(TapError::Pattern(name.clone()));
            }
            TapName::Exact(name) => name.as_str(),
        };
        let failed = |source| TapError::Make { name: text.to_owned(), source };
        let mut request = ifreq(text);
        let several = if queues > 1 { libc::IFF_MULTI_QUEUE } else { 0 };
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | several;
        // Without IFF_TUN_EXCL, the call would attach to an existing persistent tap of that name.
        request.ifr_ifru.ifru_flags = (flags | libc::IFF_TUN_EXCL) as libc::c_short;
        let fd = attach(device, &mut request)?.map_err(|source| {
            match (source.raw_os_error(), name) {
                (Some(libc::EBUSY), TapName::Exact(name)) => TapError::InUse(name.clone()),
                (Some(libc::EPERM), _) => TapError::Denied { source },
                _ => failed(source),
            }
        })?;
        let given: Vec<u8> =
            request.ifr_name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
        let name = String::from_utf8_lossy(&given)
            .parse()
            .map_err(|error| failed(io::Error::other(error)))?;
        let index = if_nametoindex(given.as_slice()).map_err(|errno| failed(errno.into()))?;
        let mut further = Vec::new();
        for _ in 1..queues {
            // The request now has the name of the tap.
            request.ifr_ifru.ifru_flags = flags as libc::c_short;
            further.push(attach(device, &mut request)?.map_err(failed)?);
        }
        Ok(Tap { fd, further, name, index })
    }

    /// Stops the tap from giving the guest frames with the guest's own address as their source and
    /// a broadcast or multicast address as their destination.
    ///
    /// # Errors
    /// [`TapError::Filter`].
    pub fn ignore_own_multicasts(&self, mac: Mac) -> Result<(), TapError> {
        let [a, b, c, d, e, f] = mac.octets();
        let high = u32::from_be_bytes([a, b, c, d]);
        let low = u32::from(u16::from_be_bytes([e, f]));
        let (load, jump, end) = (libc::BPF_LD, libc::BPF_JMP, libc::BPF_RET | libc::BPF_K);
        let load = |size: u32, at: u32| step(load | size | libc::BPF_ABS, 0, 0, at);
        let equal = |value, no| step(jump | libc::BPF_JEQ | libc::BPF_K, 0, no, value);
        let mut program = [
            load(libc::BPF_W, 6),
            equal(high, 5),
            load(libc::BPF_H, 10),
            equal(low, 3),
            load(libc::BPF_B, 0),
            step(jump | libc::BPF_JSET | libc::BPF_K, 0, 1, 1),
            step(end, 0, 0, 0),
            step(end, 0, 0, u32::MAX),
        ];
        let filter =
            libc::sock_fprog { len: program.len() as libc::c_ushort, filter: program.as_mut_ptr() };
        // SAFETY: TUNATTACHFILTER reads the program, which has the given length and lives until the
        // call returns.
        let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNATTACHFILTER, &filter) };
        if done < 0 {
            let (tap, source) = (self.name.clone(), io::Error::last_os_error());
            return Err(TapError::Filter { tap, source });
        }
        Ok(())
    }

    /// Returns the descriptors of the queues.
    pub fn queues(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(&self.fd).chain(&self.further).map(OwnedFd::as_fd)
    }

    /// Returns the tap's name.
    pub fn name(&self) -> &InterfaceName {
        &self.name
    }

    /// Returns the tap's interface number.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Returns the descriptor of the first queue. The tap exists as long as a process has it open.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns an instruction of the kernel's packet filters.
fn step(code: u32, yes: u8, no: u8, value: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: yes, jf: no, k: value }
}

/// Opens `device` and attaches it to the interface of `request`, whose name the kernel completes.
/// The inner error is that of the second step.
fn attach(device: &Path, request: &mut libc::ifreq) -> Result<io::Result<OwnedFd>, TapError> {
    let fd =
        open(device).map_err(|source| TapError::Device { device: device.to_owned(), source })?;
    // SAFETY: TUNSETIFF reads the ifreq, whose name ends with a NUL byte, and writes its name.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, request) };
    Ok(if done < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) })
}

/// Opens the kernel's network backend for one queue of a tap, through `device`, usually
/// [`VHOST_NET`].
///
/// # Errors
/// [`TapError::Vhost`]: the kernel does not have it, or the caller may not use it.
pub fn open_vhost(device: &Path) -> Result<OwnedFd, TapError> {
    open(device).map_err(|source| TapError::Vhost { device: device.to_owned(), source })
}

fn open(device: &Path) -> io::Result<OwnedFd> {
    let mut options = File::options();
    options.read(true).write(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK);
    Ok(options.open(device)?.into())
}

/// Turns off checksum offload of `link`, so that the host completes the checksums of the packets
/// that it sends through `link`.
///
/// Normally the host leaves the checksum to a network card, and a bridge has none. Virtio tells the
/// guest that the checksum is incomplete, but a DHCP client that reads raw packets may check it and
/// refuse the lease. libvirt completes such checksums with a `tc` rule, which needs the kernel
/// module act_csum. Without offload no module is needed, but the host computes the checksums of all
/// packets that it sends to guests.
///
/// # Errors
/// [`TapError::Offload`]: the link does not exist, the caller lacks CAP_NET_ADMIN, or the device
/// needs the offload.
pub fn complete_checksums(link: &InterfaceName) -> Result<(), TapError> {
    /// `struct ethtool_value` of linux/ethtool.h.
    #[repr(C)]
    struct Value {
        cmd: u32,
        data: u32,
    }
    /// `ETHTOOL_STXCSUM` of linux/ethtool.h.
    const SET_TX_CHECKSUM: u32 = 0x17;

    let failed = |source| TapError::Offload { link: link.clone(), source };
    let any = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| failed(errno.into()))?;
    let mut value = Value { cmd: SET_TX_CHECKSUM, data: 0 };
    let mut request = ifreq(link.as_str());
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL reads a local ifreq, whose data points to the structure of the command,
    // here a local ethtool_value.
    let done = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCETHTOOL as _, &mut request) };
    if done < 0 { Err(failed(io::Error::last_os_error())) } else { Ok(()) }
}

/// Returns a request about the interface `name`, cut to the kernel's maximum of 15 bytes.
pub(super) fn ifreq(name: &str) -> libc::ifreq {
    // SAFETY: an ifreq consists of numbers and a union of numbers and pointers, for which zero is
    // valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let last = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..last].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_missing_says_what_to_load() {
        let error = Tap::open(Path::new("/nonexistent/tun"), &TapName::Numbered).unwrap_err();
        assert!(error.to_string().contains("modprobe tun"), "{error}");
    }

    #[test]
    fn a_pattern_is_not_a_name() {
        let name = TapName::Exact("tap%d".parse().unwrap());
        let error = Tap::open(Path::new("/dev/null"), &name).unwrap_err();
        assert!(matches!(error, TapError::Pattern(_)), "{error}");
    }

    #[test]
    fn another_device_makes_no_tap() {
        let error = Tap::open(Path::new("/dev/null"), &TapName::Numbered).unwrap_err();
        assert!(matches!(error, TapError::Make { .. }), "{error}");
    }

    #[test]
    fn names_are_cut_not_overrun() {
        let request = ifreq("a-name-of-more-than-15-bytes");
        assert_eq!(request.ifr_name[15], 0);
        assert_eq!(request.ifr_name[14], b'-' as libc::c_char);
    }

    #[test]
    fn checksums_of_a_link_that_is_missing() {
        let error = complete_checksums(&"nl-nolink".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("nl-nolink"), "{error}");
    }
}
