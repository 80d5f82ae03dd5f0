//! The socket between passt and a program that netlaunch does not start: one that the caller brings
//! (`--listen-fd`), or a path at which passt's socket is offered (`--listen`).
//!
//! passt's socket stays in the launch directory, where only passt and the launch's user can change
//! it; also root's passt, which has a user of its own, can make it there. The offered path is a
//! symbolic link to it, so it stays valid when passt is started again.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt};

use crate::launcher::plan::CallerSocket;
use crate::launcher::record::{Record, running as live};
use crate::launcher::{LaunchRoot, Running};
use crate::sys::process::signals;
use crate::types::printable::printable;

/// Why the socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// The descriptor is no socket of this kind.
    #[error(
        "--listen-fd {0} is not a UNIX stream socket: pass a listening one, or one end of a connected pair"
    )]
    Kind(i32),
    /// No connection could be accepted.
    #[error("cannot accept a connection of the socket of --listen-fd")]
    Accept(#[source] io::Error),
    /// The path exists.
    #[error("cannot offer passt's socket at {}: the path exists; remove it, or choose another one", printable(&.0.to_string_lossy()))]
    Exists(PathBuf),
    /// A running launch has its socket at the path.
    #[error(
        "cannot offer passt's socket at {}: the launch {} (pid {pid}) has its socket there; end that launch, or choose another path",
        printable(&path.to_string_lossy()), printable(name)
    )]
    InUse {
        /// The path.
        path: PathBuf,
        /// The name of the launch.
        name: String,
        /// The process ID of its netlaunch.
        pid: i32,
    },
    /// The link cannot be made.
    #[error("cannot offer passt's socket at {}", printable(&path.to_string_lossy()))]
    Link {
        /// The path.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

impl SocketError {
    /// Names the launch whose socket is at the path, which exists.
    fn with_launch(self, records: &[Record]) -> Self {
        let SocketError::Exists(path) = self else { return self };
        let target = fs::read_link(&path).unwrap_or_else(|_| path.clone());
        let owner = records.iter().find(|record| target.parent() == Some(&record.dir));
        match owner {
            Some(Record { name, pid, .. }) => {
                SocketError::InUse { path, name: name.clone(), pid: *pid }
            }
            None => SocketError::Exists(path),
        }
    }

    /// Returns whether the caller is at fault.
    pub(super) fn is_callers(&self) -> bool {
        matches!(self, SocketError::Kind(_) | SocketError::Exists(_) | SocketError::InUse { .. })
    }
}

/// Returns the kind of the socket that the caller brings.
///
/// # Errors
/// [`SocketError::Kind`].
pub(super) fn kind(socket: &OwnedFd, number: i32) -> Result<CallerSocket, SocketError> {
    let wrong = |_| SocketError::Kind(number);
    let stream = getsockopt(socket, sockopt::SockType).map_err(wrong)?;
    if stream != nix::sys::socket::SockType::Stream {
        return Err(SocketError::Kind(number));
    }
    let copy = socket.try_clone().map_err(|_| SocketError::Kind(number))?;
    if getsockopt(socket, sockopt::AcceptConn).map_err(wrong)? {
        let address = UnixListener::from(copy).local_addr();
        let address = address.map_err(|_| SocketError::Kind(number))?;
        return Ok(CallerSocket::Listening(address.as_pathname().map(Path::to_owned)));
    }
    let peer = UnixStream::from(copy).peer_addr();
    peer.map(|_| CallerSocket::Connected).map_err(|_| SocketError::Kind(number))
}

/// Returns the connected socket for passt: the caller's, or the first connection of its listening
/// socket.
///
/// # Errors
/// [`SocketError::Accept`].
pub(super) async fn connection(
    socket: OwnedFd,
    kind: &CallerSocket,
) -> Result<OwnedFd, SocketError> {
    if *kind == CallerSocket::Connected {
        return Ok(socket);
    }
    let listener = UnixListener::from(socket);
    // The caller shares the open file, so it must not become non-blocking: readiness is awaited
    // first, and only this process accepts.
    let ready = signals::watch(listener).map_err(SocketError::Accept)?;
    tracing::info!("waiting for the guest's program to connect");
    let _guard = ready.readable().await.map_err(SocketError::Accept)?;
    let (stream, _) = ready.get_ref().accept().map_err(SocketError::Accept)?;
    tracing::debug!("the guest's program has connected, descriptor {}", stream.as_raw_fd());
    Ok(stream.into())
}

/// Offers passt's socket at the path of the plan; stops the launch if that is not possible. `root`
/// has the launch directories of the caller.
///
/// # Errors
/// [`SocketError::Exists`], [`SocketError::InUse`] or [`SocketError::Link`].
pub(super) async fn offer(
    running: Running,
    root: &LaunchRoot,
) -> Result<(Running, Option<OfferedSocket>), SocketError> {
    let passt = running.plan().nics.first().passt.as_ref();
    let socket = passt.and_then(|passt| passt.socket.as_deref());
    let offered = match running.plan().listen.as_deref().zip(socket) {
        Some((path, socket)) => OfferedSocket::offer(path, socket).map(Some),
        None => Ok(None),
    };
    match offered {
        Ok(offered) => Ok((running, offered)),
        Err(error) => {
            running.stop().await;
            Err(error.with_launch(&live(root).unwrap_or_default()))
        }
    }
}

/// A symbolic link to passt's socket. Dropping it removes the link.
#[derive(Debug)]
pub(super) struct OfferedSocket {
    path: PathBuf,
    socket: PathBuf,
}

impl OfferedSocket {
    /// Makes the link. A link to the socket of a launch that has ended is replaced.
    ///
    /// # Errors
    /// [`SocketError::Exists`] or [`SocketError::Link`].
    pub(super) fn offer(path: &Path, socket: &Path) -> Result<Self, SocketError> {
        let link = || std::os::unix::fs::symlink(socket, path);
        let done = match link() {
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists && is_stale(path, socket) =>
            {
                fs::remove_file(path).and_then(|()| link())
            }
            done => done,
        };
        match done {
            Ok(()) => Ok(OfferedSocket { path: path.to_owned(), socket: socket.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(SocketError::Exists(path.to_owned()))
            }
            Err(source) => Err(SocketError::Link { path: path.to_owned(), source }),
        }
    }
}

impl Drop for OfferedSocket {
    fn drop(&mut self) {
        // Another process may have put another file there.
        if fs::read_link(&self.path).is_ok_and(|target| target == self.socket) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns whether `path` is a link of a netlaunch that was killed: to a socket of the same name in
/// a launch directory beside that of `socket`, which does not exist any more.
fn is_stale(path: &Path, socket: &Path) -> bool {
    let Ok(target) = fs::read_link(path) else { return false };
    let root = |path: &Path| path.parent().and_then(Path::parent).map(Path::to_owned);
    root(&target).is_some()
        && root(&target) == root(socket)
        && target.file_name() == socket.file_name()
        && fs::symlink_metadata(&target).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn an_offered_socket_never_replaces_a_file_of_another_program() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (path, socket) = (at("vm.sock"), at("launch-a/passt.sock"));
        let offered = OfferedSocket::offer(&path, &socket).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), socket);
        drop(offered);
        assert!(fs::symlink_metadata(&path).is_err());

        fs::write(&path, "x").unwrap();
        assert!(matches!(OfferedSocket::offer(&path, &socket), Err(SocketError::Exists(_))));
        fs::remove_file(&path).unwrap();
        symlink(at("launch-b/passt.sock"), &path).unwrap();
        let offered = OfferedSocket::offer(&path, &socket).unwrap();
        fs::remove_file(&path).unwrap();
        symlink(at("elsewhere"), &path).unwrap();
        drop(offered);
        assert!(fs::symlink_metadata(&path).is_ok(), "the link of another program stays");
        assert!(matches!(OfferedSocket::offer(&path, &socket), Err(SocketError::Exists(_))));
    }

    #[test]
    fn a_listening_and_a_connected_socket_have_different_kinds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(kind(&listener.into(), 3).unwrap(), CallerSocket::Listening(Some(path)));
        assert_eq!(kind(&one.into(), 3).unwrap(), CallerSocket::Connected);
        let file = fs::File::open("/dev/null").unwrap();
        assert!(matches!(kind(&file.into(), 3), Err(SocketError::Kind(3))));
    }
}
