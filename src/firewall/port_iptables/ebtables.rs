//! Renders the rules of the first stage for ebtables.
//!
//! A rule with a test that ebtables lacks is refused ([`Unexpressible`]), since the filter
//! would have another meaning without the test. A test that needs several options becomes
//! several lines.

use ipnet::IpNet;

use super::packets::always;
use super::subnets::tested_twice;
use super::{Tested, Unexpressible};
use crate::firewall::port_nft::words::colons;
use crate::firewall::rules::Version;
use crate::firewall::rules::port::{
    Address, Addresses, FrameKind, Hardware, Number, PortRule, PortVerdict, Test,
};

/// The most lines of one rule whose addresses are split into subnets.
pub(super) const MOST_LINES: usize = 256;

pub(super) fn kind(kind: FrameKind) -> Vec<String> {
    match (kind, kind.ether_type()) {
        (FrameKind::Stp, _) => vec!["-d 01:80:c2:00:00:00".to_owned()],
        (_, Some(ether_type)) => vec![format!("-p {ether_type:#06x}")],
        (_, None) => Vec::new(),
    }
}

/// Returns a rule as one line or several, or as none if it never applies.
pub(super) fn link_rule(rule: &PortRule) -> Result<Vec<String>, Unexpressible> {
    let mut lines = vec![kind(rule.kind)];
    let twice = tested_twice(&rule.tests);
    let joined = twice.iter().map(|(field, nets)| any_of(*field, nets, rule.kind));
    let single = rule.tests.iter().filter(|test| !twice.has(test));
    for tested in single.map(|test| link_test(test, rule.kind)).chain(joined) {
        let words = match tested {
            Tested::Always => continue,
            Tested::Never => return Ok(Vec::new()),
            Tested::Cannot(what) => {
                return Err(Unexpressible { origin: rule.origin.clone(), what });
            }
            Tested::If(words) => words,
            Tested::AnyOf(alternatives) if lines.len() * alternatives.len() > MOST_LINES => {
                let what = "addresses of too many subnets in the link layer";
                return Err(Unexpressible { origin: rule.origin.clone(), what });
            }
            Tested::AnyOf(alternatives) => {
                lines = lines
                    .iter()
                    .flat_map(|line| {
                        alternatives
                            .iter()
                            .map(|word| [line.as_slice(), std::slice::from_ref(word)].concat())
                    })
                    .collect();
                continue;
            }
        };
        for line in &mut lines {
            line.push(words.clone());
        }
    }
    let target = match rule.verdict {
        PortVerdict::Accept => "ACCEPT",
        PortVerdict::Drop | PortVerdict::Reject => "DROP",
        PortVerdict::Return => "RETURN",
        PortVerdict::Continue => "CONTINUE",
    };
    Ok(lines
        .into_iter()
        .map(|line| [line, vec![format!("-j {target}")]].concat().join(" "))
        .collect())
}

/// Returns `! ` for a negated test. ebtables expects it after the option.
pub(super) fn not(negated: bool) -> &'static str {
    if negated { "! " } else { "" }
}

/// Renders a test of a rule for frames of this kind.
pub(super) fn link_test(test: &Test, kind: FrameKind) -> Tested {
    let v6 = matches!(kind, FrameKind::Ip(Version::V6, _));
    let ip = if v6 { "ip6" } else { "ip" };
    match test {
        Test::Hardware { mask: [0, 0, 0, 0, 0, 0], negated, .. } => always(*negated),
        Test::Hardware { field: Hardware::DhcpClient, .. } => {
            Tested::Cannot("a DHCP message's client address in the link layer")
        }
        Test::Hardware { field, address, mask, negated } => {
            let option = match field {
                Hardware::Source => "-s",
                Hardware::Destination => "-d",
                Hardware::ArpSender => "--arp-mac-src",
                Hardware::ArpTarget => "--arp-mac-dst",
                Hardware::StpRoot => "--stp-root-addr",
                Hardware::StpSender | Hardware::DhcpClient => "--stp-sender-addr",
            };
            let not = not(*negated);
            Tested::If(format!("{option} {not}{}/{}", colons(*address), colons(*mask)))
        }
        Test::Number { field: Number::Dscp, negated: true, .. } => {
            Tested::Cannot("a dscp under match='no' in the link layer")
        }
        // VLAN number 4095 is reserved (IEEE 802.1Q, 9.6), and ebtables refuses it.
        Test::Number { field: Number::VlanId, first: 4095, .. } => {
            Tested::Cannot("the reserved VLAN number 4095")
        }
        // ebtables tests the whole byte, whose two low bits are not part of the code point (RFC
        // 3168).
        Test::Number { field: Number::Dscp, first, .. } => {
            let option = if v6 { "--ip6-tclass" } else { "--ip-tos" };
            Tested::AnyOf(
                (0..4).map(|ecn| format!("{option} {:#04x}", (first << 2) | ecn)).collect(),
            )
        }
        Test::Number { field, first, last, negated } => {
            Tested::If(number(*field, *first, *last, not(*negated), ip))
        }
        Test::Icmp { types, codes, negated } => {
            let (first, last) = codes.unwrap_or((0, u8::MAX));
            let not = not(*negated);
            Tested::If(format!("--ip6-icmp-type {not}{}:{}/{first}:{last}", types.0, types.1))
        }
        Test::Address { addresses: Addresses::Net(net), negated, .. } if net.prefix_len() == 0 => {
            always(*negated)
        }
        Test::Address { field, addresses: Addresses::Net(net), negated } => {
            Tested::If(address(*field, not(*negated), net, kind))
        }
        Test::Neighbor(_) => Tested::Cannot("a neighbor discovery message in the link layer"),
        Test::Gratuitous => Tested::If("--arp-gratuitous".to_owned()),
        Test::Address { .. }
        | Test::TcpFlags { .. }
        | Test::Set { .. }
        | Test::Connections { .. }
        | Test::State { .. } => Tested::Cannot("a test of the network layer"),
    }
}

/// Returns the test whether an address is in one of these subnets.
pub(super) fn any_of(field: Address, nets: &[IpNet], kind: FrameKind) -> Tested {
    match nets {
        [] => Tested::Never,
        [all] if all.prefix_len() == 0 => Tested::Always,
        _ => Tested::AnyOf(nets.iter().map(|net| address(field, "", net, kind)).collect()),
    }
}

fn address(field: Address, not: &str, net: &IpNet, kind: FrameKind) -> String {
    let ip = if matches!(kind, FrameKind::Ip(Version::V6, _)) { "ip6" } else { "ip" };
    let option = match field {
        Address::Source => format!("--{ip}-source"),
        Address::Destination => format!("--{ip}-destination"),
        Address::ArpSender => "--arp-ip-src".to_owned(),
        Address::ArpTarget => "--arp-ip-dst".to_owned(),
    };
    format!("{option} {not}{}", plain(net))
}

/// Returns a subnet as text; a single address has no prefix length.
fn plain(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.trunc().to_string()
    }
}

fn number(field: Number, first: u32, last: u32, not: &str, ip: &str) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}:{last}") };
    match field {
        Number::EtherType => format!("-p {not}{first:#06x}"),
        Number::VlanId => format!("--vlan-id {not}{first}"),
        Number::VlanEncapsulated => format!("--vlan-encap {not}{first:04x}"),
        Number::StpType => format!("--stp-type {not}{first}"),
        Number::StpFlags => format!("--stp-flags {not}{first}"),
        Number::StpRootPriority => format!("--stp-root-prio {not}{range}"),
        Number::StpRootCost => format!("--stp-root-cost {not}{range}"),
        Number::StpSenderPriority => format!("--stp-sender-prio {not}{range}"),
        Number::StpPort => format!("--stp-port {not}{range}"),
        Number::StpAge => format!("--stp-msg-age {not}{range}"),
        Number::StpMaxAge => format!("--stp-max-age {not}{range}"),
        Number::StpHelloTime => format!("--stp-hello-time {not}{range}"),
        Number::StpForwardDelay => format!("--stp-forward-delay {not}{range}"),
        Number::ArpHardware => format!("--arp-htype {not}{first}"),
        Number::ArpProtocol => format!("--arp-ptype {not}{first:#06x}"),
        Number::ArpOperation => format!("--arp-opcode {not}{first}"),
        Number::Protocol => format!("--{ip}-protocol {not}{first}"),
        Number::Dscp => format!("--ip-tos {not}{:#04x}", first << 2),
        Number::SourcePort => format!("--{ip}-source-port {not}{range}"),
        Number::DestinationPort => format!("--{ip}-destination-port {not}{range}"),
    }
}
