//! Generates filters as documents, so that a person can read and try a failing one.

use netlaunch::firewall::port_iptables;
use netlaunch::firewall::port_nft::{self, Extras};
use netlaunch::firewall::rules::port::PortRules;
use netlaunch::nwfilter::{
    Attribute as A, Filters, Protocol, ValueType, Variables, compile, flatten, parse,
};
use proptest::prelude::*;

/// The parts of a rule, as numbers that select from lists.
#[derive(Debug, Clone)]
pub struct RuleSeed {
    action: usize,
    direction: usize,
    priority: usize,
    protocol: usize,
    negated: bool,
    /// Whether each attribute is present, and the number of its value.
    attributes: Vec<(bool, usize)>,
}

/// The kind of rules that a filter may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracking {
    /// Rules that look at each packet alone.
    Without,
    /// Rules that also track connections.
    With,
}

const CHAINS: [&str; 7] = ["mac", "vlan", "stp-x", "arp", "rarp", "ipv4-y", "ipv6"];

pub fn seeds() -> impl Strategy<Value = Vec<(usize, RuleSeed)>> {
    let attributes = prop::collection::vec((prop::bool::weighted(0.25), 0..1000usize), 26);
    let pick = || 0..1000usize;
    let rule = (pick(), pick(), pick(), pick(), prop::bool::weighted(0.2), attributes).prop_map(
        |(action, direction, priority, protocol, negated, attributes)| RuleSeed {
            action,
            direction,
            priority,
            protocol,
            negated,
            attributes,
        },
    );
    prop::collection::vec((pick(), rule), 4..24)
}

/// A filter and the filters that it refers to, as documents.
#[derive(Debug, Clone)]
pub struct Documents(pub Vec<String>);

/// Makes the documents of these rules. Leaves out rules that are invalid or that a backend cannot
/// express.
pub fn documents(seeds: &[(usize, RuleSeed)], tracking: Tracking) -> Documents {
    let mut chains: Vec<(&str, Vec<String>)> = vec![("root", Vec::new())];
    for (place, seed) in seeds {
        let text = rule(seed, tracking);
        let chain = if place % 3 == 0 { CHAINS[place / 3 % CHAINS.len()] } else { "root" };
        let alone = Documents(vec![document("alone", chain, &[], std::slice::from_ref(&text))]);
        if rules(&alone).is_none() {
            continue;
        }
        match chains.iter_mut().find(|(name, _)| *name == chain) {
            Some((_, rules)) => rules.push(text),
            None => chains.push((chain, vec![text])),
        }
    }
    // With this last rule, a frame shows whether an earlier rule accepts it.
    if seeds.first().is_some_and(|(place, _)| place % 2 == 0) {
        chains[0].1.push("<rule action='drop' direction='inout' priority='1000'/>".to_owned());
    }
    let others: Vec<_> = chains[1..].iter().map(|(chain, _)| format!("in-{chain}")).collect();
    let all = chains.iter().enumerate().map(|(number, (chain, rules))| match number {
        0 => document("generated", chain, &others, rules),
        number => document(&others[number - 1], chain, &[], rules),
    });
    Documents(all.collect())
}

fn document(name: &str, chain: &str, others: &[String], rules: &[String]) -> String {
    let references: String =
        others.iter().map(|other| format!("  <filterref filter='{other}'/>\n")).collect();
    let rules: String = rules.iter().map(|rule| format!("  {rule}\n")).collect();
    format!("<filter name='{name}' chain='{chain}'>\n{references}{rules}</filter>\n")
}

/// Compiles the documents. Returns `None` if they are invalid or a backend cannot express them.
pub fn rules(documents: &Documents) -> Option<PortRules> {
    let uuid = "3e3fce45-4f53-4fa7-bb32-11f34168b82b".parse().ok();
    let mut filters = Filters::new();
    let mut first = None;
    for text in &documents.0 {
        let filter = parse(text.as_bytes(), uuid).ok()?;
        first.get_or_insert_with(|| filter.clone());
        filters.insert(filter.name.clone(), filter);
    }
    let parts = flatten(&first?, &filters, &Variables::default()).ok()?;
    let (rules, _) = compile(&parts).ok()?;
    let extras = Extras { trace: false, counters: false, reject: true };
    let port = "vnet0".parse().ok()?;
    port_nft::port(1, &port, &rules, extras).ok()?;
    port_iptables::port(1, &port, &rules).ok()?;
    Some(rules)
}

fn rule(seed: &RuleSeed, tracking: Tracking) -> String {
    const ACTIONS: [&str; 8] =
        ["accept", "drop", "accept", "drop", "reject", "return", "continue", "accept"];
    const DIRECTIONS: [&str; 3] = ["in", "out", "inout"];
    const PRIORITIES: [&str; 4] = ["-200", "100", "500", "900"];
    let (protocol, name) = Protocol::NAMES[seed.protocol % Protocol::NAMES.len()];
    let mut text = String::new();
    // The index of the first value of a range. The last value must not be smaller.
    let mut first = 0;
    for ((attribute, kind), (there, pick)) in protocol.fields().iter().zip(&seed.attributes) {
        let needed = match attribute {
            // Ports need a protocol, and an ICMPv6 type needs ICMPv6.
            A::IpProtocol => seed.attributes.iter().any(|(there, _)| *there),
            _ => *there,
        };
        if !needed || is_left_out(*attribute, protocol, seed, tracking) {
            continue;
        }
        let value = match attribute {
            A::IpProtocol if protocol == Protocol::Ipv6 && pick % 2 == 0 => "icmpv6".to_owned(),
            _ => value(*attribute, *kind, *pick, &mut first),
        };
        text += &format!(" {}='{value}'", attribute.name());
    }
    let negated = if seed.negated { " match='no'" } else { "" };
    let stateless = match tracking {
        Tracking::Without => " statematch='false'",
        Tracking::With => "",
    };
    format!(
        "<rule action='{}' direction='{}' priority='{}'{stateless}><{name}{negated}{text}/></rule>",
        ACTIONS[seed.action % ACTIONS.len()],
        DIRECTIONS[seed.direction % DIRECTIONS.len()],
        PRIORITIES[seed.priority % PRIORITIES.len()],
    )
}

/// Returns whether an attribute is left out: the kernel's ebtables and ip6tables do not treat it as
/// documented, or it is not in the frame.
fn is_left_out(attribute: A, protocol: Protocol, seed: &RuleSeed, tracking: Tracking) -> bool {
    match attribute {
        A::IpSet | A::IpSetFlags | A::ConnlimitAbove | A::Comment => true,
        A::State => tracking == Tracking::Without,
        // The kernel's ebt_stp reads the fields of a BPDU at wrong offsets.
        _ if protocol == Protocol::Stp => !matches!(attribute, A::SrcMacAddr | A::SrcMacMask),
        // ebtables cannot negate this ARP test, and no other tool has it.
        A::Gratuitous => seed.negated,
        // Only later packets of a connection have such flags.
        A::Flags => tracking == Tracking::With,
        _ => false,
    }
}

/// Returns one of a few values, so that rules overlap. A frame can have the values next to it, too.
fn value(attribute: A, kind: ValueType, pick: usize, first: &mut usize) -> String {
    let of = |list: &[&str]| list[pick % list.len()].to_owned();
    let range = |first: &mut usize, list: &[&str]| {
        let last = *first + pick % (list.len() - *first);
        list[last].to_owned()
    };
    const MACS: [&str; 4] =
        ["52:54:00:11:22:33", "52:54:00:aa:bb:cc", "52:54:00:11:22:30", "02:00:00:00:00:10"];
    const V4: [&str; 5] = ["10.2.3.1", "10.2.3.4", "10.2.3.6", "10.2.16.9", "192.0.2.200"];
    const V6: [&str; 4] = ["2001:db8::4", "2001:db8::ff", "2001:db8:9::9", "fe80::1"];
    const PORTS: [&str; 6] = ["1", "22", "80", "8000", "20000", "65535"];
    const BYTES: [&str; 6] = ["0", "3", "8", "128", "129", "200"];
    match (attribute, kind) {
        (A::SrcIpTo | A::DstIpTo, ValueType::V4) => range(first, &V4),
        (A::SrcIpTo | A::DstIpTo, ValueType::V6) => {
            range(first, &["2001:db8::4", "2001:db8::ff", "2001:db8:9::9", "fe80::1"])
        }
        (A::SrcPortEnd | A::DstPortEnd, _) => range(first, &PORTS),
        (A::TypeEnd | A::CodeEnd, _) => range(first, &BYTES),
        (_, ValueType::Mac) => of(&MACS),
        (_, ValueType::MacMask) => of(&[
            "ff:ff:ff:ff:ff:ff",
            "ff:ff:ff:00:00:00",
            "ff:ff:ff:ff:ff:f0",
            "fe:00:00:00:00:01",
        ]),
        (_, ValueType::V4) => {
            *first = pick % V4.len();
            of(&V4)
        }
        (_, ValueType::V4Mask) => of(&["32", "24", "255.255.255.252", "0", "8"]),
        (_, ValueType::V6) => {
            *first = pick % V6.len();
            of(&V6)
        }
        (_, ValueType::V6Mask) => of(&["128", "64", "120", "0", "10"]),
        (_, ValueType::U6) => of(&["0", "1", "8", "46", "63"]),
        (_, ValueType::U8) => {
            *first = pick % BYTES.len();
            of(&BYTES)
        }
        (_, ValueType::U12) => of(&["0", "5", "7", "4095"]),
        (A::HwType | A::ProtocolType, _) => of(&["1", "12", "0x0800", "65535"]),
        (_, ValueType::U16 | ValueType::U32) => {
            *first = pick % PORTS.len();
            of(&PORTS)
        }
        (_, ValueType::EtherType) => {
            of(&["ipv4", "arp", "ipv6", "rarp", "0x88b5", "0x600", "vlan"])
        }
        (_, ValueType::IpProtocol) => {
            of(&["tcp", "udp", "sctp", "udplite", "esp", "igmp", "icmp", "33"])
        }
        (_, ValueType::Opcode) => of(&["Request", "Reply", "9", "65535"]),
        (_, ValueType::Boolean) => "true".to_owned(),
        (_, ValueType::TcpFlags) => {
            of(&["SYN/SYN,ACK", "SYN,ACK/SYN", "ALL/NONE", "FIN/NONE", "ALL/ALL"])
        }
        (_, ValueType::State) => {
            of(&["NEW", "ESTABLISHED", "NEW,ESTABLISHED", "INVALID", "NONE", "RELATED"])
        }
        (_, ValueType::IpSet | ValueType::IpSetFlags | ValueType::Comment) => String::new(),
    }
}
