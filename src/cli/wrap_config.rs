//! The key `wrap` of netlaunch.conf: the settings of calls as a stand-in for QEMU.
//!
//! The other keys of the file do not apply to such calls: a port that the file publishes for every
//! launch would be busy at the second guest of a program that is not written for netlaunch.

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::Deserialize;

use super::args::{BackendArg, TransportArg};
use super::config::{self, Config, ConfigError};
use super::configuration;
use super::environment::Environment;
use crate::launcher::plan::{AddressChoice, Family};
use crate::types::{DomainName, InterfaceName, PublishRequest};

/// The settings for networks that a stand-in moves; each is as the key of [`Config`] with its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WrapConfig {
    /// The backend.
    pub backend: Option<BackendArg>,
    /// The transport.
    pub transport: Option<TransportArg>,
    /// passt; without this key, the `passt` of the file.
    #[serde(deserialize_with = "config::program")]
    pub passt: Option<PathBuf>,
    /// Published ports, besides those of QEMU's arguments.
    pub publish: Option<Vec<PublishRequest>>,
    /// Whether the guest reaches the host's loopback services.
    pub host_loopback: Option<bool>,
    /// The guest's address.
    #[serde(deserialize_with = "config::address")]
    pub address: Option<AddressChoice>,
    /// The guest's gateway.
    #[serde(deserialize_with = "config::ipv4")]
    pub gateway: Option<Ipv4Addr>,
    /// The guest's DNS server.
    #[serde(deserialize_with = "config::ip")]
    pub dns: Option<IpAddr>,
    /// DNS search domains.
    pub search: Option<Vec<DomainName>>,
    /// The guest's name in DHCP.
    pub hostname: Option<DomainName>,
    /// The guest's MTU.
    #[serde(deserialize_with = "config::mtu")]
    pub mtu: Option<u16>,
    /// The host interface of passt.
    pub interface: Option<InterfaceName>,
    /// The guest's IP versions.
    #[serde(deserialize_with = "config::family")]
    pub family: Option<Family>,
    /// The log of calls; the environment variable wins.
    #[serde(deserialize_with = "config::file")]
    pub log: Option<PathBuf>,
}

/// Returns the path of the log of calls: that of `NETLAUNCH_WRAP_LOG`, or the key `log`. A program
/// that clears the environment of its QEMU, such as libvirt, can have a log by the key only.
///
/// Without the variable this reads the file at each call, also at a probe. A file with a mistake
/// has no log, because a stand-in reports nothing on standard error.
pub(super) fn log_path(environment: &Environment, file: &LazyConfig) -> Option<PathBuf> {
    let variable = environment.wrap_log().map(PathBuf::from);
    variable.or_else(|| file.read(environment).ok()?.wrap.as_ref()?.log.clone())
}

/// The settings of the file. The first use reads the file, and no later one.
#[derive(Debug, Default)]
pub(super) struct LazyConfig(OnceCell<Result<Config, ConfigError>>);

impl LazyConfig {
    /// Returns the settings.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(super) fn read(&self, environment: &Environment) -> Result<&Config, &ConfigError> {
        self.0.get_or_init(|| configuration(environment)).as_ref()
    }
}

/// Returns the settings of a stand-in in the form of the file's settings.
pub(super) fn stand_in(file: &Config) -> Config {
    let wrap = file.wrap.as_deref().cloned().unwrap_or_default();
    Config {
        backend: wrap.backend,
        transport: wrap.transport,
        passt: wrap.passt.or_else(|| file.passt.clone()),
        publish: wrap.publish,
        host_loopback: wrap.host_loopback,
        address: wrap.address,
        gateway: wrap.gateway,
        dns: wrap.dns,
        search: wrap.search,
        hostname: wrap.hostname,
        mtu: wrap.mtu,
        interface: wrap.interface,
        family: wrap.family,
        source: file.source.clone(),
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_has_the_settings_of_wrap_and_the_programs_of_the_file() {
        let file = "mtu = 1300\npasst = \"/p\"\npublish = [\"22\"]\n[wrap]\nbackend = \"passt\"\nfamily = \"ipv4\"\n";
        let file = config::parse(file.as_bytes()).unwrap();
        let expected = Config {
            backend: Some(BackendArg::Passt),
            family: Some(Family::V4),
            passt: Some("/p".into()),
            ..Config::default()
        };
        assert_eq!(stand_in(&file), expected);
        let own = config::parse(b"passt = \"/p\"\n[wrap]\npasst = \"/q\"\n").unwrap();
        assert_eq!(stand_in(&own).passt, Some("/q".into()));
        assert_eq!(stand_in(&Config::default()), Config::default());
    }

    #[test]
    fn a_mistake_in_wrap_has_a_place_and_a_fix() {
        for (text, expected) in [
            ("[wrap]\nmtu = 1", ":2:7: \"1\" is not an MTU: use 68 to 65520 bytes"),
            (
                "[wrap]\nlog = \"wrap.log\"",
                ":2:7: \"wrap.log\" is a relative path: write it from / on",
            ),
            (
                "[wrap]\ndevice = \"e1000\"",
                ":2:1: unknown key `device`; the keys are backend, transport, passt, publish, host_loopback, address, gateway, dns, search, hostname, mtu, interface, family, log",
            ),
        ] {
            assert_eq!(config::parse(text.as_bytes()).unwrap_err().to_string(), expected);
        }
    }
}
