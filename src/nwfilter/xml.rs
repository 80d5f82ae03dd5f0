//! Parses libvirt's filter XML into a [`Filter`].
//!
//! Input that libvirt silently ignores is an error with its position here: a rule without one of
//! its conditions would accept or drop more frames than its author intended.

use std::fmt::Display;

use super::attribute::Attribute;
use super::check::check;
use super::model::{
    Action, Direction, Element, Entry, Filter, FilterRef, PRIORITIES, RULE_PRIORITY, Rule,
};
use super::protocol::Protocol;
use super::value::{ChainName, Literal, Value, VariableUse};
use super::value_type::ValueType;
use crate::types::{Parameter, Uuid};
use crate::xml::{self, ElementReader, XmlError};

type Result<T> = std::result::Result<T, XmlError>;

/// The names of the protocol elements.
const PROTOCOLS: [&str; Protocol::NAMES.len()] = {
    let mut names = [""; Protocol::NAMES.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = Protocol::NAMES[index].1;
        index += 1;
    }
    names
};

/// Parses a filter. A document without a UUID gets `uuid`. If `uuid` is `None`, as for a document
/// that netlaunch wrote, the document must have a UUID.
///
/// # Errors
/// Returns the first [`XmlError`].
pub fn parse(bytes: &[u8], uuid: Option<Uuid>) -> Result<Filter> {
    let root = xml::read(bytes)?;
    let mut reader = ElementReader::root(&root, "filter")?;
    let name = reader.required("name")?;
    let chain = reader.value("chain")?.unwrap_or_else(ChainName::root);
    let priority = reader.value_with("priority", priority)?;
    let uuid = match reader.child("uuid")? {
        Some(element) => element.take(ElementReader::text_value)?,
        None => uuid.ok_or_else(|| reader.missing_child("uuid"))?,
    };
    let mut entries = Vec::new();
    for element in reader.children_of(&["rule", "filterref"]) {
        entries.push(match element.name.as_str() {
            "rule" => Entry::Rule(element.take(rule)?),
            _ => Entry::Reference(element.take(reference)?),
        });
    }
    reader.finish()?;
    let priority = priority.unwrap_or_else(|| chain.kind().default_priority());
    Ok(Filter { name, chain, priority, uuid, entries })
}

/// Parses a `<filterref>` of a filter or of a binding.
pub(super) fn reference(reader: &mut ElementReader<'_>) -> Result<FilterRef> {
    let filter = reader.required("filter")?;
    let parameter = |reader: &mut ElementReader<'_>| -> Result<Parameter> {
        Ok((reader.required("name")?, reader.required("value")?))
    };
    let parameters = reader.children("parameter").map(|element| element.take(parameter));
    Ok(FilterRef { filter, parameters: parameters.collect::<Result<_>>()? })
}

fn rule(reader: &mut ElementReader<'_>) -> Result<Rule> {
    let action =
        reader.choice("action", &Action::NAMES)?.ok_or_else(|| reader.missing("action"))?;
    let direction = reader.choice("direction", &Direction::NAMES)?;
    let direction = direction.ok_or_else(|| reader.missing("direction"))?;
    let priority = reader.value_with("priority", priority)?.unwrap_or(RULE_PRIORITY);
    let statematch =
        reader.value_with("statematch", |text| match text.to_ascii_lowercase().as_str() {
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(format!("{text:?} is not a value of it: use true or false, or 1 or 0")),
        })?;
    let mut elements = reader.children_of(&PROTOCOLS);
    let (first, second) = (elements.next(), elements.next());
    if let (Some(first), Some(second)) = (first, second) {
        let why = format!(
            "a rule has one protocol, and this one has <{}> at {} already: write another <rule>",
            first.name, first.place
        );
        return Err(ElementReader::new(second).bad(why));
    }
    let element = first.map(|element| element.take(condition)).transpose()?;
    Ok(Rule {
        action,
        direction,
        priority,
        statematch: statematch.unwrap_or(true),
        element,
        place: reader.place(),
    })
}

fn condition(reader: &mut ElementReader<'_>) -> Result<Element> {
    let name = reader.element().name.as_str();
    let found = Protocol::NAMES.iter().find(|(_, known)| *known == name);
    let Some((protocol, _)) = found else {
        // This function is called only for elements with a protocol's name.
        return Err(reader.bad("it is not a protocol"));
    };
    let negated = reader.yes_no("match")?.is_some_and(|matches| !matches);
    let mut attributes = Vec::new();
    for (attribute, kind) in protocol.fields() {
        if let Some(value) = reader.value_with(attribute.name(), |text| value(*kind, text))? {
            attributes.push((*attribute, value));
        }
    }
    if matches!(protocol, Protocol::Arp | Protocol::Rarp) {
        own_protocol(reader, *protocol)?;
    }
    let known: Vec<_> = attributes
        .iter()
        .map(|(attribute, value)| match value {
            Value::Literal(literal) => (*attribute, Some(literal)),
            Value::Variable(_) => (*attribute, None),
        })
        .collect();
    check(&known).map_err(|error| {
        let attribute = reader.attribute(error.attribute().name());
        attribute.map_or_else(|| reader.bad(&error), |attribute| reader.wrong(attribute, &error))
    })?;
    Ok(Element { protocol: *protocol, negated, attributes })
}

/// Reads `protocolid` of `<arp>` and `<rarp>`. libvirt's schema does not have this attribute, but
/// its own examples do. Its value must be the element's own protocol.
fn own_protocol(reader: &mut ElementReader<'_>, protocol: Protocol) -> Result<()> {
    let name = Attribute::ProtocolId.name();
    let Some(attribute) = reader.attribute(name) else { return Ok(()) };
    let own = ValueType::EtherType.read(protocol.name());
    let same = |one: &Literal, other: &Literal| match (one, other) {
        (Literal::Number { value, .. }, Literal::Number { value: other, .. }) => value == other,
        _ => false,
    };
    match (ValueType::EtherType.read(&attribute.value), own) {
        (Ok(value), Ok(own)) if same(&value, &own) => Ok(()),
        (Err(error), _) => Err(reader.wrong(attribute, error)),
        _ => {
            let own = protocol.name();
            Err(reader.wrong(attribute, format!("<{own}> is about {own} alone: remove it")))
        }
    }
}

fn value(kind: ValueType, text: &str) -> std::result::Result<Value, String> {
    let error = |error: &dyn Display| error.to_string();
    if !text.starts_with('$') || kind == ValueType::Comment {
        return kind.read(text).map(Value::Literal).map_err(|why| error(&why));
    }
    if !kind.takes_variables() {
        return Err(format!(
            "{text:?} is a variable, which this attribute cannot have: write the value"
        ));
    }
    text.parse::<VariableUse>().map(Value::Variable).map_err(|why| error(&why))
}

fn priority(text: &str) -> std::result::Result<i32, String> {
    let error = || format!("{text:?} is not a priority: use a number from -1000 to 1000");
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(error());
    }
    let number = text.parse::<i32>().ok().filter(|number| PRIORITIES.contains(number));
    number.ok_or_else(error)
}
