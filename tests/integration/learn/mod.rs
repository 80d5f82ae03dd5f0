//! How a guest's address is learnt: what frames say, what is believed, what the kernel lets through
//! to the learner, what passes meanwhile; and all of it with the kernel and a real DHCP server.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod any;
mod bpf;
mod capture;
#[path = "../common/mod.rs"]
mod common;
mod learner;
mod lease;
mod packet;
mod rules;

use std::net::Ipv4Addr;

use common::dhcp_frame::{DhcpFrame, SERVER};
use netlaunch::learn::Direction::{self, FromGuest, ToGuest};
use netlaunch::learn::{BootTime, Change, Learner, Lease, Method, Teacher};
use netlaunch::types::Mac;

const A: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 20);
const B: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 21);
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
    let teacher = Teacher::Dhcp { server: SERVER };
    Lease { address, teacher, until: Some(BootTime(NOW.0 + HOUR)) }
}

fn by_traffic(address: Ipv4Addr) -> Lease {
    Lease { address, teacher: Teacher::Traffic, until: None }
}

/// What happens, in order.
fn lesson(learner: &mut Learner, frames: &[(Direction, Vec<u8>)]) -> Vec<Change> {
    frames.iter().filter_map(|(way, frame)| learner.see(*way, frame, NOW)).collect()
}

fn asks(message: u8) -> (Direction, Vec<u8>) {
    (FromGuest, DhcpFrame::asks(message).bytes())
}

fn answers(message: u8, address: Ipv4Addr) -> (Direction, Vec<u8>) {
    (ToGuest, DhcpFrame::answers(message, address).bytes())
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

/// The host's addresses of [`FORBIDDEN`]: with a subnet, with none, and in a link of two.
fn hosts() -> Vec<ipnet::Ipv4Net> {
    ["10.5.0.1/24", "192.0.2.7/32", "198.51.100.4/31", "198.51.100.5/31"]
        .map(|net| net.parse().unwrap())
        .to_vec()
}
