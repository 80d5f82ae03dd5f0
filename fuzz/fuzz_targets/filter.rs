//! Generates network filters from the tables of the format, with values that mostly fit. Random
//! bytes rarely become such filters, because a rule needs many words that fit together.

#![no_main]

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use netlaunch::nwfilter::{ValueType, Protocol};
use netlaunch_fuzz::check_filter;

fuzz_target!(|document: Document| check_filter(document.to_xml().as_bytes()));

const CHAINS: [&str; 9] =
    ["root", "mac", "vlan", "stp", "arp", "rarp-a", "ipv4", "ipv6:b", "ipv4-own"];
const ACTIONS: [&str; 5] = ["accept", "drop", "reject", "return", "continue"];
const DIRECTIONS: [&str; 3] = ["in", "out", "inout"];
const REFERRED: [&str; 5] =
    ["server", "clean-traffic-gateway", "no-ip-spoofing", "allow-dhcp-server", "fuzz"];
const NAMES: [&str; 5] = ["IP", "MAC", "PORT", "DHCPSERVER", "A_1"];

#[derive(Debug, Arbitrary)]
struct Document<'a> {
    chain: u8,
    priority: Option<i16>,
    entries: Vec<Entry<'a>>,
}

#[derive(Debug, Arbitrary)]
enum Entry<'a> {
    Rule {
        action: u8,
        direction: u8,
        priority: Option<i16>,
        stateless: bool,
        protocol: u8,
        negated: bool,
        attributes: Vec<(u8, Value<'a>)>,
    },
    Reference {
        filter: u8,
        parameters: Vec<(u8, Value<'a>)>,
    },
}

#[derive(Debug, Arbitrary)]
enum Value<'a> {
    /// A value of the attribute's kind.
    Fitting(u32),
    /// A variable that takes one value of a list for each copy of the rule, in step with other
    /// variables.
    Variable(u8, u8),
    Element(u8, u16),
    Text(&'a str),
}

fn pick<'a>(list: &[&'a str], number: impl Into<u32>) -> &'a str {
    list.get(number.into() as usize % list.len()).copied().unwrap_or_default()
}

impl Document<'_> {
    fn to_xml(&self) -> String {
        let mut xml = format!("<filter name='fuzz' chain='{}'", pick(&CHAINS, self.chain));
        let priority = |p: &Option<i16>| p.map_or_else(String::new, |p| format!(" priority='{p}'"));
        let _ = write!(xml, "{}>", priority(&self.priority));
        for entry in &self.entries {
            let _ = match entry {
                Entry::Rule {
                    action,
                    direction,
                    priority: rule_priority,
                    stateless,
                    protocol,
                    negated,
                    attributes,
                } => write!(
                    xml,
                    "<rule action='{}' direction='{}'{}{}>{}</rule>",
                    pick(&ACTIONS, *action),
                    pick(&DIRECTIONS, *direction),
                    priority(rule_priority),
                    if *stateless { " statematch='false'" } else { "" },
                    element(*protocol, *negated, attributes),
                ),
                Entry::Reference { filter, parameters } => {
                    let parameter = |(name, value): &(u8, Value<'_>)| {
                        let (name, value) = (pick(&NAMES, *name), value.text(ValueType::V4));
                        format!("<parameter name='{name}' value='{value}'/>")
                    };
                    let parameters: String = parameters.iter().map(parameter).collect();
                    let filter = pick(&REFERRED, *filter);
                    write!(xml, "<filterref filter='{filter}'>{parameters}</filterref>")
                }
            };
        }
        xml + "</filter>"
    }
}

/// Returns the element of a rule. A number after the last protocol gives no element.
fn element(protocol: u8, negated: bool, attributes: &[(u8, Value<'_>)]) -> String {
    let number = usize::from(protocol) % (Protocol::NAMES.len() + 1);
    let Some((protocol, name)) = Protocol::NAMES.get(number) else { return String::new() };
    let fields = protocol.fields();
    let mut given = vec![None; fields.len()];
    for (number, value) in attributes {
        let number = usize::from(*number) % fields.len();
        given[number] = Some(value.text(fields[number].1));
    }
    let attributes: String = fields
        .iter()
        .zip(given)
        .filter_map(|((attribute, _), text)| Some(format!(" {}='{}'", attribute.name(), text?)))
        .collect();
    format!("<{name}{}{attributes}/>", if negated { " match='no'" } else { "" })
}

impl Value<'_> {
    /// Returns the value as it is written in a document.
    fn text(&self, kind: ValueType) -> String {
        match self {
            Value::Fitting(number) => fitting(kind, *number),
            Value::Variable(name, iterator) => {
                format!("${}[@{}]", pick(&NAMES, *name), iterator % 4)
            }
            Value::Element(name, index) => format!("${}[{}]", pick(&NAMES, *name), index % 1001),
            Value::Text(text) => text
                .chars()
                .map(|c| match c {
                    c if c.is_ascii_alphanumeric() => c.to_string(),
                    c => format!("&#{};", u32::from(c)),
                })
                .collect(),
        }
    }
}

/// Returns a value of a kind.
fn fitting(kind: ValueType, number: u32) -> String {
    let [.., a, b, c] = number.to_be_bytes();
    match kind {
        ValueType::Mac => format!("52:54:00:{a:02x}:{b:02x}:{c:02x}"),
        ValueType::MacMask => format!("ff:ff:ff:{a:02x}:{b:02x}:{c:02x}"),
        ValueType::V4 => Ipv4Addr::from(number).to_string(),
        ValueType::V4Mask => (number % 33).to_string(),
        ValueType::V6 => Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(number)).to_string(),
        ValueType::V6Mask => (number % 129).to_string(),
        ValueType::U6 => (number % 64).to_string(),
        ValueType::U8 | ValueType::IpProtocol => c.to_string(),
        ValueType::U12 => (number % 4096).to_string(),
        ValueType::U16 => (number % 0x1_0000).to_string(),
        ValueType::U32 => number.to_string(),
        ValueType::EtherType => format!("{:#x}", 0x600 + number % 0xfa00),
        ValueType::Opcode => (number % 12).to_string(),
        ValueType::Boolean => pick(&["true", "false"], number).to_owned(),
        ValueType::TcpFlags => {
            pick(&["SYN/ALL", "ALL/NONE", "SYN,ACK/SYN", "NONE/FIN"], number).to_owned()
        }
        ValueType::State => {
            pick(&["NEW", "NEW,ESTABLISHED", "RELATED,INVALID", "NONE"], number).to_owned()
        }
        ValueType::IpSet => pick(&["set", "a set"], number).to_owned(),
        ValueType::IpSetFlags => pick(&["src", "dst,src", "src,dst,src"], number).to_owned(),
        ValueType::Comment => pick(&["words", "&quot;&amp;\\"], number).to_owned(),
    }
}
