//! The UDP ports of a relay.
//!
//! Each client gets a socket of its own towards the guest, so that the replies find the client. A
//! reply leaves from the address to which the client sent, which is one of many for a socket on
//! 0.0.0.0.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::RelayedPort;

/// How long a client may pause before the relay forgets it; as long as the kernel's connection
/// tracking keeps a connection that had replies.
const IDLE: Duration = Duration::from_secs(120);
/// The largest datagram.
const DATAGRAM: usize = 65_535;

/// A client: its own address, and the host's address to which it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Client {
    address: SocketAddr,
    sends_to: IpAddr,
}

/// The datagrams between one client and the guest. Dropping it ends the task that carries the
/// replies.
struct Flow {
    socket: Arc<UdpSocket>,
    /// The time of the client's last datagram.
    used: watch::Sender<Instant>,
    replies: JoinHandle<()>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.replies.abort();
    }
}

/// Makes the socket that keeps a port ready to receive.
pub(super) fn socket(held: OwnedFd, v6: bool) -> io::Result<UdpSocket> {
    if v6 {
        setsockopt(&held, sockopt::Ipv6RecvPacketInfo, &true)?
    } else {
        setsockopt(&held, sockopt::Ipv4PacketInfo, &true)?
    }
    let socket = StdSocket::from(held);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Serves a port for as long as the relay exists.
pub(super) async fn serve(socket: UdpSocket, mut port: RelayedPort) {
    let socket = Arc::new(socket);
    let mut flows: HashMap<Client, Flow> = HashMap::new();
    let mut buffer = Vec::new();
    loop {
        // An idle port holds no memory for a datagram.
        buffer.clear();
        buffer.shrink_to_fit();
        tokio::select! {
            ready = socket.readable() => {
                if ready.is_err() {
                    return;
                }
            }
            changed = port.address.changed() => {
                if changed.is_err() {
                    return;
                }
                flows.clear();
                continue;
            }
        }
        buffer.resize(DATAGRAM, 0);
        let received = socket.try_io(Interest::READABLE, || receive(&socket, &mut buffer));
        let Ok((length, Some(client))) = received else { continue };
        if !client.sends_to.is_loopback() {
            continue;
        }
        flows.retain(|_, flow| !flow.replies.is_finished());
        if !flows.contains_key(&client)
            && let Some(flow) = connect(&port, &mut flows, client, &socket).await
        {
            flows.insert(client, flow);
        }
        if let Some(flow) = flows.get(&client) {
            flow.used.send_replace(Instant::now());
            // UDP may lose a datagram, and an error belongs to an earlier one.
            let _ = flow.socket.try_send(&buffer[..length]);
        }
    }
}

/// Makes the flow of a new client; `None` if the guest's address is not known, or if
/// the clients of other ports have all places.
async fn connect(
    port: &RelayedPort,
    flows: &mut HashMap<Client, Flow>,
    client: Client,
    socket: &Arc<UdpSocket>,
) -> Option<Flow> {
    let guest = port.guest()?;
    let place = match Arc::clone(&port.places).try_acquire_owned() {
        Ok(place) => place,
        Err(_) => {
            let oldest = *flows.iter().min_by_key(|(_, flow)| *flow.used.borrow())?.0;
            flows.remove(&oldest);
            Arc::clone(&port.places).try_acquire_owned().ok()?
        }
    };
    let any: IpAddr = match guest {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let connected = async {
        let to_guest = UdpSocket::bind((any, 0)).await?;
        to_guest.connect(guest).await?;
        // A new socket is writable, but tokio knows only after the first look.
        to_guest.writable().await?;
        io::Result::Ok(to_guest)
    };
    let to_guest = match connected.await {
        Ok(to_guest) => Arc::new(to_guest),
        Err(error) => {
            tracing::debug!("a UDP client of {} does not reach {guest}: {error}", port.at);
            return None;
        }
    };
    let (used, last) = watch::channel(Instant::now());
    let replies = tokio::spawn(reply(Arc::clone(&to_guest), Arc::clone(socket), client, last));
    Some(Flow { socket: to_guest, used, replies, _place: place })
}

/// Carries the guest's replies to a client, until both have paused.
async fn reply(
    from: Arc<UdpSocket>,
    to: Arc<UdpSocket>,
    client: Client,
    used: watch::Receiver<Instant>,
) {
    loop {
        if timeout(IDLE, from.readable()).await.is_err() {
            if used.borrow().elapsed() >= IDLE {
                return;
            }
            continue;
        }
        let mut buffer = vec![0; DATAGRAM];
        // An error is the ICMP error for an earlier datagram.
        if let Ok(length) = from.try_recv(&mut buffer) {
            // UDP may lose a datagram.
            let _ = to.try_io(Interest::WRITABLE, || send(&to, &buffer[..length], client));
        }
    }
}

/// Receives a datagram. Returns its length and its client; without a client if the kernel did not
/// say where it was sent to.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Option<Client>)> {
    let mut space = nix::cmsg_space!(libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let address = message.address.and_then(|from| {
        let v4 = from.as_sockaddr_in().map(|from| SocketAddr::from((from.ip(), from.port())));
        v4.or_else(|| from.as_sockaddr_in6().map(|from| SocketAddr::from((from.ip(), from.port()))))
    });
    let sends_to = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
        _ => None,
    });
    let client = address.zip(sends_to).map(|(address, sends_to)| Client { address, sends_to });
    Ok((message.bytes, client))
}

/// Sends a datagram to a client, from the address to which the client sends.
fn send(socket: &UdpSocket, datagram: &[u8], client: Client) -> io::Result<()> {
    let (fd, parts) = (socket.as_raw_fd(), [IoSlice::new(datagram)]);
    let flags = MsgFlags::MSG_DONTWAIT;
    match (client.address, client.sends_to) {
        (SocketAddr::V4(address), IpAddr::V4(own)) => {
            let own = libc::in_addr { s_addr: u32::from_ne_bytes(own.octets()) };
            let any = libc::in_addr { s_addr: 0 };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: own, ipi_addr: any };
            let from = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(fd, &parts, &from, flags, Some(&SockaddrIn::from(address)))?;
        }
        (SocketAddr::V6(address), IpAddr::V6(own)) => {
            let own = libc::in6_addr { s6_addr: own.octets() };
            let info = libc::in6_pktinfo { ipi6_addr: own, ipi6_ifindex: 0 };
            let from = [ControlMessage::Ipv6PacketInfo(&info)];
            sendmsg(fd, &parts, &from, flags, Some(&SockaddrIn6::from(address)))?;
        }
        _ => {}
    }
    Ok(())
}
