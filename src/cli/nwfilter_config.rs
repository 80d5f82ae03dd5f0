//! nwfilter.conf: the settings of the manager of network filters, as TOML.
//!
//! The rules are those of network.conf (see [`super::network_config`]).

use std::path::Path;

use serde::Deserialize;

use super::config::{ConfigError, ConfigMistake, parse_with, read_with};
use super::network_config::{backend, explain};
use crate::firewall::FirewallBackend;

/// The file's name in the configuration directory.
pub(super) const FILE_NAME: &str = "nwfilter.conf";

/// Every key, in the order of the fields of [`NwfilterConfig`].
pub const KEYS: [&str; 3] = ["firewall_backend", "enable_trace", "enable_counters"];

/// The settings of nwfilter.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NwfilterConfig {
    /// The tool that applies the filters; `None` for the first one that supports the filter.
    #[serde(deserialize_with = "backend")]
    pub firewall_backend: Option<FirewallBackend>,
    /// Whether `nft monitor trace` shows every frame of bound ports.
    pub enable_trace: bool,
    /// Whether rules and ports count frames and bytes (nftables).
    pub enable_counters: bool,
}

/// Reads the file at `path`. If it does not exist, all settings have their defaults.
///
/// # Errors
/// [`ConfigError`], if the file exists and cannot be read, or if it has a mistake.
pub(super) fn read(path: &Path) -> Result<NwfilterConfig, ConfigError> {
    Ok(read_with(path, parse)?.unwrap_or_default())
}

/// Parses the content of the file.
///
/// # Errors
/// The first [`ConfigMistake`] in it.
pub fn parse(content: &[u8]) -> Result<NwfilterConfig, ConfigMistake> {
    parse_with(content, |message| explain(message, &KEYS, "netlaunch-nwfilter(1)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key() {
        let all =
            parse(b"firewall_backend = \"iptables\"\nenable_trace = true\nenable_counters = true");
        let expected = NwfilterConfig {
            firewall_backend: Some(FirewallBackend::Iptables),
            enable_trace: true,
            enable_counters: true,
        };
        assert_eq!(all.unwrap(), expected);
        assert_eq!(parse(b"# nothing").unwrap(), NwfilterConfig::default());
    }

    #[test]
    fn mistakes_have_a_place_and_a_fix() {
        for (text, expected) in [
            (
                "backend = 1",
                ":1:1: unknown key `backend`; the keys are firewall_backend, enable_trace, enable_counters",
            ),
            ("enable_trace = 1", ":1:16: integer `1` cannot be used here; write true or false"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), expected, "{text}");
        }
    }
}
