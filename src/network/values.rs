//! Texts with a grammar that only networks have.
//!
//! All of them end up in dnsmasq's configuration or in file names, so none can hold a character
//! that would end or split a setting there: a line end, a comma, a quote, a backslash.

use std::fmt;
use std::str::FromStr;

use crate::types::checked_text::checked_text;

/// Why a text is not a value of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a network's name.
    #[error(
        "{0:?} cannot name a network: use 1 to 64 letters, digits, inner spaces, '-', '.', '_' or '+', a letter, digit or '_' first"
    )]
    Network(String),
    /// Not a firewalld zone (firewalld's own limit is 17 characters).
    #[error("{0:?} is not a zone of firewalld: use 1 to 17 letters, digits, '-' or '_'")]
    Zone(String),
    /// Not the name of an interface as libvirt's schema has it.
    #[error(
        "{0:?} cannot name a network interface here: use 1 to 15 letters, digits, '-', '.' or '_'"
    )]
    Device(String),
    /// Not a DHCP unique identifier (RFC 8415, 11) of one of its four types.
    #[error(
        "{0:?} is not a DHCP unique identifier: write its bytes in hexadecimal, such as 0:3:0:1:52:54:0:12:34:56"
    )]
    Duid(String),
    /// Not a file a TFTP server can be asked for (BOOTP has 127 bytes for its name).
    #[error(
        "{0:?} is not a boot file: use 1 to 127 characters without ',', '\"', '\\' and control characters"
    )]
    BootFile(String),
    /// Not an absolute path.
    #[error(
        "{0:?} is not a directory to serve: write a path from '/' without ',', '\"', '\\' and control characters"
    )]
    TftpRoot(String),
    /// Not the service of an SRV record (RFC 2782).
    #[error("{0:?} is not a service: use 1 to 62 letters, digits, '-' or '_', such as ldap")]
    Service(String),
    /// Not the value of a TXT record.
    #[error(
        "{0:?} cannot be a TXT record: use at most 255 bytes between commas, without '\"', '\\' and control characters"
    )]
    Txt(String),
}

checked_text!(
    /// What a network is called; also the name of its file.
    NetworkName, ValueError::Network, |text| {
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        starts && text.len() <= 64 && of(text, b"-._+ ") && !text.ends_with(' ')
    }
);
checked_text!(
    /// A zone of firewalld.
    ZoneName, ValueError::Zone, |text| (1..=17).contains(&text.len()) && of(text, b"-_")
);
checked_text!(
    /// A file that a guest asks the boot server for.
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
    /// The value of a TXT record: strings with commas between them.
    TxtValue, ValueError::Txt, |text| plain(text.replace(',', "").as_str()) && text.split(',').all(|part| part.len() <= 255)
);

fn of(text: &str, others: &[u8]) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
}

fn plain(text: &str) -> bool {
    !text.contains(|c: char| {
        c.is_control() || matches!(c, ',' | '"' | '\\' | '\u{fffe}' | '\u{ffff}')
    })
}

/// Whether an interface's name is one that libvirt's schema can hold, too.
///
/// # Errors
/// [`ValueError::Device`] when it is not.
pub(super) fn device(text: &str) -> Result<crate::types::InterfaceName, ValueError> {
    let error = || ValueError::Device(text.to_owned());
    if of(text, b"-._") { text.parse().map_err(|_| error()) } else { Err(error()) }
}

/// A DHCP unique identifier (RFC 8415, 11), by which DHCPv6 knows a client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duid(Vec<u8>);

impl Duid {
    /// Its bytes in the order in which they are sent.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Duid {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError::Duid(text.to_owned());
        let byte = |part: &str| match (1..=2).contains(&part.len()) && of(part, b"") {
            true => u8::from_str_radix(part, 16).ok(),
            false => None,
        };
        let bytes: Vec<u8> = text.split(':').map(byte).collect::<Option<_>>().ok_or_else(error)?;
        // The hardware type is one of the lowest 15 in libvirt's schema (Ethernet is 1).
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
            // libvirt's schema takes at most one zero in front of the type.
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all<T: FromStr<Err = ValueError> + fmt::Display>(good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(text.parse::<T>().unwrap_or_else(|e| panic!("{e}")).to_string(), *text);
        }
        for text in bad {
            let error = text.parse::<T>().err().unwrap_or_else(|| panic!("{text:?} is taken"));
            assert!(error.to_string().starts_with(&format!("{text:?} ")), "{error}");
        }
    }

    #[test]
    fn tables() {
        let long = |n: usize| "a".repeat(n);
        all::<NetworkName>(
            &["default", "n1", "_x", "a.b-c+d", "my lab", &long(64)],
            &["", ".a", "-a", "a/b", "..", " a", "a ", "a\tb", "ä", "a\n", &long(65)],
        );
        all::<ZoneName>(&["libvirt", "a_b-c"], &["", "a.b", &long(18)]);
        all::<BootFile>(&["pxelinux.0", "a b/ä"], &["", "a,b", "a\nb", "\"", "\\", &long(128)]);
        all::<TftpRoot>(&["/", "/var/lib/tftp root"], &["", "run", "/a,b", "/a\nb", "/\""]);
        all::<ServiceName>(&["ldap", "etcd-server-ssl"], &["", "a.b", "a,b"]);
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
        fn nothing_ends_a_setting(text in "[a/,\"\n\r\\\\\u{0}]{0,6}") {
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
