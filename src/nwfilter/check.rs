//! Checks whether the attributes of a protocol element fit together.
//!
//! The firewall's tools or libvirt would ignore each attribute that is refused here, so that a rule
//! would match more frames than the user wrote: a mask without an address, the end of a range
//! without its start, an ipset without the sides to look up.

use super::attribute::{Attribute, NEEDS, RANGES};
use super::value::Literal;

/// Attributes that do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// An attribute has no meaning without another one.
    #[error("{} means nothing without {}: add it, or remove {}", one.name(), other.name(), one.name())]
    Alone {
        /// The present attribute.
        one: Attribute,
        /// The missing attribute.
        other: Attribute,
    },
    /// The first value of a range is above the last.
    #[error("the range from {first} ({}) to {last} ({}) runs backwards: exchange them", start.name(), end.name())]
    Backwards {
        /// The attribute of the first value.
        start: Attribute,
        /// The attribute of the last value.
        end: Attribute,
        /// The first value.
        first: Literal,
        /// The last value.
        last: Literal,
    },
}

impl CheckError {
    /// Returns the attribute to which the error applies.
    pub fn attribute(&self) -> Attribute {
        match self {
            CheckError::Alone { one, .. } => *one,
            CheckError::Backwards { end, .. } => *end,
        }
    }
}

/// Checks attributes; `None` means that a value is not known yet.
///
/// # Errors
/// Returns the first [`CheckError`].
pub(super) fn check(attributes: &[(Attribute, Option<&Literal>)]) -> Result<(), CheckError> {
    let find = |name| attributes.iter().find(|(attribute, _)| *attribute == name);
    for (one, other) in NEEDS {
        if find(one).is_some() && find(other).is_none() {
            return Err(CheckError::Alone { one, other });
        }
    }
    for (start, end) in RANGES {
        let (Some((_, Some(first))), Some((_, Some(last)))) = (find(start), find(end)) else {
            continue;
        };
        if order(first) > order(last) {
            let (first, last) = ((*first).clone(), (*last).clone());
            return Err(CheckError::Backwards { start, end, first, last });
        }
    }
    Ok(())
}

/// Returns a number that orders the values of one kind. Only addresses and numbers occur in ranges.
fn order(literal: &Literal) -> u128 {
    match literal {
        Literal::Number { value, .. } => u128::from(*value),
        Literal::V4(address) => u128::from(u32::from(*address)),
        Literal::V6(address) => u128::from(*address),
        _ => 0,
    }
}
