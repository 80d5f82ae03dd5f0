//! A request as JSON.
//!
//! The names and values are those of netlaunch.conf and of the long options. `version` is required,
//! and a member that is not known is refused by its name: one that is silently ignored can open a
//! port or close one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::CallError;
use crate::launcher::plan::{Backend, Family, Transport};
use crate::launcher::{Launcher, LauncherBuilder};
use crate::types::os_text;

/// The version of the JSON form.
const REQUEST_VERSION: u32 = 1;

/// A request. An absent member, as one that is null, leaves the choice to netlaunch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestJson {
    /// Compared before.
    #[serde(rename = "version")]
    _version: IgnoredAny,
    // QEMU and passt.
    qemu: Option<QemuJson>,
    emulator: Option<OsText>,
    passt: Option<OsText>,
    backend: Option<BackendJson>,
    transport: Option<Transport>,
    // The guest's card and network.
    id: Option<String>,
    mac: Option<String>,
    device: Option<String>,
    publish: Option<Vec<String>>,
    address: Option<String>,
    gateway: Option<Ipv4Addr>,
    dns: Option<IpAddr>,
    search: Option<Vec<String>>,
    hostname: Option<String>,
    mtu: Option<u16>,
    interface: Option<String>,
    family: Option<FamilyJson>,
    host_loopback: Option<bool>,
    pcap: Option<OsText>,
    // Further NICs.
    nics: Option<Vec<String>>,
    keep_nics: Option<bool>,
    // The launch.
    name: Option<String>,
    user: Option<String>,
    from_env: Option<bool>,
    env: Option<BTreeMap<String, OsText>>,
    state_dir: Option<OsText>,
    cache_dir: Option<OsText>,
}

/// A path or an argument; any bytes, see [`os_text`].
#[derive(Debug, Deserialize)]
struct OsText(#[serde(with = "os_text::path")] PathBuf);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QemuJson {
    program: OsText,
    #[serde(default)]
    args: Vec<OsText>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BackendJson {
    Auto,
    Passt,
    Slirp,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FamilyJson {
    Both,
    Ipv4,
    Ipv6,
}

/// Reads a request.
///
/// # Errors
/// The text is not such JSON, or a value cannot be used.
pub(super) fn launcher(text: &str) -> Result<Launcher, CallError> {
    #[derive(Deserialize)]
    struct Version {
        version: Option<serde_json::Value>,
    }

    let not_json = |error| CallError::request(format!("the request cannot be read: {error}"));
    // First, since a later version may have other members.
    let Version { version } = serde_json::from_str(text).map_err(not_json)?;
    match version {
        Some(version) if version == REQUEST_VERSION => {}
        Some(version) => {
            return Err(CallError::request(format!(
                "the request has version {version}: this library reads version {REQUEST_VERSION}"
            )));
        }
        None => {
            return Err(CallError::request(format!(
                "the request has no version: write \"version\": {REQUEST_VERSION}"
            )));
        }
    }
    let request: RequestJson = serde_json::from_str(text).map_err(not_json)?;
    Ok(request.builder().build()?)
}

/// Calls the builder's method of each member that is present, with the value as `$as`.
macro_rules! set {
    ($builder:ident, $self:ident, $value:ident => $as:expr; $($member:ident),*) => {
        $(if let Some($value) = &$self.$member {
            $builder = $builder.$member($as);
        })*
    };
}

impl RequestJson {
    fn builder(&self) -> LauncherBuilder {
        let mut builder = Launcher::builder();
        if self.from_env == Some(true) {
            builder = builder.from_env();
        }
        for (name, value) in self.env.iter().flatten() {
            builder = builder.env(name, &value.0);
        }
        if let Some(qemu) = &self.qemu {
            builder = builder.qemu(&qemu.program.0, qemu.args.iter().map(|arg| &arg.0));
        }
        builder = match self.backend {
            None | Some(BackendJson::Auto) => builder,
            Some(BackendJson::Passt) => builder.backend(Backend::Passt),
            Some(BackendJson::Slirp) => builder.backend(Backend::Slirp),
        };
        builder = match self.family {
            None | Some(FamilyJson::Both) => builder,
            Some(FamilyJson::Ipv4) => builder.family(Family::V4),
            Some(FamilyJson::Ipv6) => builder.family(Family::V6),
        };
        for ports in self.publish.iter().flatten() {
            builder = builder.publish(ports.as_str());
        }
        for domain in self.search.iter().flatten() {
            builder = builder.search(domain.as_str());
        }
        for nic in self.nics.iter().flatten() {
            builder = builder.nic(nic.as_str());
        }
        set!(builder, self, value => *value; transport, gateway, dns, mtu, host_loopback);
        set!(builder, self, value => *value; keep_nics);
        set!(builder, self, text => text.as_str(); id, mac, device, address, hostname, interface);
        set!(builder, self, text => text.as_str(); name, user);
        set!(builder, self, path => &path.0; emulator, passt, pcap, state_dir, cache_dir);
        builder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let error = launcher(text).unwrap_err();
        assert_eq!(error.kind, "invalid-request", "{error:?}");
        error.message
    }

    /// Returns whether the schema of a request accepts the text.
    fn schema_accepts(text: &str) -> bool {
        let schema = include_str!("../../conf/schema/capi-request.schema.json");
        let schema = serde_json::from_str(schema).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        validator.is_valid(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn the_schema_has_exactly_the_members_of_a_request() {
        let schema = include_str!("../../conf/schema/capi-request.schema.json");
        let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        let described: std::collections::BTreeSet<_> =
            properties.keys().map(String::as_str).collect();
        let members = include_str!("request.rs").split_once("struct RequestJson {").unwrap().1;
        let members = members.split_once("\n}").unwrap().0.lines().filter_map(|line| {
            let name = line.split_once(": ")?.0.trim();
            Some(name.strip_prefix('_').unwrap_or(name)).filter(|name| !name.contains(' '))
        });
        assert_eq!(described, members.collect());
    }

    #[test]
    fn every_member_reaches_the_launcher() {
        let text = r#"{
            "version": 1, "qemu": {"program": "q", "args": ["-m", {"not-utf-8": [255]}]},
            "emulator": "e", "passt": "p", "backend": "passt", "transport": "fd", "id": "n1",
            "mac": "52:54:00:12:34:56", "device": "e1000", "publish": ["2222:22", "53:53/udp"],
            "address": "192.168.7.2/24", "gateway": "192.168.7.1", "dns": "192.168.7.3",
            "search": ["example.org"], "hostname": "h", "mtu": 1400, "interface": "eth7",
            "family": "ipv4", "host_loopback": false, "pcap": "/f", "name": "n", "user": "u",
            "from_env": false, "env": {"A": "b"}, "state_dir": "/s", "cache_dir": "/c"
        }"#;
        assert!(schema_accepts(text));
        let launcher = format!("{:?}", launcher(text).unwrap());
        for shown in [
            r#"program: "q""#,
            r#"args: ["-m", "\xFF"]"#,
            r#"emulator: Some("e")"#,
            r#"passt: Some("p")"#,
            "backend: Some(Passt)",
            "transport: Some(Fd)",
            r#""n1""#,
            "e1000",
            "device_named: true",
            "2222",
            "Udp",
            "192.168.7.2",
            "gateway: Some(192.168.7.1)",
            "dns: Some(192.168.7.3)",
            "example.org",
            r#"hostname: Some(DomainName("h"))"#,
            "mtu: Some(1400)",
            "eth7",
            "family: V4",
            "host_loopback: false",
            r#"pcap: Some("/f")"#,
            r#"name: Some(LaunchName("n"))"#,
            r#"user: Some(UserName("u"))"#,
            r#"env: [("A", "b")]"#,
            r#"state_dir: Some("/s")"#,
            r#"cache_dir: Some("/c")"#,
        ] {
            assert!(launcher.contains(shown), "{shown} is not in {launcher}");
        }
    }

    #[test]
    fn null_and_the_names_of_the_defaults_are_the_defaults() {
        let text = r#"{"version": 1, "backend": "auto", "family": "both", "mac": null,
            "host_loopback": true, "publish": [], "from_env": false}"#;
        assert!(schema_accepts(text));
        let default = launcher(r#"{"version": 1}"#).unwrap();
        assert_eq!(format!("{:?}", launcher(text).unwrap()), format!("{default:?}"));
    }

    #[test]
    fn an_unknown_member_and_a_bad_value_are_refused_by_name() {
        assert!(refused(r#"{"version": 1, "pubish": []}"#).contains("`pubish`"));
        let qemu = r#"{"version": 1, "qemu": {"program": "q", "argv": []}}"#;
        assert!(refused(qemu).contains("`argv`"));
        let ports = refused(r#"{"version": 1, "publish": ["ssh"]}"#);
        assert!(ports.starts_with("the published port is not valid: "), "{ports}");
        assert!(refused(r#"{"version": 1, "backend": "bridge"}"#).contains("`bridge`"));
        assert!(refused(r#"{"version": 1, "mtu": 70000}"#).contains("70000"));
        for text in [
            r#"{"version": 1, "pubish": []}"#,
            qemu,
            r#"{"version": 1, "backend": "bridge"}"#,
            r#"{"version": 1, "mtu": 70000}"#,
            r#"{"version": 1, "gateway": "10.0.2.256"}"#,
            r#"{"version": 1, "pcap": {"not-utf-8": [256]}}"#,
            r#"{"version": 2}"#,
            "{}",
        ] {
            assert!(!schema_accepts(text), "{text}");
            refused(text);
        }
    }

    #[test]
    fn a_request_without_version_1_is_refused() {
        assert!(refused("{}").contains(r#"write "version": 1"#));
        assert!(refused(r#"{"version": 2, "new": 1}"#).contains("version 2"));
        assert!(refused(r#"{"version": "1"}"#).contains(r#"version "1""#));
        for text in ["", "[]", "{\"version\": 1", "null"] {
            assert!(refused(text).starts_with("the request cannot be read: "), "{text}");
        }
    }
}
