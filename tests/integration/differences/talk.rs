//! Makes exchanges: the packets of one connection in the order in which its two ends send them.
//!
//! An exchange starts from a frame near the values of a rule, which is its first packet or the
//! answer to it. Its connection is opened, used and closed as the ends of a connection do this.
//!
//! There are no fragments, because a backend that tracks connections keeps a fragment until the
//! packet is whole, and no packets after the end of a TCP connection.

use netlaunch::firewall::rules::port::{PortRule, PortRules};
use netlaunch::nwfilter::explain::EvalPath;

use super::damage::{harmless, lengths, with_checksum};
use super::exchange::Exchange;
use super::frames::{Sent, undamaged};
use super::random::Random;

const TCP: u8 = 6;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Makes so many exchanges near the rules.
pub fn near(random: &mut Random, rules: &PortRules, count: usize) -> Vec<Exchange> {
    (0..count).filter_map(|_| exchange(random, rules)).collect()
}

fn exchange(random: &mut Random, rules: &PortRules) -> Option<Exchange> {
    let paths = [(EvalPath::Out, &rules.from_guest), (EvalPath::In, &rules.to_guest)];
    let (way, path) = random.pick(&paths);
    let mut near: Vec<&PortRule> = path.rules().collect();
    // Most rules of the link layer have no part in a connection.
    if random.chance(90) && !path.packets.is_empty() {
        near = path.packets.iter().collect();
    }
    if near.is_empty() {
        return None;
    }
    let frame = undamaged(random, way, &near);
    let Some(end) = End::read(&frame, way) else {
        return Some(Exchange::single((way, frame)));
    };
    // The rule may be one for the answers.
    let ends = if random.chance(50) { [end.other(), end] } else { [end.clone(), end.other()] };
    let talk = Talk { ends, packets: Vec::new() };
    Some(talk.of_protocol(random))
}

/// One end of a connection: its packets have these headers.
#[derive(Clone)]
struct End {
    way: EvalPath,
    /// The Ethernet header and the IP header.
    head: Vec<u8>,
    protocol: u8,
    /// The first bytes of the transport header.
    ports: [u8; 4],
}

impl End {
    /// Reads the headers of an undamaged frame; `None` if it is no IP packet.
    fn read(frame: &[u8], way: EvalPath) -> Option<Self> {
        let (length, protocol) = match frame.get(12..14)? {
            [8, 0] => (34, *frame.get(23)?),
            [0x86, 0xdd] => (54, *frame.get(20)?),
            _ => return None,
        };
        let ports = *frame.get(length..)?.first_chunk()?;
        Some(End { way, head: frame[..length].to_vec(), protocol, ports })
    }

    fn is_v6(&self) -> bool {
        self.head.len() == 54
    }

    /// Returns the end to which this one sends.
    fn other(&self) -> Self {
        let mut other = self.clone();
        other.way = if self.way == EvalPath::Out { EvalPath::In } else { EvalPath::Out };
        let (at, size) = if self.is_v6() { (22, 16) } else { (26, 4) };
        for (at, size) in [(0, 6), (at, size)] {
            let (one, two) = other.head[at..at + 2 * size].split_at_mut(size);
            one.swap_with_slice(two);
        }
        other.ports.rotate_left(2);
        if self.protocol == ICMP || self.protocol == ICMPV6 {
            other.ports = [answer_type(self.protocol, self.ports[0]), self.ports[1], 0, 0];
        }
        other
    }

    fn packet(&self, transport: &[u8]) -> Vec<u8> {
        let mut frame = [&self.head, transport].concat();
        lengths(&mut frame);
        with_checksum(&mut frame);
        frame
    }
}

/// Returns the type of the ICMP message that answers a query, or the same type for other messages.
fn answer_type(protocol: u8, kind: u8) -> u8 {
    const PAIRS: [(u8, u8, u8); 6] = [
        (ICMP, 8, 0),
        (ICMP, 13, 14),
        (ICMP, 15, 16),
        (ICMP, 17, 18),
        (ICMPV6, 128, 129),
        (ICMPV6, 139, 140),
    ];
    let pair = |(of, one, other): (u8, u8, u8)| match kind {
        _ if of != protocol => None,
        _ if kind == one => Some(other),
        _ if kind == other => Some(one),
        _ => None,
    };
    PAIRS.into_iter().find_map(pair).unwrap_or(kind)
}

/// The packets so far; the first end opens the connection.
struct Talk {
    ends: [End; 2],
    packets: Vec<Sent>,
}

/// The side of a connection.
const OPENER: usize = 0;
const OTHER: usize = 1;

impl Talk {
    fn of_protocol(mut self, random: &mut Random) -> Exchange {
        let protocol = self.ends[OPENER].protocol;
        match protocol {
            TCP if random.chance(75) => self.tcp(random),
            TCP => {
                self.stray_tcp(random);
                return self.exchange(random, false);
            }
            SCTP => self.sctp(random),
            _ => {
                self.others(random);
                return self.exchange(random, false);
            }
        }
        self.exchange(random, true)
    }

    /// Changes the headers of some packets in ways that change no connection.
    fn exchange(mut self, random: &mut Random, is_ordered: bool) -> Exchange {
        if self.is_single() {
            self.packets.truncate(1);
            return Exchange { packets: self.packets, is_ordered: false };
        }
        for (_, frame) in &mut self.packets {
            if random.chance(4) {
                // Tracking does not see a packet with a tag, so the packets after it are invalid.
                harmless(random, frame, !is_ordered);
            }
        }
        Exchange { packets: self.packets, is_ordered }
    }

    /// Returns whether only the first packet shows something about the filter.
    ///
    /// A bridge also gives a packet to a group to its host, which records the connection even if
    /// the filter drops the packet. Linux 6.18 does not track the ports of DCCP, and older releases
    /// do. The packets of a TCP connection from a port to itself are their own answers.
    fn is_single(&self) -> bool {
        let is_group = |end: &End| end.head[0] & 1 == 1;
        let [one, other] = &self.ends;
        let key = |end: &End| (end.head[14..].to_vec(), end.ports);
        const DCCP: u8 = 33;
        one.protocol == DCCP
            || self.ends.iter().any(is_group)
            || [TCP, SCTP].contains(&one.protocol) && key(one) == key(other)
    }

    fn say(&mut self, side: usize, transport: &[u8]) {
        let end = &self.ends[side];
        self.packets.push((end.way, end.packet(transport)));
    }

    /// Opens a connection, sends data both ways, and closes it or resets it.
    fn tcp(&mut self, random: &mut Random) {
        const FIN: u8 = 1;
        const SYN: u8 = 2;
        const RST: u8 = 4;
        const PSH: u8 = 8;
        const ACK: u8 = 16;
        // The next sequence numbers of both sides.
        let mut next = [0x1000u32, 0x8000_0000];
        let mut segment = |talk: &mut Self, side: usize, flags: u8, data: usize| {
            let ack = if flags & ACK == 0 { 0 } else { next[1 - side] };
            let bytes = talk.segment(side, [next[side], ack], flags, data);
            talk.say(side, &bytes);
            next[side] += data as u32 + u32::from(flags & (SYN | FIN) != 0);
        };
        // Without its begin, the kernel accepts a connection from its middle.
        let begin = random.pick(&[0, 0, 0, 1]);
        if begin == 0 {
            segment(self, OPENER, SYN | random.pick(&[0, 0, 0xc0]), 0);
            if random.chance(10) {
                self.packets.push(self.packets[0].clone());
            }
            segment(self, OTHER, SYN | ACK, 0);
        }
        segment(self, OPENER, ACK, 0);
        segment(self, OPENER, PSH | ACK, random.pick(&[1, 8, 100]));
        segment(self, OTHER, PSH | ACK, random.pick(&[0, 8, 100]));
        if random.chance(15) {
            self.error(random, OPENER);
        }
        match random.below(4) {
            0 => {
                let first = random.below(2);
                segment(self, first, FIN | ACK, 0);
                segment(self, 1 - first, FIN | ACK, 0);
                segment(self, first, ACK, 0);
            }
            1 => segment(self, random.below(2), RST | ACK, 0),
            _ => segment(self, OPENER, ACK, 0),
        }
    }

    fn segment(&self, side: usize, [sequence, ack]: [u32; 2], flags: u8, data: usize) -> Vec<u8> {
        let mut bytes = self.ends[side].ports.to_vec();
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(ack.to_be_bytes());
        bytes.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
        bytes.resize(20 + data, b'x');
        bytes
    }

    /// Sends a segment of no connection.
    fn stray_tcp(&mut self, random: &mut Random) {
        let flags = random.pick(&[0, 1, 2, 3, 4, 6, 16, 17, 18, 20, 22, 24, 41, 63, 0xff, 0xc2]);
        let side = random.below(2);
        let segment = self.segment(side, [0x1000, 0x2000], flags, 0);
        self.say(side, &segment);
    }

    /// Opens an association and sends data (RFC 9260, 5.1).
    fn sctp(&mut self, random: &mut Random) {
        // The verification tags are those that the other side's INIT or INIT ACK named.
        let tags: [[u8; 4]; 2] = [[0, 0, 0, 7], [0, 0, 0, 9]];
        let chunk = |kind: u8, body: &[u8]| {
            [&[kind, 0], (4 + body.len() as u16).to_be_bytes().as_slice(), body].concat()
        };
        let init = |own: [u8; 4]| [&own, [0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1].as_slice()].concat();
        let data = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        let say = |talk: &mut Self, side: usize, tag: [u8; 4], chunk: &[u8]| {
            let bytes = [&talk.ends[side].ports, tag.as_slice(), &[0; 4], chunk].concat();
            talk.say(side, &bytes);
        };
        say(self, OPENER, [0; 4], &chunk(1, &init(tags[OPENER])));
        say(self, OTHER, tags[OPENER], &chunk(2, &init(tags[OTHER])));
        say(self, OPENER, tags[OTHER], &chunk(10, &[1; 8]));
        say(self, OTHER, tags[OPENER], &chunk(11, &[]));
        for _ in 0..1 + random.below(2) {
            let side = random.below(2);
            say(self, side, tags[1 - side], &chunk(0, &data));
        }
    }

    /// Sends packets of a protocol in which each packet may be the first one.
    fn others(&mut self, random: &mut Random) {
        let orders: [&[usize]; 6] = [
            &[OPENER, OTHER, OPENER],
            &[OPENER, OTHER, OPENER, OTHER],
            &[OPENER, OPENER, OTHER, OTHER, OPENER],
            &[OTHER],
            &[OPENER, OPENER],
            &[OTHER, OPENER, OTHER],
        ];
        let is_icmp = [ICMP, ICMPV6].contains(&self.ends[OPENER].protocol);
        for side in random.pick(&orders) {
            let bytes = if is_icmp { self.query(*side) } else { self.datagram(*side) };
            self.say(*side, &bytes);
            if random.chance(15) {
                self.error(random, 1 - side);
            }
        }
        if random.chance(15) {
            self.stranger(random);
        }
    }

    fn query(&self, side: usize) -> Vec<u8> {
        let [kind, code, ..] = self.ends[side].ports;
        [&[kind, code, 0, 0, 0, 1, 0, 1], [0; 16].as_slice()].concat()
    }

    fn datagram(&self, side: usize) -> Vec<u8> {
        let End { protocol, ports, .. } = &self.ends[side];
        let rest: &[u8] = match protocol {
            17 => &[0, 24, 0, 0],
            // UDP-Lite packets without a checksum are invalid (RFC 3828, 3.1).
            136 => &[0, 24, 0, 1],
            // AH (RFC 4302): the next header, and the length in words of four bytes, less 2.
            51 => return [&[17, 4], [0; 22].as_slice(), ports, &[0, 8, 0, 0]].concat(),
            // A Request of DCCP: the data offset in words of four bytes, and the bit X, since its
            // sequence number has 48 bits (RFC 4340, 5.1). The kernels that track DCCP take a
            // broken header for invalid.
            33 => &[5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            _ => return vec![0; 24],
        };
        [ports, rest, &[0; 16]].concat()
    }

    /// Sends a packet that shares the addresses of the connection, but not its ports, its query
    /// number or its version of GRE.
    fn stranger(&mut self, random: &mut Random) {
        let (side, protocol) = (random.below(2), self.ends[OPENER].protocol);
        let (mut bytes, at) = match protocol {
            ICMP | ICMPV6 => (self.query(side), 5),
            17 | 33 | 47 | 136 => (self.datagram(side), random.pick(&[1, 3])),
            _ => return,
        };
        bytes[at] ^= 1;
        self.say(side, &bytes);
    }

    /// Sends an ICMP error about the last packet. It comes from the other end, or from a router on
    /// the way.
    fn error(&mut self, random: &mut Random, side: usize) {
        let Some((_, about)) = self.packets.last() else { return };
        let mut end = self.ends[side].clone();
        let quoted = about[14..about.len().min(14 + 100)].to_vec();
        let (kind, protocol, at, source) = if end.is_v6() {
            (random.pick(&[1, 2, 3, 4]), ICMPV6, 20, 22)
        } else {
            (random.pick(&[3, 3, 4, 5, 11, 12]), ICMP, 23, 26)
        };
        end.head[at] = protocol;
        if random.chance(30) {
            end.head[source + 1] ^= 1;
        }
        if random.chance(10) {
            let destination = source + (end.head.len() - source) / 2;
            end.head[destination + 1] ^= 1;
        }
        let packet = end.packet(&[&[kind, 1, 0, 0, 0, 0, 0, 0], quoted.as_slice()].concat());
        self.packets.push((end.way, packet));
    }
}
