//! network.conf: the settings of the virtual networks' driver, as TOML.
//!
//! Read as netlaunch.conf is (see [`super::config`]): every key is optional and none is ignored.
//! A file of its own, since a mistake in the settings of networks is no reason to refuse a launch
//! that needs none of them; it is read where networks are started, ended or listed.

use std::path::Path;

use serde::{Deserialize, Deserializer, de};

use super::config::{ConfigError, Mistake, parse_with, read_with};
use crate::firewall::Backend;

/// The file's name in the configuration directory.
pub const FILE_NAME: &str = "network.conf";

/// Every key, in the order of the fields of [`NetworkConfig`].
pub const KEYS: [&str; 1] = ["firewall_backend"];

/// What network.conf sets; `None` is what it leaves to netlaunch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// The firewall tool to use; without it the first that is usable.
    #[serde(deserialize_with = "backend")]
    pub firewall_backend: Option<Backend>,
}

/// Reads the file at `path`. A file that is not there sets nothing.
///
/// # Errors
/// [`ConfigError`], when it is there and cannot be read, or has a mistake.
pub fn read(path: &Path) -> Result<NetworkConfig, ConfigError> {
    Ok(read_with(path, parse)?.unwrap_or_default())
}

/// Reads the content of the file.
///
/// # Errors
/// The first [`Mistake`] in it.
pub fn parse(content: &[u8]) -> Result<NetworkConfig, Mistake> {
    parse_with(content, |message| explain(message, &KEYS, "netlaunch-network(1)"))
}

/// The parser's message in the terms of a driver's file, with what to do.
pub(super) fn explain(message: &str, keys: &[&str], manual: &str) -> String {
    if let Some((what, _)) = message.split_once(", expected ") {
        if let Some(key) = what.strip_prefix("unknown field ") {
            return format!("unknown key {key}; the keys are {}", keys.join(", "));
        }
        if let Some(found) = what.strip_prefix("invalid type: ") {
            if message.ends_with("a boolean") {
                return format!("{found} cannot be used here; write true or false");
            }
            return format!("{found} cannot be used here; write \"nftables\" or \"iptables\"");
        }
    }
    // The setting's own message says what to write, behind a colon.
    let complete = message.contains(": ");
    if complete { message.into() } else { format!("{message}; see {manual}") }
}

/// Reads `firewall_backend`.
pub(super) fn backend<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Backend>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key() {
        let set = |text: &str| parse(text.as_bytes()).unwrap().firewall_backend;
        assert_eq!(set("# nothing"), None);
        for backend in Backend::ORDER {
            assert_eq!(set(&format!("{} = \"{backend}\"", KEYS[0])), Some(backend));
        }
    }

    #[test]
    fn mistakes_have_a_place_and_a_fix() {
        for (text, expected) in [
            ("\nbackend = 1", ":2:1: unknown key `backend`; the keys are firewall_backend"),
            (
                "firewall_backend = \"nft\"",
                ":1:20: firewall_backend cannot be \"nft\": write \"nftables\" or \"iptables\"",
            ),
            (
                "firewall_backend = 1",
                ":1:20: integer `1` cannot be used here; write \"nftables\" or \"iptables\"",
            ),
            (
                "firewall_backend = \"nftables\"\nfirewall_backend = \"nftables\"",
                ":2:1: duplicate key; see netlaunch-network(1)",
            ),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), expected, "{text}");
        }
        let error = parse(b"\n# \xff").unwrap_err().to_string();
        assert_eq!(error, ":2:3: not UTF-8; save the file in that encoding");
    }

    #[test]
    fn a_missing_file_is_no_error_and_an_unreadable_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        assert_eq!(read(&path).unwrap(), NetworkConfig::default());
        std::fs::write(&path, "x = 1").unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{}:1:1: ", path.display())), "{error}");
        assert_eq!((error.status(), read(dir.path()).unwrap_err().status()), (2, 125));
    }
}
