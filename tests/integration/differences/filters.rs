//! Makes filters: every element and attribute of the format, sub chains with priorities, references
//! and lists of values.
//!
//! Rules about connections are made on request ([`Rules::Stateful`]).
//!
//! Values come from short lists, so that rules overlap. A rule that a backend refuses stays in few
//! filters only, because it makes the whole filter useless for that backend.

use netlaunch::firewall::FirewallBackend;
use netlaunch::firewall::rules::port::{PortRule, Test};
use netlaunch::nwfilter::{Attribute as A, Protocol, ValueType};

use super::case::{Case, refusal};
use super::random::Random;

const CHAINS: [&str; 14] = [
    "mac", "vlan", "stp", "arp", "rarp", "ipv4", "ipv6", "mac-a", "vlan-a", "stp-a", "arp-a",
    "rarp-a", "ipv4-a", "ipv6-a",
];

/// The variables, by the kind of their values.
const VARIABLES: [(&str, ValueType); 7] = [
    ("MACS", ValueType::Mac),
    ("V4", ValueType::V4),
    ("V6", ValueType::V6),
    ("PORTS", ValueType::U16),
    ("KINDS", ValueType::EtherType),
    ("PROTOCOLS", ValueType::IpProtocol),
    ("CODES", ValueType::U6),
];

/// The kind of rules that a filter has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Each rule tests the frame alone.
    Stateless,
    /// Most rules for IP protocols test the connection of a packet.
    Stateful,
}

/// Makes a case.
pub fn generate(random: &mut Random, kind: Rules) -> Case {
    let mut parameters = String::new();
    let values = 1 + random.below(3);
    for (name, kind) in VARIABLES {
        for _ in 0..values {
            let value = value(random, kind, A::Comment);
            parameters += &format!("<parameter name='{name}' value='{value}'/>");
        }
    }
    let subs = random.below(4);
    let chains: Vec<(String, &str)> =
        (0..subs).map(|number| (format!("sub{number}"), random.pick(&CHAINS))).collect();
    let mut documents =
        format!("<filter name='bound'><filterref filter='main'>{parameters}</filterref></filter>");
    let mut entries = rules(random, kind, &parameters, values);
    for (name, _) in &chains {
        let at = random.below(entries.len() + 1);
        entries.insert(at, format!("<filterref filter='{name}'/>"));
    }
    // With this last rule, a frame shows whether an earlier rule accepts it.
    if random.chance(50) {
        let end = ["", "<ip/>", "<mac/>", "<all/>", "<all-ipv6/>"];
        let end = random.pick(&end);
        entries.push(format!("<rule action='drop' direction='inout' priority='1000'>{end}</rule>"));
    }
    documents += &format!("<filter name='main' chain='root'>{}</filter>", entries.concat());
    for (name, chain) in &chains {
        let priority = match random.below(3) {
            0 => format!(" priority='{}'", random.pick(&[-900, -650, 0, 450, 500, 700])),
            _ => String::new(),
        };
        let entries = rules(random, kind, &parameters, values).concat();
        documents += &format!("<filter name='{name}' chain='{chain}'{priority}>{entries}</filter>");
    }
    Case::read(&documents).unwrap()
}

/// Makes rules that are valid with these values of the variables.
fn rules(random: &mut Random, kind: Rules, parameters: &str, values: usize) -> Vec<String> {
    let mut rules = Vec::new();
    let wanted = 1 + random.below(9);
    while rules.len() < wanted {
        let text = rule(random, kind, values);
        let alone = format!(
            "<filter name='bound'><filterref filter='main'>{parameters}</filterref></filter>\
             <filter name='main'>{text}</filter>"
        );
        let Some(case) = Case::read(&alone) else { continue };
        let Ok(compiled) = case.rules() else { continue };
        if kind == Rules::Stateless && compiled.rules().any(needs_more) {
            continue;
        }
        let refused = [FirewallBackend::Nftables, FirewallBackend::Iptables]
            .iter()
            .any(|backend| refusal(&compiled, *backend).is_some());
        if !refused || random.chance(2) {
            rules.push(text);
        }
    }
    rules
}

/// Returns whether a rule depends on facts outside the frame.
fn needs_more(rule: &PortRule) -> bool {
    !rule.tests.iter().all(Test::is_in_packet)
}

fn rule(random: &mut Random, kind: Rules, values: usize) -> String {
    const ACTIONS: [&str; 9] =
        ["accept", "drop", "accept", "drop", "accept", "drop", "reject", "return", "continue"];
    let action = random.pick(&ACTIONS);
    let direction = random.pick(&["in", "out", "inout"]);
    let priority = match random.below(3) {
        0 => format!(" priority='{}'", random.pick(&[-1000, -850, -650, -1, 0, 100, 499, 501])),
        _ => String::new(),
    };
    let share = if kind == Rules::Stateless { 85 } else { 25 };
    let stateless = if random.chance(share) { " statematch='false'" } else { "" };
    let head = format!("<rule action='{action}' direction='{direction}'{priority}{stateless}>");
    if random.chance(4) {
        return format!("{head}</rule>");
    }
    let mut chosen = random.pick(&Protocol::NAMES);
    // The rules of the link layer have no states.
    while kind == Rules::Stateful && !chosen.0.fields().iter().any(|f| f.0 == A::State) {
        chosen = random.pick(&Protocol::NAMES);
        if random.chance(8) {
            break;
        }
    }
    let (protocol, name) = chosen;
    let negated = if random.chance(20) { " match='no'" } else { "" };
    let attributes = attributes(random, kind, protocol, values);
    format!("{head}<{name}{negated}{attributes}/></rule>")
}

/// Chooses some attributes, and the attributes that these need.
fn attributes(random: &mut Random, kind: Rules, protocol: Protocol, values: usize) -> String {
    let fields = protocol.fields();
    let mut chosen: Vec<A> = Vec::new();
    for _ in 0..random.pick(&[0, 1, 1, 1, 2, 2, 3, 4]) {
        let mut next = Some(random.pick(fields).0);
        while let Some(attribute) = next {
            chosen.push(attribute);
            next = needed(attribute);
        }
    }
    let has_ports = chosen.contains(&A::SrcPortStart) || chosen.contains(&A::DstPortStart);
    if matches!(protocol, Protocol::Ip | Protocol::Ipv6) && (has_ports || chosen.contains(&A::Type))
    {
        chosen.push(A::IpProtocol);
    }
    let mut left_out = vec![A::IpSet, A::IpSetFlags, A::Comment];
    if kind == Rules::Stateless {
        left_out.push(A::ConnlimitAbove);
    } else if random.chance(40) {
        chosen.push(A::State);
    }
    let mut text = String::new();
    for (attribute, form) in fields {
        if !chosen.contains(attribute) || left_out.contains(attribute) {
            continue;
        }
        let variable = VARIABLES.iter().find(|(_, of)| of == form);
        let is_type = protocol == Protocol::Ipv6 && chosen.contains(&A::Type);
        let value = match (attribute, variable) {
            (A::IpProtocol, _) if is_type => "icmpv6".to_owned(),
            (A::IpProtocol, _) if has_ports => {
                random.pick(&["tcp", "udp", "sctp", "udplite", "33"]).to_owned()
            }
            (_, Some((name, _))) if random.chance(12) => match random.below(3) {
                0 => format!("${name}"),
                1 => format!("${name}[{}]", random.below(values)),
                _ => format!("${name}[@{}]", random.below(2)),
            },
            _ if *form == ValueType::State && kind == Rules::Stateful => {
                random.pick(&STATES).to_owned()
            }
            _ => value(random, *form, *attribute),
        };
        text += &format!(" {}='{value}'", attribute.name());
    }
    text
}

/// Returns the attribute without which another one has no meaning.
fn needed(attribute: A) -> Option<A> {
    Some(match attribute {
        A::SrcMacMask => A::SrcMacAddr,
        A::DstMacMask => A::DstMacAddr,
        A::RootAddressMask => A::RootAddress,
        A::SenderAddressMask => A::SenderAddress,
        A::SrcIpMask => A::SrcIpAddr,
        A::DstIpMask => A::DstIpAddr,
        A::ArpSrcIpMask => A::ArpSrcIpAddr,
        A::ArpDstIpMask => A::ArpDstIpAddr,
        A::SrcIpTo => A::SrcIpFrom,
        A::DstIpTo => A::DstIpFrom,
        A::SrcPortEnd => A::SrcPortStart,
        A::DstPortEnd => A::DstPortStart,
        A::TypeEnd | A::Code => A::Type,
        A::CodeEnd => A::Code,
        A::RootPriorityHi => A::RootPriority,
        A::RootCostHi => A::RootCost,
        A::SenderPriorityHi => A::SenderPriority,
        A::PortHi => A::Port,
        A::AgeHi => A::Age,
        A::MaxAgeHi => A::MaxAge,
        A::HelloTimeHi => A::HelloTime,
        A::ForwardDelayHi => A::ForwardDelay,
        _ => return None,
    })
}

fn value(random: &mut Random, kind: ValueType, attribute: A) -> String {
    // Few values are any value.
    if random.chance(6) {
        match kind {
            ValueType::U16 => return (random.number() as u16).to_string(),
            ValueType::U8 | ValueType::IpProtocol => return random.byte().to_string(),
            ValueType::U6 => return (random.byte() & 63).to_string(),
            ValueType::V4 => return format!("10.2.{}.{}", random.byte(), random.byte()),
            ValueType::V4Mask => return random.below(33).to_string(),
            ValueType::V6Mask => return random.below(129).to_string(),
            ValueType::EtherType => {
                return format!("{:#x}", 0x600 + random.below(0x1_0000 - 0x600));
            }
            _ => {}
        }
    }
    random.pick(values(kind, attribute)).to_owned()
}

const PORTS: [&str; 9] = ["0", "1", "22", "67", "80", "8000", "0x1f90", "20000", "65535"];
const STATES: [&str; 8] = [
    "NEW",
    "ESTABLISHED",
    "NEW,ESTABLISHED",
    "ESTABLISHED,RELATED",
    "INVALID",
    "RELATED",
    "NONE",
    "NEW,INVALID",
];
const BYTES: [&str; 9] = ["0", "1", "3", "8", "127", "128", "135", "254", "255"];
const V6: [&str; 9] = [
    "2001:db8::4",
    "2001:db8::5",
    "2001:db8::ff",
    "2001:db8:9::9",
    "fe80::1",
    "::",
    "ff02::1",
    "::ffff:10.2.3.4",
    "8000::",
];

/// Returns the usual values of an attribute.
fn values(kind: ValueType, attribute: A) -> &'static [&'static str] {
    match (attribute, kind) {
        (_, ValueType::Mac) => &[
            "52:54:00:11:22:33",
            "52:54:00:aa:bb:cc",
            "52:54:00:11:22:30",
            "02:00:00:00:00:10",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "01:80:c2:00:00:00",
            "33:33:00:00:00:01",
        ],
        (_, ValueType::MacMask) => &[
            "ff:ff:ff:ff:ff:ff",
            "ff:ff:ff:00:00:00",
            "ff:ff:ff:ff:ff:f0",
            "fe:00:00:00:00:01",
            "00:00:00:00:00:00",
            "01:00:00:00:00:00",
            "00:00:00:00:00:ff",
            "00:ff:00:ff:00:ff",
        ],
        (_, ValueType::V4) => &[
            "10.2.3.1",
            "10.2.3.4",
            "10.2.3.5",
            "10.2.3.6",
            "10.2.16.9",
            "192.0.2.200",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "128.0.0.0",
        ],
        (_, ValueType::V4Mask) => &["32", "31", "24", "255.255.255.252", "0", "1", "8", "17"],
        (_, ValueType::V6) => &V6,
        (_, ValueType::V6Mask) => &["128", "127", "64", "120", "0", "1", "10", "96", "ffff::"],
        (_, ValueType::U6) => &["0", "1", "8", "46", "0x2e", "62", "63"],
        (_, ValueType::U8) => &BYTES,
        (_, ValueType::U12) => &["0", "1", "5", "7", "0xfff", "4094"],
        (A::HwType | A::ProtocolType, _) => &["0", "1", "12", "0x0800", "2048", "65535", "0x0806"],
        (_, ValueType::U16) => &PORTS,
        (_, ValueType::U32) => &["0", "1", "4", "255", "65536", "0x80000000", "4294967295"],
        (_, ValueType::EtherType) => &[
            "ipv4", "arp", "ipv6", "rarp", "0x88b5", "0x600", "vlan", "0x88a8", "0x88cc", "0xffff",
            "0x8863",
        ],
        (_, ValueType::IpProtocol) => &[
            "tcp", "udp", "sctp", "udplite", "esp", "ah", "igmp", "icmp", "icmpv6", "33", "0",
            "255", "47", "4", "41", "44", "43", "60", "59", "135",
        ],
        (_, ValueType::Opcode) => {
            &["Request", "Reply", "Request_Reverse", "0", "9", "256", "65535"]
        }
        (_, ValueType::Boolean) => &["true", "true", "false"],
        (_, ValueType::TcpFlags) => &[
            "SYN/SYN,ACK",
            "SYN,ACK/SYN",
            "ALL/NONE",
            "FIN/NONE",
            "ALL/ALL",
            "NONE/NONE",
            "NONE/SYN",
            "SYN,FIN/SYN,FIN",
            "RST,URG/PSH",
            "ALL/SYN,ACK",
        ],
        (_, ValueType::State) => &["NONE", "NONE", "NEW"],
        (_, ValueType::IpSet | ValueType::IpSetFlags | ValueType::Comment) => &["x"],
    }
}
