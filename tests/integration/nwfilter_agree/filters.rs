//! Generated filters: documents, so that a failing one can be read and tried.

use netlaunch::firewall::port_iptables;
use netlaunch::firewall::port_nft::{self, Extras};
use netlaunch::nwfilter::{
    Attribute as A, Filters, Kind, Protocol, Variables, compile, flatten, parse,
};
use netlaunch::rules::port::PortRules;
use proptest::prelude::*;

/// What a rule is made of, as numbers that pick from lists.
#[derive(Debug, Clone)]
pub struct RuleSeed {
    action: usize,
    direction: usize,
    priority: usize,
    protocol: usize,
    negated: bool,
    /// Whether an attribute is there, and which value it has.
    attributes: Vec<(bool, usize)>,
}

/// Which rules a filter may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracking {
    /// Those that look at each packet alone.
    Without,
    /// Those that also track connections.
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

/// A filter and those that it refers to, as documents.
#[derive(Debug, Clone)]
pub struct Documents(pub Vec<String>);

/// The documents of these rules, without those that make no sense or that a backend cannot express.
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
    // Where much is let through, rules that accept show only in front of one that does not.
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

/// What the documents mean; `None` where they make no sense, or a backend cannot express them.
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
    // The first of a range, which its last must not be below.
    let mut first = 0;
    for ((attribute, kind), (there, pick)) in protocol.fields().iter().zip(&seed.attributes) {
        let needed = match attribute {
            // Ports need their protocol, and a type is better with its own.
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

/// What is not compared, since the kernel's ebtables and ip6tables cannot do it as documented, or
/// since it is not in the frame.
fn is_left_out(attribute: A, protocol: Protocol, seed: &RuleSeed, tracking: Tracking) -> bool {
    match attribute {
        A::IpSet | A::IpSetFlags | A::ConnlimitAbove | A::Comment => true,
        A::State => tracking == Tracking::Without,
        // The kernel's ebt_stp reads the fields of a BPDU at other places than they have.
        _ if protocol == Protocol::Stp => !matches!(attribute, A::SrcMacAddr | A::SrcMacMask),
        // Of ARP, ebtables cannot negate this, and nothing else can.
        A::Gratuitous => seed.negated,
        // Flags that only later packets of a connection have.
        A::Flags => tracking == Tracking::With,
        _ => false,
    }
}

/// A value: few, so that rules meet, and such that a frame can have those next to them.
fn value(attribute: A, kind: Kind, pick: usize, first: &mut usize) -> String {
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
        (A::SrcIpTo | A::DstIpTo, Kind::V4) => range(first, &V4),
        (A::SrcIpTo | A::DstIpTo, Kind::V6) => {
            range(first, &["2001:db8::4", "2001:db8::ff", "2001:db8:9::9", "fe80::1"])
        }
        (A::SrcPortEnd | A::DstPortEnd, _) => range(first, &PORTS),
        (A::TypeEnd | A::CodeEnd, _) => range(first, &BYTES),
        (_, Kind::Mac) => of(&MACS),
        (_, Kind::MacMask) => of(&[
            "ff:ff:ff:ff:ff:ff",
            "ff:ff:ff:00:00:00",
            "ff:ff:ff:ff:ff:f0",
            "fe:00:00:00:00:01",
        ]),
        (_, Kind::V4) => {
            *first = pick % V4.len();
            of(&V4)
        }
        (_, Kind::V4Mask) => of(&["32", "24", "255.255.255.252", "0", "8"]),
        (_, Kind::V6) => {
            *first = pick % V6.len();
            of(&V6)
        }
        (_, Kind::V6Mask) => of(&["128", "64", "120", "0", "10"]),
        (_, Kind::U6) => of(&["0", "1", "8", "46", "63"]),
        (_, Kind::U8) => {
            *first = pick % BYTES.len();
            of(&BYTES)
        }
        (_, Kind::U12) => of(&["0", "5", "7", "4095"]),
        (A::HwType | A::ProtocolType, _) => of(&["1", "12", "0x0800", "65535"]),
        (_, Kind::U16 | Kind::U32) => {
            *first = pick % PORTS.len();
            of(&PORTS)
        }
        (_, Kind::EtherType) => of(&["ipv4", "arp", "ipv6", "rarp", "0x88b5", "0x600", "vlan"]),
        (_, Kind::IpProtocol) => {
            of(&["tcp", "udp", "sctp", "udplite", "esp", "igmp", "icmp", "33"])
        }
        (_, Kind::Opcode) => of(&["Request", "Reply", "9", "65535"]),
        (_, Kind::Boolean) => "true".to_owned(),
        (_, Kind::TcpFlags) => {
            of(&["SYN/SYN,ACK", "SYN,ACK/SYN", "ALL/NONE", "FIN/NONE", "ALL/ALL"])
        }
        (_, Kind::State) => {
            of(&["NEW", "ESTABLISHED", "NEW,ESTABLISHED", "INVALID", "NONE", "RELATED"])
        }
        (_, Kind::IpSet | Kind::IpSetFlags | Kind::Comment) => String::new(),
    }
}
