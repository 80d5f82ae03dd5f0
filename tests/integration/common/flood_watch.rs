//! The receivers of the frames with which a guest floods its port ([`super::flood`]).
//!
//! At each link where frames come out there is a packet socket to which the kernel gives only
//! frames that must not come out: as long as there are none its queue is empty, so it cannot lose
//! any, however many others come by. Another one has frames that may come out; it shows that they
//! do, and that it may lose some does not matter. What the host takes for itself is heard by a UDP
//! socket.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::UdpSocket;
use std::time::Duration;

use netlaunch::sys::packet_socket::{PacketSocket, Received};
use nix::net::if_::if_nametoindex;

use super::flood::{ALLOWED, FORBIDDEN, HOST_PORT, Load, PLACES, number};
use super::{AT_MOST, Netns, wait_until};

/// A frame that came out though it must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaked {
    link: String,
    kind: usize,
    run: u32,
    sequence: u32,
    bytes: Vec<u8>,
}

/// The receivers of the flood.
pub struct Watch {
    /// The frames that must not leave, by link.
    forbidden: Vec<(String, PacketSocket)>,
    /// The frames that may leave by the first link.
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
        assert!(wait_until(AT_MOST, came), "run {run}: nothing comes out");
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
            load.once(port);
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

    /// Returns the forbidden frames that have left since the last call. It misses none that was
    /// sent before the call: the kernel queues a frame before the write that sends it returns.
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

/// Returns the frames in a socket's queue; if more frames keep coming, only some of them.
fn drain(socket: &PacketSocket) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = [0; 200];
    while frames.len() < 10_000 {
        let Received::Frame { length, .. } = socket.receive(&mut buffer).unwrap() else { break };
        frames.push(buffer[..length].to_vec());
    }
    frames
}

/// The kernel's filter that takes frames with this mark at one of its places (filter.txt in the
/// kernel's documentation).
fn program(mark: u32) -> Vec<libc::sock_filter> {
    let ret = |k| libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k };
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    // A load beyond the end drops a frame, so the place further back is the last.
    let mut program: Vec<_> = PLACES
        .iter()
        .flat_map(|at| {
            [
                libc::sock_filter { code: load, jt: 0, jf: 0, k: *at as u32 },
                libc::sock_filter { code: equal, jt: 0, jf: 1, k: mark },
                ret(u32::MAX),
            ]
        })
        .collect();
    program.push(ret(0));
    program
}
