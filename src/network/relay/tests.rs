//! Tests of the relay. The guest has a loopback address, too.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener as StdListener};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, getsockname, socket,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::*;

const GUEST: GuestAddress =
    GuestAddress { ipv4: Some(Ipv4Addr::LOCALHOST), ipv6: Some(Ipv6Addr::LOCALHOST) };
const UNKNOWN: GuestAddress = GuestAddress { ipv4: None, ipv6: None };
const LIMIT: Duration = Duration::from_secs(20);

/// Keeps a free port of an address, and returns it with the socket, as a launch does.
fn hold(address: &str, protocol: Protocol) -> (u16, OwnedFd) {
    let at = SocketAddr::new(address.parse().unwrap(), 0);
    let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let held = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(held.as_raw_fd(), &SockaddrStorage::from(at)).unwrap();
    let name: SockaddrStorage = getsockname(held.as_raw_fd()).unwrap();
    let port = name.as_sockaddr_in().map(|name| name.port());
    (port.or_else(|| name.as_sockaddr_in6().map(|name| name.port())).unwrap(), held)
}

/// A relay of one TCP port to `guest_port`, with the end for clients.
fn tcp(address: &str, guest_port: u16, guest: GuestAddress) -> (Relay, SocketAddr, OwnedFd) {
    let (port, held) = hold(address, Protocol::Tcp);
    let shown = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let publish = [format!("{shown}:{port}:{guest_port}").parse().unwrap()];
    let relay = Relay::start(&publish, std::slice::from_ref(&held), guest).unwrap();
    (relay, SocketAddr::new(address.parse().unwrap(), port), held)
}

/// Connects once the relay listens.
async fn connect(to: SocketAddr) -> TcpStream {
    let connected = async {
        loop {
            match TcpStream::connect(to).await {
                Ok(stream) => return stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    timeout(LIMIT, connected).await.unwrap()
}

async fn server(address: &str) -> (TcpListener, u16) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn read_all(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = String::new();
    timeout(LIMIT, stream.read_to_string(&mut text)).await.unwrap()?;
    Ok(text)
}

#[tokio::test]
async fn the_end_of_one_direction_leaves_the_other_open() {
    for address in ["127.0.0.1", "127.0.0.9", "::1"] {
        let (guest, port) = server(if address == "::1" { "::1" } else { "127.0.0.1" }).await;
        let (_relay, at, _held) = tcp(address, port, GUEST);
        let mut client = connect(at).await;
        let (mut served, _) = guest.accept().await.unwrap();
        client.write_all(b"request").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut served).await.unwrap(), "request", "{address}");
        let answer = "a".repeat(300_000);
        served.write_all(answer.as_bytes()).await.unwrap();
        drop(served);
        assert_eq!(read_all(&mut client).await.unwrap(), answer, "{address}");
    }
}

#[tokio::test]
async fn connections_are_refused_until_the_guests_address_is_known() {
    let (guest, port) = server("127.0.0.1").await;
    let (relay, at, _held) = tcp("127.0.0.1", port, UNKNOWN);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(TcpStream::connect(at).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    relay.lead_to(GUEST);
    let _client = connect(at).await;
    guest.accept().await.unwrap();
    // A lost address closes new connections.
    relay.lead_to(UNKNOWN);
    let error = read_all(&mut connect(at).await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_broken_connection_of_the_guest_breaks_the_clients() {
    let closed = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (_relay, at, _held) = tcp("127.0.0.1", closed, GUEST);
    let error = read_all(&mut connect(at).await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the guest refuses");

    let (guest, port) = server("127.0.0.1").await;
    let (_relay, at, _held) = tcp("127.0.0.1", port, GUEST);
    let mut client = connect(at).await;
    let (served, _) = guest.accept().await.unwrap();
    served.set_zero_linger().unwrap();
    drop(served);
    let error = read_all(&mut client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the guest resets");
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_the_end_of_another() {
    let (guest, guest_port) = server("127.0.0.1").await;
    let (port, held) = hold("127.0.0.1", Protocol::Tcp);
    let publish = [format!("{port}:{guest_port}").parse().unwrap()];
    let _relay = Relay::with_places(&publish, &[held], GUEST, (2, 1)).unwrap();
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let first = connect(at).await;
    let (mut served, _) = guest.accept().await.unwrap();
    let _second = connect(at).await;
    let _served = guest.accept().await.unwrap();
    let _third = connect(at).await;
    let waits = timeout(Duration::from_millis(200), guest.accept()).await;
    assert!(waits.is_err(), "the third connection reaches the guest");
    drop(first);
    assert_eq!(read_all(&mut served).await.unwrap(), "");
    drop(served);
    timeout(LIMIT, guest.accept()).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_ports_close_with_the_relay() {
    let (guest, port) = server("127.0.0.1").await;
    let (relay, at, held) = tcp("127.0.0.1", port, GUEST);
    let mut client = connect(at).await;
    let (mut served, _) = guest.accept().await.unwrap();
    drop(relay);
    assert!(matches!(read_all(&mut client).await.as_deref(), Ok("") | Err(_)));
    assert!(matches!(read_all(&mut served).await.as_deref(), Ok("") | Err(_)));
    drop(held);
    let refused = async {
        while TcpStream::connect(at).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, refused).await.unwrap();
    // The next launch can have the port at once, although connections ended lately.
    drop(StdListener::bind(at).unwrap());
}

/// Answers each datagram with the text and the datagram.
async fn answer(socket: UdpSocket, text: &'static str) {
    let mut buffer = [0; 100];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let answer = [text.as_bytes(), &buffer[..length]].concat();
        socket.send_to(&answer, from).await.unwrap();
    }
}

/// Sends a datagram until an answer comes, and returns the answer.
async fn ask(client: &UdpSocket, word: &str) -> String {
    let mut buffer = [0; 100];
    let asked = async {
        loop {
            client.send(word.as_bytes()).await.unwrap();
            let answer = timeout(Duration::from_millis(300), client.recv(&mut buffer)).await;
            match answer {
                Ok(Ok(length)) => return String::from_utf8_lossy(&buffer[..length]).into_owned(),
                _ => continue,
            }
        }
    };
    timeout(LIMIT, asked).await.unwrap()
}

async fn client(to: SocketAddr) -> UdpSocket {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let client = UdpSocket::bind((any, 0)).await.unwrap();
    client.connect(to).await.unwrap();
    client
}

/// Two guests that serve one UDP port, at 127.0.0.1 and at 127.0.0.2.
async fn guests() -> u16 {
    let first = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = first.local_addr().unwrap().port();
    tokio::spawn(answer(first, "first "));
    tokio::spawn(answer(UdpSocket::bind(("127.0.0.2", port)).await.unwrap(), "second "));
    port
}

#[tokio::test]
async fn each_udp_client_gets_its_replies_from_the_address_to_which_it_sends() {
    let guest_port = guests().await;
    let (port, held) = hold("0.0.0.0", Protocol::Udp);
    let publish = [format!("0.0.0.0:{port}:{guest_port}/udp").parse().unwrap()];
    let relay = Relay::start(&publish, &[held], GUEST).unwrap();
    // A connected socket drops a reply from another address.
    let one = client(SocketAddr::from(([127, 0, 0, 1], port))).await;
    let nine = client(SocketAddr::from(([127, 0, 0, 9], port))).await;
    assert_eq!(ask(&one, "1").await, "first 1");
    assert_eq!(ask(&nine, "9").await, "first 9");
    assert_eq!(ask(&one, "2").await, "first 2");
    relay.lead_to(GuestAddress { ipv4: Some([127, 0, 0, 2].into()), ipv6: None });
    assert_eq!(ask(&one, "3").await, "second 3");
    relay.lead_to(UNKNOWN);
    one.send(b"4").await.unwrap();
    let silent = timeout(Duration::from_millis(300), one.recv(&mut [0; 10])).await;
    assert!(silent.is_err(), "a reply of no guest");
}

#[tokio::test]
async fn udp_over_ipv6_loopback_reaches_the_guest() {
    let guest = UdpSocket::bind("[::1]:0").await.unwrap();
    let guest_port = guest.local_addr().unwrap().port();
    tokio::spawn(answer(guest, "six "));
    let (port, held) = hold("::", Protocol::Udp);
    let publish = [format!("[::]:{port}:{guest_port}/udp").parse().unwrap()];
    let _relay = Relay::start(&publish, &[held], GUEST).unwrap();
    let client = client(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await;
    assert_eq!(ask(&client, "?").await, "six ?");
}

#[tokio::test]
async fn a_new_udp_client_takes_the_place_of_the_one_that_paused_longest() {
    let guest_port = guests().await;
    let (port, held) = hold("127.0.0.1", Protocol::Udp);
    let publish = [format!("{port}:{guest_port}/udp").parse().unwrap()];
    let _relay = Relay::with_places(&publish, &[held], GUEST, (1, 2)).unwrap();
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let clients = [client(at).await, client(at).await, client(at).await];
    for round in 0..3 {
        for (place, client) in clients.iter().enumerate() {
            let word = format!("{round}{place}");
            assert_eq!(ask(client, &word).await, format!("first {word}"));
        }
    }
}
