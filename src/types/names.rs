//! Names of networks, filters and filter variables. A launch records them, and the modules of
//! networks and filters define what they name.

use std::str::FromStr;

use super::checked_text::checked_text;

/// The reason why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text is not a network's name.
    #[error(
        "{0:?} cannot name a network: use 1 to 64 letters, digits, inner spaces, '-', '.', '_' or '+', a letter, digit or '_' first"
    )]
    Network(String),
    /// The text is not a port group's name.
    #[error(
        "{0:?} cannot name a port group: use 1 to 64 letters, digits, inner spaces, '-', '.', '_', ':' or '/'"
    )]
    PortGroup(String),
    /// The text is not a filter's name.
    #[error(
        "{0:?} cannot name a filter: use 1 to 128 letters, digits, '-', '.' or '_', a letter or '_' first"
    )]
    Filter(String),
    /// The text is not a variable's name.
    #[error("{0:?} cannot name a variable: use 1 to 64 letters, digits or '_'")]
    Variable(String),
    /// The text is not a variable's value.
    #[error(
        "{0:?} cannot be a variable's value: use 1 to 255 letters, digits, '_', '.', ':' or '/'"
    )]
    Value(String),
}

checked_text!(
    /// The name of a network, which is also the name of its file.
    NetworkName, NameError::Network, |text| {
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        starts && text.len() <= 64 && of(text, b"-._+ ") && !text.ends_with(' ')
    }
);
checked_text!(
    /// The name of a port group of a network.
    PortGroupName, NameError::PortGroup, |text| {
        (1..=64).contains(&text.len()) && of(text, b"-._:/ ") && text.trim() == text
    }
);
checked_text!(
    /// The name of a filter, and of its file. libvirt's schema also allows letters of other
    /// scripts; netlaunch does not, and limits the length.
    FilterName, NameError::Filter, |text| {
        let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        starts && text.len() <= 128 && of(text, b"-._")
    }
);
checked_text!(
    /// The name of a variable.
    VariableName, NameError::Variable, |text| {
        (1..=64).contains(&text.len()) && of(text, b"_")
    }
);
checked_text!(
    /// One value of a variable. The valid values depend on the place in which the variable is used.
    VariableValue, NameError::Value, |text| {
        (1..=255).contains(&text.len()) && of(text, b"_.:/")
    }
);

/// A network, and one of its port groups if the text names one: `NAME` or `NAME:GROUP`. The name
/// of a network has no colon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkChoice {
    /// The network.
    pub name: NetworkName,
    /// The port group; `None` is the network's default one, if it has one.
    pub group: Option<PortGroupName>,
}

impl FromStr for NetworkChoice {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (name, group) = match text.split_once(':') {
            Some((name, group)) => (name, Some(group.parse()?)),
            None => (text, None),
        };
        Ok(NetworkChoice { name: name.parse()?, group })
    }
}

/// A value for a variable of a filter.
pub type Parameter = (VariableName, VariableValue);

/// Returns whether a text has only ASCII letters, digits and the characters of `others`.
fn of(text: &str, others: &[u8]) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_group_may_have_inner_spaces() {
        let choice: NetworkChoice = "my lab:Trunk Core".parse().unwrap();
        assert_eq!(choice.name.as_str(), "my lab");
        assert_eq!(choice.group.unwrap().as_str(), "Trunk Core");
        for bad in ["", " ", " a", "a ", "a\tb", "a,b", "a\n"] {
            let error = NameError::PortGroup(bad.to_owned());
            assert_eq!(bad.parse::<PortGroupName>(), Err(error), "{bad:?}");
        }
    }
}
