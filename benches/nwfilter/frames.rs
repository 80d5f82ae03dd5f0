//! Measures frames through a port: as the only bound port, among a thousand, and without a filter.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use super::common::finish;
use super::goal::{Goal, median, row};
use super::host::{Host, guest};
use super::milliseconds;
use netlaunch::sys::tap::{TUN, Tap, TapName};

/// The number of bound ports, of pairs of rounds, and of frames in a round.
const PORTS: usize = 1000;
const ROUNDS: usize = 31;
const FRAMES: usize = 20_000;

/// A bridge with two taps. The first one can have a filter.
struct Line {
    host: Host,
    guest: fs::File,
    peer: fs::File,
}

impl Line {
    fn new(filter: Option<&str>) -> Self {
        let host = Host::new(PORTS);
        host.netns.ip("link add br0 type bridge stp_state 0 mcast_snooping 0 forward_delay 0");
        host.netns.ip("link set br0 up");
        let tap = |name: &str| -> fs::File {
            let name = TapName::Exact(name.parse().unwrap());
            let tap = host.netns.inside(|| Tap::open(Path::new(TUN), &name).unwrap());
            host.netns.ip(&format!("link set {} master br0 up", tap.name()));
            tap.into_fd().into()
        };
        let (guest, peer) = (tap("vnet0"), tap("peer0"));
        if let Some(filter) = filter {
            let document = host.binding("vnet0", filter);
            let args = ["nwfilter", "binding-create", document.to_str().unwrap()];
            host.time(host.sandbox.netlaunch(&args));
        }
        let line = Line { host, guest, peer };
        // The bridge learns the port of the peer.
        let hello = frame([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc], [0xff; 6], [10, 2, 3, 9]);
        (&line.peer).write_all(&hello).unwrap();
        line
    }

    /// Measures the frames per second from the guest to the peer.
    fn rate(&self) -> f64 {
        let (mac, ip) = guest("vnet0");
        let frame = frame(mac, [0x52, 0x54, 0, 0xaa, 0xbb, 0xcc], ip.octets());
        let mut buffer = [0; 2048];
        // Discards earlier frames.
        while (&self.peer).read(&mut buffer).is_ok() {}
        let begun = Instant::now();
        let mut received = 0;
        for _ in 0..FRAMES {
            (&self.guest).write_all(&frame).unwrap();
            // The frame is in the peer's queue when the write returns.
            while (&self.peer).read(&mut buffer).is_ok() {
                received += 1;
            }
        }
        let took = begun.elapsed();
        assert!(received >= FRAMES, "{received} of {FRAMES} frames came through");
        FRAMES as f64 / took.as_secs_f64()
    }
}

/// Returns a UDP datagram in a frame of 64 bytes behind an empty virtio header, as a tap takes it.
pub fn frame(source: [u8; 6], destination: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend(address);
    ip.extend([10, 2, 3, 9]);
    let mut sum: u32 = ip.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    ip[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let udp = [&[0, 7, 0, 9, 0, 30, 0, 0], [0; 22].as_slice()].concat();
    [[0; 10].as_slice(), &destination, &source, &[8, 0], &ip, &udp].concat()
}

/// Compares the rate through a port as the only bound port and among a thousand.
pub fn frames() {
    let filter = Some("clean-traffic");
    let (one, many, none) = (Line::new(filter), Line::new(filter), Line::new(None));
    let mut took = many.host.bind_all(0..PORTS - 1, "clean-traffic");
    let list = many
        .host
        .netns
        .inside(|| finish(many.host.sandbox.netlaunch(&["nwfilter", "binding-list", "--json"])));
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let bound = list["bindings"].as_array().unwrap().len();
    let last = took.split_off(took.len() - 50);
    let mut first = took[..50].to_vec();
    println!(
        "binds within one process: {:.1} ms for the first, {:.1} ms with {bound} ports bound (medians of 50)",
        milliseconds(&mut first),
        milliseconds(&mut last.clone()),
    );
    let (mut alone, mut among, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut of_none = Vec::new();
    for round in 0..=ROUNDS {
        // Each host goes first in half of the rounds.
        let (a, b) = if round % 2 == 0 {
            let a = one.rate();
            (a, many.rate())
        } else {
            let b = many.rate();
            (one.rate(), b)
        };
        if round > 0 {
            alone.push(a);
            among.push(b);
            ratios.push(b / a);
            of_none.push(b / none.rate());
        }
    }
    println!(
        "frames through a port with clean-traffic: {:.0}/s with 1 port bound, {:.0}/s with {bound}, ratio {:.3} (medians of {ROUNDS} rounds of {FRAMES})",
        median(&mut alone),
        median(&mut among),
        median(&mut ratios),
    );
    let work = format!("rate of frames under clean-traffic, {bound} ports bound");
    row(&work, "no filter", median(&mut of_none), "×", Goal::AtLeast(0.9));
}
