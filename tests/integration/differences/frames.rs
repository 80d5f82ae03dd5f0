//! Makes frames near the values of a filter's rules, and then damages some of them.
//!
//! A frame starts in the layout of one rule's kind, without tags, options or extension headers, so
//! that each field has one place. The rule's tests then set most fields to a value that holds or to
//! the value next to it. After that come the changes of [`super::damage`].

use std::net::IpAddr;

use ipnet::IpNet;
use netlaunch::firewall::rules::port::{
    Address, Addresses, FrameKind, Hardware, Number, Path, PortRule, PortRules, Test,
};
use netlaunch::firewall::rules::{AddressRange, Version};
use netlaunch::nwfilter::explain::EvalPath;

use super::damage::{damage, with_checksum};
use super::random::Random;

pub const GUEST: [u8; 6] = [0x52, 0x54, 0, 0x11, 0x22, 0x33];
pub const PEER: [u8; 6] = [0x52, 0x54, 0, 0xaa, 0xbb, 0xcc];
const BRIDGE_GROUP: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];

/// A frame and its direction.
pub type Sent = (EvalPath, Vec<u8>);

/// Makes so many frames near the rules.
pub fn near(random: &mut Random, rules: &PortRules, count: usize) -> Vec<Sent> {
    let ways = [(EvalPath::Out, &rules.from_guest), (EvalPath::In, &rules.to_guest)];
    let used: Vec<_> = ways.into_iter().filter(|(_, path)| path.rules().next().is_some()).collect();
    let frame = |random: &mut Random| {
        let Some((way, path)) = (!used.is_empty()).then(|| random.pick(&used)) else {
            return (EvalPath::Out, base(random, EvalPath::Out, FrameKind::Any, &[]));
        };
        (way, frame(random, way, path))
    };
    (0..count).map(|_| frame(random)).collect()
}

fn frame(random: &mut Random, way: EvalPath, path: &Path) -> Vec<u8> {
    let rules: Vec<&PortRule> = path.rules().collect();
    let mut bytes = undamaged(random, way, &rules);
    for _ in 0..random.pick(&[0, 0, 0, 1, 1, 2]) {
        damage(random, &mut bytes);
    }
    bytes
}

/// Makes a frame near one of the rules, of which there is at least one.
pub fn undamaged(random: &mut Random, way: EvalPath, rules: &[&PortRule]) -> Vec<u8> {
    let rule = random.pick(rules);
    let mut bytes = base(random, way, rule.kind, &rule.tests);
    for test in &rule.tests {
        if random.chance(96) {
            set(random, &mut bytes, rule.kind, test);
        }
    }
    // A second rule's values in the same frame show how the two rules interact.
    let other = random.pick(rules);
    if random.chance(30) && layout(other.kind, &bytes) {
        for test in &other.tests {
            set(random, &mut bytes, other.kind, test);
        }
    }
    with_checksum(&mut bytes);
    bytes
}

/// Returns whether a frame has the layout in which a rule's tests set their fields.
fn layout(kind: FrameKind, bytes: &[u8]) -> bool {
    kind == FrameKind::Any
        || kind.ether_type().is_some_and(|t| bytes.get(12..14) == Some(&t.to_be_bytes()))
}

/// Makes a frame of a kind. The tests choose its protocols, because these choose the layout.
fn base(random: &mut Random, way: EvalPath, kind: FrameKind, tests: &[Test]) -> Vec<u8> {
    let (source, destination) = if way == EvalPath::Out { (GUEST, PEER) } else { (PEER, GUEST) };
    let number = |wanted: Number| {
        tests.iter().find_map(|test| match test {
            Test::Number { field, first, negated: false, .. } if *field == wanted => Some(*first),
            _ => None,
        })
    };
    const TYPES: [u16; 11] =
        [0x0800, 0x0800, 0x86dd, 0x86dd, 0x0806, 0x8035, 0x8100, 0x88b5, 0x88cc, 0x0026, 0x88a8];
    let of_test = number(Number::EtherType).map(|value| value as u16);
    let ether_type = kind.ether_type().or(of_test).unwrap_or_else(|| random.pick(&TYPES));
    let of_kind = match kind {
        FrameKind::Ip(_, protocol) => protocol,
        _ => None,
    };
    let protocol = of_kind.or(number(Number::Protocol).map(|value| value as u8));
    let protocol =
        protocol.unwrap_or_else(|| random.pick(&[1, 2, 6, 17, 17, 33, 50, 51, 58, 132, 136, 47]));
    if kind == FrameKind::Stp {
        return bpdu(random, source);
    }
    let mut frame = [destination, source].concat();
    frame.extend(ether_type.to_be_bytes());
    match ether_type {
        0x0800 => frame.extend(packet_v4(random, protocol, way)),
        0x86dd => frame.extend(packet_v6(random, protocol, way)),
        0x0806 | 0x8035 => frame.extend(arp(random, source)),
        0x8100 | 0x88a8 => {
            let inner = number(Number::VlanEncapsulated).map(|value| value as u16);
            let inner = inner.unwrap_or_else(|| random.pick(&[0x0800, 0x86dd, 0x0806, 0x88b5]));
            frame.extend([0, 5]);
            frame.extend(inner.to_be_bytes());
            match inner {
                0x0800 => frame.extend(packet_v4(random, protocol, way)),
                0x86dd => frame.extend(packet_v6(random, protocol, way)),
                0x0806 | 0x8035 => frame.extend(arp(random, source)),
                _ => frame.extend([0; 46]),
            }
        }
        0x0026 => frame.extend([&[0x42, 0x42, 3], [0; 43].as_slice()].concat()),
        _ => frame.extend([0; 46]),
    }
    frame
}

fn bpdu(random: &mut Random, source: [u8; 6]) -> Vec<u8> {
    let mut frame = [BRIDGE_GROUP, source].concat();
    frame.extend([0, 38, 0x42, 0x42, 3, 0, 0]);
    frame.extend([0, random.pick(&[0, 0x80, 2]), random.byte() & 3]);
    frame.resize(60, 0);
    frame
}

fn arp(random: &mut Random, source: [u8; 6]) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1 + random.byte() % 2];
    bytes.extend(source);
    bytes.extend([10, 2, 3, 4]);
    bytes.extend([0; 6]);
    bytes.extend([10, 2, 3, random.pick(&[1, 4])]);
    bytes.resize(46, 0);
    bytes
}

fn transport(random: &mut Random, protocol: u8) -> Vec<u8> {
    let ports = [0x4e, 0x20, 0x1f, 0x40];
    let head: Vec<u8> = match protocol {
        6 => [&ports, [0, 0, 3, 0xe8, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0].as_slice()]
            .concat(),
        17 => [ports, [0, 24, 0, 0]].concat(),
        136 => [ports, [0, 0, 0xff, 0xff]].concat(),
        132 => [&ports, [0; 8].as_slice(), &[1, 0, 0, 20], &[0; 16]].concat(),
        // A Request of DCCP: the data offset in words of four bytes, and the bit X, since its
        // sequence number has 48 bits (RFC 4340, 5.1).
        33 => [ports, [5, 0, 0, 0], [1, 0, 0, 0]].concat(),
        1 => vec![8, 0, 0, 0, 0, 1, 0, 1],
        58 => vec![random.pick(&[128, 135, 136, 133, 1]), 0, 0, 0, 0, 1, 0, 1],
        // AH (RFC 4302): the next header, and the length in words of four bytes, less 2.
        51 => [&[17, 4], [0; 22].as_slice(), &ports, &[0, 8, 0, 0]].concat(),
        _ => vec![0; 8],
    };
    [head, vec![0; 16]].concat()
}

fn packet_v4(random: &mut Random, protocol: u8, way: EvalPath) -> Vec<u8> {
    let payload = transport(random, protocol);
    let mut head = vec![0x45, random.pick(&[0, 1, 0xb8])];
    head.extend((20 + payload.len() as u16).to_be_bytes());
    head.extend([0, 7, 0, 0, 64, protocol, 0, 0]);
    let (one, other) = ([10, 2, 3, 4], [10, 2, 16, 9]);
    let ends = if way == EvalPath::Out { [one, other] } else { [other, one] };
    [head, ends.concat(), payload].concat()
}

fn packet_v6(random: &mut Random, protocol: u8, way: EvalPath) -> Vec<u8> {
    let payload = transport(random, protocol);
    let mut head = vec![0x60, random.pick(&[0, 0x10]), 0, 0];
    head.extend((payload.len() as u16).to_be_bytes());
    head.extend([protocol, random.pick(&[64, 255])]);
    let address = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let (one, other) = (address("2001:db8::4"), address("2001:db8:9::9"));
    let ends = if way == EvalPath::Out { [one, other] } else { [other, one] };
    [head, ends.concat(), payload].concat()
}

/// Sets a field of a frame in the layout of its kind to a value near that of a test.
fn set(random: &mut Random, bytes: &mut [u8], kind: FrameKind, test: &Test) {
    match test {
        Test::Hardware { field, address, mask, .. } => {
            let mut value = *address;
            for (byte, mask) in value.iter_mut().zip(mask) {
                // The bits that the mask leaves out are free.
                *byte = *byte & mask | random.byte() & !mask & random.pick(&[0, 0xff]);
            }
            if random.chance(12) {
                value[random.below(6)] ^= 1 << random.below(8);
            }
            let at = match field {
                Hardware::Destination => 0,
                Hardware::Source => 6,
                Hardware::ArpSender => 22,
                Hardware::ArpTarget => 32,
                Hardware::StpRoot => 24,
                Hardware::StpSender => 36,
                Hardware::DhcpClient => return,
            };
            put(bytes, at, &value);
        }
        Test::Number { field, first, last, .. } => {
            let value = near_number(random, *first, *last);
            number(bytes, kind, *field, value);
        }
        Test::Address { field, addresses, .. } => {
            let value = near_address(random, addresses);
            let v6 = matches!(kind, FrameKind::Ip(Version::V6, _));
            let at = match field {
                Address::Source if v6 => 22,
                Address::Destination if v6 => 38,
                Address::Source => 26,
                Address::Destination => 30,
                Address::ArpSender => 28,
                Address::ArpTarget => 38,
            };
            match value {
                IpAddr::V4(value) => put(bytes, at, &value.octets()),
                IpAddr::V6(value) => put(bytes, at, &value.octets()),
            }
        }
        Test::Gratuitous => {
            if let Some(sender) = bytes.get(28..32).map(<[u8]>::to_vec) {
                put(bytes, 38, &sender);
                if random.chance(20) {
                    bytes[38 + random.below(4)] ^= 1 << random.below(8);
                }
            }
        }
        Test::Icmp { types, codes, .. } => {
            let at = transport_at(kind);
            let value = near_number(random, types.0.into(), types.1.into()) as u8;
            let code = codes.map(|c| near_number(random, c.0.into(), c.1.into()) as u8);
            put(bytes, at, &[value, code.unwrap_or(0)]);
        }
        Test::TcpFlags { mask, flags, .. } => {
            let free = random.byte() & !mask & random.pick(&[0, 0x3f, 0xff]);
            let wrong = if random.chance(25) { 1 << random.below(8) } else { 0 };
            put(bytes, transport_at(kind) + 13, &[(flags | free) ^ wrong]);
        }
        Test::Neighbor(_) | Test::Set { .. } | Test::Connections { .. } | Test::State { .. } => {}
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn transport_at(kind: FrameKind) -> usize {
    if matches!(kind, FrameKind::Ip(Version::V6, _)) { 54 } else { 34 }
}

fn near_number(random: &mut Random, first: u32, last: u32) -> u32 {
    match random.below(12) {
        0 => first.wrapping_sub(1),
        1 => last.wrapping_add(1),
        2 => first.swap_bytes() >> 16,
        3..=6 => last,
        7 => first + ((random.number() % (u64::from(last - first) + 1)) as u32),
        _ => first,
    }
}

fn near_address(random: &mut Random, addresses: &Addresses) -> IpAddr {
    let (first, last): (IpAddr, IpAddr) = match addresses {
        Addresses::Net(IpNet::V4(net)) => (net.network().into(), net.broadcast().into()),
        Addresses::Net(IpNet::V6(net)) => (net.network().into(), net.broadcast().into()),
        Addresses::Range(AddressRange::V4(first, last)) => ((*first).into(), (*last).into()),
        Addresses::Range(AddressRange::V6(first, last)) => ((*first).into(), (*last).into()),
    };
    let (address, by) = match random.below(8) {
        0 => (first, -1i8),
        1 => (last, 1),
        2..=4 => (last, 0),
        _ => (first, 0),
    };
    match address {
        IpAddr::V4(value) => u32::from(value).wrapping_add_signed(by.into()).to_be_bytes().into(),
        IpAddr::V6(value) => u128::from(value).wrapping_add_signed(by.into()).to_be_bytes().into(),
    }
}

fn number(bytes: &mut [u8], kind: FrameKind, field: Number, value: u32) {
    let v6 = matches!(kind, FrameKind::Ip(Version::V6, _));
    let short = (value as u16).to_be_bytes();
    let byte = [value as u8];
    match field {
        Number::EtherType => put(bytes, 12, &short),
        Number::VlanId => {
            let tag = value as u16 & 0xfff | u16::from(bytes[14] & 0xf0) << 8;
            put(bytes, 14, &tag.to_be_bytes());
        }
        Number::VlanEncapsulated => put(bytes, 16, &short),
        Number::StpType => put(bytes, 20, &byte),
        Number::StpFlags => put(bytes, 21, &byte),
        Number::StpRootPriority => put(bytes, 22, &short),
        Number::StpRootCost => put(bytes, 30, &value.to_be_bytes()),
        Number::StpSenderPriority => put(bytes, 34, &short),
        Number::StpPort => put(bytes, 42, &short),
        Number::StpAge => put(bytes, 44, &short),
        Number::StpMaxAge => put(bytes, 46, &short),
        Number::StpHelloTime => put(bytes, 48, &short),
        Number::StpForwardDelay => put(bytes, 50, &short),
        Number::ArpHardware => put(bytes, 14, &short),
        Number::ArpProtocol => put(bytes, 16, &short),
        Number::ArpOperation => put(bytes, 20, &short),
        Number::Protocol if v6 => put(bytes, 20, &byte),
        Number::Protocol => put(bytes, 23, &byte),
        Number::Dscp if v6 => {
            let word = (value as u16 & 0x3f) << 6 | u16::from(bytes[15] & 0x3f) | 0x6000;
            put(bytes, 14, &word.to_be_bytes());
        }
        Number::Dscp => put(bytes, 15, &[(value as u8) << 2 | bytes[15] & 3]),
        Number::SourcePort => put(bytes, transport_at(kind), &short),
        Number::DestinationPort => put(bytes, transport_at(kind) + 2, &short),
    }
}
