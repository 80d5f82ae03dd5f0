//! Variables: what they are in a binding, and the rules that come of a rule with variables.
//!
//! A rule with `$A` stands for one rule for each value of `A`. Variables with the same iterator
//! (`$A` and `$B` both have `@0`) go through their lists together; different iterators make every
//! combination, the lowest one changing first. Equal combinations count once.

use std::collections::{BTreeMap, BTreeSet};

use super::attribute::Attribute;
use super::check::{CheckError, check};
use super::kind::{Kind, LiteralError};
use super::model::{Condition, Element, Parameter, Rule, RuleInstance};
use super::protocol::Protocol;
use super::value::{Access, Literal, Value, VariableName, VariableUse, VariableValue};

/// The most rules that one rule may stand for.
pub const MAX_COMBINATIONS: usize = 100_000;

/// The values of variables, each a list of one at least.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variables(BTreeMap<VariableName, Vec<VariableValue>>);

impl Variables {
    /// The values of a variable.
    pub fn get(&self, name: &VariableName) -> Option<&[VariableValue]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// Gives a variable one value, unless it has some.
    pub fn set_default(&mut self, name: VariableName, value: VariableValue) {
        self.0.entry(name).or_insert_with(|| vec![value]);
    }

    /// These variables, and those of `parameters` that are not among them: what a referenced filter
    /// sees. As in libvirt, whoever refers decides.
    pub fn with_defaults(&self, parameters: &[Parameter]) -> Variables {
        let mut all: Variables = parameters.iter().cloned().collect();
        all.0.extend(self.0.clone());
        all
    }

    /// Those of them that `names` has.
    pub fn only(&self, names: &BTreeSet<VariableName>) -> Variables {
        let kept = self.0.iter().filter(|(name, _)| names.contains(*name));
        Variables(kept.map(|(name, values)| (name.clone(), values.clone())).collect())
    }
}

/// A name that comes several times is a list.
impl FromIterator<Parameter> for Variables {
    fn from_iter<T: IntoIterator<Item = Parameter>>(parameters: T) -> Self {
        let mut variables = Variables::default();
        for (name, value) in parameters {
            variables.0.entry(name).or_default().push(value);
        }
        variables
    }
}

/// Why variables make no rules of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    /// Variables that have no value, or not that many.
    #[error("no value for {}: add a parameter of that name for each", names(.0))]
    Missing(Vec<VariableUse>),
    /// Lists of different lengths that go together.
    #[error(
        "the variables {one} ({one_length} values) and {other} ({other_length} values) go together in a rule and need as many values: add values, or write {other}[@1] to combine each with each"
    )]
    Lengths {
        /// One of them.
        one: VariableName,
        /// How many values it has.
        one_length: usize,
        /// Another one.
        other: VariableName,
        /// How many values that has.
        other_length: usize,
    },
    /// More rules than [`MAX_COMBINATIONS`].
    #[error(
        "the lists of a rule's variables make {0} combinations, more than {MAX_COMBINATIONS}: use shorter lists"
    )]
    TooMany(u128),
    /// A value that does not fit.
    #[error("the variable {variable} is used for {} of <{}>, and its value {error}", attribute.name(), protocol.name())]
    Value {
        /// The variable.
        variable: VariableUse,
        /// Where it is used.
        attribute: Attribute,
        /// Where that is.
        protocol: Protocol,
        /// Why it does not fit.
        error: LiteralError,
    },
    /// A value with a prefix length where there is a mask already.
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
    /// Values that do not go together.
    #[error("with the variables' values, {0}")]
    Check(CheckError),
}

fn names(uses: &[VariableUse]) -> String {
    let names: Vec<String> = uses.iter().map(VariableUse::to_string).collect();
    names.join(", ")
}

/// Attributes that are addresses, and those that are their masks.
const MASKS: [(Attribute, Attribute); 4] = [
    (Attribute::SrcIpAddr, Attribute::SrcIpMask),
    (Attribute::DstIpAddr, Attribute::DstIpMask),
    (Attribute::ArpSrcIpAddr, Attribute::ArpSrcIpMask),
    (Attribute::ArpDstIpAddr, Attribute::ArpDstIpMask),
];

/// The rules that a rule stands for, each once.
///
/// # Errors
/// [`VariableError`].
pub fn combinations(
    rule: &Rule,
    variables: &Variables,
) -> Result<Vec<RuleInstance>, VariableError> {
    let Some(element) = &rule.element else { return Ok(vec![instance(rule, None)]) };
    let wheels = wheels(element, variables)?;
    let total: u128 = wheels.iter().map(|wheel| wheel.rows.len() as u128).product();
    if total > MAX_COMBINATIONS as u128 {
        return Err(VariableError::TooMany(total));
    }
    let mut instances = Vec::new();
    for number in 0..total as usize {
        let mut rest = number;
        let mut rows = BTreeMap::new();
        for wheel in &wheels {
            rows.insert(wheel.iterator, wheel.rows[rest % wheel.rows.len()]);
            rest /= wheel.rows.len();
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

/// An iterator, and the rows of its lists that differ.
struct Wheel {
    iterator: u32,
    rows: Vec<usize>,
}

/// The iterators of an element, the lowest first, after a check that all variables have values.
fn wheels(element: &Element, variables: &Variables) -> Result<Vec<Wheel>, VariableError> {
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
    let mut wheels = Vec::new();
    for (iterator, lists) in lists {
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
        let rows = (0..first.len()).filter(|number| seen.insert(row(number))).collect();
        wheels.push(Wheel { iterator, rows });
    }
    Ok(wheels)
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

/// The element with the values that `value` has for its variables.
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
                let mask_kind = if *kind == Kind::V4 { Kind::V4Mask } else { Kind::V6Mask };
                attributes.push((*attribute, kind.read(address).map_err(wrong)?));
                attributes.push((mask, mask_kind.read(length).map_err(wrong)?));
            }
            _ => attributes.push((*attribute, kind.read(value.as_str()).map_err(wrong)?)),
        }
    }
    let known: Vec<_> = attributes.iter().map(|(name, literal)| (*name, Some(literal))).collect();
    check(&known).map_err(VariableError::Check)?;
    Ok(Condition { protocol, negated: element.negated, attributes })
}
