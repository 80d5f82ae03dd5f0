//! Knows the frames about which nwfilter(1) lists a difference between the backends.
//!
//! `nwfilter_differences` proves each of these differences, so that this list cannot hide a defect:
//! a backend that no longer differs makes that test fail.

use netlaunch::firewall::FirewallBackend;
use netlaunch::firewall::rules::Version;
use netlaunch::firewall::rules::port::{
    Address, FrameKind, Hardware, LINK_LOCAL, LINK_LOCAL_MASK, Number, Path, PortRule, PortRules,
    Test,
};
use netlaunch::nwfilter::explain::{EvalPath, Fragment, Frame, Judge, Packet, Verdict};

/// Returns whether the manual lists that a backend may differ from `explain` on this frame.
pub fn is_listed(backend: FirewallBackend, rules: &PortRules, way: EvalPath, bytes: &[u8]) -> bool {
    let Ok(frame) = Frame::read(bytes, bytes.len()) else { return true };
    let path = if way == EvalPath::Out { &rules.from_guest } else { &rules.to_guest };
    match backend {
        FirewallBackend::Nftables => {
            has_other_arp_lengths(&frame, bytes) && tests_arp(path)
                || way == EvalPath::Out && rules.is_stateful() && is_dropped(rules, bytes)
        }
        FirewallBackend::Iptables => {
            let ends = end_of_headers(&frame, bytes);
            (is_link_local(way, bytes) || is_tagged(bytes)) && rules.is_stateful()
                || (has_no_plain_protocol(&frame) || is_later_by_second_header(&frame, bytes))
                    && tests_protocol_v6(path)
                || ends == End::InTransport && path.rules().any(tests_transport)
                || ends == End::InExtensions && path.rules().any(tests_protocol)
        }
    }
}

/// Returns whether a rule for frames drops a frame of the guest.
fn is_dropped(rules: &PortRules, bytes: &[u8]) -> bool {
    let explained = Judge::new(rules).judge(EvalPath::Out, bytes, bytes.len());
    explained.is_ok_and(|explained| explained.stages[0].verdict == Verdict::Drop)
}

/// Returns whether a bridge handles a frame of the guest before iptables sees it.
fn is_link_local(way: EvalPath, bytes: &[u8]) -> bool {
    let same = |at: usize| bytes[at] & LINK_LOCAL_MASK[at] == LINK_LOCAL[at];
    way == EvalPath::Out && (0..LINK_LOCAL.len()).all(same)
}

/// Returns whether a frame has a VLAN tag behind which only nftables tracks a packet.
fn is_tagged(bytes: &[u8]) -> bool {
    matches!(bytes.get(12..14), Some([0x81, 0] | [0x88, 0xa8]))
}

fn has_other_arp_lengths(frame: &Frame<'_>, bytes: &[u8]) -> bool {
    let is_arp = frame.is(FrameKind::Arp) || frame.is(FrameKind::Rarp);
    is_arp && bytes.get(18..20).is_some_and(|lengths| lengths != [6, 4])
}

fn tests_arp(path: &Path) -> bool {
    let is_test = |test: &Test| {
        matches!(
            test,
            Test::Gratuitous
                | Test::Hardware { field: Hardware::ArpSender | Hardware::ArpTarget, .. }
                | Test::Address { field: Address::ArpSender | Address::ArpTarget, .. }
        )
    };
    path.rules().flat_map(|rule| &rule.tests).any(is_test)
}

/// Returns whether an IPv6 packet has AH (51) or no next header (59).
fn has_no_plain_protocol(frame: &Frame<'_>) -> bool {
    let protocol = frame.packet().map(|packet| packet.protocol);
    frame.is(FrameKind::Ip(Version::V6, None)) && matches!(protocol, Some(51 | 59))
}

/// Returns whether an IPv6 packet is a later fragment, but not by its first fragment header.
fn is_later_by_second_header(frame: &Frame<'_>, bytes: &[u8]) -> bool {
    let is_later = |packet: &Packet<'_>| matches!(packet.fragment, Fragment::Later(_));
    if !frame.is(FrameKind::Ip(Version::V6, None)) || !frame.packet().is_some_and(is_later) {
        return false;
    }
    let (mut protocol, mut at) = (bytes[20], 54);
    loop {
        let Some(&[next, words, high, low]) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
            return false;
        };
        if protocol == 44 {
            return u16::from_be_bytes([high, low]) & !7 == 0;
        }
        (protocol, at) = (next, at + (usize::from(words) + 1) * 8);
    }
}

fn tests_protocol_v6(path: &Path) -> bool {
    let is_test = |test: &Test| matches!(test, Test::Number { field: Number::Protocol, .. });
    let is_of = |rule: &PortRule| rule.kind == FrameKind::Ip(Version::V6, None);
    path.rules().any(|rule| is_of(rule) && rule.tests.iter().any(is_test))
}

/// The place at which a packet ends, by the length in its IP header.
#[derive(PartialEq, Eq)]
enum End {
    BehindHeaders,
    InExtensions,
    InTransport,
}

fn end_of_headers(frame: &Frame<'_>, bytes: &[u8]) -> End {
    let Some(packet) = frame.packet() else { return End::BehindHeaders };
    let length = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let end = if packet.source.is_ipv6() { 54 + length(18) } else { 14 + length(16) };
    // The payload reaches to the end of the frame; it is empty if its begin is behind that.
    let begin = bytes.len() - packet.payload.len();
    let whole = match packet.protocol {
        6 => 20,
        132 => 12,
        1 | 17 | 58 | 136 => 8,
        // ebtables reads the ports of DCCP.
        33 => 4,
        51 => 2,
        _ => 0,
    };
    let is_later = matches!(packet.fragment, Fragment::Later(_));
    if begin > end || packet.protocol == 51 && begin + whole > end {
        End::InExtensions
    } else if !is_later && (packet.payload.is_empty() || begin + whole > end) {
        End::InTransport
    } else {
        End::BehindHeaders
    }
}

fn tests_transport(rule: &PortRule) -> bool {
    rule.tests.iter().any(Test::is_transport)
}

fn tests_protocol(rule: &PortRule) -> bool {
    let is_test = |test: &Test| matches!(test, Test::Number { field: Number::Protocol, .. });
    matches!(rule.kind, FrameKind::Ip(_, Some(_))) || rule.tests.iter().any(is_test)
}
