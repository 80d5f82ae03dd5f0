//! The frames that an interface carries, and what a frame says about its sender.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Instant;

use netlaunch::sys::packet_socket::{PacketSocket, Received};
use nix::net::if_::if_nametoindex;

use super::Netns;

/// A frame that an interface has carried.
#[derive(Debug, Clone)]
pub struct Carried {
    /// When it was read, a little after it was carried.
    pub at: Instant,
    /// The host has sent it by the interface, rather than received it.
    pub outgoing: bool,
    /// From its destination address on.
    pub bytes: Vec<u8>,
}

/// The address that the sender of a frame claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// A DHCP client's message from no address, and its type (RFC 2132, section 9.6).
    DhcpClient(u8),
    /// A DHCP server's message, and its type.
    DhcpServer(u8),
    /// ARP: the sender's address.
    Arp(Ipv4Addr),
    /// IPv4: the source address.
    Ipv4(Ipv4Addr),
    /// Another protocol, by its number.
    Other(u16),
}

/// Everything that an interface carries from now on. A thread listens until the interface is gone.
#[derive(Clone)]
pub struct Wire(Arc<Mutex<Vec<Carried>>>);

/// Takes whole frames.
const ALL: [libc::sock_filter; 1] =
    [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0x4_0000 }];

impl Wire {
    /// Taps an interface of a namespace; it is listened to on return.
    pub fn tap(netns: &Netns, interface: &str) -> Self {
        let wire = Wire(Arc::default());
        let (mine, interface) = (wire.clone(), interface.to_owned());
        let (begun, begins) = mpsc::channel();
        netns.inside(|| {
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async {
                    let index = if_nametoindex(interface.as_str()).unwrap();
                    let socket = PacketSocket::open(index, &ALL, 4 << 20).unwrap();
                    begun.send(()).unwrap();
                    mine.listen(&socket).await;
                });
            })
        });
        begins.recv().unwrap();
        wire
    }

    async fn listen(&self, socket: &PacketSocket) {
        let mut buffer = vec![0; 65_600];
        loop {
            match socket.receive(&mut buffer) {
                Ok(Received::Frame { length, outgoing, .. }) => {
                    let (at, bytes) = (Instant::now(), buffer[..length].to_vec());
                    self.0.lock().unwrap().push(Carried { at, outgoing, bytes });
                }
                Ok(Received::Nothing) => socket.wait().await.unwrap(),
                Ok(Received::Gone) | Err(_) => return,
            }
        }
    }

    /// Returns the frames that it has carried so far.
    pub fn all(&self) -> Vec<Carried> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the received frames that none of these addresses sent.
    pub fn others_than(&self, known: &[[u8; 6]]) -> Vec<Carried> {
        let others = |frame: &Carried| !frame.outgoing && !known.contains(&frame.source());
        self.all().into_iter().filter(others).collect()
    }
}

impl Carried {
    /// The hardware address that it was sent from.
    pub fn source(&self) -> [u8; 6] {
        self.bytes[6..12].try_into().unwrap()
    }

    pub fn says(&self) -> Says {
        let address = |at: usize| {
            let octets: [u8; 4] = self.bytes[at..at + 4].try_into().unwrap();
            Ipv4Addr::from(octets)
        };
        match u16::from_be_bytes([self.bytes[12], self.bytes[13]]) {
            0x0806 => Says::Arp(address(28)),
            0x0800 => match (self.udp_ports(), self.dhcp_type()) {
                (Some((68, 67)), Some(kind)) if address(26).is_unspecified() => {
                    Says::DhcpClient(kind)
                }
                (Some((67, 68)), Some(kind)) => Says::DhcpServer(kind),
                _ => Says::Ipv4(address(26)),
            },
            protocol => Says::Other(protocol),
        }
    }

    fn udp_ports(&self) -> Option<(u16, u16)> {
        let at = 14 + usize::from(self.bytes[14] & 0xf) * 4;
        let port = |at: usize| Some(u16::from_be_bytes([*self.bytes.get(at)?, self.bytes[at + 1]]));
        (self.bytes[23] == 17).then_some(())?;
        Some((port(at)?, port(at + 2)?))
    }

    /// Option 53, behind the IPv4 header without options, UDP, BOOTP and the cookie.
    fn dhcp_type(&self) -> Option<u8> {
        let mut rest = self.bytes.get(14 + 20 + 8 + 236 + 4..)?;
        while let [code, length, value @ ..] = rest {
            match code {
                53 => return value.first().copied(),
                255 => return None,
                _ => rest = value.get(usize::from(*length)..)?,
            }
        }
        None
    }
}
