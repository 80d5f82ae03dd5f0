//! Runs a learner through any sequence of events: frames near those that it accepts, other frames,
//! time, restarts. `Observed`, which the tests use, too, checks the results.

#![no_main]
#![allow(dead_code, clippy::unwrap_used, reason = "what the tests share; a finding is a panic")]

#[path = "../../tests/integration/common/bpf_machine.rs"]
mod bpf_machine;
#[path = "../../tests/integration/common/dhcp_frame.rs"]
mod dhcp_frame;
#[path = "../../tests/integration/common/observed.rs"]
mod observed;

use std::net::Ipv4Addr;

use arbitrary::Arbitrary;
use dhcp_frame::{DhcpFrame, EVERYONE, GUEST, OTHER, SERVER, arp, set_checksum, speech};
use ipnet::Ipv4Net;
use libfuzzer_sys::fuzz_target;
use netlaunch::nwfilter::learn::{Sender, Lease, Method, LeaseSource, BootTime};
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
    /// Another learner continues with the state of this one.
    Restart,
    /// The learner checks its lease, and the host has these addresses by then.
    Check(Vec<(Address, u8)>),
    /// Another learner continues with a saved lease, which may be wrong.
    Resume {
        address: Address,
        /// The server that gave the address, or `None` for a lease from traffic.
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
    /// The message begins as a server's answer, or as one of the guest.
    answers: bool,
    message: u8,
    transaction: u8,
    address: Address,
    changes: Vec<AddressChange<'a>>,
}

/// A change of one field.
#[derive(Debug, Arbitrary)]
enum AddressChange<'a> {
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
    /// Adds options in front of the others.
    Options(Vec<DhcpOption<'a>>),
    /// Replaces all options, without an end option.
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
    /// An address in the server's subnet.
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

/// Damage to a valid frame.
#[derive(Debug, Arbitrary)]
struct Damage {
    bytes: Vec<(u16, u8)>,
    /// Adds four bytes of options to the IPv4 header.
    options: bool,
    /// Sets the checksum of the header again.
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
                    let way = if *out { Sender::Guest } else { Sender::Network };
                    learner.process_frame(way, &damage.on(frame.bytes()), now);
                }
                Event::Later(seconds) => now.0 += u64::from(*seconds),
                Event::MuchLater(seconds) => now.0 += u64::from(*seconds),
                Event::Expire => drop(learner.expire(now)),
                Event::Restart => learner.resume(learner.lease(), now),
                Event::Check(hosts) => drop(learner.check(hosts.iter().map(host).collect())),
                Event::Resume { address, server, lasts } => {
                    let by_server = |server: &Address| LeaseSource::Dhcp { server: server.value() };
                    let source = server.as_ref().map_or(LeaseSource::Traffic, by_server);
                    let until = lasts.map(|seconds| BootTime(now.0 + u64::from(seconds)));
                    let lease = Lease { address: address.value(), source, until };
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
        // A small range, so that an answer often matches a request.
        frame.transaction = u32::from(self.transaction % 3);
        for change in &self.changes {
            change.make(&mut frame);
        }
        frame.bytes()
    }
}

impl AddressChange<'_> {
    fn make(&self, frame: &mut DhcpFrame) {
        let short = |bytes: &[u8], most: usize| bytes[..bytes.len().min(most)].to_vec();
        match self {
            AddressChange::To(address) => frame.to = address.value(),
            AddressChange::From(address) => frame.from = address.value(),
            AddressChange::Client(address) => frame.chaddr = address.value(),
            AddressChange::Source(address) => frame.source = address.value(),
            AddressChange::Destination(address) => frame.destination = address.value(),
            AddressChange::Ports(source, destination) => {
                frame.ports = (source.value(), destination.value());
            }
            AddressChange::Op(op) => frame.op = *op,
            AddressChange::Transaction(number) => frame.transaction = *number,
            AddressChange::Current(address) => frame.ciaddr = address.value(),
            AddressChange::Given(address) => frame.yiaddr = address.value(),
            AddressChange::ServerName(bytes) => frame.sname = short(bytes, 64),
            AddressChange::File(bytes) => frame.file = short(bytes, 128),
            AddressChange::Options(options) => {
                frame.options.splice(0..0, options.iter().flat_map(DhcpOption::bytes));
            }
            AddressChange::Only(options) => {
                frame.options = options.iter().flat_map(DhcpOption::bytes).collect();
            }
        }
        // Limits the options to the size of a frame.
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
