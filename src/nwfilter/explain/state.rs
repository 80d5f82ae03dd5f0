//! Tracks the connections of the frames of one run. The tracking is as simple as filters allow: it
//! knows whether a packet is the first of its connection, which side sent it, and whether both
//! sides have sent packets.
//!
//! The first packet that passes makes a connection; a dropped packet leaves no record. Connections
//! do not end, but only the last [`MOST_CONNECTIONS`] are known, so that a stream of frames without
//! end needs no more memory, and a packet is checked only for whether it can open a connection:
//! sequence numbers, checksums, timeouts and helpers (FTP and the like) are ignored. So more
//! packets are established here than in the kernel, and fewer are invalid or related. The port
//! alone counts: a bridge also gives a frame to a group to its host, and the kernel records the
//! connection of that copy even if the port's filter drops the frame.
//!
//! The facts on which packets open a connection were measured on Linux 6.18, with the defaults of
//! nf_conntrack's documented settings (`nf_conntrack_tcp_loose`, which accepts a TCP connection
//! from its middle). Linux 6.18 has no ports of DCCP; older releases have them, as here. Linux 6.1
//! also takes a DCCP packet with a broken header for invalid; here such a packet opens a
//! connection, as on Linux 6.18.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use super::evaluate::Dependency;
use super::frame::Frame;
use super::packet::{Fragment, GRE, ICMP, ICMPV6, Packet, SCTP, TCP, has_ports};
use crate::firewall::rules::port::{ConnectionDirection, State};

/// The state of a packet with regard to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracking {
    /// The packet is not tracked: it is not IP, or IPv6's neighbour discovery or multicast listener
    /// discovery.
    Untracked,
    /// The packet is invalid, and lacks the protocol, the ports or the numbers that would name its
    /// connection. A rule that counts connections drops the packet.
    Unnamed,
    /// The packet has this state, in this direction.
    Tracked(State, ConnectionDirection),
}

impl Tracking {
    /// Returns whether the packet has one of these states, in this direction if one is given.
    pub(super) fn is(self, states: &[State], direction: Option<ConnectionDirection>) -> bool {
        match self {
            Tracking::Untracked => false,
            Tracking::Unnamed => states.contains(&State::Invalid) && direction.is_none(),
            Tracking::Tracked(state, side) => {
                states.contains(&state) && direction.is_none_or(|wanted| wanted == side)
            }
        }
    }
}

/// Returns whether the kernel drops a packet at a test because it cannot count the connections of
/// the packet (measured on Linux 6.18 with iptables).
pub(super) fn stops(place: Option<Tracking>, dependency: &Dependency) -> bool {
    place == Some(Tracking::Unnamed) && matches!(dependency, Dependency::Connections(_))
}

/// The key of a connection, as seen from one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// The ports, or the number of an ICMP query with its type.
    from: u16,
    to: u16,
    query: u16,
}

/// The number of a packet, and the other fields that its fragments share.
type FragmentKey = (IpAddr, IpAddr, u8, u32);

/// The number of connections that are known at a time; the oldest one is forgotten first.
pub(super) const MOST_CONNECTIONS: usize = 1 << 16;
/// The number of first fragments that are known at a time.
const MOST_BEGINS: usize = 1 << 10;
/// The number of bytes that are kept of a first fragment. They contain all headers that rules test.
const BEGIN_BYTES: usize = 2048;

/// The connections of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections {
    /// Whether both sides have sent packets, by the opener's tuple.
    seen: HashMap<Tuple, bool>,
    /// The tuples in `seen`, from the oldest to the newest.
    order: VecDeque<Tuple>,
    /// The first fragments of packets.
    begins: HashMap<FragmentKey, Vec<u8>>,
    /// The keys in `begins`, from the oldest to the newest.
    begin_order: VecDeque<FragmentKey>,
}

impl Connections {
    /// Returns a packet's state, and records that its side has sent a packet.
    pub(super) fn look(&mut self, frame: &Frame<'_>) -> Tracking {
        let place = self.place(frame);
        if let Tracking::Tracked(State::Established, ConnectionDirection::Reply) = place
            && let Some(tuple) = tracked(frame).as_ref().and_then(Tuple::of)
            && let Some(both) = tuple.answered().and_then(|opener| self.seen.get_mut(&opener))
        {
            *both = true;
        }
        place
    }

    /// Returns a packet's state.
    pub(super) fn place(&self, frame: &Frame<'_>) -> Tracking {
        let invalid = Tracking::Tracked(State::Invalid, ConnectionDirection::Original);
        if frame.packet().is_none() {
            return Tracking::Untracked;
        }
        let Some(packet) = tracked(frame) else { return Tracking::Unnamed };
        // An ICMP message must be of its packet's IP version.
        if packet.protocol == if packet.source.is_ipv6() { ICMP } else { ICMPV6 } {
            return invalid;
        }
        if packet.protocol == ICMPV6 && matches!(packet.payload, [130..=137 | 143, ..]) {
            return Tracking::Untracked;
        }
        if let Some(about) = icmp_error(&packet) {
            return self.about(about);
        }
        let Some(tuple) = Tuple::of(&packet) else { return Tracking::Unnamed };
        // This comes first, as in the kernel: a packet to its own source and port is its own
        // answer.
        if tuple.answered().is_some_and(|opener| self.seen.contains_key(&opener)) {
            return Tracking::Tracked(State::Established, ConnectionDirection::Reply);
        }
        if let Some(both) = self.seen.get(&tuple) {
            let state = if *both { State::Established } else { State::New };
            return Tracking::Tracked(state, ConnectionDirection::Original);
        }
        if opens(&packet) {
            Tracking::Tracked(State::New, ConnectionDirection::Original)
        } else {
            invalid
        }
    }

    /// Records the connection that a passing frame opens, if it opens one.
    pub(super) fn pass(&mut self, frame: &Frame<'_>, place: Tracking) {
        let tuple = tracked(frame).as_ref().and_then(Tuple::of);
        if let (Tracking::Tracked(State::New, _), Some(tuple)) = (place, tuple) {
            if self.seen.contains_key(&tuple) {
                return;
            }
            if self.seen.len() >= MOST_CONNECTIONS
                && let Some(oldest) = self.order.pop_front()
            {
                self.seen.remove(&oldest);
            }
            self.seen.insert(tuple, false);
            self.order.push_back(tuple);
        }
    }

    /// Records the first fragment of a packet: tracking reassembles packets, and rules see the
    /// whole packet.
    pub(super) fn record_first_fragment(&mut self, frame: &Frame<'_>, bytes: &[u8]) {
        if let Some(packet) = frame.packet()
            && let Fragment::First(number) = packet.fragment
        {
            if self.begins.len() >= MOST_BEGINS
                && let Some(oldest) = self.begin_order.pop_front()
            {
                self.begins.remove(&oldest);
            }
            let (key, kept) = (key(packet, number), bytes.len().min(BEGIN_BYTES));
            if self.begins.insert(key, bytes[..kept].to_vec()).is_none() {
                self.begin_order.push_back(key);
            }
        }
    }

    /// Returns the frame with the first fragment of a later fragment's packet.
    pub(super) fn begin(&self, packet: &Packet<'_>) -> Option<&[u8]> {
        match packet.fragment {
            Fragment::Later(number) => self.begins.get(&key(packet, number)).map(Vec::as_slice),
            _ => None,
        }
    }

    /// Returns the state of an ICMP error about a packet of this tuple.
    fn about(&self, about: Option<Tuple>) -> Tracking {
        let Some(tuple) = about else {
            return Tracking::Tracked(State::Invalid, ConnectionDirection::Original);
        };
        // An error travels in the opposite direction of the packet that it is about.
        if self.seen.contains_key(&tuple) {
            return Tracking::Tracked(State::Related, ConnectionDirection::Reply);
        }
        if tuple.answered().is_some_and(|opener| self.seen.contains_key(&opener)) {
            Tracking::Tracked(State::Related, ConnectionDirection::Original)
        } else {
            Tracking::Tracked(State::Invalid, ConnectionDirection::Original)
        }
    }
}

/// Returns a packet with the transport protocol by which the kernel tracks it, which is behind AH
/// for IPv6. Returns `None` if the packet has none, or if its header is missing.
fn tracked<'a>(frame: &Frame<'a>) -> Option<Packet<'a>> {
    let packet = frame.packet()?;
    Packet { payload: frame.transport().unwrap_or_default(), ..*packet }.behind_ah()
}

fn key(packet: &Packet<'_>, number: u32) -> FragmentKey {
    (packet.source, packet.destination, packet.protocol, number)
}

impl Tuple {
    fn of(packet: &Packet<'_>) -> Option<Self> {
        let Packet { source, destination, protocol, payload, .. } = *packet;
        let short =
            |at: usize| Some(u16::from_be_bytes([*payload.get(at)?, *payload.get(at + 1)?]));
        let plain = Tuple { source, destination, protocol, from: 0, to: 0, query: 0 };
        match protocol {
            ICMP | ICMPV6 => {
                Some(Tuple { from: short(4)?, to: u16::from(*payload.first()?), query: 1, ..plain })
            }
            GRE if short(6).is_some() && payload[1] & 7 == 1 => {
                // The version 1 is PPTP's (RFC 2637, 4.1), and the kernel tracks no other protocol
                // with it. The call's number is the receiver's.
                const PPP: u16 = 0x880b;
                (short(2)? == PPP).then_some(Tuple { to: short(6)?, ..plain })
            }
            _ if has_ports(protocol) => Some(Tuple { from: short(0)?, to: short(2)?, ..plain }),
            _ => Some(plain),
        }
    }

    /// Returns the tuple of the packet to which this one would be an answer.
    fn answered(self) -> Option<Self> {
        let turned = Tuple { source: self.destination, destination: self.source, ..self };
        if self.query == 0 {
            return Some(Tuple { from: self.to, to: self.from, ..turned });
        }
        // The pairs are echo, timestamp, information, address mask (RFC 792, 950); echo, node
        // information (RFC 4443, 4620).
        const V4: [(u16, u16); 4] = [(8, 0), (13, 14), (15, 16), (17, 18)];
        const V6: [(u16, u16); 2] = [(128, 129), (139, 140)];
        let pairs: &[(u16, u16)] = if self.protocol == ICMP { &V4 } else { &V6 };
        let (request, _) = pairs.iter().find(|(_, reply)| *reply == self.to)?;
        Some(Tuple { to: *request, ..turned })
    }
}

/// Returns whether a packet without a known connection may open one.
fn opens(packet: &Packet<'_>) -> bool {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    /// FIN, SYN, RST, ACK: the flags that determine a packet's role in the protocol.
    const PART: u8 = 0x17;
    let payload = packet.payload;
    match packet.protocol {
        TCP => payload.get(13).is_some_and(|flags| matches!(flags & PART, SYN | ACK)),
        // These are INIT and HEARTBEAT (RFC 9260, 3.2).
        SCTP => matches!(payload.get(12), Some(1 | 4)),
        ICMP => matches!(payload.first(), Some(8 | 13 | 15 | 17)),
        ICMPV6 => matches!(payload.first(), Some(128 | 139)),
        _ => true,
    }
}

/// Returns the packet that an ICMP error is about; the inner `None` means that the packet cannot be
/// read, or that the error does not go to its sender.
fn icmp_error(packet: &Packet<'_>) -> Option<Option<Tuple>> {
    let payload = packet.payload;
    // The types are from RFC 792 and 4443, and from RFC 1191's use of them.
    let is_error = match (packet.protocol, payload.first()?) {
        (ICMP, kind) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        (ICMPV6, kind) => matches!(kind, 1..=4),
        _ => false,
    };
    if !is_error {
        return None;
    }
    let quoted = payload.get(8..).unwrap_or_default();
    let inner = Packet::quoted(quoted, packet.protocol == ICMPV6);
    let inner = inner.filter(|inner| inner.source == packet.destination);
    Some(inner.and_then(Packet::behind_ah).as_ref().and_then(Tuple::of))
}
