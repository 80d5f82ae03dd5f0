//! network.conf: the settings of the manager of virtual networks, as TOML.
//!
//! The rules are those of netlaunch.conf (see [`super::config`]): every key is optional, and an
//! unknown key is an error. The commands that start, end or list networks read the file.
//!
//! It is a file of its own so that a mistake in it stops no launch that needs no network.

use std::path::Path;

use serde::{Deserialize, Deserializer, de};

use super::config::{ConfigError, ConfigMistake, parse_with, read_with};
use crate::firewall::FirewallBackend;

/// The file's name in the configuration directory.
pub const FILE_NAME: &str = "network.conf";

/// Every key, in the order of the fields of [`NetworkConfig`].
pub const KEYS: [&str; 1] = ["firewall_backend"];

/// The settings of network.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// The tool that sets the firewall rules of networks; `None` for the first usable one.
    #[serde(deserialize_with = "backend")]
    pub firewall_backend: Option<FirewallBackend>,
}

/// Reads the file at `path`. If it does not exist, all settings have their defaults.
///
/// # Errors
/// [`ConfigError`], if the file exists and cannot be read, or if it has a mistake.
pub fn read(path: &Path) -> Result<NetworkConfig, ConfigError> {
    Ok(read_with(path, parse)?.unwrap_or_default())
}

/// Parses the content of the file.
///
/// # Errors
/// The first [`ConfigMistake`] in it.
pub fn parse(content: &[u8]) -> Result<NetworkConfig, ConfigMistake> {
    parse_with(content, |message| explain(message, &KEYS, "netlaunch-network(1)"))
}

/// Rewords the message of the TOML parser in the terms of a manager's file, with a fix.
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
    // The message of a value's own grammar has the fix after a colon.
    let complete = message.contains(": ");
    if complete { message.into() } else { format!("{message}; see {manual}") }
}

/// Reads `firewall_backend`.
pub(super) fn backend<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<FirewallBackend>, D::Error> {
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
        for backend in FirewallBackend::ORDER {
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
