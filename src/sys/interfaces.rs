//! Translates between interface names and numbers, through one socket for any number of calls.
//!
//! if_nametoindex(3) opens and closes a socket for each call, which costs more than the
//! translation.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::tap::ifreq;
use crate::types::InterfaceName;

/// The interfaces of the caller's network namespace.
#[derive(Debug)]
pub(crate) struct Interfaces(OwnedFd);

impl Interfaces {
    /// Opens the socket.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Interfaces(socket(
            AddressFamily::Unix,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?))
    }

    /// Returns the number of an interface, or `None` if no interface has the name.
    ///
    /// # Errors
    /// The kernel's error, except ENODEV.
    pub(crate) fn number(&self, name: &InterfaceName) -> io::Result<Option<u32>> {
        let Some(answer) = self.ask(libc::SIOCGIFINDEX as _, ifreq(name.as_str()))? else {
            return Ok(None);
        };
        // SAFETY: the kernel has written this field of the union, and every value of it is valid.
        let number = unsafe { answer.ifr_ifru.ifru_ifindex };
        Ok(u32::try_from(number).ok())
    }

    /// Returns the name of an interface, or `None` if no interface has the number. Alternative
    /// names are not returned.
    ///
    /// # Errors
    /// The kernel's error, except ENODEV.
    pub(crate) fn name(&self, number: u32) -> io::Result<Option<InterfaceName>> {
        let Some(answer) = self.ask_name(number)? else { return Ok(None) };
        // No port has a name that is not an InterfaceName, so the caller needs no such interface.
        Ok(String::from_utf8(name_in(&answer).collect()).ok().and_then(|name| name.parse().ok()))
    }

    /// Returns whether there is an interface with this number, whatever its name is.
    ///
    /// # Errors
    /// The kernel's error, except ENODEV.
    pub(crate) fn exists(&self, number: u32) -> io::Result<bool> {
        Ok(self.ask_name(number)?.is_some())
    }

    /// Returns whether the interface with this number has this name.
    ///
    /// # Errors
    /// The kernel's error, except ENODEV.
    pub(crate) fn has(&self, number: u32, name: &InterfaceName) -> io::Result<bool> {
        let answer = self.ask_name(number)?;
        Ok(answer.is_some_and(|answer| name_in(&answer).eq(name.as_str().bytes())))
    }

    fn ask_name(&self, number: u32) -> io::Result<Option<libc::ifreq>> {
        let Ok(number) = i32::try_from(number) else { return Ok(None) };
        let mut request = ifreq("");
        request.ifr_ifru.ifru_ifindex = number;
        self.ask(libc::SIOCGIFNAME as _, request)
    }

    /// Sends a request and returns the answer, or `None` if there is no such interface.
    fn ask(&self, code: libc::Ioctl, mut request: libc::ifreq) -> io::Result<Option<libc::ifreq>> {
        // SAFETY: SIOCGIFINDEX and SIOCGIFNAME read and write a local ifreq (netdevice(7)).
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), code, &mut request) };
        match Errno::result(done) {
            Ok(_) => Ok(Some(request)),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Returns the bytes of the name in an answer of the kernel.
fn name_in(answer: &libc::ifreq) -> impl Iterator<Item = u8> {
    answer.ifr_name.iter().map(|c| *c as u8).take_while(|byte| *byte != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_those_of_the_c_library() {
        let interfaces = Interfaces::open().unwrap();
        for interface in nix::net::if_::if_nameindex().unwrap().iter() {
            let name = interface.name().to_str().unwrap().parse().unwrap();
            assert_eq!(interfaces.number(&name).unwrap(), Some(interface.index()));
            assert!(interfaces.has(interface.index(), &name).unwrap());
            let other = "nl-no-such".parse().unwrap();
            assert!(!interfaces.has(interface.index(), &other).unwrap());
            assert_eq!(interfaces.name(interface.index()).unwrap(), Some(name));
            assert!(interfaces.exists(interface.index()).unwrap());
        }
        assert!(!interfaces.exists(u32::MAX).unwrap());
        assert_eq!(interfaces.name(u32::MAX).unwrap(), None);
        assert_eq!(interfaces.name(i32::MAX as u32).unwrap(), None);
        assert_eq!(interfaces.number(&"nl-no-such".parse().unwrap()).unwrap(), None);
    }
}
