//! The names of interfaces that a rule of ports is about.

use super::InterfaceName;
use super::checked_text::checked_text;

/// The text is no pattern for interface names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortPatternError {
    /// The text is neither a name nor the beginning of one with an asterisk behind it.
    #[error(
        "{0:?} names no ports: write an interface, such as tap0, or the beginning of names and *, such as vnet*"
    )]
    Form(String),
}

checked_text!(
    /// The name of an interface, or the beginning of names with an asterisk behind it.
    ///
    /// It consists of letters, digits, `.`, `_`, `-` and `@`, since the firewall tools give other
    /// characters a meaning.
    PortPattern, PortPatternError::Form, |text| {
        let name = text.strip_suffix('*').unwrap_or(text);
        // A beginning of 15 bytes is a whole name.
        let longest = if name.len() == text.len() { 15 } else { 14 };
        (1..=longest).contains(&name.len())
            && is_plain(name)
            && name.parse::<InterfaceName>().is_ok()
    }
);

/// Returns whether a name consists of letters, digits, `.`, `_`, `-` and `@`. The firewall tools
/// give other characters a meaning: `br*` and `br+` are all names that begin with `br`.
pub(crate) fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte))
}

impl PortPattern {
    /// Returns whether an interface with this name is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self.as_str().strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_the_beginning_of_names() {
        for (pattern, yes, no) in [
            ("vnet*", &["vnet0", "vnet", "vnet12"][..], &["vne", "xvnet0"][..]),
            ("tap0", &["tap0"], &["tap", "tap01"]),
            ("nl-a.b@c_*", &["nl-a.b@c_d"], &["nl-a.b@c"]),
        ] {
            let pattern: PortPattern = pattern.parse().unwrap();
            assert!(yes.iter().all(|name| pattern.matches(name)), "{pattern}");
            assert!(!no.iter().any(|name| pattern.matches(name)), "{pattern}");
        }
        for text in ["", "*", "a*b", "a**", "vnet+", "a b", "a\"*", "fifteen-letters*", "..", "a/b"]
        {
            let error = text.parse::<PortPattern>().unwrap_err().to_string();
            assert!(error.contains("such as vnet*"), "{error}");
        }
        assert!("fifteen-letters".parse::<PortPattern>().is_ok());
        assert!("fourteen-chars*".parse::<PortPattern>().is_ok());
    }
}
