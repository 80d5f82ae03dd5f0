//! The socket between passt and the caller's program in serve mode, if the caller decides about it.
//!
//! Without such a decision passt listens in the launch directory. The caller can have that socket
//! offered at a path of its own, or bring a socket. passt takes over connected sockets only
//! (`--fd`), so netlaunch accepts one connection of a listening socket, and passt gets that.

use std::path::PathBuf;

use super::request::{Backend, Request, Transport};
use super::request_error::RequestError;
use super::vmm::Vmm;
use crate::types::Setting;

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
            _ if setting == Setting::Listen => match transport {
                Some(Transport::Fd) => Err(RequestError::SocketTransport(setting)),
                _ => Ok(()),
            },
            _ if matches!(self.vmm, Vmm::CloudHypervisor | Vmm::Crosvm)
                || transport.is_some_and(|transport| transport != Transport::Fd) =>
            {
                Err(RequestError::SocketTransport(setting))
            }
            _ => Ok(()),
        }
    }
}
