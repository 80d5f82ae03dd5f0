//! QEMU object identifiers (`id=` of a netdev).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An identifier that QEMU accepts for `id=`: a letter, then letters, digits, `-`, `.` or `_`
/// (QEMU's manual, "id" of the option groups), at most 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

/// Why a text is no QEMU identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a QEMU id: start with a letter, go on with letters, digits, '-', '.' or '_', 64 characters at most"
)]
pub struct IdError(pub String);

impl Id {
    /// The identifier as text.
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

impl TryFrom<String> for Id {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> String {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_qemu_takes_and_nothing_else() {
        for good in ["net0", "n", "a-b.c_d9"] {
            assert_eq!(good.parse::<Id>().unwrap().as_str(), good);
        }
        for bad in ["", "0net", "net,0", "net 0", "net=0", "né", &"a".repeat(65)] {
            assert_eq!(bad.parse::<Id>(), Err(IdError(bad.to_owned())));
        }
    }
}
