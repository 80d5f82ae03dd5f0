//! Chooses sample values for the variables of a filter, so that its rules can be compiled without a
//! binding.
//!
//! The type of an attribute that uses the variable selects the value. The addresses are those for
//! documentation, so the compiled rules serve for checks and never for a port.

use std::collections::BTreeMap;

use super::model::Filter;
use super::tree::{Filters, Needs};
use super::value::{Access, Value, VariableUse};
use super::value_type::ValueType;
use super::variable::Variables;

/// The maximum number of sample values for a variable.
const MOST_VALUES: usize = 1000;

/// Returns a sample value for each variable that a filter needs, so that its rules can be compiled.
/// Returns `None` if a rule needs too many values.
pub fn sample(needs: &Needs, filters: &Filters) -> Option<Variables> {
    let index = |used: &VariableUse| match used.access {
        Access::Index(index) => index as usize,
        Access::Iterate(_) => 0,
    };
    let values = needs.variables.iter().map(index).max().unwrap_or(0) + 1;
    if values > MOST_VALUES {
        return None;
    }
    let mut parameters = BTreeMap::new();
    for used in &needs.variables {
        let value_type = filters.values().find_map(|filter| type_of(filter, used))?;
        let value = sample_of(value_type).parse().ok()?;
        parameters.insert(used.name.clone(), value);
    }
    let all = parameters.into_iter();
    Some(all.flat_map(|parameter| std::iter::repeat_n(parameter, values)).collect())
}

/// Returns the kind of values of a variable's use.
fn type_of(filter: &Filter, used: &VariableUse) -> Option<ValueType> {
    let elements = filter.rules().filter_map(|rule| rule.element.as_ref());
    elements.into_iter().find_map(|element| {
        let is_it =
            |value: &Value| matches!(value, Value::Variable(found) if found.name == used.name);
        let found = element.attributes.iter().find(|(_, value)| is_it(value));
        found.and_then(|(attribute, _)| element.protocol.value_type(*attribute))
    })
}

/// Returns a sample value of a kind. The addresses are those for documentation (RFC 5737, 3849).
fn sample_of(value_type: ValueType) -> &'static str {
    match value_type {
        ValueType::Mac => "52:54:00:12:34:56",
        ValueType::MacMask => "ff:ff:ff:ff:ff:ff",
        ValueType::V4 => "192.0.2.1",
        ValueType::V4Mask => "32",
        ValueType::V6 => "2001:db8::1",
        ValueType::V6Mask => "128",
        ValueType::EtherType => "0x0800",
        ValueType::IpProtocol => "tcp",
        ValueType::IpSet => "set",
        _ => "1",
    }
}
