//! nwfilter.conf: the settings of the manager of network filters, as TOML.
//!
//! The rules are those of network.conf (see [`super::network_config`]).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer, de};

use super::config::{ConfigError, ConfigMistake, parse_with, position, read_with};
use super::network_config::{backend, explain};
use crate::firewall::FirewallBackend;
use crate::nwfilter::{FilterName, Parameter, VariableName};
use crate::types::{InterfaceName, MacPrefix, PortPattern, is_plain};

/// The file's name in the configuration directory.
pub(super) const FILE_NAME: &str = "nwfilter.conf";

/// Every key, in the order of the fields of [`NwfilterConfig`].
pub const KEYS: [&str; 4] = ["firewall_backend", "enable_trace", "enable_counters", "watch"];

/// Every key of a rule of `watch`, in the order of the fields of [`WatchRule`].
pub const WATCH_KEYS: [&str; 5] = ["port", "bridge", "mac", "filter", "parameters"];

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
    /// The rules by which `nwfilter watch` gives ports their filters.
    pub watch: Vec<WatchRule>,
}

/// A rule that gives a port its filter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchRule {
    /// The names of the ports.
    pub port: PortPattern,
    /// The bridge of the ports; `None` for any bridge.
    #[serde(default, deserialize_with = "bridge")]
    pub bridge: Option<InterfaceName>,
    /// The beginning of the MAC addresses of the guests; `None` for any address.
    #[serde(default, deserialize_with = "mac_prefix")]
    pub mac: Option<MacPrefix>,
    /// The filter.
    pub filter: FilterName,
    /// The values of the filter's variables.
    #[serde(default, deserialize_with = "parameters")]
    pub parameters: Vec<Parameter>,
    /// The line and the column of the rule in the file.
    #[serde(skip)]
    pub place: (usize, usize),
}

/// Reads the name of a bridge, which the firewall tools must take for that one name.
fn bridge<'de, D: Deserializer<'de>>(from: D) -> Result<Option<InterfaceName>, D::Error> {
    let name: InterfaceName = String::deserialize(from)?.parse().map_err(de::Error::custom)?;
    if is_plain(name.as_str()) {
        Ok(Some(name))
    } else {
        Err(de::Error::custom(format!(
            "{name} cannot be the bridge of a rule: write a whole name, of letters, digits, ., _, - and @"
        )))
    }
}

/// Reads the beginning of MAC addresses.
fn mac_prefix<'de, D: Deserializer<'de>>(from: D) -> Result<Option<MacPrefix>, D::Error> {
    String::deserialize(from)?.parse().map(Some).map_err(de::Error::custom)
}

/// Reads a table of variables, each with one value or a list of values.
fn parameters<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Parameter>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Values {
        One(String),
        Several(Vec<String>),
    }
    let table = BTreeMap::<String, Values>::deserialize(from)?;
    let mut parameters = Vec::new();
    for (name, values) in table {
        let name: VariableName = name.parse().map_err(de::Error::custom)?;
        let values = match values {
            Values::One(value) => vec![value],
            Values::Several(values) => values,
        };
        if values.is_empty() {
            return Err(de::Error::custom(format!(
                "the variable {name} has an empty list: write a value, or remove the variable"
            )));
        }
        for value in values {
            parameters.push((name.clone(), value.parse().map_err(de::Error::custom)?));
        }
    }
    Ok(parameters)
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
    let mut config: NwfilterConfig = parse_with(content, reworded)?;
    for (rule, place) in config.watch.iter_mut().zip(places(content)) {
        rule.place = place;
    }
    Ok(config)
}

/// Returns the line and the column of each rule in a text that was parsed.
fn places(content: &[u8]) -> Vec<(usize, usize)> {
    #[derive(Deserialize)]
    struct Rules {
        #[serde(default)]
        watch: Vec<toml::Spanned<de::IgnoredAny>>,
    }
    let text = String::from_utf8_lossy(content);
    let rules = toml::from_str::<Rules>(&text).map_or_else(|_| Vec::new(), |rules| rules.watch);
    let place = |rule: &toml::Spanned<_>| position(text.get(..rule.span().start).unwrap_or(""));
    rules.iter().map(place).collect()
}

/// Rewords the message of the TOML parser, with the keys of the table that it is about.
fn reworded(message: &str) -> String {
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("the rule has no {key}: each rule has at least port and filter");
    }
    if message.contains("untagged enum Values") {
        return "the value of a variable is a text or a list of texts".to_owned();
    }
    let is_rule = message.contains("unknown field") && message.contains("`parameters`");
    if message.contains("invalid type") && !message.ends_with("a boolean") {
        let found = message.trim_start_matches("invalid type: ");
        let found = found.split(", expected ").next().unwrap_or_default();
        if !message.ends_with("a string") {
            return format!("{found} cannot be used here; see netlaunch-nwfilter(1)");
        }
    }
    explain(message, if is_rule { &WATCH_KEYS } else { &KEYS }, "netlaunch-nwfilter(1)")
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
            watch: Vec::new(),
        };
        assert_eq!(all.unwrap(), expected);
        assert_eq!(parse(b"# nothing").unwrap(), NwfilterConfig::default());
    }

    #[test]
    fn a_watch_rule_has_a_port_and_a_filter_and_narrower_terms() {
        let text = "[[watch]]\nport = \"vnet*\"\nfilter = \"clean-traffic\"\n\
                    [[watch]]\nport = \"tap0\"\nbridge = \"br0\"\nmac = \"52:54:00\"\nfilter = \"f\"\n\
                    parameters = { IP = \"10.0.0.2\", DHCPSERVER = [\"10.0.0.1\", \"10.0.0.9\"] }\n";
        let rules = parse(text.as_bytes()).unwrap().watch;
        assert_eq!(rules[0].port.as_str(), "vnet*");
        assert!(rules[0].bridge.is_none() && rules[0].parameters.is_empty());
        assert_eq!(rules[1].mac.as_ref().unwrap().to_string(), "52:54:00");
        let parameters: Vec<String> =
            rules[1].parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(parameters, ["DHCPSERVER=10.0.0.1", "DHCPSERVER=10.0.0.9", "IP=10.0.0.2"]);
        assert_eq!((rules[0].place, rules[1].place), ((1, 1), (4, 1)));
    }

    #[test]
    fn mistakes_have_a_place_and_a_fix() {
        for (text, expected) in [
            (
                "backend = 1",
                ":1:1: unknown key `backend`; the keys are firewall_backend, enable_trace, enable_counters, watch",
            ),
            (
                "[[watch]]\nport = \"vnet*\"\nfiltre = \"a\"",
                ":3:1: unknown key `filtre`; the keys are port, bridge, mac, filter, parameters",
            ),
            (
                "[[watch]]\nmac = \"52:54:00\"\nfilter = \"a\"",
                ":1:1: the rule has no `port`: each rule has at least port and filter",
            ),
            (
                "[[watch]]\nport = \"*\"\nfilter = \"a\"",
                ":2:8: \"*\" names no ports: write an interface, such as tap0, or the beginning of names and *, such as vnet*",
            ),
            (
                "[[watch]]\nport = \"a*\"\nmac = \"5\"\nfilter = \"a\"",
                ":3:7: \"5\" begins no MAC address: write one to six pairs of hexadecimal digits, such as 52:54:00",
            ),
            (
                "[[watch]]\nport = \"a*\"\nbridge = \"br*\"\nfilter = \"a\"",
                ":3:10: br* cannot be the bridge of a rule: write a whole name, of letters, digits, ., _, - and @",
            ),
            (
                "[[watch]]\nport = \"a*\"\nbridge = \"br+\"\nfilter = \"a\"",
                ":3:10: br+ cannot be the bridge of a rule: write a whole name, of letters, digits, ., _, - and @",
            ),
            (
                "[[watch]]\nport = \"a*\"\nfilter = \"a\"\nparameters = { IP = 1 }",
                ":4:21: the value of a variable is a text or a list of texts",
            ),
            (
                "[[watch]]\nport = \"a*\"\nfilter = \"a\"\nparameters = { IP = [] }",
                ":4:14: the variable IP has an empty list: write a value, or remove the variable",
            ),
            (
                "[[watch]]\nport = \"a*\"\nmac = \"01:00:5e:00:00:01\"\nfilter = \"a\"",
                ":3:7: \"01:00:5e:00:00:01\" is the beginning of multicast addresses, which no card has: write a first pair that is even, such as 52",
            ),
            ("enable_trace = 1", ":1:16: integer `1` cannot be used here; write true or false"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), expected, "{text}");
        }
    }
}
