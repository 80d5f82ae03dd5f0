//! Reads the kernel's reports about traced frames (`NFT_MSG_TRACE` of linux/netfilter/nf_tables.h).

use crate::firewall::nft_dump::Attributes;
use crate::firewall::nft_kernel::FAMILY;
use crate::firewall::port_nft::PortTable;
use crate::firewall::port_roles::RuleTable;
use crate::firewall::rules::Version;

/// The group of changes of rules (linux/netfilter/nfnetlink.h).
pub(super) const NFNLGRP_NFTABLES: u32 = 7;
/// The group of reports about traced frames.
pub(super) const NFNLGRP_NFTRACE: u32 = 9;

const NFT_MSG_NEWGEN: u8 = 15;
const NFT_MSG_TRACE: u8 = 17;
const NFTA_TRACE_TABLE: u16 = 1;
const NFTA_TRACE_CHAIN: u16 = 2;
const NFTA_TRACE_RULE_HANDLE: u16 = 3;
const NFTA_TRACE_TYPE: u16 = 4;
const NFTA_TRACE_VERDICT: u16 = 5;
const NFTA_TRACE_ID: u16 = 6;
const NFTA_TRACE_LL_HEADER: u16 = 7;
const NFTA_TRACE_NETWORK_HEADER: u16 = 8;
const NFTA_TRACE_TRANSPORT_HEADER: u16 = 9;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
/// The type of a report about a return to the calling chain: by a rule, or without a rule at the
/// end of the chain.
const NFT_TRACETYPE_RETURN: u32 = 2;
const NFT_JUMP: i32 = -3;
const NFT_GOTO: i32 = -4;
const NFT_RETURN: i32 = -5;

/// The verdict in a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TraceVerdict {
    Drop,
    Accept,
    /// The frame goes on in this chain, from which it returns.
    Jump(String),
    /// The frame goes on in this chain and does not return.
    Goto(String),
    /// The frame returns to the calling chain, by a rule or at the end of the chain.
    Return,
    /// The frame goes on.
    Continue,
}

/// A report about one rule, or about the end of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TraceMessage {
    /// The kernel's number of the frame, which a later frame may get, too.
    pub(super) id: u32,
    /// The table; `None` for a table without chains of ports.
    pub(super) table: Option<RuleTable>,
    pub(super) chain: String,
    /// The handle of the rule; `None` for the end of a chain.
    pub(super) handle: Option<u64>,
    pub(super) verdict: TraceVerdict,
    /// The first bytes of the frame, from the Ethernet header on, in the first report of each hook;
    /// otherwise empty.
    pub(super) head: Vec<u8>,
}

fn kind(message: &[u8]) -> Option<u8> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let [subsystem, kind] = kind.to_be_bytes();
    (i32::from(subsystem) == libc::NFNL_SUBSYS_NFTABLES).then_some(kind)
}

/// Returns whether a message is the end of a transaction that changed rules.
pub(super) fn is_new_generation(message: &[u8]) -> bool {
    kind(message) == Some(NFT_MSG_NEWGEN)
}

impl TraceMessage {
    /// Reads a netlink message, whose header has `header` bytes; `None` for other messages.
    pub(super) fn parse(message: &[u8], header: usize) -> Option<Self> {
        if kind(message) != Some(NFT_MSG_TRACE) {
            return None;
        }
        let family = *message.get(header)?;
        let all = Attributes(message.get(header + FAMILY..)?);
        let name = all.text(NFTA_TRACE_TABLE)?;
        let table = match (i32::from(family), name.as_str()) {
            (libc::NFPROTO_BRIDGE, "nat") => Some(RuleTable::Ethernet),
            (libc::NFPROTO_IPV4, "filter") => Some(RuleTable::Filter(Version::V4)),
            (libc::NFPROTO_IPV6, "filter") => Some(RuleTable::Filter(Version::V6)),
            (libc::NFPROTO_BRIDGE, name) => PortTable::named(name).map(RuleTable::Bridge),
            (libc::NFPROTO_NETDEV, name) => PortTable::named(name).map(RuleTable::Netdev),
            _ => None,
        };
        let verdict = match all.number(NFTA_TRACE_TYPE)? {
            NFT_TRACETYPE_RETURN => TraceVerdict::Return,
            _ => verdict(&all),
        };
        Some(TraceMessage {
            id: all.number(NFTA_TRACE_ID)?,
            table,
            chain: all.text(NFTA_TRACE_CHAIN)?,
            handle: all.long(NFTA_TRACE_RULE_HANDLE),
            verdict,
            head: head(&all),
        })
    }
}

fn verdict(all: &Attributes<'_>) -> TraceVerdict {
    let Some(verdict) = all.nested(NFTA_TRACE_VERDICT) else { return TraceVerdict::Continue };
    match verdict.number(NFTA_VERDICT_CODE).map(|code| code as i32) {
        Some(libc::NF_DROP) => TraceVerdict::Drop,
        Some(libc::NF_ACCEPT) => TraceVerdict::Accept,
        Some(NFT_RETURN) => TraceVerdict::Return,
        Some(NFT_JUMP) => TraceVerdict::Jump(verdict.text(NFTA_VERDICT_CHAIN).unwrap_or_default()),
        Some(NFT_GOTO) => TraceVerdict::Goto(verdict.text(NFTA_VERDICT_CHAIN).unwrap_or_default()),
        _ => TraceVerdict::Continue,
    }
}

/// Returns the first bytes of the frame. The kernel reports the network header and the transport
/// header apart. An IPv6 packet with extension headers has its transport header elsewhere, so that
/// header is left out.
fn head(all: &Attributes<'_>) -> Vec<u8> {
    /// Hop-by-hop options, routing, fragment, authentication, destination options.
    const EXTENSIONS: [u8; 5] = [0, 43, 44, 51, 60];
    let bytes = |kind: u16| all.first(kind).unwrap_or_default();
    let (link, network) = (bytes(NFTA_TRACE_LL_HEADER), bytes(NFTA_TRACE_NETWORK_HEADER));
    let end = match network {
        [first, ..] if first >> 4 == 4 => Some(usize::from(first & 0xf) * 4),
        [first, _, _, _, _, _, next, ..] if first >> 4 == 6 => {
            (!EXTENSIONS.contains(next)).then_some(40)
        }
        _ => None,
    };
    let transport = bytes(NFTA_TRACE_TRANSPORT_HEADER);
    let packet = match end.and_then(|end| network.get(..end)) {
        Some(network) if !transport.is_empty() => [network, transport].concat(),
        _ => network.to_vec(),
    };
    match link {
        [] => [hidden_link(network).as_slice(), &packet].concat(),
        link => [link, &packet].concat(),
    }
}

/// Returns an Ethernet header without addresses for a frame whose header the kernel does not
/// report, as at the egress hook; empty if nothing was reported. The start of the packet tells
/// IPv4, IPv6 and ARP apart (RFC 791, 8200, 826); the EtherType of other frames is 0.
fn hidden_link(network: &[u8]) -> Vec<u8> {
    let ether_type: u16 = match network {
        [] => return Vec::new(),
        [first, ..] if first >> 4 == 4 => 0x0800,
        [first, ..] if first >> 4 == 6 => 0x86dd,
        [0, 1, 8, 0, 6, 4, ..] => 0x0806,
        _ => 0,
    };
    [&[0; 12], ether_type.to_be_bytes().as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::nft_kernel::{HEADER, attribute, message, text};

    /// The type of a report about a rule with another verdict.
    const NFT_TRACETYPE_RULE: u32 = 3;

    fn report(what: u32, verdict: i32, more: &[Vec<u8>]) -> Vec<u8> {
        let code = attribute(NFTA_VERDICT_CODE, &verdict.to_be_bytes());
        let chain = attribute(NFTA_VERDICT_CHAIN, &text("p7-from-ip"));
        let all = [
            attribute(NFTA_TRACE_ID, &5u32.to_be_bytes()),
            attribute(NFTA_TRACE_TYPE, &what.to_be_bytes()),
            attribute(NFTA_TRACE_CHAIN, &text("p7-from")),
            attribute(NFTA_TRACE_TABLE, &text("netlaunch_nwfilter")),
            attribute(NFTA_TRACE_VERDICT, &[code, chain].concat()),
            more.concat(),
        ];
        let kind = (libc::NFNL_SUBSYS_NFTABLES << 8) | i32::from(NFT_MSG_TRACE);
        message(kind, libc::NFPROTO_BRIDGE as u8, [0, 0], &all.concat(), 0)
    }

    #[test]
    fn a_report_is_read_with_its_rule_and_verdict() {
        let header = attribute(NFTA_TRACE_LL_HEADER, &[1; 14]);
        let rule = attribute(NFTA_TRACE_RULE_HANDLE, &9u64.to_be_bytes());
        let network = attribute(NFTA_TRACE_NETWORK_HEADER, &[0x45; 20]);
        for (what, code, handle, verdict) in [
            (NFT_TRACETYPE_RULE, 0, Some(9), TraceVerdict::Drop),
            (NFT_TRACETYPE_RULE, 1, Some(9), TraceVerdict::Accept),
            (NFT_TRACETYPE_RULE, -1, Some(9), TraceVerdict::Continue),
            (NFT_TRACETYPE_RULE, -3, Some(9), TraceVerdict::Jump("p7-from-ip".to_owned())),
            (NFT_TRACETYPE_RULE, -4, Some(9), TraceVerdict::Goto("p7-from-ip".to_owned())),
            (NFT_TRACETYPE_RULE, -5, Some(9), TraceVerdict::Return),
            (NFT_TRACETYPE_RETURN, -5, Some(9), TraceVerdict::Return),
            (NFT_TRACETYPE_RETURN, -1, None, TraceVerdict::Return),
        ] {
            let mut more = vec![header.clone(), network.clone()];
            more.extend(handle.map(|_| rule.clone()));
            let read = TraceMessage::parse(&report(what, code, &more), HEADER).unwrap();
            assert_eq!((read.handle, read.verdict), (handle, verdict));
            assert_eq!((read.id, read.chain.as_str()), (5, "p7-from"));
            assert_eq!(read.table, Some(RuleTable::Bridge(PortTable::FIRST)));
            assert_eq!(read.head.len(), 34);
        }
    }

    #[test]
    fn the_transport_header_stands_behind_a_network_header_without_extensions() {
        let v6 = |next: u8| [[0x60, 0, 0, 0, 0, 8, next].as_slice(), &[0; 33]].concat();
        for (network, length) in [
            (vec![0x45; 20], 14 + 20 + 8),
            (vec![0x45; 40], 14 + 20 + 8),
            (vec![0x46; 24], 14 + 24 + 8),
            (vec![0x45; 10], 14 + 10),
            (v6(17), 14 + 40 + 8),
            (v6(0), 14 + 40),
            (vec![0; 28], 14 + 28),
        ] {
            let attributes = [
                attribute(NFTA_TRACE_LL_HEADER, &[1; 14]),
                attribute(NFTA_TRACE_NETWORK_HEADER, &network),
                attribute(NFTA_TRACE_TRANSPORT_HEADER, &[2; 8]),
            ];
            let attributes = attributes.concat();
            assert_eq!(head(&Attributes(&attributes)).len(), length, "{network:x?}");
            let without_link = &attributes[attribute(NFTA_TRACE_LL_HEADER, &[1; 14]).len()..];
            let hidden = head(&Attributes(without_link));
            assert_eq!((hidden.len(), &hidden[..12]), (length, [0; 12].as_slice()));
        }
    }

    #[test]
    fn a_frame_without_a_reported_header_has_the_type_of_its_packet() {
        for (network, ether_type) in [
            (vec![0x45; 20], [8, 0]),
            (vec![0x60; 40], [0x86, 0xdd]),
            (vec![0, 1, 8, 0, 6, 4, 0, 1], [8, 6]),
            (vec![0, 2], [0, 0]),
        ] {
            let attributes = attribute(NFTA_TRACE_NETWORK_HEADER, &network);
            assert_eq!(head(&Attributes(&attributes))[12..14], ether_type);
        }
        assert!(head(&Attributes(&[])).is_empty());
    }

    #[test]
    fn other_and_damaged_messages_are_not_reports() {
        let whole = report(NFT_TRACETYPE_RULE, 1, &[]);
        for end in 0..whole.len() {
            let _ = TraceMessage::parse(&whole[..end], HEADER);
        }
        let kind = (libc::NFNL_SUBSYS_NFTABLES << 8) | i32::from(NFT_MSG_NEWGEN);
        let generation = message(kind, 0, [0, 0], &[], 0);
        assert!(is_new_generation(&generation) && !is_new_generation(&whole));
        assert_eq!(TraceMessage::parse(&generation, HEADER), None);
        assert_eq!(TraceMessage::parse(&[], HEADER), None);
    }
}
