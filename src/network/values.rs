//! Texts with a grammar that only networks use.
//!
//! All of them are written into dnsmasq's configuration or used as file names. So no value may
//! contain a character that ends or splits a setting there: a line end, a quote or a backslash, and
//! a comma only where it separates the strings of a TXT record.

use std::fmt;
use std::str::FromStr;

use crate::types::checked_text::checked_text;
pub use crate::types::{NetworkName, PortGroupName};

/// The reason why a text is not a valid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The text is not the name of a firewalld zone (firewalld's own limit is 17 characters).
    #[error("{0:?} is not a zone of firewalld: use 1 to 17 letters, digits, '-' or '_'")]
    Zone(String),
    /// The text is not the name of an interface as libvirt's schema defines it.
    #[error(
        "{0:?} cannot name a network interface here: use 1 to 15 letters, digits, '-', '.' or '_'"
    )]
    Device(String),
    /// The kernel uses the name in `/proc/sys/net/ipv4/conf` for another purpose.
    #[error(
        "{0:?} cannot name a bridge, because Linux uses this name itself: use another, such as virbr9"
    )]
    Bridge(String),
    /// The text is not a DHCP unique identifier (RFC 8415, 11) of one of its four types.
    #[error(
        "{0:?} is not a DHCP unique identifier: write its bytes in hexadecimal, such as 0:3:0:1:52:54:0:12:34:56"
    )]
    Duid(String),
    /// The text is not the name of a boot file (BOOTP has 127 bytes for the name).
    #[error(
        "{0:?} is not a boot file: use 1 to 127 characters without ',', '\"', '\\' and control characters"
    )]
    BootFile(String),
    /// The text is not an absolute path for the TFTP server.
    #[error(
        "{0:?} is not a directory to serve: write a path from '/' without ',', '\"', '\\' and control characters"
    )]
    TftpRoot(String),
    /// The text is not the service of an SRV record (RFC 2782).
    #[error("{0:?} is not a service: use 1 to 62 letters, digits, '-' or '_', such as ldap")]
    Service(String),
    /// The text is not a title.
    #[error("{0:?} is not a title: write one line without control characters")]
    Title(String),
    /// The text is not the value of a TXT record.
    #[error(
        "{0:?} cannot be a TXT record: use at most 255 bytes between commas, without '\"', '\\' and control characters"
    )]
    Txt(String),
}

checked_text!(
    /// The name of a firewalld zone.
    ZoneName, ValueError::Zone, |text| (1..=17).contains(&text.len()) && of(text, b"-_")
);
checked_text!(
    /// A short description of a network.
    Title, ValueError::Title, |text| !text.is_empty() && !text.contains(|c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
);
checked_text!(
    /// The name of a file that a guest gets from the boot server.
    BootFile, ValueError::BootFile, |text| (1..=127).contains(&text.len()) && plain(text)
);
checked_text!(
    /// The directory whose files guests can fetch by TFTP.
    TftpRoot, ValueError::TftpRoot, |text| text.starts_with('/') && text.len() < 4096 && plain(text) && !text.contains(',')
);
checked_text!(
    /// The service of an SRV record, without the underscore that DNS puts in front.
    ServiceName, ValueError::Service, |text| (1..=62).contains(&text.len()) && of(text, b"-_")
);
checked_text!(
    /// The value of a TXT record: strings separated by commas.
    TxtValue, ValueError::Txt, |text| plain(text.replace(',', "").as_str()) && text.split(',').all(|part| part.len() <= 255)
);

/// Returns whether every byte is an ASCII letter, an ASCII digit or one of `others`.
fn of(text: &str, others: &[u8]) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
}

/// Returns whether the text has none of the characters that end or split a setting of dnsmasq, and
/// no character that XML forbids.
fn plain(text: &str) -> bool {
    !text.contains(|c: char| {
        c.is_control() || matches!(c, ',' | '"' | '\\' | '\u{fffe}' | '\u{ffff}')
    })
}

/// Reads the name of an interface, with the characters that libvirt's schema allows.
///
/// # Errors
/// [`ValueError::Device`] for any other text.
pub(super) fn device(text: &str) -> Result<crate::types::InterfaceName, ValueError> {
    let error = || ValueError::Device(text.to_owned());
    if of(text, b"-._") { text.parse().map_err(|_| error()) } else { Err(error()) }
}

/// Reads the name of a bridge.
///
/// `lo` is the loopback interface. The kernel has the settings of all interfaces, and of new ones,
/// under `all` and `default`, so a bridge with such a name could have no settings of its own.
///
/// # Errors
/// [`ValueError::Bridge`] for these names; the errors of [`device`] for any other text.
pub(super) fn bridge_name(text: &str) -> Result<crate::types::InterfaceName, ValueError> {
    match text {
        "all" | "default" | "lo" => Err(ValueError::Bridge(text.to_owned())),
        _ => device(text),
    }
}

/// A DHCP unique identifier (RFC 8415, 11), which identifies a DHCPv6 client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duid(Vec<u8>);

impl Duid {
    /// Returns its bytes, in the order in which they are sent.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Duid {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError::Duid(text.to_owned());
        let byte = |part: &str| {
            let digits = (1..=2).contains(&part.len()) && of(part, b"");
            u8::from_str_radix(part, 16).ok().filter(|_| digits)
        };
        let bytes: Vec<u8> = text.split(':').map(byte).collect::<Option<_>>().ok_or_else(error)?;
        // libvirt's schema allows the hardware types 1 to 15 only (Ethernet is 1).
        let hardware = |link: &[u8]| matches!(link, [0, 1..=15]);
        let valid = match bytes.get(..2) {
            Some([0, 1]) => (14..=16).contains(&bytes.len()) && hardware(&bytes[2..4]),
            Some([0, 2]) => (7..=130).contains(&bytes.len()),
            Some([0, 3]) => (10..=12).contains(&bytes.len()) && hardware(&bytes[2..4]),
            Some([0, 4]) => bytes.len() == 18,
            _ => false,
        };
        if valid { Ok(Duid(bytes)) } else { Err(error()) }
    }
}

impl fmt::Display for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            // Two digits for each byte are valid, because libvirt's schema allows one leading zero
            // before the type.
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all<T: FromStr<Err: std::error::Error> + fmt::Display>(good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(text.parse::<T>().unwrap_or_else(|e| panic!("{e}")).to_string(), *text);
        }
        for text in bad {
            let error = text.parse::<T>().err().unwrap_or_else(|| panic!("{text:?} is taken"));
            assert!(error.to_string().starts_with(&format!("{text:?} ")), "{error}");
        }
    }

    #[test]
    fn each_kind_of_value_accepts_its_grammar_only() {
        let long = |n: usize| "a".repeat(n);
        all::<NetworkName>(
            &["default", "n1", "_x", "a.b-c+d", "my lab", &long(64)],
            &["", ".a", "-a", "a/b", "..", " a", "a ", "a\tb", "ä", "a\n", &long(65)],
        );
        all::<ZoneName>(&["libvirt", "a_b-c"], &["", "a.b", &long(18)]);
        all::<BootFile>(&["pxelinux.0", "a b/ä"], &["", "a,b", "a\nb", "\"", "\\", &long(128)]);
        all::<TftpRoot>(&["/", "/var/lib/tftp root"], &["", "run", "/a,b", "/a\nb", "/\""]);
        all::<ServiceName>(&["ldap", "etcd-server-ssl", "_ldap", "a_b"], &["", "a.b", "a,b"]);
        all::<TxtValue>(&["", "a,b c=d"], &["a\nb", "\"", &long(256)]);
        all::<Duid>(
            &[
                "00:01:00:01:4f:35:64:21:f0:de:f1:ae:e9:22",
                "00:02:00:00:00:09:0c",
                "00:03:00:01:52:54:00:12:34:56",
                "00:04:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00",
            ],
            &[
                "",
                "00:03",
                "00:05:01",
                "00:03:00:01:52:54:00:12:34:+6",
                "0003",
                "00:03:00:00:52:54:00:12:34:56",
            ],
        );
        assert_eq!("0:3:0:1:52:54:0:1:2:3".parse::<Duid>().unwrap().octets().len(), 10);
        assert!(device("virbr0").is_ok() && device("br@0").is_err() && device("").is_err());
    }

    proptest! {
        #[test]
        fn no_value_contains_a_character_that_ends_a_setting(text in "[a/,\"\n\r\\\\\u{0}]{0,6}") {
            let values = [
                text.parse::<BootFile>().map(String::from),
                text.parse::<TftpRoot>().map(String::from),
                text.parse::<TxtValue>().map(String::from),
            ];
            for value in values.into_iter().flatten() {
                prop_assert!(!value.contains(['\n', '\r', '\0', '"', '\\']));
            }
        }
    }
}
