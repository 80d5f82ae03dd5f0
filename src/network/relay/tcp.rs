//! The TCP ports of a relay.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::RelayedPort;

/// The bytes of each direction of a connection that the relay holds at most.
const BUFFER: usize = 32 * 1024;
/// How long the guest may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(20);
/// How long the relay waits after the kernel had no descriptor or memory for a connection.
const PAUSE: Duration = Duration::from_secs(1);
/// An end that is silent this long is asked whether it is alive: a guest that was killed, or that
/// has another address now, sends no end of its connections.
const KEEPALIVE: u32 = 60;
/// The seconds between two such questions.
const KEEPALIVE_INTERVAL: u32 = 15;
/// The milliseconds that sent data may stay without an acknowledgement.
const UNACKNOWLEDGED: u32 = 120_000;

/// Serves a port for as long as the relay exists. Until the guest's address is known, the socket
/// does not listen, so connections are refused.
pub(super) async fn serve(held: OwnedFd, mut port: RelayedPort) {
    let (at, guest_port) = (port.at, port.guest_port);
    let is_known = |address: &_| super::guest_end(address, at, guest_port).is_some();
    if port.address.wait_for(is_known).await.is_err() {
        return;
    }
    let listener = match listener(held) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!("the published port {at}/tcp does not answer: {error}");
            return;
        }
    };
    let mut connections = JoinSet::new();
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let client = match client {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::debug!("no connection to {at}/tcp is accepted for a moment: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let is_local = client.local_addr().is_ok_and(|to| to.ip().is_loopback());
        let Some(guest) = port.guest().filter(|_| is_local) else {
            reset(client);
            continue;
        };
        // The semaphore is never closed. While it has no place, the next clients wait in the queue
        // of the socket.
        let Ok(place) = port.places.clone().acquire_owned().await else { return };
        connections.spawn(async move {
            relay(client, guest).await;
            drop(place);
        });
    }
}

/// Makes the socket that keeps a port listen on it. Does nothing if it listens already.
pub(super) fn listen_on(held: &OwnedFd) -> io::Result<()> {
    // Connections of a launch that ended lately do not count. No other socket can share the port
    // because of that, since this one listens.
    setsockopt(held, sockopt::ReuseAddr, &true)?;
    Ok(listen(held, Backlog::MAXALLOWABLE)?)
}

fn listener(held: OwnedFd) -> io::Result<TcpListener> {
    listen_on(&held)?;
    let listener = StdListener::from(held);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Connects to the guest and carries bytes in both directions until both ends have ended. The end
/// of one direction leaves the other direction open.
async fn relay(mut client: TcpStream, guest: SocketAddr) {
    let server = timeout(CONNECT, TcpStream::connect(guest)).await;
    let Ok(Ok(mut server)) = server else {
        reset(client);
        return;
    };
    let carried = match prepare(&client).and_then(|()| prepare(&server)) {
        Ok(()) => copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await,
        Err(error) => Err(error),
    };
    if carried.is_err() {
        reset(client);
        reset(server);
    }
}

/// Makes the kernel send small writes at once, and end a connection whose other end has vanished
/// without a FIN or RST.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED)?;
    Ok(())
}

/// Closes a connection as broken, so that its other end does not take the break for a normal end.
fn reset(stream: TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!("a relayed connection ends without a reset: {error}");
    }
}
