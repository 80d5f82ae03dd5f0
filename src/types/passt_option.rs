//! A further option for passt, which the caller names.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A long option of passt with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasstOption {
    name: String,
    value: Option<OsString>,
}

/// A text does not name an option of passt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an option of passt: write its long name without dashes, and its value after '=', such as outbound-if4=eth0"
)]
pub struct PasstOptionError(pub OsString);

impl PasstOption {
    /// Parses `KEY` or `KEY=VALUE`. The key is the long name without dashes.
    ///
    /// # Errors
    /// [`PasstOptionError`] if the key is not such a name.
    pub fn parse(text: &OsStr) -> Result<Self, PasstOptionError> {
        let bytes = text.as_bytes();
        let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) => (&bytes[..at], Some(OsString::from_vec(bytes[at + 1..].to_vec()))),
            None => (bytes, None),
        };
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let first = name.first().is_some_and(u8::is_ascii_alphanumeric);
        match std::str::from_utf8(name) {
            // A name of one letter is a short option.
            Ok(text) if first && name.len() > 1 && name.iter().all(plain) => {
                Ok(PasstOption { name: text.to_owned(), value })
            }
            _ => Err(PasstOptionError(text.to_owned())),
        }
    }

    /// Returns the long name without dashes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether it has a value.
    pub fn has_value(&self) -> bool {
        self.value.is_some()
    }

    /// Returns passt's argument: one word, so that no value is read as an option.
    pub fn argument(&self) -> OsString {
        let mut word = OsString::from(format!("--{}", self.name));
        if let Some(value) = &self.value {
            word.push("=");
            word.push(value);
        }
        word
    }
}

impl std::str::FromStr for PasstOption {
    type Err = PasstOptionError;

    fn from_str(text: &str) -> Result<Self, PasstOptionError> {
        PasstOption::parse(text.as_ref())
    }
}

impl fmt::Display for PasstOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.argument().display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passt_option_is_a_long_name_with_or_without_a_value() {
        for (text, argument) in [
            ("no-ndp", "--no-ndp"),
            ("outbound-if4=eth0", "--outbound-if4=eth0"),
            ("repair-path=", "--repair-path="),
            ("fqdn=a=b", "--fqdn=a=b"),
        ] {
            let option = PasstOption::parse(text.as_ref()).unwrap();
            assert_eq!(option.argument(), argument, "{text}");
            assert_eq!(option.has_value(), text.contains('='), "{text}");
        }
        let bytes = OsStr::from_bytes(b"repair-path=/\xff");
        assert_eq!(
            PasstOption::parse(bytes).unwrap().argument().as_bytes(),
            b"--repair-path=/\xff"
        );
        for bad in ["", "=", "--no-ndp", "-4", "4", "no ndp", "no_ndp", "a/b=c", "no-ndp\n"] {
            assert_eq!(
                PasstOption::parse(bad.as_ref()),
                Err(PasstOptionError(bad.into())),
                "{bad}"
            );
        }
    }
}
