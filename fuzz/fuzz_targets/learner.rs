//! Any sequence of what can happen to a learner: frames near those that teach, any others, time,
//! restarts. What must hold is said by `Observed`, which the tests have, too.

#![no_main]
#![allow(dead_code, clippy::unwrap_used, reason = "what the tests share; a finding is a panic")]

#[path = "../../tests/common/bpf_machine.rs"]
mod bpf_machine;
#[path = "../../tests/common/dhcp_frame.rs"]
mod dhcp_frame;
#[path = "../../tests/common/observed.rs"]
mod observed;

use std::net::Ipv4Addr;

use arbitrary::Arbitrary;
use dhcp_frame::{DhcpFrame, EVERYONE, GUEST, OTHER, SERVER, arp, set_checksum, speech};
use ipnet::Ipv4Net;
use libfuzzer_sys::fuzz_target;
use netlaunch::learn::{Direction, Lease, Method, Teacher, BootTime};
use observed::Observed;

fuzz_target!(|lesson: Lesson| lesson.run());

#[derive(Debug, Arbitrary)]
struct Lesson<'a> {
    method: How,
    hosts: Vec<(Address, u8)>,
    events: Vec<Event<'a>>,
}

#[derive(Debug, Arbitrary)]
enum How {
    Any { servers: Vec<Address> },
    Dhcp { servers: Vec<Address> },
}

#[derive(Debug, Arbitrary)]
enum Event<'a> {
    Frame {
        out: bool,
        frame: Frame<'a>,
        damage: Damage,
    },
    Later(u16),
    MuchLater(u32),
    Expire,
    /// Another learner takes over what this one knows.
    Restart,
    /// The host has these addresses when the lease is put in force.
    Check(Vec<(Address, u8)>),
    /// Another learner takes over what was kept, which may be damaged.
    Resume {
        address: Address,
        /// Of this server, or what a packet taught.
        server: Option<Address>,
        lasts: Option<u16>,
    },
}

#[derive(Debug, Arbitrary)]
enum Frame<'a> {
    Dhcp(Dhcp<'a>),
    Arp { from: Hardware, sender: Hardware, address: Address, operation: Operation },
    Ip { from: Hardware, address: Address },
    Bytes(&'a [u8]),
}

#[derive(Debug, Arbitrary)]
struct Dhcp<'a> {
    /// As servers send it, or as the guest does; then the rest is changed.
    answers: bool,
    message: u8,
    transaction: u8,
    address: Address,
    changes: Vec<Change<'a>>,
}

/// A field that is otherwise.
#[derive(Debug, Arbitrary)]
enum Change<'a> {
    To(Hardware),
    From(Hardware),
    Client(Hardware),
    Source(Address),
    Destination(Address),
    Ports(Port, Port),
    Op(u8),
    Transaction(u32),
    Current(Address),
    Given(Address),
    ServerName(&'a [u8]),
    File(&'a [u8]),
    /// More options in front of those that are there.
    Options(Vec<DhcpOption<'a>>),
    /// These are all, without an end.
    Only(Vec<DhcpOption<'a>>),
}

#[derive(Debug, Arbitrary)]
enum DhcpOption<'a> {
    Pad,
    Requested(Address),
    LeaseTime(u32),
    Forever,
    Overload(u8),
    Message(u8),
    Other(u8, &'a [u8]),
    Bytes(&'a [u8]),
    End,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Hardware {
    Guest,
    Other,
    Everyone,
    Any([u8; 6]),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Address {
    Server,
    /// Of the server's subnet.
    Near(u8),
    ThisNetwork([u8; 3]),
    Loopback([u8; 3]),
    LinkLocal([u8; 2]),
    ClassD([u8; 3]),
    ClassE([u8; 3]),
    Broadcast,
    Any([u8; 4]),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Port {
    Client,
    Server,
    Any(u16),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Operation {
    Request,
    Reply,
    Any(u16),
}

/// What is done to a frame that was sound.
#[derive(Debug, Arbitrary)]
struct Damage {
    bytes: Vec<(u16, u8)>,
    /// Four bytes of options in the IPv4 header.
    options: bool,
    /// The header's checksum is right again.
    mended: bool,
    cut: Option<u16>,
}

impl Lesson<'_> {
    fn run(&self) {
        let addresses = |all: &[Address]| all.iter().map(|one| one.value()).collect();
        let method = match &self.method {
            How::Any { servers } => Method::any(addresses(servers)),
            How::Dhcp { servers } => Method::dhcp(addresses(servers)),
        };
        let host =
            |(address, length): &(Address, u8)| Ipv4Net::new_assert(address.value(), length % 33);
        let mut learner = Observed::new(method, self.hosts.iter().map(host).collect());
        let mut now = BootTime(0);
        for event in &self.events {
            match event {
                Event::Frame { out, frame, damage } => {
                    let way = if *out { Direction::FromGuest } else { Direction::ToGuest };
                    learner.see(way, &damage.on(frame.bytes()), now);
                }
                Event::Later(seconds) => now.0 += u64::from(*seconds),
                Event::MuchLater(seconds) => now.0 += u64::from(*seconds),
                Event::Expire => drop(learner.expire(now)),
                Event::Restart => learner.resume(learner.lease(), now),
                Event::Check(hosts) => drop(learner.check(hosts.iter().map(host).collect())),
                Event::Resume { address, server, lasts } => {
                    let by_server = |server: &Address| Teacher::Dhcp { server: server.value() };
                    let teacher = server.as_ref().map_or(Teacher::Traffic, by_server);
                    let until = lasts.map(|seconds| BootTime(now.0 + u64::from(seconds)));
                    let lease = Lease { address: address.value(), teacher, until };
                    learner.resume(Some(lease), now);
                }
            }
        }
    }
}

impl Frame<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Frame::Dhcp(dhcp) => dhcp.bytes(),
            Frame::Arp { from, sender, address, operation } => {
                let operation = match operation {
                    Operation::Request => 1,
                    Operation::Reply => 2,
                    Operation::Any(number) => *number,
                };
                arp(from.value(), sender.value(), address.value(), operation)
            }
            Frame::Ip { from, address } => speech(from.value(), address.value()),
            Frame::Bytes(bytes) => bytes.to_vec(),
        }
    }
}

impl Dhcp<'_> {
    fn bytes(&self) -> Vec<u8> {
        let (message, address) = (self.message % 10, self.address.value());
        let mut frame = if self.answers {
            DhcpFrame::answers(message, address)
        } else {
            let mut frame = DhcpFrame { ciaddr: address, ..DhcpFrame::asks(message) };
            let requested = [&[50, 4][..], &address.octets()].concat();
            frame.options.splice(0..0, requested);
            frame
        };
        // Few, so that an answer often is one to a request.
        frame.transaction = u32::from(self.transaction % 3);
        for change in &self.changes {
            change.make(&mut frame);
        }
        frame.bytes()
    }
}

impl Change<'_> {
    fn make(&self, frame: &mut DhcpFrame) {
        let short = |bytes: &[u8], most: usize| bytes[..bytes.len().min(most)].to_vec();
        match self {
            Change::To(address) => frame.to = address.value(),
            Change::From(address) => frame.from = address.value(),
            Change::Client(address) => frame.chaddr = address.value(),
            Change::Source(address) => frame.source = address.value(),
            Change::Destination(address) => frame.destination = address.value(),
            Change::Ports(source, destination) => {
                frame.ports = (source.value(), destination.value());
            }
            Change::Op(op) => frame.op = *op,
            Change::Transaction(number) => frame.transaction = *number,
            Change::Current(address) => frame.ciaddr = address.value(),
            Change::Given(address) => frame.yiaddr = address.value(),
            Change::ServerName(bytes) => frame.sname = short(bytes, 64),
            Change::File(bytes) => frame.file = short(bytes, 128),
            Change::Options(options) => {
                frame.options.splice(0..0, options.iter().flat_map(DhcpOption::bytes));
            }
            Change::Only(options) => {
                frame.options = options.iter().flat_map(DhcpOption::bytes).collect();
            }
        }
        // What a frame can hold.
        frame.options.truncate(1 << 15);
    }
}

impl DhcpOption<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            DhcpOption::Pad => vec![0],
            DhcpOption::Requested(address) => [&[50, 4], &address.value().octets()[..]].concat(),
            DhcpOption::LeaseTime(seconds) => [&[51, 4], &seconds.to_be_bytes()[..]].concat(),
            DhcpOption::Forever => vec![51, 4, 255, 255, 255, 255],
            DhcpOption::Overload(fields) => vec![52, 1, fields % 5],
            DhcpOption::Message(message) => vec![53, 1, message % 10],
            DhcpOption::Other(code, value) => {
                let value = &value[..value.len().min(255)];
                [&[*code, value.len() as u8], value].concat()
            }
            DhcpOption::Bytes(bytes) => bytes.to_vec(),
            DhcpOption::End => vec![255],
        }
    }
}

impl Hardware {
    fn value(self) -> [u8; 6] {
        match self {
            Hardware::Guest => GUEST,
            Hardware::Other => OTHER,
            Hardware::Everyone => EVERYONE,
            Hardware::Any(octets) => octets,
        }
    }
}

impl Address {
    fn value(self) -> Ipv4Addr {
        let block = |first: u8, [b, c, d]: [u8; 3]| Ipv4Addr::new(first, b, c, d);
        match self {
            Address::Server => SERVER,
            Address::Near(last) => Ipv4Addr::new(10, 5, 0, last),
            Address::ThisNetwork(rest) => block(0, rest),
            Address::Loopback(rest) => block(127, rest),
            Address::LinkLocal([c, d]) => Ipv4Addr::new(169, 254, c, d),
            Address::ClassD([b, c, d]) => Ipv4Addr::new(224 | b & 15, b, c, d),
            Address::ClassE([b, c, d]) => Ipv4Addr::new(240 | b & 15, b, c, d),
            Address::Broadcast => Ipv4Addr::BROADCAST,
            Address::Any(octets) => octets.into(),
        }
    }
}

impl Port {
    fn value(self) -> u16 {
        match self {
            Port::Client => 68,
            Port::Server => 67,
            Port::Any(number) => number,
        }
    }
}

impl Damage {
    fn on(&self, mut frame: Vec<u8>) -> Vec<u8> {
        if self.options && frame.len() >= 34 {
            frame.splice(34..34, [1, 1, 1, 0]);
            frame[14] = 0x46;
            let length = (frame.len() - 14) as u16;
            frame[16..18].copy_from_slice(&length.to_be_bytes());
        }
        for (at, byte) in &self.bytes {
            if let Some(at) = usize::from(*at).checked_rem(frame.len()) {
                frame[at] = *byte;
            }
        }
        let header = frame.get(14).map_or(0, |byte| usize::from(byte & 15) * 4);
        if self.mended && header >= 20 && frame.len() >= 14 + header {
            set_checksum(&mut frame[14..14 + header]);
        }
        if let Some(cut) = self.cut {
            frame.truncate(usize::from(cut));
        }
        frame
    }
}
