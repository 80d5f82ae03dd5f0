//! Interfaces' numbers and names, any number of them through one socket: if_nametoindex(3) makes and closes one
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

    /// The name of an interface, its own and not one of its alternative names; `None` where there is
    /// none of that number.
    ///
    /// # Errors
    /// What the kernel says but that there is none.
    pub fn name(&self, number: u32) -> io::Result<Option<InterfaceName>> {
        let Ok(number) = i32::try_from(number) else { return Ok(None) };
        let mut request = ifreq("");
        request.ifr_ifru.ifru_ifindex = number;
        // SAFETY: SIOCGIFNAME reads the number and writes the name into the ifreq (netdevice(7)),
        // which outlives the call.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFNAME, &mut request) };
        if done < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENODEV) => Ok(None),
                _ => Err(error),
            };
        }
        let name = request.ifr_name.iter().map(|c| *c as u8).take_while(|byte| *byte != 0);
        let name = String::from_utf8(name.collect()).ok().and_then(|name| name.parse().ok());
        // One that no filter is put on, whatever it was.
        Ok(name)
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
            assert_eq!(interfaces.name(interface.index()).unwrap(), Some(name));
        }
        assert_eq!(interfaces.name(u32::MAX).unwrap(), None);
        assert_eq!(interfaces.name(i32::MAX as u32).unwrap(), None);
        assert_eq!(interfaces.number(&"nl-no-such".parse().unwrap()).unwrap(), None);
    }
}
