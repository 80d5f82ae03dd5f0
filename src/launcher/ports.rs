//! Whether published ports are free, asked before anything is started, and who holds those that
//! are not: passt and QEMU only say that an address is in use.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use procfs::process::FDTarget;

use crate::types::{Protocol, Publish};

/// Why a port cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another program has it.
    #[error("port {port}/{protocol} on {address} is in use{}: stop that program, or publish another port than -p {publish}", held_by(.holder))]
    Busy {
        /// What was to be published.
        publish: Publish,
        /// The busy port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The address.
        address: IpAddr,
        /// Name and number of the process that holds it, where that can be known.
        holder: Option<(String, i32)>,
    },
    /// Low ports need privileges.
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
        "{address} is not an address of this host, so -p {publish} cannot listen on it: use 127.0.0.1, 0.0.0.0 or one that `ip address` shows"
    )]
    NoAddress {
        /// What was to be published.
        publish: Publish,
        /// The address.
        address: IpAddr,
    },
    /// Something else.
    #[error("port {port}/{protocol} on {address} cannot be listened on: {source}")]
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

fn held_by(holder: &Option<(String, i32)>) -> String {
    holder.as_ref().map(|(name, pid)| format!(" by {name} (pid {pid})")).unwrap_or_default()
}

/// Listens on every port for a moment.
///
/// # Errors
/// The first port that cannot be had.
pub fn check(publish: &[Publish]) -> Result<(), PortError> {
    for one in publish {
        for port in one.host.ports() {
            let at = SocketAddr::new(one.address, port);
            let tried = match one.protocol {
                Protocol::Tcp => TcpListener::bind(at).map(drop),
                Protocol::Udp => UdpSocket::bind(at).map(drop),
            };
            tried.map_err(|source| explain(one, port, source))?;
        }
    }
    Ok(())
}

fn explain(publish: &Publish, port: u16, source: io::Error) -> PortError {
    let (protocol, address) = (publish.protocol, publish.address);
    match source.kind() {
        io::ErrorKind::AddrInUse => PortError::Busy {
            publish: publish.clone(),
            port,
            protocol,
            address,
            holder: find_holder(protocol, address, port),
        },
        io::ErrorKind::PermissionDenied => PortError::Privileged { port, protocol, address },
        io::ErrorKind::AddrNotAvailable => {
            PortError::NoAddress { publish: publish.clone(), address }
        }
        _ => PortError::Other { port, protocol, address, source },
    }
}

/// The process that holds a port, where /proc lets us see it.
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
                Err(PortError::Busy { holder: Some((_, pid)), .. }) => {
                    assert_eq!(pid, me, "{text}")
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_free_port_stays_free() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        check(&publish(format!("{port}"))).unwrap();
        check(&publish(format!("{port}"))).unwrap();
    }

    #[test]
    fn an_address_of_another_host() {
        assert!(matches!(
            check(&publish("203.0.113.9:8080".into())),
            Err(PortError::NoAddress { .. })
        ));
    }
}
