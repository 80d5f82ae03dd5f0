//! The options of `<dnsmasq:options>`: lines for the configuration of the network's dnsmasq.
//!
//! A network definition comes from other programs and other people, and dnsmasq starts as root. So
//! an option is accepted only if it is on a list (`ALLOWED`) of options that change the answers
//! of this dnsmasq to its guests and nothing else: no file, no program, no user, no other
//! interface, and no address to listen on. The list and the meaning of each option are from
//! dnsmasq(8), releases 2.80 to 2.91. An option that only a newer dnsmasq has is refused by an
//! older one at the start of the network.

mod table;

use std::fmt;
use std::str::FromStr;

use table::{ALLOWED, REFUSED};

use crate::types::checked_text::string_conversions;

/// The longest option, in bytes: dnsmasq reads 1024 bytes of a line, with the line end.
const LONGEST: usize = 1000;

/// An option for dnsmasq, as in its configuration file: `NAME` or `NAME=VALUE`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct DnsmasqOption {
    name: &'static str,
    value: Option<String>,
}

/// The reason why an option for dnsmasq is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DnsmasqOptionError {
    /// The option is known, and it can change more than the answers to the guests.
    #[error("the option {name} is refused, because it {why}")]
    Refused {
        /// Its name.
        name: &'static str,
        /// The reason, and the fix after a colon.
        why: &'static str,
    },
    /// The option is not on the list.
    #[error(
        "{0:?} is not an option that is known to be safe: write one of dnsmasq's options about names, leases or boot, such as address=/example.org/192.0.2.1"
    )]
    Unknown(String),
    /// The option has a control character or is too long.
    #[error("an option is one line of at most {LONGEST} bytes without control characters: {0:?}")]
    Line(String),
    /// The value names an interface.
    #[error("the value of {name} names an interface of the host: {fix}")]
    Interface {
        /// The option's name.
        name: &'static str,
        /// The value that works.
        fix: &'static str,
    },
}

impl DnsmasqOption {
    /// Returns the option's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the option's value.
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }
}

impl FromStr for DnsmasqOption {
    type Err = DnsmasqOptionError;

    /// Reads an option as dnsmasq reads a line of its file: without the white space around the name
    /// and the value.
    fn from_str(text: &str) -> Result<Self, DnsmasqOptionError> {
        let forbidden = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
        if text.len() > LONGEST || text.contains(forbidden) {
            return Err(DnsmasqOptionError::Line(text.to_owned()));
        }
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.trim_matches(' '), Some(value.trim_matches(' '))),
            None => (text.trim_matches(' '), None),
        };
        if let Some((name, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return Err(DnsmasqOptionError::Refused { name, why });
        }
        let Some(&(name, condition)) = ALLOWED.iter().find(|(allowed, _)| *allowed == name) else {
            return Err(DnsmasqOptionError::Unknown(text.to_owned()));
        };
        condition
            .check(value.unwrap_or_default())
            .map_err(|fix| DnsmasqOptionError::Interface { name, fix })?;
        Ok(DnsmasqOption { name, value: value.map(str::to_owned) })
    }
}

impl fmt::Display for DnsmasqOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.name),
            None => f.write_str(self.name),
        }
    }
}

string_conversions!(DnsmasqOption, DnsmasqOptionError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_written_without_the_white_space_around_it() {
        for (text, written) in [
            (" no-hosts ", "no-hosts"),
            ("address = /a/192.0.2.1", "address=/a/192.0.2.1"),
            ("txt-record=a,\"b = c\"", "txt-record=a,\"b = c\""),
            ("domain=lab.example,192.0.2.0/24,local", "domain=lab.example,192.0.2.0/24,local"),
            (
                "synth-domain=lab.example,192.0.2.9,192.0.2.20,h-",
                "synth-domain=lab.example,192.0.2.9,192.0.2.20,h-",
            ),
            ("dhcp-option=3", "dhcp-option=3"),
            ("dhcp-option=", "dhcp-option="),
        ] {
            let option: DnsmasqOption = text.parse().unwrap();
            assert_eq!(option.to_string(), written);
            assert_eq!(written.parse(), Ok(option));
        }
    }

    #[test]
    fn no_option_is_both_allowed_and_refused() {
        let allowed = ALLOWED.iter().map(|(name, _)| *name);
        let mut names: Vec<&str> = allowed.chain(REFUSED.iter().map(|(name, _)| *name)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_manual_lists_each_allowed_option() {
        let manual = include_str!("../../../man/netlaunch-network.1");
        let (_, section) = manual.split_once(".Ss Options for dnsmasq\n").unwrap();
        let (section, _) = section.split_once("\n.Ss ").unwrap();
        let (_, list) = section.split_once("These options are accepted:\n").unwrap();
        let words = list.split_whitespace().filter(|word| ![".Cm", ",", "and", "."].contains(word));
        let listed: Vec<&str> = words.collect();
        let allowed: Vec<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
        assert_eq!(listed, allowed);
    }
}
