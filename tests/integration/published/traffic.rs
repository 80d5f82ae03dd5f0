//! The addresses of guests, their servers and their clients.

use super::*;

/// Gives a guest its addresses, which end with `n`.
pub(super) fn address(guest: &Netns, n: u8) {
    guest.ip(&format!("address add 10.60.0.{n}/24 dev eth0"));
    guest.ip(&format!("address add fd00:60::{n}/64 dev eth0 nodad"));
    guest.ip("route replace default via 10.60.0.1");
    guest.ip("-6 route replace default via fd00:60::1");
}

/// Serves both ports: each client gets the port and its own address.
pub(super) fn serve(netns: &Netns) {
    for port in [PORT, PORT + 1] {
        let (tcp, udp) = netns.inside(|| {
            (TcpListener::bind(("::", port)).unwrap(), UdpSocket::bind(("::", port)).unwrap())
        });
        let answer = move |peer: SocketAddr| format!("{port} {}", peer.ip().to_canonical());
        thread::spawn(move || {
            while let Ok((mut stream, peer)) = tcp.accept() {
                let _ = stream.write_all(answer(peer).as_bytes());
            }
        });
        thread::spawn(move || {
            while let Ok((_, peer)) = udp.recv_from(&mut [0; 8]) {
                let _ = udp.send_to(answer(peer).as_bytes(), peer);
            }
        });
    }
}

/// Asks by TCP and by UDP, which agree; returns the answer or `-`.
pub(super) fn reach(from: &Netns, to: &str) -> String {
    let to: SocketAddr = to.parse().unwrap();
    let wait = Duration::from_secs(2);
    let answers: BTreeSet<String> = from.inside(|| {
        let tcp = || {
            let mut stream = TcpStream::connect_timeout(&to, wait).ok()?;
            stream.set_read_timeout(Some(wait)).ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            Some(answer)
        };
        let udp = || {
            let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let socket = UdpSocket::bind((any, 0)).ok()?;
            socket.set_read_timeout(Some(wait)).ok()?;
            socket.connect(to).ok()?;
            socket.send(b"?").ok()?;
            let mut bytes = [0; 100];
            let n = socket.recv(&mut bytes).ok()?;
            Some(text(&bytes[..n]))
        };
        [tcp(), udp()].map(|answer| answer.unwrap_or_else(|| "-".to_owned())).into()
    });
    answers.into_iter().collect::<Vec<_>>().join(" or ")
}
