//! Renders one rule of a network in the words of nft.
//!
//! Protocols are written as numbers, since nft would look names up in files.

use std::fmt::Write;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::render_nft::family;
use crate::firewall::rules::{AddressRange, Match, Rule, Side, Transport, Verdict, Version};
use crate::types::PortRange;

/// Returns the text of a rule, without its chain.
pub(super) fn rule(rule: &Rule, version: Version) -> String {
    let mut text = String::new();
    for one in &rule.matches {
        text.push_str(&self::matching(one, version));
        text.push(' ');
    }
    text.push_str(&verdict(&rule.verdict));
    text
}

fn matching(one: &Match, version: Version) -> String {
    let family = family(version);
    let subnet = |which: &str, subnet: &IpNet| format!("{family} {which} {subnet}");
    match one {
        Match::Interface(Side::In, name) => format!("iifname \"{name}\""),
        Match::Interface(Side::Out, name) => format!("oifname \"{name}\""),
        Match::Source(net) => subnet("saddr", net),
        Match::Destination(net) => subnet("daddr", net),
        Match::Protocol(Transport::Tcp) => "meta l4proto 6".to_owned(),
        Match::Protocol(Transport::Udp) => "meta l4proto 17".to_owned(),
        Match::SourcePort(transport, port) => format!("{} sport {port}", header(*transport)),
        Match::DestinationPort(transport, port) => format!("{} dport {port}", header(*transport)),
        Match::DestinationPorts(transport, ports) => {
            format!("{} dport {ports}", header(*transport))
        }
        Match::Established => "ct state established,related".to_owned(),
        Match::Translated => "ct status dnat".to_owned(),
        Match::FromHostAddress => "fib saddr type local".to_owned(),
        Match::ToHostAddress => "fib daddr type local".to_owned(),
    }
}

/// Returns nft's keyword for the header, which nft does not look up in a file.
fn header(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Reject => "reject".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::DestinationNat { address, transport, from, to } => {
            format!("dnat to {}", translated(address, *transport, *from, *to))
        }
        Verdict::Masquerade { ports: None } => "masquerade".to_owned(),
        Verdict::Masquerade { ports: Some(ports) } => {
            format!("masquerade to :{}", self::ports(ports))
        }
        Verdict::SourceNat { addresses, ports } => {
            let mut text = format!("snat to {}", self::addresses(addresses, ports.is_some()));
            if let Some(ports) = ports {
                let _ = write!(text, ":{}", self::ports(ports));
            }
            text
        }
    }
}

/// Returns the new destination. nft has no form for a range that becomes another range, so such a
/// range is a map.
fn translated(address: &IpAddr, transport: Transport, from: PortRange, to: PortRange) -> String {
    let before_port = || match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    match (from == to, to.first() == to.last()) {
        (true, _) => address.to_string(),
        (false, true) => format!("{}:{to}", before_port()),
        (false, false) => {
            let pairs = from.ports().zip(to.ports()).map(|(from, to)| format!("{from} : {to}"));
            let pairs: Vec<String> = pairs.collect();
            let header = header(transport);
            format!("{address} : {header} dport map {{ {} }}", pairs.join(", "))
        }
    }
}

fn ports(ports: &RangeInclusive<u16>) -> String {
    if ports.start() == ports.end() {
        ports.start().to_string()
    } else {
        format!("{}-{}", ports.start(), ports.end())
    }
}

/// Returns the addresses as text. Before a port, an IPv6 address is in brackets, and so is each end
/// of a range.
fn addresses(range: &AddressRange, with_ports: bool) -> String {
    match range {
        AddressRange::V6(first, last) if with_ports && first == last => format!("[{first}]"),
        AddressRange::V6(first, last) if with_ports => format!("[{first}]-[{last}]"),
        _ => range.to_string(),
    }
}
