//! Whether the attributes of a protocol element go together.
//!
//! Everything here would be ignored by the firewall's tools, or by libvirt, so that a rule would
//! match more frames than its words say: a mask without an address, the end of a range without its
//! start, an ipset without what is looked up in it.

use super::attribute::{Attribute, NEEDS, RANGES};
use super::value::Literal;

/// Attributes that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// One means nothing without another.
    #[error("{} means nothing without {}: add it, or remove {}", one.name(), other.name(), one.name())]
    Alone {
        /// The one that is there.
        one: Attribute,
        /// The one that is not.
        other: Attribute,
    },
    /// A range runs backwards.
    #[error("the range from {first} ({}) to {last} ({}) runs backwards: exchange them", start.name(), end.name())]
    Backwards {
        /// Where the first is.
        start: Attribute,
        /// Where the last is.
        end: Attribute,
        /// The first.
        first: Literal,
        /// The last.
        last: Literal,
    },
}

impl CheckError {
    /// The attribute to show.
    pub fn attribute(&self) -> Attribute {
        match self {
            CheckError::Alone { one, .. } => *one,
            CheckError::Backwards { end, .. } => *end,
        }
    }
}

/// Checks attributes; `None` stands for a value that is not known yet.
///
/// # Errors
/// The first [`CheckError`].
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

/// Where a value stands among those of its kind. Only addresses and numbers are in ranges.
fn order(literal: &Literal) -> u128 {
    match literal {
        Literal::Number { value, .. } => u128::from(*value),
        Literal::V4(address) => u128::from(u32::from(*address)),
        Literal::V6(address) => u128::from(*address),
        _ => 0,
    }
}
