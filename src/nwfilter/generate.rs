//! Generates filters and bindings of every shape for tests.

use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;

use super::attribute::{NEEDS, RANGES};
use super::*;
use crate::types::{EthernetAddress, Uuid};
use crate::xml::Position;

/// Generates values of `T` from texts of a pattern.
fn text<T>(pattern: &'static str) -> impl Strategy<Value = T>
where
    T: std::str::FromStr + std::fmt::Debug,
{
    pattern.prop_filter_map("another one", |text| text.parse().ok())
}

pub(super) fn uuid() -> impl Strategy<Value = Uuid> {
    text("[0-9a-f]{32}")
}

fn variable() -> impl Strategy<Value = VariableUse> {
    let access = prop_oneof![
        Just(Access::Iterate(0)),
        (0u32..=1000).prop_map(Access::Iterate),
        any::<u32>().prop_map(Access::Index),
    ];
    (text("[A-Za-z0-9_]{1,8}"), access).prop_map(|(name, access)| VariableUse { name, access })
}

fn number(least: u32, most: u32, hex: bool) -> BoxedStrategy<Literal> {
    let hex = any::<bool>().prop_map(move |on| on && hex);
    (least..=most, hex).prop_map(|(value, hex)| Literal::Number { value, hex }).boxed()
}

fn address() -> impl Strategy<Value = EthernetAddress> {
    any::<[u8; 6]>().prop_map(EthernetAddress::new)
}

fn v6() -> impl Strategy<Value = std::net::Ipv6Addr> {
    vec(prop_oneof![2 => Just(0u16), 1 => any::<u16>()], 8).prop_map(|groups| {
        let groups: [u16; 8] = groups.try_into().unwrap();
        groups.into()
    })
}

/// Generates a value of this kind. Numbers with names have the form that the parser gives them.
pub(super) fn literal(kind: ValueType) -> BoxedStrategy<Literal> {
    let one = match kind {
        ValueType::Mac => address().prop_map(Literal::Mac).boxed(),
        ValueType::MacMask => address().prop_map(Literal::MacMask).boxed(),
        ValueType::V4 => any::<u32>().prop_map(|ip| Literal::V4(ip.into())).boxed(),
        ValueType::V4Mask => (0u8..=32).prop_map(Literal::V4Mask).boxed(),
        ValueType::V6 => v6().prop_map(Literal::V6).boxed(),
        ValueType::V6Mask => (0u8..=128).prop_map(Literal::V6Mask).boxed(),
        ValueType::U6 => number(0, 63, true),
        ValueType::U8 => number(0, 255, true),
        ValueType::U12 => number(0, 4095, true),
        ValueType::U16 => number(0, 0xffff, true),
        ValueType::U32 => number(0, u32::MAX, true),
        ValueType::EtherType => prop_oneof![
            number(0x600, 0xffff, true),
            prop::sample::select(vec![0x800, 0x806, 0x8035, 0x8100, 0x86dd])
                .prop_map(|value| Literal::Number { value, hex: false })
        ]
        .boxed(),
        ValueType::IpProtocol => number(0, 255, true),
        ValueType::Opcode => prop_oneof![number(0, 10, false), number(0, 0xffff, false)].boxed(),
        ValueType::Boolean => any::<bool>().prop_map(Literal::Boolean).boxed(),
        ValueType::TcpFlags => (0u8..64, 0u8..64)
            .prop_map(|(mask, flags)| Literal::TcpFlags(TcpFlags { mask, flags }))
            .boxed(),
        ValueType::State => any::<[bool; 4]>()
            .prop_map(|[new, established, related, invalid]| {
                Literal::State(States { new, established, related, invalid })
            })
            .boxed(),
        ValueType::IpSet => text("[a-zA-Z0-9_.:+ -]{1,31}").prop_map(Literal::IpSet).boxed(),
        ValueType::IpSetFlags => {
            vec(prop::sample::select(vec![SetDirection::Src, SetDirection::Dst]), 1..=6)
                .prop_map(Literal::IpSetFlags)
                .boxed()
        }
        ValueType::Comment => text("[^\\pC]{0,20}|.{0,60}").prop_map(Literal::Comment).boxed(),
    };
    // The parser makes a number with a name decimal, so the value is written and read once.
    one.prop_map(move |literal| kind.read(&kind.write(&literal)).unwrap_or(literal)).boxed()
}

fn value(kind: ValueType) -> BoxedStrategy<Value> {
    let literal = literal(kind).prop_map(Value::Literal);
    if kind.takes_variables() {
        prop_oneof![3 => literal, 1 => variable().prop_map(Value::Variable)].boxed()
    } else {
        literal.boxed()
    }
}

/// Removes attributes that contradict each other.
fn without_contradictions(mut attributes: Vec<(Attribute, Value)>) -> Vec<(Attribute, Value)> {
    let has = |all: &[(Attribute, Value)], name| all.iter().any(|(other, _)| *other == name);
    loop {
        let alone =
            NEEDS.iter().find(|(one, other)| has(&attributes, *one) && !has(&attributes, *other));
        match alone {
            Some((one, _)) => attributes.retain(|(other, _)| other != one),
            None => break,
        }
    }
    for (start, end) in RANGES {
        let known: Vec<_> = attributes
            .iter()
            .map(|(name, value)| match value {
                Value::Literal(literal) if [start, end].contains(name) => (*name, Some(literal)),
                _ => (*name, None),
            })
            .collect();
        if check::check(&known).is_err_and(|e| matches!(e, CheckError::Backwards { .. })) {
            let find = |name| attributes.iter().position(|(other, _)| *other == name).unwrap();
            let (start, end) = (find(start), find(end));
            let first = attributes[start].1.clone();
            attributes[start].1 = std::mem::replace(&mut attributes[end].1, first);
        }
    }
    attributes
}

pub(super) fn element() -> impl Strategy<Value = Element> {
    let protocols: Vec<Protocol> = Protocol::NAMES.iter().map(|(protocol, _)| *protocol).collect();
    prop::sample::select(protocols).prop_flat_map(|protocol| {
        let fields: Vec<_> = protocol
            .fields()
            .iter()
            .map(|(attribute, kind)| weighted(0.25, (Just(*attribute), value(*kind))))
            .collect();
        (fields, any::<bool>()).prop_map(move |(fields, negated)| Element {
            protocol,
            negated,
            attributes: without_contradictions(fields.into_iter().flatten().collect()),
        })
    })
}

pub(super) fn rule() -> impl Strategy<Value = Rule> {
    let action = prop::sample::select(Action::NAMES.to_vec()).prop_map(|(_, action)| action);
    let direction =
        prop::sample::select(Direction::NAMES.to_vec()).prop_map(|(_, direction)| direction);
    (action, direction, -1000i32..=1000, any::<bool>(), of(element())).prop_map(
        |(action, direction, priority, statematch, element)| Rule {
            action,
            direction,
            priority,
            statematch,
            element,
            place: Position::START,
        },
    )
}

fn parameters() -> impl Strategy<Value = Vec<Parameter>> {
    vec((text("[A-Za-z0-9_]{1,4}"), text("[A-Za-z0-9_.:]{1,12}")), 0..4)
}

fn filter_name() -> impl Strategy<Value = FilterName> {
    text("[A-Za-z_][A-Za-z0-9._-]{0,12}")
}

/// Generates a filter that can be written and read.
pub(super) fn filter() -> impl Strategy<Value = Filter> {
    let chain = text("root|(mac|vlan|stp|arp|rarp|ipv4|ipv6)[a-zA-Z0-9_.:-]{0,8}");
    let reference = (filter_name(), parameters())
        .prop_map(|(filter, parameters)| FilterRef { filter, parameters });
    let entry = prop_oneof![
        4 => rule().prop_map(Entry::Rule),
        1 => reference.prop_map(Entry::Reference),
    ];
    (filter_name(), chain, -1000i32..=1000, uuid(), vec(entry, 0..5)).prop_map(
        |(name, chain, priority, uuid, entries)| Filter { name, chain, priority, uuid, entries },
    )
}

/// Generates a binding that can be written and read.
pub(super) fn binding() -> impl Strategy<Value = Binding> {
    let owner =
        (text("[^\\pC]{1,20}"), uuid()).prop_map(|(name, uuid)| Owner { name, uuid: Some(uuid) });
    let mac = text("[0-9a-f][02468ace](:[0-9a-f]{2}){5}");
    let linkdev = of(text("[a-z0-9.]{2,15}"));
    (of(owner), text("[!-~]{1,15}"), linkdev, mac, filter_name(), parameters()).prop_map(
        |(owner, port, linkdev, mac, filter, parameters)| Binding {
            owner,
            port,
            linkdev,
            mac,
            filter,
            parameters,
        },
    )
}
