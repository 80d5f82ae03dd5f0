//! Relays connections to the host's loopback addresses to a guest on a bridge.
//!
//! The kernel sends no packet of `::1` to another interface, and packets of 127.0.0.0/8 only with
//! the setting `route_localnet`. With that setting, a guest reaches the host's loopback services
//! unless a firewall rule prevents that (CVE-2020-8558), and any program can flush that rule. So
//! this process accepts these connections itself, on the sockets that keep the published ports,
//! and makes a second connection to the guest. The firewall leads the connections to all other
//! addresses of the host to the guest, so a socket on the unspecified address serves clients of a
//! loopback address only.
//!
//! The number of connections is bounded, and so is the memory of each. The ports close with the
//! process, however it ends.
//!
//! A client is connected before the guest is. If the guest refuses the connection or does not
//! answer, the relay resets the client's connection.

mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::manager::GuestAddress;
use crate::types::{Protocol, Publish};

/// The number of connections that one relay has at most. Each needs two descriptors, and the usual
/// limit of a process is 1024.
const CONNECTIONS: usize = 256;
/// The number of UDP clients that one relay serves at the same time. A new client takes the place
/// of the one that has paused longest.
const UDP_CLIENTS: usize = 128;

/// Why ports cannot answer on a loopback address.
#[derive(Debug, thiserror::Error)]
#[error(
    "port {}/{protocol} on {} cannot serve clients of the host's loopback addresses", .at.port(), .at.ip()
)]
pub struct RelayError {
    at: SocketAddr,
    protocol: Protocol,
    source: io::Error,
}

/// The loopback ports of one guest. Dropping it closes their connections; the sockets that keep the
/// ports are the caller's.
#[derive(Debug)]
pub struct Relay {
    address: watch::Sender<GuestAddress>,
    // Dropping the set ends the tasks.
    _ports: JoinSet<()>,
}

/// One port of the relay.
struct RelayedPort {
    at: SocketAddr,
    guest_port: u16,
    address: watch::Receiver<GuestAddress>,
    /// The places for connections or clients, which all ports of the relay share.
    places: Arc<Semaphore>,
}

impl Relay {
    /// Serves those of the published ports that answer on a loopback address. `held` has the socket
    /// that keeps each port: one for each port of each range, in the order of `publish`. If the
    /// address is known, the ports accept connections from now on. Call it in a tokio runtime with
    /// I/O and time enabled.
    ///
    /// # Errors
    /// [`RelayError`] for the first port whose socket cannot be used.
    pub fn start(
        publish: &[Publish],
        held: &[OwnedFd],
        address: GuestAddress,
    ) -> Result<Self, RelayError> {
        Relay::with_places(publish, held, address, (CONNECTIONS, UDP_CLIENTS))
    }

    /// Does the same as [`start`](Self::start), with places for this many TCP connections and UDP
    /// clients.
    fn with_places(
        publish: &[Publish],
        held: &[OwnedFd],
        address: GuestAddress,
        (connections, clients): (usize, usize),
    ) -> Result<Self, RelayError> {
        let (sender, receiver) = watch::channel(address);
        let connections = Arc::new(Semaphore::new(connections));
        let clients = Arc::new(Semaphore::new(clients));
        let mut ports = JoinSet::new();
        let each = publish
            .iter()
            .flat_map(|one| one.host.ports().zip(one.guest.ports()).map(move |ports| (one, ports)));
        for ((one, (host, guest_port)), socket) in each.zip(held) {
            if !is_relayed(one) {
                continue;
            }
            let (at, protocol) = (SocketAddr::new(one.address, host), one.protocol);
            let failed = |source| RelayError { at, protocol, source };
            let socket = socket.try_clone().map_err(failed)?;
            let address = receiver.clone();
            match protocol {
                Protocol::Tcp => {
                    let places = Arc::clone(&connections);
                    let port = RelayedPort { at, guest_port, address, places };
                    if port.guest().is_some() {
                        tcp::listen_on(&socket).map_err(failed)?;
                    }
                    ports.spawn(tcp::serve(socket, port));
                }
                Protocol::Udp => {
                    let places = Arc::clone(&clients);
                    let port = RelayedPort { at, guest_port, address, places };
                    let socket = udp::socket(socket, at.is_ipv6()).map_err(failed)?;
                    ports.spawn(udp::serve(socket, port));
                }
            }
        }
        Ok(Relay { address: sender, _ports: ports })
    }

    /// Leads new connections to these addresses. TCP connections stay as they are; UDP clients go
    /// to the new address with their next datagram.
    pub fn lead_to(&self, address: GuestAddress) {
        self.address.send_if_modified(|now| std::mem::replace(now, address) != address);
    }
}

impl RelayedPort {
    /// Returns the guest's end of a connection; `None` while the guest's address is not known.
    fn guest(&self) -> Option<SocketAddr> {
        guest_end(&self.address.borrow(), self.at, self.guest_port)
    }
}

/// Returns the guest's end for a port of the host, in the IP version of that port.
fn guest_end(address: &GuestAddress, at: SocketAddr, guest_port: u16) -> Option<SocketAddr> {
    let guest = match at {
        SocketAddr::V4(_) => address.ipv4.map(IpAddr::from),
        SocketAddr::V6(_) => address.ipv6.map(IpAddr::from),
    };
    guest.map(|guest| SocketAddr::new(guest, guest_port))
}

/// Returns whether a published port answers on a loopback address of the host.
pub fn is_relayed(publish: &Publish) -> bool {
    publish.address.is_loopback() || publish.address.is_unspecified()
}
