//! Checks before the start that the published ports are free, finds the process that holds a port
//! (passt and QEMU only say that an address is in use), and keeps the ports of guests on bridges
//! from other programs.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use procfs::process::FDTarget;

use super::adopt::{HostSide, forward_on};
use super::plan::{Origin, Plan};
use crate::sys::file_limit::{FileLimit, open_files};
use crate::types::{FreePort, Protocol, Publish, PublishRequest};

/// Why a port cannot be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Another process listens on the port.
    #[error("port {port}/{protocol} on {address} is in use{}: stop that program, or {}", held_by(.holder), another(.publish, .forward))]
    Busy {
        /// The requested ports.
        publish: PublishRequest,
        /// The forward of the QEMU arguments that asks for the port, in the caller's words; `None`
        /// if a setting of the launch does.
        forward: Option<String>,
        /// The busy port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The address.
        address: IpAddr,
        /// The name and the process ID of that process, if /proc shows them.
        holder: Option<(String, i32)>,
    },
    /// The port is below the first one that needs no privilege.
    #[error(
        "port {port}/{protocol} on {address} needs privileges: publish one above 1023, or lower the sysctl net.ipv4.ip_unprivileged_port_start"
    )]
    Privileged {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The address.
        address: IpAddr,
    },
    /// The host does not have the address.
    #[error(
        "{address} is not an address of this host, so {} cannot listen on it: use 127.0.0.1, 0.0.0.0 or one that `ip address` shows", words(.publish, .forward)
    )]
    NoAddress {
        /// The requested ports.
        publish: PublishRequest,
        /// As in [`Busy`](Self::Busy).
        forward: Option<String>,
        /// The address.
        address: IpAddr,
    },
    /// The ports need more open files than this process may have.
    #[error(
        "the published ports need {needed} open files, and at most {limit} are allowed: publish fewer ports, or raise the hard limit (ulimit -Hn {needed})"
    )]
    Files {
        /// The number of files that this process would have open.
        needed: u64,
        /// The hard limit of open files.
        limit: u64,
    },
    /// The limit of open files cannot be read or raised.
    #[error("the limit of open files cannot be raised for the published ports")]
    FileLimit(#[source] io::Error),
    /// The kernel refuses for another reason.
    #[error("port {port}/{protocol} on {address} cannot be listened on")]
    Other {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The address.
        address: IpAddr,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Returns the fix for a busy port.
fn another(publish: &PublishRequest, forward: &Option<String>) -> String {
    match forward {
        Some(forward) => format!("forward another port than {forward}"),
        None => format!("publish another port than {publish}"),
    }
}

/// Returns the request for a port in the caller's words.
fn words(publish: &PublishRequest, forward: &Option<String>) -> String {
    forward.clone().unwrap_or_else(|| publish.to_string())
}

impl PublishError {
    /// Names the forward of the QEMU arguments that asks for the port, if one does.
    pub(super) fn name_forward(&mut self, plan: &Plan) {
        let (forward, listens) = match self {
            PublishError::Busy { forward, address, port, protocol, .. } => {
                (forward, HostSide { protocol: *protocol, address: *address, port: *port })
            }
            PublishError::NoAddress {
                forward, publish: PublishRequest::Ports(publish), ..
            } => {
                let (protocol, address) = (publish.protocol, publish.address);
                (forward, HostSide { protocol, address, port: publish.host.first() })
            }
            _ => return,
        };
        *forward = plan.nics.iter().find_map(|nic| match &nic.origin {
            Origin::Adopted { written, .. } => forward_on(written, listens),
            _ => None,
        });
    }
}

fn held_by(holder: &Option<(String, i32)>) -> String {
    holder.as_ref().map(|(name, pid)| format!(" by {name} (pid {pid})")).unwrap_or_default()
}

/// Listens on every port for a moment.
///
/// # Errors
/// [`PublishError`] for the first port on which this process cannot listen.
pub(super) fn check(publish: &[Publish]) -> Result<(), PublishError> {
    for one in publish {
        for port in one.host.ports() {
            let at = SocketAddr::new(one.address, port);
            let tried = match one.protocol {
                Protocol::Tcp => TcpListener::bind(at).map(drop),
                Protocol::Udp => UdpSocket::bind(at).map(drop),
            };
            tried.map_err(|source| explain(&one.clone().into(), at, one.protocol, source))?;
        }
    }
    Ok(())
}

/// The number of open files that a launch may need beside those of its ports: for starts of
/// programs, changes of rules, and connections to the ports.
const OTHER_FILES: u64 = 256;

/// Makes room for the sockets that keep the ports of guests on bridges: raises the soft limit of
/// open files of this process if it is too low. Returns the limit of before if it was raised.
///
/// # Errors
/// [`PublishError::Files`] if the hard limit is too low, too.
pub(super) fn make_room(plan: &Plan) -> Result<Option<FileLimit>, PublishError> {
    let bridged = plan.nics.iter().filter(|nic| nic.bridge.is_some());
    let sockets: u64 = bridged.flat_map(|nic| &nic.publish).map(sockets).sum();
    if sockets == 0 {
        return Ok(None);
    }
    let limit = FileLimit::now().map_err(PublishError::FileLimit)?;
    let needed = open_files() + sockets + OTHER_FILES;
    if needed <= limit.soft {
        return Ok(None);
    }
    if needed > limit.hard {
        return Err(PublishError::Files { needed, limit: limit.hard });
    }
    limit.raise().map_err(PublishError::FileLimit)?;
    Ok(Some(limit))
}

/// Returns the number of sockets that a published port or range needs. A port that serves clients
/// of a loopback address needs a second socket, that of its relay.
fn sockets(publish: &Publish) -> u64 {
    let each =
        if publish.address.is_loopback() || publish.address.is_unspecified() { 2 } else { 1 };
    each * publish.host.ports().count() as u64
}

/// Keeps the ports from other programs, without listening: the firewall or the follower of the
/// guest's address leads their connections to a guest on a bridge. Another program that wants to
/// listen on one of them finds it in use. Until the follower listens, a connection that the
/// firewall does not lead away is refused. Returns one socket for each port, in the order of
/// `publish`.
///
/// # Errors
/// [`PublishError`] for the first port that another program has.
pub(super) fn hold(publish: &[Publish]) -> Result<Vec<OwnedFd>, PublishError> {
    let mut held = Vec::new();
    for one in publish {
        for port in one.host.ports() {
            let at = SocketAddr::new(one.address, port);
            let failed = |source| explain(&one.clone().into(), at, one.protocol, source);
            held.push(hold_one(at, one.protocol).map_err(failed)?);
        }
    }
    Ok(held)
}

fn hold_one(at: SocketAddr, protocol: Protocol) -> io::Result<OwnedFd> {
    let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if at.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if kind == SockType::Stream {
        // Connections that ended lately do not count. The option is off again before another
        // program could share the port because of it.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    setsockopt(&socket, sockopt::ReuseAddr, &false)?;
    Ok(socket)
}

/// Returns a port of the host that is free at this moment.
///
/// # Errors
/// [`PublishError`] if this process cannot listen on the address.
pub(super) fn find_free(free: &FreePort) -> Result<u16, PublishError> {
    let at = SocketAddr::new(free.address, 0);
    let found = match free.protocol {
        Protocol::Tcp => TcpListener::bind(at).and_then(|socket| socket.local_addr()),
        Protocol::Udp => UdpSocket::bind(at).and_then(|socket| socket.local_addr()),
    };
    let error = |source| explain(&PublishRequest::Free(free.clone()), at, free.protocol, source);
    Ok(found.map_err(error)?.port())
}

fn explain(
    publish: &PublishRequest,
    at: SocketAddr,
    protocol: Protocol,
    source: io::Error,
) -> PublishError {
    let (address, port) = (at.ip(), at.port());
    match source.kind() {
        io::ErrorKind::AddrInUse => PublishError::Busy {
            publish: publish.clone(),
            forward: None,
            port,
            protocol,
            address,
            holder: find_holder(protocol, address, port),
        },
        io::ErrorKind::PermissionDenied => PublishError::Privileged { port, protocol, address },
        io::ErrorKind::AddrNotAvailable => {
            PublishError::NoAddress { publish: publish.clone(), forward: None, address }
        }
        _ => PublishError::Other { port, protocol, address, source },
    }
}

/// Returns the process that listens on a port, if /proc shows it.
fn find_holder(protocol: Protocol, address: IpAddr, port: u16) -> Option<(String, i32)> {
    let clashes = |local: SocketAddr| {
        local.port() == port
            && (local.ip() == address || local.ip().is_unspecified() || address.is_unspecified())
    };
    let inodes: Vec<u64> = match protocol {
        Protocol::Tcp => procfs::net::tcp()
            .into_iter()
            .flatten()
            .chain(procfs::net::tcp6().into_iter().flatten())
            .filter(|e| e.state == procfs::net::TcpState::Listen && clashes(e.local_address))
            .map(|e| e.inode)
            .collect(),
        Protocol::Udp => procfs::net::udp()
            .into_iter()
            .flatten()
            .chain(procfs::net::udp6().into_iter().flatten())
            .filter(|e| clashes(e.local_address))
            .map(|e| e.inode)
            .collect(),
    };
    procfs::process::all_processes().ok()?.flatten().find_map(|process| {
        let holds = process
            .fd()
            .ok()?
            .flatten()
            .any(|fd| matches!(fd.target, FDTarget::Socket(inode) if inodes.contains(&inode)));
        if !holds {
            return None;
        }
        Some((process.stat().ok()?.comm, process.pid()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(text: String) -> Vec<Publish> {
        vec![text.parse().unwrap()]
    }

    #[test]
    fn a_busy_port_names_its_holder() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let me = std::process::id() as i32;
        for text in [
            format!("{}", tcp.local_addr().unwrap().port()),
            format!("0.0.0.0:{}", tcp.local_addr().unwrap().port()),
            format!("{}/udp", udp.local_addr().unwrap().port()),
        ] {
            match check(&publish(text.clone())) {
                Err(PublishError::Busy { holder: Some((_, pid)), .. }) => {
                    assert_eq!(pid, me, "{text}")
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_port_for_clients_of_a_loopback_address_needs_two_sockets() {
        for (text, expected) in
            [("80", 2), ("0.0.0.0:8000-8009", 20), ("192.0.2.1:8000-8009", 10), ("[::1]:80/udp", 2)]
        {
            assert_eq!(sockets(&text.parse().unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn a_free_port_stays_free() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        check(&publish(format!("{port}"))).unwrap();
        check(&publish(format!("{port}"))).unwrap();
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        assert!(matches!(
            check(&publish("203.0.113.9:8080".into())),
            Err(PublishError::NoAddress { .. })
        ));
    }
}
