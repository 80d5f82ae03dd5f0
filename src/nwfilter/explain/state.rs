//! Connection tracking over the frames of one run, as simple as it can be and still tell what
//! filters ask: whether a packet is the first of its connection, whose it is, and whether both sides
//! have been heard.
//!
//! A connection is made by the first packet of it that passes; one that is dropped leaves no trace.
//! Connections never end and nothing of them is checked but what makes a first packet one: sequence
//! numbers, checksums, timeouts and helpers (FTP and the like) do not count. So more packets are
//! established here than in the kernel, and fewer invalid or related.
//!
//! Facts on which packets open a connection: measured on Linux 6.18, and nf_conntrack's documented
//! settings as they are by default (`nf_conntrack_tcp_loose`, which takes up TCP in its middle).

use std::collections::HashMap;
use std::net::IpAddr;

use super::frame::{Fragment, Frame, ICMP, ICMPV6, Packet, SCTP, TCP, has_ports};
use crate::rules::port::{Direction, State};

/// A packet's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Tracking leaves it alone: no IP, or IPv6's neighbour discovery and multicast listeners.
    Untracked,
    /// In a connection, or none.
    Tracked(State, Direction),
}

/// What tells a connection from another, from one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Ports, or a message's number in an ICMP query, with its type.
    from: u16,
    to: u16,
    query: u16,
}

/// A packet's number with what must be the same, too.
type FragmentKey = (IpAddr, IpAddr, u8, u32);

/// The connections of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections {
    /// Whether both sides have been heard, by the opener's side.
    seen: HashMap<Tuple, bool>,
    /// The begins of packets that came in fragments.
    begins: HashMap<FragmentKey, Vec<u8>>,
}

impl Connections {
    /// A packet's place. Looking counts as being heard.
    pub(super) fn look(&mut self, frame: &Frame<'_>) -> Place {
        let Some(packet) = frame.packet() else { return Place::Untracked };
        let payload = frame.transport().unwrap_or_default();
        // Each version has an ICMP of its own.
        if packet.protocol == if packet.source.is_ipv6() { ICMP } else { ICMPV6 } {
            return Place::Tracked(State::Invalid, Direction::Original);
        }
        if packet.protocol == ICMPV6 && matches!(payload, [130..=137 | 143, ..]) {
            return Place::Untracked;
        }
        if let Some(about) = icmp_error(packet, payload) {
            return self.about(about);
        }
        let Some(tuple) = Tuple::of(packet, payload) else {
            return Place::Tracked(State::Invalid, Direction::Original);
        };
        // First, as in the kernel: a packet to its own source and port is its own answer.
        if let Some(both) = tuple.answered().and_then(|opener| self.seen.get_mut(&opener)) {
            *both = true;
            return Place::Tracked(State::Established, Direction::Reply);
        }
        if let Some(both) = self.seen.get(&tuple) {
            let state = if *both { State::Established } else { State::New };
            return Place::Tracked(state, Direction::Original);
        }
        match opens(packet.protocol, payload) {
            true => Place::Tracked(State::New, Direction::Original),
            false => Place::Tracked(State::Invalid, Direction::Original),
        }
    }

    /// Remembers what a frame that passes begins: a connection, or a packet in fragments.
    pub(super) fn pass(&mut self, frame: &Frame<'_>, place: Place) {
        let Some(packet) = frame.packet() else { return };
        let payload = frame.transport().unwrap_or_default();
        if let (Place::Tracked(State::New, _), Some(tuple)) = (place, Tuple::of(packet, payload)) {
            self.seen.entry(tuple).or_insert(false);
        }
    }

    /// Remembers the begin of a packet in fragments: tracking puts them together, and rules see the
    /// whole.
    pub(super) fn hear(&mut self, frame: &Frame<'_>, bytes: &[u8]) {
        if let Some(packet) = frame.packet()
            && let Fragment::First(number) = packet.fragment
        {
            self.begins.insert(key(packet, number), bytes.to_vec());
        }
    }

    /// The frame that a later fragment's packet began with.
    pub(super) fn begin(&self, packet: &Packet<'_>) -> Option<&[u8]> {
        match packet.fragment {
            Fragment::Later(number) => self.begins.get(&key(packet, number)).map(Vec::as_slice),
            _ => None,
        }
    }

    /// The place of an ICMP error about a packet of this tuple.
    fn about(&self, about: Option<Tuple>) -> Place {
        let Some(tuple) = about else {
            return Place::Tracked(State::Invalid, Direction::Original);
        };
        // An error goes against the packet that it is about.
        if self.seen.contains_key(&tuple) {
            return Place::Tracked(State::Related, Direction::Reply);
        }
        match tuple.answered().is_some_and(|opener| self.seen.contains_key(&opener)) {
            true => Place::Tracked(State::Related, Direction::Original),
            false => Place::Tracked(State::Invalid, Direction::Original),
        }
    }
}

fn key(packet: &Packet<'_>, number: u32) -> FragmentKey {
    (packet.source, packet.destination, packet.protocol, number)
}

impl Tuple {
    fn of(packet: &Packet<'_>, payload: &[u8]) -> Option<Self> {
        let Packet { source, destination, protocol, .. } = *packet;
        let short =
            |at: usize| Some(u16::from_be_bytes([*payload.get(at)?, *payload.get(at + 1)?]));
        let plain = Tuple { source, destination, protocol, from: 0, to: 0, query: 0 };
        match protocol {
            ICMP | ICMPV6 => {
                Some(Tuple { from: short(4)?, to: u16::from(*payload.first()?), query: 1, ..plain })
            }
            _ if has_ports(protocol) => Some(Tuple { from: short(0)?, to: short(2)?, ..plain }),
            _ => Some(plain),
        }
    }

    /// The tuple of the packet that this one would answer.
    fn answered(self) -> Option<Self> {
        let turned = Tuple { source: self.destination, destination: self.source, ..self };
        if self.query == 0 {
            return Some(Tuple { from: self.to, to: self.from, ..turned });
        }
        // Echo, timestamp, information, address mask (RFC 792, 950); echo, node information
        // (RFC 4443, 4620).
        const V4: [(u16, u16); 4] = [(8, 0), (13, 14), (15, 16), (17, 18)];
        const V6: [(u16, u16); 2] = [(128, 129), (139, 140)];
        let pairs: &[(u16, u16)] = if self.protocol == ICMP { &V4 } else { &V6 };
        let (request, _) = pairs.iter().find(|(_, reply)| *reply == self.to)?;
        Some(Tuple { to: *request, ..turned })
    }
}

/// Whether a packet of no known connection may open one.
fn opens(protocol: u8, payload: &[u8]) -> bool {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    /// FIN, SYN, RST, ACK: the flags that tell a packet's part in the protocol.
    const PART: u8 = 0x17;
    match protocol {
        TCP => payload.get(13).is_some_and(|flags| matches!(flags & PART, SYN | ACK)),
        // INIT and HEARTBEAT (RFC 9260, 3.2).
        SCTP => matches!(payload.get(12), Some(1 | 4)),
        ICMP => matches!(payload.first(), Some(8 | 13 | 15 | 17)),
        ICMPV6 => matches!(payload.first(), Some(128 | 139)),
        _ => true,
    }
}

/// What an ICMP error is about; the inner `None` is a packet that cannot be told.
fn icmp_error(packet: &Packet<'_>, payload: &[u8]) -> Option<Option<Tuple>> {
    // RFC 792 and 4443, and RFC 1191's use of them.
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
    Some(inner.and_then(|inner| Tuple::of(&inner, inner.payload)))
}
