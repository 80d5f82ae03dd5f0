//! Generates frames close to the conditions of rules: for each rule, a frame that it matches, and
//! variants with each field at the edge of the rule's value and next to it.

mod bytes;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlaunch::firewall::rules::port::{
    Address, Addresses, FrameKind, Hardware, Number, PortRule, PortRules, Test,
};
use netlaunch::firewall::rules::{AddressRange, Version};
use netlaunch::nwfilter::explain::EvalPath;

use super::wire::MARK;

pub const GUEST: [u8; 6] = [0x52, 0x54, 0, 0x11, 0x22, 0x33];
const PEER: [u8; 6] = [0x52, 0x54, 0, 0xaa, 0xbb, 0xcc];
const STP: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];

/// The part of an IP packet that is in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Whole,
    First,
    Later,
}

/// The fields of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    pub source: [u8; 6],
    pub destination: [u8; 6],
    pub vlan: Option<u16>,
    /// The EtherType, after the VLAN tag if there is one.
    pub ether_type: u16,
    pub arp: Arp,
    pub v4: [Ipv4Addr; 2],
    pub v6: [Ipv6Addr; 2],
    pub protocol: u8,
    pub dscp: u8,
    pub part: Part,
    pub options: bool,
    pub ports: [u16; 2],
    pub flags: u8,
    pub icmp: (u8, u8),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arp {
    pub hardware: u16,
    pub protocol: u16,
    pub operation: u16,
    pub macs: [[u8; 6]; 2],
    pub addresses: [Ipv4Addr; 2],
}

impl Spec {
    pub fn new(way: EvalPath) -> Self {
        let mut spec = Spec {
            source: GUEST,
            destination: PEER,
            vlan: None,
            ether_type: 0x88b5,
            arp: Arp {
                hardware: 1,
                protocol: 0x0800,
                operation: 1,
                macs: [GUEST, [0; 6]],
                addresses: [Ipv4Addr::new(10, 2, 3, 4), Ipv4Addr::new(10, 2, 3, 1)],
            },
            v4: [Ipv4Addr::new(10, 2, 3, 4), Ipv4Addr::new(10, 2, 16, 9)],
            v6: ["2001:db8::4".parse().unwrap(), "2001:db8:9::9".parse().unwrap()],
            protocol: 17,
            dscp: 0,
            part: Part::Whole,
            options: false,
            ports: [20_000, 8_000],
            flags: 0x02,
            icmp: (8, 0),
        };
        if way == EvalPath::In {
            spec = spec.answer();
        }
        spec
    }

    /// Returns the frame that answers this one.
    pub fn answer(&self) -> Self {
        let mut spec = self.clone();
        std::mem::swap(&mut spec.source, &mut spec.destination);
        spec.v4.swap(0, 1);
        spec.v6.swap(0, 1);
        spec.ports.swap(0, 1);
        spec.arp.addresses.swap(0, 1);
        spec.arp.macs = [spec.source, self.arp.macs[0]];
        spec.flags = if self.flags == 0x02 { 0x12 } else { self.flags };
        spec.icmp.0 = match (self.protocol, self.icmp.0) {
            (1, 8) => 0,
            (58, 128) => 129,
            (_, other) => other,
        };
        spec
    }

    fn of_kind(mut self, kind: FrameKind) -> Self {
        match kind {
            FrameKind::Any => {}
            FrameKind::Vlan => self.vlan = Some(5),
            FrameKind::Stp => self.destination = STP,
            FrameKind::Arp | FrameKind::Rarp | FrameKind::Ip(..) => {
                self.ether_type = kind.ether_type().unwrap();
                if let FrameKind::Ip(_, Some(protocol)) = kind {
                    self.protocol = protocol;
                    self.icmp.0 = if protocol == 58 { 128 } else { 8 };
                }
            }
        }
        self
    }

    /// Returns frames whose field is close to the value of a test, and for each whether the test
    /// matches.
    fn near(&self, test: &Test) -> Vec<(Spec, bool)> {
        let mut found = Vec::new();
        let mut add = |negated: bool, inside: bool, change: &dyn Fn(&mut Spec)| {
            let mut spec = self.clone();
            change(&mut spec);
            found.push((spec, inside != negated));
        };
        match test {
            Test::Hardware { field, address, mask, negated } => {
                let set = |spec: &mut Spec, value: [u8; 6]| match field {
                    Hardware::Source => spec.source = value,
                    Hardware::Destination => spec.destination = value,
                    Hardware::ArpSender => spec.arp.macs[0] = value,
                    Hardware::ArpTarget => spec.arp.macs[1] = value,
                    Hardware::StpRoot | Hardware::StpSender | Hardware::DhcpClient => {}
                };
                let base: [u8; 6] = std::array::from_fn(|i| address[i] & mask[i]);
                let free: [u8; 6] = std::array::from_fn(|i| base[i] | (!mask[i] & 0x24));
                add(*negated, true, &|spec| set(spec, *address));
                add(*negated, true, &|spec| set(spec, free));
                for byte in [0, 3, 5] {
                    let bit = if mask[byte] & 2 != 0 { 2 } else { mask[byte] & 0xf0 };
                    let mut other = *address;
                    other[byte] ^= bit;
                    add(*negated, bit == 0, &|spec| set(spec, other));
                }
            }
            Test::Number { field, first, last, negated } => {
                let below = first.checked_sub(1).map(|value| (value, false));
                let above = Some((last + 1, false)).filter(|(value, _)| *value <= most(*field));
                let edges = [(*first, true), (*last, true)];
                for (value, inside) in edges.into_iter().chain(below).chain(above) {
                    add(*negated, inside, &|spec| spec.set(*field, value));
                }
            }
            Test::Address { field, addresses, negated } => {
                let (first, last) = ends(addresses);
                let below = shifted(first, -1).map(|address| (address, false));
                let above = shifted(last, 1).map(|address| (address, false));
                let edges = [(first, true), (last, true)];
                for (address, inside) in edges.into_iter().chain(below).chain(above) {
                    add(*negated, inside, &|spec| spec.put(*field, address));
                }
            }
            Test::Gratuitous => {
                add(false, true, &|spec| spec.arp.addresses[1] = spec.arp.addresses[0]);
                for bit in [1, 1 << 8, 1 << 31] {
                    let change = |spec: &mut Spec| {
                        spec.arp.addresses[1] = (u32::from(spec.arp.addresses[0]) ^ bit).into();
                    };
                    add(false, false, &change);
                }
            }
            Test::Icmp { types, codes, negated } => {
                let code = codes.map_or(1, |codes| codes.0);
                add(*negated, true, &|spec| spec.icmp = (types.0, code));
                add(*negated, true, &|spec| spec.icmp = (types.1, codes.map_or(0, |c| c.1)));
                for kind in [types.0.checked_sub(1), types.1.checked_add(1)].into_iter().flatten() {
                    add(*negated, false, &|spec| spec.icmp = (kind, code));
                }
                if let Some(code) = codes.and_then(|codes| codes.1.checked_add(1)) {
                    add(*negated, false, &|spec| spec.icmp = (types.0, code));
                }
            }
            Test::TcpFlags { mask, flags, negated } => {
                add(*negated, flags & mask == *flags, &|spec| spec.flags = *flags);
                add(*negated, flags & mask == *flags, &|spec| spec.flags = flags | (!mask & 0x3f));
                for bit in [1, 2, 4, 8, 16, 32] {
                    let other = flags ^ bit;
                    add(*negated, other & mask == *flags, &|spec| spec.flags = other);
                }
            }
            // nwfilter_nd has frames for this test.
            Test::Neighbor(_) => {}
            Test::Set { .. } | Test::Connections { .. } | Test::State { .. } => {}
        }
        found
    }

    fn set(&mut self, field: Number, value: u32) {
        let short = value as u16;
        match field {
            Number::EtherType if short == 0x8100 => self.vlan = Some(5),
            Number::EtherType | Number::VlanEncapsulated => self.ether_type = short,
            Number::VlanId => self.vlan = Some(short),
            Number::ArpHardware => self.arp.hardware = short,
            Number::ArpProtocol => self.arp.protocol = short,
            Number::ArpOperation => self.arp.operation = short,
            Number::Protocol => self.protocol = value as u8,
            Number::Dscp => self.dscp = value as u8,
            Number::SourcePort => self.ports[0] = short,
            Number::DestinationPort => self.ports[1] = short,
            _ => {}
        }
    }

    fn put(&mut self, field: Address, address: IpAddr) {
        match (field, address) {
            (Address::Source, IpAddr::V4(address)) => self.v4[0] = address,
            (Address::Destination, IpAddr::V4(address)) => self.v4[1] = address,
            (Address::Source, IpAddr::V6(address)) => self.v6[0] = address,
            (Address::Destination, IpAddr::V6(address)) => self.v6[1] = address,
            (Address::ArpSender, IpAddr::V4(address)) => self.arp.addresses[0] = address,
            (Address::ArpTarget, IpAddr::V4(address)) => self.arp.addresses[1] = address,
            _ => {}
        }
    }

    /// Returns whether a bridge forwards the frame, and both backends can read it as documented.
    fn is_usable(&self) -> bool {
        // A sender has a unicast address, and a bridge does not forward frames to its own groups.
        let reserved = self.destination[..5] == STP[..5] && self.destination[5] != 0;
        let stays = self.source[0] & 1 == 1 || self.source == [0; 6] || reserved;
        // Extension headers are not protocols. ip6tables and ebtables see the protocol after AH.
        let extension =
            self.ether_type == 0x86dd && [0, 43, 44, 51, 59, 60].contains(&self.protocol);
        // ebtables confuses another kind of tag with 0x8100.
        !(stays || extension || self.ether_type == 0x88a8 || self.ether_type == 0x8100)
    }
}

fn most(field: Number) -> u32 {
    match field {
        Number::Dscp => 0x3f,
        Number::Protocol | Number::StpType | Number::StpFlags => 0xff,
        Number::VlanId => 0xfff,
        Number::StpRootCost => u32::MAX,
        _ => 0xffff,
    }
}

fn ends(addresses: &Addresses) -> (IpAddr, IpAddr) {
    match addresses {
        Addresses::Net(IpNet::V4(net)) => (net.network().into(), net.broadcast().into()),
        Addresses::Net(IpNet::V6(net)) => (net.network().into(), net.broadcast().into()),
        Addresses::Range(AddressRange::V4(first, last)) => ((*first).into(), (*last).into()),
        Addresses::Range(AddressRange::V6(first, last)) => ((*first).into(), (*last).into()),
    }
}

/// Returns the address that is `by` above another one; `None` beyond the last address.
fn shifted(address: IpAddr, by: i8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            u32::from(address).checked_add_signed(by.into()).map(|n| Ipv4Addr::from(n).into())
        }
        IpAddr::V6(address) => {
            u128::from(address).checked_add_signed(by.into()).map(|n| Ipv6Addr::from(n).into())
        }
    }
}

/// Returns frames close to one rule.
fn near_rule(way: EvalPath, rule: &PortRule) -> Vec<Spec> {
    let mut base = Spec::new(way).of_kind(rule.kind);
    for test in &rule.tests {
        let wanted = base.near(test).into_iter().find(|(_, wanted)| *wanted);
        base = wanted.map_or(base, |(spec, _)| spec);
    }
    let mut all = vec![base.clone()];
    all.extend(rule.tests.iter().flat_map(|test| base.near(test)).map(|(spec, _)| spec));
    let changed = |change: &dyn Fn(&mut Spec)| {
        let mut spec = base.clone();
        change(&mut spec);
        spec
    };
    all.push(changed(&|spec| spec.vlan = Some(7)));
    if matches!(rule.kind, FrameKind::Ip(..)) {
        all.push(changed(&|spec| spec.options = true));
        all.push(changed(&|spec| spec.part = Part::First));
        all.push(changed(&|spec| spec.part = Part::Later));
        all.push(changed(&|spec| spec.protocol = if spec.protocol == 17 { 6 } else { 17 }));
        all.push(changed(&|spec| spec.ether_type = 0x0800 + 0x86dd - spec.ether_type));
    }
    all
}

/// Returns at most `limit` frames close to the rules of a port, in both directions. Each contains
/// its number.
pub fn near(rules: &PortRules, limit: usize) -> Vec<(EvalPath, Vec<u8>)> {
    let mut all: Vec<(EvalPath, Spec)> = Vec::new();
    for (way, path) in [(EvalPath::Out, &rules.from_guest), (EvalPath::In, &rules.to_guest)] {
        let kinds = path.chains.iter().map(|chain| chain.kind);
        all.extend(kinds.map(|kind| (way, Spec::new(way).of_kind(kind))));
        for rule in path.rules() {
            all.extend(near_rule(way, rule).into_iter().map(|spec| (way, spec)));
        }
        for kind in [
            FrameKind::Any,
            FrameKind::Arp,
            FrameKind::Ip(Version::V4, None),
            FrameKind::Ip(Version::V6, None),
        ] {
            all.push((way, Spec::new(way).of_kind(kind)));
        }
    }
    all.retain(|(_, spec)| spec.is_usable());
    let step = all.len().div_ceil(limit).max(1);
    let chosen = all.into_iter().step_by(step).enumerate();
    chosen.map(|(number, (way, spec))| (way, spec.bytes(number))).collect()
}

/// Returns exchanges close to the rules of a port that tracks connections: a frame, its answer, and
/// the frame again. The protocols need no further packets for a connection.
pub fn exchanges(rules: &PortRules, limit: usize) -> Vec<(EvalPath, Vec<u8>)> {
    let mut all: Vec<(EvalPath, Spec)> = Vec::new();
    for (way, path) in [(EvalPath::Out, &rules.from_guest), (EvalPath::In, &rules.to_guest)] {
        let back = if way == EvalPath::Out { EvalPath::In } else { EvalPath::Out };
        let mut specs = vec![Spec::new(way).of_kind(FrameKind::Ip(Version::V4, Some(17)))];
        specs.extend(path.rules().flat_map(|rule| near_rule(way, rule)));
        for spec in specs {
            // The verdict on a later TCP packet depends on earlier packets, and a fragment waits
            // for the others.
            let simple = spec.part == Part::Whole && (spec.protocol != 6 || spec.flags == 0x02);
            // SCTP answers with another kind of chunk.
            if !simple || spec.protocol == 132 || !spec.is_usable() {
                continue;
            }
            let answer = spec.answer();
            all.extend([(way, spec.clone()), (back, answer), (way, spec)]);
        }
    }
    all.retain(|(_, spec)| spec.is_usable());
    all.truncate(limit);
    let numbered = all.into_iter().enumerate();
    numbered.map(|(number, (way, spec))| (way, spec.bytes(number))).collect()
}
