//! A guest's tap device, and the checksums of the bridge it hangs on.
//!
//! A tap that is made here belongs to its descriptor: QEMU gets that (`-netdev tap,fd=N`), and when
//! the last copy of it is closed, however that comes, the kernel removes the interface and takes it
//! off its bridge (tun.txt in the kernel's documentation). Nobody else can attach to it, so it needs
//! no owner.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::types::InterfaceName;

/// Where taps are made.
pub const TUN: &str = "/dev/net/tun";

/// What [`TapName::Numbered`] taps are called; the kernel puts the lowest free number there.
const PATTERN: &str = "nltap%d";

/// What a tap shall be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TapName {
    /// `nltap0`, `nltap1` and so on, whichever is free.
    Numbered,
    /// This, which must be free.
    Exact(InterfaceName),
}

/// Why there is no tap, or why a link's checksums stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The device file cannot be opened.
    #[error("cannot open {}: {source}; load the kernel module with 'modprobe tun', and let the user read and write the file", device.display())]
    Device {
        /// The device file.
        device: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// An interface has the name.
    #[error("cannot make the tap {0}: an interface of that name exists; choose another name")]
    InUse(InterfaceName),
    /// The name has a `%`, which the kernel would fill in.
    #[error("cannot make the tap {0}: its name has a '%'; choose another name")]
    Pattern(InterfaceName),
    /// The caller may not make interfaces.
    #[error(
        "cannot make a tap: {source}; run netlaunch as root or with CAP_NET_ADMIN, or let qemu-bridge-helper make it"
    )]
    Denied {
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel refused for another reason.
    #[error("cannot make the tap {name}: {source}; the kernel log may say more")]
    Make {
        /// Its name or pattern.
        name: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// Checksum offload cannot be turned off.
    #[error("cannot turn off checksum offload of {link}: {source}; try 'ethtool -K {link} tx off'")]
    Offload {
        /// The link.
        link: InterfaceName,
        /// The kernel's error.
        source: io::Error,
    },
}

/// A tap device; it is gone when this and every copy of its descriptor are.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    name: InterfaceName,
    index: u32,
}

impl Tap {
    /// Makes a tap with one queue and virtio headers (QEMU then leaves checksums and segmentation
    /// to the kernel) through `device`, usually [`TUN`], in the caller's network namespace. It is
    /// down and on no bridge.
    ///
    /// # Errors
    /// [`TapError`]; then nothing was made.
    pub fn open(device: &Path, name: &TapName) -> Result<Self, TapError> {
        let text = match name {
            TapName::Numbered => PATTERN,
            TapName::Exact(name) if name.as_str().contains('%') => {
                return Err(TapError::Pattern(name.clone()));
            }
            TapName::Exact(name) => name.as_str(),
        };
        let fd: OwnedFd = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(device)
            .map_err(|source| TapError::Device { device: device.to_owned(), source })?
            .into();
        let failed = |source| TapError::Make { name: text.to_owned(), source };
        let mut request = ifreq(text);
        // Without IFF_TUN_EXCL the name of somebody's persistent tap would attach us to that.
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: TUNSETIFF reads an ifreq and writes its name; `request` is one that outlives the
        // call, its name is NUL-terminated.
        let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &mut request) };
        if done < 0 {
            let source = io::Error::last_os_error();
            return Err(match (Errno::last_raw(), name) {
                (libc::EBUSY, TapName::Exact(name)) => TapError::InUse(name.clone()),
                (libc::EPERM, _) => TapError::Denied { source },
                _ => failed(source),
            });
        }
        let given: Vec<u8> =
            request.ifr_name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
        let name = String::from_utf8_lossy(&given)
            .parse()
            .map_err(|error| failed(io::Error::other(error)))?;
        let index = if_nametoindex(given.as_slice()).map_err(|errno| failed(errno.into()))?;
        Ok(Tap { fd, name, index })
    }

    /// Its name.
    pub fn name(&self) -> &InterfaceName {
        &self.name
    }

    /// Its number among the interfaces.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its descriptor, to be handed to QEMU; the tap lives as long as this is open somewhere.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Has the host compute the checksums of what it sends through `link` itself.
///
/// A packet from the host to a guest normally has a checksum that a network card would complete, of
/// which there is none on a bridge. Virtio tells the guest so; but DHCP clients that read raw
/// packets may look at the checksum and refuse the lease. libvirt completes them with a `tc` rule,
/// which needs the kernel module act_csum. This needs none, and costs computing the checksums of
/// everything the host sends to guests.
///
/// # Errors
/// [`TapError::Offload`]: no such link, no CAP_NET_ADMIN, or a device that cannot do without.
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
    // SAFETY: SIOCETHTOOL reads an ifreq whose data points to what its command says, here an
    // ethtool_value; both outlive the call.
    let done = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCETHTOOL, &mut request) };
    if done < 0 { Err(failed(io::Error::last_os_error())) } else { Ok(()) }
}

/// A request about the interface `name`, cut to the kernel's 15 bytes.
pub(super) fn ifreq(name: &str) -> libc::ifreq {
    // SAFETY: an ifreq is plain numbers and a union of such; all zero is a valid one.
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
