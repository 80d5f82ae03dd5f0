//! Writes a [`Filter`] as libvirt's filter XML, in the form in which libvirt prints it.

use super::model::{Element, Entry, Filter, FilterRef, Rule};
use super::value::{ChainKind, Value};
use super::xml::parse;
use crate::xml::Tag;

/// Returns the filter as a document, with a newline at its end.
pub fn to_xml(filter: &Filter) -> String {
    let entries = filter.entries.iter().map(|entry| match entry {
        Entry::Rule(rule) => self::rule(rule),
        Entry::Reference(filter) => reference(filter),
    });
    // Root is not sorted among other chains, so its default priority is left out.
    let plain = filter.chain.kind() == ChainKind::Root && filter.priority == 0;
    let priority = (!plain).then_some(filter.priority);
    Tag::new("filter")
        .attribute("name", &filter.name)
        .attribute("chain", &filter.chain)
        .optional("priority", priority)
        .children([Tag::text("uuid", filter.uuid)])
        .children(entries)
        .to_string()
}

/// Returns the filter with the positions that its rules have in the output of [`to_xml`], which the
/// user can print. The user cannot see the document of a stock filter, and the text of a definition
/// may have another form. `text` is the document that the filter was read from.
pub(super) fn placed_as_printed(filter: Filter, text: &[u8]) -> Filter {
    let printed = to_xml(&filter);
    if printed.as_bytes() == text {
        filter
    } else {
        parse(printed.as_bytes(), None).unwrap_or(filter)
    }
}

/// Writes a `<filterref>` of a filter or of a binding.
pub(super) fn reference(reference: &FilterRef) -> Tag {
    let parameters = reference.parameters.iter().map(|(name, value)| {
        Tag::new("parameter").attribute("name", name).attribute("value", value)
    });
    Tag::new("filterref").attribute("filter", &reference.filter).children(parameters)
}

fn rule(rule: &Rule) -> Tag {
    Tag::new("rule")
        .attribute("action", rule.action.name())
        .attribute("direction", rule.direction.name())
        .attribute("priority", rule.priority)
        .optional("statematch", (!rule.statematch).then_some("false"))
        .children(rule.element.as_ref().map(element))
}

fn element(element: &Element) -> Tag {
    let tag = Tag::new(element.protocol.name());
    let tag = tag.optional("match", element.negated.then_some("no"));
    element.protocol.fields().iter().fold(tag, |tag, (attribute, kind)| {
        let value = element.get(*attribute).map(|value| match value {
            Value::Literal(literal) => kind.write(literal),
            Value::Variable(variable) => format!("${variable}"),
        });
        tag.optional(attribute.name(), value)
    })
}
