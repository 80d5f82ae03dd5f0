//! Replaces the variables of a rule with the values of a binding.
//!
//! A rule with `$A` becomes one rule for each value of `A`. Variables with the same iterator
//! (`$A` and `$B` both have `@0`) advance through their lists together. Different iterators make
//! every combination, and the lowest iterator changes first. Equal combinations count once.

use std::collections::{BTreeMap, BTreeSet};

use super::attribute::Attribute;
use super::check::{CheckError, check};
use super::model::{Condition, Element, Rule, RuleInstance};
use super::protocol::Protocol;
use super::value::{Access, Literal, Value, VariableName, VariableUse, VariableValue};
use super::value_type::{LiteralError, ValueType};
use crate::types::Parameter;

/// The maximum number of rules that one rule may become.
pub const MAX_COMBINATIONS: usize = 100_000;

/// The values of variables; each list has at least one value.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variables(BTreeMap<VariableName, Vec<VariableValue>>);

impl Variables {
    /// Returns the values of a variable.
    pub fn get(&self, name: &VariableName) -> Option<&[VariableValue]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// Sets a variable to one value if it has none.
    pub fn set_default(&mut self, name: VariableName, value: VariableValue) {
        self.0.entry(name).or_insert_with(|| vec![value]);
    }

    /// Sets a variable to these values if it has none. An empty list sets nothing.
    pub fn set_default_list(&mut self, name: VariableName, values: Vec<VariableValue>) {
        if !values.is_empty() {
            self.0.entry(name).or_insert(values);
        }
    }

    /// Returns these variables, and those of `parameters` that are not among them. A referenced
    /// filter sees the result. As in libvirt, the values of the referring filter take precedence.
    pub fn with_defaults(&self, parameters: &[Parameter]) -> Variables {
        let mut all: Variables = parameters.iter().cloned().collect();
        all.0.extend(self.0.clone());
        all
    }

    /// Returns the variables whose names are in `names`.
    pub fn only(&self, names: &BTreeSet<VariableName>) -> Variables {
        let kept = self.0.iter().filter(|(name, _)| names.contains(*name));
        Variables(kept.map(|(name, values)| (name.clone(), values.clone())).collect())
    }
}

/// A name that occurs several times is a list.
impl FromIterator<Parameter> for Variables {
    fn from_iter<T: IntoIterator<Item = Parameter>>(parameters: T) -> Self {
        let mut variables = Variables::default();
        for (name, value) in parameters {
            variables.0.entry(name).or_default().push(value);
        }
        variables
    }
}

/// The reason why the variables of a rule cannot be replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VariableError {
    /// Variables without a value, or with too few values.
    #[error("no value for {}: add a parameter of that name for each", names(.0))]
    Missing(Vec<VariableUse>),
    /// Two lists that advance together have different lengths.
    #[error(
        "the variables {one} ({one_length} values) and {other} ({other_length} values) go together in a rule and need as many values: add values, or write {other}[@1] to combine each with each"
    )]
    Lengths {
        /// The first variable.
        one: VariableName,
        /// The number of its values.
        one_length: usize,
        /// The second variable.
        other: VariableName,
        /// The number of its values.
        other_length: usize,
    },
    /// The rule would become more than [`MAX_COMBINATIONS`] rules.
    #[error(
        "the lists of a rule's variables make {0} combinations, more than {MAX_COMBINATIONS}: use shorter lists"
    )]
    TooMany(u128),
    /// A value is not valid for its attribute.
    #[error("the variable {variable} is used for {} of <{}>, and its value {error}", attribute.name(), protocol.name())]
    Value {
        /// The variable.
        variable: VariableUse,
        /// The attribute that uses it.
        attribute: Attribute,
        /// The protocol element of the attribute.
        protocol: Protocol,
        /// The reason why the value is not valid.
        error: LiteralError,
    },
    /// The value has a prefix length, but the rule has a mask already.
    #[error(
        "the variable {variable} is {value}, and the rule has a mask of its own, {}: remove one of the two", mask.name()
    )]
    TwoMasks {
        /// The variable.
        variable: VariableUse,
        /// Its value.
        value: VariableValue,
        /// The mask.
        mask: Attribute,
    },
    /// The values of several attributes contradict each other.
    #[error("with the variables' values, {0}")]
    Check(CheckError),
}

fn names(uses: &[VariableUse]) -> String {
    let names: Vec<String> = uses.iter().map(VariableUse::to_string).collect();
    names.join(", ")
}

/// The address attributes and their mask attributes.
const MASKS: [(Attribute, Attribute); 4] = [
    (Attribute::SrcIpAddr, Attribute::SrcIpMask),
    (Attribute::DstIpAddr, Attribute::DstIpMask),
    (Attribute::ArpSrcIpAddr, Attribute::ArpSrcIpMask),
    (Attribute::ArpDstIpAddr, Attribute::ArpDstIpMask),
];

/// Returns the rules that a rule with variables becomes, without duplicates.
///
/// # Errors
/// Returns [`VariableError`] if the variables cannot be replaced.
pub fn combinations(
    rule: &Rule,
    variables: &Variables,
) -> Result<Vec<RuleInstance>, VariableError> {
    let Some(element) = &rule.element else { return Ok(vec![instance(rule, None)]) };
    let iterators = iterators(element, variables)?;
    let total: u128 = iterators.iter().map(|iterator| iterator.rows.len() as u128).product();
    if total > MAX_COMBINATIONS as u128 {
        return Err(VariableError::TooMany(total));
    }
    let mut instances = Vec::new();
    for number in 0..total as usize {
        let mut rest = number;
        let mut rows = BTreeMap::new();
        for iterator in &iterators {
            rows.insert(iterator.number, iterator.rows[rest % iterator.rows.len()]);
            rest /= iterator.rows.len();
        }
        let value = |use_: &VariableUse| {
            let row = match use_.access {
                Access::Index(index) => index as usize,
                Access::Iterate(iterator) => rows.get(&iterator).copied().unwrap_or(0),
            };
            variables.get(&use_.name).and_then(|values| values.get(row))
        };
        instances.push(instance(rule, Some(condition(element, value)?)));
    }
    Ok(instances)
}

/// The number of an iterator, and the distinct rows of values that it goes through.
struct IteratorRows {
    number: u32,
    rows: Vec<usize>,
}

/// Returns the iterators of an element, the lowest first, after checking that all variables have
/// values.
fn iterators(element: &Element, variables: &Variables) -> Result<Vec<IteratorRows>, VariableError> {
    let mut missing: Vec<VariableUse> = Vec::new();
    let mut lists: BTreeMap<u32, Vec<(&VariableName, &[VariableValue])>> = BTreeMap::new();
    for use_ in element.variables() {
        match (variables.get(&use_.name), use_.access) {
            (Some(values), Access::Index(index)) if (index as usize) < values.len() => {}
            (Some(values), Access::Iterate(iterator)) => {
                lists.entry(iterator).or_default().push((&use_.name, values));
            }
            _ if missing.contains(use_) => {}
            _ => missing.push(use_.clone()),
        }
    }
    if !missing.is_empty() {
        return Err(VariableError::Missing(missing));
    }
    let mut iterators = Vec::new();
    for (number, lists) in lists {
        let Some((one, first)) = lists.first() else { continue };
        if let Some((other, values)) = lists.iter().find(|(_, list)| list.len() != first.len()) {
            return Err(VariableError::Lengths {
                one: (*one).clone(),
                one_length: first.len(),
                other: (*other).clone(),
                other_length: values.len(),
            });
        }
        let mut seen = BTreeSet::new();
        let row = |row: &usize| lists.iter().map(|(_, list)| list.get(*row)).collect::<Vec<_>>();
        let rows = (0..first.len()).filter(|place| seen.insert(row(place))).collect();
        iterators.push(IteratorRows { number, rows });
    }
    Ok(iterators)
}

fn instance(rule: &Rule, condition: Option<Condition>) -> RuleInstance {
    RuleInstance {
        action: rule.action,
        direction: rule.direction,
        priority: rule.priority,
        statematch: rule.statematch,
        condition,
        place: rule.place,
    }
}

/// Returns the element with its variables replaced by `value`.
fn condition<'a>(
    element: &Element,
    value: impl Fn(&VariableUse) -> Option<&'a VariableValue>,
) -> Result<Condition, VariableError> {
    let protocol = element.protocol;
    let mut attributes: Vec<(Attribute, Literal)> = Vec::new();
    for (attribute, kind) in protocol.fields() {
        let variable = match element.get(*attribute) {
            None => continue,
            Some(Value::Literal(literal)) => {
                attributes.push((*attribute, literal.clone()));
                continue;
            }
            Some(Value::Variable(variable)) => variable,
        };
        let value =
            value(variable).ok_or_else(|| VariableError::Missing(vec![variable.clone()]))?;
        let wrong = |error| VariableError::Value {
            variable: variable.clone(),
            attribute: *attribute,
            protocol,
            error,
        };
        let mask = MASKS.iter().find(|(address, _)| address == attribute).map(|(_, mask)| *mask);
        match (value.as_str().split_once('/'), mask) {
            (Some((address, length)), Some(mask)) => {
                if element.get(mask).is_some() {
                    let (variable, value) = (variable.clone(), value.clone());
                    return Err(VariableError::TwoMasks { variable, value, mask });
                }
                let mask_type =
                    if *kind == ValueType::V4 { ValueType::V4Mask } else { ValueType::V6Mask };
                attributes.push((*attribute, kind.read(address).map_err(wrong)?));
                attributes.push((mask, mask_type.read(length).map_err(wrong)?));
            }
            _ => attributes.push((*attribute, kind.read(value.as_str()).map_err(wrong)?)),
        }
    }
    let known: Vec<_> = attributes.iter().map(|(name, literal)| (*name, Some(literal))).collect();
    check(&known).map_err(VariableError::Check)?;
    Ok(Condition { protocol, negated: element.negated, attributes })
}
