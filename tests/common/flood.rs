//! A guest that floods its port with frames its filter refuses, and whoever would receive them.
//!
//! Every frame carries a mark, its kind, the run it belongs to and a sequence number, so that one
//! that comes out is known and can be shown. [`Watch`] has packet sockets at the links where
//! frames come out. The kernel gives the first only frames that must not: as long as there are none
//! its queue is empty, so it cannot lose any, however many others come by. The second has frames
//! that may come out; it shows that they do, and that it may lose some does not matter. What the
//! host takes for itself is heard by a UDP socket of it.

#![allow(unreachable_pub, reason = "each test file uses its own part")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use netlaunch::learn::bpf::Instruction;
use netlaunch::process::{PacketSocket, Received};
use nix::net::if_::if_nametoindex;

use crate::common::frame::{BRIDGE, Frame, Host, PEER};
use crate::common::port_scene::VNET_HEADER;
use crate::common::{Netns, wait_until};

/// The marks of frames that must not come out, and of those that may.
const FORBIDDEN: u32 = 0x6e6c_f0bd;
const ALLOWED: u32 = 0x6e6c_a110;
/// Where the mark is: behind the heads of Ethernet and ARP, or of IPv4 and UDP or ICMP; behind those
/// of IPv6 and UDP.
const PLACES: [usize; 2] = [14 + 28, 14 + 40 + 8];

/// Where the host itself listens.
const HOST_PORT: u16 = 2001;

/// Frames of one sort.
pub struct Kind {
    name: &'static str,
    frame: Frame,
    /// What is done to the finished bytes.
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

/// Somebody else in the subnet of `guest`.
fn stranger(guest: Host) -> Host {
    let mac = [0x52, 0x54, 0, 0x66, 0x66, 0x66];
    Host { mac, v4: Ipv4Addr::from_bits(guest.v4.to_bits() ^ 0x40), ..guest }
}

/// What says another MAC address than the guest's, or is neither IPv4 nor ARP: no address can be
/// learnt from it.
pub fn foreign(guest: Host) -> Vec<Kind> {
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

/// What says an IPv4 address that is not the guest's, with its own MAC address.
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

/// What clean-traffic refuses of a guest that has an address.
pub fn refused(guest: Host) -> Vec<Kind> {
    foreign(guest).into_iter().chain(spoofed(guest)).collect()
}

/// What it lets pass.
pub fn own(guest: Host) -> Vec<Kind> {
    vec![
        Kind::new("UDP", Frame::udp(guest, PEER, 1000, 2000)),
        Kind::new("ARP", Frame::arp(guest, PEER, 1)),
    ]
}

/// With what a guest without an address asks for one; no address can be learnt from it.
pub fn asking(guest: Host) -> [Kind; 2] {
    let nobody = Host { v4: Ipv4Addr::UNSPECIFIED, ..guest };
    let everyone = Host { mac: [0xff; 6], v4: Ipv4Addr::BROADCAST, ..PEER };
    [
        Kind::new("DHCP to servers", Frame::udp(nobody, everyone, 68, 67)),
        Kind::new("an ARP probe", Frame::arp(nobody, guest, 1)),
    ]
}

/// What is sent.
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
            match write(port, &kind.bytes(&number)) {
                true => sent.taken += 1,
                false => sent.not_taken += 1,
            }
        }
    }
}

/// Hands a frame to a tap; whether that took it.
pub fn write(mut port: &File, frame: &[u8]) -> bool {
    port.write(&[&[0; VNET_HEADER], frame].concat()).is_ok()
}

/// Sends until the port takes nothing any more; for a process that is the guest.
pub fn flood(load: &Load, run: u32, port: &File) {
    let mut sent = Sent::default();
    let mut before = None;
    while before != Some(sent.taken) {
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

/// A frame that came out though it must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaked {
    link: String,
    kind: usize,
    run: u32,
    sequence: u32,
    bytes: Vec<u8>,
}

/// Who would receive the flood.
pub struct Watch {
    /// What must not come out, by link.
    forbidden: Vec<(String, PacketSocket)>,
    /// What may come out at the first link.
    allowed: PacketSocket,
    /// The host's own.
    host: UdpSocket,
    /// The forbidden kinds' names, in their order.
    names: RefCell<Vec<&'static str>>,
    seen: Cell<u64>,
    /// The sockets need it.
    _runtime: tokio::runtime::Runtime,
}

impl Watch {
    /// Watches these links of a namespace from now on, and the namespace's own UDP port.
    pub fn start(netns: &Netns, links: &[&str]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let host = netns.inside(|| UdpSocket::bind(("0.0.0.0", HOST_PORT)).unwrap());
        host.set_nonblocking(true).unwrap();
        let (forbidden, allowed) = netns.inside(|| {
            let _context = runtime.enter();
            let open = |link: &str, mark| {
                let index = if_nametoindex(link).unwrap();
                PacketSocket::open(index, &program(mark), QUEUE).unwrap()
            };
            let forbidden =
                links.iter().map(|link| ((*link).to_owned(), open(link, FORBIDDEN))).collect();
            (forbidden, open(links[0], ALLOWED))
        });
        Watch {
            forbidden,
            allowed,
            host,
            names: RefCell::default(),
            seen: Cell::new(0),
            _runtime: runtime,
        }
    }

    /// How many allowed frames were looked at; more may have come out.
    pub fn allowed(&self) -> u64 {
        self.seen.get()
    }

    /// Waits until allowed frames of this run come out that were sent after this was called.
    /// Returns the last one's sequence number.
    pub fn passes(&self, run: u32) -> u32 {
        let mut numbers = Vec::new();
        self.pass();
        let came = || {
            numbers.extend(self.pass().into_iter().filter(|(of, _)| *of == run));
            // The first may have been on its way.
            numbers.len() > 2
        };
        assert!(wait_until(Duration::from_secs(20), came), "run {run}: nothing comes out");
        numbers.last().unwrap().1
    }

    /// The runs and sequence numbers of allowed frames that came out since the last time.
    fn pass(&self) -> Vec<(u32, u32)> {
        let numbers: Vec<_> =
            drain(&self.allowed).iter().filter_map(|bytes| number(bytes)).collect();
        self.seen.set(self.seen.get() + numbers.len() as u64);
        numbers.into_iter().map(|(_, run, sequence)| (run, sequence)).collect()
    }

    /// Shows that it sees every frame that must not come out: each is sent into a port without a
    /// filter. What is sent later has the same kinds, or the first of them.
    pub fn sees(&self, load: &Load, port: &File) {
        *self.names.borrow_mut() = load.forbidden.iter().map(|kind| kind.name).collect();
        let mut leaked = Vec::new();
        let seen = |leaked: &[Leaked], kind| leaked.iter().any(|one: &Leaked| one.kind == kind);
        // A bridge forwards to a new port when it has heard of its carrier.
        let all = || {
            load.burst(0, &mut Sent::default(), port);
            leaked.extend(self.leaked());
            (0..load.forbidden.len()).all(|kind| seen(&leaked, kind))
        };
        wait_until(Duration::from_secs(20), all);
        for (kind, name) in self.names.borrow().iter().enumerate() {
            assert!(seen(&leaked, kind), "{name} is not seen");
        }
        let links: BTreeSet<&str> = leaked.iter().map(|one| one.link.as_str()).collect();
        assert_eq!(links.len(), self.forbidden.len() + 1, "the flood comes out at {links:?}");
    }

    /// What has come out since the last time though it must not: of what was sent before, all.
    /// The kernel has a frame in the queue before the write that sends it returns.
    pub fn leaked(&self) -> Vec<Leaked> {
        let of = |(link, forbidden): &(String, PacketSocket)| {
            let leaked = |bytes: Vec<u8>| {
                let (kind, run, sequence) = number(&bytes)?;
                Some(Leaked { link: link.clone(), kind, run, sequence, bytes })
            };
            drain(forbidden).into_iter().filter_map(leaked).collect::<Vec<_>>()
        };
        let mut leaked: Vec<_> = self.forbidden.iter().flat_map(of).collect();
        let mut buffer = [0; 200];
        while let Ok((length, from)) = self.host.recv_from(&mut buffer) {
            // As behind the heads it had.
            let bytes = [&[0; PLACES[0]], &buffer[..length]].concat();
            if let Some((kind, run, sequence)) = number(&bytes) {
                let link = format!("the host, from {from}");
                leaked.push(Leaked { link, kind, run, sequence, bytes });
            }
        }
        leaked
    }

    /// Fails where something has come out that must not.
    pub fn holds(&self, about: &str) {
        let leaked = self.leaked();
        let show = |Leaked { link, kind, run, sequence, bytes }: &Leaked| {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let name = self.names.borrow()[*kind];
            format!("{link}: {name}, frame {sequence} of run {run}: {hex}")
        };
        let shown: Vec<_> = leaked.iter().take(10).map(show).collect();
        assert!(leaked.is_empty(), "{about}: {} came out\n{}", leaked.len(), shown.join("\n"));
    }
}

/// How many bytes of frames wait to be looked at.
const QUEUE: usize = 1 << 18;

/// What a socket's queue holds; when it is filled all the time, some of it.
fn drain(socket: &PacketSocket) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = [0; 200];
    while frames.len() < 10_000 {
        let Received::Frame { length, .. } = socket.receive(&mut buffer).unwrap() else { break };
        frames.push(buffer[..length].to_vec());
    }
    frames
}

/// Kind, run and sequence number of a frame of the flood.
fn number(frame: &[u8]) -> Option<(usize, u32, u32)> {
    let marks = [FORBIDDEN, ALLOWED].map(u32::to_be_bytes);
    let at = PLACES.into_iter().find(|at| {
        frame.get(*at..at + 4).is_some_and(|bytes| marks.iter().any(|mark| bytes == mark))
    })?;
    let word = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
    Some((usize::from(*frame.get(at + 4)?), word(at + 5)?, word(at + 9)?))
}

/// The kernel's filter that takes frames with this mark at one of its places (filter.txt in the
/// kernel's documentation).
fn program(mark: u32) -> Vec<Instruction> {
    let ret = |k| Instruction { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k };
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    // A load beyond the end drops a frame, so the place further back is the last.
    let mut program: Vec<_> = PLACES
        .iter()
        .flat_map(|at| {
            [
                Instruction { code: load, jt: 0, jf: 0, k: *at as u32 },
                Instruction { code: equal, jt: 0, jf: 1, k: mark },
                ret(u32::MAX),
            ]
        })
        .collect();
    program.push(ret(0));
    program
}
