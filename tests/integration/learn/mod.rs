//! Tests how the learner gets a guest's address: reading frames, accepting or rejecting them,
//! filtering in the kernel, and the learning rules; and all of them together with the kernel and a
//! real DHCP server.

mod any;
mod bpf;
mod capture;
mod learner;
mod lease;
mod offload;
mod packet;
mod packet6;
mod rules;
mod rules6;
mod table6;
mod table6_forwarded;
mod table6_random;

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::common::dhcp_frame::{DhcpFrame, SERVER};
use netlaunch::nwfilter::learn::Sender::{self, Guest, Network};
use netlaunch::nwfilter::learn::{AddressChange, BootTime, Learner, Lease, LeaseSource, Method};
use netlaunch::types::Mac;

const A: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 20);
const B: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 21);
/// Addresses of the guest, and the router of the link.
const ONE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x20);
const TWO: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x21);
const GUEST_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe11, 0x2233);
const ROUTER_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const HOST: Ipv4Addr = SERVER;
const NOW: BootTime = BootTime(1_000_000);
const HOUR: u64 = 3600;

fn guest() -> Mac {
    "52:54:00:11:22:33".parse().unwrap()
}

fn dhcp_only() -> Method {
    Method::dhcp(Vec::new())
}

fn from_anything() -> Method {
    Method::any(Vec::new())
}

fn learner(method: Method) -> Learner {
    Learner::new(method, guest(), vec!["10.5.0.1/24".parse().unwrap()])
}

fn by_dhcp(address: Ipv4Addr) -> Lease {
    let source = LeaseSource::Dhcp { server: SERVER };
    Lease { address, source, until: Some(BootTime(NOW.0 + HOUR)) }
}

fn by_traffic(address: Ipv4Addr) -> Lease {
    Lease { address, source: LeaseSource::Traffic, until: None }
}

/// Gives the frames to the learner in order, and returns the changes.
fn feed(learner: &mut Learner, frames: &[(Sender, Vec<u8>)]) -> Vec<AddressChange> {
    frames.iter().filter_map(|(way, frame)| learner.process_frame(*way, frame, NOW)).collect()
}

fn asks(message: u8) -> (Sender, Vec<u8>) {
    (Guest, DhcpFrame::asks(message).bytes())
}

fn answers(message: u8, address: Ipv4Addr) -> (Sender, Vec<u8>) {
    (Network, DhcpFrame::answers(message, address).bytes())
}

const FORBIDDEN: [&str; 17] = [
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.0.1",
    "169.254.255.255",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "254.1.2.3",
    "255.255.255.255",
    "10.5.0.1",
    "10.5.0.0",
    "10.5.0.255",
    "192.0.2.7",
    "198.51.100.4",
    "198.51.100.5",
];

/// Returns the host's addresses behind [`FORBIDDEN`]: one with a subnet, one without, and two on a
/// point-to-point link.
fn hosts() -> Vec<ipnet::Ipv4Net> {
    ["10.5.0.1/24", "192.0.2.7/32", "198.51.100.4/31", "198.51.100.5/31"]
        .map(|net| net.parse().unwrap())
        .to_vec()
}
