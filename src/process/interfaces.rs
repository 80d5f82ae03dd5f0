//! Interfaces' numbers, any number of them through one socket: if_nametoindex(3) makes and closes one
//! each time, which costs more than the question.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::tap::ifreq;
use crate::types::InterfaceName;

/// The interfaces of the caller's network namespace.
#[derive(Debug)]
pub struct Interfaces(OwnedFd);

impl Interfaces {
    /// Ready to be asked.
    ///
    /// # Errors
    /// No socket can be had.
    pub fn open() -> io::Result<Self> {
        Ok(Interfaces(socket(
            AddressFamily::Unix,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?))
    }

    /// The number of an interface; `None` where there is none of that name.
    ///
    /// # Errors
    /// What the kernel says but that there is none.
    pub fn number(&self, name: &InterfaceName) -> io::Result<Option<u32>> {
        let mut request = ifreq(name.as_str());
        // SAFETY: SIOCGIFINDEX reads the name and writes the number into the ifreq (netdevice(7)),
        // which outlives the call.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFINDEX, &mut request) };
        if done < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENODEV) => Ok(None),
                _ => Err(error),
            };
        }
        // SAFETY: all fields of the union are plain numbers, and this is the one that was written.
        let number = unsafe { request.ifr_ifru.ifru_ifindex };
        Ok(u32::try_from(number).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_libc_says() {
        let interfaces = Interfaces::open().unwrap();
        for interface in nix::net::if_::if_nameindex().unwrap().iter() {
            let name = interface.name().to_str().unwrap().parse().unwrap();
            assert_eq!(interfaces.number(&name).unwrap(), Some(interface.index()));
        }
        assert_eq!(interfaces.number(&"nl-no-such".parse().unwrap()).unwrap(), None);
    }
}
