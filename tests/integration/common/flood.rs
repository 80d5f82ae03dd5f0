//! A guest that floods its port with frames that its filter refuses, and some that it does not.
//!
//! Every frame carries a mark, its kind, the run it belongs to and a sequence number, so that one
//! that comes out is known and can be shown.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::frame::{BRIDGE, Frame, Host, PEER};
use super::port_scene::VNET_HEADER;

/// The marks of frames that must not come out, and of those that may.
pub const FORBIDDEN: u32 = 0x6e6c_f0bd;
pub const ALLOWED: u32 = 0x6e6c_a110;
/// Where the mark is: behind the heads of Ethernet and ARP, or of IPv4 and UDP or ICMP; behind
/// those of IPv6 and UDP.
pub const PLACES: [usize; 2] = [14 + 28, 14 + 40 + 8];

/// Where the host itself listens.
pub const HOST_PORT: u16 = 2001;

/// Frames of one sort.
pub struct Kind {
    pub name: &'static str,
    frame: Frame,
    /// The change of the finished bytes.
    change: fn(&mut Vec<u8>),
}

impl Kind {
    fn new(name: &'static str, frame: Frame) -> Self {
        Kind { name, frame, change: |_| () }
    }

    fn bytes(&self, number: &[u8]) -> Vec<u8> {
        let mut bytes = self.frame.bytes(number);
        (self.change)(&mut bytes);
        bytes
    }
}

/// Another host in the subnet of `guest`.
fn stranger(guest: Host) -> Host {
    let mac = [0x52, 0x54, 0, 0x66, 0x66, 0x66];
    Host { mac, v4: Ipv4Addr::from_bits(guest.v4.to_bits() ^ 0x40), ..guest }
}

/// Frames with another MAC address than the guest's, and frames of other protocols: no address can
/// be learned from it.
fn foreign(guest: Host) -> Vec<Kind> {
    let other = stranger(guest);
    let lying_arp = Host { mac: other.mac, ..guest };
    let udp = || Frame::udp(guest, PEER, 1000, 2000);
    vec![
        Kind::new("UDP from another MAC address", udp().sent_by(other.mac)),
        Kind::new("UDP of another host", Frame::udp(other, PEER, 1000, 2000)),
        Kind::new("ARP of another host", Frame::arp(other, PEER, 1)),
        Kind::new("ARP that says another MAC address", {
            Frame::arp(lying_arp, PEER, 2).sent_by(guest.mac)
        }),
        Kind::new("IPv6", Frame::udp6(guest, PEER, 1000, 2000)),
        Kind {
            change: |bytes| bytes[12..14].copy_from_slice(&[0x88, 0xb5]),
            ..Kind::new("a protocol of its own", udp())
        },
        Kind {
            change: |bytes| drop(bytes.splice(12..12, [0x81, 0, 0, 5])),
            ..Kind::new("a VLAN", udp())
        },
    ]
}

/// Frames with an IPv4 address that is not the guest's, with its own MAC address.
pub fn spoofed(guest: Host) -> Vec<Kind> {
    let other = Host { mac: guest.mac, ..stranger(guest) };
    let everyone = Host { mac: [0xff; 6], v4: Ipv4Addr::BROADCAST, ..PEER };
    vec![
        Kind::new("UDP from another address", Frame::udp(other, PEER, 1000, 2000)),
        Kind::new("UDP from another address to all", Frame::udp(other, everyone, 1000, HOST_PORT)),
        Kind::new(
            "UDP from another address to the host",
            Frame::udp(other, BRIDGE, 1000, HOST_PORT),
        ),
        Kind::new("ICMP from another address", Frame::icmp(other, PEER, 8)),
        Kind::new("ARP request of another address", Frame::arp(other, PEER, 1)),
        Kind::new("ARP answer of another address", Frame::arp(other, PEER, 2)),
    ]
}

/// Frames that no guest may send, whether its address is known or not, and that teach no address:
/// [`foreign`] frames, and frames to DHCP servers with an address that is not the guest's.
pub fn never(guest: Host) -> Vec<Kind> {
    let other = Host { mac: guest.mac, ..stranger(guest) };
    let host = Host { mac: guest.mac, ..BRIDGE };
    let everyone = Host { mac: [0xff; 6], v4: Ipv4Addr::BROADCAST, ..PEER };
    let dhcp = [
        Kind::new("DHCP from another address", Frame::udp(other, PEER, 68, 67)),
        Kind::new("DHCP from another address to all", Frame::udp(other, everyone, 68, 67)),
        Kind::new("DHCP from the host's address", Frame::udp(host, PEER, 68, 67)),
    ];
    foreign(guest).into_iter().chain(dhcp).collect()
}

/// Frames of a guest with an address that clean-traffic refuses.
pub fn refused(guest: Host) -> Vec<Kind> {
    never(guest).into_iter().chain(spoofed(guest)).collect()
}

/// Frames that clean-traffic lets pass.
pub fn own(guest: Host) -> Vec<Kind> {
    vec![
        Kind::new("UDP", Frame::udp(guest, PEER, 1000, 2000)),
        Kind::new("ARP", Frame::arp(guest, PEER, 1)),
    ]
}

/// With what a guest without an address asks for one; no address can be learned from it.
pub fn asking(guest: Host) -> [Kind; 2] {
    let nobody = Host { v4: Ipv4Addr::UNSPECIFIED, ..guest };
    let everyone = Host { mac: [0xff; 6], v4: Ipv4Addr::BROADCAST, ..PEER };
    [
        Kind::new("DHCP to servers", Frame::udp(nobody, everyone, 68, 67)),
        Kind::new("an ARP probe", Frame::arp(nobody, guest, 1)),
    ]
}

/// The frames to send.
#[derive(Default)]
pub struct Load {
    pub forbidden: Vec<Kind>,
    pub allowed: Vec<Kind>,
}

/// How often each forbidden frame is sent for one of each allowed.
const ROUNDS: usize = 4;
/// The pause between bursts, in which the others of two processors have their turn.
const PAUSE: Duration = Duration::from_micros(100);

/// Counts frames.
#[derive(Debug, Default)]
struct Sent {
    sequence: u32,
    /// The port took them.
    taken: u64,
    /// It did not: it was down, or gone.
    not_taken: u64,
}

impl Load {
    /// Sends all of it once, as run 0.
    pub fn once(&self, port: &File) {
        self.burst(0, &mut Sent::default(), port);
    }

    /// Sends each allowed frame once and each forbidden one some times.
    fn burst(&self, run: u32, sent: &mut Sent, port: &File) {
        let forbidden = (0..ROUNDS).flat_map(|_| self.forbidden.iter().enumerate());
        let all = forbidden
            .map(|it| (FORBIDDEN, it))
            .chain(self.allowed.iter().enumerate().map(|it| (ALLOWED, it)));
        for (mark, (index, kind)) in all {
            sent.sequence += 1;
            let number = [
                mark.to_be_bytes().as_slice(),
                &[index as u8],
                &run.to_be_bytes(),
                &sent.sequence.to_be_bytes(),
            ]
            .concat();
            if write(port, &kind.bytes(&number)) { sent.taken += 1 } else { sent.not_taken += 1 }
        }
    }
}

/// Kind, run and sequence number of a frame of the flood.
pub fn number(frame: &[u8]) -> Option<(usize, u32, u32)> {
    let marks = [FORBIDDEN, ALLOWED].map(u32::to_be_bytes);
    let at = PLACES.into_iter().find(|at| {
        frame.get(*at..at + 4).is_some_and(|bytes| marks.iter().any(|mark| bytes == mark))
    })?;
    let word = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
    Some((usize::from(*frame.get(at + 4)?), word(at + 5)?, word(at + 9)?))
}

/// Hands a frame to a tap; whether that took it.
pub fn write(mut port: &File, frame: &[u8]) -> bool {
    port.write(&[&[0; VNET_HEADER], frame].concat()).is_ok()
}

/// Sends until the port takes nothing any more, or it is time to stop; for a process that is the
/// guest.
pub fn flood(load: &Load, run: u32, port: &File, stop: impl Fn() -> bool) {
    let mut sent = Sent::default();
    let mut before = None;
    while before != Some(sent.taken) && !stop() {
        before = Some(sent.taken);
        load.burst(run, &mut sent, port);
        thread::sleep(PAUSE);
    }
}

/// A thread that sends until this is dropped.
pub struct Flood {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    port: Mutex<Arc<File>>,
    load: Mutex<Load>,
    run: AtomicU32,
    stop: AtomicBool,
    sent: Mutex<Sent>,
}

impl Flood {
    /// Starts to send into a tap.
    pub fn start(port: File, load: Load) -> Self {
        let shared = Arc::new(Shared {
            port: Mutex::new(Arc::new(port)),
            load: Mutex::new(load),
            run: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            sent: Mutex::default(),
        });
        let mine = shared.clone();
        let thread = thread::spawn(move || {
            while !mine.stop.load(SeqCst) {
                let port = mine.port.lock().unwrap().clone();
                let load = mine.load.lock().unwrap();
                load.burst(mine.run.load(SeqCst), &mut mine.sent.lock().unwrap(), &port);
                drop(load);
                thread::sleep(PAUSE);
            }
        });
        Flood { shared, thread: Some(thread) }
    }

    /// From now on frames say this run.
    pub fn run(&self, run: u32) {
        self.shared.run.store(run, SeqCst);
    }

    /// Sends something else; nothing of before is on its way any more when this returns.
    pub fn load(&self, load: Load) {
        *self.shared.load.lock().unwrap() = load;
    }

    /// Sends into another tap.
    pub fn port(&self, port: File) {
        *self.shared.port.lock().unwrap() = Arc::new(port);
    }

    /// Sends one frame between the others.
    pub fn send(&self, frame: &[u8]) -> bool {
        let port = self.shared.port.lock().unwrap().clone();
        write(&port, frame)
    }

    /// How many frames the port took, and how many it did not, being down or gone.
    pub fn sent(&self) -> (u64, u64) {
        let sent = self.shared.sent.lock().unwrap();
        (sent.taken, sent.not_taken)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
