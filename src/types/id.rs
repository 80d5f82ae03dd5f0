//! The identifier of a QEMU object (`id=` of a netdev).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::checked_text::string_conversions;

/// An identifier that QEMU accepts for `id=`.
///
/// It is a letter, then letters, digits, `-`, `.` or `_` (QEMU's manual, "id" of the option
/// groups), at most 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

/// A text is not a QEMU identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a QEMU id: start with a letter, go on with letters, digits, '-', '.' or '_', 64 characters at most"
)]
pub struct IdError(pub String);

impl Id {
    /// Returns the identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Id {
    fn default() -> Self {
        Id("net0".to_owned())
    }
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let starts = text.starts_with(|c: char| c.is_ascii_alphabetic());
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if starts && rest && text.len() <= 64 {
            Ok(Id(text.to_owned()))
        } else {
            Err(IdError(text.to_owned()))
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

string_conversions!(Id, IdError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_starts_with_a_letter_and_has_at_most_64_characters() {
        for good in ["net0", "n", "a-b.c_d9"] {
            assert_eq!(good.parse::<Id>().unwrap().as_str(), good);
        }
        for bad in ["", "0net", "net,0", "net 0", "net=0", "né", &"a".repeat(65)] {
            assert_eq!(bad.parse::<Id>(), Err(IdError(bad.to_owned())));
        }
    }
}
