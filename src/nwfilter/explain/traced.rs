//! Explains frames that the kernel has judged, from its trace.
//!
//! The kernel says which rule decided. The explanation has the same form as that of
//! [`super::Judge`], without the rules that were tried.

use super::evaluate::{Decider, Explanation, Stage, StageEnd, Verdict};
use super::frame::Frame;
use super::packet::{ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::firewall::rules::Version;
use crate::firewall::rules::port::{Address, FrameKind, PortRules, PortVerdict};
use crate::firewall::{PortRoles, RuleRole, TracedFrame};

const V4: FrameKind = FrameKind::Ip(Version::V4, None);
const V6: FrameKind = FrameKind::Ip(Version::V6, None);

/// Returns the explanation of a traced frame. `rules` are the port's rules. Returns `None` if a
/// rule that decided is gone.
pub fn traced<'a>(rules: &'a PortRules, frame: &TracedFrame) -> Option<Explanation<'a>> {
    let mut stages = Vec::new();
    let read = Frame::read(&frame.head, usize::MAX);
    let is_packet = read.map_or(true, |read| read.is(V4) || read.is(V6));
    for decided in &frame.stages {
        // In the kernel, every frame passes the second stage, which has no rule for other frames.
        if decided.packets && decided.by == Some(RuleRole::End) && !is_packet {
            continue;
        }
        let decider = match &decided.by {
            None | Some(RuleRole::Other) => return None,
            Some(RuleRole::End | RuleRole::Untracked) => None,
            Some(RuleRole::Rule(name)) => {
                let (chain, rule) = PortRoles::rule(rules, name)?;
                Some(Decider { rule, chain })
            }
        };
        let rejects = decider.is_some_and(|by| by.rule.verdict == PortVerdict::Reject);
        let verdict = match (decided.stops, decided.packets && rejects) {
            (false, _) => Verdict::Pass,
            (true, true) => Verdict::Reject,
            (true, false) => Verdict::Drop,
        };
        let stage = if decided.packets { Stage::Packets } else { Stage::Frames };
        let (depends, tried) = (Vec::new(), Vec::new());
        stages.push(StageEnd { stage, verdict, rule: decider, depends, tried });
    }
    let stops = stages.iter().map(|stage| stage.verdict).find(|verdict| verdict.stops());
    Some(Explanation { verdict: stops.unwrap_or(Verdict::Pass), stages })
}

/// Returns one line about a frame: its hardware addresses, its protocol, and its addresses in that
/// protocol. `head` is the start of the frame. The hardware addresses are left out if both are 0,
/// since the kernel does not report those of some frames.
pub fn summary(head: &[u8]) -> String {
    let Ok(frame) = Frame::read(head, usize::MAX) else { return "unknown frame".to_owned() };
    if head.starts_with(&[0; 12]) {
        return match head.get(12..14) {
            Some([0, 0]) => "unknown frame".to_owned(),
            _ => protocol(&frame, head),
        };
    }
    let mac = |at: usize| {
        let bytes = head.get(at..at + 6).unwrap_or_default();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
    };
    format!("{} > {} {}", mac(6), mac(0), protocol(&frame, head))
}

fn protocol(frame: &Frame<'_>, head: &[u8]) -> String {
    let between = |from: Address, to: Address| {
        Some((frame.address(from)?.to_string(), frame.address(to)?.to_string()))
    };
    if let Some((source, destination)) = between(Address::ArpSender, Address::ArpTarget) {
        let name = if frame.is(FrameKind::Arp) { "ARP" } else { "RARP" };
        return format!("{name} {source} > {destination}");
    }
    let Some((source, destination)) = between(Address::Source, Address::Destination) else {
        let kind = head.get(12..14).map_or(0, |kind| u16::from_be_bytes([kind[0], kind[1]]));
        return format!("EtherType {kind:#06x}");
    };
    let number = frame.packet().map(|packet| packet.protocol);
    let name = match number {
        Some(TCP) => "TCP".to_owned(),
        Some(UDP) => "UDP".to_owned(),
        Some(SCTP) => "SCTP".to_owned(),
        Some(ICMP) => "ICMP".to_owned(),
        Some(ICMPV6) => "ICMPv6".to_owned(),
        Some(number) => format!("IP protocol {number}"),
        None if frame.is(V4) => "IPv4".to_owned(),
        None => "IPv6".to_owned(),
    };
    let ports = frame.ports();
    let end = |address: String, port: Option<u16>| match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address,
    };
    let (from, to) = (ports.map(|(from, _)| from), ports.map(|(_, to)| to));
    format!("{name} {} > {}", end(source, from), end(destination, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.chunks(2).map(|two| pair(two).unwrap()).collect()
    }

    #[test]
    fn a_frame_is_named_by_its_addresses_and_its_protocol() {
        const MACS: &str = "ffffffffffff 525400112233";
        const TO: &str = "52:54:00:11:22:33 > ff:ff:ff:ff:ff:ff";
        for (payload, words) in [
            (
                "0800 4500001c000000004011 0000 0a020304 0a020309 0044 0043 0008 0000",
                "UDP 10.2.3.4:68 > 10.2.3.9:67",
            ),
            (
                "0800 4500001c000000004001 0000 0a020304 0a020309 0800 0000 0000 0000",
                "ICMP 10.2.3.4 > 10.2.3.9",
            ),
            (
                "0800 4500001c000000004032 0000 0a020304 0a020309",
                "IP protocol 50 10.2.3.4 > 10.2.3.9",
            ),
            (
                "86dd 60000000 0004 06 40 20010db8000000000000000000000001 20010db8000000000000000000000002 0016 0050",
                "TCP [2001:db8::1]:22 > [2001:db8::2]:80",
            ),
            (
                "0806 0001 0800 06 04 0001 525400112233 0a020304 000000000000 0a020309",
                "ARP 10.2.3.4 > 10.2.3.9",
            ),
            ("88b5 0000", "EtherType 0x88b5"),
        ] {
            let frame = bytes(&format!("{MACS}{payload}"));
            assert_eq!(summary(&frame), format!("{TO} {words}"));
            for end in 0..frame.len() {
                let _ = summary(&frame[..end]);
            }
        }
        assert_eq!(summary(&[]), "unknown frame");
        assert_eq!(summary(&[0; 14]), "unknown frame");
        let hidden = "000000000000 000000000000 0806 0001 0800 06 04 0001 525400112233 0a020304";
        let hidden = bytes(&format!("{hidden} 000000000000 0a020309"));
        assert_eq!(summary(&hidden), "ARP 10.2.3.4 > 10.2.3.9");
    }
}
