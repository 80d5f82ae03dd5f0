//! netlaunch.conf: defaults for the options of a launch, as TOML.
//!
//! [`read`] reads the file, [`parse`] its text; only [`read`] touches the file system. The values
//! have the same grammars as the values of the options, so they give the same messages.
//!
//! Every key is optional, and an unknown key is an error with its position: a misspelled key that
//! is ignored would leave the user with a setting that has no effect.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

pub use super::config_error::{ConfigError, ConfigMistake};

use super::args::{self, BackendArg, LogFormat, TransportArg};
use super::wrap_config::WrapConfig;
use crate::launcher::plan::{AddressChoice, Family};
use crate::sys::dir::Dir;
use crate::sys::input::{self, Pipes};
use crate::types::printable::printable;
use crate::types::{Device, DomainName, InterfaceName, PublishRequest};

/// The file's name in the configuration directory.
pub const FILE_NAME: &str = "netlaunch.conf";

/// The largest settings file, in bytes.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// Every key, in the order of the fields of [`Config`].
pub const KEYS: [&str; 18] = [
    "backend",
    "transport",
    "passt",
    "qemu",
    "device",
    "publish",
    "host_loopback",
    "address",
    "gateway",
    "dns",
    "search",
    "hostname",
    "mtu",
    "interface",
    "family",
    "stop_timeout",
    "log_format",
    "wrap",
];

/// The settings of netlaunch.conf; `None` for a key that is not in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// As `--backend`.
    pub backend: Option<BackendArg>,
    /// As `--transport`.
    pub transport: Option<TransportArg>,
    /// As `--passt`: an absolute path, or a name to look up in PATH.
    #[serde(deserialize_with = "program")]
    pub passt: Option<PathBuf>,
    /// As `--qemu`, in the form of `passt`.
    #[serde(deserialize_with = "program")]
    pub qemu: Option<PathBuf>,
    /// As `--device`.
    pub device: Option<Device>,
    /// As `--publish`. The option replaces the whole list.
    pub publish: Option<Vec<PublishRequest>>,
    /// Whether the guest reaches the host's loopback services; false is `--no-host-loopback`.
    pub host_loopback: Option<bool>,
    /// As `--address`.
    #[serde(deserialize_with = "address")]
    pub address: Option<AddressChoice>,
    /// As `--gateway`.
    #[serde(deserialize_with = "ipv4")]
    pub gateway: Option<Ipv4Addr>,
    /// As `--dns`.
    #[serde(deserialize_with = "ip")]
    pub dns: Option<IpAddr>,
    /// As `--search`. The option replaces the whole list.
    pub search: Option<Vec<DomainName>>,
    /// As `--hostname`.
    pub hostname: Option<DomainName>,
    /// As `--mtu`.
    #[serde(deserialize_with = "mtu")]
    pub mtu: Option<u16>,
    /// As `--interface`.
    pub interface: Option<InterfaceName>,
    /// `both`, `ipv4` (as `--ipv4-only`) or `ipv6` (as `--ipv6-only`).
    #[serde(deserialize_with = "family")]
    pub family: Option<Family>,
    /// As `--stop-timeout`, in seconds.
    #[serde(deserialize_with = "seconds")]
    pub stop_timeout: Option<u32>,
    /// As `--log-format`.
    pub log_format: Option<LogFormat>,
    /// The settings of calls as a stand-in for QEMU.
    pub wrap: Option<Box<WrapConfig>>,
    /// The file that has these settings.
    #[serde(skip)]
    pub source: Option<PathBuf>,
}

/// Reads the file at `path`. If it does not exist, all settings are `None`.
///
/// # Errors
/// [`ConfigError`], if the file exists and cannot be read, or if it has a mistake.
pub fn read(path: &Path) -> Result<Config, ConfigError> {
    let config = read_with(path, parse)?;
    Ok(config.map(|config| Config { source: Some(path.to_owned()), ..config }).unwrap_or_default())
}

/// Reads a settings file with its parser; returns `None` if it does not exist.
pub(super) fn read_with<T>(
    path: &Path,
    parse: fn(&[u8]) -> Result<T, ConfigMistake>,
) -> Result<Option<T>, ConfigError> {
    let checked = Dir::check_file(path);
    let bytes = match checked.and_then(|()| input::read(path, MAX_BYTES, Pipes::Refused)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !leads_nowhere(path) => {
            return Ok(None);
        }
        Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
    };
    let content = parse(&bytes);
    content.map(Some).map_err(|mistake| ConfigError::Content { path: path.to_owned(), mistake })
}

/// Returns whether the path, or its directory, is a link without a target. Then there are settings,
/// whose place is, for example, not mounted.
fn leads_nowhere(path: &Path) -> bool {
    let is_dangling = |path: &Path| path.is_symlink() && !path.exists();
    is_dangling(path) || path.parent().is_some_and(is_dangling)
}

/// Parses the content of the file.
///
/// # Errors
/// The first [`ConfigMistake`] in it.
pub fn parse(content: &[u8]) -> Result<Config, ConfigMistake> {
    parse_with(content, explain)
}

/// Parses the content of a settings file. `explain` rewords the message of the TOML parser.
pub(super) fn parse_with<T: de::DeserializeOwned>(
    content: &[u8],
    explain: fn(&str) -> String,
) -> Result<T, ConfigMistake> {
    let text = std::str::from_utf8(content).map_err(|error| ConfigMistake {
        position: Some(position(&String::from_utf8_lossy(&content[..error.valid_up_to()]))),
        what: "not UTF-8; save the file in that encoding".to_owned(),
    })?;
    toml::from_str(text).map_err(|error| ConfigMistake {
        position: error.span().and_then(|span| text.get(..span.start)).map(position),
        what: printable(&explain(error.message())).into_owned(),
    })
}

/// Returns the line and the column after the text `before`.
pub(super) fn position(before: &str) -> (usize, usize) {
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// Rewords the message of the TOML parser in the terms of this file, with a fix.
fn explain(message: &str) -> String {
    let Some((what, expected)) = message.split_once(", expected ") else {
        // The message of a value's own grammar has the fix after a colon.
        let complete = message.contains(": ");
        return if complete { message.into() } else { format!("{message}; see netlaunch.conf(5)") };
    };
    let list = expected.trim_start_matches("one of ").replace('`', "");
    if let Some(key) = what.strip_prefix("unknown field ") {
        return format!("unknown key {key}; the keys are {list}");
    }
    if let Some(value) = what.strip_prefix("unknown variant ") {
        return format!("unknown value {value}; use one of {list}");
    }
    if let Some(found) = what.strip_prefix("invalid type: ") {
        let expected = if expected == "i64" { "a number" } else { expected };
        return format!("{found} cannot be used here; write {expected}");
    }
    format!("{what}; expected {expected}")
}

fn text<'de, D, T, E>(
    deserializer: D,
    read: fn(&str) -> Result<T, E>,
) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    E: fmt::Display,
{
    let text = String::deserialize(deserializer)?;
    read(&text).map(Some).map_err(de::Error::custom)
}

pub(super) fn ipv4<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Ipv4Addr>, D::Error> {
    text(deserializer, args::ipv4)
}

pub(super) fn ip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    text(deserializer, args::ip)
}

pub(super) fn address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<AddressChoice>, D::Error> {
    text(deserializer, AddressChoice::from_str)
}

pub(super) fn mtu<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let number = i64::deserialize(deserializer)?;
    args::mtu(&number.to_string()).map(Some).map_err(de::Error::custom)
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number = i64::deserialize(deserializer)?;
    args::seconds(&number.to_string()).map(Some).map_err(de::Error::custom)
}

/// Refuses a relative path, which would name another program in every current directory.
pub(super) fn program<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PathBuf>, D::Error> {
    let read = |text: &str| {
        let path = args::program(text).map_err(|error| error.to_string())?;
        if path.is_relative() && text.contains('/') {
            return Err(format!(
                "{text:?} is a relative path: write it from / on, or the name alone to look it up in PATH"
            ));
        }
        Ok(path)
    };
    text(deserializer, read)
}

/// Refuses a relative path, which would name another file in every current directory.
pub(super) fn file<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PathBuf>, D::Error> {
    let read = |text: &str| match Path::new(text) {
        path if path.is_absolute() => Ok(path.to_owned()),
        _ => Err(format!("{text:?} is a relative path: write it from / on")),
    };
    text(deserializer, read)
}

pub(super) fn family<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Family>, D::Error> {
    let read = |text: &str| match text {
        "both" => Ok(Family::Both),
        "ipv4" => Ok(Family::V4),
        "ipv6" => Ok(Family::V6),
        _ => Err(format!("unknown value {text:?}: use one of both, ipv4, ipv6")),
    };
    text(deserializer, read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_sets_nothing() {
        for text in ["", "# nothing\n", "\u{feff}# byte order mark\n"] {
            assert_eq!(parse(text.as_bytes()), Ok(Config::default()), "{text:?}");
        }
    }

    #[test]
    fn every_key() {
        let text = r#"
            backend = "passt"
            transport = "vhost-user"
            passt = "/opt/passt"
            qemu = "qemu-system-x86_64"
            device = "none"
            publish = ["2222:22", "[::1]:53/udp"]
            host_loopback = false
            address = "host"
            gateway = "10.0.2.2"
            dns = "2620:fe::fe"
            search = ["example.org"]
            hostname = "web"
            mtu = 1500
            interface = "eth0"
            family = "ipv4"
            stop_timeout = 60
            log_format = "json"
            wrap = { mtu = 1400 }
        "#;
        let expected = Config {
            backend: Some(BackendArg::Passt),
            transport: Some(TransportArg::VhostUser),
            passt: Some("/opt/passt".into()),
            qemu: Some("qemu-system-x86_64".into()),
            device: Some(Device::None),
            publish: Some(vec!["2222:22".parse().unwrap(), "[::1]:53/udp".parse().unwrap()]),
            host_loopback: Some(false),
            address: Some(AddressChoice::Host),
            gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
            dns: Some("2620:fe::fe".parse().unwrap()),
            search: Some(vec!["example.org".parse().unwrap()]),
            hostname: Some("web".parse().unwrap()),
            mtu: Some(1500),
            interface: Some("eth0".parse().unwrap()),
            family: Some(Family::V4),
            stop_timeout: Some(60),
            log_format: Some(LogFormat::Json),
            wrap: Some(Box::new(WrapConfig { mtu: Some(1400), ..WrapConfig::default() })),
            source: None,
        };
        assert_eq!(parse(text.as_bytes()), Ok(expected));
        let keys: Vec<_> = text.lines().filter_map(|line| line.split_once(" = ")).collect();
        assert_eq!(keys.iter().map(|(key, _)| key.trim()).collect::<Vec<_>>(), KEYS);
    }

    #[test]
    fn the_list_of_keys_is_that_of_the_parser() {
        let keys = KEYS.join(", ");
        assert_eq!(mistake("x = 1"), format!(":1:1: unknown key `x`; the keys are {keys}"));
    }

    #[test]
    fn mistakes_have_a_place_and_a_fix() {
        for (text, expected) in [
            (
                "\nbackend = \"pasts\"",
                ":2:11: unknown value `pasts`; use one of auto, passt, slirp, bridge",
            ),
            ("mtu = 70000", ":1:7: \"70000\" is not an MTU: use 68 to 65520 bytes"),
            ("stop_timeout = -1", ":1:16: \"-1\" is not a number of seconds: use 0 to 4294967295"),
            ("mtu = -1", ":1:7: \"-1\" is not an MTU: use 68 to 65520 bytes"),
            ("mtu = \"1500\"", ":1:7: string \"1500\" cannot be used here; write a number"),
            (
                "dns = \"x\"",
                ":1:7: \"x\" is not an IP address: write one such as 9.9.9.9 or 2620:fe::fe",
            ),
            (
                "# é\npublish = [\"22\",\n  \"é\"]",
                ":2:11: \"é\" in \"é\" is not a port: use 1 to 65535",
            ),
            ("backend = slirp", ":1:11: string values must be quoted; expected literal string"),
            ("host_loopback = \"no\"", ":1:17: string \"no\" cannot be used here; write a boolean"),
            ("mtu = 1500\nmtu = 1500", ":2:1: duplicate key; see netlaunch.conf(5)"),
            (
                "passt = \"./passt\"",
                ":1:9: \"./passt\" is a relative path: write it from / on, or the name alone to look it up in PATH",
            ),
            ("family = \"v4\"", ":1:10: unknown value \"v4\": use one of both, ipv4, ipv6"),
        ] {
            assert_eq!(mistake(text), expected, "{text}");
        }
        assert_eq!(
            parse(b"\n# \xff").unwrap_err().to_string(),
            ":2:3: not UTF-8; save the file in that encoding"
        );
    }

    #[test]
    fn a_missing_file_is_no_error_and_an_unreadable_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        assert_eq!(read(&path).unwrap(), Config::default());
        std::fs::write(&path, "mtu = 1500").unwrap();
        let config = read(&path).unwrap();
        assert_eq!((config.mtu, config.source.as_deref()), (Some(1500), Some(path.as_path())));
        std::fs::write(&path, "mtu = 1").unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!(error.status(), 2);
        let expected = format!("{}:1:7: \"1\" is not an MTU", path.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        let place = dir.path().join("place");
        std::os::unix::fs::symlink(dir.path().join("none"), &place).unwrap();
        for path in [place.clone(), place.join(FILE_NAME)] {
            let error = read(&path).unwrap_err();
            assert_eq!(error.status(), 125);
            assert!(error.to_string().contains("cannot be read: No such file"), "{error}");
        }
        let error = read(dir.path()).unwrap_err();
        assert_eq!(error.status(), 125);
        assert!(error.to_string().contains("cannot be read: Is a directory"), "{error}");
    }
}
