//! The socket between passt and the caller's program in serve mode, if the caller decides about it.
//!
//! Without such a decision passt listens in the launch directory. The caller can have that socket
//! offered at a path of its own, or bring a socket. passt takes over connected sockets only
//! (`--fd`), so netlaunch accepts one connection of a listening socket, and passt gets that.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::request::{Backend, Request, Transport};
use super::request_error::RequestError;
use super::vmm::Vmm;
use crate::types::Setting;

/// The longest path to which a program can connect, in bytes: that of `sun_path` without its NUL
/// (unix(7)).
pub(super) const MAX_LISTEN_PATH: usize = 107;

/// The socket that the caller brings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallerSocket {
    /// One end of a connected pair; the guest's program has the other one.
    Connected,
    /// A listening socket, at this path if it has one.
    Listening(Option<PathBuf>),
}

impl Request {
    /// Checks the path for passt's socket and the caller's socket.
    pub(super) fn check_socket(&self) -> Result<(), RequestError> {
        let setting = match (&self.listen, &self.socket) {
            (None, None) => return Ok(()),
            (Some(_), Some(_)) => return Err(RequestError::TwoSockets),
            (Some(_), None) => Setting::Listen,
            (None, Some(_)) => Setting::ListenFd,
        };
        if self.command.is_some() {
            return Err(RequestError::SocketCommand(setting));
        }
        let [nic] = self.added() else { return Err(RequestError::SocketOfSeveral(setting)) };
        let transport = nic.transport;
        match nic.backend {
            Some(Backend::Slirp | Backend::Bridge) => Err(RequestError::SocketBackend(setting)),
            _ if setting == Setting::Listen && transport == Some(Transport::Fd) => {
                Err(RequestError::SocketTransport(setting))
            }
            _ if setting == Setting::Listen => self.check_path(setting),
            _ if matches!(self.vmm, Vmm::CloudHypervisor | Vmm::Crosvm)
                || transport.is_some_and(|transport| transport != Transport::Fd) =>
            {
                Err(RequestError::SocketTransport(setting))
            }
            _ => self.check_path(setting),
        }
    }

    /// Checks that the guest's program can connect to the path of the socket.
    fn check_path(&self, setting: Setting) -> Result<(), RequestError> {
        let brought = match &self.socket {
            Some(CallerSocket::Listening(path)) => path.as_deref(),
            _ => None,
        };
        let Some(path) = self.listen.as_deref().or(brought) else { return Ok(()) };
        let length = path.as_os_str().as_bytes().len();
        if length > MAX_LISTEN_PATH {
            return Err(RequestError::ListenPath { path: path.to_owned(), length });
        }
        self.vmm.check_path(path, setting)
    }
}

impl Vmm {
    /// Checks that the arguments of the VMM can hold this path, which `setting` names. QEMU has a
    /// spelling for a comma in a value.
    pub(super) fn check_path(self, path: &Path, setting: Setting) -> Result<(), RequestError> {
        if self == Vmm::Qemu || !path.as_os_str().as_bytes().contains(&b',') {
            return Ok(());
        }
        Err(RequestError::VmmPath { vmm: self.name(), path: path.to_owned(), setting })
    }
}
